package bench

import (
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"kubebaton.io/baton/lab/report"
)

// What Baton is held to.
const (
	maxHandOver  = 300 * time.Millisecond // median
	maxDetection = 100 * time.Millisecond // median
	maxRequests  = 10                     // an hour, each agent
	maxRSS       = 25 << 20
	maxBinary    = 30e6
	minIdle      = 20 * time.Minute // a shorter time says too little about an hour
)

// Report is everything that was measured.
type Report struct {
	Started    time.Time  `json:"started"`
	Seconds    float64    `json:"seconds"`
	Kubernetes string     `json:"kubernetes"`
	Error      string     `json:"error,omitempty"` // it did not come to an end
	Figures    []Figure   `json:"figures"`
	HandOver   *HandOver  `json:"handOver,omitempty"`
	Detection  *Detection `json:"detection,omitempty"`
	Idle       *Idle      `json:"idle,omitempty"`
	Memory     []Sample   `json:"memory"`
	Size       *Size      `json:"size,omitempty"`
}

// Verdict on a figure.
type Verdict string

// Unjudged is said of what has no goal, and of an idle time that is too short.
const (
	OK       Verdict = "ok"
	Missed   Verdict = "MISSED"
	Unjudged Verdict = "not judged"
)

// Figure is a measured value with what it is to be compared with.
type Figure struct {
	Name      string  `json:"name"`
	Measured  string  `json:"measured"`
	Goal      string  `json:"goal,omitempty"`
	Peer      string  `json:"peer,omitempty"` // kured 1.23.0, measured on such nodes
	Yardstick string  `json:"yardstick,omitempty"`
	Load      string  `json:"load,omitempty"`
	Verdict   Verdict `json:"verdict"`
}

func judged(ok bool) Verdict {
	if ok {
		return OK
	}
	return Missed
}

// judge makes the figures of what was measured.
func (r *Report) judge() {
	r.Figures = nil
	r.judgeTimes()
	r.judgeRequests()
	r.judgeMemory(afterCycle)
	r.judgeMemory(whileIdle)
	r.judgeSize()
}

// add keeps a figure; one with a goal that was not measured is missed.
func (r *Report) add(f Figure) {
	if f.Measured == "" {
		f.Measured, f.Verdict = "not measured", Missed
	}
	r.Figures = append(r.Figures, f)
}

func (r *Report) judgeTimes() {
	f := Figure{Name: "hand-over: slot freed → next node cordoned", Goal: "median ≤ 300 ms", Peer: "2.0–18 s at periods of 10–30 s"}
	if h := r.HandOver; h != nil && len(h.Cordoned.Samples) > 0 {
		f.Measured, f.Load, f.Verdict = h.Cordoned.Counted(), h.Load.String(), judged(h.Cordoned.Median <= report.Millis(maxHandOver))
		f.Yardstick = fmt.Sprintf("%v: a CAS of a Lease seen", h.Yard.Median)
	}
	r.add(f)
	f = Figure{Name: "detection: sentinel written → record Waiting seen", Goal: "median ≤ 100 ms", Peer: "up to its period, 1 h by default"}
	if d := r.Detection; d != nil && len(d.Raised.Samples) > 0 {
		f.Measured, f.Load, f.Verdict = d.Raised.Counted(), d.Load.String(), judged(d.Raised.Median <= report.Millis(maxDetection))
		f.Yardstick = fmt.Sprintf("%v: inotify, a PATCH seen", d.Yard.Median)
	}
	r.add(f)
}

func (r *Report) judgeRequests() {
	f := Figure{Name: "requests of the busiest idle agent an hour", Goal: fmt.Sprint("≤ ", maxRequests), Peer: "179 in a rollout; idle not measured"}
	if r.Idle != nil && len(r.Idle.Agents) > 0 {
		busiest, most, total := 0.0, 0, 0
		for _, a := range r.Idle.Agents {
			busiest, most, total = max(busiest, a.PerHour), max(most, a.Total), total+a.Total
		}
		f.Measured = fmt.Sprintf("%.1f (seen: %d of all agents in %.1f min)", busiest, total, r.Idle.Seconds/60)
		f.Load, f.Verdict = r.Idle.Load.String(), judged(busiest <= maxRequests)
		if r.Idle.Seconds < minIdle.Seconds() && most <= maxRequests {
			f.Verdict = Unjudged
			f.Goal += fmt.Sprintf(" over %.0f min", minIdle.Minutes())
		}
	}
	r.add(f)
}

