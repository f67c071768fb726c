package host

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	sddbus "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// stopGrace is how long a unit has between SIGTERM and SIGKILL.
const stopGrace = 10 * time.Second

// units is systemd as the keeper of transient units. Each of them runs one program once and keeps its result until it is
// stopped.
type units struct {
	h       *Host
	systemd *sddbus.Conn
	// signals has a connection of its own: go-systemd's subscription is to every unit of the host, and drops what comes
	// faster than it is read.
	bus     *dbus.Conn
	signals chan *dbus.Signal
}

func (h *Host) units(ctx context.Context) (u *units, done func(), err error) {
	systemd, end, err := h.systemd(ctx)
	if err != nil {
		return nil, nil, err
	}
	bus, hangUp, err := h.connect(ctx)
	if err != nil {
		end()
		return nil, nil, err
	}
	u = &units{h: h, systemd: systemd, bus: bus, signals: make(chan *dbus.Signal, 16)}
	bus.Signal(u.signals)
	done = func() { hangUp(); end() }
	manager := bus.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
	if _, err := h.ask(ctx, manager, "org.freedesktop.systemd1.Manager.Subscribe"); err != nil {
		done()
		return nil, nil, fmt.Errorf("subscribing to systemd: %w", err)
	}
	return u, done, nil
}

// transient is a unit that runs one program.
type transient struct {
	name, description string
	path              string
	timeout           time.Duration
	output            string // file of the host that takes what it writes, emptied first
	environment       []string
}

// properties are those of systemd.service(5), as D-Bus has them. A service of type oneshot that remains after its exit is
// either activating, active (it succeeded) or failed, and stays so.
func (t transient) properties() []sddbus.Property {
	set := func(name string, value any) sddbus.Property {
		return sddbus.Property{Name: name, Value: dbus.MakeVariant(value)}
	}
	return []sddbus.Property{
		sddbus.PropDescription(t.description),
		sddbus.PropType("oneshot"),
		sddbus.PropRemainAfterExit(true),
		sddbus.PropExecStart([]string{t.path}, false),
		set("Environment", t.environment),
		set("TimeoutStartUSec", uint64(t.timeout.Microseconds())),
		set("TimeoutStopUSec", uint64(stopGrace.Microseconds())),
		set("StandardOutputFileToTruncate", t.output), // since systemd 248
		set("StandardError", "inherit"),
	}
}

// ending is how a unit ended.
type ending struct {
	result string        // systemd's word, or HookRefused or HookStopped
	code   int           // the exit code; for signal and core-dump the signal
	why    string        // of a refusal
	took   time.Duration // 0: nothing was run
}

// text says how it ended.
func (e ending) text(timeout time.Duration) string {
	switch e.result {
	case HookSucceeded:
		return "succeeded"
	case HookRefused:
		return "refused: " + e.why
	case HookStopped:
		return "somebody stopped it"
	case "exit-code":
		if e.code == exitExec {
			return "exit code 203: systemd could not execute it; is its interpreter there?"
		}
		return fmt.Sprintf("exit code %d", e.code)
	case "signal", "core-dump":
		return fmt.Sprintf("ended by signal %d (%s)", e.code, syscall.Signal(e.code))
	case "timeout":
		return fmt.Sprintf("took longer than %s", timeout)
	}
	return e.result
}

// exitExec is systemd's own exit code for a program that could not be executed: systemd.exec(5).
const exitExec = 203

// run starts a unit, unless it was started before, and waits for its end. It waits for what systemd tells, and asks for the
// state once after each piece of news.
func (u *units) run(ctx context.Context, t transient) (ending, error) {
	at := dbus.ObjectPath("/org/freedesktop/systemd1/unit/" + sddbus.PathBusEscape(t.name))
	match := []dbus.MatchOption{
		dbus.WithMatchObjectPath(at), dbus.WithMatchInterface("org.freedesktop.DBus.Properties"), dbus.WithMatchMember("PropertiesChanged"),
	}
	if err := u.bus.AddMatchSignalContext(ctx, match...); err != nil {
		return ending{}, fmt.Errorf("watching unit %s: %w", t.name, named(err))
	}
	defer func() { _ = u.bus.RemoveMatchSignalContext(ctx, match...) }() // it ends with the connection at the latest
	s, err := u.state(ctx, t.name)
	if err != nil {
		return ending{}, err
	}
	if s.absent() {
		if e, err := u.start(ctx, t); err != nil || e.result != "" {
			return e, err
		}
		if s, err = u.state(ctx, t.name); err != nil {
			return ending{}, err
		}
	}
	late := time.NewTimer(t.timeout + stopGrace + u.h.timeout)
	defer late.Stop()
	for overdue := false; ; {
		if e, over, err := u.ended(ctx, t.name, s); over || err != nil {
			return e, err
		}
		if overdue {
			return ending{}, fmt.Errorf("waiting for unit %s: %w", t.name, errNotOver)
		}
		select {
		case <-ctx.Done():
			return ending{}, ctx.Err()
		case <-u.bus.Context().Done():
			return ending{}, fmt.Errorf("waiting for unit %s: %w", t.name, errBusGone)
		case <-late.C:
			overdue = true
		case <-u.signals:
		}
		if s, err = u.state(ctx, t.name); err != nil {
			return ending{}, err
		}
	}
}

