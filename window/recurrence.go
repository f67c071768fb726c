package window

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
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
	star      = 1 << 63 // how the cron library marks a field written as *
	allHours  = 1<<24 - 1
	allMinute = 1<<60 - 1
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
	if !everMatches(fields) {
		return nil, errors.New("never comes: no date matches it")
	}
	return fields, nil
}

// everMatches tries each date of a leap cycle that starts on each day of the week once.
func everMatches(f *cron.SpecSchedule) bool {
	if f.Minute&allMinute == 0 || f.Hour&allHours == 0 {
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

// dateMatches is crontab(5)'s rule: with both day fields restricted, either will do.
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
	c := clockAround(r.loc, date)
	if len(c) > 1 {
		starts := r.startsOn(date, c)
		i, exact := slices.BinarySearch(starts, limit)
		if !exact {
			i--
		}
		if i < 0 {
			return 0, false, false
		}
		return starts[i], true, false
	}
	midnight := date.Unix() - c[0].offset
	if limit < midnight {
		return 0, false, true
	}
	minute := min((limit-midnight)/60, 24*60-1)
	h, m := uint(minute/60), uint(minute%60)
	if past := r.fields.Minute & (1<<(m+1) - 1); r.fields.Hour&(1<<h) != 0 && past != 0 {
		return midnight + int64(h)*3600 + int64(highest(past))*60, true, true
	}
	if past := r.fields.Hour & (1<<h - 1); past != 0 {
		return midnight + int64(highest(past))*3600 + int64(highest(r.fields.Minute&allMinute))*60, true, true
	}
	return 0, false, true
}

func highest(set uint64) int { return bits.Len64(set) - 1 }

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
		if !dateMatches(r.fields, date) {
			continue
		}
		for _, at := range r.startsOn(date, clockAround(r.loc, date)) {
			if at <= limit {
				continue
			}
			if !found || at < best {
				best, found = at, true
			}
			break
		}
	}
	start := time.Unix(best, 0)
	return start, found && start.Before(horizon)
}

// startsOn lists the starts that belong to a matching date, in order.
func (r *recurrence) startsOn(date time.Time, c clock) []int64 {
	eachHour := r.fields.Hour&allHours == allHours
	starts := make([]int64, 0, bits.OnesCount64(r.fields.Hour&allHours)*bits.OnesCount64(r.fields.Minute&allMinute)+60)
	for hour := range int64(24) {
		if r.fields.Hour&(1<<uint(hour)) == 0 {
			continue
		}
		for minute := range int64(60) {
			if r.fields.Minute&(1<<uint(minute)) == 0 {
				continue
			}
			p := c.place(date.Unix() + hour*3600 + minute*60)
			starts = append(starts, p.first)
			if eachHour && p.last != p.first {
				starts = append(starts, p.last)
			}
		}
	}
	if len(c) > 1 {
		slices.Sort(starts)
	}
	return starts
}
