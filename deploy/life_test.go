package deploy_test

import (
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kubebaton.io/baton/lock"
	"kubebaton.io/baton/node"
)

func slotsOf(t *testing.T, a agent) *lock.Slots {
	t.Helper()
	s, err := lock.New(lock.Config{Clientset: a, Namespace: namespace, Node: a.node})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What the agents' own code writes in the course of a cycle must pass: nobody may notice the policies who keeps to them.
func TestACycleAsTheAgentsWriteIt(t *testing.T) {
	x := newActors(t)
	ctx, marshal, own, other := t.Context(), slotsOf(t, x.m), slotsOf(t, x.a), slotsOf(t, x.b)
	t.Cleanup(func() { remove(t, "slot-workers-0") })
	step := func(what string) func(lock.Slot, error) lock.Slot {
		return func(sl lock.Slot, err error) lock.Slot {
			t.Helper()
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			return sl
		}
	}
	if err := marshal.Create(ctx, "workers", 0); err != nil {
		t.Fatal(err)
	}
	until := time.Now().Add(time.Minute)
	claim := lock.Claim{Cycle: "c1", Attempt: 1, BootID: "boot-1", Cordon: "baton", Instance: "i1"}

	sl := step("get")(marshal.Get(ctx, "slot-workers-0"))
	sl = step("nominate")(marshal.Nominate(ctx, sl, x.a.uid, x.a.node, "c1", 1, until))
	if _, err := other.Take(ctx, sl, x.b.uid, claim); !errors.Is(err, lock.ErrNotNominated) {
		t.Errorf("another agent takes it: %v", err)
	}
	sl = step("decline")(own.Decline(ctx, sl))
	sl = step("nominate")(marshal.Nominate(ctx, sl, x.a.uid, x.a.node, "c1", 1, until))
	sl = step("take")(own.Take(ctx, sl, x.a.uid, claim))
	sl = step("hold")(marshal.SetHold(ctx, sl, "paused"))
	claim.BootID = "boot-2"
	sl = step("renew")(own.Renew(ctx, sl, claim))
	if _, err := other.Renew(ctx, sl, claim); !errors.Is(err, lock.ErrNotHeld) {
		t.Errorf("another agent renews it: %v", err)
	}
	if _, err := other.FreeGone(ctx, sl); !apierrors.IsForbidden(err) {
		t.Errorf("an agent that is not the marshal frees a slot whose holder it thinks gone: got %v, want it forbidden", err)
	}
	sl = step("free")(own.Free(ctx, sl))
	sl = step("lift the hold")(marshal.SetHold(ctx, sl, ""))
	sl = step("nominate")(marshal.Nominate(ctx, sl, x.b.uid, x.b.node, "c2", 1, until))
	sl = step("clear")(marshal.ClearNomination(ctx, sl))
	sl = step("nominate")(marshal.Nominate(ctx, sl, x.a.uid, x.a.node, "c3", 1, until))
	claim.Cycle = "c3"
	sl = step("take")(own.Take(ctx, sl, x.a.uid, claim))
	sl = step("free gone")(marshal.FreeGone(ctx, sl))
	if err := marshal.Delete(ctx, sl); err != nil {
		t.Errorf("delete: %v", err)
	}
}

func TestANodeAsTheAgentWritesIt(t *testing.T) {
	a := newAgent(t, "node-a")
	nodeBefore(t, a.node)
	c, err := node.New(node.Config{Clientset: a, Name: a.node})
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	yes, no, none := true, false, ""
	record, phase, history := `{"version":1}`, "Draining", `[]`
	for _, ch := range []node.Change{
		{Shield: &no},
		{Record: &record, Phase: &phase, Unschedulable: &yes, Taint: &yes, Shield: &yes, ClearRequest: true},
		{Record: &none, Phase: &none, History: &history, Unschedulable: &no, Taint: &no, Shield: &no, ClearAcknowledge: true},
	} {
		eventually(t, "patching the Node", func(ctx context.Context) error {
			v, err = c.Patch(ctx, v, ch)
			return err
		})
	}
	n, err := admin(t).CoreV1().Nodes().Get(t.Context(), a.node, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := corev1.NodeSpec{Taints: []corev1.Taint{{Key: "team", Value: "a", Effect: corev1.TaintEffectNoSchedule}}}
	if n.Spec.Unschedulable || len(n.Spec.Taints) != 1 || n.Spec.Taints[0] != want.Taints[0] || n.Annotations[node.AnnotationHold] == "" {
		t.Errorf("the Node is left as %+v %v", n.Spec, n.Annotations)
	}
	err = c.Event(t.Context(), v, "Normal", "Draining", "evicting 3 pods")
	check(t, err, "")
}
