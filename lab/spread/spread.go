package spread

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"kubebaton.io/baton/lab/audit"
	"kubebaton.io/baton/lab/build"
	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/observe"
	"kubebaton.io/baton/lab/report"
)

// Options of a run.
type Options struct {
	Cluster    string    // name, see cluster.Options
	Kubernetes string    // version, see cluster.Options
	Image      string    // docker-archive of the agent
	Deploy     string    // kustomize directory that is applied, with the taint once on and once off
	Out        string    // file that gets the report as JSON; "" none
	Nodes      int       // of the cluster
	Replicas   int       // of the Deployment whose pods are counted
	Stdout     io.Writer // progress and figures
}

const (
	namespace   = "spread" // also the name of the Deployment whose pods are counted
	picky       = "picky"  // the Deployment whose pods prefer some nodes, wherever the others of them are
	preferred   = "spread.kubebaton.io/preferred"
	goal        = 1.25 // evictions a pod
	rolloutTime = 15 * time.Minute
	waitTime    = 3 * time.Minute
)

func (o Options) check() error {
	var faults []error
	if o.Nodes < 2 || o.Nodes > 20 {
		faults = append(faults, fmt.Errorf("nodes %d: want 2 to 20", o.Nodes))
	}
	if o.Replicas < 1 || o.Replicas > 80*(o.Nodes-1) {
		faults = append(faults, fmt.Errorf("replicas %d: want 1 to 80 for each node but one", o.Replicas))
	}
	for _, path := range []string{o.Image, o.Deploy} {
		if _, err := os.Stat(path); err != nil {
			faults = append(faults, fmt.Errorf("looking for what is measured (make image writes it): %w", err))
		}
	}
	return errors.Join(faults...)
}

// run is one run.
type run struct {
	Options

	cluster  *cluster.Cluster
	client   kubernetes.Interface
	observer *observe.Observer
	nodes    []string // the second half of them is preferred, and goes last
	began    time.Time
}

// Run does all of it and removes the cluster again, also when ctx ends. The error tells when the goal was missed.
func Run(ctx context.Context, o Options) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	r := &run{Options: o, began: time.Now()}
	r.say("Starting %d real nodes.", o.Nodes)
	r.cluster, err = cluster.Start(ctx, cluster.Options{Name: o.Cluster, Nodes: o.Nodes, Kubernetes: o.Kubernetes, Progress: o.Stdout})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.cluster.Stop(context.WithoutCancel(ctx))) }()
	rep := Report{Started: r.began.UTC(), Nodes: o.Nodes, Replicas: o.Replicas}
	if err := r.measure(ctx, &rep); err != nil {
		return err
	}
	rep.Seconds = time.Since(r.began).Seconds()
	rep.show(o.Stdout)
	if o.Out != "" {
		err = report.Write(o.Out, rep)
	}
	return errors.Join(err, rep.verdict())
}

