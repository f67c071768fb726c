package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
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
	waitingKey     = "kubebaton.io/waiting."
	pendingTaint   = "kubebaton.io/reboot-pending"

	configName, configKey = "baton-config", "config.yaml"
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
	robbed  string            // the node whose slot people have taken away by force
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
	if w.obs, err = observe.StartBehind(ctx, c); err != nil {
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
func (p *play) pin(name, node string, linger time.Duration) *corev1.Pod {
	d := deployment(name, 1, "--linger="+linger.String())
	d.Spec.Template.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node}
	p.later(func(ctx context.Context) error {
		now := int64(0)
		err := p.client.AppsV1().Deployments(space).Delete(ctx, name, metav1.DeleteOptions{})
		return errors.Join(forgiven(err), p.client.CoreV1().Pods(space).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &now}, metav1.ListOptions{LabelSelector: "app=" + name}))
	})
	_, err := p.client.AppsV1().Deployments(space).Create(p.ctx, d, metav1.CreateOptions{})
	p.must(err)
	var pod *corev1.Pod
	p.until("pod "+name+" on "+node, func() (bool, error) {
		list, err := p.client.CoreV1().Pods(space).List(p.ctx, metav1.ListOptions{LabelSelector: "app=" + name})
		if err != nil || len(list.Items) != 1 {
			return false, err
		}
		pod = &list.Items[0]
		return pod.Status.Phase == corev1.PodRunning, fmt.Errorf("it is %s", pod.Status.Phase)
	})
	return pod
}

// stuck pins a pod that no drain may evict until release is called.
func (p *play) stuck(node string) (pod *corev1.Pod, release func()) {
	const name = "stuck"
	pod = p.pin(name, node, 0)
	one := intstr.FromInt32(1)
	budgets := p.client.PolicyV1().PodDisruptionBudgets(space)
	end := func(ctx context.Context) error { return forgiven(budgets.Delete(ctx, name, metav1.DeleteOptions{})) }
	p.later(end)
	_, err := budgets.Create(p.ctx, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}},
	}, metav1.CreateOptions{})
	p.must(err)
	p.until("PodDisruptionBudget "+name, func() (bool, error) {
		b, err := budgets.Get(p.ctx, name, metav1.GetOptions{})
		return err == nil && b.Status.ObservedGeneration == b.Generation && b.Status.CurrentHealthy == 1, err
	})
	return pod, func() { p.must(end(p.ctx)) }
}

// draining brings a node into a drain that does not end until release is called.
func (p *play) draining(node string) (m moment, release func()) {
	_, release = p.stuck(node)
	return p.bring(node, observe.Draining), release
}

// later is done when the scenario is over, the last one first.
func (w *world) later(f func(context.Context) error) { w.undo = append(w.undo, f) }

func (w *world) note(format string, args ...any) {
	w.notes = append(w.notes, fmt.Sprintf(format, args...))
}

// observeAnew begins a new log, after the API server was set back: its counter of versions begins anew too. What the old one has
// seen is judged now.
func (w *world) observeAnew(ctx context.Context) error {
	if err := w.judge(); err != nil {
		return err
	}
	w.obs.Stop()
	obs, err := observe.StartBehind(context.WithoutCancel(ctx), w.c) // it outlives the scenario
	if err != nil {
		return err
	}
	w.obs, w.mark = obs, 0
	return nil
}

// scene begins a scenario.
func (w *world) scene(s scenario) {
	w.began, w.mark, w.limit = time.Now(), w.obs.Mark(), max(1, s.config.maxUnavailable)
	w.boots, w.foreign, w.notes, w.robbed = map[string]string{}, map[string]uint64{}, nil, ""
	for name, n := range w.obs.Nodes() {
		w.boots[name] = n.BootID
	}
}

// forgiven is an error, unless it says that there is nothing any more to take something off.
func forgiven(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
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
	return w.patchNode(ctx, w.client, node, annotation(key, value))
}

func annotation(key string, value any) map[string]any {
	return map[string]any{"metadata": map[string]any{"annotations": map[string]any{key: value}}}
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
func (p *play) cordon(node string) {
	revision, err := p.setCordon(p.ctx, node, true)
	p.must(err)
	p.foreign[node] = revision
}

// dropSentinel takes back the host's wish for a reboot.
func (w *world) dropSentinel(node string) error {
	for _, f := range []string{"/run/reboot-required", "/run/reboot-required.pkgs"} {
		if err := w.remove(node, f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// until asks again and again what no watch tells, until the answer is yes or the context ends; err says what is missing.
func until(ctx context.Context, what string, ok func() (bool, error)) error {
	return cluster.Until(ctx, what, 50*time.Millisecond, ok)
}
