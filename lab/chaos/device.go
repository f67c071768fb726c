package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// device is an extended resource of which every Node has one. A kubelet that starts shows none until its plugin has registered.
const device = "chaos.kubebaton.io/device"

// devices are the plugins of the device: one for each node, and which nodes have lost the device.
type devices struct {
	mu   sync.Mutex
	lost map[string]bool
}

func (d *devices) lose(node string, lost bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lost == nil {
		d.lost = map[string]bool{}
	}
	d.lost[node] = lost
}

// has is how many there are on a node.
func (d *devices) has(node string) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lost[node] {
		return 0
	}
	return 1
}

// keepDevices is what the plugins do: each Node shows what its machine has. An API server that is away is tried again.
func (r *run) keepDevices(ctx context.Context) {
	for pause(ctx, 500*time.Millisecond) {
		list, err := r.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			continue
		}
		for i := range list.Items {
			n := &list.Items[i]
			if has := r.devices.has(n.Name); shownDevices(n) != has && n.Status.NodeInfo.BootID != "" {
				_ = r.showDevices(ctx, n.Name, has)
			}
		}
	}
}

func shownDevices(n *corev1.Node) int64 {
	return min(n.Status.Capacity.Name(device, "").Value(), n.Status.Allocatable.Name(device, "").Value())
}

func (r *run) showDevices(ctx context.Context, node string, n int64) error {
	amount := map[string]string{device: fmt.Sprint(n)}
	text, err := json.Marshal(map[string]any{"status": map[string]any{"capacity": amount, "allocatable": amount}})
	if err != nil {
		return err
	}
	_, err = r.client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, text, metav1.PatchOptions{}, "status")
	return err
}

// loseDevice breaks the device of a node: a node that comes back from a reboot without it has failed, until it is mended.
func (r *run) loseDevice(_ context.Context, f Fault, node string) (string, func(context.Context) error, error) {
	r.devices.lose(node, true)
	return fmt.Sprintf("for %s", f.For), func(context.Context) error { r.devices.lose(node, false); return nil }, nil
}
