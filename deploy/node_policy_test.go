package deploy_test

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// The refusals of policy baton-node, as its file words them.
const (
	noNode         = "the token does not say which node it belongs to"
	otherNode      = "an agent may update its own Node and no other"
	nodeAnnotation = "an agent may write the annotations kubebaton.io/reboot, kubebaton.io/history and kubebaton.io/shields"
	nodeShields    = "an agent lists in kubebaton.io/shields what it adds with the same write"
	nodeMetadata   = "of the metadata an agent may write the label kubebaton.io/phase, and keep load balancers away"
	nodeSpec       = "of the spec an agent may write unschedulable and its taint"
	nodeTaint      = "an agent may write the taint kubebaton.io/reboot-pending:PreferNoSchedule and no other"
)

// nodePatches are merge patches that an agent sends for its own Node, which looks like nodeBefore.
var nodePatches = []struct{ name, patch, want string }{
	{"it cordons and writes record, label and taint in one patch", `{
		"metadata": {"annotations": {"kubebaton.io/reboot": "{\"version\":1}"}, "labels": {"kubebaton.io/phase": "draining"}},
		"spec": {"unschedulable": true, "taints": [
			{"key": "team", "value": "a", "effect": "NoSchedule"},
			{"key": "kubebaton.io/reboot-pending", "effect": "PreferNoSchedule"}]}}`, ""},
	{"it writes its history", `{"metadata": {"annotations": {"kubebaton.io/history": "[]"}}}`, ""},
	{"it removes a request and an acknowledgement", `{"metadata": {"annotations": {
		"kubebaton.io/request": null, "kubebaton.io/acknowledge": null}}}`, ""},
	{"it uncordons", `{"spec": {"unschedulable": null}}`, ""},
	{"it adds its taint in front of the others", `{"spec": {"taints": [
		{"key": "kubebaton.io/reboot-pending", "effect": "PreferNoSchedule"},
		{"key": "team", "value": "a", "effect": "NoSchedule"}]}}`, ""},
	{"it shields the node from cluster-autoscaler", `{"metadata": {"annotations": {
		"cluster-autoscaler.kubernetes.io/scale-down-disabled": "true",
		"kubebaton.io/shields": "karpenter.sh/do-not-disrupt,cluster-autoscaler.kubernetes.io/scale-down-disabled"}}}`, ""},
	{"it lists nothing as its own that it does not add", `{"metadata": {"annotations": {
		"kubebaton.io/shields": "cluster-autoscaler.kubernetes.io/scale-down-disabled"}}}`, nodeShields},
	{"nor what others had added before", `{"metadata": {"annotations": {"kubebaton.io/shields": "example.com/mine"}}}`, nodeShields},
	{"it takes off what it wrote there", `{"metadata": {"annotations": {"karpenter.sh/do-not-disrupt": null, "kubebaton.io/shields": null}}}`, ""},
	{"it writes nothing else there", `{"metadata": {"annotations": {"cluster-autoscaler.kubernetes.io/scale-down-disabled": "false"}}}`, nodeAnnotation},
	{"it changes no shield of others", `{"metadata": {"annotations": {"karpenter.sh/do-not-disrupt": "false"}}}`, nodeAnnotation},
	{"it takes off no shield of others", `{"metadata": {"annotations": {"cluster-autoscaler.kubernetes.io/scale-down-delay": null}}}`, nodeAnnotation},
	{"it asks itself for no reboot", `{"metadata": {"annotations": {"kubebaton.io/request": "now"}}}`, nodeAnnotation},
	{"it acknowledges no failure of its own", `{"metadata": {"annotations": {"kubebaton.io/acknowledge": "now"}}}`, nodeAnnotation},
	{"it does not lift a person's hold", `{"metadata": {"annotations": {"kubebaton.io/hold": null}}}`, nodeAnnotation},
	{"it does not change a person's hold", `{"metadata": {"annotations": {"kubebaton.io/hold": "other"}}}`, nodeAnnotation},
	{"it adds no other annotation", `{"metadata": {"annotations": {"example.com/x": "y"}}}`, nodeAnnotation},
	{"it removes no other annotation", `{"metadata": {"annotations": {"example.com/mine": null}}}`, nodeAnnotation},
	{"it adds no other label", `{"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}}`, nodeMetadata},
	{"it changes no other label", `{"metadata": {"labels": {"pool": "b"}}}`, nodeMetadata},
	{"it removes no other label", `{"metadata": {"labels": {"pool": null}}}`, nodeMetadata},
	{"it keeps load balancers away", `{"metadata": {"annotations": {"kubebaton.io/shields": "node.kubernetes.io/exclude-from-external-load-balancers"},
		"labels": {"node.kubernetes.io/exclude-from-external-load-balancers": "true"}}}`, ""},
	{"it writes nothing else there", `{"metadata": {"labels": {"node.kubernetes.io/exclude-from-external-load-balancers": "false"}}}`, nodeMetadata},
	{"it adds no finalizer", `{"metadata": {"finalizers": ["example.com/x"]}}`, nodeMetadata},
	{"it adds no owner", `{"metadata": {"ownerReferences": [
		{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "y"}]}}`, nodeMetadata},
	{"it names no provider", `{"spec": {"providerID": "cloud://x"}}`, nodeSpec},
	{"it takes no pod network", `{"spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]}}`, nodeSpec},
	{"it removes no other taint", `{"spec": {"taints": null}}`, nodeTaint},
	{"it adds no other taint", `{"spec": {"taints": [
		{"key": "team", "value": "a", "effect": "NoSchedule"}, {"key": "x", "effect": "NoExecute"}]}}`, nodeTaint},
	{"it evicts nobody with its own taint", `{"spec": {"taints": [
		{"key": "team", "value": "a", "effect": "NoSchedule"},
		{"key": "kubebaton.io/reboot-pending", "effect": "NoExecute"}]}}`, nodeTaint},
}

