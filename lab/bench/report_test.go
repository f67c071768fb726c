package bench

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kubebaton.io/baton/lab/audit"
	"kubebaton.io/baton/lab/observe"
	"kubebaton.io/baton/lab/report"
)

func times(values ...int) []time.Duration {
	var out []time.Duration
	for _, v := range values {
		out = append(out, time.Duration(v)*time.Millisecond)
	}
	return out
}

// measured is a report in which every goal is met.
func measured() *Report {
	small := map[string]observe.Memory{"n1": {RSS: 20 << 20}, "n2": {RSS: 25 << 20, Group: 40 << 20, Working: 30 << 20}}
	return &Report{
		HandOver:  &HandOver{Cordoned: report.SpreadOf(times(100, 300, 900))},
		Detection: &Detection{Raised: report.SpreadOf(times(40, 100, 400))},
		Idle:      &Idle{Seconds: 1200, Agents: []IdleAgent{{PerHour: 2}, {PerHour: 10}}},
		Memory:    []Sample{{When: beforeAll, By: map[string]observe.Memory{"n1": {RSS: 90 << 20}}}, {When: afterCycle, By: small}, {When: whileIdle, By: small}},
		Size:      &Size{Binary: 30e6, Stripped: true, Image: 31e6},
	}
}

func TestVerdict(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Report)
		want   string // in the error; "" none
	}{
		{"everything at its goal is met", func(*Report) {}, ""},
		{"a median hand-over above the goal", func(r *Report) { r.HandOver.Cordoned = report.SpreadOf(times(100, 301, 302)) }, "missed: hand-over"},
		{"a median detection above the goal", func(r *Report) { r.Detection.Raised = report.SpreadOf(times(101)) }, "missed: detection"},
		{"one agent that asks too often", func(r *Report) { r.Idle.Agents[0].PerHour = 10.1 }, "missed: requests"},
		{"one large agent after a cycle", func(r *Report) { r.Memory[1].By = map[string]observe.Memory{"n1": {RSS: 25<<20 + 1}} }, "agent after a cycle"},
		{"a binary above the goal", func(r *Report) { r.Size.Binary++ }, "missed: binary"},
		{"a binary with its symbols", func(r *Report) { r.Size.Stripped = false }, "missed: binary"},
		{"a time too short to judge", func(r *Report) { r.Idle.Seconds, r.Idle.Agents[0].PerHour = 120, 30 }, ""},
		{"a short time with more requests than an hour may have", func(r *Report) {
			r.Idle.Seconds, r.Idle.Agents[0] = 120, IdleAgent{Agent: observe.Agent{Total: 11}, PerHour: 330}
		}, "missed: requests"},
		{"no hand-over", func(r *Report) { r.HandOver = nil }, "missed: hand-over"},
		{"no detection", func(r *Report) { r.Detection = nil }, "missed: detection"},
		{"no idle time", func(r *Report) { r.Idle = nil }, "missed: requests"},
		{"no memory at the end", func(r *Report) { r.Memory = r.Memory[:2] }, "agent idle"},
		{"nothing measured but the sizes", func(r *Report) { *r = Report{Size: r.Size} }, "hand-over: slot freed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := measured()
			tc.change(r)
			r.judge()
			err := r.verdict()
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("verdict %v, want %q", err, tc.want)
			}
		})
	}
}

func TestPerHour(t *testing.T) {
	hour := []audit.Watch{{Timeout: time.Hour}, {Timeout: 2 * time.Hour}}
	for _, tc := range []struct {
		name    string
		verbs   map[string]int
		watches []audit.Watch
		want    float64
	}{
		{"nothing seen: the watches will be renewed", nil, hour, 1.5},
		{"a renewal seen is not reckoned twice", map[string]int{"watch nodes": 1}, hour, 3},
		{"watches that break are reckoned as seen", map[string]int{"watch nodes": 4}, hour, 12},
		{"other requests come on top", map[string]int{"get nodes": 2}, hour, 7.5},
		{"a watch without a time lasts as long as the server's", nil, []audit.Watch{{}}, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := observe.Agent{Verbs: tc.verbs}
			for _, n := range tc.verbs {
				a.Total += n
			}
			if got := perHour(a, tc.watches, 20*time.Minute); got < tc.want-0.01 || got > tc.want+0.01 {
				t.Errorf("%.2f an hour, want %.2f", got, tc.want)
			}
		})
	}
}

func TestInotify(t *testing.T) {
	dir := t.TempDir()
	told, err := inotify(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := told.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := told.Read(make([]byte, 4096)); n == 0 || err != nil {
		t.Errorf("%d bytes, error %v", n, err)
	}
}
