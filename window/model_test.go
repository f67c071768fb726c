package window

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"
)

// The model walks a zone minute by minute, as its clock would be seen to run, and knows
// nothing of the code's arithmetic: it sees the clock jump, plays the skipped minutes as if
// they had been shown, and ignores those shown again.

// set is a cron field: the values that match, nil for any.
type set []int

func (s set) has(v int) bool { return s == nil || slices.Contains(s, v) }

func (s set) String() string {
	if s == nil {
		return "*"
	}
	parts := make([]string, len(s))
	for i, v := range s {
		parts[i] = fmt.Sprint(v)
	}
	return strings.Join(parts, ",")
}

type modelWindow struct {
	minute, hour, dom, month, dow set
	length                        int // minutes
	zone                          *time.Location
}

func (w modelWindow) cron() string {
	return fmt.Sprintf("%v %v %v %v %v", w.minute, w.hour, w.dom, w.month, w.dow)
}

// shows reports whether a clock face (a local time written as UTC) is a start.
func (w modelWindow) shows(face time.Time) bool {
	if !w.minute.has(face.Minute()) || !w.hour.has(face.Hour()) || !w.month.has(int(face.Month())) {
		return false
	}
	dom, dow := w.dom.has(face.Day()), w.dow.has(int(face.Weekday()))
	if w.dom == nil || w.dow == nil {
		return dom && dow
	}
	return dom || dow
}

// starts marks the minutes from begin on at which the window starts.
func (w modelWindow) starts(begin time.Time, minutes int) []bool {
	is := make([]bool, minutes)
	face := func(t time.Time, offset int) time.Time { return t.UTC().Add(time.Duration(offset) * time.Second) }
	_, offset := begin.In(w.zone).Zone()
	old, skipUntil, againUntil := offset, -1, -1
	for i := range is {
		now := begin.Add(time.Duration(i) * time.Minute)
		if _, o := now.In(w.zone).Zone(); o != offset {
			old = offset
			if o > offset {
				skipUntil = i + (o-offset)/60
			} else {
				againUntil = i + (offset-o)/60
			}
			offset = o
		}
		switch {
		case i < againUntil && w.hour != nil:
		default:
			is[i] = w.shows(face(now, offset))
		}
		if i < skipUntil && w.shows(face(now, old)) {
			is[i] = true
		}
	}
	return is
}

// open marks the minutes at which the window is open.
func (w modelWindow) open(begin time.Time, minutes int) []bool {
	lead := w.length + 2*24*60
	is := make([]bool, minutes)
	last := -1 << 40
	for i, s := range w.starts(begin.Add(-time.Duration(lead)*time.Minute), minutes+lead) {
		if s {
			last = i
		}
		if i >= lead && i < last+w.length {
			is[i-lead] = true
		}
	}
	return is
}

func randomSet(r *rand.Rand, low, high, most int) set {
	if r.IntN(2) == 0 {
		return nil
	}
	var s set
	for range 1 + r.IntN(most) {
		if v := low + r.IntN(high-low+1); !slices.Contains(s, v) {
			s = append(s, v)
		}
	}
	return s
}

func randomWindow(r *rand.Rand, loc *time.Location) modelWindow {
	w := modelWindow{
		minute: randomSet(r, 0, 59, 4), hour: randomSet(r, 0, 4, 3), dom: randomSet(r, 1, 28, 6),
		month: randomSet(r, 1, 12, 10), dow: randomSet(r, 0, 6, 3), zone: loc,
	}
	if r.IntN(4) > 0 { // most windows are weekly or daily, most start near the change of the clock
		w.dom, w.month = nil, nil
	}
	if w.minute == nil && r.IntN(2) == 0 {
		w.minute = set{0, 30}
	}
	w.length = []int{1, 10, 30, 60, 61, 240, 480, 1440, 2000, 10080, 44640}[r.IntN(11)]
	return w
}

