package window

import "time"

// A local time is kept as the Unix seconds that it would have in UTC ("wall"): that is
// what cron fields and dates are about.

// clock is how a zone's clocks run around one date: stretches of one offset each, in
// order. Away from changes of the clock it is a single stretch.
type clock []stretch

type stretch struct {
	start, end int64 // instants, Unix seconds, end excluded
	offset     int64 // seconds east of UTC
}

// clockAround covers the date and the two days before and after it, more than any zone
// has ever moved its clocks.
func clockAround(loc *time.Location, date time.Time) clock {
	const day = 24 * 60 * 60
	from, to := date.Unix()-2*day, date.Unix()+3*day
	var c clock
	for from < to {
		at := time.Unix(from, 0).In(loc)
		_, offset := at.Zone()
		end := to
		if _, change := at.ZoneBounds(); !change.IsZero() {
			end = min(end, change.Unix())
		}
		if last := len(c) - 1; last >= 0 && c[last].offset == int64(offset) {
			c[last].end = end // only the zone's name changed
		} else {
			c = append(c, stretch{from, end, int64(offset)})
		}
		from = end
	}
	return c
}

// placed is where a wall time falls in a zone.
type placed struct {
	first, last int64 // instants showing it, Unix seconds; equal but for a repeated time
	skipped     int64 // the instant at which the clock jumped over it, 0 when it exists
}

// place finds the instants at which the clock shows wall. A skipped time is placed by the
// offset in force before the jump, which moves it by as much as the clock.
func (c clock) place(wall int64) placed {
	var p placed
	shown := false
	for i, s := range c {
		at := wall - s.offset
		if at >= s.start && at < s.end {
			if !shown {
				p.first = at
			}
			p.last, p.skipped, shown = at, 0, true
		} else if !shown && at >= s.end && i+1 < len(c) {
			p = placed{first: at, last: at, skipped: s.end}
		}
	}
	return p
}

// dateOf is the date that loc's calendar shows at t, as midnight UTC of that date.
func dateOf(t time.Time, loc *time.Location) time.Time {
	y, m, d := t.In(loc).Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

// firstOf is the first instant of a date in loc: the jump itself where the clock skips
// midnight.
func firstOf(loc *time.Location, date time.Time) time.Time {
	p := clockAround(loc, date).place(date.Unix())
	if p.skipped != 0 {
		return time.Unix(p.skipped, 0)
	}
	return time.Unix(p.first, 0)
}

// endOf is the instant at which a date is over in loc for good: a clock put back across
// midnight returns to it.
func endOf(loc *time.Location, date time.Time) time.Time {
	next := date.AddDate(0, 0, 1)
	p := clockAround(loc, next).place(next.Unix())
	if p.first != p.last && dateOf(time.Unix(p.last-1, 0), loc).Equal(date) {
		return time.Unix(p.last, 0)
	}
	return firstOf(loc, next)
}
