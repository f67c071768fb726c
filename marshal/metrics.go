package marshal

import (
	"cmp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// report is the rollout at the end of a pass, counted.
type report struct {
	groups  []groupReport
	waiting map[[2]string]int // group and reason
}

type groupReport struct {
	name                          string
	phases                        map[string]int
	free, nominated, held, braked int
	halted, paused                bool
	oldest                        time.Time     // pending since, of those that are not to stay as they are; zero for none
	left                          time.Duration // until all that bid have gone, estimated; negative when it cannot be told
}

func newReport(s *survey, verdicts []Verdict) *report {
	rep := &report{waiting: map[[2]string]int{}}
	for _, v := range verdicts {
		rep.waiting[[2]string{v.Group, cmp.Or(v.Reason, reasonSlot)}]++
	}
	for _, q := range s.squads {
		g := groupReport{name: q.Name, phases: map[string]int{}, halted: q.halted != "", paused: q.paused != ""}
		for _, n := range q.members {
			g.phases[strings.ToLower(cmp.Or(n.Phase, "Idle"))]++
			// A drain that cannot end is given up and tried again: what the attempt does just now is no end of the wait.
			waits := n.Hold == "" && slices.Contains([]string{phaseWaiting, phaseDraining, phaseBackoff}, n.Phase)
			if waits && !n.Pending.IsZero() && (g.oldest.IsZero() || n.Pending.Before(g.oldest)) {
				g.oldest = n.Pending
			}
		}
		for _, l := range q.slots {
			switch {
			case l.Holder != "":
				g.held++
			case l.Nominee != "":
				g.nominated++
			default:
				g.free++
			}
			if l.Hold != "" {
				g.braked++
			}
		}
		g.left = s.left(q)
		rep.groups = append(rep.groups, g)
	}
	return rep
}

// left estimates how long the group needs until all that bid, or are on their way, are back: by how long its nodes took last
// time. It cannot be told while nothing goes, or when no node has ever gone.
func (s *survey) left(q *squad) time.Duration {
	var took time.Duration
	known, bids := 0, 0
	for _, n := range q.members {
		if n.Took > 0 {
			took += n.Took
			known++
		}
		if n.Bids && s.slotOf[n.UID] == nil {
			bids++
		}
	}
	switch {
	case bids+len(q.busy) == 0:
		return 0
	case known == 0 || q.brake() != "":
		return -1
	}
	// Those on their way are half done on average.
	return time.Duration((float64(bids) + float64(len(q.busy))/2) * float64(took) / float64(known) / float64(q.limit))
}

// collector shows the last report. It is registered while the agent leads, so that the numbers come from one place.
type collector struct {
	last *atomic.Pointer[report]

	nodes, waiting, slots, halted, paused, oldest, left *prometheus.Desc
}

var _ prometheus.Collector = (*collector)(nil)

func newCollector(last *atomic.Pointer[report]) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("baton_group_"+name, help, labels, nil)
	}
	return &collector{
		last:    last,
		nodes:   desc("nodes", "Nodes of the group by phase of their cycle.", "group", "phase"),
		waiting: desc("waiting", "Waiting nodes by the first reason for it; group is empty for nodes that no group selects.", "group", "reason"),
		slots:   desc("slots", "Slots of the group by state: free, nominated, held; and hold, which counts those on which the brake lies.", "group", "state"),
		halted:  desc("halted", "1 while too many nodes of the group have failed.", "group"),
		paused:  desc("paused", "1 while a person has paused the group.", "group"),
		oldest:  desc("oldest_waiting_seconds", "Age of the oldest wish for a reboot in the group that was not served yet, nodes on hold left out; 0 when there is none.", "group"),
		left:    desc("estimated_seconds_left", "Until all that bid are back, by how long the group's nodes took last time; absent when that cannot be told.", "group"),
	}
}

func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.nodes, c.waiting, c.slots, c.halted, c.paused, c.oldest, c.left} {
		out <- d
	}
}

func (c *collector) Collect(out chan<- prometheus.Metric) {
	rep := c.last.Load()
	if rep == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	flag := map[bool]float64{true: 1}
	for k, n := range rep.waiting {
		gauge(c.waiting, float64(n), k[0], k[1])
	}
	for _, g := range rep.groups {
		for phase, n := range g.phases {
			gauge(c.nodes, float64(n), g.name, phase)
		}
		gauge(c.slots, float64(g.free), g.name, "free")
		gauge(c.slots, float64(g.nominated), g.name, "nominated")
		gauge(c.slots, float64(g.held), g.name, "held")
		gauge(c.slots, float64(g.braked), g.name, "hold")
		gauge(c.halted, flag[g.halted], g.name)
		gauge(c.paused, flag[g.paused], g.name)
		age := 0.0
		if !g.oldest.IsZero() {
			age = max(0, time.Since(g.oldest).Seconds())
		}
		gauge(c.oldest, age, g.name)
		if g.left >= 0 {
			gauge(c.left, g.left.Seconds(), g.name)
		}
	}
}
