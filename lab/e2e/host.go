package e2e

import (
	"context"
	"errors"
	"os"
	"strings"
)

const (
	inhibitorWho = "e2e updater"
	inhibitorWhy = "writes the firmware"
)

const inhibitorUnit = "e2e-inhibitor.service"

// startInhibitor runs a unit that blocks shutdown, as an updater would, and returns when the lock is held. stop ends it.
func (w *world) startInhibitor(ctx context.Context, node string) (stop func(context.Context) error, err error) {
	stopped := false
	stop = func(ctx context.Context) error {
		if stopped {
			return nil
		}
		_, err := w.c.Exec(ctx, node, "systemctl", "stop", inhibitorUnit)
		if err != nil && strings.Contains(err.Error(), "not loaded") {
			err = nil // it went with its boot
		}
		stopped = err == nil
		return err
	}
	w.later(stop)
	if _, err := w.c.Exec(ctx, node, "systemd-run", "--collect", "--unit="+inhibitorUnit,
		"systemd-inhibit", "--what=shutdown", "--mode=block", "--who="+inhibitorWho, "--why="+inhibitorWhy, "sleep", "infinity"); err != nil {
		return nil, err
	}
	return stop, until(ctx, "the inhibitor on "+node, func() (bool, error) {
		list, err := w.c.Exec(ctx, node, "systemd-inhibit", "--list", "--no-legend")
		return strings.Contains(list, inhibitorWho), err
	})
}

// denyReboots makes the bus of a node refuse logind's reboot call to everybody. Nothing shows that beforehand. allow ends it.
func (w *world) denyReboots(ctx context.Context, node string) (allow func(context.Context) error, err error) {
	const policy = `<busconfig><policy context="mandatory">
<deny send_destination="org.freedesktop.login1" send_interface="org.freedesktop.login1.Manager" send_member="RebootWithFlags"/>
</policy></busconfig>
`
	path, err := w.c.File(node, "/etc/dbus-1/system.d/e2e.conf")
	if err != nil {
		return nil, err
	}
	reload := func(ctx context.Context) error {
		_, err := w.c.Exec(ctx, node, "systemctl", "reload", "dbus")
		return err
	}
	allow = func(ctx context.Context) error {
		path, err := w.c.File(node, "/etc/dbus-1/system.d/e2e.conf")
		if err != nil {
			return err
		}
		switch err := os.Remove(path); {
		case os.IsNotExist(err):
			return nil
		case err != nil:
			return err
		}
		return reload(ctx)
	}
	w.later(allow)
	if err := os.WriteFile(path, []byte(policy), 0o644); err != nil {
		return nil, err
	}
	return allow, reload(ctx)
}

// raiseAtBoot installs a unit that raises a sentinel for linux-image-amd64 at every boot, before the kubelet runs.
func (w *world) raiseAtBoot(node string) error {
	const unit = `[Unit]
Before=kubelet.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo linux-image-amd64 >/run/reboot-required.pkgs; echo "*** System restart required ***" >/run/reboot-required'
`
	const at, wanted = "/etc/systemd/system/e2e-sentinel.service", "/etc/systemd/system/multi-user.target.wants/e2e-sentinel.service"
	w.later(func(context.Context) error {
		for _, f := range []string{wanted, at} {
			path, err := w.c.File(node, f)
			if err == nil {
				err = os.Remove(path)
			}
			if err != nil && !os.IsNotExist(err) {
				return err
			}
		}
		return nil
	})
	path, err := w.c.File(node, at)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(unit), 0o644); err != nil {
		return err
	}
	if path, err = w.c.File(node, wanted); err != nil {
		return err
	}
	return os.Symlink(at, path)
}

// reboot is what a person does on the host. The command may not live to see the end of it.
func (w *world) reboot(ctx context.Context, node string) error {
	before, err := w.reboots()
	if err != nil {
		return err
	}
	_, execErr := w.c.Exec(ctx, node, "systemctl", "reboot")
	return until(ctx, node+" to go down", func() (bool, error) {
		now, err := w.reboots()
		return now[node] > before[node], errors.Join(err, execErr)
	})
}
