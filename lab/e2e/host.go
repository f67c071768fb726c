package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

const (
	inhibitorWho = "e2e updater"
	inhibitorWhy = "writes the firmware"
)

const inhibitorUnit = "e2e-inhibitor.service"

// inhibit runs a unit that blocks shutdown, as an updater would, and returns when the lock is held. stop ends it.
func (p *play) inhibit(node string) (stop func()) {
	stopped := false
	end := func(ctx context.Context) error {
		if stopped {
			return nil
		}
		_, err := p.c.Exec(ctx, node, "systemctl", "stop", inhibitorUnit)
		if err != nil && strings.Contains(err.Error(), "not loaded") {
			err = nil // it went with its boot
		}
		stopped = err == nil
		return err
	}
	p.later(end)
	p.exec(node, "systemd-run", "--collect", "--unit="+inhibitorUnit,
		"systemd-inhibit", "--what=shutdown", "--mode=block", "--who="+inhibitorWho, "--why="+inhibitorWhy, "sleep", "infinity")
	p.until("the inhibitor on "+node, func() (bool, error) {
		list, err := p.c.Exec(p.ctx, node, "systemd-inhibit", "--list", "--no-legend")
		return strings.Contains(list, inhibitorWho), err
	})
	return func() { p.must(end(p.ctx)) }
}

// denyReboots makes the bus of a node refuse logind's reboot call to everybody. Nothing shows that beforehand. allow ends it.
func (p *play) denyReboots(node string) (allow func()) {
	const policy = `<busconfig><policy context="mandatory">
<deny send_destination="org.freedesktop.login1" send_interface="org.freedesktop.login1.Manager" send_member="RebootWithFlags"/>
</policy></busconfig>
`
	const at = "/etc/dbus-1/system.d/e2e.conf"
	reload := func(ctx context.Context) error {
		_, err := p.c.Exec(ctx, node, "systemctl", "reload", "dbus")
		return err
	}
	end := func(ctx context.Context) error {
		switch err := p.remove(node, at); {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		}
		return reload(ctx)
	}
	p.later(end)
	p.write(node, at, policy)
	p.must(reload(p.ctx))
	return func() { p.must(end(p.ctx)) }
}

// atBoot makes a node run a shell command at every boot, before anything of Kubernetes runs there.
func (p *play) atBoot(node, command string) {
	const at, wanted = "/etc/systemd/system/e2e.service", "/etc/systemd/system/multi-user.target.wants/e2e.service"
	p.later(func(context.Context) error {
		for _, f := range []string{wanted, at} {
			if err := p.remove(node, f); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	})
	p.write(node, at, "[Unit]\nAfter=dbus.service systemd-logind.service\nBefore=containerd.service kubelet.service\n[Service]\nType=oneshot\nExecStart=/bin/sh -c '"+command+"'\n")
	path, err := p.c.File(node, wanted)
	p.must(err)
	p.must(os.Symlink(at, path))
}

// write writes a file in a node.
func (p *play) write(node, path, text string) {
	at, err := p.c.File(node, path)
	p.must(err)
	p.must(os.WriteFile(at, []byte(text), 0o644))
}

func (w *world) remove(node, path string) error {
	at, err := w.c.File(node, path)
	if err != nil {
		return err
	}
	return os.Remove(at)
}

// reboot is what a person does on the host. The command may not live to see the end of it.
func (p *play) reboot(node string) {
	_, err := p.c.Exec(p.ctx, node, "systemctl", "reboot")
	p.wentDown(node, err)
}

// wentDown waits until a machine has been switched off since the scenario began; err may be why it is not.
func (p *play) wentDown(node string, err error) {
	p.until(node+" to go down", func() (bool, error) {
		n, countErr := p.reboots()
		return n[node] > 0, errors.Join(err, countErr)
	})
}

const slowUnit = "e2e-slow.service"

// slowStop runs a unit on the host that takes this long to stop. What an agent needs is not stopped before it has.
func (p *play) slowStop(node string, takes time.Duration) {
	p.later(func(ctx context.Context) error {
		// As a rule it went with its boot.
		_, _ = p.c.Exec(ctx, node, "systemctl", "kill", "--signal=KILL", slowUnit)
		return nil
	})
	p.exec(node, "systemd-run", "--collect", "--unit="+slowUnit,
		"--property=After=kubelet.service containerd.service systemd-logind.service dbus.service",
		fmt.Sprintf("--property=ExecStop=/bin/sleep %.0f", takes.Seconds()), "sleep", "infinity")
}

// goingDown waits until the host, with such a unit, does what it was asked for.
func (p *play) goingDown(node string) {
	p.until(node+" to stop its units", func() (bool, error) {
		state, err := p.c.Exec(p.ctx, node, "systemctl", "show", "--property=ActiveState", "--value", slowUnit)
		return strings.TrimSpace(state) == "deactivating", errors.Join(err, fmt.Errorf("it is %s", state))
	})
}

const (
	networkConf = "/etc/cni/net.d/10-lab.conflist"
	networkOff  = "/etc/cni/off"
)

// cutNetwork takes the pod network away from a node, so that it is not Ready any more. mend gives it back.
func (p *play) cutNetwork(node string) (mend func()) {
	p.exec(node, "mv", networkConf, networkOff)
	return p.mendingNetwork(node)
}

// mendingNetwork returns what gives the pod network back.
func (p *play) mendingNetwork(node string) (mend func()) {
	end := func(ctx context.Context) error {
		// Written and not renamed: containerd does not see that.
		_, err := p.c.Exec(ctx, node, "sh", "-c", "if [ -e "+networkOff+" ]; then rm -rf "+networkConf+"; cp "+networkOff+" "+networkConf+" && rm "+networkOff+"; fi")
		return err
	}
	p.later(end)
	return func() { p.must(end(p.ctx)) }
}

// The socket of the system bus: who wants to connect does not find it while it is away.
const busSocket, busOff = "/run/dbus/system_bus_socket", "/run/dbus/off"

// cutBus keeps everybody who is not connected yet from the bus of a node. mend ends that.
func (p *play) cutBus(node string) (mend func()) {
	p.exec(node, "mv", busSocket, busOff)
	return p.mendingBus(node)
}

// mendingBus returns what gives the bus back.
func (p *play) mendingBus(node string) (mend func()) {
	end := func(ctx context.Context) error {
		_, err := p.c.Exec(ctx, node, "sh", "-c", "if [ -e "+busOff+" ]; then mv "+busOff+" "+busSocket+"; fi")
		return err
	}
	p.later(end)
	return func() { p.must(end(p.ctx)) }
}
