package agent

import (
	"fmt"
	"slices"
	"time"
)

// veto tells why a cycle that has taken its node down, but has not asked for the reboot, must go back.
func veto(o Observation, s Slot, holds bool) (Decision, bool) {
	switch {
	case !holds:
		return o.backoff(ReasonSlotLost, "the slot "+o.Record.Slot+" is not this node's any more"), true
	case s.Release != "":
		return o.backoff(ReasonRelease, "an operator asked for the slot: "+s.Release), true
	case !o.Node.Unschedulable || o.Record.Cordon == CordonNone:
		return o.undo(ReasonUncordoned, "the node was uncordoned"), true
	case s.Hold != "":
		return o.undo(ReasonHold, "the group is held: "+s.Hold), true
	case o.wishGone():
		return o.undo(ReasonSentinelGone, "no reboot is wanted any more"), true
	}
	return Decision{}, false
}

// emptyAge is how long a node that was found empty counts as such, and the time that another look needs at least.
const emptyAge = 30 * time.Second

// mayEvict tells whether the drain may go on at this moment. When it may not, the phase cannot always be left at once:
// the slot and the cordon are kept while a shutdown may be coming.
func mayEvict(o Observation) bool {
	if !o.Exists || o.Node.Deleting || o.Record == nil || o.Record.Phase != Draining || o.Record.BootID != o.Boot {
		return false
	}
	s, holds := o.held()
	_, vetoed := veto(o, s, holds)
	_, stopped := stops(o.closed())
	return !vetoed && !stopped && !o.GroupGone
}

// draining: the node is cordoned, its pods are asked to go.
func draining(o Observation) Decision {
	r := o.Record
	if r.BootID != o.Boot {
		return do(verify(o, ReasonOtherReboot, "the host was rebooted during the drain, not by Baton"))
	}
	s, holds := o.held()
	if d, ok := veto(o, s, holds); ok {
		return d
	}
	if s.Cordon != r.Cordon || !o.beats(s) {
		return do(RenewSlot{s, claim(o)})
	}
	switch {
	case o.Settings == nil:
		return o.undo(ReasonConfig, "there is no valid configuration")
	case o.GroupGone:
		return o.undo(ReasonConfig, "group "+r.Group+", by whose rules the node is drained, is not in the configuration any more")
	case o.gatesDue():
		return do(AskGates{})
	}
	if c, ok := stops(o.closed()); ok {
		return o.undo(c.Reason, c.Message)
	}
	if d, succeeded := preHooks(o, s); !succeeded {
		return d
	}
	switch {
	case o.Drain.Empty && !o.fresh(o.Emptied, emptyAge) && o.Now.Add(emptyAge).Before(o.Due.Deadline):
		return do(StartDrain{o.drain()}) // the hooks took their time: pods may have come, or others of their kind gone
	case o.Drain.Empty:
		n := r.clone()
		n.Down, n.Deadline, n.Evicted, n.Stays = o.Now, time.Time{}, o.Drain.Evicted, o.Drain.Stays
		if w := o.wish(); w.Source != "" {
			n.setWish(w, o.Now) // the reboot is for what is there now
		}
		message := "the node is drained"
		if o.Drain.Summary != "" {
			message += ": " + o.Drain.Summary
		}
		return do(o.enter(n, Rebooting, ReasonDrained, message))
	case o.passed(o.Due.Deadline):
		return o.backoff(drainReason(o.Drain), "the drain took longer than "+r.Settings.DrainTimeout.String()+": "+o.Drain.Message)
	case !o.Drain.Running:
		return do(StartDrain{o.drain()})
	}
	return wait("drains: "+o.Drain.Message, o.Due.Deadline, o.nextBeat(s), o.Gates.Until, o.Window.Next)
}

