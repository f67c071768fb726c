package bustest

import (
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
)

// The names of the services that an agent knows.
const (
	Login1   = "org.freedesktop.login1"
	Systemd1 = "org.freedesktop.systemd1"
)

// Service is what a service answers in its Manager interface.
type Service struct {
	// Methods are functions by name, as godbus exports them: their last result is a *dbus.Error.
	Methods map[string]any
	// Properties are values by name, read with Properties.Get. A *dbus.Error is what reading the property ends with; a
	// func() any is asked each time.
	Properties map[string]any
}

// Schedule is logind's ScheduledShutdown: what kind, and when in µs since 1970.
type Schedule struct {
	Kind string
	At   uint64
}

// Inhibitor is one of logind's ListInhibitors.
type Inhibitor struct {
	What, Who, Why, Mode string
	UID, PID             uint32
}

// Job is one of systemd's ListJobs.
type Job struct {
	ID               uint32
	Unit, Type, Stat string
	Path, UnitPath   dbus.ObjectPath
}

// Unit is one of systemd's ListUnitsByNames.
type Unit struct {
	Name, Description, LoadState, ActiveState, SubState, Followed string
	Path                                                          dbus.ObjectPath
	JobID                                                         uint32
	JobType                                                       string
	JobPath                                                       dbus.ObjectPath
}

// Login is a logind with nothing going on. It accepts a reboot and does nothing.
func Login() Service {
	return Service{
		Methods: map[string]any{
			"ListInhibitors":  func() ([]Inhibitor, *dbus.Error) { return []Inhibitor{}, nil },
			"RebootWithFlags": func(uint64) *dbus.Error { return nil },
		},
		Properties: map[string]any{"PreparingForShutdown": false, "ScheduledShutdown": Schedule{At: 1<<64 - 1}},
	}
}

// Systemd is a systemd with nothing going on.
func Systemd() Service {
	return Service{
		Methods: map[string]any{
			"ListJobs": func() ([]Job, *dbus.Error) { return []Job{}, nil },
			"ListUnitsByNames": func(names []string) ([]Unit, *dbus.Error) {
				units := make([]Unit, 0, len(names))
				for _, n := range names {
					units = append(units, AnyUnit(n, "inactive"))
				}
				return units, nil
			},
			"StartUnit": func(string, string) (dbus.ObjectPath, *dbus.Error) { return "/org/freedesktop/systemd1/job/1", nil },
		},
		Properties: map[string]any{"SystemState": "running"},
	}
}

// AnyUnit is a unit of that name in that state.
func AnyUnit(name, state string) Unit {
	return Unit{Name: name, LoadState: "loaded", ActiveState: state, SubState: "x", Path: "/u", JobPath: "/"}
}

// AnyJob is a job of that kind, such as start, for a unit.
func AnyJob(id uint32, unit, kind string) Job {
	return Job{ID: id, Unit: unit, Type: kind, Stat: "waiting", Path: "/j", UnitPath: "/u"}
}

// Error is an error as it comes over the bus.
func Error(name, text string) *dbus.Error { return dbus.NewError(name, []any{text}) }

// Serve makes s the service of that name, on a connection of its own, which it returns. Closing it ends the service.
func (b *Bus) Serve(t testing.TB, name string, s Service) *dbus.Conn {
	t.Helper()
	conn := b.Connect(t)
	path := dbus.ObjectPath("/" + strings.ReplaceAll(name, ".", "/"))
	get := func(iface, property string) (dbus.Variant, *dbus.Error) {
		v, ok := s.Properties[property]
		if !ok || iface != name+".Manager" {
			return dbus.Variant{}, Error("org.freedesktop.DBus.Error.UnknownProperty", "no such property")
		}
		if ask, ok := v.(func() any); ok {
			v = ask()
		}
		if err, ok := v.(*dbus.Error); ok {
			return dbus.Variant{}, err
		}
		return dbus.MakeVariant(v), nil
	}
	exports := map[string]map[string]any{name + ".Manager": s.Methods, "org.freedesktop.DBus.Properties": {"Get": get}}
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
