package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/observe"
)

// settle takes back what people did in the scenario, and waits until the cluster is as it was at the start.
func (w *world) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for _, f := range slices.Backward(w.undo) {
		if err := f(ctx); err != nil {
			return fmt.Errorf("undoing what the scenario did: %w", err)
		}
	}
	w.undo = nil
	return until(ctx, "the cluster to settle", func() (bool, error) {
		left := errors.Join(w.tidy(ctx), w.unsettled(ctx))
		return left == nil, left
	})
}

// tidy takes away from the nodes what people put there. After a failure that is all that Baton should have taken away, too.
func (w *world) tidy(ctx context.Context) error {
	var faults []error
	nodes := w.obs.Nodes()
	for _, name := range w.nodes {
		n, ok := nodes[name]
		faults = append(faults, w.c.Power(ctx, name, cluster.On), w.dropSentinel(name))
		switch {
		case !ok:
			faults = append(faults, w.registerAgain(ctx, name))
		case n.Hold:
			faults = append(faults, w.annotate(ctx, name, holdKey, nil))
		case n.Phase == observe.Failed && w.dirty:
			faults = append(faults, w.annotate(ctx, name, acknowledgeKey, "e2e"))
		case n.Phase == observe.Idle && n.Unschedulable && (w.dirty || w.foreign[name] != 0):
			_, err := w.setCordon(ctx, name, false)
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

// unsettled says what is not yet as at the start.
func (w *world) unsettled(ctx context.Context) error {
	var left []error
	nodes := w.obs.Nodes()
	for _, name := range w.nodes {
		n, ok := nodes[name]
		switch {
		case !ok:
			left = append(left, fmt.Errorf("there is no Node %s", name))
		case n.Phase != observe.Idle || n.Record != "":
			left = append(left, fmt.Errorf("%s is %q: %s", name, n.Phase, n.Record))
		case n.Unschedulable || !n.Ready || n.Hold:
			left = append(left, fmt.Errorf("%s: unschedulable %t, ready %t, hold %t", name, n.Unschedulable, n.Ready, n.Hold))
		}
	}
	for _, s := range w.obs.Slots() {
		if s.Holder != "" || s.Nominee != "" || s.Deleting {
			left = append(left, fmt.Errorf("slot %s: holder %q, nominee %q, deleting %t", s.Name, s.Holder, s.Nominee, s.Deleting))
		}
	}
	if len(left) > 0 {
		return errors.Join(left...)
	}
	return errors.Join(w.agentsRun(ctx), w.workloadRuns(ctx))
}

// agentsRun fails unless every node's agent was started on the node's present boot and runs.
func (w *world) agentsRun(ctx context.Context) error {
	pods, err := w.client.CoreV1().Pods(batonSpace).List(ctx, metav1.ListOptions{LabelSelector: agentLabel})
	if err != nil {
		return err
	}
	log, err := w.c.PowerLog()
	if err != nil {
		return err
	}
	since := map[string]time.Time{}
	for _, e := range log {
		since[e.Node] = e.Time.Truncate(time.Second)
	}
	running := map[string]bool{}
	for _, p := range pods.Items {
		for _, c := range p.Status.ContainerStatuses {
			if r := c.State.Running; r != nil && p.DeletionTimestamp == nil && !r.StartedAt.Time.Before(since[p.Spec.NodeName]) {
				running[p.Spec.NodeName] = true
			}
		}
	}
	var left []error
	for _, n := range w.nodes {
		if !running[n] {
			left = append(left, fmt.Errorf("the agent of %s does not run", n))
		}
	}
	return errors.Join(left...)
}

func (w *world) workloadRuns(ctx context.Context) error {
	d, err := w.client.AppsV1().Deployments(space).Get(ctx, "blue", metav1.GetOptions{})
	if err != nil {
		return err
	}
	if d.Status.AvailableReplicas < *d.Spec.Replicas {
		return fmt.Errorf("%d of %d pods of Deployment blue are available", d.Status.AvailableReplicas, *d.Spec.Replicas)
	}
	return nil
}

// force puts the cluster back after a failure, past the agents if need be: so that one failure does not make the next ones.
func (w *world) force(ctx context.Context) error {
	err := w.settle(ctx)
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(w.Stdout, "the cluster did not settle: records and slots are removed by hand")
		err = errors.Join(w.wipe(ctx), w.settle(ctx))
	}
	w.dirty = err != nil
	return err
}

// wipe removes all that Baton has written.
func (w *world) wipe(ctx context.Context) error {
	now := int64(0)
	var faults []error
	for _, n := range w.nodes {
		drop := map[string]any{
			"metadata": map[string]any{
				"annotations": map[string]any{recordKey: nil, historyKey: nil, holdKey: nil, acknowledgeKey: nil},
				"labels":      map[string]any{phaseKey: nil},
			},
			"spec": map[string]any{"unschedulable": nil, "taints": nil},
		}
		faults = append(faults, w.patchNode(ctx, w.client, n, drop))
	}
	leases := w.client.CoordinationV1().Leases(batonSpace)
	for name := range w.obs.Slots() {
		if _, err := leases.Patch(ctx, name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil && !apierrors.IsNotFound(err) {
			faults = append(faults, err)
		}
		if err := leases.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			faults = append(faults, err)
		}
	}
	return errors.Join(append(faults, w.client.CoreV1().Pods(batonSpace).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &now}, metav1.ListOptions{LabelSelector: agentLabel}))...)
}

// registerAgain makes a node whose Node was deleted register anew: by a boot, after which nothing there, no token of a pod
// and no rule of kube-proxy, is still that of the old one.
func (w *world) registerAgain(ctx context.Context, node string) error {
	mark := w.obs.Mark()
	if err := w.c.Power(ctx, node, cluster.Cycle); err != nil {
		return err
	}
	_, err := w.obs.WaitAfter(ctx, mark, node+" to register", func(e observe.Event) bool { return e.Node != nil && e.Node.Name == node && e.Node.Exists })
	return err
}
