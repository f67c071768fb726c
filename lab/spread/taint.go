package spread

import (
	"fmt"
	"time"

	"kubebaton.io/baton/lab/observe"
)

// settled is how long a node has to have been as it is, before a choice of the scheduler is held to it.
const settled = time.Second

// Taints is what the taint did, or would have done.
type Taints struct {
	Waited    int      `json:"nodesThatWaited"`
	Missing   []string `json:"waitingWithoutTaint"` // versions of waiting Nodes
	Choices   int      `json:"choices"`             // pods for which there were waiting nodes, and one that had come home
	Misplaced []string `json:"misplaced"`           // of these the ones that went to a waiting node
}

// standing is since when a node waits, or is one that pods should go to.
type standing struct{ waits, home time.Time }

// taintsOf goes through the rollout, and the pods in the order in which they got their nodes.
func taintsOf(log observe.Log, pods []observe.Pod, from time.Time) Taints {
	var t Taints
	nodes, waited := map[string]standing{}, map[string]bool{}
	events := log.After(from).Events
	for _, p := range pods {
		if p.Node == "" || p.Bound.Before(from) {
			continue
		}
		for len(events) > 0 && events[0].Revision < p.Revision {
			t.see(events[0], nodes, waited)
			events = events[1:]
		}
		t.place(p, nodes)
	}
	for _, e := range events {
		t.see(e, nodes, waited)
	}
	t.Waited = len(waited)
	return t
}

// see takes the next version of a Node.
func (t *Taints) see(e observe.Event, nodes map[string]standing, waited map[string]bool) {
	n := e.Node
	if n == nil {
		return
	}
	was, is := nodes[n.Name], standing{}
	open := n.Exists && n.Ready && !n.Unschedulable
	if n.Exists && n.Phase == observe.Waiting {
		waited[n.Name] = true
		if !n.Tainted {
			t.Missing = append(t.Missing, fmt.Sprintf("%s %s: %s", e.Time.Format(time.StampMilli), n.Name, n.Record))
		}
		if is.waits = was.waits; is.waits.IsZero() {
			is.waits = e.Time
		}
	}
	if open && n.Phase == observe.Idle && !n.Tainted {
		if is.home = was.home; is.home.IsZero() {
			is.home = e.Time
		}
	}
	nodes[n.Name] = is
}

// place judges where a pod went.
func (t *Taints) place(p observe.Pod, nodes map[string]standing) {
	long := func(since time.Time) bool { return !since.IsZero() && p.Bound.Sub(since) >= settled }
	waiting, home := "", ""
	for name, s := range nodes {
		if long(s.waits) {
			waiting = name
		}
		if long(s.home) {
			home = name
		}
	}
	if waiting == "" || home == "" {
		return
	}
	t.Choices++
	if long(nodes[p.Node].waits) {
		t.Misplaced = append(t.Misplaced, fmt.Sprintf("%s %s went to %s, which waits, and not to %s", p.Bound.Format(time.StampMilli), p.Name, p.Node, home))
	}
}
