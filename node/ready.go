package node

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// AwaitReady watches this node's pods and calls missing with [MissingReady] of before: at once, and whenever that has
// changed, until ctx ends, or with the error of the first request if that is forbidden.
func (d *Drainer) AwaitReady(ctx context.Context, before []string, missing func([]string)) error {
	told := false
	var last []string
	return d.watch(ctx, func(found map[string]*corev1.Pod) {
		now := MissingReady(before, readyPods(slices.Collect(maps.Values(found))))
		if told && slices.Equal(now, last) {
			return
		}
		told, last = true, now
		missing(now)
	}, func() {})
}

// readyPods returns one entry for every DaemonSet pod and mirror pod that is Ready, sorted: who it belongs to,
// `daemonset/NAMESPACE/NAME` or `mirror/NAMESPACE/NAME`, an `@`, and a hash of its containers' IDs. It is stored before the
// reboot and given to [MissingReady] after it.
func readyPods(pods []*corev1.Pod) []string {
	var ready []string
	for _, p := range pods {
		owner := nodeBound(p)
		if owner != "" && p.DeletionTimestamp == nil && isReady(p) {
			ready = append(ready, owner+"@"+containers(p))
		}
	}
	slices.Sort(ready)
	return slices.Compact(ready)
}

// MissingReady returns who of before is not Ready again in now, sorted, without hashes. A pod counts as Ready again only
// with other containers than before: after a boot the API still shows the Ready of the time before it, until the kubelet
// has looked, and every container that runs by then is a new one.
func MissingReady(before, now []string) []string {
	old := make(map[string]bool, len(before))
	for _, entry := range before {
		old[entry] = true
	}
	again := make(map[string]bool, len(now))
	for _, entry := range now {
		if owner, _, _ := strings.Cut(entry, "@"); !old[entry] {
			again[owner] = true
		}
	}
	var missing []string
	for _, entry := range before {
		if owner, _, _ := strings.Cut(entry, "@"); !again[owner] {
			missing = append(missing, owner)
		}
	}
	slices.Sort(missing)
	return slices.Compact(missing)
}

// nodeBound names who a pod that belongs to this very node belongs to; "" for all other pods. The name of the DaemonSet
// stands for it, not that of its pod, which changes with every re-creation.
func nodeBound(p *corev1.Pod) string {
	if _, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return "mirror/" + p.Namespace + "/" + p.Name
	}
	if owner := metav1.GetControllerOf(p); owner != nil && owner.Kind == kindDaemonSet {
		return "daemonset/" + p.Namespace + "/" + owner.Name
	}
	return ""
}

func isReady(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// containers hashes the IDs of the pod's containers, which the container runtime gives anew to every start of one.
func containers(p *corev1.Pod) string {
	statuses := slices.SortedFunc(slices.Values(p.Status.ContainerStatuses), func(a, b corev1.ContainerStatus) int {
		return cmp.Compare(a.Name, b.Name)
	})
	h := fnv.New32a()
	for _, s := range statuses {
		_, _ = fmt.Fprintln(h, s.ContainerID) // a hash never fails to be written
	}
	return fmt.Sprintf("%08x", h.Sum32())
}
