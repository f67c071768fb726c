package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	appsv1 "k8s.io/api/apps/v1"

	"kubebaton.io/baton/lab/audit"
	"kubebaton.io/baton/lab/build"
	"kubebaton.io/baton/lab/observe"
)

const greenName = "green"

// green runs a pod that nobody re-creates, on n1.
func (p *play) green() *corev1.Pod {
	pods := p.client.CoreV1().Pods(space)
	p.later(func(ctx context.Context) error {
		return forgiven(pods.Delete(ctx, greenName, *metav1.NewDeleteOptions(0)))
	})
	_, err := pods.Create(p.ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: greenName, Labels: map[string]string{"app": greenName}},
		Spec: corev1.PodSpec{
			NodeSelector: map[string]string{corev1.LabelHostname: n1},
			Containers:   []corev1.Container{{Name: "app", Image: build.AppImage, ImagePullPolicy: corev1.PullIfNotPresent}},
		},
	}, metav1.CreateOptions{})
	p.must(err)
	return p.running(greenName)
}

// running waits until a pod runs.
func (p *play) running(name string) (pod *corev1.Pod) {
	p.until("pod "+name+" to run", func() (bool, error) {
		var err error
		pod, err = p.client.CoreV1().Pods(space).Get(p.ctx, name, metav1.GetOptions{})
		return err == nil && pod.Status.Phase == corev1.PodRunning && podReady(pod), err
	})
	return pod
}

func podReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// endGreen is its owner's doing.
func (p *play) endGreen() {
	p.must(p.client.CoreV1().Pods(space).Delete(p.ctx, greenName, *metav1.NewDeleteOptions(0)))
}

func greenBlocks(p *play) {
	p.green()
	p.raise(n1, n2)
	p.because(p.then(moment{}, waits(n1, "unmanaged-pod")), "unmanaged-pod", space+"/"+greenName)
	p.home(n2)
	p.endGreen()
	p.home(n1)
}

func greenIsAwaited(p *play) {
	p.green()
	draining := p.bring(n1, observe.Draining)
	p.never(draining, 3*time.Second, in(n1, observe.Rebooting))
	p.endGreen()
	p.home(n1)
}

func greenRidesThrough(p *play) {
	was := p.green()
	p.raise(n1)
	p.home(n1)
	p.same(was)
}

func greenIsDeleted(p *play) {
	p.green()
	p.raise(n1)
	p.home(n1)
	if _, err := p.client.CoreV1().Pods(space).Get(p.ctx, greenName, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		p.failf("it is still there: %v", err)
	}
}

// same fails unless a pod is the one that it was, and runs again on its node.
func (p *play) same(was *corev1.Pod) {
	now := p.running(was.Name)
	if now.UID != was.UID || now.Spec.NodeName != was.Spec.NodeName || now.Status.ContainerStatuses[0].RestartCount == 0 {
		p.failf("pod %s is %s on %s, restarted %d times; it was %s on %s", was.Name, now.UID, now.Spec.NodeName,
			now.Status.ContainerStatuses[0].RestartCount, was.UID, was.Spec.NodeName)
	}
}

// run makes a Deployment, waits until all of its pods are ready, and ends it with the scenario.
func (p *play) run(d *appsv1.Deployment) {
	sets := p.client.AppsV1().Deployments(space)
	p.later(func(ctx context.Context) error {
		err := sets.Delete(ctx, d.Name, metav1.DeleteOptions{})
		now := int64(0)
		return errors.Join(forgiven(err), p.client.CoreV1().Pods(space).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &now}, metav1.ListOptions{LabelSelector: "app=" + d.Name}))
	})
	_, err := sets.Create(p.ctx, d, metav1.CreateOptions{})
	p.must(err)
	p.available(d.Name)
}

func (p *play) available(name string) {
	p.until("Deployment "+name+" to be available", func() (bool, error) {
		d, err := p.client.AppsV1().Deployments(space).Get(p.ctx, name, metav1.GetOptions{})
		return err == nil && d.Status.ObservedGeneration == d.Generation && d.Status.AvailableReplicas == *d.Spec.Replicas, err
	})
}

// podsOn are the pods of a Deployment on a node.
func (p *play) podsOn(node, app string) []corev1.Pod {
	l, err := p.client.CoreV1().Pods(space).List(p.ctx, metav1.ListOptions{LabelSelector: "app=" + app, FieldSelector: "spec.nodeName=" + node})
	p.must(err)
	return l.Items
}

