package agent

import (
	"fmt"
	"slices"
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
func (Resign) effect()      {}
func (Reboot) effect()      {}

// Decision is what [step] wants: at most one effect, then it is asked again; without an effect it is asked again when
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

// step decides what comes next. It does no I/O and reads no clock.
func step(o Observation) Decision {
	if !o.Exists || o.Node.Deleting {
		return wait("the Node object is gone: nothing is evicted or rebooted")
	}
	if o.RecordErr != nil {
		return wait("the record cannot be read: " + o.RecordErr.Error())
	}
	if s, ok := o.astray(); ok {
		if d, safe := proveCalm(o, "slot "+s.Name+" is held for an earlier Node"); !safe {
			return d
		}
		return do(FreeSlot{s})
	}
	return fence(o, phaseStep(o))
}

func phaseStep(o Observation) Decision {
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
	case AskGates, AskHost, AwaitPods, RenewSlot, DeclineSlot:
		return d // takes nothing away, and is decided anew afterwards
	}
	if o.Record != nil && o.Record.Instance != o.Instance && !writesNode {
		return do(WriteNode{Record: o.Record.clone()})
	}
	_, frees := d.Do.(FreeSlot)
	if holds && s.Instance != o.Instance && !frees {
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

// calm holds back what gives the node back, or its slot, on the boot on which it was taken down, until the host has
// proven that no shutdown is coming, whoever asked for it.
func calm(o Observation, e Effect) (Decision, bool) {
	switch e := e.(type) {
	case FreeSlot:
		if e.Slot.BootID == o.Boot || e.Slot.BootID == "" {
			return proveCalm(o, "keeps "+e.Slot.Name)
		}
	case WriteNode:
		if e.Move != nil && (e.Move.From == Draining || e.Move.From == Rebooting) && (e.Move.To == Waiting || e.Move.To == Backoff) {
			return proveCalm(o, "keeps the cordon")
		}
	}
	return Decision{}, true
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

// idle: there is no record. A slot that is held here is either the end of a cycle or all that is left of one.
func idle(o Observation) Decision {
	if s, ok := o.held(); ok {
		if s.Cycle == o.History.Ended {
			return do(FreeSlot{s})
		}
		if o.Settings == nil {
			return wait("the record was lost, and there is no valid configuration to rebuild it with")
		}
		return do(rebuild(o, s))
	}
	if s, ok := o.unwanted(); ok {
		return do(DeclineSlot{s})
	}
	if o.Node.Phase != "" || o.Node.Tainted {
		return do(WriteNode{})
	}
	if o.wish().Source == "" {
		return wait("no reboot is wanted")
	}
	if o.Settings == nil {
		return wait("a reboot is wanted, but there is no valid configuration")
	}
	if !o.fresh(o.Gates.At, lastCheckAge) {
		return do(AskGates{})
	}
	if o.History.served(o.wish().Fingerprint, o.Now) {
		return do(begin(o, Idle, ReasonSentinelSurvived))
	}
	return do(begin(o, Idle, ReasonSentinel))
}

// rebuild makes a record from what the slot repeats. It goes on in Rebooting, the phase that concludes nothing from
// what it does not know: a new boot ID leads to Verifying, the same one to Backoff once the host proves it is calm.
func rebuild(o Observation, s Slot) WriteNode {
	r := &Record{
		Cycle: s.Cycle, Attempt: max(1, s.Attempt), Phase: Rebooting, BootID: s.BootID, Cordon: s.Cordon, Slot: s.Name,
		Group: s.Group, Pending: o.Now, Yield: true,
	}
	if r.BootID == "" {
		r.BootID = o.Boot
	}
	if r.Cycle == "" {
		r.Cycle = o.FreshID
	}
	r.Settings, r.Request = *o.Settings, o.Node.Request
	if r.BootID == o.Boot {
		r.setWish(o.wish())
	}
	return o.enter(r, Rebooting, ReasonRecordLost, "the record was rebuilt from slot "+s.Name)
}

// begin starts a new cycle.
func begin(o Observation, from Phase, why Reason) WriteNode {
	r := &Record{Cycle: o.FreshID, Attempt: 1, Pending: o.Now, BootID: o.Boot, Settings: *o.Settings}
	w := o.wish()
	if !w.Since.IsZero() && w.Since.Before(o.Now) {
		r.Pending = w.Since
	}
	if o.Record != nil {
		r.Slot, r.Yield = o.Record.Slot, o.Record.Yield
	}
	r.setWish(w)
	r.setGates(o)
	message := fmt.Sprintf("%s wants a reboot: %s", w.Source, orNone(w.Reason))
	if why == ReasonSentinelSurvived {
		message = "the node was rebooted for the same sentinel within the last day: no further reboot for " + w.Source
		r.Survived, r.Bids, r.Reasons, r.Message = w.Fingerprint, false, []Reason{why}, message
	}
	write := o.enter(r, Waiting, why, message)
	write.Move.From = from
	return write
}

func orNone(s string) string {
	if s == "" {
		return "no reason given"
	}
	return s
}

func (r *Record) setWish(w Sentinel) {
	r.Sentinel.Source, r.Sentinel.Reason, r.Sentinel.Fingerprint = w.Source, bounded(w.Reason), w.Fingerprint
}

// setGates writes the closed gates into the record; a bid stands when there is none. It tells whether that is news.
func (r *Record) setGates(o Observation) bool {
	was := r.clone()
	var reasons []Reason
	var says []string
	bids := true
	for _, c := range o.closed() {
		reasons = append(reasons, c.Reason)
		says = append(says, fmt.Sprintf("%s: %s", c.Reason, c.Message))
		bids = bids && c.Advised
	}
	r.Reasons, r.Message, r.Bids = reasons, bounded(strings.Join(says, "; ")), bids
	r.Group = o.Group
	if o.Settings != nil {
		r.Settings = *o.Settings
	}
	return r.Bids != was.Bids || !slices.Equal(r.Reasons, was.Reasons) || r.Group != was.Group
}

// messageBytes bounds what is written for people into an annotation or an Event.
const messageBytes = 512

func bounded(s string) string {
	if len(s) <= messageBytes {
		return s
	}
	return strings.ToValidUTF8(s[:messageBytes-3], "") + "..."
}

// enter makes the write that moves the record to another phase.
func (o Observation) enter(r *Record, to Phase, why Reason, message string) WriteNode {
	from := Idle
	if o.Record != nil {
		from = o.Record.Phase
	}
	r.Phase, r.Since = to, o.Now
	if to != Waiting {
		r.Bids, r.Reasons, r.Message = false, []Reason{why}, bounded(message)
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
	r.Bids, r.Reasons, r.Message = false, []Reason{why}, bounded(message)
	return do(o.uncordon(w))
}

// backoff gives up this attempt.
func (o Observation) backoff(why Reason, message string) Decision {
	r := o.Record.clone()
	r.Yield, r.Deadline = true, time.Time{}
	delay := r.Settings.BackoffInitial
	for range min(r.Backoffs, 30) {
		delay = min(2*delay, r.Settings.BackoffMax)
	}
	r.Backoffs++
	r.Until = o.Now.Add(delay)
	return do(o.uncordon(o.enter(r, Backoff, why, fmt.Sprintf("%s; next try in %s", message, delay))))
}

// waiting: the host wants a reboot, and the node asks for a slot while every gate is open.
func waiting(o Observation) Decision {
	r := o.Record
	if r.BootID != o.Boot {
		n := r.clone()
		n.BootID = o.Boot
		return do(keepGates(o.enter(n, Waiting, ReasonOtherReboot, "the host was rebooted by somebody else"), r))
	}
	if o.wishGone() {
		return do(o.uncordon(o.end(ReasonSentinelGone, "no reboot is wanted any more")))
	}
	s, holds := o.held()
	if holds && (s.Cycle != r.Cycle || s.Attempt != r.Attempt || r.Yield || s.Hold != "" || s.Release != "" || o.Node.Hold != "") {
		return do(FreeSlot{s})
	}
	if d, ok := survived(o); ok {
		return d
	}
	if o.Settings == nil {
		return noConfig(o, holds, s)
	}
	if n, ok := o.unwanted(); ok && !holds {
		return do(DeclineSlot{n})
	}
	if o.gatesDue() {
		return do(AskGates{})
	}
	if holds {
		return cordon(o, s)
	}
	return bid(o)
}

// keepGates leaves in w what from said about its gates: they are asked again anyway.
func keepGates(w WriteNode, from *Record) WriteNode {
	w.Record.Bids, w.Record.Reasons, w.Record.Message = from.Bids, slices.Clone(from.Reasons), from.Message
	return w
}

// survived: after a proven reboot the same sentinel is there. The node bids no more until the sentinel changes or an
// operator acknowledges it.
func survived(o Observation) (Decision, bool) {
	r := o.Record
	if r.Survived == "" {
		return Decision{}, false
	}
	if !o.SentinelKnown {
		return wait("the sentinel survived a reboot, and cannot be read now"), true
	}
	acked := o.Node.Acknowledge != ""
	if o.wish().Fingerprint == r.Survived && !acked {
		return wait("the sentinel survived a reboot; acknowledge it with the annotation kubebaton.io/acknowledge"), true
	}
	if o.Settings == nil {
		return wait("there is no valid configuration"), true
	}
	if !o.fresh(o.Gates.At, lastCheckAge) {
		return do(AskGates{}), true
	}
	why := ReasonSentinel
	if acked {
		why = ReasonAcknowledged
	}
	w := begin(o, Waiting, why)
	w.ClearAcknowledge = acked
	return do(w), true
}

// noConfig: a node that has not begun to go down waits for a configuration, and keeps no slot meanwhile.
func noConfig(o Observation, holds bool, s Slot) Decision {
	if holds {
		return do(FreeSlot{s})
	}
	if o.Record.Bids {
		n := o.Record.clone()
		n.Bids, n.Reasons, n.Message = false, []Reason{ReasonConfig}, "there is no valid configuration"
		return do(WriteNode{Record: n})
	}
	return wait("there is no valid configuration")
}

// bid keeps the published gates true and takes the slot that is offered.
func bid(o Observation) Decision {
	n := o.Record.clone()
	news := n.setGates(o)
	if !n.Until.IsZero() {
		if !o.passed(o.Due.Until) {
			return wait("a person uncordoned the node: no bid yet", o.Due.Until)
		}
		n.Until, news = time.Time{}, true
	}
	if n.Yield {
		n.Yield, n.Slot, news = false, "", true
	}
	if w := o.wish(); w.Source != "" && w.Fingerprint != n.Sentinel.Fingerprint {
		n.setWish(w)
		news = true
	}
	if news {
		return do(WriteNode{Record: n})
	}
	s, offered := o.nominated()
	switch {
	case offered && !o.fresh(o.Gates.At, lastCheckAge):
		return do(AskGates{})
	case offered && (len(n.Reasons) > 0 || s.Group != o.Group):
		return do(DeclineSlot{s})
	case offered:
		return do(TakeSlot{s, claim(o)})
	case n.Bids:
		return wait("waits for a slot", o.Gates.Until, o.Window.Next)
	}
	return wait(n.Message, o.Gates.Until, o.Window.Next)
}

// cordon is the step from Waiting to Draining with a slot in hand.
func cordon(o Observation, s Slot) Decision {
	r := o.Record.clone()
	switch {
	case len(o.closed()) > 0 || s.Group != o.Group:
		return do(FreeSlot{s})
	case o.Leading:
		return do(Resign{})
	}
	r.Cordon = CordonBaton
	if o.Node.Unschedulable {
		r.Cordon = CordonForeign
	}
	if s.Cordon != r.Cordon {
		// The second write on the slot proves that it outlived the take: a Lease that is deleted by hand at the very
		// moment of the take can vanish in spite of the finalizer.
		c := claim(o)
		c.Cordon = r.Cordon
		return do(RenewSlot{s, c})
	}
	r.Slot, r.Group, r.Until = s.Name, s.Group, time.Time{}
	r.Pods, r.Allocatable = slices.Clone(o.Gates.Ready), o.Node.Allocatable
	r.Request = o.Node.Request
	r.Settings = *o.Settings
	r.Deadline = o.Now.Add(r.Settings.DrainTimeout)
	w := o.enter(r, Draining, ReasonSlot, "holds "+s.Name)
	w.ClearAcknowledge = true // it was meant for something that is over
	if r.Cordon == CordonBaton {
		on := true
		w.Cordon = &on
	}
	return do(w)
}

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

// mayEvict tells whether the drain may go on at this moment. When it may not, the phase cannot always be left at once:
// the slot and the cordon are kept while a shutdown may be coming.
func mayEvict(o Observation) bool {
	if !o.Exists || o.Node.Deleting || o.Record == nil || o.Record.Phase != Draining || o.Record.BootID != o.Boot {
		return false
	}
	s, holds := o.held()
	_, vetoed := veto(o, s, holds)
	_, stopped := stops(o.closed())
	return !vetoed && !stopped
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
	if s.Cordon != r.Cordon || !o.fresh(s.Renewed, heartbeat) {
		return do(RenewSlot{s, claim(o)})
	}
	switch {
	case o.Settings == nil:
		return o.undo(ReasonConfig, "there is no valid configuration")
	case o.gatesDue():
		return do(AskGates{})
	}
	if c, ok := stops(o.closed()); ok {
		return o.undo(c.Reason, c.Message)
	}
	switch {
	case o.Drain.Empty:
		n := r.clone()
		n.Down, n.Deadline = o.Now, time.Time{}
		if w := o.wish(); w.Source != "" {
			n.setWish(w) // the reboot is for what is there now
		}
		return do(o.enter(n, Rebooting, ReasonDrained, "the node is drained"))
	case o.passed(o.Due.Deadline):
		return o.backoff(drainReason(o.Drain), "the drain took longer than "+r.Settings.DrainTimeout.String()+": "+o.Drain.Message)
	case !o.Drain.Running:
		return do(StartDrain{r.Settings.drain()})
	}
	return wait("drains: "+o.Drain.Message, o.Due.Deadline, s.Renewed.Add(heartbeat), o.Gates.Until, o.Window.Next)
}

func (o Observation) gatesDue() bool {
	return o.Gates.At.IsZero() || !o.Now.Before(o.Gates.Until) || o.Now.Before(o.Gates.At)
}

// stops returns the first closed gate that stops a cycle under way: one that was asked and said no. The pods are the
// drain's own business by then, and the group is the slot's.
func stops(closed []Closed) (Closed, bool) {
	own := []Reason{ReasonUnmanagedPod, ReasonBlockingPod, ReasonGroup}
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
	if !o.fresh(o.Gates.At, lastCheckAge) {
		return do(AskGates{})
	}
	return lastGates(o, s)
}

// lastGates: every gate was asked just now. One that cannot be asked is waited for, but not for ever.
func lastGates(o Observation, s Slot) Decision {
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
	n.Reasons, n.Message = []Reason{why}, bounded(message)
	return do(WriteNode{Record: n})
}

// verify is the step into Verifying.
func verify(o Observation, why Reason, message string) WriteNode {
	r := o.Record.clone()
	r.NewBootID, r.Healthy = o.Boot, time.Time{}
	r.Deadline = o.Now.Add(r.Settings.VerifyTimeout)
	if r.Down.IsZero() {
		r.Down = r.Since
	}
	return o.enter(r, Verifying, why, message)
}

// verifying: the host came back on another boot. The node is given back when everything is as it was.
func verifying(o Observation) Decision {
	r := o.Record
	if r.NewBootID != o.Boot {
		n := r.clone()
		n.NewBootID, n.Healthy, n.Deadline = o.Boot, time.Time{}, o.Now.Add(r.Settings.VerifyTimeout)
		return do(WriteNode{Record: n})
	}
	s, holds := o.held()
	if holds && !o.fresh(s.Renewed, heartbeat) {
		return do(RenewSlot{s, claim(o)})
	}
	if len(r.Pods) > 0 && !o.Pods.Running {
		return do(AwaitPods{slices.Clone(r.Pods)})
	}
	why := ailing(o)
	if r.Settings.Soak > 0 && (why == "") == r.Healthy.IsZero() {
		n := r.clone()
		n.Healthy = time.Time{}
		if why == "" {
			n.Healthy = o.Now
		}
		return do(WriteNode{Record: n})
	}
	switch {
	case why != "" && o.passed(o.Due.Deadline):
		w := o.enter(r.clone(), Failed, ReasonNotReady, why)
		w.ClearAcknowledge = true // what was acknowledged before is something else
		return do(w)
	case why != "":
		return wait("verifies: "+why, o.Due.Deadline, renewAt(s, holds))
	case r.Settings.Soak > 0 && !o.passed(o.Due.Soaked):
		return wait("soaks", o.Due.Soaked, renewAt(s, holds))
	}
	downtime := max(0, o.Now.Sub(r.Down)).Round(time.Millisecond)
	return do(o.finish(Entry{Result: ReasonRebooted, Downtime: downtime}, ReasonHealthy,
		fmt.Sprintf("rebooted and healthy after %s, boot ID %s, before %s", downtime, o.Boot, r.BootID)))
}

func renewAt(s Slot, holds bool) time.Time {
	if !holds {
		return time.Time{}
	}
	return s.Renewed.Add(heartbeat)
}

// ailing names the first thing that is not as it was before; "" when the node is healthy.
func ailing(o Observation) string {
	r := o.Record
	switch {
	case o.Node.BootID != o.Boot:
		return "the kubelet has not reported the new boot yet"
	case !o.Node.Ready:
		return "the node is not Ready"
	case len(r.Pods) > 0 && !o.Pods.Known:
		return "the node's own pods are not known yet"
	case len(o.Pods.Missing) > 0:
		return "not Ready as before: " + bounded(strings.Join(o.Pods.Missing, ", "))
	}
	for name, before := range r.Allocatable {
		if now := o.Node.Allocatable[name]; now < before && device(name) {
			return fmt.Sprintf("allocatable %s is %d, it was %d", name, now, before)
		}
	}
	return ""
}

// device tells extended resources, which must be as many as before, from those that a new kernel may change by a
// little: those have no domain in their name.
func device(resource string) bool { return strings.Contains(resource, "/") }

// finish is the end of a proven reboot: one write uncordons, drops the record and keeps its history. When the same
// sentinel is there again the record stays, and says so.
func (o Observation) finish(e Entry, why Reason, message string) WriteNode {
	r := o.Record
	e.Cycle, e.At, e.Reason, e.Fingerprint, e.Rebooted = r.Cycle, o.Now.UTC(), r.Sentinel.Source, r.Sentinel.Fingerprint, true
	w := o.end(why, message)
	if fp := o.Sentinel.Fingerprint; o.Sentinel.Source != "" && fp == r.Sentinel.Fingerprint {
		e.Result = ReasonSentinelSurvived
		n := r.clone()
		n.BootID, n.NewBootID, n.Survived, n.Yield, n.Deadline = o.Boot, "", fp, true, time.Time{}
		n.Pods, n.Allocatable = nil, nil
		w = o.enter(n, Waiting, ReasonSentinelSurvived,
			"the same sentinel is there after a proven reboot: no further reboot for "+o.Sentinel.Source)
		n.Bids, n.Reasons, n.Message = false, []Reason{ReasonSentinelSurvived}, w.Move.Message
	}
	h := o.History.with(e)
	w.History = &h
	w.ClearRequest = r.Request != "" && o.Node.Request == r.Request
	w.ClearAcknowledge = true
	if o.Node.Hold != "" { // the person's wish is that it stays cordoned
		if w.Record != nil {
			w.Record.Cordon = CordonNone
		}
		return w
	}
	return o.uncordon(w)
}

// backingOff: an attempt was given up; the next one waits.
func backingOff(o Observation) Decision {
	r := o.Record
	if s, ok := o.held(); ok {
		return do(FreeSlot{s})
	}
	if s, ok := o.unwanted(); ok {
		return do(DeclineSlot{s})
	}
	if s, ok := o.nominated(); ok {
		return do(DeclineSlot{s})
	}
	if r.BootID != o.Boot {
		return o.again(ReasonOtherReboot, "the host was rebooted by somebody else", false)
	}
	if o.wishGone() {
		return do(o.end(ReasonSentinelGone, "no reboot is wanted any more"))
	}
	if o.Node.Acknowledge != "" {
		return o.again(ReasonAcknowledged, "acknowledged: "+o.Node.Acknowledge, true)
	}
	if !o.passed(o.Due.Until) {
		return wait("backs off", o.Due.Until)
	}
	return o.again(ReasonBackoff, "the delay is over", false)
}

// again starts the next attempt of the cycle. The gates are asked before it bids.
func (o Observation) again(why Reason, message string, acked bool) Decision {
	n := o.Record.clone()
	n.Attempt++
	n.BootID, n.Slot, n.Yield, n.Until, n.Down = o.Boot, "", false, time.Time{}, time.Time{}
	w := o.enter(n, Waiting, why, message)
	n.Bids, n.Reasons, n.Message = false, nil, ""
	w.ClearAcknowledge = acked
	return do(w)
}

// failed: the node came back and did not become as it was. People look at it; it keeps slot and cordon.
func failed(o Observation) Decision {
	r := o.Record
	if o.Node.Acknowledge != "" {
		return do(o.finish(Entry{Result: ReasonNotReady}, ReasonAcknowledged, "acknowledged: "+o.Node.Acknowledge))
	}
	if r.NewBootID != o.Boot {
		return do(verify(o, ReasonOtherReboot, "the host was rebooted again"))
	}
	if s, ok := o.held(); ok && !o.fresh(s.Renewed, heartbeat) {
		return do(RenewSlot{s, claim(o)})
	}
	if len(r.Pods) > 0 && !o.Pods.Running {
		return do(AwaitPods{slices.Clone(r.Pods)})
	}
	if why := ailing(o); why != "" {
		s, holds := o.held()
		return wait("failed: "+why, renewAt(s, holds))
	}
	return do(verify(o, ReasonHealthy, "everything is as before now"))
}
