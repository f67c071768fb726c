package window

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// opening is a stretch from one instant to another, as RFC 3339 with its offset.
type opening struct{ from, to string }

// What the peers of docs/reliability.md get wrong, by its number there.
func TestPeer9_ANightIsOpenFromItsFridayEveningToItsSaturdayMorning(t *testing.T) {
	s, err := New(Config{Windows: []Window{{"0 22 * * 5", 8 * time.Hour, "Europe/Berlin"}}})
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]bool{
		"2026-01-09T00:30:00+01:00": false, // Friday, before its night
		"2026-01-09T05:59:00+01:00": false,
		"2026-01-09T21:59:59+01:00": false,
		"2026-01-09T22:00:00+01:00": true,
		"2026-01-10T00:30:00+01:00": true, // Saturday, the same night
		"2026-01-10T05:59:59+01:00": true,
		"2026-01-10T06:00:00+01:00": false,
		"2026-01-10T22:30:00+01:00": false,
	} {
		when, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if open, why := s.Open(when); open != want {
			t.Errorf("at %s it is open %v: %s", at, open, why)
		}
	}
}

func TestSchedule(t *testing.T) {
	tests := map[string]struct {
		config   Config
		from     string    // where the walk starts, closed or open
		openings []opening // the next ones, in order
	}{
		"a Friday night belongs to its Friday": {
			Config{Windows: []Window{{"0 22 * * 5", 8 * time.Hour, "Europe/Berlin"}}},
			"2026-01-08T12:00:00+01:00",
			[]opening{
				{"2026-01-09T22:00:00+01:00", "2026-01-10T06:00:00+01:00"},
				{"2026-01-16T22:00:00+01:00", "2026-01-17T06:00:00+01:00"},
			},
		},
		"Berlin, a start that does not exist moves by an hour and is not lost": {
			Config{Windows: []Window{{"30 2 * * 0", time.Hour, "Europe/Berlin"}}},
			"2026-03-28T12:00:00+01:00",
			[]opening{
				{"2026-03-29T03:30:00+02:00", "2026-03-29T04:30:00+02:00"},
				{"2026-04-05T02:30:00+02:00", "2026-04-05T03:30:00+02:00"},
			},
		},
		"Berlin, a start that comes twice is taken the first time": {
			Config{Windows: []Window{{"30 2 * * 0", 30 * time.Minute, "Europe/Berlin"}}},
			"2026-10-24T12:00:00+02:00",
			[]opening{
				{"2026-10-25T02:30:00+02:00", "2026-10-25T03:00:00+02:00"},
				{"2026-11-01T02:30:00+01:00", "2026-11-01T03:00:00+01:00"},
			},
		},
		"Berlin, each hour means each hour, also the one that comes twice": {
			Config{Windows: []Window{{"30 * * * *", 10 * time.Minute, "Europe/Berlin"}}},
			"2026-10-25T01:45:00+02:00",
			[]opening{
				{"2026-10-25T02:30:00+02:00", "2026-10-25T02:40:00+02:00"},
				{"2026-10-25T02:30:00+01:00", "2026-10-25T02:40:00+01:00"},
				{"2026-10-25T03:30:00+01:00", "2026-10-25T03:40:00+01:00"},
			},
		},
		"New York, a night is eight elapsed hours in spring": {
			Config{Windows: []Window{{"0 22 * * 6", 8 * time.Hour, "America/New_York"}}},
			"2026-03-07T12:00:00-05:00",
			[]opening{{"2026-03-07T22:00:00-05:00", "2026-03-08T07:00:00-04:00"}},
		},
		"New York, a night is eight elapsed hours in autumn": {
			Config{Windows: []Window{{"0 22 * * 6", 8 * time.Hour, "America/New_York"}}},
			"2026-10-31T12:00:00-04:00",
			[]opening{{"2026-10-31T22:00:00-04:00", "2026-11-01T05:00:00-05:00"}},
		},
		"Lord Howe moves its clocks by half an hour": {
			Config{Windows: []Window{{"15 2 * * 0", 10 * time.Minute, "Australia/Lord_Howe"}}},
			"2026-10-03T12:00:00+10:30",
			[]opening{
				{"2026-10-04T02:45:00+11:00", "2026-10-04T02:55:00+11:00"},
				{"2026-10-11T02:15:00+11:00", "2026-10-11T02:25:00+11:00"},
			},
		},
		"Lord Howe, the repeated half hour is taken once": {
			Config{Windows: []Window{{"45 1 * * 0", 10 * time.Minute, "Australia/Lord_Howe"}}},
			"2026-04-04T12:00:00+11:00",
			[]opening{
				{"2026-04-05T01:45:00+11:00", "2026-04-05T01:55:00+11:00"},
				{"2026-04-12T01:45:00+10:30", "2026-04-12T01:55:00+10:30"},
			},
		},
		"a day field that begins with a star restricts the other one: the first Saturday of a month": {
			Config{Windows: []Window{{"0 2 */100,1-7 * 6", time.Hour, ""}}},
			"2026-09-01T00:00:00Z",
			[]opening{{"2026-09-05T02:00:00Z", "2026-09-05T03:00:00Z"}, {"2026-10-03T02:00:00Z", "2026-10-03T03:00:00Z"}},
		},
		"and so does one of the week: the 1st and the 15th on a weekend": {
			Config{Windows: []Window{{"0 2 1,15 * */6", time.Hour, ""}}}, // Sunday and Saturday
			"2026-09-01T00:00:00Z",
			[]opening{{"2026-11-01T02:00:00Z", "2026-11-01T03:00:00Z"}, {"2026-11-15T02:00:00Z", "2026-11-15T03:00:00Z"}},
		},
		"the leap day comes every four years": {
			Config{Windows: []Window{{"0 3 29 2 *", time.Hour, ""}}},
			"2026-01-01T00:00:00Z",
			[]opening{
				{"2028-02-29T03:00:00Z", "2028-02-29T04:00:00Z"},
				{"2032-02-29T03:00:00Z", "2032-02-29T04:00:00Z"},
			},
		},
		"and not in 2100": {
			Config{Windows: []Window{{"0 3 29 2 *", time.Hour, ""}}},
			"2096-03-01T00:00:00Z",
			[]opening{{"2104-02-29T03:00:00Z", "2104-02-29T04:00:00Z"}},
		},
		"windows that overlap or touch are one opening": {
			Config{Windows: []Window{{"0 1 * * *", 2 * time.Hour, ""}, {"0 2 * * *", 4 * time.Hour, ""}, {"0 6 * * *", time.Hour, ""}}},
			"2026-05-01T00:00:00Z",
			[]opening{{"2026-05-01T01:00:00Z", "2026-05-01T07:00:00Z"}, {"2026-05-02T01:00:00Z", "2026-05-02T07:00:00Z"}},
		},
		"windows in two time zones": {
			Config{Windows: []Window{{"0 1 * * *", time.Hour, "Asia/Tokyo"}, {"0 1 * * *", time.Hour, "Europe/Berlin"}}},
			"2026-05-01T10:00:00Z",
			[]opening{{"2026-05-01T16:00:00Z", "2026-05-01T17:00:00Z"}, {"2026-05-01T23:00:00Z", "2026-05-02T00:00:00Z"}},
		},
		"a blackout inside a window cuts it in two": {
			Config{
				Windows:   []Window{{"0 12 * * 5", 72 * time.Hour, "Europe/Berlin"}},
				Blackouts: []Blackout{{From: "2026-05-02", To: "2026-05-02", TimeZone: "Europe/Berlin", Reason: "sale"}},
			},
			"2026-05-01T00:00:00+02:00",
			[]opening{
				{"2026-05-01T12:00:00+02:00", "2026-05-02T00:00:00+02:00"},
				{"2026-05-03T00:00:00+02:00", "2026-05-04T12:00:00+02:00"},
			},
		},
		"blackouts that overlap are one, and windows within them are lost": {
			Config{
				Windows:   []Window{{"0 3 * * *", time.Hour, ""}},
				Blackouts: []Blackout{{From: "2026-12-20", To: "2026-12-27"}, {From: "2026-12-24", To: "2027-01-03"}},
			},
			"2026-12-20T00:00:00Z",
			[]opening{{"2027-01-04T03:00:00Z", "2027-01-04T04:00:00Z"}},
		},
		"a date that the clock returns to is dark to its very end": {
			Config{Blackouts: []Blackout{{From: "2010-11-06", To: "2010-11-06", TimeZone: "America/St_Johns"}}},
			"2010-11-06T12:00:00-02:30",
			[]opening{{"2010-11-07T00:00:00-03:30", ""}}, // 00:01 became 23:01 of the day before
		},
		"a date whose midnight is skipped begins at the jump": {
			Config{Blackouts: []Blackout{{From: "1919-03-29", To: "1919-03-30", TimeZone: "America/Toronto"}}},
			"1919-03-30T12:00:00-05:00",
			[]opening{{"1919-03-31T00:30:00-04:00", ""}}, // 23:30 became 00:30
		},
		"without windows only blackouts close": {
			Config{Blackouts: []Blackout{{From: "2026-12-20", To: "2026-12-20", TimeZone: "America/New_York"}}},
			"2026-12-20T12:00:00-05:00",
			[]opening{{"2026-12-21T00:00:00-05:00", ""}},
		},
		"a window longer than its period never closes": {
			Config{Windows: []Window{{"0 0 * * 1", 169 * time.Hour, "Europe/Berlin"}}, Blackouts: []Blackout{{From: "2026-05-02", To: "2026-05-02"}}},
			"2026-05-02T12:00:00Z",
			[]opening{{"2026-05-03T00:00:00Z", ""}},
		},
		"every minute for a minute never closes, on the longest day too": {
			Config{Windows: []Window{{"* * * * *", time.Minute, "Europe/Berlin"}}, Blackouts: []Blackout{{From: "2026-10-24", To: "2026-10-24"}}},
			"2026-10-24T12:00:00Z",
			[]opening{{"2026-10-25T00:00:00Z", ""}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, err := New(tt.config)
			if err != nil {
				t.Fatal(err)
			}
			at := instant(t, tt.from)
			for _, want := range tt.openings {
				at = walk(t, s, at, want)
			}
		})
	}
}

