package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	sigsyaml "sigs.k8s.io/yaml"
)

func evict(ctx context.Context, by kubernetes.Interface, pod *corev1.Pod, uid types.UID) error {
	return by.PolicyV1().Evictions(pod.Namespace).Evict(ctx, &policyv1.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace},
		DeleteOptions: metav1.NewPreconditionDeleteOptions(string(uid)),
	})
}

func podsOf(node string) metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: "spec.nodeName=" + node}
}

func TestAnAgentEvictsAsItsOwnNode(t *testing.T) {
	a, b := newAgent(t, "node-a"), newAgent(t, "node-b")
	ownA, ownB := newPod(t, "default", "web-a", a.node), newPod(t, "default", "web-b", b.node)
	asA := a.as(t, "system:node:"+a.node)

	t.Run("it lists and watches the pods of its node", func(t *testing.T) {
		eventually(t, "list", func(ctx context.Context) error {
			l, err := asA.CoreV1().Pods("").List(ctx, podsOf(a.node))
			if err == nil && len(l.Items) != 2 { // its own and web-a
				t.Errorf("got %d pods, want 2", len(l.Items))
			}
			return err
		})
		w, err := asA.CoreV1().Pods("").Watch(t.Context(), podsOf(a.node))
		if err != nil {
			t.Fatal(err)
		}
		w.Stop()
		_, err = asA.CoreV1().Pods("default").Get(t.Context(), ownA.Name, metav1.GetOptions{})
		check(t, err, "cannot impersonate-on:associated-node:get")
	})
	t.Run("it does not list the pods of another node, nor all", func(t *testing.T) {
		_, err := asA.CoreV1().Pods("").List(t.Context(), podsOf(b.node))
		check(t, err, "can only list/watch pods with spec.nodeName field selector")
		_, err = asA.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
		check(t, err, "can only list/watch pods with spec.nodeName field selector")
	})
	t.Run("it does not evict a pod of another node", func(t *testing.T) {
		check(t, evict(t.Context(), asA, ownB, ownB.UID), "can only evict pods with spec.nodeName set to itself")
	})
	t.Run("it evicts a pod of its own node", func(t *testing.T) {
		check(t, evict(t.Context(), asA, ownA, ownA.UID), "")
	})
	t.Run("it is no other node", func(t *testing.T) {
		asB := a.as(t, "system:node:"+b.node)
		check(t, evict(t.Context(), asB, ownB, ownB.UID), "impersonate")
		_, err := asB.CoreV1().Pods("").List(t.Context(), podsOf(b.node))
		check(t, err, "impersonate")
	})
	t.Run("it is nobody else", func(t *testing.T) {
		for _, user := range []string{"admin", "system:serviceaccount:kube-system:default", "system:serviceaccount:" + namespace + ":" + account} {
			_, err := a.as(t, user).CoreV1().Pods("").List(t.Context(), podsOf(a.node))
			check(t, err, "impersonate")
		}
	})
	t.Run("as its node it does nothing else", func(t *testing.T) {
		patch := []byte(`{"spec": {"unschedulable": true}}`)
		_, err := asA.CoreV1().Nodes().Patch(t.Context(), a.node, types.MergePatchType, patch, metav1.PatchOptions{})
		check(t, err, "impersonate")
		check(t, asA.CoreV1().Pods("default").Delete(t.Context(), ownA.Name, metav1.DeleteOptions{}), "impersonate")
		_, err = asA.CoreV1().Secrets("default").Get(t.Context(), "any", metav1.GetOptions{})
		check(t, err, "impersonate")
	})
	t.Run("in its own name it sees no pod", func(t *testing.T) {
		_, err := a.CoreV1().Pods("").List(t.Context(), podsOf(a.node))
		check(t, err, "pods is forbidden")
		check(t, evict(t.Context(), a, ownB, ownB.UID), "pods")
	})
}

func TestAnAgentReadsTheVolumesOfItsOwnPods(t *testing.T) {
	a, b := newAgent(t, "node-a"), newAgent(t, "node-b")
	newClaim(t, "own")
	newClaim(t, "other")
	newPod(t, "default", "db-a", a.node, "own")
	newPod(t, "default", "db-b", b.node, "other")
	asA := a.as(t, "system:node:"+a.node)
	eventually(t, "claim of an own pod", func(ctx context.Context) error {
		_, err := asA.CoreV1().PersistentVolumeClaims("default").Get(ctx, "own", metav1.GetOptions{})
		return err
	})
	eventually(t, "its volume", func(ctx context.Context) error {
		_, err := asA.CoreV1().PersistentVolumes().Get(ctx, "own", metav1.GetOptions{})
		return err
	})
	_, err := asA.CoreV1().PersistentVolumeClaims("default").Get(t.Context(), "other", metav1.GetOptions{})
	check(t, err, "no relationship found between node")
	_, err = asA.CoreV1().PersistentVolumes().Get(t.Context(), "other", metav1.GetOptions{})
	check(t, err, "no relationship found between node")
}

