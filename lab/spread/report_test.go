package spread

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	r := Report{Nodes: 6, Replicas: 30, Rollouts: []Rollout{
		{PendingTaint: true, Evictions: 36, PerPod: 1.2, Skew: 3}, {Evictions: 60, PerPod: 2},
	}}
	if err := r.verdict(); err != nil {
		t.Errorf("a rollout within the goal, beside one without the taint: %v", err)
	}
	var out strings.Builder
	r.show(&out)
	for _, want := range []string{"pendingTaint: true", "1.20", "ideal", "1.17"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %s", want, out.String())
		}
	}
	r.Rollouts[0].PerPod = 1.3
	if err := r.verdict(); err == nil || !strings.Contains(err.Error(), "1.30 evictions a pod, goal 1.25") {
		t.Errorf("a goal that was missed: %v", err)
	}
}
