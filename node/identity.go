package node

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
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

// identity is in whose name the node's pods are read and evicted: the node's own where the cluster admits that, so that the agent's
// token can touch no other node's pods; else the agent's, if its rights suffice. What comes first, a LIST or a WATCH, finds out. That
// the other rights for pods come with the one that it used is not asked for: they stand in one ClusterRole.
type identity struct {
	node   kube.Interface // best one from [OwnNodeConfig]
	agent  kube.Interface // nil: there is none but node
	log    *slog.Logger
	chosen atomic.Pointer[kube.Interface] // nil: neither was permitted anything yet
}

// client is the one to act with. An eviction never finds out by itself: until the pods were read, it is the node's.
func (i *identity) client() kube.Interface {
	if c := i.chosen.Load(); c != nil {
		return *c
	}
	return i.node
}

// read does what reads pods. As long as nothing was permitted it asks as the node, and when that is forbidden, as on a cluster before
// 1.36, once more as the agent. That both are forbidden is not believed for longer than this call: an API server that has just started
// forbids everything for a moment. The node's name, once it was good, stays; the agent's stays until it is forbidden.
func read[T any](i *identity, f func(kube.Interface) (T, error)) (T, error) {
	if c := i.chosen.Load(); c != nil {
		got, err := f(*c)
		if c != &i.agent || !apierrors.IsForbidden(err) {
			return got, err
		}
		i.chosen.CompareAndSwap(c, nil)
	}
	got, err := f(i.node)
	switch {
	case err == nil:
		i.chosen.Store(&i.node)
		return got, nil
	case !apierrors.IsForbidden(err) || i.agent == nil:
		return got, err
	}
	got, agentErr := f(i.agent)
	if agentErr != nil {
		return got, fmt.Errorf("as the node itself: %w; with the agent's own rights: %w", err, agentErr)
	}
	if i.chosen.CompareAndSwap(nil, &i.agent) {
		i.log.Warn("pods are read and evicted with the agent's own rights: the cluster does not admit constrained impersonation", "err", err)
	}
	return got, nil
}

// ownPods selects the pods bound to a node, in the one form that the node authorizer recognizes.
func ownPods(nodeName string) string {
	return fields.OneTermEqualSelector("spec.nodeName", nodeName).String()
}

// list reads the node's pods from the store or from a cache proven to be as new.
func (d *Drainer) list(ctx context.Context) ([]*corev1.Pod, error) {
	return read(d.as, func(c kube.Interface) ([]*corev1.Pod, error) { return listPods(ctx, c, d.node) })
}

// watch calls apply with all of the node's pods, at first as a quorum read would show them and then whenever one has changed, until ctx
// ends, or until it is forbidden in every name from the beginning: that is for its caller to say. trouble is told that something has gone
// wrong, after which it goes on.
func (d *Drainer) watch(ctx context.Context, apply func(map[string]*corev1.Pod), trouble func()) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	list := func(ctx context.Context, o metav1.ListOptions) (*corev1.PodList, error) {
		return read(d.as, func(c kube.Interface) (*corev1.PodList, error) {
			return c.CoreV1().Pods(metav1.NamespaceAll).List(ctx, o)
		})
	}
	open := func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
		return read(d.as, func(c kube.Interface) (watch.Interface, error) {
			return c.CoreV1().Pods(metav1.NamespaceAll).Watch(ctx, o)
		})
	}
	_ = kube.Watch(ctx, list, open, kube.Selection{Fields: ownPods(d.node), Quorum: true}, &corev1.Pod{}, apply, func(err error) {
		if ctx.Err() != nil {
			return
		}
		trouble()
		if apierrors.IsForbidden(err) && d.as.chosen.Load() == nil {
			end(fmt.Errorf("reading the pods of node %q: %w", d.node, err))
			return
		}
		d.log.Warn("watching the node's pods", "node", d.node, "error", err)
	})
	return context.Cause(ctx)
}

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