func TestAnAgentReadsTheVolumeAttachmentsOfItsNode(t *testing.T) {
	a, b := newAgent(t, "node-a"), newAgent(t, "node-b")
	all := admin(t).StorageV1().VolumeAttachments()
	for name, node := range map[string]string{"of-a": a.node, "of-b": b.node} {
		volume := "pv-" + name
		_, err := all.Create(t.Context(), &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: storagev1.VolumeAttachmentSpec{
			Attacher: "example.com", NodeName: node, Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &volume},
		}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	asA := a.as(t, "system:node:"+a.node).StorageV1().VolumeAttachments()
	get := func(ctx context.Context, name string) error {
		_, err := asA.Get(ctx, name, metav1.GetOptions{})
		return err
	}
	eventually(t, "its own", func(ctx context.Context) error { return get(ctx, "of-a") })
	check(t, get(t.Context(), "of-b"), "no relationship found between node")
	if err := all.Delete(t.Context(), "of-a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "that it is gone", func(ctx context.Context) error {
		return refused(get(ctx, "of-a"), "no relationship found between node")
	})
	_, err := asA.List(t.Context(), metav1.ListOptions{})
	check(t, err, "impersonate")
}

func TestAnAgentReadsTheKubeletsHeartbeats(t *testing.T) {
	_, err := newAgent(t, "node-a").CoordinationV1().Leases(corev1.NamespaceNodeLease).List(t.Context(), metav1.ListOptions{})
	check(t, err, "")
}

func TestAnAgentReadsTheDisruptionBudgets(t *testing.T) {
	_, err := newAgent(t, "node-a").PolicyV1().PodDisruptionBudgets("").List(t.Context(), metav1.ListOptions{})
	check(t, err, "")
}

func TestAnAgentTellsOfItsNodeInDefault(t *testing.T) {
	a := newAgent(t, "node-a")
	e := &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "node-a.1", Namespace: "default"},
		EventTime:  metav1.MicroTime{Time: time.Now()}, ReportingController: "kubebaton.io/agent", ReportingInstance: "x",
		Action: "Draining", Reason: "Draining", Type: "Normal",
		Regarding: corev1.ObjectReference{Kind: "Node", Name: a.node, UID: types.UID(a.node)},
	}
	_, err := a.EventsV1().Events("default").Create(t.Context(), e, metav1.CreateOptions{})
	check(t, err, "")
	e.Namespace = "kube-system"
	_, err = a.EventsV1().Events("kube-system").Create(t.Context(), e, metav1.CreateOptions{})
	check(t, err, "events.events.k8s.io is forbidden")
}

func TestAnAgentSeesWhetherItsNamespaceIsBeingDeleted(t *testing.T) {
	a := newAgent(t, "node-a")
	ns, err := a.CoreV1().Namespaces().Get(t.Context(), namespace, metav1.GetOptions{})
	if err != nil || ns.DeletionTimestamp != nil {
		t.Errorf("got %v, %v", ns, err)
	}
}

