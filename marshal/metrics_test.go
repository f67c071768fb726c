package marshal

import (
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestCollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // which stops the clock, by which the oldest bid ages
		now := time.Now()
		in := func(group string) func(*Node) { return func(n *Node) { n.Labels = map[string]string{"g": group} } }
		since := func(d time.Duration) func(*Node) { return func(n *Node) { n.Pending = now.Add(-d) } }
		group := func(name string, limit int) Group {
			return Group{Name: name, MaxUnavailable: limit, Match: func(l map[string]string) bool { return l["g"] == name }}
		}
		braked := held("halted", 0, "x")
		braked.Hold = "halted: x"
		v := View{
			Now: now, Own: now, NominationTimeout: 30 * time.Second,
			Groups: []Group{group("workers", 3), group("halted", 1), group("paused", 1)},
			Nodes: []Node{
				idle("a", in("workers"), func(n *Node) { n.Took = 2 * time.Minute }),
				bidder("b", 0, in("workers"), since(time.Hour)),
				bidder("c", 0, in("workers"), since(2*time.Hour), gateShut),
				bidder("h", 0, in("workers"), since(9*time.Hour), func(n *Node) { n.Hold = "kept for a test" }),
				idle("f", in("halted"), inPhase(phaseBackoff, ""), since(3*time.Hour)),
				bidder("d", 0, in("workers"), since(time.Minute)),
				idle("e", in("workers"), inPhase(phaseRebooting, "slot-workers-1")),
				idle("x", in("halted"), inPhase(phaseFailed, "slot-halted-0")),
				bidder("y", 0, in("paused"), since(time.Second)),
				bidder("z", 0, since(time.Second)),
			},
			Slots: append([]Slot{
				offered("workers", 0, "d", time.Second), held("workers", 1, "e"), free("workers", 2), braked,
			}, slots("paused", 1)...),
			Paused: map[string]string{"paused": "storm"},
		}
		s := look(v)
		_, verdicts := s.decide()
		var last atomic.Pointer[report]
		c := newCollector(&last)
		if n := testutil.CollectAndCount(c); n != 0 {
			t.Errorf("%d numbers before the first pass", n)
		}
		last.Store(newReport(s, verdicts))
		const want = `
# HELP baton_group_estimated_seconds_left Until all that bid are back, by how long the group's nodes took last time; absent when that cannot be told.
# TYPE baton_group_estimated_seconds_left gauge
baton_group_estimated_seconds_left{group="halted"} 0
baton_group_estimated_seconds_left{group="workers"} 140
# HELP baton_group_halted 1 while too many nodes of the group have failed.
# TYPE baton_group_halted gauge
baton_group_halted{group="halted"} 1
baton_group_halted{group="paused"} 0
baton_group_halted{group="workers"} 0
# HELP baton_group_nodes Nodes of the group by phase of their cycle.
# TYPE baton_group_nodes gauge
baton_group_nodes{group="halted",phase="backoff"} 1
baton_group_nodes{group="halted",phase="failed"} 1
baton_group_nodes{group="paused",phase="waiting"} 1
baton_group_nodes{group="workers",phase="idle"} 1
baton_group_nodes{group="workers",phase="rebooting"} 1
baton_group_nodes{group="workers",phase="waiting"} 4
# HELP baton_group_oldest_waiting_seconds Age of the oldest wish for a reboot in the group that was not served yet, nodes on hold left out; 0 when there is none.
# TYPE baton_group_oldest_waiting_seconds gauge
baton_group_oldest_waiting_seconds{group="halted"} 10800
baton_group_oldest_waiting_seconds{group="paused"} 1
baton_group_oldest_waiting_seconds{group="workers"} 7200
# HELP baton_group_paused 1 while a person has paused the group.
# TYPE baton_group_paused gauge
baton_group_paused{group="halted"} 0
baton_group_paused{group="paused"} 1
baton_group_paused{group="workers"} 0
# HELP baton_group_slots Slots of the group by state: free, nominated, held; and hold, which counts those on which the brake lies.
# TYPE baton_group_slots gauge
baton_group_slots{group="halted",state="free"} 0
baton_group_slots{group="halted",state="held"} 1
baton_group_slots{group="halted",state="hold"} 1
baton_group_slots{group="halted",state="nominated"} 0
baton_group_slots{group="paused",state="free"} 1
baton_group_slots{group="paused",state="held"} 0
baton_group_slots{group="paused",state="hold"} 0
baton_group_slots{group="paused",state="nominated"} 0
baton_group_slots{group="workers",state="free"} 1
baton_group_slots{group="workers",state="held"} 1
baton_group_slots{group="workers",state="hold"} 0
baton_group_slots{group="workers",state="nominated"} 1
# HELP baton_group_waiting Waiting nodes by the first reason for it; group is empty for nodes that no group selects.
# TYPE baton_group_waiting gauge
baton_group_waiting{group="",reason="group"} 1
baton_group_waiting{group="paused",reason="paused"} 1
baton_group_waiting{group="workers",reason="hold"} 1
baton_group_waiting{group="workers",reason="slot"} 2
baton_group_waiting{group="workers",reason="window"} 1
`
		if err := testutil.CollectAndCompare(c, strings.NewReader(want)); err != nil {
			t.Error(err)
		}
	})
}

// TestMemory: what a marshal of a big cluster keeps, and makes in a pass. The process may use 150 MiB, and its heap doubles before
// it is collected: 75 MiB may be in use at once, of which less than half is the marshal's, for a list of Nodes takes some, too.
func TestMemory(t *testing.T) {
	const nodes, percent, bound = 5000, 10, 32 << 20
	g := Group{Name: "workers", MaxUnavailablePercent: percent, Match: func(map[string]string) bool { return true }, Canaries: 1, CanarySoak: time.Minute, TopologyKey: "zone"}
	r := newRunner()
	r.groups = func() []Group { return []Group{g} }
	r.now, r.times = time.Now, func() (time.Duration, time.Duration) { return 30 * time.Second, 30 * time.Second }
	r.restored = func() time.Time { return time.Time{} }
	r.paused, r.trials = map[string]string{}, map[string]Trial{"workers": {Covered: time.Now()}}
	before := heap()
	if err := r.roster.Replace(nil, ""); err != nil {
		t.Fatal(err)
	}
	for i := range nodes {
		if err := r.roster.Add(big(i)); err != nil {
			t.Fatal(err)
		}
	}
	r.setSlots(slots("workers", nodes*percent/100))
	kept := heap() - before
	var from, to runtime.MemStats
	runtime.ReadMemStats(&from)
	v, ok := r.view()
	if !ok {
		t.Fatal("no view")
	}
	r.observe(&v, nil)
	todo := Housekeep(v)
	s := look(v)
	noms, verdicts := s.decide()
	rep := newReport(s, verdicts)
	said := notes(s.trials(), s.absent(), verdicts, 0, nil)
	due := r.due(v)
	runtime.ReadMemStats(&to)
	made := to.TotalAlloc - from.TotalAlloc
	if len(noms) != nodes*percent/100 || len(verdicts) != nodes || len(todo) != 0 {
		t.Errorf("%d nominations, %d verdicts, %d actions", len(noms), len(verdicts), len(todo))
	}
	t.Logf("kept %d KiB, made %d KiB in a pass", kept>>10, made>>10)
	if kept+made > bound {
		t.Errorf("%d bytes kept and %d made, want less than %d together", kept, made, bound)
	}
	runtime.KeepAlive([]any{r, v, rep, said, due})
}
