package spread

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	good := func() Report {
		return Report{Nodes: 6, Replicas: 30, Rollouts: []Rollout{
			{PendingTaint: true, Evictions: 36, PerPod: 1.2, Skew: 3, Picky: 12, Taints: Taints{Waited: 6, Choices: 20}},
			{Evictions: 60, PerPod: 2, Picky: 16, Taints: Taints{Waited: 6, Missing: []string{"n1"}, Choices: 20, Misplaced: []string{"b", "c"}}},
		}}
	}
	r := good()
	if err := r.verdict(); err != nil {
		t.Errorf("a rollout within the goal, beside one without the taint: %v", err)
	}
	var out strings.Builder
	r.show(&out)
	for _, want := range []string{"pendingTaint: true", "1.20", "0 of 20", "2 of 20", "ideal", "1.17"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %s", want, out.String())
		}
	}
	for name, tc := range map[string]struct {
		spoil func(with, without *Rollout)
		want  string
	}{
		"too many evictions":                           {func(o, _ *Rollout) { o.PerPod = 1.3 }, "1.30 evictions a pod, goal 1.25"},
		"a node that did not wait":                     {func(o, _ *Rollout) { o.Taints.Waited = 5 }, "5 nodes waited, want all 6"},
		"a node that waited without":                   {func(o, _ *Rollout) { o.Taints.Missing = []string{"n1"} }, "waited without the taint, first n1"},
		"no pod that had a choice":                     {func(o, _ *Rollout) { o.Taints.Choices = 0 }, "no pod had the choice"},
		"a pod that went to one that waits":            {func(o, _ *Rollout) { o.Taints.Misplaced = []string{"b"} }, "1 pods of 20 went to a node that waits, first b"},
		"no difference to a rollout without the taint": {func(_, o *Rollout) { o.Picky = 12 }, "12 evictions of picky pods with the taint, and 12 without"},
		"no harm without the taint":                    {func(_, o *Rollout) { o.Taints.Misplaced = nil }, "nothing is shown"},
	} {
		t.Run(name+" is missed", func(t *testing.T) {
			r := good()
			tc.spoil(&r.Rollouts[0], &r.Rollouts[1])
			if err := r.verdict(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("verdict %v, want %q", err, tc.want)
			}
		})
	}
}