// nodeBefore makes the Node look as other people and programs have left it.
func nodeBefore(t *testing.T, name string) {
	t.Helper()
	ctx, nodes := t.Context(), admin(t).CoreV1().Nodes()
	n, err := nodes.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n.Finalizers, n.OwnerReferences = nil, nil
	n.Labels = map[string]string{"pool": "a"}
	n.Annotations = map[string]string{
		"example.com/mine": "x", "kubebaton.io/hold": "disk", "kubebaton.io/request": "kernel", "kubebaton.io/acknowledge": "yes",
		"karpenter.sh/do-not-disrupt": "true", "kubebaton.io/shields": "karpenter.sh/do-not-disrupt", "cluster-autoscaler.kubernetes.io/scale-down-delay": "1h",
	}
	n.Spec = corev1.NodeSpec{Unschedulable: true, Taints: []corev1.Taint{{Key: "team", Value: "a", Effect: corev1.TaintEffectNoSchedule}}}
	if _, err := nodes.Update(ctx, n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestPeer11_AStolenTokenPatchesNoOtherNode(t *testing.T) {
	a, b := newAgent(t, "node-a"), newAgent(t, "node-b")
	record := []byte(`{"metadata": {"annotations": {"kubebaton.io/reboot": "{}"}}}`)
	eventually(t, "policy baton-node in force", func(ctx context.Context) error {
		_, err := a.CoreV1().Nodes().Patch(ctx, b.node, types.MergePatchType, record, metav1.PatchOptions{})
		return refused(err, otherNode)
	})
	for _, tt := range nodePatches {
		t.Run(tt.name, func(t *testing.T) {
			nodeBefore(t, a.node)
			_, err := a.CoreV1().Nodes().Patch(t.Context(), a.node, types.MergePatchType, []byte(tt.patch), metav1.PatchOptions{})
			check(t, err, tt.want)
		})
	}
	t.Run("it lets load balancers come back where it had kept them away, and only there", func(t *testing.T) {
		const label = "node.kubernetes.io/exclude-from-external-load-balancers"
		nodeBefore(t, a.node)
		patch := func(by kubernetes.Interface, patch string) error {
			_, err := by.CoreV1().Nodes().Patch(t.Context(), a.node, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
			return err
		}
		off := `{"metadata": {"labels": {"` + label + `": null}, "annotations": {"kubebaton.io/shields": null}}}`
		check(t, patch(admin(t), `{"metadata": {"labels": {"`+label+`": "true"}}}`), "")
		check(t, patch(a, off), nodeMetadata)
		check(t, patch(admin(t), `{"metadata": {"annotations": {"kubebaton.io/shields": "karpenter.sh/do-not-disrupt,`+label+`"}}}`), "")
		check(t, patch(a, off), "")
	})
	t.Run("a bare Node without labels, annotations and taints can be written, too", func(t *testing.T) {
		_, err := b.CoreV1().Nodes().Patch(t.Context(), b.node, types.MergePatchType, []byte(nodePatches[0].patch), metav1.PatchOptions{})
		check(t, err, nodeTaint) // the patch brings a foreign taint, which is the one thing it may not
		_, err = b.CoreV1().Nodes().Patch(t.Context(), b.node, types.MergePatchType, record, metav1.PatchOptions{})
		check(t, err, "")
	})
	t.Run("a token that is bound to no pod writes nothing", func(t *testing.T) {
		_, err := unbound(t).CoreV1().Nodes().Patch(t.Context(), a.node, types.MergePatchType, record, metav1.PatchOptions{})
		check(t, err, noNode)
	})
	t.Run("a token from before the Node was registered anew writes nothing", func(t *testing.T) {
		nodes := admin(t).CoreV1().Nodes()
		if err := nodes.Delete(t.Context(), b.node, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		again := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: b.node}}
		if _, err := nodes.Create(t.Context(), again, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		_, err := b.CoreV1().Nodes().Patch(t.Context(), b.node, types.MergePatchType, record, metav1.PatchOptions{})
		check(t, err, otherNode)
	})
	t.Run("people are not bound by it", func(t *testing.T) {
		patch := []byte(`{"metadata": {"annotations": {"kubebaton.io/hold": "by hand"}}}`)
		_, err := admin(t).CoreV1().Nodes().Patch(t.Context(), a.node, types.MergePatchType, patch, metav1.PatchOptions{})
		check(t, err, "")
	})
}
