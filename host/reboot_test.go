package host_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"kubebaton.io/baton/host"
	"kubebaton.io/baton/internal/bustest"
)

// calls records what services were asked, in order.
type calls struct {
	mu  sync.Mutex
	got []string
}

func (c *calls) add(s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = append(c.got, s)
}

func (c *calls) list() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.got)
}

// kinds are the errors a caller of Reboot tells apart.
func kinds(err error) []string {
	var out []string
	for name, kind := range map[string]error{
		"inhibited": host.ErrInhibited, "in progress": host.ErrInProgress, "unknown": host.ErrUnknown,
	} {
		if errors.Is(err, kind) {
			out = append(out, name)
		}
	}
	return out
}

func TestReboot(t *testing.T) {
	unknownMethod := bustest.Error("org.freedesktop.DBus.Error.UnknownMethod", "Unknown method")
	for _, c := range []struct {
		name      string
		withFlags *dbus.Error // RebootWithFlags answers; unknownMethod: is not there
		old       *dbus.Error // Reboot(b) answers
		blocked   bool        // an inhibitor is listed
		asked     []string    // nil: RebootWithFlags alone
		accepted  bool
		kind      string
		says      string
	}{
		{name: "accepted", accepted: true},
		{
			name: "blocked", withFlags: bustest.Error(bustest.Login1+".BlockedByInhibitorLock", "Operation denied due to active block inhibitor"),
			kind: "inhibited", says: bustest.Login1 + ".BlockedByInhibitorLock: Operation denied",
		},
		{
			name: "denied by inhibitor", withFlags: bustest.Error("org.freedesktop.DBus.Error.AccessDenied", "Access denied to root due to active block inhibitor"),
			kind: "inhibited", says: "AccessDenied",
		},
		{
			name: "polkit, inhibitor held", blocked: true,
			withFlags: bustest.Error("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", "Interactive authentication required."),
			kind:      "inhibited", says: "InteractiveAuthorizationRequired",
		},
		{
			name:      "polkit, no inhibitor",
			withFlags: bustest.Error("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", "Interactive authentication required."),
			says:      "not permitted: org.freedesktop.DBus.Error.InteractiveAuthorizationRequired: Interactive authentication required",
		},
		{
			name: "AppArmor", withFlags: bustest.Error("org.freedesktop.DBus.Error.AccessDenied", "An AppArmor policy prevents this sender from sending this message"),
			says: "not permitted: org.freedesktop.DBus.Error.AccessDenied: An AppArmor",
		},
		{
			name: "in progress", withFlags: bustest.Error(bustest.Login1+".OperationInProgress", "There's already a shutdown or sleep operation in progress"),
			kind: "in progress", says: "OperationInProgress",
		},
		{
			name: "destructive", withFlags: bustest.Error(bustest.Systemd1+".TransactionIsDestructive", "Transaction for reboot.target/start is destructive"),
			kind: "in progress", says: "TransactionIsDestructive",
		},
		{
			name: "logind died", withFlags: bustest.Error("org.freedesktop.DBus.Error.NoReply", "Message recipient disconnected from message bus without replying"),
			kind: "unknown", says: "NoReply",
		},
		{
			name: "another error", withFlags: bustest.Error("org.freedesktop.DBus.Error.LimitsExceeded", "too many"),
			says: "LimitsExceeded: too many",
		},
		{name: "old, accepted", withFlags: unknownMethod, accepted: true, asked: []string{"Reboot false"}},
		{
			name: "old, blocked", withFlags: unknownMethod, asked: []string{"Reboot false"},
			old:  bustest.Error(bustest.Login1+".BlockedByInhibitorLock", "Operation denied due to active block inhibitor"),
			kind: "inhibited", says: "BlockedByInhibitorLock",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, root := startBus(t)
			var asked calls
			s := bustest.Login()
			s.Methods["Reboot"] = func(interactive bool) *dbus.Error {
				asked.add(map[bool]string{false: "Reboot false", true: "Reboot true"}[interactive])
				return c.old
			}
			s.Methods["RebootWithFlags"] = func(flags uint64) *dbus.Error {
				asked.add(map[bool]string{false: "RebootWithFlags ?", true: "RebootWithFlags 1"}[flags == 1])
				return c.withFlags
			}
			if c.withFlags == unknownMethod {
				delete(s.Methods, "RebootWithFlags")
			}
			if c.blocked {
				s.Methods["ListInhibitors"] = func() ([]bustest.Inhibitor, *dbus.Error) {
					return []bustest.Inhibitor{{What: "shutdown", Who: "dpkg", Mode: "block"}}, nil
				}
			}
			service := b.Serve(t, bustest.Login1, s)
			b.Serve(t, bustest.Systemd1, bustest.Service{Methods: map[string]any{"StartUnit": func(string, string) (dbus.ObjectPath, *dbus.Error) {
				asked.add("StartUnit")
				return "/", nil
			}}})

			err := newHost(t, host.Config{Root: root}).Reboot(t.Context())
			if (err == nil) != c.accepted {
				t.Fatalf("Reboot: %v, accepted should be %t", err, c.accepted)
			}
			var want []string
			if c.kind != "" {
				want = []string{c.kind}
			}
			if diff := cmp.Diff(want, kinds(err)); diff != "" {
				t.Errorf("%v is of the wrong kind (-want +got):\n%s", err, diff)
			}
			if err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %q does not say %q", err, c.says)
			}
			if c.asked == nil {
				c.asked = []string{"RebootWithFlags 1"}
			}
			if diff := cmp.Diff(c.asked, asked.list()); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
			noConnections(t, service, 2)
		})
	}
}

