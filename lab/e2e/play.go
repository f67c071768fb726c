package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"kubebaton.io/baton/lab/observe"
)

// play is one performance of a scenario. As with a testing.T its methods end it, then and there, when something goes wrong:
// a scenario reads as a list of what is done and what must come of it.
type play struct {
	*world
	ctx   context.Context
	err   error
	power map[string]int // how many times each machine has to have been switched off by the end
}

// perform runs a scenario to its end and returns what went wrong.
func (w *world) perform(ctx context.Context, s scenario) error {
	ctx, cancel := context.WithTimeoutCause(ctx, scenarioTime, fmt.Errorf("the scenario took longer than %s", scenarioTime))
	defer cancel()
	p := &play{world: w, ctx: ctx, power: map[string]int{}}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.run(p)
		p.must(w.switchedOff(p.power))
	}()
	<-ended
	return p.err
}

// must ends the scenario unless err is nil.
func (p *play) must(err error) {
	if err != nil {
		p.err = err
		runtime.Goexit()
	}
}

func (p *play) failf(format string, args ...any) { p.must(fmt.Errorf(format, args...)) }

// moment is a version of a Node with what its record says, or a version of a slot.
type moment struct {
	observe.Event
	record record
}

// is names something that may happen, for errors, and tells whether an event is it.
type is struct {
	what  string
	match func(observe.Event) bool
}

// then returns the first moment after m that is it; all that came since the scenario began is looked at.
func (p *play) then(m moment, it is) moment {
	got, err := p.await(p.ctx, m, it)
	p.must(err)
	return got
}

func (p *play) await(ctx context.Context, m moment, it is) (moment, error) {
	e, err := p.obs.WaitAfter(ctx, p.mark, it.what, func(e observe.Event) bool { return e.Revision > m.Revision && it.match(e) })
	if err != nil {
		return moment{}, err
	}
	got := moment{Event: e}
	if e.Node != nil && e.Node.Record != "" {
		got.record, _ = recordOf(e) // what cannot be read has no meaning: some scenarios spoil it
	}
	return got, nil
}

// never fails when it happens within the time, counted from m.
func (p *play) never(m moment, during time.Duration, it is) {
	limited, cancel := context.WithTimeout(p.ctx, during)
	defer cancel()
	if got, err := p.await(limited, m, it); err == nil {
		p.failf("%s, at %s", it.what, got.Time.Format(timeFormat))
	}
	p.must(context.Cause(p.ctx))
}

// not fails when it has happened since m.
func (p *play) not(m moment, it is) { p.never(m, 0, it) }

// in is a node in a phase.
func in(node, phase string) is {
	what := phase
	if phase == observe.Idle {
		what = "idle"
	}
	return is{node + " is " + what, observe.InPhase(node, phase)}
}

// gone is a Node that does not exist any more.
func gone(node string) is {
	return is{"Node " + node + " is gone", func(e observe.Event) bool { return e.Node != nil && e.Node.Name == node && !e.Node.Exists }}
}

// waits is a node that is Waiting for this reason.
func waits(node, reason string) is {
	return is{node + " waits for " + reason, func(e observe.Event) bool {
		if !observe.InPhase(node, observe.Waiting)(e) {
			return false
		}
		r, err := recordOf(e)
		return err == nil && slices.Contains(r.Reasons, reason)
	}}
}

// freed is a slot that is not the node's any more.
func freed(m moment) is {
	slot, node := m.record.Slot, m.Node.Name
	return is{slot + " is freed by " + node, func(e observe.Event) bool {
		return e.Slot != nil && e.Slot.Name == slot && e.Slot.Holder != node
	}}
}

// lost is what must not happen to a node that is down: its slot, its cordon or its phase change.
func lost(m moment) is {
	slot, was := freed(m), *m.Node
	return is{was.Name + " lost its slot, its cordon or its phase", func(e observe.Event) bool {
		n := e.Node
		return slot.match(e) || n != nil && n.Name == was.Name && (!n.Unschedulable || n.Phase != was.Phase)
	}}
}

