package chaos

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestNewPlan(t *testing.T) {
	const half = 30 * time.Minute

	t.Run("a seed makes one plan, and another seed another one", func(t *testing.T) {
		if diff := cmp.Diff(NewPlan(7, half), NewPlan(7, half)); diff != "" {
			t.Error(diff)
		}
		if cmp.Equal(NewPlan(7, half).Faults, NewPlan(8, half).Faults) {
			t.Error("two seeds make the same faults")
		}
	})

	t.Run("the beginning of a longer plan is the shorter one", func(t *testing.T) {
		short, long := NewPlan(7, 3*time.Minute), NewPlan(7, 6*time.Minute)
		if diff := cmp.Diff(short.Faults, long.Faults[:len(short.Faults)]); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("there are more faults than have to strike, in the order of time, within the length", func(t *testing.T) {
		for seed := range uint64(50) {
			for _, length := range []time.Duration{3 * time.Minute, half} {
				p := NewPlan(seed, length)
				if want := int(1.2 * faultsPerMinute * length.Minutes()); len(p.Faults) < want {
					t.Errorf("seed %d, %s: %d faults, want %d", seed, length, len(p.Faults), want)
				}
				for i, f := range p.Faults {
					if f.Seq != i+1 || f.At >= length || i > 0 && f.At < p.Faults[i-1].At {
						t.Errorf("seed %d, %s: fault %d of %d is %+v", seed, length, i, len(p.Faults), f)
					}
				}
			}
		}
	})

	t.Run("half an hour sees every kind, at every moment that it can be aimed at", func(t *testing.T) {
		got, at := map[Kind]int{}, map[Moment]int{}
		for _, f := range NewPlan(1, half).Faults {
			got[f.Kind]++
			at[f.Aim]++
		}
		want := []Kind{RemoveNode}
		for _, c := range deck() {
			want = append(want, c.kind)
			for _, m := range c.aims {
				if at[m] == 0 {
					t.Errorf("nothing is aimed at %q", m)
				}
			}
		}
		for _, k := range want {
			if got[k] == 0 {
				t.Errorf("no %s", k)
			}
		}
	})

	t.Run("a node is added before one is removed", func(t *testing.T) {
		extra := 0
		for _, f := range NewPlan(3, half).Faults {
			switch f.Kind { //nolint:exhaustive // only these two change the number
			case AddNode:
				extra++
			case RemoveNode:
				extra--
			}
			if extra < 0 || extra > extraNodes {
				t.Fatalf("at %s there are %d more nodes than at the beginning", f.At, extra)
			}
		}
	})

	t.Run("maxUnavailable is both, one after the other, and a configuration comes whenever it changes", func(t *testing.T) {
		p := NewPlan(1, half)
		if len(p.MaxUnavailable) != 5 {
			t.Fatalf("epochs: %v", p.MaxUnavailable)
		}
		for i, n := range p.MaxUnavailable {
			at := time.Duration(i) * epoch
			if n < 1 || n > 2 || i > 0 && n == p.MaxUnavailable[i-1] || p.maxUnavailable(at) != n || p.maxUnavailable(at+epoch-1) != n {
				t.Errorf("epochs: %v", p.MaxUnavailable)
			}
			comes := false
			for _, f := range p.Faults {
				comes = comes || f.Kind == Configure && f.At == at
			}
			if i > 0 && !comes {
				t.Errorf("no configuration comes at %s", at)
			}
		}
	})
}

func TestEveryKindStrikes(t *testing.T) {
	blows := (&run{}).blows()
	for _, c := range deck() {
		if blows[c.kind] == nil {
			t.Errorf("nobody knows how to do %q", c.kind)
		}
	}
	if blows[RemoveNode] == nil {
		t.Errorf("nobody knows how to do %q", RemoveNode)
	}
}

func TestLimitAt(t *testing.T) {
	at := func(d time.Duration) time.Time { return time.Unix(0, 0).Add(d) }
	limits := []limit{{at(0), 1}, {at(10 * time.Minute), 2}, {at(20 * time.Minute), 1}}
	for _, tc := range []struct {
		name string
		at   time.Duration
		want int
	}{
		{"the first one holds from the beginning", 0, 1},
		{"a larger one holds at once", 10 * time.Minute, 2},
		{"a smaller one holds when all agents have surely taken it up", 20*time.Minute + takeUp, 2},
		{"and then it does", 20*time.Minute + takeUp + time.Second, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := limitAt(limits, at(tc.at)); got != tc.want {
				t.Errorf("%d, want %d", got, tc.want)
			}
		})
	}
}