// What RBAC alone must refuse: whatever makes one stolen token into more than one node.
func TestPeer11_AStolenTokenRewritesNoWorkloadAndDeletesNoPod(t *testing.T) {
	for _, tt := range []struct{ group, resource, sub, ns, verb string }{
		{"", "pods", "", "default", "delete"},
		{"", "pods", "", "default", "create"},
		{"", "pods", "", namespace, "patch"},
		{"", "pods", "eviction", "default", "create"},
		{"", "pods", "exec", "default", "create"},
		{"", "secrets", "", namespace, "get"},
		{"", "configmaps", "", namespace, "get"},
		{"", "nodes", "", "", "update"},
		{"", "nodes", "", "", "delete"},
		{"", "nodes", "", "", "create"},
		{"", "nodes", "status", "", "patch"},
		{"", "nodes", "proxy", "", "get"},
		{"", "serviceaccounts", "token", namespace, "create"},
		{"", "users", "", "", "impersonate"},
		{"authentication.k8s.io", "nodes", "", "", "impersonate:arbitrary-node"},
		{"", "namespaces", "", "default", "get"},
		{"", "namespaces", "", namespace, "delete"},
		{"", "persistentvolumeclaims", "", "default", "get"},
		{"", "persistentvolumes", "", "", "get"},
		{"storage.k8s.io", "volumeattachments", "", "", "get"},
		{"policy", "poddisruptionbudgets", "", "default", "update"},
		{"apps", "replicasets", "", "default", "get"},
		{"apps", "daemonsets", "", namespace, "get"},
		{"apps", "daemonsets", "", namespace, "patch"},
		{"coordination.k8s.io", "leases", "", "kube-node-lease", "get"},
		{"coordination.k8s.io", "leases", "", "kube-system", "update"},
		{"coordination.k8s.io", "leases", "", namespace, "deletecollection"},
		{"rbac.authorization.k8s.io", "clusterroles", "", "", "bind"},
		{"admissionregistration.k8s.io", "validatingadmissionpolicies", "", "", "delete"},
		{"", "*", "", "", "*"},
	} {
		t.Run(strings.Join([]string{tt.verb, tt.group, tt.resource, tt.sub, tt.ns}, " "), func(t *testing.T) {
			r, err := admin(t).AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{
				Spec: authorizationv1.SubjectAccessReviewSpec{
					User:   "system:serviceaccount:" + namespace + ":" + account,
					Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
					ResourceAttributes: &authorizationv1.ResourceAttributes{
						Group: tt.group, Resource: tt.resource, Subresource: tt.sub, Namespace: tt.ns, Verb: tt.verb,
					},
				},
			}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if r.Status.Allowed {
				t.Error("allowed")
			}
		})
	}
}

