package host

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// Shutdown says what kind of shutdown is coming: a reboot, power-off, halt, kexec or soft-reboot that is being prepared,
// scheduled or queued, by whoever. "" is returned only when logind and systemd have said that there is none. A host
// without logind has nothing prepared or scheduled.
//
// logind is asked first: what it prepares goes to systemd next, so that none slips through between the two questions.
func (h *Host) Shutdown(ctx context.Context) (coming string, err error) {
	coming, err = h.shutdownAtLogind(ctx)
	if coming == "" && err == nil {
		coming, err = h.shutdownAtSystemd(ctx)
	}
	// A host that is going down starts no service any more that somebody asks for.
	if errorName(err) == systemdShuttingDown {
		return "systemd is shutting down", nil
	}
	if err != nil {
		return "", fmt.Errorf("asking whether a shutdown is coming: %w", err)
	}
	return coming, nil
}

func (h *Host) shutdownAtLogind(ctx context.Context) (string, error) {
	conn, done, err := h.connect(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	login := loginObject(conn)
	preparing, err := h.property(ctx, login, loginManager, "PreparingForShutdown")
	switch yes, ok := preparing.(bool); {
	case serviceAbsent(err):
		return "", nil
	case err != nil:
		return "", err
	case !ok:
		return "", fmt.Errorf("reading property PreparingForShutdown: %w", wrongType(preparing))
	case yes:
		return "logind is preparing for a shutdown", nil
	}
	scheduled, err := h.property(ctx, login, loginManager, "ScheduledShutdown")
	if err != nil {
		return "", err
	}
	return scheduledShutdown(scheduled)
}

// scheduledShutdown reads the property ScheduledShutdown: type, and the time in µs since 1970.
func scheduledShutdown(value any) (string, error) {
	pair, ok := value.([]any)
	if !ok || len(pair) != 2 {
		return "", fmt.Errorf("reading property ScheduledShutdown: %w", wrongType(value))
	}
	kind, isText := pair[0].(string)
	at, isTime := pair[1].(uint64)
	switch {
	case !isText || !isTime:
		return "", fmt.Errorf("reading property ScheduledShutdown: %w", wrongType(value))
	case kind == "":
		return "", nil
	// No timer was ever set. logind leaves the type, with the time 0, behind when a reboot that it had accepted could
	// not be started; one that goes on shows as being prepared, and as a job.
	case at == 0:
		return "", nil
	case slices.Contains([]string{"ignore", "suspend", "hibernate", "hybrid-sleep", "suspend-then-hibernate", "sleep"}, kind):
		return "", nil
	case at > math.MaxInt64:
		return kind + " is scheduled", nil
	default:
		return kind + " is scheduled for " + time.UnixMicro(int64(at)).UTC().Format(time.RFC3339), nil
	}
}

func (h *Host) shutdownAtSystemd(ctx context.Context) (string, error) {
	conn, done, err := h.systemd(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	// "stopping": shutdown.target is queued or reached; the jobs tell which shutdown it is, but they end before it does.
	stateCtx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	property, err := conn.SystemStateContext(stateCtx)
	if err != nil {
		return "", fmt.Errorf("reading property SystemState: %w", named(err))
	}
	state, ok := property.Value.Value().(string)
	if !ok || state == "" {
		return "", fmt.Errorf("reading property SystemState: %w", wrongType(property.Value.Value()))
	}
	jobsCtx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	jobs, err := conn.ListJobsContext(jobsCtx)
	if err != nil {
		return "", fmt.Errorf("listing systemd's jobs: %w", named(err))
	}
	coming := ""
	for _, job := range jobs {
		// dbus.Store turns a number into a string of one character, so a reply of the wrong type may have come through.
		if !strings.Contains(job.Unit, ".") || job.JobType == "" {
			return "", fmt.Errorf("listing systemd's jobs: %w", wrongType(job))
		}
		if coming == "" && job.JobType != "stop" && endsHost(job.Unit) {
			coming = "systemd has queued " + job.Unit
		}
	}
	if coming == "" && state == "stopping" {
		coming = "systemd is stopping"
	}
	return coming, nil
}

// endsHost reports whether a unit, when started, ends this boot or, for a soft-reboot, all that runs in it.
func endsHost(unit string) bool {
	kind, isTarget := strings.CutSuffix(unit, ".target")
	if !isTarget {
		service, isService := strings.CutSuffix(unit, ".service")
		kind, isTarget = strings.CutPrefix(service, "systemd-")
		if !isService || !isTarget {
			return false
		}
	}
	return slices.Contains([]string{"reboot", "poweroff", "halt", "kexec", "soft-reboot", "shutdown", "final", "exit"}, kind)
}

// Inhibitors lists who holds a `block` or `block-weak` lock on shutdown, each as "who: why". A host without logind has
// none.
func (h *Host) Inhibitors(ctx context.Context) ([]string, error) {
	conn, done, err := h.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing inhibitors: %w", err)
	}
	defer done()
	held, err := h.inhibitors(ctx, loginObject(conn))
	if serviceAbsent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing inhibitors: %w", err)
	}
	return held, nil
}

