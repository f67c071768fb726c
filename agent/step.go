package agent

import (
	"fmt"
	"strings"
	"time"
)

// Effect is one thing that the cycle does to the world. The set is closed.
type Effect interface{ effect() }

type (
	// WriteNode is one PATCH: record, cordon, label and taint together.
	WriteNode struct {
		Record           *Record // nil removes record, label and taint
		History          *History
		Cordon           *bool // nil leaves it
		ClearRequest     bool
		ClearAcknowledge bool
		Move             *Transition // nil: the same phase, nothing to tell
	}
	// TakeSlot makes the nominated slot this node's.
	TakeSlot struct {
		Slot  Slot
		Claim Claim
	}
	// RenewSlot writes heartbeat and claim.
	RenewSlot struct {
		Slot  Slot
		Claim Claim
	}
	// FreeSlot gives the slot back.
	FreeSlot struct{ Slot Slot }
	// DeclineSlot gives a nomination back.
	DeclineSlot struct{ Slot Slot }
	// AskGates asks every gate.
	AskGates struct{}
	// AskHost asks whether a shutdown is coming.
	AskHost struct{}
	// AwaitPods watches for these pods to be Ready.
	AwaitPods struct{ Keys []string }
	// RunHooks begins a run of hooks, or to wait for the end of one that was begun.
	RunHooks struct{ Run HookRun }
	// ClearHooks stops and forgets those of runs that are over.
	ClearHooks struct{}
	// StartDrain begins to evict.
	StartDrain struct{ Settings DrainSettings }
	// Resign gives the marshal's office away.
	Resign struct{}
	// Reboot is the last check and, when that passes, the call.
	Reboot struct{ Slot string }
)

func (WriteNode) effect()   {}
func (TakeSlot) effect()    {}
func (RenewSlot) effect()   {}
func (FreeSlot) effect()    {}
func (DeclineSlot) effect() {}
func (AskGates) effect()    {}
func (AskHost) effect()     {}
func (AwaitPods) effect()   {}
func (StartDrain) effect()  {}
func (RunHooks) effect()    {}
func (ClearHooks) effect()  {}
func (Resign) effect()      {}
func (Reboot) effect()      {}

// asks tells an effect that writes nothing: that it worked does not show that the next write will.
func asks(e Effect) bool {
	switch e.(type) {
	case AskGates, AskHost, AwaitPods, StartDrain, RunHooks, ClearHooks, Reboot:
		return true
	}
	return false
}

// Decision is what [Step] wants: at most one effect, then it is asked again; without an effect it is asked again when
// something changes, and at Wake at the latest.
type Decision struct {
	Do   Effect
	Wake time.Time // zero: only a change matters
	Why  string    // what it waits for, for /readyz and logs
}

func do(e Effect) Decision { return Decision{Do: e} }

func wait(why string, until ...time.Time) Decision {
	d := Decision{Why: why}
	for _, t := range until {
		if !t.IsZero() && (d.Wake.IsZero() || t.Before(d.Wake)) {
			d.Wake = t
		}
	}
	return d
}

// Step decides what comes next. It does no I/O and reads no clock.
func Step(o Observation) Decision {
	if !o.Exists || o.Node.Deleting {
		return wait("the Node object is gone: nothing is evicted or rebooted")
	}
	if o.RecordErr != nil {
		return wait("the record cannot be read: " + o.RecordErr.Error())
	}
	if s, ok := o.astray(); ok {
		if s.BootID != "" && s.BootID != o.Boot && (o.Node.BootID != o.Boot || !o.Node.Ready) {
			return wait("keeps " + s.Name + ", held for an earlier Node, until the node is Ready on this boot")
		}
		if d, safe := proveCalm(o, "slot "+s.Name+" is held for an earlier Node"); !safe {
			return d
		}
		return do(FreeSlot{s})
	}
	return fence(o, phaseStep(o))
}

