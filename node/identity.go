package node

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/rest"

	"kubebaton.io/baton/kube"
)

// OwnNodeConfig returns cfg acting as the node that the agent runs on, by constrained impersonation (KEP-5284, on by
// default since Kubernetes 1.36). The API server compares the node's name with the claim
// authentication.kubernetes.io/node-name of the agent's own token, so the right holds for this node only; then the
// node authorizer and the NodeRestriction plugin confine reads and evictions to the pods bound to it.
//
// The request may carry the user name and nothing else: with a group, a UID or an extra the server takes it for
// impersonation of the old, unbounded kind. The ServiceAccount needs, all in one ClusterRole:
//
//   - group authentication.k8s.io, resource nodes, verb impersonate:associated-node (no resourceNames: the server asks
//     for all names and has checked the own one before),
//   - core group, resource pods, verbs impersonate-on:associated-node:list and :watch,
//   - core group, resource pods/eviction, verb impersonate-on:associated-node:create,
//   - core group, resources persistentvolumeclaims and persistentvolumes, and group storage.k8s.io, resource volumeattachments, verb
//     impersonate-on:associated-node:get; without these what volumes pods have, and whether they are detached, is not known.
func OwnNodeConfig(cfg *rest.Config, nodeName string) *rest.Config {
	cfg = rest.CopyConfig(cfg)
	cfg.Impersonate = rest.ImpersonationConfig{UserName: "system:node:" + nodeName}
	return cfg
}

// CanImpersonate asks with a client made from [OwnNodeConfig] for a LIST of the own pods. To WATCH and to evict is not asked for: the
// rights stand in one ClusterRole, and a trial of an eviction would be seen by webhooks. It returns nil when the LIST is
// permitted and a wrapped 403 (apierrors.IsForbidden) when it is not, as on a cluster before 1.36; any other error says
// nothing.
func CanImpersonate(ctx context.Context, own kube.Interface, nodeName string) error {
	pods := own.CoreV1().Pods(metav1.NamespaceAll)
	if _, err := pods.List(ctx, metav1.ListOptions{FieldSelector: ownPods(nodeName), ResourceVersion: "0", Limit: 1}); err != nil {
		return fmt.Errorf("listing the pods of node %q as that node: %w", nodeName, err)
	}
	return nil
}

// ownPods selects the pods bound to a node, in the one form that the node authorizer recognizes.
func ownPods(nodeName string) string {
	return fields.OneTermEqualSelector("spec.nodeName", nodeName).String()
}

// listPods reads the node's pods from the store or from a cache proven to be as new.
func listPods(ctx context.Context, c kube.Interface, nodeName string) ([]*corev1.Pod, error) {
	l, err := c.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{FieldSelector: ownPods(nodeName)})
	if err != nil {
		return nil, fmt.Errorf("listing the pods of node %q: %w", nodeName, err)
	}
	pods := make([]*corev1.Pod, len(l.Items))
	for i := range l.Items {
		pods[i] = &l.Items[i]
	}
	return pods, nil
}
