package drains

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/client-go/rest"

	"kubebaton.io/baton/lab/audit"
)

const (
	maxError = 300 // bytes of a tool's error that are told
	maxTries = 3   // of a drain
)

// heat is one drain.
type heat struct {
	from, to time.Time
	lives    []life // that ended in it
	err      error  // of the tool
	late     bool   // the watch was cut in it, and has shown late what followed
}

func (h heat) total() time.Duration { return h.to.Sub(h.from) }

// above is the time that the drain took and the slowest pod did not.
func (h heat) above() time.Duration { return h.total() - slowest(h.lives) }

// parts say where that time lies: until the last pod was asked to go, and from the end of the last one to the tool's word.
func (h heat) parts() (asking, noticing time.Duration) {
	var asked, gone time.Time
	for _, l := range h.lives {
		if l.ending.After(asked) {
			asked = l.ending
		}
		if l.gone.After(gone) {
			gone = l.gone
		}
	}
	return asked.Sub(h.from), h.to.Sub(gone)
}

// failed is the tool's error, without all that it says about each of many pods.
func (h heat) failed() error {
	if h.err == nil || len(h.err.Error()) <= maxError {
		return h.err
	}
	return errors.New(h.err.Error()[:maxError] + " …")
}

// drain lets the tool drain the node, once it is cordoned. The error is not the tool's.
func (b *bench) drain(ctx context.Context, t tool) (heat, error) {
	if err := b.cordon(ctx, true); err != nil {
		return heat{}, err
	}
	if err := t.warm(ctx, nodeName); err != nil {
		return heat{}, err
	}
	h, opens := heat{from: time.Now()}, b.watch.opens.Load()
	h.err = t.drain(ctx, nodeName)
	h.to = time.Now()
	if h.err == nil {
		// The tool may have heard of the last end before the watch here.
		if err := b.watch.wait(ctx, "the node to be empty", empty); err != nil {
			return h, fmt.Errorf("%s left a pod: %w", t.name, err)
		}
	}
	lives, _ := b.watch.all()
	h.lives, h.late = ended(lives, nodeName, h.from), b.watch.opens.Load() != opens
	return h, nil
}

func empty(lives []life) bool {
	for _, l := range lives {
		if l.node == nodeName && l.gone.IsZero() {
			return false
		}
	}
	return true
}

// requests counts those of a drain. The log may be behind by a moment.
func (b *bench) requests(t tool, h heat) (Requests, error) {
	counts, err := audit.CountUserAgent(b.cluster.AuditLog(), t.userAgent, h.from, h.to)
	if err != nil {
		return Requests{}, err
	}
	r := Requests{By: map[string]int{}}
	for request, n := range counts {
		what := request.Verb + " " + request.Resource
		if request.Subresource != "" {
			what += "/" + request.Subresource
		}
		r.By[fmt.Sprintf("%s %d", what, request.Code)] += n
		r.Total += n
		if request.Subresource == "eviction" {
			r.Evictions += n
		}
	}
	return r, nil
}

// race lets the tools drain n pods in turn, the one first and then the other.
func (b *bench) race(ctx context.Context, config *rest.Config, l limits, n int, e ends, rounds int) error {
	both, err := tools(config, l)
	if err != nil {
		return err
	}
	sides := map[string]*side{baton: {}, kubectl: {}}
	b.say("%d pods that end %s, limits of the clients: %s.", n, e.name, l.name)
	if err := b.fill(ctx, n, e); err != nil {
		return err
	}
	for i := range 2 * rounds {
		t := both[(i+i/2)%2] // a b, b a, a b
		h, r, err := b.heat(ctx, t, n, e)
		if err != nil {
			return fmt.Errorf("draining with %s: %w", t.name, err)
		}
		sides[t.name].add(h, r)
	}
	b.report.Races = append(b.report.Races, Race{
		Pods: n, Ends: e.name, Limits: l.name, Rounds: rounds, Want: wanted(n, e, l), Baton: sides[baton].result(), Kubectl: sides[kubectl].result(),
	})
	return nil
}

// wanted is how many times as fast Baton is to be. Many pods that end at once keep every processor busy long after they were
// asked to: what a tool adds to that is mostly chance, so there it is only not to be slower.
func wanted(n int, e ends, l limits) float64 {
	switch {
	case l.qps >= 0:
		return 0
	case n >= manyPods && e.controllers > 1:
		return muchFaster
	}
	return 1
}

// heat drains n pods and starts them again. One in which the watch was cut is no measurement and is done again.
func (b *bench) heat(ctx context.Context, t tool, n int, e ends) (h heat, r Requests, err error) {
	h.late = true
	for try := 0; h.late && try < maxTries; try++ {
		if h, err = b.drain(ctx, t); err != nil {
			return h, r, err
		}
		if err := h.failed(); err != nil {
			return h, r, err
		}
		if len(h.lives) != n {
			return h, r, fmt.Errorf("%d pods were drained, want %d", len(h.lives), n)
		}
		if err := b.fill(ctx, n, e); err != nil {
			return h, r, err
		}
		if r, err = b.requests(t, h); err != nil {
			return h, r, err
		}
		asking, noticing := h.parts()
		b.say("%-8s %d pods in %.2f s, %.2f s of it above the slowest pod's own end (the last was asked after %.2f s, its end noticed after %.2f s), %d requests",
			t.name, n, h.total().Seconds(), h.above().Seconds(), asking.Seconds(), noticing.Seconds(), r.Total)
		if h.late {
			b.say("%-8s the watch was cut: that was no measurement", t.name)
		}
	}
	if h.late {
		err = fmt.Errorf("the watch was cut in each of %d drains", maxTries)
	}
	return h, r, err
}

// side gathers the drains of one tool.
type side struct {
	above, total, slowest []time.Duration
	requests              []Requests
}

func (s *side) add(h heat, r Requests) {
	s.above, s.total, s.slowest = append(s.above, h.above()), append(s.total, h.total()), append(s.slowest, slowest(h.lives))
	s.requests = append(s.requests, r)
}
