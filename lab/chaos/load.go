package chaos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"kubebaton.io/baton/lab/build"
	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/observe"
)

const (
	space     = "chaos" // of the workload
	blueName  = "blue"
	budget    = 3 // pods of blue that may be unavailable
	greenName = "green"
)

// raise makes nodes want a reboot, again and again: each of them soon after it has come to rest.
func (r *run) raise(running context.Context) {
	draw := rand.New(rand.NewPCG(r.Seed, 1)) //nolint:gosec // it has to be the same every time
	due := map[string]time.Time{}
	for pause(running, 200*time.Millisecond) {
		nodes := r.observer.Nodes()
		for name, n := range nodes {
			if n.Phase != observe.Idle {
				delete(due, name)
				continue
			}
			at, waits := due[name]
			switch {
			case !waits:
				due[name] = time.Now().Add(time.Duration(draw.Int64N(int64(3 * time.Second))))
			case time.Now().After(at):
				due[name] = time.Now().Add(8 * time.Second) // a cut may take the sentinel away before it is seen
				r.want(running, name, draw.IntN(5) == 0)
			}
		}
	}
}

// want raises the node's sentinel, or asks for a reboot as people do.
func (r *run) want(ctx context.Context, node string, byRequest bool) {
	var err error
	if byRequest {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		err = r.annotate(ctx, node, requestKey, "chaos "+time.Now().Format(time.TimeOnly))
	} else {
		err = r.cluster.RaiseSentinel(node)
	}
	// It is tried again soon. A machine that is off, or an API server that is away, is what this is all about.
	if err != nil && !byRequest && !errors.Is(err, cluster.ErrOff) && !errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil {
		r.say("wanting a reboot of %s: %v", node, err)
	}
}

// startWorkload starts what drains have to do with: pods that take a moment to end, a budget, and a pod without a controller.
func (r *run) startWorkload(ctx context.Context) error {
	_, err := r.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: space}}, metav1.CreateOptions{})
	if err = existing(err); err != nil {
		return err
	}
	labels := map[string]string{"app": blueName}
	replicas, few := int32(8), intstr.FromInt32(budget)
	_, err = r.client.AppsV1().Deployments(space).Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: blueName},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					Containers: []corev1.Container{app("--linger=1500ms")},
					TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{
						MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway,
						LabelSelector: &metav1.LabelSelector{MatchLabels: labels},
					}},
				},
			},
		},
	}, metav1.CreateOptions{})
	if err = existing(err); err != nil {
		return err
	}
	_, err = r.client.PolicyV1().PodDisruptionBudgets(space).Create(ctx, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: blueName},
		Spec:       policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &few, Selector: &metav1.LabelSelector{MatchLabels: labels}},
	}, metav1.CreateOptions{})
	if err = existing(err); err != nil {
		return err
	}
	node := r.first[r.Seed%uint64(len(r.first))]
	got, err := r.client.CoreV1().Pods(space).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: greenName},
		Spec: corev1.PodSpec{
			Containers:   []corev1.Container{app("--linger=0s")},
			NodeSelector: map[string]string{corev1.LabelHostname: node},
		},
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		got, err = r.client.CoreV1().Pods(space).Get(ctx, greenName, metav1.GetOptions{})
		node = got.Spec.NodeName
	}
	if err != nil {
		return err
	}
	r.green.mu.Lock()
	defer r.green.mu.Unlock()
	r.green.node, r.green.uid = node, string(got.UID)
	return nil
}

func app(args ...string) corev1.Container {
	return corev1.Container{Name: "app", Image: build.AppImage, Args: args, ImagePullPolicy: corev1.PullIfNotPresent}
}

// existing forgives what an earlier run in the same cluster made.
func existing(err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// green is the pod without a controller. Baton may not lose it; it goes with its Node when people delete that.
type green struct {
	mu        sync.Mutex
	node, uid string
	forgiven  bool
}

// forgive says that the Node is going to be deleted.
func (g *green) forgive(node string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgiven = g.forgiven || node == g.node
}

// greenLost says what became of the pod, "" when it is the same as ever or need not be.
func (r *run) greenLost(ctx context.Context) string {
	r.green.mu.Lock()
	defer r.green.mu.Unlock()
	if r.green.forgiven {
		return ""
	}
	p, err := r.client.CoreV1().Pods(space).Get(ctx, greenName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return "the pod without a controller is lost, and its Node was never deleted"
	case err != nil:
		return fmt.Sprintf("looking at the pod without a controller: %v", err)
	case string(p.UID) != r.green.uid:
		return "the pod without a controller is another one"
	case p.Status.Phase != corev1.PodRunning:
		return fmt.Sprintf("the pod without a controller is %s: %s", p.Status.Phase, p.Status.Message)
	}
	return ""
}

// workloadLeft fails unless the workload is whole.
func (r *run) workloadLeft(ctx context.Context) error {
	d, err := r.client.AppsV1().Deployments(space).Get(ctx, blueName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if d.Status.AvailableReplicas < *d.Spec.Replicas {
		return fmt.Errorf("%d of %d pods of Deployment %s are available", d.Status.AvailableReplicas, *d.Spec.Replicas, blueName)
	}
	return nil
}

// agentsLeft fails unless every node has its agent, of the last update, Ready.
func (r *run) agentsLeft(ctx context.Context) error {
	set, err := r.client.AppsV1().DaemonSets(observe.Namespace).Get(ctx, "baton-agent", metav1.GetOptions{})
	if err != nil {
		return err
	}
	want, st := int32(len(r.observer.Nodes())), set.Status //nolint:gosec // a handful
	if st.ObservedGeneration < set.Generation || slices.Min([]int32{st.DesiredNumberScheduled, st.UpdatedNumberScheduled, st.NumberAvailable}) < want {
		return fmt.Errorf("of %d agents %d are up to date and %d available", want, st.UpdatedNumberScheduled, st.NumberAvailable)
	}
	return nil
}