var (
	errBusGone = errors.New("the bus has gone")
	errNotOver = errors.New("systemd has not ended it although its time is over")
)

// start asks systemd to start a unit. Its refusal is an ending.
func (u *units) start(ctx context.Context, t transient) (ending, error) {
	ctx, cancel := context.WithTimeout(ctx, u.h.timeout)
	defer cancel()
	_, err := u.systemd.StartTransientUnitContext(ctx, t.name, "fail", t.properties(), nil)
	switch err = named(err); {
	case err == nil, errorName(err) == systemdUnitExists:
		return ending{}, nil
	case answerLost(err), serviceAbsent(err), errorName(err) == systemdShuttingDown, errorName(err) == systemdDestructive:
		return ending{}, fmt.Errorf("starting unit %s: %w", t.name, err)
	}
	return ending{result: HookRefused, why: "systemd does not start it: " + err.Error()}, nil
}

// state is a unit's, as far as it matters here.
type state struct {
	active, sub string
	job         bool // one is queued, or under way
}

// absent: systemd does not know the unit, or is about to forget it.
func (s state) absent() bool { return s.active == "inactive" && !s.job }

func (u *units) state(ctx context.Context, name string) (state, error) {
	ctx, cancel := context.WithTimeout(ctx, u.h.timeout)
	defer cancel()
	p, err := u.systemd.GetUnitPropertiesContext(ctx, name)
	if err != nil {
		return state{}, fmt.Errorf("reading the state of unit %s: %w", name, named(err))
	}
	active, isText := p["ActiveState"].(string)
	sub, isText2 := p["SubState"].(string)
	job, isPair := p["Job"].([]any) // id and path; id 0 is none
	if !isText || !isText2 || !isPair || len(job) != 2 {
		return state{}, fmt.Errorf("reading the state of unit %s: %w", name, wrongType(p))
	}
	return state{active: active, sub: sub, job: job[0] != uint32(0)}, nil
}

// ended tells whether s is an end, and which.
func (u *units) ended(ctx context.Context, name string, s state) (e ending, over bool, err error) {
	switch {
	case s.absent():
		return ending{result: HookStopped}, true, nil
	case s.active != "failed" && (s.active != "active" || s.sub != "exited"):
		return ending{}, false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, u.h.timeout)
	defer cancel()
	p, err := u.systemd.GetUnitTypePropertiesContext(ctx, name, "Service")
	if err != nil {
		return ending{}, false, fmt.Errorf("reading the result of unit %s: %w", name, named(err))
	}
	result, isText := p["Result"].(string)
	status, isNumber := p["ExecMainStatus"].(int32)
	began, isTime := p["ExecMainStartTimestampMonotonic"].(uint64)
	end, isTime2 := p["ExecMainExitTimestampMonotonic"].(uint64)
	if !isText || !isNumber || !isTime || !isTime2 {
		return ending{}, false, fmt.Errorf("reading the result of unit %s: %w", name, wrongType(p))
	}
	if result == HookSucceeded && s.active == "failed" {
		result = HookStopped
	}
	e = ending{result: result, code: int(status)}
	if end > began {
		e.took = time.Duration(end-began) * time.Microsecond
	}
	return e, true, nil
}

// stopAll stops the hooks' units that which picks, waits for their end, and makes systemd forget their results.
func (u *units) stopAll(ctx context.Context, which func(unit string) bool) error {
	limited, cancel := context.WithTimeout(ctx, u.h.timeout)
	list, err := u.systemd.ListUnitsByPatternsContext(limited, nil, []string{hookUnits + "*.service"})
	cancel()
	if err != nil {
		return fmt.Errorf("listing units: %w", named(err))
	}
	var faults []error
	for _, unit := range list {
		if which(unit.Name) {
			faults = append(faults, u.stop(ctx, unit.Name))
		}
	}
	return errors.Join(faults...)
}

func (u *units) stop(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, stopGrace+u.h.timeout)
	defer cancel()
	stopped := make(chan string, 1)
	_, err := u.systemd.StopUnitContext(ctx, name, "replace", stopped)
	if err == nil {
		select {
		case <-stopped:
		case <-u.bus.Context().Done():
			err = errBusGone
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err == nil {
		err = u.systemd.ResetFailedUnitContext(ctx, name)
	}
	if err = named(err); errorName(err) == systemdNoSuchUnit {
		err = nil // it is forgotten already
	}
	if err != nil {
		return fmt.Errorf("stopping unit %s: %w", name, err)
	}
	return nil
}
