// Package host is Baton's door to the machine under its node: the sentinel files that say a reboot is wanted, the boot ID
// that proves one, and systemd, which is asked to do it, and to run the hooks that people put there. Every path in its
// configuration is a path of the host; the package looks for it below Root, where the host's directories are mounted
// (read-only is enough), and reads no sentinel through a symbolic link out of it. logind and systemd are reached over the
// host's system bus. This process starts no other: hooks are children of systemd.
//
// # Guarantees
//
//   - A sentinel that cannot be read is an error, never "none".
//   - A fingerprint depends on what asks for the reboot and nothing else: the same sentinel, made again after the boot, has
//     the same fingerprint, whatever its times.
//   - [Host.Watch] tells of a sentinel that is written, replaced or removed within 100 ms while inotify works, also when its
//     directory is made later; without inotify, or when an event was lost, at the next re-read.
//   - [Host.Shutdown] returns "" only after logind and systemd have both answered, and each said that no shutdown is coming.
//     On a host that has no logind, systemd's answer alone. A question that failed is an error.
//   - [Host.Reboot] reads logind's answer. nil means accepted. [ErrInhibited] and [ErrInProgress] are systemd's
//     refusals; [ErrUnknown] means that the request may have been heard and its answer is lost; with any other error no
//     reboot was accepted.
//   - [Host.RunHooks] has systemd run what nobody but root can have put or changed there, or names the file and refuses. A hook
//     is started once for one stage, cycle and attempt, whatever becomes of this process and of the bus meanwhile; its end is
//     told by systemd, which is not polled. Exit code 0 is success and nothing else is.
//   - Every wait for the bus ends, at the latest, with CallTimeout; that for the end of a hook, with the hook's own timeout. A
//     bus that was restarted is found again: each operation opens its own connection and closes it, so that none is ever stale
//     and an idle agent holds none.
//   - [Host.Lock] is held by at most one process on the host, in whatever container, and the kernel gives it back when that
//     process ends.
//
// # Not guaranteed
//
//   - That a hook which was started has an effect once, or at all. Who stops its unit by hand, and makes systemd forget it while
//     no agent runs, has it run again.
//   - That a reboot comes. Accepted means accepted: only a changed boot ID proves a reboot.
//   - That no shutdown begins after [Host.Shutdown] returned, or that one forced past systemd (reboot -ff, sysrq, the power
//     button's firmware, a hypervisor) is ever seen.
//   - That a `block` inhibitor holds back a reboot by root before systemd 257 when its owner is root too: logind itself lets
//     that pass. Ask [Host.Inhibitors] before.
//   - That another rebooter on the host is found: only the units this package knows by name are.
package host
