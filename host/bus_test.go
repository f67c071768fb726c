package host_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"kubebaton.io/baton/host"
)

const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
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

// bus is a real dbus-daemon of the test's own.
type bus struct {
	socket string
	config string
	cmd    *exec.Cmd
}

// startBus starts a bus on a socket below a fresh root, at the place where a host has its system bus.
func startBus(t *testing.T) (b *bus, root string) {
	t.Helper()
	root = t.TempDir()
	b = &bus{socket: filepath.Join(root, "run/dbus/system_bus_socket"), config: filepath.Join(root, "bus.conf")}
	if len(b.socket) > 99 { // what dbus-daemon takes
		t.Fatalf("socket path %q is longer than dbus-daemon takes, shorten the test's name or TMPDIR", b.socket)
	}
	mkdir(t, filepath.Dir(b.socket))
	write(t, b.config, fmt.Sprintf(busConfig, dbus.EscapeBusAddressValue(b.socket)))
	b.start(t)
	t.Cleanup(b.stop)
	return b, root
}

func (b *bus) start(t *testing.T) {
	t.Helper()
	b.cmd = exec.Command("dbus-daemon", "--nofork", "--nopidfile", "--print-address", "--config-file="+b.config)
	var complaints bytes.Buffer
	b.cmd.Stderr = &complaints
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.cmd.Start(); err != nil {
		t.Fatalf("starting dbus-daemon, which these tests need (Debian: package dbus-daemon, Fedora: dbus-daemon): %v", err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		_ = b.cmd.Wait()
		t.Fatalf("waiting for dbus-daemon's address: %v\n%s", err, complaints.String())
	}
}

func (b *bus) stop() {
	if b.cmd != nil {
		_ = b.cmd.Process.Kill()
		_ = b.cmd.Wait()
		b.cmd = nil
	}
	_ = os.Remove(b.socket)
}

func (b *bus) connect(t *testing.T) *dbus.Conn {
	t.Helper()
	conn, err := dbus.Connect("unix:path=" + dbus.EscapeBusAddressValue(b.socket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// script says what a service answers: methods by name, and properties by name through Properties.Get.
type script struct {
	methods    map[string]any
	properties map[string]any
}

func (b *bus) serve(t *testing.T, name string, s script) *dbus.Conn {
	t.Helper()
	conn := b.connect(t)
	path := dbus.ObjectPath("/" + strings.ReplaceAll(name, ".", "/"))
	get := func(iface, property string) (dbus.Variant, *dbus.Error) {
		v, ok := s.properties[property]
		if !ok || iface != name+".Manager" {
			return dbus.Variant{}, busError("org.freedesktop.DBus.Error.UnknownProperty", "no such property")
		}
		if err, ok := v.(*dbus.Error); ok {
			return dbus.Variant{}, err
		}
		return dbus.MakeVariant(v), nil
	}
	exports := map[string]map[string]any{name + ".Manager": s.methods, "org.freedesktop.DBus.Properties": {"Get": get}}
	for iface, methods := range exports {
		if err := conn.ExportMethodTable(methods, path, iface); err != nil {
			t.Fatal(err)
		}
	}
	if reply, err := conn.RequestName(name, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("taking name %s: reply %v, error %v", name, reply, err)
	}
	return conn
}

func busError(name, text string) *dbus.Error { return dbus.NewError(name, []any{text}) }

// Names and shapes on the bus.
const (
	login1   = "org.freedesktop.login1"
	systemd1 = "org.freedesktop.systemd1"
)

type schedule struct {
	Kind string
	At   uint64
}

type inhibitor struct {
	What, Who, Why, Mode string
	UID, PID             uint32
}

type job struct {
	ID               uint32
	Unit, Type, Stat string
	Path, UnitPath   dbus.ObjectPath
}

type unit struct {
	Name, Description, LoadState, ActiveState, SubState, Followed string
	Path                                                          dbus.ObjectPath
	JobID                                                         uint32
	JobType                                                       string
	JobPath                                                       dbus.ObjectPath
}

// quietLogin is a logind, quietSystemd a systemd, with nothing going on.
func quietLogin() script {
	return script{
		methods: map[string]any{
			"ListInhibitors":  func() ([]inhibitor, *dbus.Error) { return []inhibitor{}, nil },
			"RebootWithFlags": func(uint64) *dbus.Error { return nil },
		},
		properties: map[string]any{"PreparingForShutdown": false, "ScheduledShutdown": schedule{"", 1<<64 - 1}},
	}
}

func quietSystemd() script {
	return script{
		methods: map[string]any{
			"ListJobs": func() ([]job, *dbus.Error) { return []job{}, nil },
			"ListUnitsByNames": func(names []string) ([]unit, *dbus.Error) {
				units := make([]unit, 0, len(names))
				for _, n := range names {
					units = append(units, anyUnit(n, "inactive"))
				}
				return units, nil
			},
			"StartUnit": func(string, string) (dbus.ObjectPath, *dbus.Error) { return "/org/freedesktop/systemd1/job/1", nil },
		},
		properties: map[string]any{"SystemState": "running"},
	}
}

func anyUnit(name, state string) unit {
	return unit{Name: name, LoadState: "loaded", ActiveState: state, SubState: "x", Path: "/u", JobPath: "/"}
}

func anyJob(id uint32, name, kind string) job {
	return job{ID: id, Unit: name, Type: kind, Stat: "waiting", Path: "/j", UnitPath: "/u"}
}

func newHost(t *testing.T, c host.Config) *host.Host {
	t.Helper()
	h, err := host.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// noConnections waits until only the given connections are on the bus.
func noConnections(t *testing.T, conn *dbus.Conn, want int) {
	t.Helper()
	var names []string
	eventually(t, func() bool {
		names = nil
		if err := conn.BusObject().Call("org.freedesktop.DBus.ListNames", 0).Store(&names); err != nil {
			t.Fatal(err)
		}
		names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, ":") })
		return len(names) == want
	}, func() string { return fmt.Sprintf("%d connections are on the bus, want %d", len(names), want) })
}

func eventually(t *testing.T, ok func() bool, say func() string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatal(say())
		case <-tick.C:
		}
	}
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
