package drains

import (
	"fmt"
	"io"
	"runtime"
	"text/tabwriter"
	"time"

	"kubebaton.io/baton/lab/report"
)

// What Baton is held to.
const (
	manyPods         = 200 // from here on it is to be muchFaster, where that can be told
	muchFaster       = 2
	moreRequests     = 15 // than pods
	requestsPerFreed = 3  // under a budget
)

// Report is everything that was measured.
type Report struct {
	Started    time.Time   `json:"started"`
	Seconds    float64     `json:"seconds"`
	Kubernetes string      `json:"kubernetes"`
	MaxPods    int         `json:"maxPods"` // of the node
	Load       report.Load `json:"load"`
	Error      string      `json:"error,omitempty"` // it did not come to an end
	Races      []Race      `json:"races"`
	Budgets    []Budget    `json:"budgets"`
	Denials    []Denial    `json:"denials"`
}

// Race is the same pods drained by both tools.
type Race struct {
	Pods    int     `json:"pods"`
	Ends    string  `json:"ends"`   // of the pods
	Limits  string  `json:"limits"` // of both clients
	Rounds  int     `json:"rounds"`
	Want    float64 `json:"want"` // of Ratio; 0: what stands beside
	Baton   Result  `json:"baton"`
	Kubectl Result  `json:"kubectl"`
	Ratio   float64 `json:"ratio"` // of the medians of Above: how many times as long kubectl took
	Goal    string  `json:"goal"`
	OK      bool    `json:"ok"`
}

// Result is what a tool made of it.
type Result struct {
	Above    report.Spread `json:"above"`   // the slowest pod's own end
	Total    report.Spread `json:"total"`   // from the call to its return
	Slowest  report.Spread `json:"slowest"` // of the pods' own ends
	Requests []Requests    `json:"requests"`
}

// Requests in a drain.
type Requests struct {
	Total     int            `json:"total"`
	Evictions int            `json:"evictions"`
	By        map[string]int `json:"by"` // verb, resource and code
}

// Budget is a drain under a budget that frees a pod at each tick.
type Budget struct {
	Tool     string   `json:"tool"`
	Pods     int      `json:"pods"`
	Seconds  float64  `json:"seconds"`
	After    float64  `json:"after"` // the last pod was freed, seconds
	Requests Requests `json:"requests"`
	PerFreed float64  `json:"perFreed"` // requests
	Goal     string   `json:"goal"`
	OK       bool     `json:"ok"`
}

// Denial is a drain that begins while a webhook denies evictions.
type Denial struct {
	Tool     string   `json:"tool"`
	Code     int      `json:"code"` // with which it denies
	Pods     int      `json:"pods"`
	Through  bool     `json:"through"`
	Error    string   `json:"error,omitempty"`
	After    float64  `json:"after"` // it denied no more, seconds; negative when the tool gave up before
	Requests Requests `json:"requests"`
	Goal     string   `json:"goal"`
	OK       bool     `json:"ok"`
}

func (d Denial) outcome() string {
	if d.Through {
		return fmt.Sprintf("through %.2f s after it denied no more", d.After)
	}
	return fmt.Sprintf("gave up after %.2f s", webhookTime.Seconds()+d.After)
}

func (s *side) result() Result {
	return Result{report.SpreadOf(s.above), report.SpreadOf(s.total), report.SpreadOf(s.slowest), s.requests}
}

// most is the largest number of requests in one drain.
func (r Result) most() int {
	most := 0
	for _, q := range r.Requests {
		most = max(most, q.Total)
	}
	return most
}

// judge compares what was measured with the goals. What only stands beside has none.
func (r *Report) judge() {
	for i := range r.Races {
		r.Races[i].judge()
	}
	for i := range r.Budgets {
		r.Budgets[i].judge()
	}
	for i := range r.Denials {
		if d := &r.Denials[i]; d.Tool == baton {
			d.Goal, d.OK = "it gets through", d.Through
		}
	}
}

func (r *Race) judge() {
	if own := r.Baton.Above.Median; own > 0 {
		r.Ratio = float64(r.Kubectl.Above.Median) / float64(own)
	}
	if r.Want == 0 {
		return
	}
	r.Goal = fmt.Sprintf("ratio ≥ %.0f, requests ≤ %d", r.Want, r.Pods+moreRequests)
	measured := len(r.Baton.Above.Samples) == r.Rounds && len(r.Kubectl.Above.Samples) == r.Rounds && r.Rounds > 0
	r.OK = measured && r.Ratio >= r.Want && r.Baton.most() <= r.Pods+moreRequests
}

