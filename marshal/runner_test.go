package marshal

import (
	"context"
	"errors"
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
		got := look(v).absent()["workers"]
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

// fakeSlots takes every write, or refuses it.
type fakeSlots struct {
	Slots
	err error
}

func (f fakeSlots) ClearNomination(context.Context, Slot) (Slot, error) {
	return free("workers", 0), f.err
}

func (f fakeSlots) Nominate(context.Context, Slot, Nomination) (Slot, error) {
	return Slot{}, errors.New("no nominations here")
}

func TestMisses(t *testing.T) {
	attempt := func(i int) func(*Node) { return func(n *Node) { n.Attempt = i } }
	braked := offered("workers", 0, "a", 0)
	braked.Hold = "paused"
	for _, c := range []struct {
		name          string
		node          Node
		before, after Slot
		counts        int // those of the node afterwards; it had one
	}{
		{"one that gives its nomination back has missed again", bidder("a", 1), offered("workers", 0, "a", time.Second), free("workers", 0), 2},
		{"not with the brake on it", bidder("a", 1), braked, free("workers", 0), 1},
		{"nor while it still has it", bidder("a", 1), offered("workers", 0, "a", time.Second), offered("workers", 0, "a", time.Second), 1},
		{"one that takes it is forgiven", bidder("a", 1), offered("workers", 0, "a", time.Second), held("workers", 0, "a"), 0},
		{"one that has made its bid anew begins anew", bidder("a", 1, attempt(2)), offered("workers", 0, "a", time.Second), free("workers", 0), 0},
		{"one that begins another cycle, too", bidder("a", 1, func(n *Node) { n.Cycle = "c2" }), free("workers", 0), free("workers", 0), 0},
		{"and so does one that is not there any more", idle("b"), offered("workers", 0, "a", time.Second), free("workers", 0), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRunner()
			once := offered("workers", 0, "a", 0)
			r.missed(zero, &once)
			v := viewOf(workers(1), []Node{c.node}, []Slot{c.after})
			r.observe(&v, []Slot{c.before})
			if got := r.memory.misses["uid-a"].count; got != c.counts {
				t.Errorf("%d misses, want %d", got, c.counts)
			}
			if _, ok := v.Penalty["uid-a"]; ok != (c.counts > 0) {
				t.Errorf("passed over: %t, with %d misses", ok, c.counts)
			}
		})
	}
	t.Run("each miss makes the next bids wait for longer, up to an hour", func(t *testing.T) {
		r := newRunner()
		s := offered("workers", 0, "a", 0)
		for _, want := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second} {
			r.missed(zero, &s)
			if got := r.memory.misses["uid-a"].until.Sub(zero); got != want {
				t.Errorf("passed over for %s, want %s", got, want)
			}
		}
		for range 100 {
			r.missed(zero, &s)
		}
		if got := r.memory.misses["uid-a"].until.Sub(zero); got != time.Hour {
			t.Errorf("passed over for %s in the end", got)
		}
	})
	for refused, want := range map[error]int{nil: 1, errors.New("no connection"): 0} {
		t.Run(fmt.Sprintf("a nomination that ran out is a miss when it was cleared: %v", refused), func(t *testing.T) {
			r := newRunner()
			r.slots, r.annotate = fakeSlots{err: refused}, func(map[string]string) {}
			v := viewOf(workers(1), []Node{bidder("a", 1)}, []Slot{offered("workers", 0, "a", 0)})
			r.pass(t.Context(), v)
			if got := r.memory.misses["uid-a"].count; got != want {
				t.Errorf("%d misses, want %d", got, want)
			}
		})
	}
}
