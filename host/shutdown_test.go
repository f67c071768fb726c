package host_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"kubebaton.io/baton/host"
)

func TestShutdown(t *testing.T) {
	preparing := func(v any) func(l, s script) {
		return func(l, _ script) { l.properties["PreparingForShutdown"] = v }
	}
	scheduled := func(v any) func(l, s script) {
		return func(l, _ script) { l.properties["ScheduledShutdown"] = v }
	}
	jobs := func(js ...job) func(l, s script) {
		return func(_, s script) { s.methods["ListJobs"] = func() ([]job, *dbus.Error) { return js, nil } }
	}
	at := uint64(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC).UnixMicro())
	for _, c := range []struct {
		name   string
		change func(login, systemd script)
		want   string
		err    string
	}{
		{name: "none"},
		{name: "preparing", change: preparing(true), want: "logind is preparing for a shutdown"},
		{name: "preparing, wrong type", change: preparing("no"), err: "wrong type"},
		{name: "preparing, unknown", change: func(l, _ script) { delete(l.properties, "PreparingForShutdown") }, err: "UnknownProperty"},
		{name: "scheduled", change: scheduled(schedule{"reboot", at}), want: "reboot is scheduled for 2030-01-02T03:04:05Z"},
		{name: "scheduled, far", change: scheduled(schedule{"poweroff", 1<<64 - 1}), want: "poweroff is scheduled"},
		{name: "scheduled, left behind", change: scheduled(schedule{"reboot", 0})},
		{name: "scheduled, sleep", change: scheduled(schedule{"suspend", at})},
		{name: "scheduled, wrong type", change: scheduled("reboot"), err: "wrong type"},
		{name: "scheduled, wrong fields", change: scheduled(struct{ A, B uint64 }{1, 2}), err: "wrong type"},
		{name: "scheduled, too few", change: scheduled(struct{ A string }{"x"}), err: "wrong type"},
		{name: "scheduled, unknown", change: func(l, _ script) { delete(l.properties, "ScheduledShutdown") }, err: "UnknownProperty"},
		{name: "reboot job", change: jobs(anyJob(1, "cron.service", "start"), anyJob(2, "reboot.target", "start")), want: "systemd has queued reboot.target"},
		{name: "kexec job", change: jobs(anyJob(1, "kexec.target", "start")), want: "systemd has queued kexec.target"},
		{name: "soft-reboot job", change: jobs(anyJob(1, "soft-reboot.target", "start")), want: "systemd has queued soft-reboot.target"},
		{name: "shutdown job", change: jobs(anyJob(1, "shutdown.target", "start")), want: "systemd has queued shutdown.target"},
		{name: "poweroff job", change: jobs(anyJob(1, "poweroff.target", "start")), want: "systemd has queued poweroff.target"},
		{name: "halt job", change: jobs(anyJob(1, "systemd-halt.service", "start")), want: "systemd has queued systemd-halt.service"},
		{name: "job that stops", change: jobs(anyJob(1, "shutdown.target", "stop"))},
		{name: "jobs of others", change: jobs(anyJob(1, "reboot-notifier.service", "start"), anyJob(2, "my-reboot.target", "start"), anyJob(3, "reboot.service", "start"))},
		{name: "job, odd unit", change: jobs(anyJob(1, "", "start")), err: "wrong type"},
		{name: "jobs, wrong type", change: func(_, s script) {
			s.methods["ListJobs"] = func() (string, *dbus.Error) { return "none", nil }
		}, err: "listing systemd's jobs"},
		{name: "jobs, numbers", change: func(_, s script) {
			s.methods["ListJobs"] = func() ([]uint32, *dbus.Error) { return []uint32{1}, nil }
		}, err: "listing systemd's jobs"},
		{name: "jobs, too few fields", change: func(_, s script) {
			s.methods["ListJobs"] = func() ([]struct{ A uint32 }, *dbus.Error) { return []struct{ A uint32 }{{1}}, nil }
		}, err: "listing systemd's jobs"},
		{name: "jobs, wrong fields", change: func(_, s script) {
			type odd struct{ A, B, C, D, E, F uint32 }
			s.methods["ListJobs"] = func() ([]odd, *dbus.Error) { return []odd{{1, 2, 3, 4, 5, 6}}, nil }
		}, err: "listing systemd's jobs"},
		{name: "jobs, nothing", change: func(_, s script) {
			s.methods["ListJobs"] = func() *dbus.Error { return nil }
		}, err: "listing systemd's jobs"},
		{name: "stopping", change: func(_, s script) { s.properties["SystemState"] = "stopping" }, want: "systemd is stopping"},
		{name: "state, wrong type", change: func(_, s script) { s.properties["SystemState"] = uint32(1) }, err: "wrong type"},
		{name: "going down", change: func(l, _ script) {
			l.properties["PreparingForShutdown"] = busError(systemd1+".ShuttingDown", "Refusing activation, D-Bus is shutting down.")
		}, want: "systemd is shutting down"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, root := startBus(t)
			login, systemd := quietLogin(), quietSystemd()
			if c.change != nil {
				c.change(login, systemd)
			}
			service := b.serve(t, login1, login)
			b.serve(t, systemd1, systemd)
			got, err := newHost(t, host.Config{Root: root}).Shutdown(t.Context())
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("Shutdown: error %v, want one that says %q", err, c.err)
			}
			if got != c.want {
				t.Errorf("Shutdown: %q, want %q", got, c.want)
			}
			noConnections(t, service, 2)
		})
	}
}

