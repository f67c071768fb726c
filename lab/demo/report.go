package demo

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/observe"
	"kubebaton.io/baton/lab/report"
)

// What Baton is held to.
const (
	maxAdded    = 3 * time.Second        // over the hand, a node
	maxHandOver = 300 * time.Millisecond // slot freed to next node cordoned
)

// Report is everything that was measured. Times are seconds.
type Report struct {
	Error         string          `json:"error,omitempty"` // it did not come to an end
	Goals         []Goal          `json:"goals"`
	Total         seconds         `json:"total"`              // sentinels raised to the last node schedulable
	HandTotal     seconds         `json:"totalByHand"`        //
	ConfigTakenUp seconds         `json:"configurationTaken"` // changed to in force on all nodes
	Nodes         []NodeReport    `json:"nodes"`              // in the order they went
	HandOvers     []HandOver      `json:"handOvers"`          //
	MaxDown       int             `json:"maxDown"`            // nodes at once, by the API
	MaxDownNodes  []string        `json:"maxDownNodes"`       // the first time it was so many
	Violations    []string        `json:"violations"`         // by the API
	PowerFaults   []string        `json:"powerFaults"`        // by the power log
	Green         Green           `json:"green"`              //
	Evictions     map[string]int  `json:"evictions"`          // by the pods' controller: kind, name and UID
	HandEvictions map[string]int  `json:"evictionsByHand"`    //
	Agents        []observe.Agent `json:"agentRequests"`      // during the rollout
}

// NodeReport is how a node fared.
type NodeReport struct {
	Node        string             `json:"node"`
	OldBootID   string             `json:"bootIDBefore"`
	NewBootID   string             `json:"bootIDAfter"`
	Detected    seconds            `json:"detected"` // sentinel raised to Waiting
	Phases      map[string]seconds `json:"phases"`
	Down        seconds            `json:"down"`       // cordoned to Ready and schedulable
	Turn        seconds            `json:"turn"`       // the node before it is done (the first: sentinels raised) to it is done
	MachineOff  seconds            `json:"machineOff"` // by the power log
	AgentMemory observe.Memory     `json:"agentMemory"`
	Hand        *Hand              `json:"byHand,omitempty"`

	downs []observe.Down
}

// HandOver is how long a slot took from one node to the next, in steps.
type HandOver struct {
	From  string  `json:"from"`
	To    string  `json:"to"`
	Named seconds `json:"named"` // from freed, as the others
	Taken seconds `json:"taken"`
	Took  seconds `json:"cordoned"`
}

// Goal is something that Baton is held to.
type Goal struct {
	Name     string `json:"name"`
	Measured string `json:"measured"`
	Want     string `json:"goal"`
	OK       bool   `json:"ok"`
}

type seconds time.Duration

// MarshalJSON writes a number, to the millisecond.
func (s seconds) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%.3f", time.Duration(s).Seconds()), nil
}

func (s seconds) String() string { return fmt.Sprintf("%.2f s", time.Duration(s).Seconds()) }

func (r *Report) node(name string) *NodeReport {
	i := slices.IndexFunc(r.Nodes, func(n NodeReport) bool { return n.Node == name })
	if i < 0 {
		return &NodeReport{} // not one of the cluster's: nothing that is written here is read
	}
	return &r.Nodes[i]
}

// fromLog reads what the observer saw of the rollout that began at from.
func (r *Report) fromLog(log observe.Log, from time.Time) {
	r.Violations = log.Violations(limit)
	r.MaxDown, r.MaxDownNodes, _ = log.MaxDown()
	for _, s := range log.Stays() {
		n := r.node(s.Node)
		if n.Phases == nil {
			n.Phases, n.Detected = map[string]seconds{}, seconds(s.From.Sub(from))
		}
		n.Phases[s.Phase] += seconds(s.Took())
	}
	for _, d := range log.Downs() {
		n := r.node(d.Node)
		n.downs = append(n.downs, d)
		n.NewBootID = d.NewBootID
		if !d.Until.IsZero() {
			n.Down += seconds(d.Until.Sub(d.From))
		}
	}
	slices.SortStableFunc(r.Nodes, func(a, b NodeReport) int { return cmp.Or(a.done().Compare(b.done()), cmp.Compare(a.Node, b.Node)) })
	last := from
	for i := range r.Nodes {
		n := &r.Nodes[i]
		if done := n.done(); !done.IsZero() {
			n.Turn, last = seconds(done.Sub(last)), done
		}
	}
	r.Total = seconds(last.Sub(from))
	for _, h := range log.HandOvers() {
		r.HandOvers = append(r.HandOvers, HandOver{
			h.From, h.To, seconds(h.Named.Sub(h.Freed)), seconds(h.Taken.Sub(h.Freed)), seconds(h.Took()),
		})
	}
}

