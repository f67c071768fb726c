package fleet

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// What Baton is held to.
const (
	minEfficiency = 0.90
	goalNodes     = 1000 // at which the efficiency is judged
	maxRequests   = 25   // a reboot, Events and the marshal's included
	maxMarshal    = 150 << 20
	nodeIsAtLeast = 12_000 // bytes
)

// Report is everything that was measured.
type Report struct {
	Started    time.Time `json:"started"`
	Seconds    float64   `json:"seconds"` // all of it, without building the parts
	Error      string    `json:"error,omitempty"`
	Processors int       `json:"processors"`

	Nodes     int     `json:"nodes"`
	Agents    int     `json:"agents"`    // nodes that have one
	NodeBytes int     `json:"nodeBytes"` // of a Node, as protobuf
	Slots     int     `json:"slots"`
	Seed      uint64  `json:"seed"`
	Drain     string  `json:"drain"`
	Boot      string  `json:"boot"`
	Raise     float64 `json:"raiseSeconds"`
	Lease     float64 `json:"leaseSeconds"` // between two renewals of a kubelet
	Churn     bool    `json:"churn"`

	Bare    Phase `json:"bare"`  // kubelets only, without Baton's policies
	Quiet   Phase `json:"quiet"` // kubelets only
	Start   Phase `json:"start"` // of all agents
	Idle    Phase `json:"idle"`
	Rollout Phase `json:"rollout"`

	Reboots     int      `json:"reboots"`
	Floor       float64  `json:"floorSeconds"`
	Efficiency  float64  `json:"efficiency"`
	HandOver    HandOver `json:"handOver"`
	AgentHeap   int64    `json:"agentHeap"` // bytes an agent, at rest, in this process
	Heap        int64    `json:"heap"`      // of this process, at the end
	IdlePerHour float64  `json:"idlePerHour"`
	Watches     int      `json:"watches"`
	Rejected    float64  `json:"rejected"` // by priority and fairness
	MostDown    int      `json:"mostDown"`
	Events      int      `json:"events"` // at which the limit was checked
	Faults      []string `json:"faults"`

	Killed int64 `json:"killed,omitempty"` // marshals
	Vacant int64 `json:"vacant,omitempty"` // times that there was none to be killed
	Left   int64 `json:"left,omitempty"`   // nodes, and as many joined
	Lost   int   `json:"lost,omitempty"`   // hosts that never came back

	Figures []Figure `json:"figures"`
}

// HandOver is from a slot that is freed to the next node that is cordoned with it, in seconds, as a watch sees both.
type HandOver struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

// Verdict on a figure.
type Verdict string

// Unjudged is said of what has no goal.
const (
	OK       Verdict = "ok"
	Missed   Verdict = "MISSED"
	Unjudged Verdict = ""
)

// Figure is a measured value with what it is to be compared with.
type Figure struct {
	Name      string  `json:"name"`
	Measured  string  `json:"measured"`
	Goal      string  `json:"goal,omitempty"`
	Yardstick string  `json:"yardstick,omitempty"`
	Verdict   Verdict `json:"verdict,omitempty"`
}

func (f *fleet) newReport() *Report {
	slots, _ := limit(f.Max, f.Nodes) // was checked with the options
	return &Report{
		Started: time.Now(), Processors: runtime.NumCPU(), Nodes: f.Nodes, Agents: cmp.Or(f.Agents, f.Nodes), NodeBytes: newNode(0, "node-00000", bootID()).Size(), Slots: slots,
		Seed: f.Seed, Drain: f.Drain.String(), Boot: f.Boot.String(), Raise: f.Raise.Seconds(), Lease: f.Lease.Seconds(), Churn: f.Churn,
	}
}

// PerReboot are the requests of a reboot: of all agents, the marshal among them.
func (r *Report) PerReboot() float64 {
	return float64(r.Rollout.Agents.Total+r.Rollout.Orders.Total) / float64(max(1, r.Reboots))
}

