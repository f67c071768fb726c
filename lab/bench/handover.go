package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"kubebaton.io/baton/lab/build"
	"kubebaton.io/baton/lab/observe"
	"kubebaton.io/baton/lab/report"
)

const (
	namespace   = "bench"
	replicas    = 6
	rolloutTime = 6 * time.Minute
	swaps       = 20 // of the yardstick's Lease, after each rollout
)

// HandOver is how long a slot took from the node that freed it to the next.
type HandOver struct {
	Rollouts int           `json:"rollouts"`
	Named    report.Spread `json:"named"`    // from freed to the next node's nomination
	Taken    report.Spread `json:"taken"`    // from freed to taken
	Cordoned report.Spread `json:"cordoned"` // from freed to the next node cordoned
	Yard     report.Spread `json:"leaseCAS"` // one CAS of a Lease, until a watch shows it
	Load     report.Load   `json:"load"`
}

// startWorkload returns when there is something to evict.
func (b *bench) startWorkload(ctx context.Context) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if _, err := b.client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("starting the workload: %w", err)
	}
	labels, count := map[string]string{"app": "bench"}, int32(replicas)
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "bench"}, Spec: appsv1.DeploymentSpec{
		Replicas: &count,
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: build.AppImage}}},
		},
	}}
	if _, err := b.client.AppsV1().Deployments(namespace).Create(ctx, d, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("starting the workload: %w", err)
	}
	return until(ctx, "the workload", func() (bool, error) {
		d, err := b.client.AppsV1().Deployments(namespace).Get(ctx, "bench", metav1.GetOptions{})
		return err == nil && d.Status.ReadyReplicas == replicas, err
	})
}

func (b *bench) handOvers(ctx context.Context) error {
	load := report.WatchLoad(ctx)
	from, mark := time.Now(), b.observer.Mark()
	var yard []time.Duration
	for i := range b.Rollouts {
		took, err := b.rollout(ctx)
		if err != nil {
			return fmt.Errorf("rollout %d: %w", i+1, err)
		}
		b.say("Rollout %d of %d: all nodes are back after %.1f s.", i+1, b.Rollouts, took.Seconds())
		more, err := b.swapLease(ctx)
		if err != nil {
			return fmt.Errorf("rollout %d: the yardstick: %w", i+1, err)
		}
		yard = append(yard, more...)
	}
	log := b.observer.Log().After(from)
	var named, taken, cordoned []time.Duration
	for _, h := range log.HandOvers() {
		named, taken, cordoned = append(named, h.Named.Sub(h.Freed)), append(taken, h.Taken.Sub(h.Freed)), append(cordoned, h.Took())
	}
	b.report.HandOver = &HandOver{b.Rollouts, report.SpreadOf(named), report.SpreadOf(taken), report.SpreadOf(cordoned), report.SpreadOf(yard), load()}
	return errors.Join(b.sound(log, from, mark), enough("hand-overs", len(cordoned), b.Rollouts*(nodeCount-1)))
}

func enough(what string, got, want int) error {
	if got != want {
		return fmt.Errorf("%d %s were seen, want %d", got, what, want)
	}
	return nil
}

// sound fails unless every node went down once a rollout, one at a time, and came back with a new boot.
func (b *bench) sound(log observe.Log, from time.Time, mark int) error {
	var faults []error
	for _, v := range log.Violations(limit) {
		faults = append(faults, errors.New(v))
	}
	power, err := b.cluster.PowerLog()
	faults = append(faults, err)
	for _, f := range observe.BothOff(power, from, limit) {
		faults = append(faults, errors.New(f))
	}
	boots := map[string]map[string]bool{}
	for _, e := range b.observer.Events()[mark:] {
		if n := e.Node; n != nil && n.Exists {
			if boots[n.Name] == nil {
				boots[n.Name] = map[string]bool{}
			}
			boots[n.Name][n.BootID] = true
		}
	}
	for _, n := range b.nodes { // the boot before the first rollout is seen too: the sentinel is raised on it
		faults = append(faults, enough("boots of "+n, len(boots[n]), b.Rollouts+1))
	}
	return errors.Join(faults...)
}

// rollout raises the sentinel on all nodes and returns when all are done and the slot is free.
func (b *bench) rollout(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, rolloutTime, fmt.Errorf("not all nodes are done after %v", rolloutTime))
	defer cancel()
	before, mark, start := b.observer.Nodes(), b.observer.Mark(), time.Now()
	for _, n := range b.nodes {
		if err := b.cluster.RaiseSentinel(n); err != nil {
			return 0, err
		}
	}
	done := func(nodes map[string]observe.Node) bool {
		for _, name := range b.nodes {
			n := nodes[name]
			if n.BootID == before[name].BootID || n.Phase != observe.Idle || n.Unschedulable || !n.Ready {
				return false
			}
		}
		return true
	}
	if err := b.observer.Wait(ctx, "all nodes to be done", done); err != nil {
		return 0, errors.Join(err, b.where())
	}
	took := time.Since(start)
	_, err := b.observer.WaitAfter(ctx, mark, "the slot to be free", func(observe.Event) bool { return b.slotsFree() })
	if err == nil {
		err = pause(ctx, 2*time.Second) // so that the elections end, and each rollout begins as the first did
	}
	return took, err
}

func (b *bench) slotsFree() bool {
	for _, s := range b.observer.Slots() {
		if s.Holder != "" || s.Nominee != "" {
			return false
		}
	}
	return true
}

// where tells the records of the nodes that are not done.
func (b *bench) where() error {
	var faults []error
	for _, name := range b.nodes {
		n := b.observer.Nodes()[name]
		if n.Phase != observe.Idle || n.Unschedulable || !n.Ready {
			faults = append(faults, fmt.Errorf("%s: phase %q, ready %t, cordoned %t: %s", name, n.Phase, n.Ready, n.Unschedulable, n.Record))
		}
	}
	return errors.Join(faults...)
}

// swapLease measures the yardstick: a Lease is read, changed with its resourceVersion, and seen changed by a watch.
func (b *bench) swapLease(ctx context.Context) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	const name = "yardstick"
	leases := b.client.CoordinationV1().Leases(namespace)
	lease, err := leases.Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		lease, err = leases.Get(ctx, name, metav1.GetOptions{})
	}
	if err != nil {
		return nil, err
	}
	w, err := leases.Watch(ctx, metav1.SingleObject(lease.ObjectMeta))
	if err != nil {
		return nil, err
	}
	defer w.Stop()
	var took []time.Duration
	for i := range swaps {
		holder := fmt.Sprint(time.Now().UnixNano(), i)
		lease.Spec.HolderIdentity = &holder
		start := time.Now()
		if lease, err = leases.Update(ctx, lease, metav1.UpdateOptions{}); err != nil {
			return nil, err
		}
		if err := arrived(w, lease.ResourceVersion); err != nil {
			return nil, err
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}

func arrived(w watch.Interface, version string) error {
	for e := range w.ResultChan() {
		if l, ok := e.Object.(*coordinationv1.Lease); ok && l.ResourceVersion == version {
			return nil
		}
	}
	return errors.New("the watch ended")
}