// done is when the node was up for the last time, zero if it is not.
func (n *NodeReport) done() time.Time {
	if len(n.downs) == 0 {
		return time.Time{}
	}
	return n.downs[len(n.downs)-1].Until
}

// fromPower compares with what the machines themselves did.
func (r *Report) fromPower(log []cluster.PowerEvent, from, to time.Time) {
	r.PowerFaults = observe.BothOff(log, from, limit)
	offs := map[string][]cluster.PowerEvent{}
	for _, e := range log {
		if e.Time.Before(from) || e.Time.After(to) {
			continue
		}
		n, before := r.node(e.Node), offs[e.Node]
		if e.On {
			if len(before) > 0 {
				n.MachineOff += seconds(e.Time.Sub(before[len(before)-1].Time))
			}
			continue
		}
		offs[e.Node] = append(before, e)
		if e.Exit != rebooted {
			r.PowerFaults = append(r.PowerFaults, fmt.Sprintf("%s went off with exit code %d, which is no reboot", e.Node, e.Exit))
		}
		if !slices.ContainsFunc(n.downs, func(d observe.Down) bool { return d.From.Before(e.Time) && (d.Until.IsZero() || d.Until.After(e.Time)) }) {
			r.PowerFaults = append(r.PowerFaults, e.Node+" went off while it was not down by Baton")
		}
	}
	for _, n := range r.Nodes {
		if len(offs[n.Node]) != 1 {
			r.PowerFaults = append(r.PowerFaults, fmt.Sprintf("%s was off %d times", n.Node, len(offs[n.Node])))
		}
	}
}

// rebooted is the exit code, in the power log, of a machine that asked to be booted again.
const rebooted = 133

// judge makes the goals of what was measured.
func (r *Report) judge() {
	r.Goals = nil
	goal := func(name, measured, want string, ok bool) { r.Goals = append(r.Goals, Goal{name, measured, want, ok}) }
	count := func(n int) string { return fmt.Sprint(n) }

	back := 0
	for _, n := range r.Nodes {
		if len(n.downs) == 1 && n.NewBootID != "" && n.NewBootID != n.OldBootID {
			back++
		}
	}
	goal("nodes rebooted once, Ready, schedulable", count(back), count(nodes), back == nodes && r.Error == "")
	goal("nodes down at once, by an observer", count(r.MaxDown), fmt.Sprint("≤ ", limit), r.MaxDown <= limit)
	goal("violations of the slots, by an observer", count(len(r.Violations)), "0", len(r.Violations) == 0)
	goal("faults by the machines' power log", count(len(r.PowerFaults)), "0", len(r.PowerFaults) == 0)
	green, evictions := "lost", r.Evictions["Pod/green/"+r.Green.UID]
	if r.Green.NewUID == r.Green.UID && r.Green.UID != "" {
		green = "same"
	}
	goal("green's UID after the rollout", green, "same", green == "same" && evictions == 0)

	name, want := "added over the hand, a node (median)", fmt.Sprint("≤ ", seconds(maxAdded))
	if added := r.added(); len(added) == nodes {
		goal(name, median(added).String(), want, median(added) <= seconds(maxAdded))
	} else {
		goal(name, "not measured", want, false)
	}
	name, want = "slot freed → next node cordoned (median)", fmt.Sprint("≤ ", maxHandOver)
	var took []seconds
	for _, h := range r.HandOvers {
		took = append(took, h.Took)
	}
	if len(took) == nodes-1 {
		m := time.Duration(median(took))
		goal(name, m.Round(time.Millisecond).String(), want, m <= maxHandOver)
	} else {
		goal(name, "not measured", want, false)
	}
}

// added is what Baton took more than the hand, for every node that has both.
func (r *Report) added() []seconds {
	var added []seconds
	for _, n := range r.Nodes {
		if n.Hand != nil && n.Turn > 0 {
			added = append(added, n.Turn-n.Hand.Total)
		}
	}
	return added
}

// median of at least one value.
func median(values []seconds) seconds {
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// verdict is an error that names what was missed.
func (r *Report) verdict() error {
	var missed []string
	for _, g := range r.Goals {
		if !g.OK {
			missed = append(missed, g.Name)
		}
	}
	return report.Missed(missed)
}
