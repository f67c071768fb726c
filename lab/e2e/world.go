package e2e

import (
	"bufio"
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

	"golang.org/x/sync/errgroup"
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
	"kubebaton.io/baton/lab/observe"
)

const (
	batonSpace = observe.Namespace
	space      = "e2e" // of the scenarios' pods
	agentLabel = "app.kubernetes.io/component=agent"

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
func (w *world) stuck(ctx context.Context, name, node string) (pod *corev1.Pod, release func(context.Context) error, err error) {
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

// settle undoes what the last scenario did and waits until the cluster is as it was at the start.
func (w *world) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*settleTime)
	defer cancel()
	err := w.trySettle(ctx)
	if err != nil && w.dirty && ctx.Err() == nil {
		err = errors.Join(w.force(ctx), w.trySettle(ctx))
	}
	if err == nil {
		w.dirty = false
	}
	return err
}

func (w *world) trySettle(ctx context.Context) error {
	for _, f := range slices.Backward(w.undo) {
		if err := f(ctx); err != nil {
			return fmt.Errorf("undoing the last scenario: %w", err)
		}
	}
	w.undo = nil
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	return until(ctx, "the cluster to settle", func() (bool, error) {
		left := errors.Join(w.tidy(ctx), w.unsettled(ctx))
		return left == nil, left
	})
}

// tidy takes away from the nodes what a scenario put there.
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
		case n.Phase == observe.Failed:
			faults = append(faults, w.annotate(ctx, name, acknowledgeKey, "e2e"))
		case n.Phase == observe.Idle && n.Unschedulable:
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

// force puts the cluster back after a failure, past the agents: so that one failure does not make the next ones.
func (w *world) force(ctx context.Context) error {
	fmt.Fprintln(w.Stdout, "the cluster did not settle: records and slots are removed by hand")
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

// registerAgain makes a kubelet register its node anew. The agent's pod goes with the Node that it was bound to.
func (w *world) registerAgain(ctx context.Context, node string) error {
	now := int64(0)
	pods, err := w.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + node})
	if err != nil {
		return err
	}
	for _, p := range pods.Items {
		if err := w.client.CoreV1().Pods(p.Namespace).Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	mark := w.obs.Mark()
	if _, err := w.c.Exec(ctx, node, "systemctl", "restart", "kubelet"); err != nil {
		return err
	}
	_, err = w.obs.WaitAfter(ctx, mark, node+" to register", func(e observe.Event) bool { return e.Node != nil && e.Node.Name == node && e.Node.Exists })
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

// settings of Baton that scenarios need to differ.
type settings struct {
	maxUnavailable     int
	drainTimeout, soak time.Duration
}

// deletedGrace is short here so that the scenario is; it is 30 s by default.
const deletedGrace = 10 * time.Second

func (s settings) text() string {
	if s.drainTimeout == 0 {
		s.drainTimeout = 2 * time.Minute
	}
	return fmt.Sprintf(`apiVersion: kubebaton.io/v1alpha1
kind: RebootConfiguration
maxUnavailable: %d
gateInterval: 10s
deletedGrace: %s
nominationTimeout: 10s
maxReboots24h: 100
drain: {timeout: %s}
verify: {timeout: 2m, soak: %s}
backoff: {initial: 2s, max: 10s}
`, max(1, s.maxUnavailable), deletedGrace, s.drainTimeout, s.soak)
}

// configure puts settings in force and returns when every agent has said that they are.
func (w *world) configure(ctx context.Context, s settings) error {
	text := s.text()
	if text == w.inForce {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	w.inForce = ""
	began := time.Now()
	maps := w.client.CoreV1().ConfigMaps(batonSpace)
	m, err := maps.Get(ctx, "baton-config", metav1.GetOptions{})
	if err != nil {
		return err
	}
	if m.Data["config.yaml"] == text {
		w.inForce = text // of an earlier run in this cluster; all agents started or settled since
		return nil
	}
	m.Data = map[string]string{"config.yaml": text}
	if _, err := maps.Update(ctx, m, metav1.UpdateOptions{}); err != nil {
		return err
	}
	pods, err := w.client.CoreV1().Pods(batonSpace).List(ctx, metav1.ListOptions{LabelSelector: agentLabel})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range pods.Items {
		g.Go(func() error { return w.takenUp(ctx, p.Name, began) })
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("putting the configuration in force: %w", err)
	}
	w.inForce = text
	return nil
}

// takenUp waits until an agent logs that a configuration newer than began is in force. By itself a kubelet brings a changed
// ConfigMap to its pods within a minute or so; for a pod that changes it looks at once.
func (w *world) takenUp(ctx context.Context, pod string, began time.Time) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	said := make(chan error, 1)
	go func() { said <- w.saysInForce(ctx, pod, began) }()
	touch := time.NewTicker(2 * time.Second) // the kubelet's own watch of the ConfigMap may be behind the first time
	defer touch.Stop()
	for {
		text := fmt.Sprintf(`{"metadata":{"annotations":{"e2e.kubebaton.io/touched":%q}}}`, time.Now().Format(time.RFC3339Nano))
		if _, err := w.client.CoreV1().Pods(batonSpace).Patch(ctx, pod, types.MergePatchType, []byte(text), metav1.PatchOptions{}); err != nil {
			return err
		}
		select {
		case err := <-said:
			return err
		case <-touch.C:
		}
	}
}

// saysInForce follows the log of an agent. A kubelet may end that at any time: then it is followed anew.
func (w *world) saysInForce(ctx context.Context, pod string, began time.Time) error {
	since := metav1.NewTime(began.Truncate(time.Second))
	options := &corev1.PodLogOptions{Container: "agent", Follow: true, SinceTime: &since}
	return until(ctx, "agent "+pod+" to say that the configuration is in force", func() (bool, error) {
		log, err := w.client.CoreV1().Pods(batonSpace).GetLogs(pod, options).Stream(ctx)
		if err != nil {
			return false, err
		}
		defer log.Close()
		lines := bufio.NewScanner(log)
		for lines.Scan() {
			var line struct {
				Time time.Time
				Msg  string
			}
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "configuration in force" && line.Time.After(began) {
				return true, nil
			}
		}
		return false, lines.Err()
	})
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
