package node

import (
	"context"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"kubebaton.io/baton/kube"
)

// csiVolume begins the name that a volume of a CSI driver has in a Node's status. Only their names are known from their objects.
const csiVolume = "kubernetes.io/csi/"

// awaitVolumes waits until the Node's status names no volume of a CSI driver any more but those of the pods that are left,
// neither as in use nor as attached, and says which it still names when the time is over. waiting is told of each change until
// then; waited tells that it took time.
func (d *Drainer) awaitVolumes(ctx context.Context, left []*corev1.Pod, until time.Time, waiting func(string)) (still string, waited bool) {
	stay := map[string]bool{}
	for _, has := range d.volumes.of(ctx, d, left) {
		for _, v := range has.attached {
			stay[v] = true
		}
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	nodes := d.cluster.CoreV1().Nodes()
	own := kube.Selection{Fields: fields.OneTermEqualSelector(metav1.ObjectNameField, d.node).String()}
	still, waited = "which is not known", true
	warn := func(err error) { d.log.Warn("watching the node's volumes", "node", d.node, "error", err) }
	first := true
	_ = kube.Watch(ctx, nodes.List, nodes.Watch, own, &corev1.Node{}, func(found map[string]*corev1.Node) {
		n, ok := found[d.node]
		if !ok {
			return
		}
		still = list(slices.DeleteFunc(volumesOn(n), func(v string) bool { return stay[v] }))
		if still == "" {
			waited = !first
			cancel()
			return
		}
		first = false
		waiting(still)
	}, warn)
	return still, waited
}

// volumesOn are the volumes of CSI drivers that the Node's status names, sorted.
func volumesOn(n *corev1.Node) []string {
	var all []string
	for _, v := range n.Status.VolumesInUse {
		all = append(all, string(v))
	}
	for _, v := range n.Status.VolumesAttached {
		all = append(all, string(v.Name))
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(v string) bool { return !strings.HasPrefix(v, csiVolume) })
}
