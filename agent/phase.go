package agent

import "slices"

// Phase is where a cycle stands. The zero value is Idle: no record, no label.
type Phase string

// The phases, in the order in which a cycle without trouble goes through them.
const (
	Idle      Phase = "Idle"
	Waiting   Phase = "Waiting"
	Draining  Phase = "Draining"
	Rebooting Phase = "Rebooting"
	Verifying Phase = "Verifying"
	Backoff   Phase = "Backoff"
	Failed    Phase = "Failed"
)

// Reason says why a cycle moved or waits. It is the same word in record, Event, metric and log.
type Reason string

// The closed set of reasons.
const (
	ReasonSentinel         Reason = "sentinel"          // the host wants a reboot
	ReasonSentinelGone     Reason = "sentinel-gone"     // it wants none any more
	ReasonSentinelSurvived Reason = "sentinel-survived" // the same sentinel is there after a proven reboot
	ReasonSlot             Reason = "slot"              // waits for a slot; or: the slot was taken
	ReasonSlotLost         Reason = "slot-lost"         // the slot is not this node's any more
	ReasonRelease          Reason = "release"           // an operator asked for the slot
	ReasonWindow           Reason = "window"            // outside every window, or in a blackout
	ReasonPaused           Reason = "paused"            // people paused the rollout
	ReasonHold             Reason = "hold"              // people hold this node, or the marshal its group
	ReasonUncordoned       Reason = "uncordoned"        // a person uncordoned the node during the drain
	ReasonGroup            Reason = "group"             // the node is in no group, or not in the slot's
	ReasonClock            Reason = "clock"             // the clock is more than a minute off the API server's
	ReasonConfig           Reason = "config"            // there is no valid configuration
	ReasonOtherRebooter    Reason = "other-rebooter"    // another tool on the host reboots it too
	ReasonInhibitor        Reason = "inhibitor"         // a program on the host blocks shutdown
	ReasonUnmanagedPod     Reason = "unmanaged-pod"     // a pod without a controller would be lost
	ReasonBlockingPod      Reason = "blocking-pod"      // a pod says that it must not be moved
	ReasonPDB              Reason = "pdb"               // a PodDisruptionBudget lets no pod go
	ReasonVolume           Reason = "volume"            // a volume is still attached
	ReasonEviction         Reason = "eviction"          // pods were asked to go and are not gone yet
	ReasonDrained          Reason = "drained"           // the node is empty
	ReasonRefused          Reason = "refused"           // the host refused the reboot
	ReasonRebootSlow       Reason = "reboot-slow"       // the reboot was asked for and is not there yet
	ReasonNoReboot         Reason = "no-reboot"         // the host proves that the accepted reboot does not come
	ReasonRebooted         Reason = "rebooted"          // the boot ID is new
	ReasonOtherReboot      Reason = "other-reboot"      // the boot ID is new and Baton had not asked
	ReasonNotReady         Reason = "not-ready"         // the node is not as ready as it was before
	ReasonRebootLimit      Reason = "reboot-limit"      // the node was rebooted too often in 24 hours
	ReasonBackoff          Reason = "backoff"           // waits for the delay to pass; or: it passed
	ReasonAcknowledged     Reason = "acknowledged"      // an operator acknowledged the failure
	ReasonHealthy          Reason = "healthy"           // everything is as before
	ReasonRecordLost       Reason = "record-lost"       // the record was rebuilt from the slot
	ReasonRecord           Reason = "record"            // the record cannot be read by this version
)

// move is one edge of the cycle.
type move struct{ From, To Phase }

// moves is the whole cycle: every edge, and what may cause it. A transition that is not here is a bug, and is refused
// before anything is written.
func moves() map[move][]Reason {
	// Reasons to go back to Waiting without counting an attempt: nothing is wrong with the node, it is not the time.
	undone := []Reason{
		ReasonSentinelGone, ReasonHold, ReasonUncordoned, ReasonWindow, ReasonPaused, ReasonClock, ReasonGroup,
		ReasonOtherRebooter, ReasonInhibitor, ReasonUnmanagedPod, ReasonBlockingPod, ReasonRebootLimit, ReasonConfig,
	}
	return map[move][]Reason{
		{Idle, Waiting}:   {ReasonSentinel},
		{Idle, Rebooting}: {ReasonRecordLost},

		{Waiting, Waiting}:  {ReasonSentinel, ReasonOtherReboot, ReasonAcknowledged},
		{Waiting, Idle}:     {ReasonSentinelGone},
		{Waiting, Draining}: {ReasonSlot},

		{Draining, Rebooting}: {ReasonDrained},
		{Draining, Verifying}: {ReasonOtherReboot},
		{Draining, Waiting}:   undone,
		{Draining, Backoff}: {
			ReasonEviction, ReasonPDB, ReasonUnmanagedPod, ReasonBlockingPod, ReasonVolume, ReasonSlotLost, ReasonRelease,
		},

		{Rebooting, Verifying}: {ReasonRebooted},
		{Rebooting, Waiting}:   undone,
		{Rebooting, Backoff}: {
			ReasonInhibitor, ReasonRefused, ReasonNoReboot, ReasonSlotLost, ReasonRelease, ReasonRecordLost,
		},

		{Verifying, Idle}:    {ReasonHealthy},
		{Verifying, Waiting}: {ReasonSentinelSurvived},
		{Verifying, Failed}:  {ReasonNotReady},

		{Backoff, Waiting}: {ReasonBackoff, ReasonOtherReboot, ReasonAcknowledged},
		{Backoff, Idle}:    {ReasonSentinelGone},

		{Failed, Verifying}: {ReasonHealthy, ReasonOtherReboot},
		{Failed, Idle}:      {ReasonAcknowledged},
	}
}

// Transition is one move of the cycle, with what people are told about it.
type Transition struct {
	From, To Phase
	Reason   Reason
	Message  string
}

func (t Transition) allowed() bool { return slices.Contains(moves()[move{t.From, t.To}], t.Reason) }

// warns tells whether the move is bad news, which decides the kind of the Event.
func (t Transition) warns() bool {
	switch t.To {
	case Backoff, Failed:
		return true
	case Idle, Waiting, Draining, Rebooting, Verifying:
		return t.Reason == ReasonSentinelSurvived || t.Reason == ReasonRecordLost || t.Reason == ReasonOtherReboot
	}
	return true
}
