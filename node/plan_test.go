package node

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// pod returns a running, ready pod of namespace shop, changed by edits.
func pod(name string, edits ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-" + name)},
		Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways, Containers: []corev1.Container{{Name: "main", Image: "none"}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
	for _, edit := range edits {
		edit(p)
	}
	return p
}

func ownedBy(kind, name string) func(*corev1.Pod) {
	yes := true
	return func(p *corev1.Pod) {
		p.OwnerReferences = append(p.OwnerReferences, metav1.OwnerReference{
			APIVersion: "apps/v1", Kind: kind, Name: name, UID: types.UID("uid-" + name), Controller: &yes,
		})
	}
}

func ending(p *corev1.Pod) {
	now, grace := metav1.Now(), int64(30)
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &now, &grace
}

func priority(value int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.Priority = &value }
}

func asksFor(name corev1.ResourceName) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{name: resource.MustParse("1")}
	}
}

func TestPlan(t *testing.T) {
	never := corev1.ContainerRestartPolicyNever
	for _, tc := range []struct {
		name      string
		pod       *corev1.Pod
		unmanaged string
		want      PodPlan // Namespace, Name and UID left out
	}{
		{
			"a pod of a ReplicaSet is evicted", pod("a", ownedBy("ReplicaSet", "web")), "",
			PodPlan{Owner: "ReplicaSet/web", Decision: DecisionEvict, Reason: ReasonController, Message: "ReplicaSet web re-creates it elsewhere"},
		},
		{
			"a pod of a controller that nobody has heard of is evicted", pod("a", ownedBy("GameServer", "doom")), UnmanagedBlock,
			PodPlan{Owner: "GameServer/doom", Decision: DecisionEvict, Reason: ReasonController, Message: "GameServer doom re-creates it elsewhere"},
		},
		{
			"an owner that is not its controller does not count", pod("a", ownedBy("ReplicaSet", "web"), func(p *corev1.Pod) {
				p.OwnerReferences[0].Controller = nil
			}), "",
			PodPlan{Decision: DecisionBlock, Reason: ReasonUnmanagedPod, Message: "it has no controller: an eviction would delete it for good"},
		},
		{
			"a DaemonSet's pod stays", pod("a", ownedBy("DaemonSet", "proxy")), "",
			PodPlan{Owner: "DaemonSet/proxy", Decision: DecisionIgnore, Reason: ReasonDaemonSet, Message: "a DaemonSet keeps it on this node"},
		},
		{
			"a DaemonSet's pod that ends is not waited for", pod("a", ownedBy("DaemonSet", "proxy"), ending), "",
			PodPlan{Owner: "DaemonSet/proxy", Decision: DecisionIgnore, Reason: ReasonDaemonSet, Message: "a DaemonSet keeps it on this node"},
		},
		{
			"a mirror pod stays", pod("a", ownedBy("Node", "n1"), func(p *corev1.Pod) {
				p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
			}), "",
			PodPlan{Owner: "Node/n1", Decision: DecisionIgnore, Reason: ReasonMirror, Message: "the kubelet runs it from a file of this node"},
		},
		{
			"a finished pod without a controller is no reason to block", pod("a", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }), "",
			PodPlan{Decision: DecisionIgnore, Reason: ReasonFinished, Message: "it has run to its end"},
		},
		{
			"a failed pod that is being deleted is awaited: its volumes and its successor wait for that too", pod("a", ending, func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }), "",
			PodPlan{Decision: DecisionWait, Reason: ReasonTerminating, Message: "it is ending already"},
		},
		{
			"the end of an ending pod is awaited without a second eviction", pod("a", ownedBy("ReplicaSet", "web"), ending), "",
			PodPlan{Owner: "ReplicaSet/web", Decision: DecisionWait, Reason: ReasonTerminating, Message: "it is ending already"},
		},
		{
			"an ending pod without a controller does not block: somebody has decided", pod("a", ending), UnmanagedBlock,
			PodPlan{Decision: DecisionWait, Reason: ReasonTerminating, Message: "it is ending already"},
		},
		{
			"a setting that is not known blocks", pod("a"), "ride-thru",
			PodPlan{Decision: DecisionBlock, Reason: ReasonUnmanagedPod, Message: "it has no controller: an eviction would delete it for good"},
		},
		{
			"under wait a pod without a controller is waited for", pod("a"), UnmanagedWait,
			PodPlan{Decision: DecisionWait, Reason: ReasonUnmanagedPod, Message: "it has no controller: its end is awaited"},
		},
		{
			"under delete a pod without a controller is evicted", pod("a", asksFor("nvidia.com/gpu")), UnmanagedDelete,
			PodPlan{Decision: DecisionEvict, Reason: ReasonUnmanagedPod, Message: "it has no controller: it is deleted for good, as the setting says"},
		},
		{
			"under ride-through a pod without a controller stays", pod("a"), UnmanagedRideThrough,
			PodPlan{Decision: DecisionRideThrough, Reason: ReasonUnmanagedPod, Message: "it has no controller: it comes back with the node"},
		},
		{
			"huge pages ride through", pod("a", asksFor("hugepages-2Mi")), UnmanagedRideThrough,
			PodPlan{Decision: DecisionRideThrough, Reason: ReasonUnmanagedPod, Message: "it has no controller: it comes back with the node"},
		},
		{
			"a GPU does not ride through", pod("a", asksFor("nvidia.com/gpu")), UnmanagedRideThrough,
			PodPlan{Decision: DecisionBlock, Reason: ReasonUnmanagedPod, Message: "it has no controller: it cannot ride through, as it holds nvidia.com/gpu, which the kubelet rejects while the device plugin is not up yet"},
		},
		{
			"a GPU of an init container does not ride through", pod("a", func(p *corev1.Pod) {
				p.Spec.InitContainers = []corev1.Container{{Name: "i", Resources: corev1.ResourceRequirements{
					Requests: corev1.ResourceList{"amd.com/gpu": resource.MustParse("2")},
				}}}
			}), UnmanagedRideThrough,
			PodPlan{Decision: DecisionBlock, Reason: ReasonUnmanagedPod, Message: "it has no controller: it cannot ride through, as it holds amd.com/gpu, which the kubelet rejects while the device plugin is not up yet"},
		},
		{
			"a resource claim does not ride through", pod("a", func(p *corev1.Pod) {
				p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu"}}
			}), UnmanagedRideThrough,
			PodPlan{Decision: DecisionBlock, Reason: ReasonUnmanagedPod, Message: "it has no controller: it cannot ride through, as it holds a device through a resource claim"},
		},
		{
			"restartPolicy OnFailure does not ride through", pod("a", func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyOnFailure }), UnmanagedRideThrough,
			PodPlan{Decision: DecisionBlock, Reason: ReasonUnmanagedPod, Message: "it has no controller: it cannot ride through, as restartPolicy OnFailure does not start it again"},
		},
		{
			"a container's own restartPolicy Never does not ride through", pod("a", func(p *corev1.Pod) { p.Spec.Containers[0].RestartPolicy = &never }), UnmanagedRideThrough,
			PodPlan{Decision: DecisionBlock, Reason: ReasonUnmanagedPod, Message: "it has no controller: it cannot ride through, as restartPolicy Never of container main does not start it again"},
		},
		{
			"a pod with a system priority goes last", pod("a", ownedBy("ReplicaSet", "dns"), priority(2_000_000_000)), "",
			PodPlan{Owner: "ReplicaSet/dns", Tier: TierCritical, Decision: DecisionEvict, Reason: ReasonController, Message: "ReplicaSet dns re-creates it elsewhere"},
		},
		{
			"the highest priority of users is ordinary", pod("a", ownedBy("ReplicaSet", "db"), priority(1_000_000_000)), "",
			PodPlan{Owner: "ReplicaSet/db", Decision: DecisionEvict, Reason: ReasonController, Message: "ReplicaSet db re-creates it elsewhere"},
		},
		{
			"a pod of class system-cluster-critical goes last", pod("a", ownedBy("ReplicaSet", "dns"), func(p *corev1.Pod) {
				p.Spec.PriorityClassName = "system-cluster-critical"
			}), "",
			PodPlan{Owner: "ReplicaSet/dns", Tier: TierCritical, Decision: DecisionEvict, Reason: ReasonController, Message: "ReplicaSet dns re-creates it elsewhere"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.want.Namespace, tc.want.Name, tc.want.UID = "shop", "a", "uid-a"
			got := plan([]*corev1.Pod{tc.pod}, DrainSettings{UnmanagedPods: tc.unmanaged})
			if diff := cmp.Diff([]PodPlan{tc.want}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("the plan is sorted by namespace and name", func(t *testing.T) {
		pods := []*corev1.Pod{pod("b"), pod("a"), pod("z", func(p *corev1.Pod) { p.Namespace = "bank" })}
		var got []string
		for _, p := range plan(pods, DrainSettings{}) {
			got = append(got, p.Namespace+"/"+p.Name)
		}
		if diff := cmp.Diff([]string{"bank/z", "shop/a", "shop/b"}, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestBlocked(t *testing.T) {
	settings := DrainSettings{UnmanagedPods: UnmanagedRideThrough}
	t.Run("nothing blocks a node whose pods go or ride through", func(t *testing.T) {
		reason, message := blocked(plan([]*corev1.Pod{pod("a"), pod("b", ownedBy("ReplicaSet", "web"))}, settings))
		if reason != "" || message != "" {
			t.Errorf("got %q, %q", reason, message)
		}
	})
	t.Run("the pods that block are named, and why", func(t *testing.T) {
		reason, message := blocked(plan([]*corev1.Pod{pod("a"), pod("b", asksFor("nvidia.com/gpu"))}, settings))
		want := "shop/b: it has no controller: it cannot ride through, as it holds nvidia.com/gpu, which the kubelet rejects while the device plugin is not up yet"
		if reason != ReasonUnmanagedPod || message != want {
			t.Errorf("got %q, %q", reason, message)
		}
	})
}

func TestCut(t *testing.T) {
	for _, tc := range []struct {
		name, in, want string
		limit          int
	}{
		{"what fits stays", "abc", "abc", 3},
		{"what does not fit ends with dots", "abcdefgh", "abcd…", 7},
		{"no character is halved", "äöüäöü", "äöü…", 10},
		{"no comma is left hanging", "a, b, cdefg", "a, b…", 9},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := cut(tc.in, tc.limit); got != tc.want || len(got) > tc.limit {
				t.Errorf("got %q (%d bytes), want %q", got, len(got), tc.want)
			}
		})
	}
}

func TestReady(t *testing.T) {
	ran := func(id string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", ContainerID: "containerd://" + id}}
		}
	}
	unready := func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }
	mirrored := func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} }
	of := func(pods ...*corev1.Pod) []string { return readyPods(pods) }

	before := of(pod("proxy-x", ownedBy("DaemonSet", "proxy"), ran("1")), pod("etcd-n1", mirrored, ran("2")),
		pod("sick", ownedBy("DaemonSet", "sick"), ran("3"), unready), pod("web", ownedBy("ReplicaSet", "web"), ran("4")))
	for _, tc := range []struct {
		name string
		now  []string
		want []string
	}{
		{"both ready with new containers, the DaemonSet's under another name", of(
			pod("proxy-y", ownedBy("DaemonSet", "proxy"), ran("5")), pod("etcd-n1", mirrored, ran("6"))), nil},
		{"ready with the containers of before the boot does not count", of(
			pod("proxy-x", ownedBy("DaemonSet", "proxy"), ran("1")), pod("etcd-n1", mirrored, ran("6"))), []string{"daemonset/shop/proxy"}},
		{"not ready is missing", of(
			pod("proxy-x", ownedBy("DaemonSet", "proxy"), ran("5"), unready), pod("etcd-n1", mirrored, ran("6"))), []string{"daemonset/shop/proxy"}},
		{"one that ends is missing", of(
			pod("proxy-x", ownedBy("DaemonSet", "proxy"), ran("5"), ending), pod("etcd-n1", mirrored, ran("6"))), []string{"daemonset/shop/proxy"}},
		{"nothing there, all missing; what was sick before is not asked for", nil, []string{"daemonset/shop/proxy", "mirror/shop/etcd-n1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, MissingReady(before, tc.now)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