// pairUnderOneBudget: both pods are on the node, and one of them must be ready at any time.
func pairUnderOneBudget(p *play) {
	const name = "pair"
	d := deployment(name, 2)
	d.Spec.Template.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 100, Preference: corev1.NodeSelectorTerm{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{n1}}},
		}}},
	}}
	p.run(d)
	if n := len(p.podsOn(n1, name)); n != 2 {
		p.failf("%d of the 2 pods are on %s", n, n1)
	}
	budgets := p.client.PolicyV1().PodDisruptionBudgets(space)
	p.later(func(ctx context.Context) error { return forgiven(budgets.Delete(ctx, name, metav1.DeleteOptions{})) })
	one := intstr.FromInt32(1)
	_, err := budgets.Create(p.ctx, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}},
	}, metav1.CreateOptions{})
	p.must(err)
	p.until("PodDisruptionBudget "+name, func() (bool, error) {
		b, err := budgets.Get(p.ctx, name, metav1.GetOptions{})
		return err == nil && b.Status.ObservedGeneration == b.Generation && b.Status.DisruptionsAllowed == 1, err
	})
	p.raise(n1)
	p.home(n1)
	granted, refused := 0, 0
	for _, e := range p.evictions(p.began) {
		switch {
		case !strings.HasPrefix(e.Pod, name+"-"):
		case e.Code < 300:
			granted++
		default:
			refused++
		}
	}
	if granted != 2 {
		p.failf("%d evictions of the 2 pods were granted", granted)
	}
	p.note("one after the other: %d requests were refused meanwhile", refused)
}

// evictions are those of the scenarios' pods that were asked for since then.
func (p *play) evictions(since time.Time) []audit.Eviction {
	all, err := audit.Evictions(p.c.AuditLog(), since, time.Time{})
	p.must(err)
	return slices.DeleteFunc(all, func(e audit.Eviction) bool { return e.Namespace != space })
}

// quickReboots: pods may be away for a little longer than the node is expected to be.
func quickReboots(p *play) {
	const name = "spread"
	p.permit("quick-reboot")
	m := moment{}
	for len(p.downtimes(n1)) < 3 {
		p.raise(n1)
		m = p.home(n1)
	}
	most := (slices.Max(p.downtimes(n1))*3/2 + 15*time.Second).Truncate(time.Second)
	d := deployment(name, nodeCount)
	d.Spec.Template.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
			TopologyKey: corev1.LabelHostname, LabelSelector: d.Spec.Selector,
		}},
	}}
	seconds := int64(most.Seconds())
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		d.Spec.Template.Spec.Tolerations = append(d.Spec.Template.Spec.Tolerations, corev1.Toleration{
			Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds,
		})
	}
	p.run(d)
	was := p.green()

	pod := p.podsOn(n1, name)[0]
	since := time.Now()
	p.raise(n1)
	quick := p.then(m, in(n1, observe.Rebooting))
	if !strings.Contains(quick.record.Message, ", quick: ") {
		p.failf("the node is quick, and is drained: %s", quick.record.Message)
	}
	p.home(n1)
	p.same(&pod)
	p.same(was)
	if e := p.evictions(since); len(e) > 0 {
		p.failf("a quick reboot, and evictions were asked for: %+v", e)
	}
	p.note("%s", quick.record.Message)

	p.atBoot(n1, fmt.Sprintf("sleep %d", seconds))
	p.raise(n1)
	m = p.home(n1) // nobody foresaw it
	p.available(name)
	pod = p.podsOn(n1, name)[0]
	p.raise(n1)
	slow := p.then(m, in(n1, observe.Rebooting))
	if !strings.Contains(slow.record.Message, "not quick") || !slices.ContainsFunc(p.evictions(slow.Time.Add(-time.Minute)), func(e audit.Eviction) bool { return e.Pod == pod.Name }) {
		p.failf("a node that was slow is not drained: %s", slow.record.Message)
	}
	p.note("%s", slow.record.Message)
	p.home(n1)
	p.same(was)
}

// downtimes are those of a node's history.
func (p *play) downtimes(node string) []time.Duration {
	text := p.obs.Nodes()[node].History
	if text == "" {
		return nil
	}
	var h struct {
		Cycles []struct{ Downtime time.Duration }
	}
	p.must(json.Unmarshal([]byte(text), &h))
	var all []time.Duration
	for _, c := range h.Cycles {
		if c.Downtime > 0 {
			all = append(all, c.Downtime)
		}
	}
	return all
}

