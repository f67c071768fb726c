package window

import (
	"errors"
	"fmt"
	"time"
)

// Bounds of a window's duration. Shorter than a minute would fall between two looks at the
// gates; longer than a month says "always" in a roundabout way.
const (
	MinDuration = time.Minute
	MaxDuration = 31 * 24 * time.Hour
)

const (
	horizonYears  = 9 // leap days are eight years apart around 2100
	untilHorizon  = 62 * 24 * time.Hour
	dateLayout    = "2006-01-02"
	instantLayout = "Mon 2006-01-02 15:04 MST"
)

// Window is a recurring stretch of time in which nodes may be taken down.
type Window struct {
	Cron     string        // its starts: five cron fields or a descriptor such as @daily
	Duration time.Duration // elapsed time from each start; MinDuration to MaxDuration
	TimeZone string        // IANA name; "" is UTC
}

// Blackout is a range of dates on which no node is taken down.
type Blackout struct {
	From, To string // dates such as 2026-12-20, both included
	TimeZone string // IANA name; "" is UTC
	Reason   string // for people; may be empty
}

// Config is what a Schedule is made of.
type Config struct {
	Windows   []Window // none: always open
	Blackouts []Blackout
}

// Schedule answers when nodes may be taken down. It is immutable.
type Schedule struct {
	windows   []recurrence
	blackouts []blackout
}

type blackout struct {
	text       string
	loc        *time.Location
	start, end time.Time // end excluded
}

// Fault is one thing wrong with a Config.
type Fault struct {
	Path  string // such as windows[0].cron
	Value string // as given
	Fix   string // what it must be
}

func (f *Fault) Error() string { return fmt.Sprintf("%s: %q: %s", f.Path, f.Value, f.Fix) }

