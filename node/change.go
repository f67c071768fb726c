package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Change is what one PATCH does to the Node. What is nil or false stays as it is.
type Change struct {
	Record, History, Phase         *string // "" removes; Phase is written in lower case
	Unschedulable, Taint           *bool   // true cordons, taints; false uncordons, removes Baton's taint
	ClearRequest, ClearAcknowledge bool    // remove the annotation that a person has set
	Shield                         *bool   // true keeps other controllers from removing the node; false no more
	Exclude                        bool    // with Shield: keeps load balancers from sending to it, too
}

// errNoVersion is a programmer's mistake: a patch without them would hit whatever the Node is by now.
var errNoVersion = errors.New("the view has no UID or resourceVersion")

// patch renders ch as a JSON merge patch (RFC 7386: null removes) of the Node that from shows. It returns nil when
// there is nothing to change.
func patch(from View, ch Change) ([]byte, error) {
	if from.UID == "" || from.ResourceVersion == "" {
		return nil, errNoVersion
	}
	annotations, labels, spec := map[string]any{}, map[string]any{}, map[string]any{}
	put(annotations, AnnotationRecord, from.Record, ch.Record)
	put(annotations, AnnotationHistory, from.History, ch.History)
	if ch.ClearRequest && from.Request != "" {
		annotations[AnnotationRequest] = nil
	}
	if ch.ClearAcknowledge && from.Acknowledge != "" {
		annotations[AnnotationAcknowledge] = nil
	}
	if ch.Shield != nil {
		shield(annotations, labels, from, ch)
	}
	if ch.Phase != nil {
		phase := strings.ToLower(*ch.Phase)
		put(labels, LabelPhase, from.Phase, &phase)
	}
	if ch.Unschedulable != nil && *ch.Unschedulable != from.Unschedulable {
		spec["unschedulable"] = *ch.Unschedulable
	}
	if ch.Taint != nil && *ch.Taint != from.Tainted {
		taints, err := retaint(from.Taints, *ch.Taint)
		if err != nil {
			return nil, err
		}
		spec["taints"] = taints
	}
	if len(annotations)+len(labels)+len(spec) == 0 {
		return nil, nil
	}
	meta := map[string]any{"uid": from.UID, "resourceVersion": from.ResourceVersion}
	if len(annotations) > 0 {
		meta["annotations"] = annotations
	}
	if len(labels) > 0 {
		meta["labels"] = labels
	}
	body := map[string]any{"metadata": meta}
	if len(spec) > 0 {
		body["spec"] = spec
	}
	return json.Marshal(body)
}

// put adds key to m when to differs from what is there.
func put(m map[string]any, key, from string, to *string) {
	switch {
	case to == nil || *to == from:
	case *to == "":
		m[key] = nil
	default:
		m[key] = *to
	}
}

// shield adds what other controllers go by and is absent, and takes off what was added so.
func shield(annotations, labels map[string]any, from View, ch Change) {
	into := func(key string) map[string]any {
		if key == LabelExclude {
			return labels
		}
		return annotations
	}
	switch {
	case *ch.Shield && from.Shields == "":
		absent := slices.DeleteFunc(slices.Clone(from.Bare), func(key string) bool { return key == LabelExclude && !ch.Exclude })
		for _, key := range absent {
			into(key)[key] = shieldValue
		}
		if len(absent) > 0 {
			annotations[AnnotationShields] = strings.Join(absent, ",")
		}
	case !*ch.Shield && from.Shields != "":
		for key := range strings.SplitSeq(from.Shields, ",") {
			if slices.Contains(shieldKeys(), key) && !slices.Contains(from.Bare, key) {
				into(key)[key] = nil
			}
		}
		annotations[AnnotationShields] = nil
	}
}

// retaint returns the whole list of taints with Baton's own added or removed and all others as they are.
func retaint(old string, want bool) ([]corev1.Taint, error) {
	var taints []corev1.Taint
	if old != "" {
		if err := json.Unmarshal([]byte(old), &taints); err != nil {
			return nil, fmt.Errorf("reading the taints of the view: %w", err)
		}
	}
	taints = slices.DeleteFunc(taints, func(t corev1.Taint) bool { return t.Key == TaintPending })
	if want {
		taints = append(taints, corev1.Taint{Key: TaintPending, Effect: corev1.TaintEffectPreferNoSchedule})
	}
	return taints, nil
}
