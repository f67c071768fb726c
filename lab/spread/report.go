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
	Evictions    int     `json:"evictions"`
	PerPod       float64 `json:"evictionsPerPod"`
	Skew         int     `json:"skew"`   // at the end: most pods on a node minus fewest
	Before       []int   `json:"before"` // pods of each node
	After        []int   `json:"after"`
}

func (r Report) show(w io.Writer) {
	fmt.Fprintf(w, "\n%d nodes, %d replicas\n%-22s %12s %12s %8s %16s  %s\n", r.Nodes, r.Replicas,
		"", "evictions", "per pod", "skew", "rollout", "pods of the nodes, before and after")
	for _, o := range r.Rollouts {
		fmt.Fprintf(w, "%-22s %12d %12.2f %8d %14.1f s  %v %v\n", fmt.Sprintf("pendingTaint: %t", o.PendingTaint),
			o.Evictions, o.PerPod, o.Skew, o.Seconds, o.Before, o.After)
	}
	ideal := r.Replicas + r.Replicas/r.Nodes
	fmt.Fprintf(w, "%-22s %12d %12.2f\n\n", "ideal", ideal, float64(ideal)/float64(r.Replicas))
}

// verdict is nil when the rollout with the taint is within the goal.
func (r Report) verdict() error {
	var missed []string
	for _, o := range r.Rollouts {
		if o.PendingTaint && o.PerPod > goal {
			missed = append(missed, fmt.Sprintf("%.2f evictions a pod, goal %.2f", o.PerPod, goal))
		}
	}
	return report.Missed(missed)
}
