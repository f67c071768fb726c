package agent

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

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
	if o.Node.Phase != "" || o.Node.Tainted || o.Node.Shields != "" {
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
	if o.Sentinel.Source != "" && o.History.served(o.Sentinel.Fingerprint, o.Now) {
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
		r.setWish(o.wish(), o.Now)
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
	r.setWish(w, o.Now)
	r.setGates(o)
	message := fmt.Sprintf("%s wants a reboot: %s", w.Source, orNone(w.Reason))
	if why == ReasonSentinelSurvived {
		message = "the node was rebooted for the same sentinel within the last hour: no further reboot for " + w.Source
		r.Survived = w.Fingerprint
		r.because(why, message)
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

// setWish takes over what the host wants now. A change is a younger wish, that canaries have to try, and keeps its turn.
func (r *Record) setWish(w Sentinel, now time.Time) {
	if before := r.Sentinel.Fingerprint; before != "" && w.Fingerprint != before {
		r.Wished = now
	}
	r.Sentinel.Source, r.Sentinel.Reason, r.Sentinel.Fingerprint = w.Source, bounded(w.Reason), w.Fingerprint
}

// setGates writes the closed gates into the record; a bid stands when there is none. It tells whether that is news.
func (r *Record) setGates(o Observation) bool {
	was := r.clone()
	var reasons []Reason
	var says []string
	bids := true
	for _, c := range o.closed() {
		if !slices.Contains(reasons, c.Reason) {
			reasons = append(reasons, c.Reason)
		}
		says = append(says, fmt.Sprintf("%s: %s", c.Reason, c.Message))
		bids = bids && c.Advised
	}
	if len(reasons) == 0 {
		reasons, says = []Reason{ReasonSlot}, []string{"waits for its turn"}
		if len(r.Warnings) > 0 {
			says[0] += " after nodes without warnings: " + strings.Join(r.Warnings, "; ")
		}
		says = append(says, "who is before it, and why, stands in annotation kubebaton.io/waiting."+o.Group+" of Lease marshal")
	}
	r.Reasons, r.Message, r.Bids = reasons, bounded(strings.Join(says, "; ")), bids
	r.Group = o.Group
	if o.Settings != nil {
		r.Settings = *o.Settings
	}
	return r.Bids != was.Bids || !slices.Equal(r.Reasons, was.Reasons) || r.Group != was.Group
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
		n.because(ReasonConfig, "there is no valid configuration")
		return do(WriteNode{Record: n})
	}
	return wait("there is no valid configuration")
}

// bid takes the slot that is offered, once what the record says of the node's wish and gates is true.
func bid(o Observation) Decision {
	if !o.Record.Until.IsZero() && !o.passed(o.Due.Until) {
		return wait("a person uncordoned the node: no bid yet", o.Due.Until)
	}
	n, news := published(o)
	if news {
		return do(WriteNode{Record: n})
	}
	s, offered := o.nominated()
	switch {
	case offered && (!o.fresh(o.Gates.At, lastCheckAge) || !o.Gates.Preflight):
		return do(AskGates{})
	case offered && (len(o.closed()) > 0 || s.Group != o.Group):
		return do(DeclineSlot{s})
	case offered:
		return do(TakeSlot{s, claim(o)})
	case n.Bids:
		return wait("waits for a slot", o.Gates.Until, o.Window.Next)
	}
	return wait(n.Message, o.Gates.Until, o.Window.Next)
}

// published is the record as it should be while the node waits; it tells whether that is news.
func published(o Observation) (n *Record, news bool) {
	n = o.Record.clone()
	warned := n.setWarnings(o)
	news = n.setGates(o) || warned
	if !n.Until.IsZero() {
		n.Until, news = time.Time{}, true
	}
	if n.Yield {
		n.Yield, n.Slot, news = false, "", true
	}
	if w := o.wish(); w.Source != "" && w.Fingerprint != n.Sentinel.Fingerprint {
		n.setWish(w, o.Now)
		news = true
	}
	return n, news
}

// setWarnings writes what the preflight has found, when there was none before or is none any more. The first time the bid is
// made anew, which leaves the slot that was offered to a node without warnings; offered again, the node goes.
func (r *Record) setWarnings(o Observation) (news bool) {
	if !o.Gates.Preflight || (len(o.Gates.Warnings) > 0) == (len(r.Warnings) > 0) {
		return false
	}
	if len(r.Warnings) == 0 {
		r.Attempt++
	}
	r.Warnings = warnings(o.Gates.Warnings)
	return true
}

// maxWarnings is how many the record keeps.
const maxWarnings = 3

func warnings(all []string) []string {
	var kept []string
	for _, w := range all[:min(len(all), maxWarnings)] {
		kept = append(kept, bounded(w))
	}
	return kept
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
	r.Slot, r.Group, r.Until, r.Stays = s.Name, s.Group, time.Time{}, false
	r.HookRun++
	r.Pods, r.Allocatable = slices.Clone(o.Gates.Ready), o.Node.Allocatable
	if o.Gates.Preflight {
		r.Warnings = warnings(o.Gates.Warnings)
	}
	r.Request = o.Node.Request
	r.Settings = *o.Settings
	r.Cordoned, r.Deadline = o.Now, o.Now.Add(r.Settings.DrainTimeout)
	w := o.enter(r, Draining, ReasonSlot, "holds "+s.Name)
	w.ClearAcknowledge = true // it was meant for something that is over
	if r.Cordon == CordonBaton {
		on := true
		w.Cordon = &on
	}
	return do(w)
}

func (o Observation) gatesDue() bool {
	return o.Gates.At.IsZero() || !o.Now.Before(o.Gates.Until) || o.Now.Before(o.Gates.At)
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
