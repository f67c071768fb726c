package chaos

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/report"
)

// What a run is held to, for each minute of faults.
const (
	faultsPerMinute = 200.0 / 30
	cyclesPerMinute = 1.5
	failedPerMinute = 2.0 / 30
)

// Report is everything that was done and measured.
type Report struct {
	Started    time.Time `json:"started"` // when the faults began
	Plan       Plan      `json:"plan"`
	Nodes      int       `json:"nodes"`
	Faults     int       `json:"faults"` // that struck
	Missed     int       `json:"missed"` // that found nothing to strike
	Strikes    []Strike  `json:"strikes"`
	Cycles     Cycles    `json:"cycles"`
	Quietest   float64   `json:"quietestSeconds"` // the longest time in which no phase changed
	Converged  float64   `json:"convergedSeconds"`
	Left       string    `json:"left,omitempty"` // what was not well in time
	Violations []string  `json:"violations"`
	Goals      []Goal    `json:"goals"`
}

// Goal is something that the run is held to.
type Goal struct {
	Name     string `json:"name"`
	Measured string `json:"measured"`
	Want     string `json:"goal"`
	OK       bool   `json:"ok"`
}

// judge makes the report.
func (r *run) judge(ctx context.Context, start time.Time, converged time.Duration, left error) *Report {
	log := r.observer.Log().After(start)
	p := &Report{Started: start, Plan: r.plan, Nodes: r.Nodes, Converged: converged.Seconds(), Cycles: countCycles(log)}
	p.Faults, p.Missed = r.counts()
	r.mu.Lock()
	p.Strikes = slices.Clone(r.struck)
	r.mu.Unlock()
	p.Quietest = quietest(log, start, start.Add(r.Length)).Seconds()
	if left != nil {
		p.Left = left.Error()
	}
	p.Violations = r.violations(start)
	if lost := r.greenLost(ctx); lost != "" {
		p.Violations = append(p.Violations, lost)
	}
	p.Violations = append(p.Violations, r.panics(start)...)
	p.judge()
	return p
}

// violations are those that are known by now.
func (r *run) violations(start time.Time) []string {
	r.mu.Lock()
	byHand := slices.Clone(r.byHand)
	r.mu.Unlock()
	power, err := r.cluster.PowerLog()
	if err != nil {
		return []string{err.Error()}
	}
	power = slices.DeleteFunc(power, func(e cluster.PowerEvent) bool { return e.Time.Before(start) })
	return facts{log: r.observer.Log().After(start), power: power, hand: byHand, limit: r.settings.limit}.violations()
}

// panics are the lines of the agents' logs in which one of them says that it died of itself.
func (r *run) panics(from time.Time) []string {
	var found []string
	nodes, err := r.logs.Nodes()
	if err != nil {
		return []string{err.Error()}
	}
	for _, node := range nodes {
		lines, err := r.logs.Since(node, from)
		if err != nil {
			found = append(found, err.Error())
		}
		for _, line := range lines {
			if strings.Contains(line, " F panic: ") || strings.Contains(line, " F fatal error: ") || strings.Contains(line, "bug: ") {
				found = append(found, "the agent of "+node+" says: "+line)
			}
		}
	}
	return found
}

// judge makes the goals of what was measured.
func (p *Report) judge() {
	p.Goals = nil
	minutes := p.Plan.Length.Minutes()
	goal := func(name, measured, want string, ok bool) { p.Goals = append(p.Goals, Goal{name, measured, want, ok}) }
	goal("violations", fmt.Sprint(len(p.Violations)), "0", len(p.Violations) == 0)
	goal("all at rest after the last fault", fmt.Sprintf("%.0f s", p.Converged), "≤ "+convergeTime.String(), p.Left == "")
	faults, cycles := int(faultsPerMinute*minutes), int(cyclesPerMinute*minutes)
	goal("faults that struck", fmt.Sprint(p.Faults), fmt.Sprint("≥ ", faults), p.Faults >= faults)
	failed := int(failedPerMinute * minutes)
	goal("nodes that failed for a while", fmt.Sprint(p.Cycles.Failed), fmt.Sprint("≥ ", failed), p.Cycles.Failed >= failed)
	goal("cycles finished by a proven reboot", fmt.Sprint(p.Cycles.Rebooted), fmt.Sprint("≥ ", cycles), p.Cycles.Rebooted >= cycles)
}

// verdict is an error that names what was missed.
func (p *Report) verdict() error {
	var missed []string
	for _, g := range p.Goals {
		if !g.OK {
			missed = append(missed, g.Name)
		}
	}
	return report.Missed(missed)
}

func (p *Report) write(path string) error { return report.Write(path, p) }

// print writes what a person wants to see.
func (p *Report) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	p.printStrikes(t)
	c := p.Cycles
	fmt.Fprintf(t, "\nCycles: %d ended with a proven reboot, %d gave up an attempt, %d were undone, %d failed for a while.\n", c.Rebooted, c.GaveUp, c.Undone, c.Failed)
	fmt.Fprintf(t, "The longest time without a change of any phase was %.0f s.\n", p.Quietest)
	fmt.Fprintln(t, "\nHELD TO\tMEASURED\tGOAL\t")
	for _, g := range p.Goals {
		verdict := "ok"
		if !g.OK {
			verdict = "MISSED"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", g.Name, g.Measured, g.Want, verdict)
	}
	for _, v := range p.Violations {
		fmt.Fprintf(t, "VIOLATION: %s\n", v)
	}
	if p.Left != "" {
		fmt.Fprintf(t, "LEFT: %s\n", p.Left)
	}
	_ = t.Flush() // a terminal that is gone is nobody's loss
	fmt.Fprintf(w, "\nSeed %d, %s: %d faults, %d cycles, %d violations, at rest after %.0f s\n",
		p.Plan.Seed, p.Plan.Length, p.Faults, c.Rebooted, len(p.Violations), p.Converged)
}

// printStrikes is the table of faults by kind and by the moment that they hit.
func (p *Report) printStrikes(w io.Writer) {
	hits, sums := map[Kind]map[Moment]int{}, map[Moment]int{}
	var kinds []Kind
	for _, s := range p.Strikes {
		if s.Missed {
			continue
		}
		if hits[s.Kind] == nil {
			hits[s.Kind] = map[Moment]int{}
			kinds = append(kinds, s.Kind)
		}
		hits[s.Kind][s.Hit]++
		sums[s.Hit]++
	}
	slices.Sort(kinds)
	columns := slices.DeleteFunc(append(moments(), Anytime), func(m Moment) bool { return sums[m] == 0 })
	fmt.Fprint(w, "\nFAULT\t")
	for _, m := range columns {
		fmt.Fprintf(w, "%s\t", cmp.Or(string(m), "-"))
	}
	fmt.Fprintln(w, "all")
	row := func(name string, hits map[Moment]int) {
		fmt.Fprintf(w, "%s\t", name)
		all := 0
		for _, m := range columns {
			all += hits[m]
			if hits[m] == 0 {
				fmt.Fprint(w, "\t")
				continue
			}
			fmt.Fprintf(w, "%d\t", hits[m])
		}
		fmt.Fprintln(w, all)
	}
	for _, k := range kinds {
		row(string(k), hits[k])
	}
	row("all", sums)
}
