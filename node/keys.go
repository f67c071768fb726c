package node

import corev1 "k8s.io/api/core/v1"

// Annotations, labels and taints on Nodes. docs/annotations.md lists the same keys for people.
const (
	// AnnotationRecord is the state of the cycle, JSON, written by the node's agent.
	AnnotationRecord = "kubebaton.io/reboot"
	// AnnotationHistory is what outlives a cycle: the last proven reboots, JSON, at most 20 and 4 KB, written by the node's agent.
	AnnotationHistory = "kubebaton.io/history"
	// AnnotationHold keeps a node from being rebooted and uncordoned; the value is the reason. Written by people.
	AnnotationHold = "kubebaton.io/hold"
	// AnnotationRequest asks for a reboot without a sentinel on the host; the value is the reason. Written by people,
	// removed by the agent.
	AnnotationRequest = "kubebaton.io/request"
	// AnnotationAcknowledge accepts a failed node as it is, ends a backoff now, and lets a sentinel that survived its reboot be tried
	// again; the value is the reason. Written by people, removed by the agent.
	AnnotationAcknowledge = "kubebaton.io/acknowledge"
	// AnnotationEviction, on a pod, says what becomes of it in a drain: evict, wait, ride-through or block. Written by the pod's
	// owner.
	AnnotationEviction = "kubebaton.io/eviction"
	// LabelPhase is the phase of the cycle in lower case, absent while there is no cycle. Written by the node's agent.
	LabelPhase = "kubebaton.io/phase"
	// TaintPending makes the scheduler prefer nodes that are not about to be rebooted. Its effect is PreferNoSchedule,
	// it has no value. Written by the node's agent.
	TaintPending = "kubebaton.io/reboot-pending"
)

// Annotations of other controllers, by which they are kept from removing the node while it is down. Written by the node's
// agent where they are absent, and taken off when the node is back.
const (
	AnnotationScaleDownDisabled = "cluster-autoscaler.kubernetes.io/scale-down-disabled" // cluster-autoscaler
	AnnotationDoNotDisrupt      = "karpenter.sh/do-not-disrupt"                          // Karpenter
	shieldValue                 = "true"

	annotationSafeToEvict = "cluster-autoscaler.kubernetes.io/safe-to-evict" // on a pod: "false" keeps its node

	// LabelExclude keeps a cloud's load balancers from sending to the node. The same holds for it.
	LabelExclude = corev1.LabelNodeExcludeBalancers

	// AnnotationShields lists those of the three that the node's agent wrote, separated by commas.
	AnnotationShields = "kubebaton.io/shields"
)

func shieldKeys() []string {
	return []string{AnnotationScaleDownDisabled, AnnotationDoNotDisrupt, LabelExclude}
}

// removalTaints are those of controllers that have decided to remove the node.
func removalTaints() []string {
	return []string{"ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted", "karpenter.sh/disruption"}
}

// noReason stands for the empty value of an annotation that people set: it is there, and that is what counts.
const noReason = "no reason given"