func (b *Budget) judge() {
	if b.Pods > 0 {
		b.PerFreed = float64(b.Requests.Total) / float64(b.Pods)
	}
	if b.Tool == baton {
		b.Goal = fmt.Sprintf("≤ %d requests a freed pod", requestsPerFreed)
		b.OK = b.Pods == budgetPods && b.PerFreed <= requestsPerFreed
	}
}

// verdict is an error that names what was missed.
func (r *Report) verdict() error {
	var missed []string
	for _, x := range r.Races {
		if x.Goal != "" && !x.OK {
			missed = append(missed, fmt.Sprintf("%d pods: ratio %.2f, %d requests", x.Pods, x.Ratio, x.Baton.most()))
		}
	}
	for _, x := range r.Budgets {
		if x.Goal != "" && !x.OK {
			missed = append(missed, fmt.Sprintf("budget: %.1f requests a freed pod", x.PerFreed))
		}
	}
	for _, x := range r.Denials {
		if x.Goal != "" && !x.OK {
			missed = append(missed, fmt.Sprintf("webhook that denies with %d: %s", x.Code, x.outcome()))
		}
	}
	return report.Missed(missed)
}

// show writes the tables.
func (r *Report) show(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\nKubernetes %s, maxPods %d, %d CPUs, load %v. Seconds above the slowest pod's own end: min / median / max.\n", r.Kubernetes, r.MaxPods, runtime.NumCPU(), r.Load)
	fmt.Fprintln(t, "PODS\tEND\tLIMITS\tBATON s\tKUBECTL s\tRATIO\tREQUESTS BATON\tREQUESTS KUBECTL\tSLOWEST POD'S OWN END s\tGOAL\tOK")
	for _, x := range r.Races {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%.1f\t%d\t%d\t%s, %s\t%s\t%s\n", x.Pods, x.Ends, x.Limits, seconds(x.Baton.Above), seconds(x.Kubectl.Above), x.Ratio,
			x.Baton.most(), x.Kubectl.most(), median(x.Baton.Slowest), median(x.Kubectl.Slowest), x.Goal, mark(x.Goal, x.OK))
	}
	if len(r.Budgets) > 0 {
		fmt.Fprintf(t, "\nA budget that frees one of %d pods every %v.\n", budgetPods, budgetTick)
		fmt.Fprintln(t, "TOOL\tIN s\tAFTER THE LAST WAS FREED s\tREQUESTS A FREED POD\tREQUESTS\tGOAL\tOK")
	}
	for _, x := range r.Budgets {
		fmt.Fprintf(t, "%s\t%.2f\t%.2f\t%.1f\t%d\t%s\t%s\n", x.Tool, x.Seconds, x.After, x.PerFreed, x.Requests.Total, x.Goal, mark(x.Goal, x.OK))
	}
	if len(r.Denials) > 0 {
		fmt.Fprintf(t, "\nA webhook that denies the eviction of %d pods for %v.\n", webhookPods, webhookTime)
		fmt.Fprintln(t, "DENIES WITH\tTOOL\tOUTCOME\tREQUESTS\tGOAL\tOK")
	}
	for _, x := range r.Denials {
		fmt.Fprintf(t, "%d\t%s\t%s\t%d\t%s\t%s\n", x.Code, x.Tool, x.outcome(), x.Requests.Total, x.Goal, mark(x.Goal, x.OK))
	}
	if r.Error != "" {
		fmt.Fprintf(t, "\nIt did not come to an end: %s\n", r.Error)
	}
	_ = t.Flush() // a terminal that is gone is nobody's loss
}

func seconds(s report.Spread) string {
	return fmt.Sprintf("%.2f / %.2f / %.2f", time.Duration(s.Min).Seconds(), time.Duration(s.Median).Seconds(), time.Duration(s.Max).Seconds())
}

func median(s report.Spread) string { return fmt.Sprintf("%.2f", time.Duration(s.Median).Seconds()) }

func mark(goal string, ok bool) string {
	switch {
	case goal == "":
		return "beside"
	case ok:
		return "ok"
	}
	return "MISSED"
}
