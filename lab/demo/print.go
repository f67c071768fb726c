package demo

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"kubebaton.io/baton/lab/observe"
)

// summarize writes what a person wants to see.
func (r *Report) summarize(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	r.printNodes(t)
	r.printBoots(t)
	r.printCosts(t)
	fmt.Fprintln(t, "\nHELD TO\tMEASURED\tGOAL\t")
	for _, g := range r.Goals {
		verdict := "ok"
		if !g.OK {
			verdict = "MISSED"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", g.Name, g.Measured, g.Want, verdict)
	}
	for _, fault := range slices.Concat(r.Violations, r.PowerFaults) {
		fmt.Fprintf(t, "FAULT: %s\n", fault)
	}
	_ = t.Flush() // a terminal that is gone is nobody's loss
}

func (r *Report) printNodes(w io.Writer) {
	phases := []string{observe.Waiting, observe.Draining, observe.Rebooting, observe.Verifying}
	fmt.Fprintf(w, "\nNODE\tseen\t%s\tdown\tof that off\tturn\tby hand\tof that drain\treboot\tadded\n", strings.Join(phases, "\t"))
	for _, n := range r.Nodes {
		fmt.Fprintf(w, "%s\t%v\t", n.Node, n.Detected)
		for _, p := range phases {
			fmt.Fprintf(w, "%v\t", n.Phases[p])
		}
		fmt.Fprintf(w, "%v\t%v\t%v\t", n.Down, n.MachineOff, n.Turn)
		if h := n.Hand; h != nil {
			fmt.Fprintf(w, "%v\t%v\t%v\t%v", h.Total, h.Drain, h.Reboot, n.Turn-h.Total)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "total\t\t\t\t\t\t\t\t%v\t%v\n", r.Total, r.HandTotal)
	fmt.Fprintln(w, "turn: from the node before it; added: to the hand's, whose drain looks once a second whether a pod is gone")
	for _, h := range r.HandOvers {
		fmt.Fprintf(w, "slot freed by %s: %s named after %v, slot taken %v, cordoned %v\n", h.From, h.To, h.Named, h.Taken, h.Took)
	}
}

func (r *Report) printBoots(w io.Writer) {
	fmt.Fprintln(w, "\nNODE\tBOOT ID BEFORE\tAFTER\tAGENT'S MEMORY\tOWN\tOF FILES")
	for _, n := range r.Nodes {
		m := n.AgentMemory
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", n.Node, n.OldBootID, n.NewBootID, mib(m.RSS), mib(m.Anon), mib(m.File))
	}
	g := r.Green
	fmt.Fprintf(w, "\ngreen on %s: UID %s before, %s after; restarts %d before, %d after\n", g.Node, g.UID, cmp.Or(g.NewUID, "lost"), g.Restarts, g.NewRestarts)
}

func mib(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }

func (r *Report) printCosts(w io.Writer) {
	fmt.Fprintf(w, "\nEvictions by Baton: %s\nby hand: %s\n", evictions(r.Evictions), evictions(r.HandEvictions))
	fmt.Fprintln(w, "\nAPI requests of the agents during the rollout")
	for _, a := range r.Agents {
		fmt.Fprintf(w, "%s\t%d\t%s\n", a.Node, a.Total, byCount(a.Verbs))
	}
}

// evictions tells how often pods of each controller were evicted.
func evictions(byOwner map[string]int) string {
	total, text := 0, ""
	for _, owner := range slices.Sorted(maps.Keys(byOwner)) {
		total += byOwner[owner]
		text += fmt.Sprintf("\n  %d× %s", byOwner[owner], owner)
	}
	return fmt.Sprint(total) + text
}

func byCount(counts map[string]int) string {
	keys := slices.SortedFunc(maps.Keys(counts), func(a, b string) int { return cmp.Or(counts[b]-counts[a], cmp.Compare(a, b)) })
	for i, k := range keys {
		keys[i] = fmt.Sprintf("%s %d", k, counts[k])
	}
	return strings.Join(keys, ", ")
}
