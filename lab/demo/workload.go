package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kubebaton.io/baton/lab/build"
	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/observe"
)

const (
	namespace  = "demo"
	replicas   = 9
	configName = "baton-config"
	config     = `apiVersion: kubebaton.io/v1alpha1
kind: RebootConfiguration
drain:
  unmanagedPods: ride-through
`
)

// startWorkload returns when blue and green run.
func (d *demo) startWorkload(ctx context.Context) error {
	client := d.cluster.Client()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if _, err := client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("starting the workload: %w", err)
	}
	err := until(ctx, "the namespace's service account", func() (bool, error) {
		_, err := client.CoreV1().ServiceAccounts(namespace).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, err
	})
	if err != nil {
		return err
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "green", Labels: map[string]string{"app": "green"}}, Spec: podSpec("green")}
	if _, err := client.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("starting green: %w", err)
	}
	return errors.Join(d.startBlue(ctx), until(ctx, "green to run", func() (bool, error) {
		green, err := d.green(ctx)
		return green.Running, err
	}))
}

func podSpec(app string) corev1.PodSpec {
	return corev1.PodSpec{
		Containers: []corev1.Container{{Name: "app", Image: build.AppImage}},
		// ScheduleAnyway: a cordoned node would count as an empty place, and nothing could go elsewhere.
		TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{
			MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway,
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}},
		}},
	}
}

func (d *demo) startBlue(ctx context.Context) error {
	labels := map[string]string{"app": "blue"}
	count := int32(replicas)
	blue := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "blue"}, Spec: appsv1.DeploymentSpec{
		Replicas: &count,
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: podSpec("blue")},
	}}
	if _, err := d.cluster.Client().AppsV1().Deployments(namespace).Create(ctx, blue, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("starting blue: %w", err)
	}
	return d.waitBlue(ctx)
}

func (d *demo) waitBlue(ctx context.Context) error {
	return until(ctx, "blue to be whole", func() (bool, error) {
		blue, err := d.cluster.Client().AppsV1().Deployments(namespace).Get(ctx, "blue", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		return blue.Status.ReadyReplicas == replicas, fmt.Errorf("%d of %d ready", blue.Status.ReadyReplicas, replicas)
	})
}

// respread starts blue anew, so that every node has its share again.
func (d *demo) respread(ctx context.Context) error {
	client := d.cluster.Client()
	foreground := metav1.DeletePropagationForeground
	err := client.AppsV1().Deployments(namespace).Delete(ctx, "blue", metav1.DeleteOptions{PropagationPolicy: &foreground})
	if err != nil {
		return fmt.Errorf("removing blue: %w", err)
	}
	if err := until(ctx, "blue to be gone", func() (bool, error) {
		_, err := client.AppsV1().Deployments(namespace).Get(ctx, "blue", metav1.GetOptions{})
		return apierrors.IsNotFound(err), err
	}); err != nil {
		return err
	}
	return d.startBlue(ctx)
}

// Green is what is known of the pod without a controller, before the rollout and after it.
type Green struct {
	Node        string `json:"node"`
	UID         string `json:"uidBefore"`
	NewUID      string `json:"uidAfter"` // "": lost
	Restarts    int32  `json:"restartsBefore"`
	NewRestarts int32  `json:"restartsAfter"`
	Running     bool   `json:"-"`
}

// green looks at the pod; one that is lost is no error.
func (d *demo) green(ctx context.Context) (Green, error) {
	pod, err := d.cluster.Client().CoreV1().Pods(namespace).Get(ctx, "green", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return Green{}, nil
	}
	if err != nil {
		return Green{}, fmt.Errorf("looking at green: %w", err)
	}
	g := Green{Node: pod.Spec.NodeName, UID: string(pod.UID), Running: pod.Status.Phase == corev1.PodRunning}
	for _, s := range pod.Status.ContainerStatuses {
		g.Restarts += s.RestartCount
	}
	return g, nil
}

// configure replaces the agents' configuration and returns how long it took until all of them follow it, without a restart.
func (d *demo) configure(ctx context.Context) (time.Duration, error) {
	client := d.cluster.Client()
	before, err := d.agents(ctx)
	if err != nil {
		return 0, err
	}
	configs := client.CoreV1().ConfigMaps(observe.Namespace)
	old, err := configs.Get(ctx, configName, metav1.GetOptions{})
	if err != nil {
		return 0, fmt.Errorf("reading the configuration: %w", err)
	}
	old.Data = map[string]string{"config.yaml": config}
	start := time.Now()
	if _, err := configs.Update(ctx, old, metav1.UpdateOptions{}); err != nil {
		return 0, fmt.Errorf("replacing the configuration: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("no agent reads a changed configuration"))
	defer cancel()
	group, groupCtx := errgroup.WithContext(ctx)
	for pod := range before {
		// A kubelet brings a changed ConfigMap when it looks at the pod next, within a minute; a changed pod it looks at now.
		nudge := fmt.Appendf(nil, `{"metadata":{"annotations":{"lab.kubebaton.io/nudge":%q}}}`, start.Format(time.RFC3339))
		if _, err := client.CoreV1().Pods(observe.Namespace).Patch(ctx, pod, types.MergePatchType, nudge, metav1.PatchOptions{}); err != nil {
			return 0, fmt.Errorf("making the kubelet look at %s: %w", pod, err)
		}
		group.Go(func() error { return d.waitConfigured(groupCtx, pod, start) })
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	took := time.Since(start)
	after, err := d.agents(ctx)
	if err == nil && !maps.Equal(before, after) {
		err = fmt.Errorf("an agent was restarted by the change of its configuration: containers before %v, after %v", before, after)
	}
	return took, err
}

// agents are the pods of the agents, with their containers.
func (d *demo) agents(ctx context.Context) (map[string]string, error) {
	pods, err := d.cluster.Client().CoreV1().Pods(observe.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("looking for the agents: %w", err)
	}
	containers := map[string]string{}
	for _, p := range pods.Items {
		for _, s := range p.Status.ContainerStatuses {
			containers[p.Name] = s.ContainerID
		}
	}
	return containers, nil
}

// waitConfigured reads the agent's log until it says that a configuration is in force that it read after start.
func (d *demo) waitConfigured(ctx context.Context, pod string, start time.Time) error {
	since := metav1.NewTime(start)
	log, err := d.cluster.Client().CoreV1().Pods(observe.Namespace).
		GetLogs(pod, &corev1.PodLogOptions{Follow: true, SinceTime: &since}).Stream(ctx)
	if err != nil {
		return fmt.Errorf("reading the log of %s: %w", pod, err)
	}
	defer func() { _ = log.Close() }() // it was read only
	for lines := bufio.NewScanner(log); lines.Scan(); {
		var line struct {
			Time time.Time
			Msg  string
		}
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "configuration in force" && line.Time.After(start) {
			return nil
		}
	}
	return fmt.Errorf("waiting for %s to take up the changed configuration: %w", pod, context.Cause(ctx))
}

// until asks again and again, for at most two minutes.
func until(ctx context.Context, what string, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return cluster.Until(ctx, what, 100*time.Millisecond, ok)
}