// preHooks decides until the hooks of the node that is to be drained, or is empty now, have succeeded. The time of those
// before the drain is the drain's. The others end by their own timeouts: the pods are gone already.
func preHooks(o Observation, s Slot) (d Decision, succeeded bool) {
	wakes := []time.Time{o.nextBeat(s), o.Gates.Until, o.Window.Next}
	late := o.passed(o.Due.Deadline)
	if !late {
		wakes = append(wakes, o.Due.Deadline)
	}
	d, ended, failed := o.runHooks(wakes...)
	switch {
	case failed != "":
		return o.backoff(ReasonHook, failed), false
	case !ended && late && (d.Do == nil && !o.Drain.Empty || o.Hooks.Trouble != ""):
		return o.backoff(ReasonHook, o.hooksLate("drain.timeout", o.Record.Settings.DrainTimeout)), false
	}
	return d, ended
}

// stops returns the first closed gate that stops a cycle under way: one that was asked and said no. The pods are the
// drain's own business by then, and the group is the slot's.
func stops(closed []Closed) (Closed, bool) {
	own := []Reason{ReasonUnmanagedPod, ReasonGroup}
	for _, c := range closed {
		if !c.Unknown && !slices.Contains(own, c.Reason) {
			return c, true
		}
	}
	return Closed{}, false
}

// drainReason is the drain's word for what is in the way, when it is one of the words for that.
func drainReason(d DrainView) Reason {
	if (Transition{From: Draining, To: Backoff, Reason: Reason(d.Reason)}).allowed() {
		return Reason(d.Reason)
	}
	return ReasonEviction
}

// rebooting: the boot ID is stored. What happens from here on is believed of the host only.
func rebooting(o Observation) Decision {
	r := o.Record
	if r.BootID != o.Boot {
		return do(verify(o, ReasonRebooted, fmt.Sprintf("the boot ID changed from %s to %s", r.BootID, o.Boot)))
	}
	if d, calm := proveCalm(o, "a reboot is coming"); !calm {
		if d.Do == nil && o.passed(o.Due.Slow) && !slices.Contains(r.Reasons, ReasonRebootSlow) {
			return o.say(ReasonRebootSlow, d.Why)
		}
		return d
	}
	s, holds := o.held()
	called := o.Call.Cycle == r.Cycle && o.Call.Attempt == r.Attempt && !o.Call.At.IsZero()
	switch {
	case r.Yield:
		return o.backoff(ReasonRecordLost, "the record had been lost, and no reboot is coming")
	case called && o.Call.Refused != "":
		return o.backoff(o.Call.Refused, o.Call.Message)
	case called && o.fresh(o.Call.At, acceptedGrace):
		return wait("the reboot was accepted", o.Call.At.Add(acceptedGrace), o.Shutdown.At.Add(lastCheckAge))
	case called:
		return o.backoff(ReasonNoReboot, "the host accepted the reboot, and proves now that none is coming")
	}
	if d, ok := veto(o, s, holds); ok {
		return d
	}
	return lastGates(o, s)
}

// lastGates: the last check asks every gate, and then all have to be open. One that cannot be asked is waited for, but not for
// ever.
func lastGates(o Observation, s Slot) Decision {
	if !o.fresh(o.Gates.At, lastCheckAge) && !o.passed(o.Due.Slow) {
		return do(Reboot{Slot: s.Name})
	}
	closed := o.closed()
	if c, ok := stops(closed); ok {
		return o.undo(c.Reason, c.Message)
	}
	i := slices.IndexFunc(closed, func(c Closed) bool { return c.Unknown })
	switch {
	case o.passed(o.Due.Slow) && i >= 0:
		return o.backoff(ReasonLastCheck, closed[i].Message)
	case o.passed(o.Due.Slow):
		return o.backoff(ReasonLastCheck, "it always took too long")
	case i >= 0 && !slices.Equal(o.Record.Reasons, []Reason{closed[i].Reason}):
		return o.say(closed[i].Reason, closed[i].Message)
	case i >= 0:
		return wait("before the reboot: "+closed[i].Message, o.Gates.At.Add(lastCheckAge))
	}
	return do(Reboot{Slot: s.Name})
}

// say writes why the cycle stands where it stands.
func (o Observation) say(why Reason, message string) Decision {
	n := o.Record.clone()
	n.because(why, message)
	return do(WriteNode{Record: n})
}