// changes are instants near which clocks do something odd.
func changes() []struct{ zone, at string } {
	return []struct{ zone, at string }{
		{"Europe/Berlin", "2026-03-29T01:00:00Z"},
		{"Europe/Berlin", "2026-10-25T01:00:00Z"},
		{"America/New_York", "2026-03-08T07:00:00Z"},
		{"America/New_York", "2026-11-01T06:00:00Z"},
		{"Australia/Lord_Howe", "2026-04-04T15:00:00Z"}, // half an hour back
		{"Australia/Lord_Howe", "2026-10-03T15:30:00Z"}, // half an hour forward
		{"Asia/Beirut", "2026-03-28T22:00:00Z"},         // midnight is skipped
		{"Asia/Beirut", "2026-10-24T21:00:00Z"},         // back to the day before
		{"America/Havana", "2026-11-01T05:00:00Z"},      // midnight comes twice
		{"Africa/Casablanca", "2026-02-15T02:00:00Z"},
		{"Pacific/Apia", "2011-12-30T10:00:00Z"}, // a whole day is skipped
		{"Asia/Kathmandu", "2026-05-01T00:00:00Z"},
		{"UTC", "2028-02-29T00:00:00Z"},
	}
}

func TestOpenAgreesWithAMinuteByMinuteModel(t *testing.T) {
	rounds := 130
	if testing.Short() {
		rounds = 26
	}
	const minutes = 6 * 24 * 60
	for round := range rounds {
		r := rand.New(rand.NewPCG(7, uint64(round)))
		change := changes()[round%len(changes())]
		begin := instant(t, change.at).Add(-time.Duration(2*24*60+r.IntN(24*60)) * time.Minute)
		config, want := randomSchedule(t, r, change.zone, begin, minutes)
		s, err := New(config)
		if err != nil {
			t.Fatalf("round %d: %v: %v", round, config, err)
		}
		for i, open := range want {
			now := begin.Add(time.Duration(i)*time.Minute + time.Duration(r.IntN(60))*time.Second)
			if got, why := s.Open(now); got != open {
				t.Fatalf("round %d: %+v in %s: Open(%v) = %v (%s), the model says %v",
					round, config, change.zone, now.In(s.windows[0].loc), got, why, open)
			}
		}
		checkChanges(t, round, s, begin, want)
	}
}

func randomSchedule(t *testing.T, r *rand.Rand, zone string, begin time.Time, minutes int) (Config, []bool) {
	t.Helper()
	loc := location(t, zone)
	var c Config
	want := make([]bool, minutes)
	for range 1 + r.IntN(3) {
		w := randomWindow(r, loc)
		c.Windows = append(c.Windows, Window{w.cron(), time.Duration(w.length) * time.Minute, zone})
		for i, open := range w.open(begin, minutes) {
			want[i] = want[i] || open
		}
	}
	for range r.IntN(3) {
		from := begin.AddDate(0, 0, r.IntN(6))
		b := Blackout{From: from.Format(dateLayout), To: from.AddDate(0, 0, r.IntN(3)).Format(dateLayout), TimeZone: zone}
		c.Blackouts = append(c.Blackouts, b)
		for i := range want {
			date := begin.Add(time.Duration(i) * time.Minute).In(loc).Format(dateLayout)
			if b.From <= date && date <= b.To {
				want[i] = false
			}
		}
	}
	return c, want
}

// checkChanges compares Next and Until with the model's own changes, sampled.
func checkChanges(t *testing.T, round int, s *Schedule, begin time.Time, want []bool) {
	t.Helper()
	end := begin.Add(time.Duration(len(want)) * time.Minute)
	at := func(i int) time.Time { return begin.Add(time.Duration(i) * time.Minute) }
	for i := 0; i < len(want); i += 197 {
		turn := func(from int, to bool) int {
			for j := from; j < len(want); j++ {
				if want[j] == to {
					return j
				}
			}
			return len(want)
		}
		opening := turn(i, true)
		if want[i] {
			closing := turn(i, false)
			got, ok := s.Until(at(i))
			if closing < len(want) && (!ok || !got.Equal(at(closing))) || closing == len(want) && ok && got.Before(end) {
				t.Fatalf("round %d: Until(%v) = %v, %v, the model says %v", round, at(i), got, ok, at(closing))
			}
			opening = turn(closing, true)
		} else if got, ok := s.Until(at(i)); ok {
			t.Fatalf("round %d: Until(%v) = %v of a closed schedule", round, at(i), got)
		}
		got, ok := s.Next(at(i))
		if opening < len(want) && (!ok || !got.Equal(at(opening))) || opening == len(want) && ok && got.Before(end) {
			t.Fatalf("round %d: Next(%v) = %v, %v, the model says %v", round, at(i), got, ok, at(opening))
		}
	}
}

func location(t *testing.T, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

func instant(t *testing.T, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return at
}
