package node

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What a drain does with a pod.
const (
	DecisionIgnore      = "ignore"       // it belongs to the node, or is over: it is not in the way
	DecisionEvict       = "evict"        // it is evicted and its end awaited
	DecisionRideThrough = "ride-through" // it stays and comes back with the node
	DecisionWait        = "wait"         // its end is awaited, nothing is done to it
	DecisionBlock       = "block"        // the node may not be drained while it is here
)

// Values of [DrainSettings.UnmanagedPods]: what becomes of a pod without a controller, which nobody re-creates.
const (
	UnmanagedBlock       = "block"
	UnmanagedWait        = "wait"
	UnmanagedRideThrough = "ride-through"
	UnmanagedDelete      = "delete"
)

// Reasons of a [PodPlan] and of a [DrainView]; the second kind are words of Baton's closed set of reasons.
const (
	ReasonDaemonSet  = "daemonset"
	ReasonMirror     = "mirror"
	ReasonFinished   = "finished"
	ReasonController = "controller"

	ReasonTerminating   = "terminating"    // it was asked to end; in a DrainView: and has not within its grace period
	ReasonUnmanagedPod  = "unmanaged-pod"  // it has no controller
	ReasonBudget        = "pdb"            // its disruption budget does not allow its eviction now
	ReasonOtherRebooter = "other-rebooter" // a pod of this node reboots it too
	ReasonEviction      = "eviction"       // the API server refuses its eviction for another reason
)

// Tiers of a drain: the next one begins when nothing of the one before is in the way.
const (
	TierOrdinary = 0
	TierCritical = 1 // system-critical pods: the others may need them until they have ended
)

// systemCritical is the lowest priority of the system-critical classes; users cannot define any above 1e9.
const systemCritical = 2_000_000_000

const kindDaemonSet = "DaemonSet"

// PodPlan says what a drain would do with a pod, and why.
type PodPlan struct {
	Namespace, Name, UID string
	Owner                string // "ReplicaSet/web-6d4cf": its controller; "" none
	Tier                 int
	Decision             string
	Reason               string // a word
	Message              string // a sentence for people
}

// verdict is a filter's answer.
type verdict struct{ decision, reason, message string }

// filter decides about a pod, or leaves it to those after it.
type filter func(*corev1.Pod, DrainSettings) (verdict, bool)

// filters are asked in this order; the first that decides ends it.
func filters() []filter {
	return []filter{
		// What is over needs no end, even if it belongs to somebody.
		finished,
		// What belongs to the node: it stays through a drain, and would only be re-created here.
		mirror,
		daemonSet,
		// What ends already is not asked again, but must have ended.
		terminating,
		// Controllers re-create what is evicted, elsewhere.
		controlled,
		// All others nobody re-creates.
		unmanaged,
	}
}

