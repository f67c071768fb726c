package window

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// recurrence is a parsed window. The cron library parses; finding the starts is done here,
// because the library's own search skips a start that daylight saving removes, takes a
// repeated one twice, and gives up after five years, short of the leap days around 2100.
type recurrence struct {
	text   string
	fields *cron.SpecSchedule
	loc    *time.Location
	length time.Duration
}

const (
	star       = 1 << 63 // how the cron library marks a field written as *
	allHours   = 1<<24 - 1
	allMinutes = 1<<60 - 1
)

// parseCron accepts the five standard fields and the descriptors that name a time of day.
func parseCron(expr string) (*cron.SpecSchedule, error) {
	switch {
	case strings.TrimSpace(expr) == "":
		return nil, errors.New(`must be a cron expression, such as "0 22 * * 5"`)
	case strings.Contains(expr, "TZ="):
		return nil, errors.New("must not name a time zone: use the field timeZone")
	case strings.HasPrefix(expr, "@every"):
		return nil, errors.New("@every has no fixed start: write the five fields")
	}
	parsed, err := cron.ParseStandard(expr)
	if err != nil {
		return nil, fmt.Errorf("must be five cron fields (minute, hour, day of month, month, day of week 0-6) or a descriptor such as @daily: %w", err)
	}
	fields, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return nil, errors.New("must be five cron fields or a descriptor such as @daily")
	}
	// The library takes */2 for a restriction. In crontab(5) a day field that begins with a star is none: the other must match, too.
	if words := strings.Fields(expr); len(words) == 5 {
		for field, word := range map[*uint64]string{&fields.Dom: words[2], &fields.Dow: words[4]} {
			if strings.HasPrefix(word, "*") {
				*field |= star
			}
		}
	}
	if !everMatches(fields) {
		return nil, errors.New("never comes: no date matches it")
	}
	return fields, nil
}

// everMatches tries each date of a leap cycle that starts on each day of the week once.
func everMatches(f *cron.SpecSchedule) bool {
	if f.Minute&allMinutes == 0 || f.Hour&allHours == 0 {
		return false
	}
	date := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	for end := date.AddDate(28, 0, 0); date.Before(end); date = date.AddDate(0, 0, 1) {
		if dateMatches(f, date) {
			return true
		}
	}
	return false
}

// dateMatches is crontab(5)'s rule: with both day fields restricted, either will do. One that begins with a star is not restricted.
func dateMatches(f *cron.SpecSchedule, date time.Time) bool {
	if f.Month&(1<<uint(date.Month())) == 0 {
		return false
	}
	dom := f.Dom&(1<<uint(date.Day())) != 0
	dow := f.Dow&(1<<uint(date.Weekday())) != 0
	if f.Dom&star != 0 || f.Dow&star != 0 {
		return dom && dow
	}
	return dom || dow
}

// latest is the last start at or before t whose window is still open at t.
func (r *recurrence) latest(t time.Time) (time.Time, bool) {
	limit := t.Unix()
	oldest := dateOf(t.Add(-r.length), r.loc).AddDate(0, 0, -2)
	var best int64
	found, left := false, 2 // a skipped start may land on a later date: look two days on
	for date := dateOf(t, r.loc).AddDate(0, 0, 2); left > 0 && !date.Before(oldest); date = date.AddDate(0, 0, -1) {
		if found {
			left--
		}
		at, ok, even := r.latestOn(date, limit)
		if ok && (!found || at > best) {
			best, found = at, true
		}
		if ok && even {
			break
		}
	}
	start := time.Unix(best, 0)
	return start, found && t.Before(start.Add(r.length))
}

