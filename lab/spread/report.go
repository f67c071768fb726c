package spread

import (
	"fmt"
	"io"
	"time"

	"kubebaton.io/baton/lab/report"
)

// Report is what was measured.
type Report struct {
	Started  time.Time `json:"started"`
	Seconds  float64   `json:"seconds"`
	Nodes    int       `json:"nodes"`
	Replicas int       `json:"replicas"`
	Rollouts []Rollout `json:"rollouts"`
}

// Rollout is one reboot of every node, one node at a time.
type Rollout struct {
	PendingTaint bool    `json:"pendingTaint"`
	Seconds      float64 `json:"seconds"`
	Owner        string  `json:"owner"` // of the pods: kind, name and UID
	Evictions    int     `json:"evictions"`
	PerPod       float64 `json:"evictionsPerPod"`
	PickyOwner   string  `json:"pickyOwner"` // of those that prefer the nodes that go last
	Picky        int     `json:"pickyEvictions"`
	Skew         int     `json:"skew"`   // at the end: most pods on a node minus fewest
	Before       []int   `json:"before"` // pods of each node
	After        []int   `json:"after"`
	Taints       Taints  `json:"taints"`
}

func (r Report) show(w io.Writer) {
	fmt.Fprintf(w, "\n%d nodes, %d replicas\n%-22s %12s %12s %8s %16s %12s %18s  %s\n", r.Nodes, r.Replicas,
		"", "evictions", "per pod", "skew", "rollout", "of picky", "to waiting nodes", "pods of the nodes, before and after")
	for _, o := range r.Rollouts {
		fmt.Fprintf(w, "%-22s %12d %12.2f %8d %14.1f s %12d %18s  %v %v\n", fmt.Sprintf("pendingTaint: %t", o.PendingTaint),
			o.Evictions, o.PerPod, o.Skew, o.Seconds, o.Picky, fmt.Sprintf("%d of %d", len(o.Taints.Misplaced), o.Taints.Choices), o.Before, o.After)
	}
	fmt.Fprintln(w, "of picky: evictions of pods that prefer the nodes that go last")
	fmt.Fprintln(w, "to waiting nodes: of all the pods that had the choice, as a node that had come home was there as well")
	ideal := r.Replicas + r.Replicas/r.Nodes
	fmt.Fprintf(w, "%-22s %12d %12.2f\n\n", "ideal", ideal, float64(ideal)/float64(r.Replicas))
}

// verdict is nil when the rollout with the taint is within the goal, the taint was where it belongs, and did what it is for: what
// happened without it, too, shows nothing.
func (r Report) verdict() error {
	var missed []string
	with, without := 0, 0
	for _, o := range r.Rollouts {
		if o.PendingTaint {
			with = o.Picky
			missed = append(missed, o.missed(r.Nodes)...)
			continue
		}
		without = o.Picky
		if len(o.Taints.Misplaced) == 0 {
			missed = append(missed, "without the taint no pod went to a node that waits either: nothing is shown")
		}
	}
	if with >= without {
		missed = append(missed, fmt.Sprintf("%d evictions of picky pods with the taint, and %d without", with, without))
	}
	return report.Missed(missed)
}

// missed are the goals that a rollout with the taint has missed.
func (o Rollout) missed(nodes int) []string {
	var missed []string
	if o.PerPod > goal {
		missed = append(missed, fmt.Sprintf("%.2f evictions a pod, goal %.2f", o.PerPod, goal))
	}
	t := o.Taints
	if t.Waited != nodes {
		missed = append(missed, fmt.Sprintf("%d nodes waited, want all %d", t.Waited, nodes))
	}
	if len(t.Missing) > 0 {
		missed = append(missed, fmt.Sprintf("%d times a node waited without the taint, first %s", len(t.Missing), t.Missing[0]))
	}
	if t.Choices == 0 {
		missed = append(missed, "no pod had the choice between a node that waits and one that has come home")
	}
	if len(t.Misplaced) > 0 {
		missed = append(missed, fmt.Sprintf("%d pods of %d went to a node that waits, first %s", len(t.Misplaced), t.Choices, t.Misplaced[0]))
	}
	return missed
}
