package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"kubebaton.io/baton/lab/build"
	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/evidence"
	"kubebaton.io/baton/lab/observe"
)

const (
	batonSpace   = observe.Namespace
	space        = "e2e" // of the scenarios' pods
	agentProgram = "baton-agent"
	agentLabel   = "app.kubernetes.io/component=agent"

	holdKey        = "kubebaton.io/hold"
	acknowledgeKey = "kubebaton.io/acknowledge"
	recordKey      = "kubebaton.io/reboot"
	historyKey     = "kubebaton.io/history"
	phaseKey       = "kubebaton.io/phase"
)

// world is the cluster and the scenario that runs in it.
type world struct {
	Options
	c      *cluster.Cluster
	client kubernetes.Interface
	obs    *observe.Observer
	nodes  []string
	logs   *evidence.Logs

	inForce string // the configuration that all agents took up; "" not known
	dirty   bool   // the last scenario failed: what it left may need force

	// Of the scenario.
	began   time.Time
	mark    int               // of the observer
	limit   int               // nodes that may be down at once
	boots   map[string]string // boot IDs when it began
	foreign map[string]uint64 // nodes that people cordoned, and as of which revision
	undo    []func(context.Context) error
	notes   []string
}

func newWorld(ctx context.Context, c *cluster.Cluster, o Options) (*world, error) {
	w := &world{Options: o, c: c, client: c.Client(), dirty: o.Reuse}
	var err error
	if w.nodes, err = c.Nodes(); err != nil {
		return nil, err
	}
	if len(w.nodes) != nodeCount {
		return nil, fmt.Errorf("the scenarios want %d nodes, there are %d", nodeCount, len(w.nodes))
	}
	if w.logs, err = evidence.NewLogs(c); err != nil {
		return nil, err
	}
	config, err := c.RestConfig()
	if err != nil {
		return nil, err
	}
	if w.obs, err = observe.Start(ctx, config); err != nil {
		return nil, err
	}
	return w, w.makeWorkload(ctx)
}

// makeWorkload starts the pods that are on the nodes throughout: any drain has something to evict.
func (w *world) makeWorkload(ctx context.Context) error {
	_, err := w.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: space}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	// What an earlier run in this cluster left.
	if err := w.client.AppsV1().Deployments(space).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "metadata.name!=blue"}); err != nil {
		return err
	}
	if err := w.client.PolicyV1().PodDisruptionBudgets(space).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		return err
	}
	blue := deployment("blue", 8)
	if _, err := w.client.AppsV1().Deployments(space).Create(ctx, blue, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return nil
}

func deployment(name string, replicas int32, args ...string) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: space},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					Containers: []corev1.Container{{Name: "app", Image: build.AppImage, Args: args, ImagePullPolicy: corev1.PullIfNotPresent}},
				},
			},
		},
	}
}

// pin runs one pod of this name that can live on one node only, and returns when it does. linger is how long it lets a drain
// wait for its end.
func (w *world) pin(ctx context.Context, name, node string, linger time.Duration) (*corev1.Pod, error) {
	d := deployment(name, 1, "--linger="+linger.String())
	d.Spec.Template.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node}
	w.later(func(ctx context.Context) error {
		now := int64(0)
		err := w.client.AppsV1().Deployments(space).Delete(ctx, name, metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			err = nil
		}
		return errors.Join(err, w.client.CoreV1().Pods(space).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &now}, metav1.ListOptions{LabelSelector: "app=" + name}))
	})
	if _, err := w.client.AppsV1().Deployments(space).Create(ctx, d, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	var pod *corev1.Pod
	err := until(ctx, "pod "+name+" on "+node, func() (bool, error) {
		list, err := w.client.CoreV1().Pods(space).List(ctx, metav1.ListOptions{LabelSelector: "app=" + name})
		if err != nil || len(list.Items) != 1 {
			return false, err
		}
		pod = &list.Items[0]
		return pod.Status.Phase == corev1.PodRunning, fmt.Errorf("it is %s", pod.Status.Phase)
	})
	return pod, err
}

// stuck pins a pod that no drain may evict until release is called.
func (w *world) stuck(ctx context.Context, node string) (pod *corev1.Pod, release func(context.Context) error, err error) {
	const name = "stuck"
	if pod, err = w.pin(ctx, name, node, 0); err != nil {
		return nil, nil, err
	}
	one := intstr.FromInt32(1)
	budgets := w.client.PolicyV1().PodDisruptionBudgets(space)
	release = func(ctx context.Context) error {
		if err := budgets.Delete(ctx, name, metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
			return err
		}
		return nil
	}
	w.later(release)
	if _, err := budgets.Create(ctx, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}},
	}, metav1.CreateOptions{}); err != nil {
		return nil, nil, err
	}
	return pod, release, until(ctx, "PodDisruptionBudget "+name, func() (bool, error) {
		b, err := budgets.Get(ctx, name, metav1.GetOptions{})
		return err == nil && b.Status.ObservedGeneration == b.Generation && b.Status.CurrentHealthy == 1, err
	})
}

// later is done before the next scenario, the last one first.
func (w *world) later(f func(context.Context) error) { w.undo = append(w.undo, f) }

