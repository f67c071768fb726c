package bustest

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	sddbus "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// Units is a systemd that is asked to run transient services of type oneshot. It runs nothing: a script says how each ends.
// It outlives its bus: serve it again when the bus is back.
type Units struct {
	mu      sync.Mutex
	ends    func(unit string, properties map[string]dbus.Variant) Ending
	conn    *dbus.Conn
	jobs    uint32
	units   map[string]Ending // those that are known; without a Result: it runs
	started []string
	changed chan struct{} // closed at each change
}

// Ending is how a service ended.
type Ending struct {
	Result string // systemd's word, "success" among them
	Status int32  // ExecMainStatus: exit code or signal
}

// NewUnits returns one that knows no unit.
func NewUnits() *Units { return &Units{units: map[string]Ending{}, changed: make(chan struct{})} }

// Script says what becomes of the units that are started from now on. An Ending without a Result, as without a script: the
// unit runs until [Units.End]. A Result "error: NAME" is a D-Bus error in reply to the start. What ends has written is there to
// be read after [Units.Started].
func (u *Units) Script(ends func(unit string, properties map[string]dbus.Variant) Ending) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ends = ends
}

// Serve makes it the systemd of a bus.
func (u *Units) Serve(t testing.TB, b *Bus) *dbus.Conn {
	t.Helper()
	s := Systemd()
	s.Methods["Subscribe"] = func() *dbus.Error { return nil }
	s.Methods["StartTransientUnit"] = u.start
	s.Methods["StopUnit"] = u.stop
	s.Methods["ResetFailedUnit"] = u.reset
	s.Methods["ListUnitsByPatterns"] = u.list
	conn := b.Serve(t, Systemd1, s)
	err := conn.ExportSubtreeMethodTable(map[string]any{"GetAll": u.properties}, unitsPath, "org.freedesktop.DBus.Properties")
	if err != nil {
		t.Fatal(err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.conn = conn
	return conn
}

const unitsPath = "/org/freedesktop/systemd1/unit"

func unitPath(name string) dbus.ObjectPath {
	return dbus.ObjectPath(unitsPath + "/" + sddbus.PathBusEscape(name))
}

// Started returns the names of all units that were ever started, in order.
func (u *Units) Started() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.started)
}

// Known returns the names of those that it has not forgotten, sorted.
func (u *Units) Known() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Sorted(maps.Keys(u.units))
}

// AwaitStart returns when the unit has been started, and fails the test when that does not come before its end.
func (u *Units) AwaitStart(t testing.TB, unit string) {
	t.Helper()
	for {
		u.mu.Lock()
		ok, changed := slices.Contains(u.started, unit), u.changed
		u.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Fatalf("unit %s was not started", unit)
		}
	}
}

// End ends a unit that runs, and tells of it on the bus.
func (u *Units) End(unit string, e Ending) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.units[unit] = e
	u.tell(unit)
}

// Forget is what becomes of a unit that somebody stops.
func (u *Units) Forget(unit string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.units, unit)
	u.tell(unit)
}

// tell is the signal by which systemd says that a unit is not as it was. Without a bus nobody hears it.
func (u *Units) tell(unit string) {
	_ = u.conn.Emit(unitPath(unit), "org.freedesktop.DBus.Properties.PropertiesChanged",
		"org.freedesktop.systemd1.Unit", map[string]dbus.Variant{}, []string{"ActiveState"})
	close(u.changed)
	u.changed = make(chan struct{})
}

type auxiliary struct {
	Name       string
	Properties []sddbus.Property
}

func (u *Units) start(unit, _ string, properties []sddbus.Property, _ []auxiliary) (dbus.ObjectPath, *dbus.Error) {
	all := map[string]dbus.Variant{}
	for _, p := range properties {
		all[p.Name] = p.Value
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, ok := u.units[unit]; ok {
		return "", Error(Systemd1+".UnitExists", "Unit "+unit+" was already loaded or has a fragment file.")
	}
	var e Ending
	if u.ends != nil {
		e = u.ends(unit, all)
	}
	if name, refused := strings.CutPrefix(e.Result, "error: "); refused {
		return "", Error(name, "no")
	}
	u.units[unit] = e
	u.started = append(u.started, unit)
	u.tell(unit)
	u.jobs++
	return job(u.jobs), nil
}

func job(id uint32) dbus.ObjectPath {
	return dbus.ObjectPath("/org/freedesktop/systemd1/job/" + string(rune('0'+id%10)))
}

// stop ends a unit. One that has failed stays known until it is reset.
func (u *Units) stop(unit, _ string) (dbus.ObjectPath, *dbus.Error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	e, ok := u.units[unit]
	if !ok {
		return "", Error(Systemd1+".NoSuchUnit", "Unit "+unit+" not loaded.")
	}
	switch e.Result {
	case "":
		u.units[unit] = Ending{Result: "signal", Status: 15}
	case "success":
		delete(u.units, unit)
	}
	u.tell(unit)
	u.jobs++
	path := job(u.jobs)
	_ = u.conn.Emit("/org/freedesktop/systemd1", Systemd1+".Manager.JobRemoved", u.jobs, path, unit, "done")
	return path, nil
}

func (u *Units) reset(unit string) *dbus.Error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, ok := u.units[unit]; !ok {
		return Error(Systemd1+".NoSuchUnit", "Unit "+unit+" not loaded.")
	}
	delete(u.units, unit)
	return nil
}

// list takes one pattern with one star.
func (u *Units) list(_, patterns []string) ([]Unit, *dbus.Error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	begin, end, _ := strings.Cut(patterns[0], "*")
	units := []Unit{}
	for name, e := range u.units {
		if strings.HasPrefix(name, begin) && strings.HasSuffix(name, end) {
			active, _ := e.state()
			units = append(units, AnyUnit(name, active))
		}
	}
	return units, nil
}

func (e Ending) state() (active, sub string) {
	switch e.Result {
	case "":
		return "activating", "start"
	case "success":
		return "active", "exited"
	}
	return "failed", "failed"
}

// properties answers for every unit, as systemd does: one that it does not know is inactive.
func (u *Units) properties(m dbus.Message, iface string) (map[string]dbus.Variant, *dbus.Error) {
	path, _ := m.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
	active, sub := "inactive", "dead"
	var e Ending
	u.mu.Lock()
	defer u.mu.Unlock()
	for name, known := range u.units {
		if unitPath(name) == path {
			e = known
			active, sub = e.state()
		}
	}
	if strings.HasSuffix(iface, ".Service") {
		return map[string]dbus.Variant{
			"Result": dbus.MakeVariant(e.Result), "ExecMainStatus": dbus.MakeVariant(e.Status),
			"ExecMainStartTimestampMonotonic": dbus.MakeVariant(uint64(1_000_000)),
			"ExecMainExitTimestampMonotonic":  dbus.MakeVariant(uint64(3_500_000)),
		}, nil
	}
	queued := struct {
		ID   uint32
		Path dbus.ObjectPath
	}{Path: "/"}
	if active == "activating" {
		queued.ID, queued.Path = 1, job(1)
	}
	return map[string]dbus.Variant{
		"ActiveState": dbus.MakeVariant(active), "SubState": dbus.MakeVariant(sub), "Job": dbus.MakeVariant(queued),
	}, nil
}