// ServerTime is the processor time of API server and etcd that a reboot costs, without what the kubelets cost anyway.
func (r *Report) ServerTime() time.Duration {
	used := r.Rollout.API.Cores + r.Rollout.Etcd.Cores - r.Quiet.API.Cores - r.Quiet.Etcd.Cores
	return time.Duration(used * r.Rollout.Seconds / float64(max(1, r.Reboots)) * float64(time.Second))
}

func judged(ok bool) Verdict {
	if ok {
		return OK
	}
	return Missed
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// judge makes the figures of what was measured.
func (r *Report) judge() {
	r.Figures = nil
	add := func(name, measured, goal, yardstick string, v Verdict) {
		r.Figures = append(r.Figures, Figure{name, measured, goal, yardstick, v})
	}
	efficiency, goal := Unjudged, ""
	if r.Nodes == goalNodes && r.Agents == r.Nodes && !r.Churn {
		efficiency, goal = judged(r.Efficiency >= minEfficiency), fmt.Sprintf("≥ %.2f", minEfficiency)
	}
	add("rollout", fmt.Sprintf("%.0f s", r.Rollout.Seconds), "", fmt.Sprintf("floor %.0f s: %d cycles on %d slots", r.Floor, r.Reboots, r.Slots), Unjudged)
	add("efficiency: floor / rollout", fmt.Sprintf("%.2f", r.Efficiency), goal, "1", efficiency)
	add("nodes down at once, at most", fmt.Sprintf("%d", r.MostDown), fmt.Sprintf("≤ %d", r.Slots),
		fmt.Sprintf("checked at %d events", r.Events), judged(len(r.Faults) == 0 && r.MostDown > 0))
	add("hand-over, p50 / p99", fmt.Sprintf("%.2f / %.2f s", r.HandOver.P50, r.HandOver.P99), "", fmt.Sprintf("kured: half its period, 30 min by default; %d seen", r.HandOver.Count), Unjudged)
	add("API requests a reboot", fmt.Sprintf("%.1f", r.PerReboot()), fmt.Sprintf("≤ %d", maxRequests), "kured: 60 (3 nodes, period 10 s)",
		judged(r.PerReboot() <= maxRequests))
	lists := r.Rollout.Agents.By["list nodes"] + r.Idle.Agents.By["list nodes"] + r.Start.Agents.By["list nodes"]
	if r.Churn { // the marshals are among the agents, and each reads the nodes once
		add("lists of nodes by agents", fmt.Sprintf("%d", lists), "", "marshals, of which each needs one", Unjudged)
		add("marshals killed", fmt.Sprintf("%d", r.Killed), "≥ 1", fmt.Sprintf("one every %v; %d times there was none", killEvery, r.Vacant), judged(r.Killed > 0))
		add("nodes that left, and as many that joined", fmt.Sprintf("%d", r.Left), "≥ 1", fmt.Sprintf("one every %v", churnEvery), judged(r.Left > 0))
		add("hosts that never came back", fmt.Sprintf("%d", r.Lost), "", fmt.Sprintf("1 %% of %d", r.Nodes), Unjudged)
	} else {
		add("lists of nodes by agents", fmt.Sprintf("%d", lists), "0", "", judged(lists == 0))
	}
	add("API requests of all agents at rest", fmt.Sprintf("%.2f /s", float64(r.Idle.Agents.Total)/r.Idle.Seconds), "",
		fmt.Sprintf("kubelets beside: %.0f /s", float64(r.Idle.Kubelets)/r.Idle.Seconds), Unjudged)
	add("that is, an agent, with the renewal of its watches", fmt.Sprintf("%.1f an hour", r.IdlePerHour), "≤ 10 an hour", "", judged(r.IdlePerHour <= 10))
	add("conflicts (409), of all requests", fmt.Sprintf("%.2f %%", 100*float64(r.Rollout.Agents.Conflicts+r.Rollout.Orders.Conflicts)/
		float64(max(1, r.Rollout.Agents.Total+r.Rollout.Orders.Total))), "", "", Unjudged)
	add("rejected by priority and fairness", fmt.Sprintf("%.0f", r.Rejected), "0", "its defaults", judged(r.Rejected == 0))
	add("API server and etcd, processor time a reboot", r.ServerTime().Round(time.Millisecond).String(), "",
		"the same kubelets alone taken off", Unjudged)
	add("API server with the policies, which watch every Lease", fmt.Sprint(r.Quiet.API), "", "without: "+fmt.Sprint(r.Bare.API), Unjudged)
	add("heap of an agent in this process", mib(r.AgentHeap), "", "", Unjudged)
	if r.Rollout.Marshal.Peak > 0 {
		add("marshal: RSS at most", mib(r.Rollout.Marshal.Peak), "≤ "+mib(maxMarshal), "DaemonSet's limit 256 MiB", judged(r.Rollout.Marshal.Peak <= maxMarshal))
	}
}

func (r *Report) missed() []string {
	var goals []string
	for _, f := range r.Figures {
		if f.Verdict == Missed {
			goals = append(goals, fmt.Sprintf("%s is %s, goal %s", f.Name, f.Measured, f.Goal))
		}
	}
	return goals
}

// print writes the tables.
func (r *Report) print(w io.Writer) {
	fmt.Fprintf(w, "\n%d nodes, %d with agents, %d at once, drain %s, boot %s, seed %d, %d processors, Node of %.1f KB; %.0f s in all\n\n",
		r.Nodes, r.Agents, r.Slots, r.Drain, r.Boot, r.Seed, r.Processors, float64(r.NodeBytes)/1e3, r.Seconds)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FIGURE\tMEASURED\tGOAL\tVERDICT\tYARDSTICK")
	for _, f := range r.Figures {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", f.Name, f.Measured, f.Goal, f.Verdict, f.Yardstick)
	}
	fmt.Fprintln(t, "\nPHASE\tSECONDS\tAPI SERVER\tETCD\tMARSHAL\tFLEET\tKUBELETS' REQUESTS\tAGENTS' REQUESTS")
	for _, p := range []struct {
		name string
		Phase
	}{{"kubelets alone", r.Bare}, {"with the policies", r.Quiet}, {"agents start", r.Start}, {"agents at rest", r.Idle}, {"rollout", r.Rollout}} {
		fmt.Fprintf(t, "%s\t%.0f\t%v\t%v\t%v\t%v\t%d\t%d\n", p.name, p.Seconds, p.API, p.Etcd, p.Marshal, p.Fleet, p.Kubelets, p.Agents.Total+p.Orders.Total)
	}
	fmt.Fprintln(t, "\nREQUESTS OF THE ROLLOUT\tAGENTS\tA REBOOT\tMARSHAL\tA REBOOT")
	all := Requests{By: map[string]int{}}
	for _, q := range []Requests{r.Rollout.Agents, r.Rollout.Orders} {
		for what, n := range q.By {
			all.By[what] += n
		}
	}
	reboots := float64(max(1, r.Reboots))
	for _, what := range all.busiest() {
		a, m := r.Rollout.Agents.By[what], r.Rollout.Orders.By[what]
		fmt.Fprintf(t, "%s\t%d\t%.2f\t%d\t%.2f\n", what, a, float64(a)/reboots, m, float64(m)/reboots)
	}
	_ = t.Flush()
	fmt.Fprintf(w, "\nrefused: agents %v, marshal %v\n", r.Rollout.Agents.Refused, r.Rollout.Orders.Refused)
	if len(r.Faults) > 0 {
		fmt.Fprintln(w, strings.Join(r.Faults, "\n"))
	}
	if r.Error != "" {
		fmt.Fprintln(w, "error:", r.Error)
	}
}

// String is processors and memory.
func (l Load) String() string {
	if l == (Load{}) {
		return "–"
	}
	return fmt.Sprintf("%.2f cores, %.0f MiB", l.Cores, float64(l.RSS)/(1<<20))
}