// say tells what happens, with the time since the beginning.
func (r *run) say(format string, args ...any) {
	fmt.Fprintf(r.Stdout, "%7.1f s  %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

func (r *run) measure(ctx context.Context, rep *Report) error {
	config, err := r.cluster.RestConfig()
	if err != nil {
		return err
	}
	r.client = r.cluster.Client()
	if r.nodes, err = r.cluster.Nodes(); err != nil {
		return err
	}
	if r.observer, err = observe.Start(ctx, config); err != nil {
		return err
	}
	defer r.observer.Stop()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if _, err := r.client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("making the namespace: %w", err)
	}
	if err := errors.Join(r.observer.WatchPods(ctx, r.client, namespace), r.prefer(ctx)); err != nil {
		return err
	}
	for _, tainted := range []bool{true, false} {
		o, err := r.rollout(ctx, tainted)
		if err != nil {
			return fmt.Errorf("rolling out with pendingTaint: %t: %w", tainted, err)
		}
		rep.Rollouts = append(rep.Rollouts, o)
		r.say("pendingTaint: %t: %d evictions of %d pods.", tainted, o.Evictions, r.Replicas)
	}
	return nil
}

// rollout installs Baton and the pods, reboots every node, and counts.
func (r *run) rollout(ctx context.Context, tainted bool) (Rollout, error) {
	o := Rollout{PendingTaint: tainted}
	if err := r.install(ctx, tainted); err != nil {
		return o, err
	}
	if err := r.deploy(ctx); err != nil {
		return o, err
	}
	var err error
	if o.Before, err = r.perNode(ctx); err != nil {
		return o, err
	}
	r.say("pendingTaint: %t. All nodes want a reboot; their pods: %v.", tainted, o.Before)
	from := time.Now()
	if err := r.reboot(ctx); err != nil {
		return o, err
	}
	o.Seconds = time.Since(from).Seconds()
	if err := r.whole(ctx); err != nil {
		return o, err
	}
	evictions, err := audit.Evictions(r.cluster.AuditLog(), from, time.Now())
	if err != nil {
		return o, err
	}
	pods := r.observer.Pods()
	if o.Owner, err = r.owner(ctx, namespace); err != nil {
		return o, err
	}
	if o.PickyOwner, err = r.owner(ctx, picky); err != nil {
		return o, err
	}
	o.Evictions, o.Picky = evicted(evictions, pods, o.Owner), evicted(evictions, pods, o.PickyOwner)
	o.Taints = taintsOf(r.observer.Log(), pods, from)
	o.PerPod = float64(o.Evictions) / float64(r.Replicas)
	if o.After, err = r.perNode(ctx); err != nil {
		return o, err
	}
	o.Skew = slices.Max(o.After) - slices.Min(o.After)
	return o, r.remove(ctx)
}

// owner is the controller of a Deployment's pods.
func (r *run) owner(ctx context.Context, name string) (string, error) {
	pods, err := r.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + name, Limit: 1})
	if err == nil && len(pods.Items) == 0 {
		err = errors.New("there is no pod")
	}
	if err != nil {
		return "", fmt.Errorf("looking for the pods' controller: %w", err)
	}
	return observe.OwnerOf(&pods.Items[0]), nil
}

// evicted counts the evictions that were granted of a controller's pods.
func evicted(evictions []audit.Eviction, pods []observe.Pod, owner string) int {
	owned := map[string]bool{}
	for _, p := range pods {
		owned[p.Name] = owned[p.Name] || p.Owner == owner
	}
	n := 0
	for _, e := range evictions {
		if e.Namespace == namespace && e.Code < 300 && owned[e.Pod] {
			n++
		}
	}
	return n
}

// install applies the deployment with the taint on or off, and starts the agents anew, so that they begin with it.
func (r *run) install(ctx context.Context, tainted bool) (err error) {
	dir, err := os.MkdirTemp("", "baton-spread-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := cluster.Overlay(dir, r.Deploy, fmt.Sprintf("pendingTaint: %t", tainted)); err != nil {
		return err
	}
	if err := r.cluster.Install(ctx, r.Image, dir); err != nil {
		return err
	}
	err = r.client.CoreV1().Pods(observe.Namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("starting the agents anew: %w", err)
	}
	return until(ctx, "the agents", func() (bool, error) {
		pods, err := r.client.CoreV1().Pods(observe.Namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		ready := 0
		for i := range pods.Items {
			if pods.Items[i].DeletionTimestamp == nil && isReady(&pods.Items[i]) {
				ready++
			}
		}
		return ready == r.Nodes && ready == len(pods.Items), fmt.Errorf("%d of %d ready", ready, len(pods.Items))
	})
}

func isReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// prefer labels the nodes that picky pods prefer.
func (r *run) prefer(ctx context.Context) error {
	for _, n := range r.nodes[len(r.nodes)/2:] {
		change := fmt.Appendf(nil, `{"metadata":{"labels":{%q:""}}}`, preferred)
		if _, err := r.client.CoreV1().Nodes().Patch(ctx, n, types.MergePatchType, change, metav1.PatchOptions{}); err != nil {
			return fmt.Errorf("labelling node %q: %w", n, err)
		}
	}
	return nil
}

// deploy starts the pods: those that are counted say nothing about where they want to be, so that the scheduler spreads them as it
// does by default; the picky ones prefer some nodes.
func (r *run) deploy(ctx context.Context) error {
	for _, d := range []*appsv1.Deployment{deployment(namespace, r.Replicas), pickyDeployment(r.pickies())} {
		if _, err := r.client.AppsV1().Deployments(namespace).Create(ctx, d, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("starting the pods: %w", err)
		}
	}
	return r.whole(ctx)
}

// pickies is how many picky pods there are: some on each node that they prefer.
func (r *run) pickies() int { return 2 * r.Nodes }

func deployment(name string, replicas int) *appsv1.Deployment {
	labels, count := map[string]string{"app": name}, int32(replicas)
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.DeploymentSpec{
		Replicas: &count,
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: build.AppImage}}},
		},
	}}
}