func (h *Host) inhibitors(ctx context.Context, login dbus.BusObject) ([]string, error) {
	locks, err := h.locks(ctx, login)
	if err != nil {
		return nil, err
	}
	var held []string
	for _, l := range locks {
		if l.mode == "block" || l.mode == "block-weak" {
			held = append(held, printable(l.who)+": "+printable(l.why))
		}
	}
	slices.Sort(held)
	return held, nil
}

// KubeletEndsPods tells whether the kubelet ends every pod when the host shuts down (its shutdownGracePeriod), which it shows by
// a `delay` lock: such a pod has failed, and does not come back with the host.
func (h *Host) KubeletEndsPods(ctx context.Context) (bool, error) {
	conn, done, err := h.connect(ctx)
	if err != nil {
		return false, fmt.Errorf("listing inhibitors: %w", err)
	}
	defer done()
	locks, err := h.locks(ctx, loginObject(conn))
	if serviceAbsent(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("listing inhibitors: %w", err)
	}
	return slices.ContainsFunc(locks, func(l inhibitor) bool { return l.who == "kubelet" && l.mode == "delay" }), nil
}

// inhibitor is a lock on shutdown.
type inhibitor struct{ who, why, mode string }

// locks lists the locks on shutdown.
func (h *Host) locks(ctx context.Context, login dbus.BusObject) ([]inhibitor, error) {
	body, err := h.ask(ctx, login, loginManager+".ListInhibitors")
	if err != nil {
		return nil, err
	}
	if len(body) != 1 {
		return nil, wrongType(body)
	}
	reply, ok := body[0].([][]any) // a(ssssuu): what, who, why, mode, uid, pid
	if !ok {
		return nil, wrongType(body)
	}
	var locks []inhibitor
	for _, lock := range reply {
		text, ok := leadingStrings(lock, 4)
		if !ok {
			return nil, wrongType(lock)
		}
		if slices.Contains(strings.Split(text[0], ":"), "shutdown") {
			locks = append(locks, inhibitor{who: text[1], why: text[2], mode: text[3]})
		}
	}
	return locks, nil
}

func leadingStrings(values []any, n int) ([]string, bool) {
	if len(values) < n {
		return nil, false
	}
	out := make([]string, n)
	for i := range out {
		s, ok := values[i].(string)
		if !ok {
			return nil, false
		}
		out[i] = s
	}
	return out, true
}

// OtherRebooters lists units of this host that reboot it when they see fit, and are active.
func (h *Host) OtherRebooters(ctx context.Context) ([]string, error) {
	known := []string{
		"kured.service",
		"locksmithd.service", // Flatcar
		"zincati.service",    // Fedora CoreOS
		"rebootmgr.service",  // SUSE
		"rebootmgrd.service",
		"bootc-fetch-apply-updates.timer", // bootc: updates and reboots
		"systemd-sysupdate-reboot.timer",  // systemd-sysupdate
	}
	conn, done, err := h.systemd(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing other rebooters: %w", err)
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	units, err := conn.ListUnitsByNamesContext(ctx, known)
	if err != nil {
		return nil, fmt.Errorf("listing other rebooters: %w", named(err))
	}
	var active []string
	for _, u := range units {
		if !strings.Contains(u.Name, ".") || u.ActiveState == "" {
			return nil, fmt.Errorf("listing other rebooters: %w", wrongType(u))
		}
		if slices.Contains([]string{"active", "activating", "reloading", "refreshing"}, u.ActiveState) {
			active = append(active, u.Name)
		}
	}
	slices.Sort(active)
	return slices.Compact(active), nil // a unit is listed once under each of its names
}