func phaseStep(o Observation) Decision {
	if o.hooksLeft() {
		return do(ClearHooks{})
	}
	if o.Leaving {
		if d, ok := leave(o); ok {
			return d
		}
	}
	if o.Record == nil {
		return idle(o)
	}
	if o.Record.Cordon != CordonNone && !o.Node.Unschedulable {
		n := o.Record.clone()
		n.Cordon = CordonNone // a person took it off: a cordon from now on is not Baton's
		return do(WriteNode{Record: n})
	}
	switch o.Record.Phase {
	case Waiting:
		return waiting(o)
	case Draining:
		return draining(o)
	case Rebooting:
		return rebooting(o)
	case Verifying:
		return verifying(o)
	case Backoff:
		return backingOff(o)
	case Failed:
		return failed(o)
	case Idle:
	}
	return wait("the record says Idle")
}

// fence puts the writes of an earlier process, or of an earlier attempt of this one, out of the way before anything is
// done that rests on what was read: both the Node and the slot get a new resourceVersion from this instance. A write
// of the Node is its own fence for the Node, a write of the slot for the slot.
func fence(o Observation, d Decision) Decision {
	if d.Do == nil {
		return d
	}
	write, writesNode := d.Do.(WriteNode)
	s, holds := o.held()
	switch d.Do.(type) {
	case AskGates, AskHost, AwaitPods, RenewSlot, DeclineSlot, ClearHooks:
		return d // takes nothing away, and is decided anew afterwards
	}
	if o.Record != nil && o.Record.Instance != o.Instance && !writesNode {
		return do(WriteNode{Record: o.Record.clone()})
	}
	_, frees := d.Do.(FreeSlot)
	if holds && s.Instance != o.Instance && !frees && !o.outlived(s) {
		return do(RenewSlot{s, claim(o)})
	}
	if d, calm := calm(o, d.Do); !calm {
		return d
	}
	if writesNode && write.Move != nil && !write.Move.allowed() {
		return wait(fmt.Sprintf("bug: the move %s to %s for %s is not in the table", write.Move.From, write.Move.To, write.Move.Reason))
	}
	return d
}

// outlived tells that what an earlier process may still have sent about its slot can take nothing away: the host went down since, and
// the record says that it was to. A slot is freed only after a known write of the Node that leaves those phases, and the write of
// the Node that this process began with has shown that there was none; what is left is a heartbeat.
func (o Observation) outlived(s Slot) bool {
	r := o.Record
	return r != nil && r.Slot == s.Name && r.BootID != o.Boot && s.BootID == r.BootID &&
		(r.Phase == Rebooting || r.Phase == Verifying || r.Phase == Failed)
}

// calm holds back what gives the node back, or its slot, on the boot on which it was taken down, until the host has
// proven that no shutdown is coming, whoever asked for it.
func calm(o Observation, e Effect) (Decision, bool) {
	switch e := e.(type) {
	case FreeSlot:
		if e.Slot.BootID == o.Boot || e.Slot.BootID == "" {
			return proveCalm(o, "keeps "+e.Slot.Name)
		}
	case WriteNode:
		switch m := e.Move; {
		case m == nil:
		case (m.From == Draining || m.From == Rebooting) && (m.To == Waiting || m.To == Backoff):
			return proveCalm(o, "keeps the cordon")
		case m.From == Verifying && (m.To == Idle || m.To == Waiting):
			return goesAgain(o)
		}
	}
	return Decision{}, true
}

// goesAgain holds a node back that is well after its reboot, and whose host goes down again, whoever asked for it. The way
// home needs no bus: a host that cannot be asked is taken not to go; nor is a shutdown awaited that is later than the
// patience with the node.
func goesAgain(o Observation) (Decision, bool) {
	if o.passed(o.Due.Deadline) {
		return Decision{}, true
	}
	d, calm := proveCalm(o, "keeps the cordon")
	return d, calm || d.Do == nil && o.Shutdown.Err != nil
}

