package spread

import (
	"strings"
	"testing"
	"time"

	"kubebaton.io/baton/lab/audit"
	"kubebaton.io/baton/lab/observe"
)

func at(seconds float64) time.Time {
	return time.Unix(0, 0).Add(time.Duration(seconds * float64(time.Second)))
}

// story is what happens, in the order in which it takes effect.
type story struct {
	log  observe.Log
	pods []observe.Pod
	last uint64
}

func (s *story) node(seconds float64, name, phase string, tainted bool) *story {
	s.last++
	n := &observe.Node{Name: name, Phase: phase, Tainted: tainted, Exists: true, Ready: true, Unschedulable: phase == observe.Draining}
	s.log.Events = append(s.log.Events, observe.Event{Time: at(seconds), Revision: s.last, Node: n})
	return s
}

func (s *story) pod(seconds float64, name, node string) *story {
	s.last++
	s.pods = append(s.pods, observe.Pod{Name: name, Node: node, Bound: at(seconds), Revision: s.last})
	return s
}

// rollout is one in which n1 has come home, n2 drains and n3 waits.
func rollout() *story {
	s := &story{}
	s.node(0, "n1", observe.Waiting, true).node(0, "n2", observe.Waiting, true).node(0, "n3", observe.Waiting, true)
	return s.node(1, "n1", observe.Draining, false).pod(2, "a", "n3").node(3, "n1", observe.Idle, false).node(4, "n2", observe.Draining, false)
}

func TestTaints(t *testing.T) {
	for _, tc := range []struct {
		name string
		*story
		waited, missing, choices int
		misplaced                string // in what is said, "" nothing
	}{
		{"as long as no node is home a pod has no choice", rollout(), 3, 0, 0, ""},
		{"a pod that goes to the one that is home", rollout().pod(5, "b", "n1"), 3, 0, 1, ""},
		{"a pod that goes to one that waits", rollout().pod(5, "b", "n3"), 3, 0, 1, "b went to n3, which waits, and not to n1"},
		{"a scheduler that cannot know yet has no choice", rollout().pod(3.5, "b", "n3"), 3, 0, 0, ""},
		{"a node that waits without the taint", rollout().node(5, "n3", observe.Waiting, false), 3, 1, 0, ""},
		{"without the taint a pod that goes to one that waits is misplaced all the same", rollout().node(5, "n3", observe.Waiting, false).pod(6, "b", "n3"), 3, 1, 1, "b went to n3"},
		{"what was before the rollout does not count", (&story{}).pod(-2, "b", "n3").node(0, "n1", observe.Waiting, true), 1, 0, 0, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := taintsOf(tc.log, tc.pods, at(-1))
			if got.Waited != tc.waited || len(got.Missing) != tc.missing || got.Choices != tc.choices {
				t.Errorf("%+v, want %d that waited, %d of them without the taint, %d choices", got, tc.waited, tc.missing, tc.choices)
			}
			if said := strings.Join(got.Misplaced, " "); !strings.Contains(said, tc.misplaced) || tc.misplaced == "" && said != "" {
				t.Errorf("misplaced are %q, want %q", said, tc.misplaced)
			}
		})
	}
}

func TestEvicted(t *testing.T) {
	pods := []observe.Pod{{Name: "a", Owner: "x"}, {Name: "b", Owner: "x"}, {Name: "c", Owner: "y"}}
	evictions := []audit.Eviction{
		{Namespace: namespace, Pod: "a", Code: 201},
		{Namespace: namespace, Pod: "b", Code: 429},
		{Namespace: namespace, Pod: "b", Code: 201},
		{Namespace: namespace, Pod: "c", Code: 201},
		{Namespace: "other", Pod: "a", Code: 201},
	}
	if n := evicted(evictions, pods, "x"); n != 2 {
		t.Errorf("%d evictions of x, want 2", n)
	}
}
