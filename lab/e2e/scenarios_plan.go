package e2e

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kubebaton.io/baton/lab/audit"
)

// planned are rules under which each of the pods of asPlanned goes another way.
const (
	youth   = 20 * time.Second
	planned = "emptyDir: ride-through, jobs: wait, jobTimeout: 10s, annotatedPods: ride-through, minPodAge: 20s, " +
		"rules: [{podSelector: {matchLabels: {app: " + greenName + "}}, do: delete}, {podSelector: {matchLabels: {app: loose}}, annotatedPods: evict}]"
)

// asPlanned holds the drain to the plan that `baton-agent plan` prints before.
func asPlanned(p *play) {
	want := map[string]string{
		"plain":   "evict controller",
		"young":   "wait age",
		"told":    "ride-through pod-annotation",
		"spared":  "ride-through pod-annotation",
		"loose":   "evict pod-annotation", // spared but for a rule
		"scratch": "ride-through empty-dir",
		"task":    "wait job",
		greenName: "evict rule",
	}
	p.single("plain", nil)
	p.single("told", func(t *corev1.PodTemplateSpec) {
		t.Annotations = map[string]string{"kubebaton.io/eviction": "ride-through"}
	})
	for _, name := range []string{"spared", "loose"} {
		p.single(name, func(t *corev1.PodTemplateSpec) {
			t.Annotations = map[string]string{"karpenter.sh/do-not-disrupt": "true"}
		})
	}
	p.single("scratch", func(t *corev1.PodTemplateSpec) { t.Spec.Volumes = []corev1.Volume{{Name: "data"}} }) // an emptyDir
	p.task("task")
	p.green()
	p.pause(youth)
	p.single("young", nil)

	was := p.podsOf(n1)
	out, err := p.c.Command(p.ctx, "kubectl", "-n", batonSpace, "exec", p.agentOf(n1).Name, "--", "/baton-agent", "plan").Output()
	p.must(err)
	told := decisions(string(out))
	for app, decision := range want {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(told)), func(pod types.NamespacedName) bool {
			return pod.Namespace == space && was[pod].Labels["app"] == app && told[pod] == decision
		}) {
			p.failf("the plan does not say %q of %s:\n%s", decision, app, out)
		}
	}
	p.raise(n1)
	p.home(n1)

	evictions, err := audit.Evictions(p.c.AuditLog(), p.began, time.Time{})
	p.must(err)
	is := p.podsOf(n1)
	for pod, decision := range told {
		evicted := slices.ContainsFunc(evictions, func(e audit.Eviction) bool {
			return e.Namespace == pod.Namespace && e.Pod == pod.Name && e.Code < 300
		})
		goes := strings.HasPrefix(decision, "evict ") || strings.HasPrefix(decision, "wait ")
		if evicted != goes || (is[pod].UID == was[pod].UID) == goes {
			p.failf("the plan said %q of %s; it was evicted: %t, and is %s where it was %s", decision, pod, evicted, is[pod].UID, was[pod].UID)
		}
	}
	p.note("%d pods of the node went as the plan had said", len(told))
}

// decisions reads decision and reason of each pod in what `baton-agent plan` prints.
func decisions(text string) map[types.NamespacedName]string {
	found := map[types.NamespacedName]string{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 4 {
			continue
		}
		if ns, name, ok := strings.Cut(fields[1], "/"); ok {
			found[types.NamespacedName{Namespace: ns, Name: name}] = fields[0] + " " + fields[3]
		}
	}
	return found
}

// podsOf are all pods on a node.
func (p *play) podsOf(node string) map[types.NamespacedName]corev1.Pod {
	l, err := p.client.CoreV1().Pods(metav1.NamespaceAll).List(p.ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + node})
	p.must(err)
	pods := map[types.NamespacedName]corev1.Pod{}
	for _, pod := range l.Items {
		pods[types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}] = pod
	}
	return pods
}

// single runs a Deployment of one pod on n1.
func (p *play) single(name string, edit func(*corev1.PodTemplateSpec)) {
	d := deployment(name, 1)
	d.Spec.Template.Spec.NodeSelector = map[string]string{corev1.LabelHostname: n1}
	if edit != nil {
		edit(&d.Spec.Template)
	}
	p.run(d)
}

// task runs the pod of a Job on n1, which does not end by itself.
func (p *play) task(name string) {
	jobs := p.client.BatchV1().Jobs(space)
	p.later(func(ctx context.Context) error {
		background, now := metav1.DeletePropagationBackground, int64(0)
		return errors.Join(forgiven(jobs.Delete(ctx, name, metav1.DeleteOptions{PropagationPolicy: &background})),
			p.client.CoreV1().Pods(space).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: &now}, metav1.ListOptions{LabelSelector: "app=" + name}))
	})
	template := deployment(name, 1).Spec.Template
	template.Spec.RestartPolicy = corev1.RestartPolicyNever
	template.Spec.NodeSelector = map[string]string{corev1.LabelHostname: n1}
	_, err := jobs.Create(p.ctx, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: batchv1.JobSpec{Template: template}}, metav1.CreateOptions{})
	p.must(err)
	p.until("the pod of Job "+name+" to run", func() (bool, error) {
		j, err := jobs.Get(p.ctx, name, metav1.GetOptions{})
		return err == nil && j.Status.Ready != nil && *j.Status.Ready == 1, err
	})
}