// goes is what must not happen to nodes that only wait: one of them is taken down.
func goes(nodes ...string) is {
	return is{"a node was taken down that had to wait: " + strings.Join(nodes, " or "), func(e observe.Event) bool {
		if s := e.Slot; s != nil {
			return s.Exists && slices.Contains(nodes, s.Holder)
		}
		n := e.Node
		return slices.Contains(nodes, n.Name) && (n.Unschedulable || n.Phase == observe.Draining || n.Phase == observe.Rebooting)
	}}
}

// raise makes nodes want a reboot.
func (p *play) raise(nodes ...string) {
	for _, n := range nodes {
		p.must(p.c.RaiseSentinel(n))
	}
}

// bring makes a node want a reboot and returns when it is in the phase.
func (p *play) bring(node, phase string) moment {
	p.raise(node)
	return p.phase(node, phase)
}

// phase returns the first moment since the scenario began at which the node is in the phase.
func (p *play) phase(node, phase string) moment { return p.then(moment{}, in(node, phase)) }

// home waits until these nodes are back from a reboot: on a new boot, Ready, without a record, holding no slot; schedulable
// unless people had cordoned them. By the end of the scenario each must have been switched off once for every time that it
// came home, and no other at all. It returns the last moment that is known.
func (p *play) home(nodes ...string) moment {
	p.must(p.obs.Wait(p.ctx, strings.Join(nodes, ", ")+" to be back from a reboot", func(all map[string]observe.Node) bool {
		slots := slices.Collect(maps.Values(p.obs.Slots()))
		return !slices.ContainsFunc(nodes, func(name string) bool {
			n, ok := all[name]
			holds := slices.ContainsFunc(slots, func(s observe.Slot) bool { return s.Holder == name })
			return !ok || holds || n.BootID == p.boots[name] || !n.Ready || n.Phase != observe.Idle || n.Unschedulable != (p.foreign[name] != 0)
		})
	}))
	for _, name := range nodes {
		p.boots[name] = p.obs.Nodes()[name].BootID
		p.power[name]++
	}
	events := p.obs.Events()
	return moment{Event: events[len(events)-1]}
}

// stay fails when a machine was switched off.
func (p *play) stay() { p.must(p.switchedOff(map[string]int{})) }

// pause lets time pass, in which something is to be away.
func (p *play) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-p.ctx.Done():
		p.must(context.Cause(p.ctx))
	}
}

// exec runs a command in a node.
func (p *play) exec(node string, argv ...string) string {
	out, err := p.c.Exec(p.ctx, node, argv...)
	p.must(err)
	return out
}

// until asks again and again what no watch tells, until the answer is yes; err says what is missing.
func (p *play) until(what string, ok func() (bool, error)) { p.must(until(p.ctx, what, ok)) }

// sameCycle fails unless the cycle went through with the same identity, in the same attempt.
func (p *play) sameCycle(before, after moment) {
	if a, b := before.record, after.record; a.Cycle != b.Cycle || a.Attempt != b.Attempt || a.Slot != b.Slot {
		p.failf("the cycle did not go on: it was %+v, it became %+v", a, b)
	}
}

// because fails unless the record gives the reason, and its message has the words.
func (p *play) because(m moment, reason string, words ...string) {
	said := slices.Contains(m.record.Reasons, reason)
	for _, w := range words {
		said = said && strings.Contains(m.record.Message, w)
	}
	if !said {
		p.failf("%s is %s for %v: %q; want %s, and in the message %q", m.Node.Name, m.Node.Phase, m.record.Reasons, m.record.Message, reason, words)
	}
}

// schedulable fails when the node is cordoned.
func (p *play) schedulable(m moment) {
	if m.Node.Unschedulable {
		p.must(errors.New(m.Node.Name + " is " + m.Node.Phase + " and still cordoned"))
	}
}
