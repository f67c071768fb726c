package bustest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"
)

const configuration = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path=%s</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
`

// longestSocket is the longest path that dbus-daemon listens on.
const longestSocket = 99

// Bus is a dbus-daemon. Its methods may be called from any goroutine.
type Bus struct {
	socket, config string

	mu  sync.Mutex
	cmd *exec.Cmd // nil: it does not run
}

// Start runs a daemon on the socket /run/dbus/system_bus_socket below root until the test ends.
func Start(t testing.TB, root string) *Bus {
	t.Helper()
	b := &Bus{socket: filepath.Join(root, "run/dbus/system_bus_socket"), config: filepath.Join(t.TempDir(), "bus.conf")}
	if len(b.socket) > longestSocket {
		t.Fatalf("socket path %q is longer than dbus-daemon takes, shorten the test's name or TMPDIR", b.socket)
	}
	text := fmt.Sprintf(configuration, dbus.EscapeBusAddressValue(b.socket))
	if err := os.WriteFile(b.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b.Run(t)
	t.Cleanup(b.Stop)
	return b
}

// Run starts the daemon and returns when it takes connections.
func (b *Bus) Run(t testing.TB) {
	t.Helper()
	if err := b.run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (b *Bus) run(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := os.MkdirAll(filepath.Dir(b.socket), 0o755); err != nil {
		return fmt.Errorf("making the directory of the bus: %w", err)
	}
	// What stops it is Stop: tests still talk to it in their cleanup, when their context has ended.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "dbus-daemon", "--nofork", "--nopidfile", "--print-address", "--config-file="+b.config)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("reading dbus-daemon's address: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting dbus-daemon, which these tests need (Debian: package dbus-daemon, Fedora: dbus-daemon): %w", err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		end(cmd)
		return fmt.Errorf("waiting for dbus-daemon's address: %w: %s", err, complaints.String())
	}
	b.cmd = cmd
	return nil
}

// Stop kills the daemon. One that does not run stays so.
func (b *Bus) Stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cmd != nil {
		end(b.cmd)
		b.cmd = nil
	}
	_ = os.Remove(b.socket) // a daemon that was killed leaves it
}

func end(cmd *exec.Cmd) {
	_ = cmd.Process.Kill() // it has ended already or ends now
	_ = cmd.Wait()         // it was killed: that is its error
}

// Connect opens a connection of the test's own, which ends with the test.
func (b *Bus) Connect(t testing.TB) *dbus.Conn {
	t.Helper()
	conn, err := dbus.Connect("unix:path=" + dbus.EscapeBusAddressValue(b.socket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // the daemon may be gone already
	return conn
}
