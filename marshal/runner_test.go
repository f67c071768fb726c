package marshal

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAwayAcrossMarshals(t *testing.T) {
	in := func(cycle string) func(*Node) { return func(n *Node) { n.Cycle = cycle } }
	for _, c := range []struct {
		name   string
		absent map[string]time.Time
		want   time.Duration // away for
	}{
		{"a node that nobody saw leave is away since the first look", nil, 0},
		{"one that an earlier marshal saw leave is away since then", map[string]time.Time{"c": zero.Add(-time.Hour)}, time.Hour},
		{"but not when that was another cycle", map[string]time.Time{"b": zero.Add(-time.Hour)}, 0},
		{"and not from the future on", map[string]time.Time{"c": zero.Add(time.Hour)}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRunner()
			v := viewOf(workers(1), []Node{gone("x", in("c"))}, []Slot{held("workers", 0, "x")})
			v.Own, v.Absent = zero.Add(24*time.Hour), c.absent // the two clocks have nothing to do with each other
			r.observe(&v, nil)
			if got := v.Own.Sub(v.Away["uid-x"]); got != c.want {
				t.Errorf("away for %s, want %s", got, c.want)
			}
		})
	}
	t.Run("later it goes by what it sees itself", func(t *testing.T) {
		r := newRunner()
		v := viewOf(workers(1), []Node{idle("x", inPhase(phaseVerifying, "slot-workers-0"), in("c"))}, []Slot{held("workers", 0, "x")})
		v.Absent = map[string]time.Time{"c": zero.Add(-time.Hour)}
		r.observe(&v, nil)
		v.Nodes[0].Ready = false
		r.observe(&v, nil)
		if got := v.Away["uid-x"]; !got.Equal(zero) {
			t.Errorf("away since %s", got)
		}
	})
	t.Run("what it hands on is what the next one takes up, of those that are away for the longest time", func(t *testing.T) {
		v := viewOf(workers(200), nil, nil)
		v.Own, v.Away = zero.Add(24*time.Hour), map[string]time.Time{}
		for i := range 2 * noteAway {
			n := gone(fmt.Sprint(i), in(fmt.Sprint("c", i)))
			v.Nodes = append(v.Nodes, n)
			v.Away[n.UID] = v.Own.Add(-time.Duration(i) * time.Minute)
		}
		got := absent(v)["workers"]
		want := map[string]time.Time{}
		for i := noteAway; i < 2*noteAway; i++ {
			want[fmt.Sprint("c", i)] = zero.Add(-time.Duration(i) * time.Minute)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestDue(t *testing.T) {
	t.Run("a node that no group selects any more is waited for by the group of its slot", func(t *testing.T) {
		r := newRunner()
		g := Group{Name: "workers", MaxUnavailable: 1, RebootTimeout: time.Hour, Match: func(l map[string]string) bool { return l["out"] == "" }}
		v := viewOf(g, []Node{gone("x", func(n *Node) { n.Labels = map[string]string{"out": "yes"} })}, []Slot{held("workers", 0, "x")})
		v.Away = map[string]time.Time{"uid-x": zero.Add(-time.Minute)}
		if got := r.due(v); got.Sub(zero).Round(time.Second) != 59*time.Minute {
			t.Errorf("the next look is at %s", got)
		}
	})
}