func TestShutdownNoProof(t *testing.T) {
	t.Run("no logind, systemd quiet: none", func(t *testing.T) {
		b, root := startBus(t)
		b.serve(t, systemd1, quietSystemd())
		if got, err := newHost(t, host.Config{Root: root}).Shutdown(t.Context()); got != "" || err != nil {
			t.Errorf("Shutdown: %q, %v, want none", got, err)
		}
	})

	t.Run("no systemd: error", func(t *testing.T) {
		b, root := startBus(t)
		b.serve(t, login1, quietLogin())
		if got, err := newHost(t, host.Config{Root: root}).Shutdown(t.Context()); got != "" || err == nil {
			t.Errorf("Shutdown: %q, %v, want an error", got, err)
		}
	})

	t.Run("no bus: error", func(t *testing.T) {
		if got, err := newHost(t, host.Config{Root: t.TempDir()}).Shutdown(t.Context()); got != "" || err == nil {
			t.Errorf("Shutdown: %q, %v, want an error", got, err)
		}
	})

	// stuck answers one method never.
	stuck := func(t *testing.T, s script, method string) script {
		t.Helper()
		end := make(chan struct{})
		t.Cleanup(func() { close(end) })
		s.methods[method] = func() ([]job, *dbus.Error) { <-end; return nil, nil }
		return s
	}
	t.Run("jobs unanswered: error", func(t *testing.T) {
		b, root := startBus(t)
		b.serve(t, login1, quietLogin())
		b.serve(t, systemd1, stuck(t, quietSystemd(), "ListJobs"))
		got, err := newHost(t, host.Config{Root: root, CallTimeout: 100 * time.Millisecond}).Shutdown(t.Context())
		if got != "" || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: %q, %v, want DeadlineExceeded", got, err)
		}
	})

	t.Run("bus hangs: error", func(t *testing.T) {
		socket := filepath.Join(t.TempDir(), "bus")
		l, err := net.Listen("unix", socket) // takes connections, says nothing
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		h := newHost(t, host.Config{BusAddress: "unix:path=" + socket, CallTimeout: 100 * time.Millisecond})
		start := time.Now()
		got, err := h.Shutdown(t.Context())
		if got != "" || err == nil || !strings.Contains(err.Error(), "no answer within 100ms") {
			t.Errorf("Shutdown: %q, %v, want no answer", got, err)
		}
		if err := h.Reboot(t.Context()); err == nil || kinds(err) != nil {
			t.Errorf("Reboot: %v, want a plain refusal: nothing was asked", err)
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("two operations took %s with a call timeout of 100ms", d)
		}
	})
}

func TestBusRestart(t *testing.T) {
	b, root := startBus(t)
	h := newHost(t, host.Config{Root: root})
	serve := func() {
		b.serve(t, login1, quietLogin())
		b.serve(t, systemd1, quietSystemd())
	}
	serve()
	for range 3 {
		if got, err := h.Shutdown(t.Context()); got != "" || err != nil {
			t.Fatalf("Shutdown: %q, %v, want none", got, err)
		}
		b.stop()
		if got, err := h.Shutdown(t.Context()); got != "" || err == nil {
			t.Fatalf("Shutdown without a bus: %q, %v, want an error", got, err)
		}
		b.start(t)
		serve()
	}
	if err := h.Reboot(t.Context()); err != nil {
		t.Errorf("Reboot after the bus came back: %v", err)
	}
}