// walk checks one opening, asked for from at, and returns an instant past it.
func walk(t *testing.T, s *Schedule, at time.Time, want opening) time.Time {
	t.Helper()
	from, ok := s.Next(at)
	if !ok || !from.Equal(instant(t, want.from)) {
		t.Fatalf("Next(%v) = %v, %v, want %s", at, from, ok, want.from)
	}
	is := func(at time.Time, want bool) {
		t.Helper()
		if open, why := s.Open(at); open != want || why == "" {
			t.Errorf("Open(%v) = %v, %q, want %v", at, open, why, want)
		}
	}
	is(from.Add(-time.Nanosecond), false)
	is(from, true)
	to, ok := s.Until(from)
	if want.to == "" {
		if ok {
			t.Errorf("Until(%v) = %v, want no end", from, to)
		}
		if next, ok := s.Next(from); ok {
			t.Errorf("Next(%v) = %v within an opening without end", from, next)
		}
		return from
	}
	if !ok || !to.Equal(instant(t, want.to)) {
		t.Fatalf("Until(%v) = %v, %v, want %s", from, to, ok, want.to)
	}
	is(to.Add(-time.Nanosecond), true)
	is(to, false)
	return from
}

func TestOpenSaysWhy(t *testing.T) {
	weekend := []Window{{"0 22 * * 5", 8 * time.Hour, "Europe/Berlin"}}
	freeze := []Blackout{{From: "2026-12-20", To: "2027-01-03", TimeZone: "Europe/Berlin", Reason: "year end"}}
	tests := map[string]struct {
		config Config
		at     string
		open   bool
		why    string
	}{
		"no windows":                            {Config{}, "2026-01-01T00:00:00Z", true, "no windows are configured"},
		"Saturday 05:00 is in it":               {Config{Windows: weekend}, "2026-01-10T05:00:00+01:00", true, `window "0 22 * * 5" for 8h0m0s in Europe/Berlin`},
		"Friday 05:00 is not":                   {Config{Windows: weekend}, "2026-01-09T05:00:00+01:00", false, "outside every window; the next opening is Fri 2026-01-09 22:00 CET"},
		"of two, the one open longest is named": {Config{Windows: append([]Window{{"@daily", 24 * time.Hour, ""}, {"@monthly", 744 * time.Hour, ""}}, weekend...)}, "2026-01-10T05:00:00+01:00", true, `window "@monthly" for 744h0m0s in UTC`},
		"a blackout is named":                   {Config{Windows: weekend, Blackouts: freeze}, "2026-12-25T23:00:00+01:00", false, "blackout 2026-12-20 to 2027-01-03 (Europe/Berlin): year end"},
		"a blackout counts for Next":            {Config{Windows: weekend, Blackouts: freeze}, "2026-12-19T12:00:00+01:00", false, "outside every window; the next opening is Fri 2027-01-08 22:00 CET"},
		"a blackout for ever":                   {Config{Windows: weekend, Blackouts: []Blackout{{From: "2026-01-10", To: "9999-12-31"}}}, "2026-01-10T12:00:00Z", false, "blackout 2026-01-10 to 9999-12-31 (UTC)"},
		"nothing before that blackout":          {Config{Windows: weekend, Blackouts: []Blackout{{From: "2026-01-12", To: "9999-12-31"}}}, "2026-01-11T12:00:00Z", false, "outside every window; none opens within 9 years"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, err := New(tt.config)
			if err != nil {
				t.Fatal(err)
			}
			if open, why := s.Open(instant(t, tt.at)); open != tt.open || why != tt.why {
				t.Errorf("Open = %v, %q, want %v, %q", open, why, tt.open, tt.why)
			}
		})
	}
}

