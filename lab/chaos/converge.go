package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/observe"
)

// convergeTime is how long all may take to be well again after the last fault. Agents look for a marshal once a minute after
// one has died in office, jittered by half; a failed node, and a rollout of four agents, take half a minute each.
const convergeTime = 4 * time.Minute

// converge takes back what people left, raises no sentinel any more, and waits until nothing is left to do. It returns how
// long that took, and what is left when it took too long.
func (r *run) converge(ctx context.Context) (took time.Duration, left error) {
	began := time.Now()
	r.say("The faults are over. All has to come to rest within %s.", convergeTime)
	ctx, cancel := context.WithTimeoutCause(ctx, convergeTime, fmt.Errorf("it took longer than %s", convergeTime))
	defer cancel()
	// Whatever was in force last may keep the node of the pod without a controller from its turn.
	if err := r.settings.put(ctx, valid(r.settings.current().maxUnavailable, 0)); err != nil {
		return time.Since(began), err
	}
	quiet := 0
	err := until(ctx, "all to come to rest", func() (bool, error) {
		left := errors.Join(r.tidy(ctx), r.unsettled(), r.agentsLeft(ctx), r.workloadLeft(ctx), r.marked(ctx))
		quiet++
		if left != nil {
			quiet = 0
		}
		return quiet > 10, left // for a second
	})
	return time.Since(began), err
}

// tidy takes back what people did, and only that: their cordons, holds and pauses; machines that are off are switched on.
func (r *run) tidy(ctx context.Context) error {
	var faults []error
	nodes := r.observer.Nodes()
	for _, name := range r.observer.Log().CordonedByPeople() {
		if nodes[name].Phase == observe.Idle {
			faults = append(faults, r.takeOff(ctx, name, "tidy"))
		}
	}
	all, err := r.cluster.Nodes()
	faults = append(faults, err)
	for _, name := range all {
		faults = append(faults, r.cluster.Power(ctx, name, cluster.On))
		if nodes[name].Hold {
			faults = append(faults, r.annotate(ctx, name, holdKey, nil))
		}
	}
	marshal, err := r.client.CoordinationV1().Leases(observe.Namespace).Get(ctx, marshalLease, metav1.GetOptions{})
	if err != nil {
		return errors.Join(append(faults, gone(err))...)
	}
	for key := range marshal.Annotations {
		if key == pauseKey || strings.HasPrefix(key, pauseKey+".") {
			faults = append(faults, r.annotateLease(ctx, marshalLease, key, nil))
		}
	}
	return errors.Join(faults...)
}

// unsettled says what is not yet at rest.
func (r *run) unsettled() error {
	all, err := r.cluster.Nodes()
	if err != nil {
		return err
	}
	var left []error
	nodes := r.observer.Nodes()
	for _, name := range all {
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
	for name := range nodes {
		if !slices.Contains(all, name) {
			left = append(left, fmt.Errorf("the Node of %s is there, its machine is not", name))
		}
	}
	for _, s := range r.observer.Slots() {
		if s.Holder != "" || s.Nominee != "" || s.Deleting {
			left = append(left, fmt.Errorf("slot %s: holder %q, nominee %q, deleting %t", s.Name, s.Holder, s.Nominee, s.Deleting))
		}
	}
	return errors.Join(left...)
}

// marked fails while a Node carries what Baton writes on one that is on its way down.
func (r *run) marked(ctx context.Context) error {
	list, err := r.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, n := range list.Items {
		marked := slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return strings.HasPrefix(t.Key, "kubebaton.io/") })
		for _, key := range []string{"kubebaton.io/shields", "cluster-autoscaler.kubernetes.io/scale-down-disabled", "karpenter.sh/do-not-disrupt"} {
			_, there := n.Annotations[key]
			marked = marked || there
		}
		if marked {
			return fmt.Errorf("%s carries a taint or an annotation of a node that is on its way down", n.Name)
		}
	}
	return nil
}
