package search

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWorldsThatDifferInNamesOnlyAreOne(t *testing.T) {
	c := Config{
		Nodes: 3, Slots: 2, Marshals: 2, States: 4000,
		Faults: map[Fault]int{Lose: 1, Stall: 2, Lag: 2, Delete: 1, Scrap: 1, Cordon: 1, Mute: 1, Twin: 1},
	}
	m := newModel(t.Context(), c, rules{twins: true})
	s := newSymmetry(m)
	// after returns what the steps from a world lead to.
	after := func(w world) []uint64 {
		h := &hunt{Config: Config{}, model: m, symmetry: s, number: map[uint64]uint32{}}
		m.hunt = h
		m.next(&w)
		var all []uint64
		for i := range h.below {
			all = append(all, s.hash(&h.below[i]))
		}
		slices.Sort(all)
		return all
	}
	h := &hunt{Config: c, model: m, symmetry: s, number: map[uint64]uint32{}}
	m.hunt = h
	h.run(t.Context())
	if !h.report.Truncated || m.err != nil {
		t.Fatalf("it has not %d states: %+v, %v", c.States, h.report, m.err)
	}
	for i := 0; i < len(h.below); i += 10 {
		w := h.below[i]
		for _, to := range s.shuffles {
			x := w
			s.rename(&x, to)
			x.marshals[0], x.marshals[1] = x.marshals[1], x.marshals[0]
			if s.hash(&x) != s.hash(&w) {
				t.Fatalf("renamed by %v it is another world: %+v", to, w)
			}
			if diff := cmp.Diff(after(w), after(x)); diff != "" {
				t.Fatalf("renamed by %v other steps lead from it: %+v", to, w)
			}
		}
	}
}
