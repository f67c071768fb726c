package search

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Config is one search.
type Config struct {
	Nodes, Slots, Marshals int
	Faults                 map[Fault]int // how often each may happen; one that is left out never does
	Off                    string        // the rule that is switched off, as rules.go names it; "" none
	Depth                  int           // look no further than so many steps; 0: no limit
	States                 int           // look at no more states; 0: no limit
	Ends                   bool          // from every state a way without a further fault must lead to the end
}

// Report is what a search found.
type Report struct {
	Depth     int  // every state within so many steps of the first one was looked at
	States    int  // that were looked at
	Steps     int  // that were tried
	Truncated bool // a limit left states out
	Moves     []string
	Broken    string   // what must never be and is; "" if nothing
	Trace     []string // the shortest way there
	Took      time.Duration
}

// Run searches breadth first until a state is found that must never be, or there are no more, or a limit is reached.
func Run(ctx context.Context, c Config) (Report, error) {
	var faults []error
	for _, x := range []struct {
		what    string
		n, most int
	}{{"nodes", c.Nodes, maxNodes}, {"slots", c.Slots, maxSlots}, {"marshals", c.Marshals, maxMarshals}} {
		if x.n < 1 || x.n > x.most {
			faults = append(faults, fmt.Errorf("%d %s are not between 1 and %d", x.n, x.what, x.most))
		}
	}
	if c.Ends && (c.Depth > 0 || c.States > 0) {
		faults = append(faults, errors.New("whether every state has a way to the end is known only when all states are"))
	}
	r, err := without(c.Off)
	if err := errors.Join(append(faults, err)...); err != nil {
		return Report{}, fmt.Errorf("configuring the search: %w", err)
	}
	start := time.Now()
	m := newModel(ctx, c, r)
	h := &hunt{Config: c, model: m, symmetry: newSymmetry(m), number: map[uint64]uint32{}}
	m.hunt = h
	h.run(ctx)
	h.report.Took = time.Since(start)
	h.report.Moves = m.moved()
	if err := errors.Join(m.err, ctx.Err()); err != nil {
		return h.report, fmt.Errorf("searching: %w", err)
	}
	return h.report, nil
}

// hunt is a search under way. Of each state it keeps a hash and how it was reached; whole states it keeps only of the
// depth under look and of the next one.
type hunt struct {
	Config
	model    *model
	symmetry *symmetry
	report   Report

	number  map[uint64]uint32 // of a state, by hash
	reached []step
	back    [][]uint32 // if Ends: from which states it is reached without a fault
	ends    []uint32

	level []world // the states of one depth
	below []world // and those first reached from them
	at    step    // the step under look
	bad   step    // the one that led to what must never be
	tell  *told   // while the way there is walked again
}

// step is how a state was reached: by which one of the steps of which state.
type step struct{ from, via uint32 }

func (h *hunt) run(ctx context.Context) {
	first := h.model.first(h.Faults)
	h.note(&first, step{})
	for base := uint32(0); len(h.below) > 0; h.report.Depth++ {
		if h.Depth > 0 && h.report.Depth == h.Depth {
			h.report.Truncated = true
			break
		}
		h.level, h.below = h.below, nil
		h.expand(ctx, base)
		base += uint32(len(h.level))
		if h.stopped(ctx) || len(h.below) == 0 {
			break
		}
	}
	h.report.States = len(h.reached)
	switch {
	case h.report.Broken != "":
		h.report.Trace = h.trace(h.bad.from, h.bad.via)
	case h.Ends && !h.stopped(ctx):
		if n, dead := h.dead(); dead {
			h.report.Broken, h.report.Trace = noWay, h.trace(n)
		}
	}
}

// expand looks at every step from every state of a depth.
func (h *hunt) expand(ctx context.Context, base uint32) {
	for i := range h.level {
		h.at = step{from: base + uint32(i)}
		if h.Ends && h.model.over(&h.level[i]) {
			h.ends = append(h.ends, h.at.from)
		}
		h.model.next(&h.level[i])
		if h.stopped(ctx) {
			return
		}
	}
}

func (h *hunt) stopped(ctx context.Context) bool {
	return h.report.Broken != "" || h.report.Truncated || h.model.err != nil || ctx.Err() != nil
}

// take looks at one step.
func (h *hunt) take(next *world, mv move) {
	at := h.at
	h.at.via++
	if h.tell != nil {
		h.tell.hear(at.via, next, mv)
		return
	}
	h.report.Steps++
	if h.report.Broken != "" {
		return
	}
	if h.report.Broken = cmp.Or(mv.bad, h.model.broken(next)); h.report.Broken != "" {
		h.bad = at
		return
	}
	to, ok := h.note(next, at)
	if ok && h.Ends && !mv.fault {
		h.back[to] = append(h.back[to], at.from)
	}
}

// note returns the number of a state, and keeps it to be looked at if it is new; not ok means that a limit forbids that.
func (h *hunt) note(w *world, by step) (uint32, bool) {
	hash := h.symmetry.hash(w)
	if n, known := h.number[hash]; known {
		return n, true
	}
	if h.States > 0 && len(h.reached) >= h.States {
		h.report.Truncated = true
		return 0, false
	}
	n := uint32(len(h.reached))
	h.number[hash] = n
	h.reached = append(h.reached, by)
	h.below = append(h.below, *w)
	if h.Ends {
		h.back = append(h.back, nil)
	}
	return n, true
}

// dead finds the first state from which no end can be reached without a fault.
func (h *hunt) dead() (uint32, bool) {
	ok := make([]bool, len(h.reached))
	for _, e := range h.ends {
		ok[e] = true
	}
	for queue := h.ends; len(queue) > 0; {
		to := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		for _, from := range h.back[to] {
			if !ok[from] {
				ok[from] = true
				queue = append(queue, from)
			}
		}
	}
	i := slices.Index(ok, false)
	return uint32(max(i, 0)), i >= 0
}

// trace walks once more from the first state to another one, and what came then, and tells it.
func (h *hunt) trace(to uint32, then ...uint32) []string {
	path := then
	for i := to; i > 0; i = h.reached[i].from {
		path = append(path, h.reached[i].via)
	}
	slices.Reverse(path)
	t := told{at: h.model.first(h.Faults)}
	h.tell = &t
	for _, via := range path {
		t.via, h.at = via, step{}
		from := t.at
		h.model.next(&from)
	}
	return t.lines
}

// told is a way as it is told.
type told struct {
	at    world
	via   uint32 // the step to take
	lines []string
}

func (t *told) hear(via uint32, next *world, mv move) {
	if via == t.via {
		t.at = *next
		t.lines = append(t.lines, mv.String())
	}
}