func (w *world) note(format string, args ...any) {
	w.notes = append(w.notes, fmt.Sprintf(format, args...))
}

// scene begins a scenario.
func (w *world) scene(s scenario) {
	w.began, w.mark, w.limit = time.Now(), w.obs.Mark(), max(1, s.config.maxUnavailable)
	w.boots, w.foreign, w.notes = map[string]string{}, map[string]uint64{}, nil
	for name, n := range w.obs.Nodes() {
		w.boots[name] = n.BootID
	}
}

func (w *world) patchNode(ctx context.Context, client kubernetes.Interface, node string, change any) error {
	text, err := json.Marshal(change)
	if err != nil {
		return err
	}
	_, err = client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, text, metav1.PatchOptions{})
	return err
}

// annotate sets an annotation of a Node; nil removes it.
func (w *world) annotate(ctx context.Context, node, key string, value any) error {
	return w.patchNode(ctx, w.client, node, map[string]any{"metadata": map[string]any{"annotations": map[string]any{key: value}}})
}

func (w *world) setCordon(ctx context.Context, node string, on bool) (uint64, error) {
	text := fmt.Sprintf(`{"spec":{"unschedulable":%t}}`, on)
	n, err := w.client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, []byte(text), metav1.PatchOptions{})
	if err != nil {
		return 0, err
	}
	var revision uint64
	_, err = fmt.Sscan(n.ResourceVersion, &revision)
	return revision, err
}

// cordon is a person's: from now on, losing it is a fault.
func (w *world) cordon(ctx context.Context, node string) error {
	revision, err := w.setCordon(ctx, node, true)
	w.foreign[node] = revision
	return err
}

// dropSentinel takes back the host's wish for a reboot.
func (w *world) dropSentinel(node string) error {
	for _, f := range []string{"/run/reboot-required", "/run/reboot-required.pkgs"} {
		path, err := w.c.File(node, f)
		if errors.Is(err, cluster.ErrOff) {
			return err
		}
		if err == nil {
			err = os.Remove(path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (w *world) raise(nodes ...string) error {
	for _, n := range nodes {
		if err := w.c.RaiseSentinel(n); err != nil {
			return err
		}
	}
	return nil
}

// phase returns the first version since the scenario began in which the node is in the phase.
func (w *world) phase(ctx context.Context, node, phase string) (observe.Event, error) {
	return w.next(ctx, observe.Event{}, node+" to be "+phase, observe.InPhase(node, phase))
}

// next returns the first version after e that matches; all that came since the scenario began is looked at.
func (w *world) next(ctx context.Context, e observe.Event, what string, match func(observe.Event) bool) (observe.Event, error) {
	return w.obs.WaitAfter(ctx, w.mark, what, func(n observe.Event) bool { return n.Revision > e.Revision && match(n) })
}

// nextPhase returns the first version after e in which the same node is in the phase.
func (w *world) nextPhase(ctx context.Context, e observe.Event, phase string) (observe.Event, error) {
	what := phase
	if phase == observe.Idle {
		what = "idle"
	}
	return w.next(ctx, e, e.Node.Name+" to be "+what, observe.InPhase(e.Node.Name, phase))
}

// home waits until these nodes are back from a reboot: on a new boot, Ready, without a record, holding no slot; schedulable
// unless people had cordoned them.
func (w *world) home(ctx context.Context, nodes ...string) error {
	return w.obs.Wait(ctx, strings.Join(nodes, ", ")+" to be back from a reboot", func(all map[string]observe.Node) bool {
		slots := slices.Collect(maps.Values(w.obs.Slots()))
		for _, name := range nodes {
			n, ok := all[name]
			holds := slices.ContainsFunc(slots, func(s observe.Slot) bool { return s.Holder == name })
			if !ok || holds || n.BootID == w.boots[name] || !n.Ready || n.Phase != observe.Idle || n.Unschedulable != (w.foreign[name] != 0) {
				return false
			}
		}
		return true
	})
}

// never fails when something that matches happens within the time, counted from e.
func (w *world) never(ctx context.Context, e observe.Event, during time.Duration, what string, match func(observe.Event) bool) error {
	limited, cancel := context.WithTimeout(ctx, during)
	defer cancel()
	got, err := w.next(limited, e, what, match)
	if err == nil {
		return fmt.Errorf("%s, at %s", what, got.Time.Format(timeFormat))
	}
	return context.Cause(ctx)
}

// slotOf matches versions of a slot that this node holds.
func slotOf(node string) func(observe.Event) bool {
	return func(e observe.Event) bool { return e.Slot != nil && e.Slot.Exists && e.Slot.Holder == node }
}

// slotFreed matches versions of this slot in which it is not the node's any more.
func slotFreed(slot, node string) func(observe.Event) bool {
	return func(e observe.Event) bool { return e.Slot != nil && e.Slot.Name == slot && e.Slot.Holder != node }
}

// until asks again and again what no watch tells, until the answer is yes or the context ends; err says what is missing.
func until(ctx context.Context, what string, ok func() (bool, error)) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := ok()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx)), err)
		case <-tick.C:
		}
	}
}
