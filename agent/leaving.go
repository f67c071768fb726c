package agent

import (
	"context"
	"time"
)

// leaveTimeout is how long a removal may hold up the end of the process. The kubelet waits a little longer.
const leaveTimeout = 20 * time.Second

// leave is what becomes of each phase when Baton is removed: what can be undone is, and nothing is begun. A reboot that was
// asked for comes, and a node that is on its way home goes on as far as there is time.
func leave(o Observation) (Decision, bool) {
	r := o.Record
	if r == nil {
		_, holds := o.held()
		return wait("Baton is being removed"), !holds && o.wish().Source != ""
	}
	s, holds := o.held()
	switch r.Phase {
	case Draining, Rebooting:
		if r.BootID == o.Boot && o.Call.At.IsZero() {
			return o.undo(ReasonRemoved, "Baton is being removed"), true
		}
	case Waiting, Backoff:
		if holds {
			return do(FreeSlot{s}), true
		}
		return do(o.uncordon(o.end(ReasonRemoved, "Baton is being removed"))), true
	case Idle, Verifying, Failed:
	}
	return Decision{}, false
}

// leave gives the node back when this stop is the last one. A stop by the host's own reboot is not: whoever comes next
// finds the record, and nothing is given back after the call anyway.
func (a *Agent) leave(ctx context.Context) {
	if a.Home == nil || a.accepted() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	switch removed, err := a.Home.Removed(ctx); {
	case err != nil:
		a.Log.Warn("whether Baton is being removed is not known: the next process goes on from here", "err", err)
		return
	case !removed:
		return
	}
	a.Log.Warn("Baton is being removed: gives the node back")
	a.update(func(w *world) { w.leaving, w.stale = true, true })
	for ctx.Err() == nil && !a.left() {
		if _, err := a.turn(ctx); err != nil {
			a.pause(ctx, retryFirst)
		}
	}
	a.drain.stop()
	a.pods.stop()
	a.hooks.stop()
	for {
		select {
		case e := <-a.events:
			a.sendEvent(ctx, e)
		default:
			return
		}
	}
}

// accepted tells whether the host has been asked for a reboot and has not refused.
func (a *Agent) accepted() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.world.call
	return !c.At.IsZero() && c.Refused == ""
}

// left tells whether nothing of Baton's is on the node and on the slots any more.
func (a *Agent) left() bool {
	a.mu.Lock()
	stale := a.world.stale
	a.mu.Unlock()
	o := a.observe()
	_, holds := o.held()
	return !stale && (!o.Exists || o.Record == nil && o.RecordErr == nil && !holds && !o.Node.Tainted && o.Node.Phase == "")
}
