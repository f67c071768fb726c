package node

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kubebaton.io/baton/kube"
)

// AwaitReady watches this node's pods and calls missing with what [MissingReady] finds of before, at the start and
// whenever it changes, until ctx ends.
func (d *Drainer) AwaitReady(ctx context.Context, before []string, missing func([]string)) error {
	pods := d.clientset.CoreV1().Pods(metav1.NamespaceAll)
	first := true
	var last []string
	err := kube.Watch(ctx, pods.List, pods.Watch, kube.Selection{Fields: ownPods(d.node)}, &corev1.Pod{},
		func(found map[string]*corev1.Pod) {
			now := make([]*corev1.Pod, 0, len(found))
			for _, p := range found {
				now = append(now, p)
			}
			m := MissingReady(before, readyPods(now))
			if !first && slices.Equal(m, last) {
				return
			}
			first, last = false, m
			missing(m)
		},
		func(err error) { d.log.Warn("watching the node's pods", "node", d.node, "error", err) })
	if err != nil {
		return fmt.Errorf("awaiting the pods of node %q: %w", d.node, err)
	}
	return nil
}