// latestOn is the last start that belongs to date and is not after limit; even says that
// no start of an earlier date can be later.
func (r *recurrence) latestOn(date time.Time, limit int64) (at int64, ok, even bool) {
	if !dateMatches(r.fields, date) {
		return 0, false, false
	}
	day, faces := date.Unix(), r.faces(date)
	for _, f := range faces {
		low, high := f.start+f.offset-day, min(limit, f.end-1)+f.offset-day
		minute, is := r.latestMinute(high)
		if !is || minute*60 < low {
			continue
		}
		if start := day + minute*60 - f.offset; !ok || start > at {
			at, ok = start, true
		}
	}
	return at, ok, len(faces) == 1
}

// earliestOn is the first start that belongs to date and is after limit.
func (r *recurrence) earliestOn(date time.Time, limit int64) (at int64, ok bool) {
	if !dateMatches(r.fields, date) {
		return 0, false
	}
	day := date.Unix()
	for _, f := range r.faces(date) {
		low, high := max(limit+1, f.start)+f.offset-day, f.end-1+f.offset-day
		minute, is := r.earliestMinute(low)
		if !is || minute*60 > high {
			continue
		}
		if start := day + minute*60 - f.offset; !ok || start < at {
			at, ok = start, true
		}
	}
	return at, ok
}

// faces are the stretches of instants around date in which a start counts, each with the
// offset that turns its instants into the wall times to look for. A skipped hour is shown
// by the old offset right after the jump; a repeated one is left out, but for expressions
// that mean each hour.
func (r *recurrence) faces(date time.Time) []stretch {
	c := clockAround(r.loc, date)
	eachHour := r.fields.Hour&allHours == allHours
	faces := make([]stretch, 0, 2*len(c))
	for i, s := range c {
		if i > 0 {
			old := c[i-1].offset
			switch jump := s.offset - old; {
			case jump > 0:
				faces = append(faces, stretch{s.start, s.start + jump, old})
			case !eachHour:
				s.start -= jump
			}
		}
		faces = append(faces, s)
	}
	return faces
}

// latestMinute is the last minute of a day, at or before second, that the fields name.
func (r *recurrence) latestMinute(second int64) (minute int64, ok bool) {
	if second < 0 {
		return 0, false
	}
	minute = min(second/60, 24*60-1)
	h, m := minute/60, minute%60
	if r.fields.Hour&(1<<h) != 0 {
		if set := r.fields.Minute & (1<<(m+1) - 1); set != 0 {
			return h*60 + highest(set), true
		}
	}
	set := r.fields.Hour & (1<<h - 1)
	if set == 0 {
		return 0, false
	}
	return highest(set)*60 + highest(r.fields.Minute&allMinutes), true
}

// earliestMinute is the first minute of a day, at or after second, that the fields name.
func (r *recurrence) earliestMinute(second int64) (minute int64, ok bool) {
	minute = (max(second, 0) + 59) / 60
	if minute >= 24*60 {
		return 0, false
	}
	h, m := minute/60, minute%60
	if r.fields.Hour&(1<<h) != 0 {
		if set := r.fields.Minute & allMinutes >> m << m; set != 0 {
			return h*60 + lowest(set), true
		}
	}
	set := r.fields.Hour & allHours >> (h + 1) << (h + 1)
	if set == 0 {
		return 0, false
	}
	return lowest(set)*60 + lowest(r.fields.Minute&allMinutes), true
}

func lowest(set uint64) int64 { return int64(bits.TrailingZeros64(set)) }

func highest(set uint64) int64 { return int64(bits.Len64(set) - 1) }

// after is the first start after t and before horizon.
func (r *recurrence) after(t, horizon time.Time) (time.Time, bool) {
	limit := t.Unix()
	last := dateOf(horizon, r.loc).AddDate(0, 0, 1)
	var best int64
	found, left := false, 2
	for date := dateOf(t, r.loc).AddDate(0, 0, -2); left > 0 && date.Before(last); date = date.AddDate(0, 0, 1) {
		if found {
			left--
		}
		if at, ok := r.earliestOn(date, limit); ok && (!found || at < best) {
			best, found = at, true
		}
	}
	start := time.Unix(best, 0)
	return start, found && start.Before(horizon)
}
