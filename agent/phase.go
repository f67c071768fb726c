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

// down tells whether the node is, or may be, down: other controllers are kept from removing it.
func (p Phase) down() bool {
	return slices.Contains([]Phase{Draining, Rebooting, Verifying, Failed}, p)
}

// Reason says why a cycle moved or waits. It is the same word in record, Event, metric and log.
type Reason string

// The closed set of reasons; [meanings] says what each means.
const (
	ReasonSentinel         Reason = "sentinel"
	ReasonSentinelGone     Reason = "sentinel-gone"
	ReasonSentinelSurvived Reason = "sentinel-survived"
	ReasonSentinelUnknown  Reason = "sentinel-unknown"
	ReasonLastCheck        Reason = "last-check"
	ReasonAPI              Reason = "api"
	ReasonBudget           Reason = "budget"
	ReasonHalted           Reason = "halted"
	ReasonRestored         Reason = "restored"
	ReasonAfter            Reason = "after"
	ReasonZone             Reason = "zone"
	ReasonCanary           Reason = "canary"
	ReasonSlot             Reason = "slot"
	ReasonSlotLost         Reason = "slot-lost"
	ReasonRelease          Reason = "release"
	ReasonWindow           Reason = "window"
	ReasonPaused           Reason = "paused"
	ReasonHold             Reason = "hold"
	ReasonUncordoned       Reason = "uncordoned"
	ReasonGroup            Reason = "group"
	ReasonClock            Reason = "clock"
	ReasonConfig           Reason = "config"
	ReasonOtherRebooter    Reason = "other-rebooter"
	ReasonRemoval          Reason = "removal"
	ReasonInhibitor        Reason = "inhibitor"
	ReasonUnmanagedPod     Reason = "unmanaged-pod"
	ReasonPDB              Reason = "pdb"
	ReasonTerminating      Reason = "terminating"
	ReasonPodAnnotation    Reason = "pod-annotation"
	ReasonRule             Reason = "rule"
	ReasonLocalVolume      Reason = "local-volume"
	ReasonEmptyDir         Reason = "empty-dir"
	ReasonJob              Reason = "job"
	ReasonAge              Reason = "age"
	ReasonVolume           Reason = "volume"
	ReasonLoadBalancer     Reason = "load-balancer"
	ReasonEviction         Reason = "eviction"
	ReasonHook             Reason = "hook"
	ReasonDrained          Reason = "drained"
	ReasonRefused          Reason = "refused"
	ReasonRebootSlow       Reason = "reboot-slow"
	ReasonNoReboot         Reason = "no-reboot"
	ReasonRebooted         Reason = "rebooted"
	ReasonOtherReboot      Reason = "other-reboot"
	ReasonNotReady         Reason = "not-ready"
	ReasonRebootLimit      Reason = "reboot-limit"
	ReasonBackoff          Reason = "backoff"
	ReasonAcknowledged     Reason = "acknowledged"
	ReasonHealthy          Reason = "healthy"
	ReasonRecordLost       Reason = "record-lost"
	ReasonRecord           Reason = "record"
	ReasonRemoved          Reason = "removed"
)