func TestInhibitors(t *testing.T) {
	list := func(locks ...inhibitor) any {
		return func() ([]inhibitor, *dbus.Error) { return locks, nil }
	}
	for _, c := range []struct {
		name   string
		method any
		want   []string
		err    string
	}{
		{name: "none", method: list()},
		{
			name: "blocks on shutdown",
			method: list(
				inhibitor{What: "shutdown:sleep", Who: "dpkg", Why: "installing\npackages", Mode: "block"},
				inhibitor{What: "idle:shutdown", Who: "backup", Why: "nightly", Mode: "block-weak"},
				inhibitor{What: "shutdown", Who: "kubelet", Why: "pods", Mode: "delay"},
				inhibitor{What: "sleep:handle-lid-switch", Who: "upower", Why: "lid", Mode: "block"},
			),
			want: []string{"backup: nightly", "dpkg: installingpackages"},
		},
		{name: "denied", method: func() ([]inhibitor, *dbus.Error) {
			return nil, busError("org.freedesktop.DBus.Error.AccessDenied", "An AppArmor policy prevents this sender")
		}, err: "AccessDenied"},
		{name: "wrong type", method: func() (string, *dbus.Error) { return "none", nil }, err: "wrong type"},
		{name: "no value", method: func() *dbus.Error { return nil }, err: "wrong type"},
		{name: "numbers", method: func() ([]uint32, *dbus.Error) { return []uint32{1}, nil }, err: "wrong type"},
		{name: "wrong fields", method: func() ([]schedule, *dbus.Error) { return []schedule{{"shutdown", 1}}, nil }, err: "wrong type"},
		{name: "a number for a word", method: func() ([]job, *dbus.Error) { return []job{anyJob(1, "a", "b")}, nil }, err: "wrong type"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, root := startBus(t)
			b.serve(t, login1, script{methods: map[string]any{"ListInhibitors": c.method}})
			got, err := newHost(t, host.Config{Root: root}).Inhibitors(t.Context())
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("Inhibitors: error %v, want one that says %q", err, c.err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("Inhibitors (-want +got):\n%s", diff)
			}
		})
	}

	t.Run("no logind: none", func(t *testing.T) {
		_, root := startBus(t)
		if got, err := newHost(t, host.Config{Root: root}).Inhibitors(t.Context()); got != nil || err != nil {
			t.Errorf("Inhibitors: %q, %v, want none", got, err)
		}
	})
}

func TestOtherRebooters(t *testing.T) {
	for _, c := range []struct {
		name   string
		method any // nil: every unit is inactive
		want   []string
		err    string
	}{
		{name: "none"},
		{name: "active ones", method: func(names []string) ([]unit, *dbus.Error) {
			var units []unit
			for _, n := range names {
				state := map[string]string{"zincati.service": "active", "kured.service": "activating", "locksmithd.service": "failed"}[n]
				if state == "" {
					state = "inactive"
				}
				units = append(units, anyUnit(n, state))
			}
			return append(units, anyUnit("zincati.service", "active")), nil // an alias is listed by its own name again
		}, want: []string{"kured.service", "zincati.service"}},
		{name: "wrong type", method: func([]string) (uint32, *dbus.Error) { return 1, nil }, err: "listing other rebooters"},
		{name: "wrong fields", method: func([]string) ([]schedule, *dbus.Error) { return []schedule{{"a", 1}}, nil }, err: "listing other rebooters"},
		{name: "refused", method: func([]string) ([]unit, *dbus.Error) {
			return nil, busError("org.freedesktop.DBus.Error.AccessDenied", "no")
		}, err: "AccessDenied"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, root := startBus(t)
			s := quietSystemd()
			if c.method != nil {
				s.methods["ListUnitsByNames"] = c.method
			}
			service := b.serve(t, systemd1, s)
			got, err := newHost(t, host.Config{Root: root}).OtherRebooters(t.Context())
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("OtherRebooters: error %v, want one that says %q", err, c.err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("OtherRebooters (-want +got):\n%s", diff)
			}
			noConnections(t, service, 1)
		})
	}
}
