package observe

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Pod is one that was seen, whether or not it is still there.
type Pod struct {
	Name     string
	Owner    string    // kind, name and UID of its controller; of the pod itself when it has none
	Node     string    // where the scheduler put it, "" nowhere yet
	Bound    time.Time // when that was seen first
	Revision uint64    // of that version
}

// WatchPods watches the pods of a namespace as well, from now on until the observer ends. It returns when all that there are
// were seen, and is not to be called at the same time as Stop.
func (o *Observer) WatchPods(ctx context.Context, client kubernetes.Interface, namespace string) error {
	ctx, cancel := context.WithCancel(ctx)
	others := o.cancel
	o.cancel = func() { cancel(); others() }
	pods := client.CoreV1().Pods(namespace)
	list, err := pods.List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("watching the pods of %s: %w", namespace, err)
	}
	for i := range list.Items {
		o.addPod(&list.Items[i])
	}
	return o.follow(ctx, "pods", list.ResourceVersion, watcher(pods.Watch))
}

func (o *Observer) addPod(p *corev1.Pod) {
	o.mu.Lock()
	defer o.mu.Unlock()
	was := o.pods[string(p.UID)]
	if was.Node != "" {
		return
	}
	now := Pod{Name: p.Name, Owner: OwnerOf(p), Node: p.Spec.NodeName}
	if now.Node != "" {
		now.Bound, now.Revision = time.Now(), revision(p)
	}
	o.pods[string(p.UID)] = now
}

// OwnerOf names the controller of a pod, or the pod when it has none.
func OwnerOf(p *corev1.Pod) string {
	if c := metav1.GetControllerOf(p); c != nil {
		return fmt.Sprintf("%s/%s/%s", c.Kind, c.Name, c.UID)
	}
	return fmt.Sprintf("Pod/%s/%s", p.Name, p.UID)
}

// Pods are all that were ever seen, in the order in which they got their nodes.
func (o *Observer) Pods() []Pod {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.SortedFunc(maps.Values(o.pods), func(a, b Pod) int { return cmp.Compare(a.Revision, b.Revision) })
}