// plan decides about every pod, sorted by namespace and name. It reads nothing but its arguments.
func plan(pods []*corev1.Pod, s DrainSettings) []PodPlan {
	order := filters()
	plans := make([]PodPlan, 0, len(pods))
	for _, p := range pods {
		plans = append(plans, planPod(p, s, order))
	}
	slices.SortFunc(plans, func(a, b PodPlan) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return plans
}

func planPod(p *corev1.Pod, s DrainSettings, order []filter) PodPlan {
	pp := PodPlan{Namespace: p.Namespace, Name: p.Name, UID: string(p.UID), Tier: tier(p)}
	if owner := metav1.GetControllerOf(p); owner != nil {
		pp.Owner = owner.Kind + "/" + owner.Name
	}
	for _, f := range order {
		if v, ok := f(p, s); ok {
			pp.Decision, pp.Reason, pp.Message = v.decision, v.reason, v.message
			break
		}
	}
	return pp
}

func tier(p *corev1.Pod) int {
	class := p.Spec.PriorityClassName
	if class == "system-cluster-critical" || class == "system-node-critical" ||
		p.Spec.Priority != nil && *p.Spec.Priority >= systemCritical {
		return TierCritical
	}
	return TierOrdinary
}

func finished(p *corev1.Pod, _ DrainSettings) (verdict, bool) {
	over := p.DeletionTimestamp == nil && (p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed)
	return verdict{DecisionIgnore, ReasonFinished, "it has run to its end"}, over
}

func mirror(p *corev1.Pod, _ DrainSettings) (verdict, bool) {
	_, ok := p.Annotations[corev1.MirrorPodAnnotationKey]
	return verdict{DecisionIgnore, ReasonMirror, "the kubelet runs it from a file of this node"}, ok
}

// daemonSet goes by the kind alone: whatever its API group, such a controller puts the pod back on the same node.
func daemonSet(p *corev1.Pod, _ DrainSettings) (verdict, bool) {
	owner := metav1.GetControllerOf(p)
	return verdict{DecisionIgnore, ReasonDaemonSet, "a DaemonSet keeps it on this node"}, owner != nil && owner.Kind == kindDaemonSet
}

func terminating(p *corev1.Pod, _ DrainSettings) (verdict, bool) {
	return verdict{DecisionWait, ReasonTerminating, "it is ending already"}, p.DeletionTimestamp != nil
}

func controlled(p *corev1.Pod, _ DrainSettings) (verdict, bool) {
	owner := metav1.GetControllerOf(p)
	if owner == nil {
		return verdict{}, false
	}
	return verdict{DecisionEvict, ReasonController, fmt.Sprintf("%s %s re-creates it elsewhere", owner.Kind, owner.Name)}, true
}

// unmanaged decides by the setting. A value that is not known blocks, as that loses nothing.
func unmanaged(p *corev1.Pod, s DrainSettings) (verdict, bool) {
	const alone = "it has no controller: "
	v := verdict{decision: DecisionBlock, reason: ReasonUnmanagedPod, message: alone + "an eviction would delete it for good"}
	switch s.UnmanagedPods {
	case UnmanagedWait:
		v.decision, v.message = DecisionWait, alone+"its end is awaited"
	case UnmanagedDelete:
		v.decision, v.message = DecisionEvict, alone+"it is deleted for good, as the setting says"
	case UnmanagedRideThrough:
		v.decision, v.message = DecisionRideThrough, alone+"it comes back with the node"
		if why := lostByReboot(p); why != "" {
			v.decision, v.message = DecisionBlock, alone+"it cannot ride through, as "+why
		}
	}
	return v, true
}

// lostByReboot says why the pod would not come back after a reboot of its node; "" when it would.
func lostByReboot(p *corev1.Pod) string {
	if policy := p.Spec.RestartPolicy; policy != corev1.RestartPolicyAlways && policy != "" {
		return fmt.Sprintf("restartPolicy %s does not start it again", policy)
	}
	for _, c := range p.Spec.Containers {
		if c.RestartPolicy != nil && *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			return fmt.Sprintf("restartPolicy %s of container %s does not start it again", *c.RestartPolicy, c.Name)
		}
	}
	if len(p.Spec.ResourceClaims) > 0 || p.Status.ExtendedResourceClaimStatus != nil {
		return "it holds a device through a resource claim"
	}
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		if name := device(c.Resources); name != "" {
			return fmt.Sprintf("it holds %s, which the kubelet rejects while the device plugin is not up yet", name)
		}
	}
	return ""
}

// device returns the first extended resource that is asked for: a name with a domain that is not Kubernetes' own. Those
// without a domain are cpu, memory, storage and hugepages-*, which need no plugin. The API server copies a limit that
// has no request, so the limits decide.
func device(r corev1.ResourceRequirements) string {
	var names []string
	for _, list := range []corev1.ResourceList{r.Limits, r.Requests} {
		for name, q := range list {
			if strings.Contains(string(name), "/") && !strings.Contains(string(name), "kubernetes.io/") && !q.IsZero() {
				names = append(names, string(name))
			}
		}
	}
	if len(names) == 0 {
		return ""
	}
	return slices.Min(names)
}