func TestRebootNoLogind(t *testing.T) {
	for _, c := range []struct {
		name     string
		reply    any // of StartUnit
		accepted bool
		kinds    []string
	}{
		{"accepted", func(string, string) (dbus.ObjectPath, *dbus.Error) { return systemdJob, nil }, true, nil},
		{"destructive", func(string, string) (dbus.ObjectPath, *dbus.Error) {
			return "/", bustest.Error(bustest.Systemd1+".TransactionIsDestructive", "destructive")
		}, false, []string{"in progress"}},
		{"polkit", func(string, string) (dbus.ObjectPath, *dbus.Error) {
			return "/", bustest.Error("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", "Interactive authentication required.")
		}, false, nil},
		// It answered, so it was heard: a reboot may come.
		{"reply of wrong type", func(string, string) (bool, *dbus.Error) { return true, nil }, false, []string{"unknown"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, root := startBus(t)
			var asked calls
			b.Serve(t, bustest.Systemd1, bustest.Service{Methods: map[string]any{"StartUnit": recording(&asked, c.reply)}})
			err := newHost(t, host.Config{Root: root}).Reboot(t.Context())
			if (err == nil) != c.accepted {
				t.Fatalf("Reboot: %v, accepted should be %t", err, c.accepted)
			}
			if diff := cmp.Diff(c.kinds, kinds(err)); diff != "" {
				t.Errorf("%v is of the wrong kind (-want +got):\n%s", err, diff)
			}
			if diff := cmp.Diff([]string{"StartUnit reboot.target replace-irreversibly"}, asked.list()); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
		})
	}

	t.Run("nor systemd: refused", func(t *testing.T) {
		_, root := startBus(t)
		err := newHost(t, host.Config{Root: root}).Reboot(t.Context())
		if err == nil || kinds(err) != nil || !strings.Contains(err.Error(), "ServiceUnknown") {
			t.Errorf("Reboot: %v, want a plain refusal that says ServiceUnknown", err)
		}
	})
}

const systemdJob = dbus.ObjectPath("/org/freedesktop/systemd1/job/1")

func recording(c *calls, reply any) any {
	switch f := reply.(type) {
	case func(string, string) (dbus.ObjectPath, *dbus.Error):
		return func(a, b string) (dbus.ObjectPath, *dbus.Error) { c.add("StartUnit " + a + " " + b); return f(a, b) }
	case func(string, string) (bool, *dbus.Error):
		return func(a, b string) (bool, *dbus.Error) { c.add("StartUnit " + a + " " + b); return f(a, b) }
	default:
		panic("unknown shape")
	}
}

func TestRebootLost(t *testing.T) {
	// hear starts a logind that takes the request and does not answer.
	hear := func(t *testing.T, b *bustest.Bus) (heard chan struct{}, service *dbus.Conn) {
		t.Helper()
		heard = make(chan struct{}, 1)
		end := make(chan struct{})
		s := bustest.Login()
		s.Methods["RebootWithFlags"] = func(uint64) *dbus.Error { heard <- struct{}{}; <-end; return nil }
		service = b.Serve(t, bustest.Login1, s)
		t.Cleanup(func() { close(end) })
		return heard, service
	}

	t.Run("no answer in time", func(t *testing.T) {
		b, root := startBus(t)
		hear(t, b)
		start := time.Now()
		err := newHost(t, host.Config{Root: root, CallTimeout: 2 * time.Second}).Reboot(t.Context()) // the bus is reached well before that
		if !errors.Is(err, host.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Reboot: %v, want ErrUnknown and DeadlineExceeded", err)
		}
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("Reboot took %s with a call timeout of 2 s", d)
		}
	})

	t.Run("caller gone", func(t *testing.T) {
		b, root := startBus(t)
		heard, _ := hear(t, b)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-heard; cancel() }()
		if err := newHost(t, host.Config{Root: root}).Reboot(ctx); !errors.Is(err, host.ErrUnknown) {
			t.Errorf("Reboot: %v, want ErrUnknown", err)
		}
	})

	t.Run("bus killed", func(t *testing.T) {
		b, root := startBus(t)
		heard, _ := hear(t, b)
		go func() { <-heard; b.Stop() }()
		if err := newHost(t, host.Config{Root: root}).Reboot(t.Context()); !errors.Is(err, host.ErrUnknown) {
			t.Errorf("Reboot: %v, want ErrUnknown", err)
		}
	})

	t.Run("logind gone", func(t *testing.T) {
		b, root := startBus(t)
		heard, service := hear(t, b)
		go func() { <-heard; _ = service.Close() }()
		if err := newHost(t, host.Config{Root: root}).Reboot(t.Context()); !errors.Is(err, host.ErrUnknown) {
			t.Errorf("Reboot: %v, want ErrUnknown", err)
		}
	})
}

func TestRebootNotAsked(t *testing.T) {
	t.Run("no bus", func(t *testing.T) {
		err := newHost(t, host.Config{Root: t.TempDir()}).Reboot(t.Context())
		if err == nil || kinds(err) != nil {
			t.Errorf("Reboot: %v, want a plain refusal", err)
		}
	})

	t.Run("ended context", func(t *testing.T) {
		b, root := startBus(t)
		var asked calls
		s := bustest.Login()
		s.Methods["RebootWithFlags"] = func(uint64) *dbus.Error { asked.add("RebootWithFlags"); return nil }
		b.Serve(t, bustest.Login1, s)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := newHost(t, host.Config{Root: root}).Reboot(ctx)
		if !errors.Is(err, context.Canceled) || kinds(err) != nil || asked.list() != nil {
			t.Errorf("Reboot: %v, asked %q, want a plain refusal and nothing asked", err, asked.list())
		}
	})
}
