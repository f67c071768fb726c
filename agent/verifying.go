package agent

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// verify is the step into Verifying.
func verify(o Observation, why Reason, message string) WriteNode {
	r := o.Record.clone()
	r.NewBootID, r.Healthy, r.Until, r.Backoffs = o.Boot, time.Time{}, time.Time{}, 0
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
		n.NewBootID, n.Healthy, n.Until, n.Deadline = o.Boot, time.Time{}, time.Time{}, o.Now.Add(r.Settings.VerifyTimeout)
		return do(WriteNode{Record: n})
	}
	s, holds := o.held()
	if d, ok := keepWatch(o, s, holds); ok {
		return d
	}
	if up(o) {
		switch d, ok := o.postHooks(o.Due.Deadline, renewAt(o, s, holds)); {
		case !ok && o.passed(o.Due.Deadline):
			return fail(o, ReasonHook, o.hooksLate("verify.timeout", r.Settings.VerifyTimeout))
		case !ok:
			return d
		}
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
		return fail(o, ReasonNotReady, why)
	case why != "":
		return wait("verifies: "+why, o.Due.Deadline, renewAt(o, s, holds))
	case r.Settings.Soak > 0 && !o.passed(o.Due.Soaked):
		return wait("soaks", o.Due.Soaked, renewAt(o, s, holds))
	}
	healthy := o.Now
	if !r.Healthy.IsZero() {
		healthy = r.Healthy // the soak is not downtime
	}
	downtime := max(0, healthy.Sub(r.Down)).Round(time.Millisecond)
	e := Entry{Result: ReasonRebooted, Downtime: downtime}
	if !r.Cordoned.IsZero() {
		e.Took = max(0, o.Now.Sub(r.Cordoned)).Round(time.Millisecond)
	}
	return do(o.finish(e, ReasonHealthy,
		fmt.Sprintf("rebooted and healthy after %s, boot ID %s, before %s", downtime, o.Boot, r.BootID)))
}

// keepWatch renews the heartbeat of the slot and has the node's own pods watched; false when neither is due.
func keepWatch(o Observation, s Slot, holds bool) (Decision, bool) {
	if holds && !o.beats(s) {
		return do(RenewSlot{s, claim(o)}), true
	}
	if pods := o.Record.Pods; len(pods) > 0 && !o.Pods.Running {
		return do(AwaitPods{slices.Clone(pods)}), true
	}
	return Decision{}, false
}

// fail is the end of the patience.
func fail(o Observation, why Reason, message string) Decision {
	w := o.enter(o.Record.clone(), Failed, why, message)
	w.ClearAcknowledge = true // what was acknowledged before is something else
	return do(w)
}

func renewAt(o Observation, s Slot, holds bool) time.Time {
	if !holds {
		return time.Time{}
	}
	return o.nextBeat(s)
}

// up tells whether the kubelet runs on this boot, and says that the node is Ready.
func up(o Observation) bool { return o.Node.BootID == o.Boot && o.Node.Ready }

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
	e.Evicted, e.Wished = r.Evicted, r.wished().UTC()
	w := o.end(why, message)
	if fp := o.Sentinel.Fingerprint; o.Sentinel.Source != "" && fp == r.Sentinel.Fingerprint {
		e.Result = ReasonSentinelSurvived
		n := r.clone()
		n.BootID, n.NewBootID, n.Survived, n.Yield, n.Deadline = o.Boot, "", fp, true, time.Time{}
		n.Pods, n.Allocatable, n.Evicted = nil, nil, 0
		w = o.enter(n, Waiting, ReasonSentinelSurvived,
			"the same sentinel is there after a proven reboot: no further reboot for "+o.Sentinel.Source)
		n.because(ReasonSentinelSurvived, w.Move.Message)
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

// failed: the node came back and did not become as it was. People look at it; it keeps slot and cordon.
func failed(o Observation) Decision {
	r := o.Record
	if o.Node.Acknowledge != "" {
		return do(o.finish(Entry{Result: ReasonNotReady, Downtime: max(0, o.Now.Sub(r.Down)).Round(time.Millisecond)}, ReasonAcknowledged, "acknowledged: "+o.Node.Acknowledge))
	}
	if r.NewBootID != o.Boot {
		return do(verify(o, ReasonOtherReboot, "the host was rebooted again"))
	}
	s, holds := o.held()
	if d, ok := keepWatch(o, s, holds); ok {
		return d
	}
	if up(o) {
		if d, ok := o.postHooks(renewAt(o, s, holds)); !ok {
			return d
		}
	}
	if why := ailing(o); why != "" {
		return wait("failed: "+why, renewAt(o, s, holds))
	}
	return do(verify(o, ReasonHealthy, "everything is as before now"))
}