func TestNewNamesEveryFault(t *testing.T) {
	_, err := New(Config{
		Windows: []Window{
			{"0 22 * *", 0, "Europe/Atlantis"},
			{"0 0 30 2 *", time.Hour, "Local"},
			{"TZ=UTC", 745 * time.Hour, ""},
			{"@every 1h", time.Hour, "UTC"},
			{"", time.Minute, "UTC"},
			{", * * * *", time.Minute, "UTC"},
			{"0 0 * * 7", time.Minute, "UTC"},
			{"CRON_TZ=Europe/Berlin 0 0 * * *", time.Minute, "UTC"},
			{"@daily", time.Hour, "UTC"}, // nothing wrong with it
		},
		Blackouts: []Blackout{
			{From: "20.12.2026", To: "2026-02-30", TimeZone: "CEST"},
			{From: "2026-12-20", To: "2026-12-19"},
		},
	})
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("New = %v, want joined faults", err)
	}
	var paths []string
	for _, e := range joined.Unwrap() {
		var f *Fault
		if !errors.As(e, &f) {
			t.Errorf("%v is no *Fault", e)
			continue
		}
		paths = append(paths, f.Path)
		if !strings.Contains(e.Error(), f.Path+": ") || f.Fix == "" {
			t.Errorf("%q does not say what to do", e)
		}
	}
	want := []string{
		"windows[0].cron", "windows[0].duration", "windows[0].timeZone", "windows[1].cron", "windows[1].timeZone",
		"windows[2].cron", "windows[2].duration", "windows[3].cron", "windows[4].cron", "windows[5].cron",
		"windows[6].cron", "windows[7].cron",
		"blackouts[0].from", "blackouts[0].to", "blackouts[0].timeZone", "blackouts[1].to",
	}
	if diff := cmp.Diff(want, paths); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

// BenchmarkUntil asks the costliest question: sixty-two days of openings of one minute.
func BenchmarkUntil(b *testing.B) {
	s, err := New(Config{Windows: []Window{{"* * * * *", time.Minute, "Europe/Berlin"}}})
	if err != nil {
		b.Fatal(err)
	}
	at := time.Date(2026, 9, 1, 0, 0, 0, 0, time.UTC)
	for b.Loop() {
		s.Until(at)
	}
}

func BenchmarkOpen(b *testing.B) {
	s, err := New(Config{Windows: []Window{{"0 22 * * 5", 8 * time.Hour, "Europe/Berlin"}}})
	if err != nil {
		b.Fatal(err)
	}
	at := time.Date(2026, 9, 1, 0, 0, 0, 0, time.UTC)
	for b.Loop() {
		s.Open(at)
	}
}
