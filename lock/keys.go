package lock

import "kubebaton.io/baton/kube"

// Keys on a slot Lease. The API server gives them no meaning; docs/ mirrors this list.
const (
	// LabelGroup names the group whose node the slot lets go down. Written once, by the marshal that creates the slot.
	LabelGroup = "kubebaton.io/group"
	// LabelNominee is the UID of the Node that may take the slot, and of its holder while it is held. Written by the
	// marshal, removed by the nominee.
	LabelNominee = "kubebaton.io/nominee"
	// LabelNode is a hash of the name of the nominee's or holder's node, by which its agent finds the slot; the name itself may be
	// longer than a label's value. Written with the nomination, and removed with it or with the claim. On the Lease `marshal` it
	// names the node that is to stand for election, or is [kube.NoNode].
	LabelNode = kube.LabelNode

	// The nomination, written by the marshal: the nominee's name for people, the bid it answers, and its end (RFC 3339).
	AnnotationNomineeNode = "kubebaton.io/nominee-node"
	AnnotationBidCycle    = "kubebaton.io/bid-cycle"
	AnnotationBidAttempt  = "kubebaton.io/bid-attempt"
	AnnotationBidUntil    = "kubebaton.io/bid-until"

	// The claim, written by the holder: what is needed to rebuild a lost record.
	AnnotationNodeUID  = "kubebaton.io/node-uid"
	AnnotationCycle    = "kubebaton.io/cycle"
	AnnotationAttempt  = "kubebaton.io/attempt"
	AnnotationBootID   = "kubebaton.io/boot-id"
	AnnotationCordon   = "kubebaton.io/cordon"
	AnnotationInstance = "kubebaton.io/instance"

	// AnnotationHold stops the nominee or holder; its value is the reason. Written by the marshal.
	AnnotationHold = "kubebaton.io/hold"
	// AnnotationRelease asks the holder to back off and free the slot; its value is the reason. Written by people.
	AnnotationRelease = "kubebaton.io/release"

	// FinalizerHeld keeps a held Lease in being until it is freed.
	FinalizerHeld = "kubebaton.io/held"

	// MarshalLease is the election's Lease. It lives beside the slots and is none.
	MarshalLease = "marshal"

	slotPrefix = "slot-"
	noReason   = "no reason given"
)