// meanings says of each reason what it means, for the documentation.
func meanings() map[Reason]string {
	return map[Reason]string{
		ReasonSentinel:         "the host wants a reboot",
		ReasonSentinelGone:     "it wants none any more",
		ReasonSentinelSurvived: "the same sentinel is there after a proven reboot",
		ReasonSentinelUnknown:  "whether the host wants a reboot cannot be read",
		ReasonLastCheck:        "the last check before the reboot could not be made in time",
		ReasonAPI:              "the API server cannot be asked what has to be known",
		ReasonBudget:           "as many nodes of the group as may be are unavailable; said by the marshal",
		ReasonHalted:           "failed nodes halt the group; said by the marshal, and on the slots",
		ReasonAfter:            "nodes of other groups go first; said by the marshal",
		ReasonZone:             "the nodes of another zone go first; said by the marshal",
		ReasonCanary:           "a canary goes first, or has not been back for long enough; said by the marshal",
		ReasonRestored:         "the API server was restored from a backup just now; said by the marshal",
		ReasonSlot:             "waits for a slot; or: the slot was taken",
		ReasonSlotLost:         "the slot is not this node's any more",
		ReasonRelease:          "an operator asked for the slot",
		ReasonWindow:           "outside every window, or in a blackout",
		ReasonPaused:           "people paused the rollout",
		ReasonHold:             "people hold this node, or the marshal its group",
		ReasonUncordoned:       "a person uncordoned the node during the drain",
		ReasonGroup:            "the node is in no group, or not in the slot's",
		ReasonClock:            "the clock is more than a minute off the API server's",
		ReasonConfig:           "there is no valid configuration; or: the group by whose rules the node was drained is in it no more",
		ReasonOtherRebooter:    "another tool on the host reboots it too",
		ReasonRemoval:          "another controller removes the node from the cluster",
		ReasonInhibitor:        "a program on the host blocks shutdown",
		ReasonUnmanagedPod:     "a pod without a controller would be lost",
		ReasonPDB:              "a PodDisruptionBudget lets no pod go",
		ReasonTerminating:      "a pod is past its grace period and does not end",
		ReasonPodAnnotation:    "an annotation of a pod keeps it on the node",
		ReasonRule:             "a rule of the configuration keeps a pod on the node",
		ReasonLocalVolume:      "a volume binds a pod to the node",
		ReasonEmptyDir:         "a pod keeps data in an emptyDir",
		ReasonJob:              "a pod of a Job is awaited",
		ReasonAge:              "a pod has not run for long enough",
		ReasonVolume:           "volumes of pods that have ended are still on the node",
		ReasonLoadBalancer:     "load balancers are given time to leave the node",
		ReasonEviction:         "pods were asked to go and are not gone yet",
		ReasonHook:             "a hook of the host has not succeeded",
		ReasonDrained:          "the node is empty",
		ReasonRefused:          "the host refused the reboot",
		ReasonRebootSlow:       "the reboot was asked for and is not there yet",
		ReasonNoReboot:         "the host proves that the accepted reboot does not come",
		ReasonRebooted:         "the boot ID is new",
		ReasonOtherReboot:      "the boot ID is new and Baton had not asked",
		ReasonNotReady:         "the node is not as ready as it was before",
		ReasonRebootLimit:      "the node was rebooted too often in 24 hours",
		ReasonBackoff:          "waits for the delay to pass; or: it passed",
		ReasonAcknowledged:     "an operator acknowledged the failure",
		ReasonHealthy:          "everything is as before",
		ReasonRecordLost:       "the record was rebuilt from the slot",
		ReasonRecord:           "the record cannot be read by this version",
		ReasonRemoved:          "Baton is being removed from the cluster",
	}
}

// Known tells whether r is of the closed set.
func (r Reason) Known() bool { return meanings()[r] != "" }

// move is one edge of the cycle.
type move struct{ From, To Phase }

// moves is the whole cycle: every edge, and what may cause it. A transition that is not here is a bug, and is refused
// before anything is written.
func moves() map[move][]Reason {
	// Reasons to go back to Waiting without counting an attempt: nothing is wrong with the node, it is not the time.
	undone := []Reason{
		ReasonSentinelGone, ReasonHold, ReasonUncordoned, ReasonWindow, ReasonPaused, ReasonClock, ReasonOtherRebooter,
		ReasonInhibitor, ReasonRebootLimit, ReasonConfig, ReasonRemoved, ReasonRemoval,
	}
	return map[move][]Reason{
		{Idle, Waiting}:   {ReasonSentinel, ReasonSentinelSurvived},
		{Idle, Rebooting}: {ReasonRecordLost},

		{Waiting, Waiting}:  {ReasonSentinel, ReasonOtherReboot, ReasonAcknowledged},
		{Waiting, Idle}:     {ReasonSentinelGone, ReasonRemoved},
		{Waiting, Draining}: {ReasonSlot},

		{Draining, Rebooting}: {ReasonDrained},
		{Draining, Verifying}: {ReasonOtherReboot},
		{Draining, Waiting}:   undone,
		{Draining, Backoff}: {
			ReasonEviction, ReasonPDB, ReasonUnmanagedPod, ReasonTerminating, ReasonPodAnnotation, ReasonRule, ReasonLocalVolume,
			ReasonEmptyDir, ReasonJob, ReasonAge, ReasonVolume, ReasonLoadBalancer,
			ReasonSlotLost, ReasonRelease, ReasonHook,
		},

		{Rebooting, Verifying}: {ReasonRebooted},
		{Rebooting, Waiting}:   undone,
		{Rebooting, Backoff}: {
			ReasonInhibitor, ReasonRefused, ReasonNoReboot, ReasonSlotLost, ReasonRelease, ReasonRecordLost, ReasonLastCheck,
		},

		{Verifying, Idle}:    {ReasonHealthy},
		{Verifying, Waiting}: {ReasonSentinelSurvived},
		{Verifying, Failed}:  {ReasonNotReady, ReasonHook},

		{Backoff, Waiting}: {ReasonBackoff, ReasonOtherReboot, ReasonAcknowledged},
		{Backoff, Idle}:    {ReasonSentinelGone, ReasonRemoved},

		{Failed, Verifying}: {ReasonHealthy, ReasonOtherReboot},
		{Failed, Idle}:      {ReasonAcknowledged},
		{Failed, Waiting}:   {ReasonSentinelSurvived},
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