// pickyDeployment is one whose pods prefer nodes that will be rebooted last. A scheduler that is told nothing of that puts them
// there.
func pickyDeployment(replicas int) *appsv1.Deployment {
	d := deployment(picky, replicas)
	likes := corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: preferred, Operator: corev1.NodeSelectorOpExists}}}
	d.Spec.Template.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 100, Preference: likes}},
	}}
	// All nodes have the same: this only takes the place of the scheduler's own constraint, which would spread them.
	d.Spec.Template.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
		MaxSkew: 1, TopologyKey: corev1.LabelOSStable, WhenUnsatisfiable: corev1.ScheduleAnyway, LabelSelector: d.Spec.Selector,
	}}
	return d
}

// whole waits until all pods are ready, and none is on its way out.
func (r *run) whole(ctx context.Context) error {
	return until(ctx, "all pods to be ready", func() (bool, error) {
		pods, err := r.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		ready := 0
		for i := range pods.Items {
			if isReady(&pods.Items[i]) {
				ready++
			}
		}
		want := r.Replicas + r.pickies()
		return ready == want && len(pods.Items) == want, fmt.Errorf("%d of %d ready, want %d", ready, len(pods.Items), want)
	})
}

func (r *run) remove(ctx context.Context) error {
	foreground := metav1.DeletePropagationForeground
	deployments := r.client.AppsV1().Deployments(namespace)
	for _, name := range []string{namespace, picky} {
		if err := deployments.Delete(ctx, name, metav1.DeleteOptions{PropagationPolicy: &foreground}); err != nil {
			return fmt.Errorf("removing the pods: %w", err)
		}
	}
	return until(ctx, "the pods to be gone", func() (bool, error) {
		left, err := deployments.List(ctx, metav1.ListOptions{})
		return err == nil && len(left.Items) == 0, err
	})
}

// perNode counts the pods of each node, without the picky ones, in the order of the nodes' names.
func (r *run) perNode(ctx context.Context) ([]int, error) {
	pods, err := r.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + namespace})
	if err != nil {
		return nil, fmt.Errorf("counting the pods: %w", err)
	}
	out := make([]int, len(r.nodes))
	for i := range pods.Items {
		if at := slices.Index(r.nodes, pods.Items[i].Spec.NodeName); at >= 0 {
			out[at]++
		}
	}
	return out, nil
}

// reboot raises the sentinel on all nodes and returns when all are done. Who wants it first goes first: the nodes that nobody
// prefers.
func (r *run) reboot(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, rolloutTime, fmt.Errorf("not all nodes are done after %v", rolloutTime))
	defer cancel()
	before := r.observer.Nodes()
	for _, half := range [][]string{r.nodes[:len(r.nodes)/2], r.nodes[len(r.nodes)/2:]} {
		for _, n := range half {
			if err := r.cluster.RaiseSentinel(n); err != nil {
				return err
			}
		}
		if err := r.observer.Wait(ctx, "nodes to want a reboot", func(nodes map[string]observe.Node) bool {
			return !slices.ContainsFunc(half, func(name string) bool {
				return nodes[name].Phase == observe.Idle && nodes[name].BootID == before[name].BootID
			})
		}); err != nil {
			return err
		}
	}
	return r.observer.Wait(ctx, "all nodes to be done", func(nodes map[string]observe.Node) bool {
		return !slices.ContainsFunc(r.nodes, func(name string) bool {
			n := nodes[name]
			return n.BootID == before[name].BootID || n.Phase != observe.Idle || n.Unschedulable || !n.Ready
		})
	})
}

// until asks again and again, for at most waitTime.
func until(ctx context.Context, what string, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, waitTime)
	defer cancel()
	return cluster.Until(ctx, what, 200*time.Millisecond, ok)
}