// permit applies what a component of deploy/ permits.
func (p *play) permit(component string) {
	file := filepath.Join(p.Apply, "..", "components", component, "rbac.yaml")
	p.later(func(ctx context.Context) error {
		out, err := p.c.Command(ctx, "kubectl", "delete", "--ignore-not-found", "-f", file).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	if out, err := p.c.Command(p.ctx, "kubectl", "apply", "-f", file).CombinedOutput(); err != nil {
		p.failf("applying %s: %v: %s", file, err, out)
	}
}

// localVolume: what is bound to its node comes back with it.
func localVolume(p *play) {
	const name, path = "local", "/var/lib/e2e-local"
	p.exec(n1, "mkdir", "-p", path)
	core, apps, class := p.client.CoreV1(), p.client.AppsV1(), p.client.StorageV1().StorageClasses()
	p.later(func(ctx context.Context) error {
		return errors.Join(
			forgiven(apps.StatefulSets(space).Delete(ctx, name, metav1.DeleteOptions{})),
			forgiven(core.Pods(space).Delete(ctx, name+"-0", *metav1.NewDeleteOptions(0))),
			forgiven(core.PersistentVolumeClaims(space).Delete(ctx, "data-"+name+"-0", metav1.DeleteOptions{})),
			forgiven(core.PersistentVolumes().Delete(ctx, name, metav1.DeleteOptions{})), forgiven(class.Delete(ctx, name, metav1.DeleteOptions{})))
	})
	_, err := class.Create(p.ctx, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: "kubernetes.io/no-provisioner"}, metav1.CreateOptions{})
	p.must(err)
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	_, err = core.PersistentVolumes().Create(p.ctx, &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		Capacity: size, AccessModes: modes, StorageClassName: name, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
		PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path}},
		NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{n1}}},
		}}}},
	}}, metav1.CreateOptions{})
	p.must(err)
	like := deployment(name, 1)
	like.Spec.Template.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	class1 := name
	_, err = apps.StatefulSets(space).Create(p.ctx, &appsv1.StatefulSet{ObjectMeta: like.ObjectMeta, Spec: appsv1.StatefulSetSpec{
		Replicas: like.Spec.Replicas, Selector: like.Spec.Selector, Template: like.Spec.Template,
		VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: modes, StorageClassName: &class1, Resources: corev1.VolumeResourceRequirements{Requests: size},
		}}},
	}}, metav1.CreateOptions{})
	p.must(err)
	was := p.running(name + "-0")
	p.raise(n1)
	p.home(n1)
	if now := p.running(name + "-0"); now.UID == was.UID || now.Spec.NodeName != n1 {
		p.failf("the pod was not evicted, or is on %s", now.Spec.NodeName)
	}
	p.note("the pod was Pending until its node was back")
}

// finalizerHolds: a pod has ended, and somebody has not let go of it.
func finalizerHolds(p *play) {
	const finalizer = "e2e.kubebaton.io/keep"
	pod := p.pin("kept", n1, 0)
	mark := func(ctx context.Context, list string) error {
		_, err := p.client.CoreV1().Pods(space).Patch(ctx, pod.Name, types.MergePatchType, []byte(`{"metadata":{"finalizers":`+list+`}}`), metav1.PatchOptions{})
		return forgiven(err)
	}
	p.later(func(ctx context.Context) error { return mark(ctx, "null") })
	p.must(mark(p.ctx, `["`+finalizer+`"]`))
	backoff := p.then(p.bring(n1, observe.Draining), in(n1, observe.Backoff))
	p.because(backoff, "terminating", pod.Name, finalizer)
	p.schedulable(backoff)
	p.must(mark(p.ctx, "null"))
	p.home(n1)
}

const excludeLabel = corev1.LabelNodeExcludeBalancers

// balancersLeave: nothing is evicted before they had their time.
func balancersLeave(p *play) {
	draining := p.bring(n1, observe.Draining)
	n, err := p.client.CoreV1().Nodes().Get(p.ctx, n1, metav1.GetOptions{})
	p.must(err)
	if n.Labels[excludeLabel] != "true" {
		p.failf("the node is cordoned, and load balancers may send to it")
	}
	p.home(n1)
	for _, e := range p.evictions(p.began) {
		if after := e.Time.Sub(draining.Time); after < balancersTime-time.Second {
			p.failf("%s was evicted after %s", e.Pod, after)
		}
	}
	if n, err = p.client.CoreV1().Nodes().Get(p.ctx, n1, metav1.GetOptions{}); err == nil {
		if _, there := n.Labels[excludeLabel]; there {
			err = errors.New("the node is back, and load balancers are kept away")
		}
	}
	p.must(err)
}

const balancersTime = 5 * time.Second