// claim is what this node writes on the slot that it holds.
func claim(o Observation) Claim {
	c := Claim{BootID: o.Boot, Instance: o.Instance}
	if r := o.Record; r != nil {
		c.Cycle, c.Attempt, c.BootID, c.Cordon = r.Cycle, r.Attempt, r.BootID, r.Cordon
	} else if s, ok := o.held(); ok {
		c.Cycle, c.Attempt, c.BootID, c.Cordon = s.Cycle, s.Attempt, s.BootID, s.Cordon
	}
	return c
}

// proveCalm asks the host until it has proven, just now, that no shutdown is coming.
func proveCalm(o Observation, why string) (Decision, bool) {
	if !o.fresh(o.Shutdown.At, lastCheckAge) {
		return do(AskHost{}), false
	}
	if o.Shutdown.Err != nil {
		return wait(fmt.Sprintf("%s: the host cannot be asked: %v", why, o.Shutdown.Err), o.Shutdown.At.Add(lastCheckAge)), false
	}
	if o.Shutdown.Coming != "" {
		return wait(fmt.Sprintf("%s: %s", why, o.Shutdown.Coming), o.Shutdown.At.Add(lastCheckAge)), false
	}
	return Decision{}, true
}

// messageBytes bounds what is written for people into an annotation or an Event.
const messageBytes = 512

func bounded(s string) string {
	const more = "…"
	if len(s) <= messageBytes {
		return s
	}
	return strings.ToValidUTF8(s[:messageBytes-len(more)], "") + more
}

// because writes the one reason for which the node does not bid.
func (r *Record) because(why Reason, message string) {
	r.Bids, r.Reasons, r.Message = false, []Reason{why}, bounded(message)
}

// enter makes the write that moves the record to another phase.
func (o Observation) enter(r *Record, to Phase, why Reason, message string) WriteNode {
	from := Idle
	if o.Record != nil {
		from = o.Record.Phase
	}
	r.Phase, r.Since = to, o.Now
	if to != Waiting {
		r.because(why, message)
	}
	return WriteNode{Record: r, Move: &Transition{From: from, To: to, Reason: why, Message: bounded(message)}}
}

// end makes the write that drops the record: the cycle is over.
func (o Observation) end(why Reason, message string) WriteNode {
	h := o.History
	h.Ended = o.Record.Cycle
	return WriteNode{History: &h, Move: &Transition{From: o.Record.Phase, To: Idle, Reason: why, Message: bounded(message)}}
}

// uncordon adds to w the end of our cordon, if the cordon is ours and still there.
func (o Observation) uncordon(w WriteNode) WriteNode {
	if o.Record.Cordon == CordonBaton && o.Node.Unschedulable {
		off := false
		w.Cordon = &off
	}
	if w.Record != nil {
		w.Record.Cordon = CordonNone
	}
	return w
}

// undo goes back to Waiting without counting an attempt.
func (o Observation) undo(why Reason, message string) Decision {
	r := o.Record.clone()
	r.Yield, r.Deadline = true, time.Time{}
	if why == ReasonUncordoned {
		r.Until = o.Now.Add(r.Settings.BackoffMax)
	}
	w := o.enter(r, Waiting, why, message)
	r.because(why, message)
	return do(o.uncordon(w))
}

// delay is how long to wait after what failed; longer each time.
func (r *Record) delay() time.Duration {
	d := r.Settings.BackoffInitial
	for range min(r.Backoffs, 30) {
		d = min(2*d, r.Settings.BackoffMax)
	}
	r.Backoffs++
	return d
}

// backoff gives up this attempt.
func (o Observation) backoff(why Reason, message string) Decision {
	r := o.Record.clone()
	r.Yield, r.Deadline = true, time.Time{}
	delay := r.delay()
	r.Until = o.Now.Add(delay)
	return do(o.uncordon(o.enter(r, Backoff, why, fmt.Sprintf("%s; next try in %s", message, delay))))
}
