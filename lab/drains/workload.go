package drains

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kubebaton.io/baton/lab/build"
)

const (
	namespace = "drains"
	workload  = "pods"
	fillTime  = 4 * time.Minute // for all pods to start
	grace     = 5               // seconds that a pod has after its sleep; it ends at the first SIGTERM
)

// ends are how the pods of a race end: those of the first of so many controllers at once, those of the next after a sleep of
// endStep, and so on.
type ends struct {
	name        string
	controllers int
}

const (
	manyEnds = 5
	endStep  = 5 // seconds
)

func atOnce() ends   { return ends{"at once", 1} }
func oneByOne() ends { return ends{fmt.Sprintf("over %d s", (manyEnds-1)*endStep), manyEnds} }

// prepare makes the workload's controllers, with no pods yet.
func (b *bench) prepare(ctx context.Context) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if _, err := b.client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating the namespace: %w", err)
	}
	for i := range manyEnds {
		if err := b.control(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func controller(i int) string { return fmt.Sprintf("%s-%d", workload, i) }

// control makes the ith controller.
func (b *bench) control(ctx context.Context, i int) error {
	var none int32
	no, sleep := false, int64(i*endStep)
	seconds := sleep + grace
	labels := map[string]string{"app": workload, "controller": controller(i)}
	container := corev1.Container{Name: "pause", Image: build.PauseImage}
	if sleep > 0 {
		container.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: sleep}}}
	}
	_, err := b.client.AppsV1().Deployments(namespace).Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: controller(i)},
		Spec: appsv1.DeploymentSpec{
			Replicas: &none,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{
				// As little as a pod can be: starting 200 of them is most of the time of a run.
				Containers:                    []corev1.Container{container},
				HostNetwork:                   true,
				AutomountServiceAccountToken:  &no,
				EnableServiceLinks:            &no,
				TerminationGracePeriodSeconds: &seconds,
			}},
		},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating the workload: %w", err)
	}
	return nil
}

// fill opens the node and returns when exactly n pods are there, all of them ready.
func (b *bench) fill(ctx context.Context, n int, e ends) error {
	if err := b.cordon(ctx, false); err != nil {
		return err
	}
	for i := range manyEnds {
		share := 0
		if i < e.controllers {
			share = (n + i) / e.controllers // of n, the later the more
		}
		scale := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: controller(i), Namespace: namespace}, Spec: autoscalingv1.ScaleSpec{Replicas: int32(share)}} //nolint:gosec // at most maxPods
		if _, err := b.client.AppsV1().Deployments(namespace).UpdateScale(ctx, controller(i), scale, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("scaling controller %d to %d: %w", i, share, err)
		}
	}
	return b.watch.wait(ctx, fmt.Sprintf("%d pods", n), func(lives []life) bool { return full(lives, n) })
}

// full tells that n pods are ready and no others are there.
func full(lives []life, n int) bool {
	for _, l := range lives {
		switch {
		case !l.gone.IsZero():
		case !l.ready || !l.ending.IsZero():
			return false
		default:
			n--
		}
	}
	return n == 0
}

func (b *bench) cordon(ctx context.Context, on bool) error {
	patch := fmt.Appendf(nil, `{"spec":{"unschedulable":%t}}`, on)
	if _, err := b.client.CoreV1().Nodes().Patch(ctx, nodeName, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("setting unschedulable of node %q to %t: %w", nodeName, on, err)
	}
	return nil
}
