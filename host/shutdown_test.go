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
	"kubebaton.io/baton/internal/bustest"
)

func TestShutdown(t *testing.T) {
	preparing := func(v any) func(l, s bustest.Service) {
		return func(l, _ bustest.Service) { l.Properties["PreparingForShutdown"] = v }
	}
	scheduled := func(v any) func(l, s bustest.Service) {
		return func(l, _ bustest.Service) { l.Properties["ScheduledShutdown"] = v }
	}
	jobs := func(js ...bustest.Job) func(l, s bustest.Service) {
		return func(_, s bustest.Service) {
			s.Methods["ListJobs"] = func() ([]bustest.Job, *dbus.Error) { return js, nil }
		}
	}
	at := uint64(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC).UnixMicro())
	for _, c := range []struct {
		name   string
		change func(login, systemd bustest.Service)
		want   string
		err    string
	}{
		{name: "none"},
		{name: "preparing", change: preparing(true), want: "logind is preparing for a shutdown"},
		{name: "preparing, wrong type", change: preparing("no"), err: "wrong type"},
		{name: "preparing, unknown", change: func(l, _ bustest.Service) { delete(l.Properties, "PreparingForShutdown") }, err: "UnknownProperty"},
		{name: "scheduled", change: scheduled(bustest.Schedule{Kind: "reboot", At: at}), want: "reboot is scheduled for 2030-01-02T03:04:05Z"},
		{name: "scheduled, far", change: scheduled(bustest.Schedule{Kind: "poweroff", At: 1<<64 - 1}), want: "poweroff is scheduled"},
		{name: "scheduled, left behind", change: scheduled(bustest.Schedule{Kind: "reboot", At: 0})},
		{name: "scheduled, sleep", change: scheduled(bustest.Schedule{Kind: "suspend", At: at})},
		{name: "scheduled, wrong type", change: scheduled("reboot"), err: "wrong type"},
		{name: "scheduled, wrong fields", change: scheduled(struct{ A, B uint64 }{1, 2}), err: "wrong type"},
		{name: "scheduled, too few", change: scheduled(struct{ A string }{"x"}), err: "wrong type"},
		{name: "scheduled, unknown", change: func(l, _ bustest.Service) { delete(l.Properties, "ScheduledShutdown") }, err: "UnknownProperty"},
		{name: "reboot job", change: jobs(bustest.AnyJob(1, "cron.service", "start"), bustest.AnyJob(2, "reboot.target", "start")), want: "systemd has queued reboot.target"},
		{name: "kexec job", change: jobs(bustest.AnyJob(1, "kexec.target", "start")), want: "systemd has queued kexec.target"},
		{name: "soft-reboot job", change: jobs(bustest.AnyJob(1, "soft-reboot.target", "start")), want: "systemd has queued soft-reboot.target"},
		{name: "shutdown job", change: jobs(bustest.AnyJob(1, "shutdown.target", "start")), want: "systemd has queued shutdown.target"},
		{name: "poweroff job", change: jobs(bustest.AnyJob(1, "poweroff.target", "start")), want: "systemd has queued poweroff.target"},
		{name: "halt job", change: jobs(bustest.AnyJob(1, "systemd-halt.service", "start")), want: "systemd has queued systemd-halt.service"},
		{name: "job that stops", change: jobs(bustest.AnyJob(1, "shutdown.target", "stop"))},
		{name: "jobs of others", change: jobs(bustest.AnyJob(1, "reboot-notifier.service", "start"), bustest.AnyJob(2, "my-reboot.target", "start"), bustest.AnyJob(3, "reboot.service", "start"))},
		{name: "job, odd unit", change: jobs(bustest.AnyJob(1, "", "start")), err: "wrong type"},
		{name: "jobs, wrong type", change: func(_, s bustest.Service) {
			s.Methods["ListJobs"] = func() (string, *dbus.Error) { return "none", nil }
		}, err: "listing systemd's jobs"},
		{name: "jobs, numbers", change: func(_, s bustest.Service) {
			s.Methods["ListJobs"] = func() ([]uint32, *dbus.Error) { return []uint32{1}, nil }
		}, err: "listing systemd's jobs"},
		{name: "jobs, too few fields", change: func(_, s bustest.Service) {
			s.Methods["ListJobs"] = func() ([]struct{ A uint32 }, *dbus.Error) { return []struct{ A uint32 }{{1}}, nil }
		}, err: "listing systemd's jobs"},
		{name: "jobs, wrong fields", change: func(_, s bustest.Service) {
			type odd struct{ A, B, C, D, E, F uint32 }
			s.Methods["ListJobs"] = func() ([]odd, *dbus.Error) { return []odd{{1, 2, 3, 4, 5, 6}}, nil }
		}, err: "listing systemd's jobs"},
		{name: "jobs, nothing", change: func(_, s bustest.Service) {
			s.Methods["ListJobs"] = func() *dbus.Error { return nil }
		}, err: "listing systemd's jobs"},
		{name: "stopping", change: func(_, s bustest.Service) { s.Properties["SystemState"] = "stopping" }, want: "systemd is stopping"},
		{name: "state, wrong type", change: func(_, s bustest.Service) { s.Properties["SystemState"] = uint32(1) }, err: "wrong type"},
		{name: "going down", change: func(l, _ bustest.Service) {
			l.Properties["PreparingForShutdown"] = bustest.Error(bustest.Systemd1+".ShuttingDown", "Refusing activation, D-Bus is shutting down.")
		}, want: "systemd is shutting down"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, root := startBus(t)
			login, systemd := bustest.Login(), bustest.Systemd()
			if c.change != nil {
				c.change(login, systemd)
			}
			service := b.Serve(t, bustest.Login1, login)
			b.Serve(t, bustest.Systemd1, systemd)
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
		b.Serve(t, bustest.Systemd1, bustest.Systemd())
		if got, err := newHost(t, host.Config{Root: root}).Shutdown(t.Context()); got != "" || err != nil {
			t.Errorf("Shutdown: %q, %v, want none", got, err)
		}
	})

	t.Run("no systemd: error", func(t *testing.T) {
		b, root := startBus(t)
		b.Serve(t, bustest.Login1, bustest.Login())
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
	stuck := func(t *testing.T, s bustest.Service, method string) bustest.Service {
		t.Helper()
		end := make(chan struct{})
		t.Cleanup(func() { close(end) })
		s.Methods[method] = func() ([]bustest.Job, *dbus.Error) { <-end; return nil, nil }
		return s
	}
	t.Run("jobs unanswered: error", func(t *testing.T) {
		b, root := startBus(t)
		b.Serve(t, bustest.Login1, bustest.Login())
		b.Serve(t, bustest.Systemd1, stuck(t, bustest.Systemd(), "ListJobs"))
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
		b.Serve(t, bustest.Login1, bustest.Login())
		b.Serve(t, bustest.Systemd1, bustest.Systemd())
	}
	serve()
	for range 3 {
		if got, err := h.Shutdown(t.Context()); got != "" || err != nil {
			t.Fatalf("Shutdown: %q, %v, want none", got, err)
		}
		b.Stop()
		if got, err := h.Shutdown(t.Context()); got != "" || err == nil {
			t.Fatalf("Shutdown without a bus: %q, %v, want an error", got, err)
		}
		b.Run(t)
		serve()
	}
	if err := h.Reboot(t.Context()); err != nil {
		t.Errorf("Reboot after the bus came back: %v", err)
	}
}

func TestInhibitors(t *testing.T) {
	list := func(locks ...bustest.Inhibitor) any {
		return func() ([]bustest.Inhibitor, *dbus.Error) { return locks, nil }
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
				bustest.Inhibitor{What: "shutdown:sleep", Who: "dpkg", Why: "installing\npackages", Mode: "block"},
				bustest.Inhibitor{What: "idle:shutdown", Who: "backup", Why: "nightly", Mode: "block-weak"},
				bustest.Inhibitor{What: "shutdown", Who: "kubelet", Why: "pods", Mode: "delay"},
				bustest.Inhibitor{What: "sleep:handle-lid-switch", Who: "upower", Why: "lid", Mode: "block"},
			),
			want: []string{"backup: nightly", "dpkg: installingpackages"},
		},
		{name: "denied", method: func() ([]bustest.Inhibitor, *dbus.Error) {
			return nil, bustest.Error("org.freedesktop.DBus.Error.AccessDenied", "An AppArmor policy prevents this sender")
		}, err: "AccessDenied"},
		{name: "wrong type", method: func() (string, *dbus.Error) { return "none", nil }, err: "wrong type"},
		{name: "no value", method: func() *dbus.Error { return nil }, err: "wrong type"},
		{name: "numbers", method: func() ([]uint32, *dbus.Error) { return []uint32{1}, nil }, err: "wrong type"},
		{name: "wrong fields", method: func() ([]bustest.Schedule, *dbus.Error) { return []bustest.Schedule{{Kind: "shutdown", At: 1}}, nil }, err: "wrong type"},
		{name: "a number for a word", method: func() ([]bustest.Job, *dbus.Error) { return []bustest.Job{bustest.AnyJob(1, "a", "b")}, nil }, err: "wrong type"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, root := startBus(t)
			b.Serve(t, bustest.Login1, bustest.Service{Methods: map[string]any{"ListInhibitors": c.method}})
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

func TestKubeletEndsPods(t *testing.T) {
	kubelet := bustest.Inhibitor{What: "shutdown", Who: "kubelet", Why: "Kubelet needs time to handle node shutdown", Mode: "delay"}
	for _, c := range []struct {
		name string
		lock bustest.Inhibitor
		want bool
	}{
		{"the kubelet delays shutdowns", kubelet, true},
		{"somebody else does", bustest.Inhibitor{What: "shutdown", Who: "unattended-upgrades", Mode: "delay"}, false},
		{"the kubelet delays something else", bustest.Inhibitor{What: "sleep", Who: "kubelet", Mode: "delay"}, false},
		{"a kubelet that blocks ends nothing", bustest.Inhibitor{What: "shutdown", Who: "kubelet", Mode: "block"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, root := startBus(t)
			b.Serve(t, bustest.Login1, bustest.Service{Methods: map[string]any{
				"ListInhibitors": func() ([]bustest.Inhibitor, *dbus.Error) { return []bustest.Inhibitor{c.lock}, nil },
			}})
			if got, err := newHost(t, host.Config{Root: root}).KubeletEndsPods(t.Context()); got != c.want || err != nil {
				t.Errorf("got %v, %v, want %v", got, err, c.want)
			}
		})
	}
	t.Run("no logind: nobody", func(t *testing.T) {
		_, root := startBus(t)
		if got, err := newHost(t, host.Config{Root: root}).KubeletEndsPods(t.Context()); got || err != nil {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("no bus: an error", func(t *testing.T) {
		if _, err := newHost(t, host.Config{Root: t.TempDir()}).KubeletEndsPods(t.Context()); err == nil {
			t.Error("no error without a bus")
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
		{name: "active ones", method: func(names []string) ([]bustest.Unit, *dbus.Error) {
			var units []bustest.Unit
			for _, n := range names {
				state := map[string]string{"zincati.service": "active", "kured.service": "activating", "locksmithd.service": "failed"}[n]
				if state == "" {
					state = "inactive"
				}
				units = append(units, bustest.AnyUnit(n, state))
			}
			return append(units, bustest.AnyUnit("zincati.service", "active")), nil // an alias is listed by its own name again
		}, want: []string{"kured.service", "zincati.service"}},
		{name: "wrong type", method: func([]string) (uint32, *dbus.Error) { return 1, nil }, err: "listing other rebooters"},
		{name: "wrong fields", method: func([]string) ([]bustest.Schedule, *dbus.Error) { return []bustest.Schedule{{Kind: "a", At: 1}}, nil }, err: "listing other rebooters"},
		{name: "refused", method: func([]string) ([]bustest.Unit, *dbus.Error) {
			return nil, bustest.Error("org.freedesktop.DBus.Error.AccessDenied", "no")
		}, err: "AccessDenied"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, root := startBus(t)
			s := bustest.Systemd()
			if c.method != nil {
				s.Methods["ListUnitsByNames"] = c.method
			}
			service := b.Serve(t, bustest.Systemd1, s)
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