func (r *Report) judgeMemory(when string) {
	f := Figure{Name: "RSS of the largest agent " + when, Goal: "≤ " + mib(maxRSS), Peer: "37.5 MiB"}
	for _, s := range r.Memory {
		if s.When != when {
			continue
		}
		rss, group, working := int64(0), int64(0), int64(0)
		for _, m := range s.By {
			rss, group, working = max(rss, m.RSS), max(group, m.Group), max(working, m.Working)
		}
		f.Measured = fmt.Sprintf("%.2f MiB", float64(rss)/(1<<20)) // two places: it may be close
		f.Load, f.Verdict = s.Load.String(), judged(rss <= maxRSS)
		if group > 0 {
			f.Yardstick = fmt.Sprintf("control group %s, working set %s", mib(group), mib(working))
		}
	}
	r.add(f)
}

func (r *Report) judgeSize() {
	binary := Figure{Name: "binary, stripped", Goal: "≤ 30 MB", Peer: "48.9 MB"}
	image := Figure{Name: "image, unpacked", Peer: "about 60 MB", Verdict: Unjudged}
	if s := r.Size; s != nil {
		binary.Measured, binary.Verdict = fmt.Sprintf("%.2f MB (%s)", float64(s.Binary)/1e6, mib(s.Binary)), judged(s.Stripped && s.Binary <= maxBinary)
		if !s.Stripped {
			binary.Measured += ", not stripped"
		}
		image.Measured = fmt.Sprintf("%.2f MB", float64(s.Image)/1e6)
	}
	r.add(binary)
	r.add(image)
}

func mib(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }

// verdict is an error that names what was missed.
func (r *Report) verdict() error {
	var missed []string
	for _, f := range r.Figures {
		if f.Verdict == Missed {
			missed = append(missed, f.Name)
		}
	}
	return report.Missed(missed)
}

// show writes the details, and then the figures.
func (r *Report) show(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	r.showDetails(t)
	fmt.Fprintf(t, "\nFIGURE\tMEASURED\tGOAL\tKURED 1.23.0\tYARDSTICK\tLOAD (%d CPUs)\t\n", runtime.NumCPU())
	for _, f := range r.Figures {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", f.Name, f.Measured, f.Goal, f.Peer, f.Yardstick, f.Load, f.Verdict)
	}
	if r.Error != "" {
		fmt.Fprintf(t, "\nIt did not come to an end: %s\n", r.Error)
	}
	_ = t.Flush() // a terminal that is gone is nobody's loss
}

func (r *Report) showDetails(w io.Writer) {
	if h := r.HandOver; h != nil {
		fmt.Fprintf(w, "\nHAND-OVER, %d rollouts\tmin / median / max\n", h.Rollouts)
		fmt.Fprintf(w, "freed → next nominated\t%v\n→ taken\t%v\n→ cordoned\t%v\nyardstick: a CAS of a Lease → seen by a watch\t%v\n", h.Named, h.Taken, h.Cordoned, h.Yard)
	}
	if d := r.Detection; d != nil {
		fmt.Fprintf(w, "\nDETECTION\tmin / median / max\nraised → Waiting\t%v\ncleared → Idle\t%v\nyardstick: inotify → a PATCH seen by a watch\t%v\n", d.Raised, d.Cleared, d.Yard)
	}
	if len(r.Memory) > 0 {
		fmt.Fprint(w, "\nMEMORY OF THE AGENT\tNODE\tRSS\tOWN\tOF FILES\tPEAK RSS\tCONTROL GROUP\tWORKING SET\tLOAD\n")
	}
	for _, s := range r.Memory {
		for _, node := range slices.Sorted(maps.Keys(s.By)) {
			m := s.By[node]
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%v\n", s.When, node,
				mib(m.RSS), mib(m.Anon), mib(m.File), mib(m.Peak), group(m.Group), group(m.Working), s.Load)
		}
	}
	if len(r.Memory) > 0 {
		fmt.Fprintln(w, "A control group is charged for the files that it was the first to read: not for the program, which containerd unpacked.")
	}
	if r.Idle == nil {
		return
	}
	fmt.Fprintf(w, "\nIDLE AGENT, %.1f min\tREQUESTS\tAN HOUR\tWHICH\tWATCHES THAT GO ON\n", r.Idle.Seconds/60)
	for _, a := range r.Idle.Agents {
		which := []string{}
		for _, v := range slices.Sorted(maps.Keys(a.Verbs)) {
			which = append(which, fmt.Sprintf("%s %d", v, a.Verbs[v]))
		}
		fmt.Fprintf(w, "%s\t%d\t%.1f\t%s\t%s\n", a.Node, a.Total, a.PerHour, strings.Join(which, ", "), strings.Join(a.Watches, ", "))
	}
}

func group(bytes int64) string {
	if bytes == 0 {
		return "cannot be read"
	}
	return mib(bytes)
}
