package drains

import (
	"strings"
	"testing"
	"time"

	"kubebaton.io/baton/lab/report"
)

func times(values ...int) report.Spread {
	var out []time.Duration
	for _, v := range values {
		out = append(out, time.Duration(v)*time.Millisecond)
	}
	return report.SpreadOf(out)
}

func asked(totals ...int) []Requests {
	var out []Requests
	for _, n := range totals {
		out = append(out, Requests{Total: n})
	}
	return out
}

// measured is a report in which every goal is just met.
func measured() *Report {
	return &Report{
		Races: []Race{
			{Pods: 50, Rounds: 3, Want: 1, Baton: Result{Above: times(10, 400, 900), Requests: asked(52, 65, 53)}, Kubectl: Result{Above: times(1, 400, 401)}},
			{Pods: 200, Rounds: 3, Want: 2, Baton: Result{Above: times(10, 400, 900), Requests: asked(202, 215, 203)}, Kubectl: Result{Above: times(1, 800, 801)}},
			{Pods: 50, Rounds: 1, Baton: Result{Above: times(900), Requests: asked(99)}, Kubectl: Result{Above: times(400)}},
		},
		Budgets: []Budget{
			{Tool: baton, Pods: budgetPods, Requests: Requests{Total: 3 * budgetPods}},
			{Tool: kubectl, Pods: budgetPods, Requests: Requests{Total: 9 * budgetPods}},
		},
		Denials: []Denial{{Tool: baton, Code: 403, Through: true, After: 3}, {Tool: kubectl, Code: 403, After: -9.9, Error: "denied"}},
	}
}

func TestVerdict(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Report)
		want   string // in the error; "" none
	}{
		{"what just meets its goals is no error, and kubectl has none", func(*Report) {}, ""},
		{"slower than kubectl in the median", func(r *Report) { r.Races[0].Baton.Above = times(10, 401, 402) }, "missed: 50 pods: ratio 1.00"},
		{"less than twice as fast with many pods", func(r *Report) { r.Races[1].Kubectl.Above = times(1, 799, 9000) }, "missed: 200 pods: ratio 2.00"},
		{"one drain with too many requests", func(r *Report) { r.Races[0].Baton.Requests = asked(52, 66, 53) }, "50 pods: ratio 1.00, 66 requests"},
		{"a round that is missing", func(r *Report) { r.Races[0].Kubectl.Above = times(400, 400) }, "missed: 50 pods"},
		{"nothing measured", func(r *Report) { r.Races = []Race{{Pods: 1, Want: 1}} }, "missed: 1 pods"},
		{"a budget asked too often", func(r *Report) { r.Budgets[0].Requests.Total++ }, "missed: budget: 3.1 requests"},
		{"a budget under which not all pods went", func(r *Report) { r.Budgets[0].Pods-- }, "missed: budget"},
		{"a webhook that makes it give up", func(r *Report) { r.Denials[0].Through = false }, "missed: webhook that denies with 403: gave up after 13.00 s"},
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

func TestTheTablesTellWhatStandsBesideFromWhatIsJudged(t *testing.T) {
	r := measured()
	r.Races[1].Baton.Requests = asked(999)
	r.judge()
	var b strings.Builder
	r.show(&b)
	var marks []string
	for line := range strings.Lines(b.String()) {
		if f := strings.Fields(line); len(f) > 0 && (f[len(f)-1] == "ok" || f[len(f)-1] == "MISSED" || f[len(f)-1] == "beside") {
			marks = append(marks, f[len(f)-1])
		}
	}
	if got, want := strings.Join(marks, " "), "ok MISSED beside ok beside ok beside"; got != want {
		t.Errorf("marks %q, want %q\n%s", got, want, &b)
	}
}

func TestWanted(t *testing.T) {
	for _, tc := range []struct {
		name string
		pods int
		ends ends
		l    limits
		want float64
	}{
		{"few pods", 50, atOnce(), agentLimits(), 1},
		{"many pods that end one after another", manyPods, oneByOne(), agentLimits(), muchFaster},
		{"many pods that end at once", manyPods, atOnce(), agentLimits(), 1},
		{"a client's own limits", 50, atOnce(), commandLimits(), 0},
	} {
		if got := wanted(tc.pods, tc.ends, tc.l); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}
