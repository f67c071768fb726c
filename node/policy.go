package node

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// What a policy may want for a pod. An unknown word reads as [DoBlock], as that loses nothing.
const (
	DoEvict       = "evict"        // by the Eviction API, and its end is awaited
	DoWait        = "wait"         // its end is awaited, nothing is done to it
	DoRideThrough = "ride-through" // it stays, and comes back with the node; not for pods that would not
	DoBlock       = "block"        // the node does not ask for a slot while it is here
	DoDelete      = "delete"       // of Policy.Do and Policy.Unmanaged: evict, also where nobody re-creates the pod
)

// Whether pods are moved at all. An unknown word reads as [ModeAlways].
const (
	ModeAlways = "always" // before every reboot
	ModeAuto   = "auto"   // not when the node is back before the cluster would move them
	ModeNever  = "never"  // only those that would not come back with the node
)

// Policy says what becomes of pods in a drain. The zero value evicts what somebody re-creates and blocks for the rest.
type Policy struct {
	Mode string // "": always
	// Do is what becomes of each pod, before all that follows; [DoEvict] leaves a pod without a controller to that. "": nothing is said.
	Do           string
	Unmanaged    string // of pods without a controller, which an eviction ends for good, so that it is called [DoDelete]; "": block
	LocalVolumes string // of pods that their volumes bind to this node; "": evict
	EmptyDir     string // of pods that keep data in an emptyDir on disk, which ends with them; "": evict
	Jobs         string // of pods of Jobs; "": evict
	Annotated    string // of pods that tell other tools not to disturb them; "": block
	// JobsFor is how long pods of Jobs are awaited under [DoWait], counted from the drain's beginning; then they are evicted.
	// 0: as long as the drain lasts.
	JobsFor time.Duration
	MinAge  time.Duration // a younger pod is awaited until it is so old
	Rules   []Rule        // for some pods another policy
}

// Rule is for pods by namespace and labels.
type Rule struct {
	Namespaces []string                            // any of them; none: all
	Match      func(labels map[string]string) bool // nil: every pod
	Policy     Policy                              // in place of the one that the rule is part of; its own Mode and Rules are not asked
}

func (r Rule) matches(namespace string, labels map[string]string) bool {
	return (len(r.Namespaces) == 0 || slices.Contains(r.Namespaces, namespace)) && (r.Match == nil || r.Match(labels))
}

// of is the policy that is in force for a pod: that of the first rule for it, else p itself.
func (p Policy) of(pod *corev1.Pod) Policy {
	for _, r := range p.Rules {
		if r.matches(pod.Namespace, pod.Labels) {
			return r.Policy
		}
	}
	return p
}

// Facts are what a plan knows beside the pods. What is not known is left out.
type Facts struct {
	Now   time.Time
	Begun time.Time // of the drain; zero: it has not
	// Ends is why no pod outlives a reboot of this host; "" when pods that are left come back with it.
	Ends string
	// Bound says of a pod, by its UID, which volume binds it to this node.
	Bound map[string]string
	// Unread says of a pod, by its UID, why it is not known whether a volume does. It then counts as bound where that matters.
	Unread map[string]string
	// Downtimes are those of earlier reboots of this node, in no order.
	Downtimes []time.Duration
	Alone     bool // there is no other node
	// Hindrance is why no reboot of this node is quick now; "" nothing is.
	Hindrance string
	// Short says of a pod, by its UID, why its disruption budget does not let all of its pods on this node be away at once.
	Short map[string]string
	// Elsewhere counts the ready pods on other nodes by the UID of their controller.
	Elsewhere map[string]int
}