// New checks a Config and prepares its answers. The error joins a *Fault for everything
// that is wrong with it.
func New(c Config) (*Schedule, error) {
	s := &Schedule{}
	var faults []error
	for i, w := range c.Windows {
		r, errs := newRecurrence(fmt.Sprintf("windows[%d]", i), w)
		faults = append(faults, errs...)
		s.windows = append(s.windows, r)
	}
	for i, b := range c.Blackouts {
		p, errs := newBlackout(fmt.Sprintf("blackouts[%d]", i), b)
		faults = append(faults, errs...)
		s.blackouts = append(s.blackouts, p)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return s, nil
}

func newRecurrence(path string, w Window) (recurrence, []error) {
	var faults []error
	fields, err := parseCron(w.Cron)
	if err != nil {
		faults = append(faults, &Fault{path + ".cron", w.Cron, err.Error()})
	}
	if w.Duration < MinDuration || w.Duration > MaxDuration {
		faults = append(faults, &Fault{path + ".duration", w.Duration.String(), "must be from 1m to 744h (31 days)"})
	}
	loc, err := zone(w.TimeZone)
	if err != nil {
		faults = append(faults, &Fault{path + ".timeZone", w.TimeZone, err.Error()})
	}
	return recurrence{
		text:   fmt.Sprintf("window %q for %v in %v", w.Cron, w.Duration, loc),
		fields: fields, loc: loc, length: w.Duration,
	}, faults
}

func newBlackout(path string, b Blackout) (blackout, []error) {
	var faults []error
	date := func(name, value string) time.Time {
		d, err := time.Parse(dateLayout, value)
		if err != nil {
			faults = append(faults, &Fault{path + "." + name, value, "must be a date such as 2026-12-20"})
		}
		return d
	}
	from, to := date("from", b.From), date("to", b.To)
	loc, err := zone(b.TimeZone)
	if err != nil {
		faults = append(faults, &Fault{path + ".timeZone", b.TimeZone, err.Error()})
	}
	if len(faults) > 0 {
		return blackout{}, faults
	}
	if to.Before(from) {
		return blackout{}, []error{&Fault{path + ".to", b.To, "must not be before from, " + b.From}}
	}
	text := fmt.Sprintf("blackout %s to %s (%v)", b.From, b.To, loc)
	if b.Reason != "" {
		text += ": " + b.Reason
	}
	return blackout{text: text, loc: loc, start: firstOf(loc, from), end: endOf(loc, to)}, nil
}

// zone loads a time zone by its IANA name. "Local" is refused: in a container it is
// whatever the image happens to hold, not the host's zone.
func zone(name string) (*time.Location, error) {
	if name == "Local" {
		return nil, errors.New("must be an IANA time zone such as Europe/Berlin or UTC")
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("must be an IANA time zone such as Europe/Berlin or UTC: %w", err)
	}
	return loc, nil
}

// Open reports whether nodes may be taken down at t, and why or why not, in words for
// people. The words stay the same until something changes.
func (s *Schedule) Open(t time.Time) (open bool, why string) {
	if b, ok := s.blackoutAt(t); ok {
		return false, b.text
	}
	if len(s.windows) == 0 {
		return true, "no windows are configured"
	}
	if r, _, ok := s.openWindow(t); ok {
		return true, r.text
	}
	next, loc, ok := s.next(t)
	if !ok {
		return false, fmt.Sprintf("outside every window; none opens within %d years", horizonYears)
	}
	return false, "outside every window; the next opening is " + next.In(loc).Format(instantLayout)
}

// Next is the first instant after t at which the schedule opens. From within an opening it
// is the start of the one that follows. False: none within nine years, or the present
// opening has no end in sight (see Until).
func (s *Schedule) Next(t time.Time) (time.Time, bool) {
	next, _, ok := s.next(t)
	return next.In(t.Location()), ok
}

func (s *Schedule) next(t time.Time) (time.Time, *time.Location, bool) {
	horizon := t.AddDate(horizonYears, 0, 0)
	at, loc := t, time.UTC
	if open, end, ends := s.until(t); open {
		if !ends {
			return time.Time{}, loc, false
		}
		at = end
	}
	for at.Before(horizon) { // at is closed, or the first instant after a blackout
		if b, ok := s.blackoutAt(at); ok {
			at, loc = b.end, b.loc
			continue
		}
		if len(s.windows) == 0 {
			return at, loc, true
		}
		if r, _, ok := s.openWindow(at); ok {
			return at, r.loc, true
		}
		first, ok := time.Time{}, false
		for i := range s.windows {
			if start, is := s.windows[i].after(at, horizon); is && (!ok || start.Before(first)) {
				first, ok = start, true
			}
		}
		if !ok {
			break
		}
		at = first
	}
	return time.Time{}, loc, false
}

// Until is the end of the opening that t lies in: openings that touch are one, a blackout
// ends one. False: closed at t, or no end within sixty-two days.
func (s *Schedule) Until(t time.Time) (time.Time, bool) {
	_, end, ends := s.until(t)
	return end.In(t.Location()), ends
}

func (s *Schedule) until(t time.Time) (open bool, end time.Time, ends bool) {
	horizon := t.Add(untilHorizon)
	cut := horizon
	for i := range s.blackouts {
		b := &s.blackouts[i]
		if b.start.After(t) && b.start.Before(cut) && b.start.Before(b.end) {
			cut = b.start
		}
	}
	if _, dark := s.blackoutAt(t); dark {
		return false, time.Time{}, false
	}
	if len(s.windows) == 0 {
		if cut.Before(horizon) {
			return true, cut, true
		}
		return true, time.Time{}, false
	}
	at := t
	for at.Before(cut) {
		_, to, ok := s.openWindow(at)
		if !ok {
			return at.After(t), at, at.After(t)
		}
		at = to
	}
	if cut.Before(horizon) {
		return true, cut, true
	}
	return true, time.Time{}, false
}

func (s *Schedule) blackoutAt(t time.Time) (blackout, bool) {
	for _, b := range s.blackouts {
		if !t.Before(b.start) && t.Before(b.end) {
			return b, true
		}
	}
	return blackout{}, false
}

// openWindow is the window that stays open longest of those open at t.
func (s *Schedule) openWindow(t time.Time) (open *recurrence, end time.Time, ok bool) {
	for i := range s.windows {
		r := &s.windows[i]
		start, is := r.latest(t)
		if !is {
			continue
		}
		if to := start.Add(r.length); open == nil || to.After(end) {
			open, end = r, to
		}
	}
	return open, end, open != nil
}