func TestTheDaemonSetsPodIsAdmitted(t *testing.T) {
	ctx, clients := t.Context(), admin(t)
	ds, err := clients.AppsV1().DaemonSets(namespace).Get(ctx, account, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// No controller counts here, and a quota that was never counted admits nothing.
	quota, err := clients.CoreV1().ResourceQuotas(namespace).Get(ctx, "baton-critical-pods", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	quota.Status.Hard = quota.Spec.Hard
	quota.Status.Used = corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}
	if _, err := clients.CoreV1().ResourceQuotas(namespace).UpdateStatus(ctx, quota, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: ds.Spec.Template.ObjectMeta, Spec: ds.Spec.Template.Spec}
	pod.Name, pod.Namespace = "trial", namespace
	dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	eventually(t, "admitting the pod", func(ctx context.Context) error {
		_, err := clients.CoreV1().Pods(namespace).Create(ctx, pod, dry)
		return err
	})
	t.Run("and has no privilege beyond uid 0 and the bus", func(t *testing.T) { unprivileged(t, ds) })
}

func unprivileged(t *testing.T, ds *appsv1.DaemonSet) {
	t.Helper()
	spec := ds.Spec.Template.Spec
	if spec.HostPID || spec.HostIPC || spec.HostNetwork || spec.HostUsers != nil {
		t.Error("it shares a namespace of the host, or gives up its uid 0")
	}
	if len(spec.Containers) != 1 || len(spec.InitContainers) != 0 {
		t.Fatal("want exactly one container")
	}
	sc := spec.Containers[0].SecurityContext
	if *sc.Privileged || *sc.AllowPrivilegeEscalation || !*sc.ReadOnlyRootFilesystem ||
		len(sc.Capabilities.Add) != 0 || len(sc.Capabilities.Drop) != 1 || sc.Capabilities.Drop[0] != "ALL" {
		t.Errorf("security context %+v", sc)
	}
	for _, m := range spec.Containers[0].VolumeMounts {
		if !m.ReadOnly || m.SubPath != "" || (m.Name != "config" && !strings.HasPrefix(m.MountPath, "/host/")) {
			t.Errorf("mount %q is writable, a subPath or outside /host", m.Name)
		}
	}
	if u := ds.Spec.UpdateStrategy.RollingUpdate; u.MaxSurge.String() != "0" || u.MaxUnavailable.String() != "10%" {
		t.Errorf("rolling update %v", u)
	}
}

// With the component for clusters that know no constrained impersonation, the agent acts in its own name.
func TestPlainEvictionIsAChoice(t *testing.T) {
	a, b := newAgent(t, "node-a"), newAgent(t, "node-b")
	pod := newPod(t, "default", "web-b", b.node)
	dir := "components/plain-eviction"
	if err := apply(t.Context(), api, dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		rbac := admin(t).RbacV1()
		for _, err := range []error{
			rbac.ClusterRoleBindings().Delete(context.Background(), "baton-agent-plain-eviction", metav1.DeleteOptions{}),
			rbac.ClusterRoles().Delete(context.Background(), "baton-agent-plain-eviction", metav1.DeleteOptions{}),
		} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	eventually(t, "listing in its own name", func(ctx context.Context) error {
		_, err := a.CoreV1().Pods("").List(ctx, podsOf(a.node))
		return err
	})
	check(t, a.CoreV1().Pods("default").Delete(t.Context(), pod.Name, metav1.DeleteOptions{}), "cannot delete resource")
	check(t, evict(t.Context(), a, pod, pod.UID), "")
}

// With the component for quick reboots, the agent reads how many pods of a controller are ready.
func TestReadingControllersIsAChoice(t *testing.T) {
	a := newAgent(t, "node-a")
	read := func(ctx context.Context) error {
		_, err := a.AppsV1().ReplicaSets("default").Get(ctx, "web", metav1.GetOptions{})
		return err
	}
	check(t, read(t.Context()), "cannot get resource")
	if err := apply(t.Context(), api, "components/quick-reboot"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		rbac := admin(t).RbacV1()
		err := rbac.ClusterRoleBindings().Delete(context.Background(), "baton-agent-quick-reboot", metav1.DeleteOptions{})
		if err := errors.Join(err, rbac.ClusterRoles().Delete(context.Background(), "baton-agent-quick-reboot", metav1.DeleteOptions{})); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "reading a ReplicaSet", func(ctx context.Context) error {
		if err := read(ctx); !apierrors.IsNotFound(err) {
			return fmt.Errorf("want not found, got %w", err)
		}
		return nil
	})
	check(t, a.AppsV1().StatefulSets("default").Delete(t.Context(), "db", metav1.DeleteOptions{}), "cannot delete resource")
}

// With the component for hooks, the agent sees the host's hooks, and may do no more than before.
func TestHooksAreAChoice(t *testing.T) {
	const dir = "components/hooks"
	raw, err := os.ReadFile(filepath.Join(dir, "kustomization.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var k struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Patches    []struct {
			Path string `json:"path"`
		} `json:"patches"`
	}
	if err := sigsyaml.UnmarshalStrict(raw, &k); err != nil || len(k.Patches) != 1 {
		t.Fatalf("%d patches, %v; want one, and nothing else", len(k.Patches), err)
	}
	raw, err = os.ReadFile(filepath.Join(dir, k.Patches[0].Path))
	if err != nil {
		t.Fatal(err)
	}
	patch, err := sigsyaml.YAMLToJSON(raw)
	if err != nil {
		t.Fatal(err)
	}
	// kustomize merges as the API server does.
	ds, err := admin(t).AppsV1().DaemonSets(namespace).Patch(t.Context(), account, types.StrategicMergePatchType, patch,
		metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: "Strict"})
	if err != nil {
		t.Fatal(err)
	}
	unprivileged(t, ds)
	spec := ds.Spec.Template.Spec
	i := slices.IndexFunc(spec.Volumes, func(v corev1.Volume) bool { return v.HostPath != nil && v.HostPath.Path == "/etc/baton" })
	if i < 0 || *spec.Volumes[i].HostPath.Type != corev1.HostPathDirectoryOrCreate {
		t.Fatalf("volumes %+v", spec.Volumes)
	}
	mounted := slices.ContainsFunc(spec.Containers[0].VolumeMounts, func(m corev1.VolumeMount) bool {
		return m.Name == spec.Volumes[i].Name && m.MountPath == "/host/etc/baton" && m.ReadOnly
	})
	if !mounted || len(spec.Volumes) != 4 {
		t.Errorf("volumes %+v, mounts %+v", spec.Volumes, spec.Containers[0].VolumeMounts)
	}
}

func TestEveryComponentCanBeRead(t *testing.T) {
	for _, dir := range []string{"components/podmonitor", "components/plain-eviction", "components/quick-reboot", alerts} {
		objects, err := manifests(dir)
		if err != nil || len(objects) == 0 {
			t.Errorf("%s: %d objects, %v", dir, len(objects), err)
		}
		for _, u := range objects {
			if u.GetLabels()["app.kubernetes.io/name"] != "baton" {
				t.Errorf("%s: %s %q lacks its label", dir, u.GetKind(), u.GetName())
			}
		}
	}
}
