package node

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// View is our own Node as the cycle sees it. It has only standard types, so that the consumer can define its own.
type View struct {
	Name, UID, ResourceVersion string

	BootID        string // status.nodeInfo.bootID; "" until the kubelet has reported it
	Ready         bool   // condition Ready is True
	Unschedulable bool   // spec.unschedulable: a cordon, whoever laid it
	Deleting      bool   // deletionTimestamp is set

	Labels      map[string]string // a copy
	Allocatable map[string]int64  // status.allocatable: cpu in thousandths, all others in their own unit, rounded up

	Taints  string // spec.taints as JSON, "" without any; a change of ours is computed from it
	Tainted bool   // Baton's own taint is in it

	Phase   string // label kubebaton.io/phase, lower case; "" none
	Record  string // annotation kubebaton.io/reboot; "" none
	History string // annotation kubebaton.io/history; "" none

	Hold, Request, Acknowledge string // annotations of people; one that is there but empty reads "no reason given"

	Shields string   // annotation kubebaton.io/shields; "" none
	Bare    []string // keys by which other controllers would leave the node alone, and that are not there; or not with the agent's value
	Removal string   // the taint of a controller that removes the node; "" none
}

// viewOf reads n. It fails only when a taint cannot be written as JSON.
func viewOf(n *corev1.Node) (View, error) {
	v := View{
		Name:            n.Name,
		UID:             string(n.UID),
		ResourceVersion: n.ResourceVersion,
		BootID:          n.Status.NodeInfo.BootID,
		Unschedulable:   n.Spec.Unschedulable,
		Deleting:        n.DeletionTimestamp != nil,
		Labels:          maps.Clone(n.Labels),
		Allocatable:     make(map[string]int64, len(n.Status.Allocatable)),
		Phase:           n.Labels[LabelPhase],
		Record:          n.Annotations[AnnotationRecord],
		History:         n.Annotations[AnnotationHistory],
		Hold:            said(n, AnnotationHold),
		Request:         said(n, AnnotationRequest),
		Acknowledge:     said(n, AnnotationAcknowledge),
		Shields:         n.Annotations[AnnotationShields],
	}
	for _, key := range shieldKeys() {
		value, annotated := n.Annotations[key]
		label, labelled := n.Labels[key]
		theirs := (annotated || labelled) && cmp.Or(value, label) != shieldValue && slices.Contains(strings.Split(v.Shields, ","), key)
		if !annotated && !labelled || theirs {
			v.Bare = append(v.Bare, key)
		}
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			v.Ready = c.Status == corev1.ConditionTrue
		}
	}
	for name, q := range n.Status.Allocatable {
		v.Allocatable[string(name)] = q.Value()
		if name == corev1.ResourceCPU {
			v.Allocatable[string(name)] = q.MilliValue()
		}
	}
	if len(n.Spec.Taints) == 0 {
		return v, nil
	}
	taints, err := json.Marshal(n.Spec.Taints)
	if err != nil {
		return View{}, fmt.Errorf("reading the taints of node %q: %w", n.Name, err)
	}
	v.Taints = string(taints)
	for _, t := range n.Spec.Taints {
		v.Tainted = v.Tainted || t.Key == TaintPending
		if slices.Contains(removalTaints(), t.Key) {
			v.Removal = t.Key
		}
	}
	return v, nil
}

// said returns the value of an annotation that people set, which says yes by being there.
func said(n *corev1.Node, key string) string {
	value, ok := n.Annotations[key]
	if ok && value == "" {
		return noReason
	}
	return value
}
