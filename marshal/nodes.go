package marshal

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"

	"kubebaton.io/baton/kube"
)

// getNode reads one Node by quorum; ok is false when there is none of that name.
func getNode(ctx context.Context, client corev1client.NodeInterface, name string) (out Node, ok bool, err error) {
	n, err := client.Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return Node{}, false, nil
	case err != nil:
		return Node{}, false, fmt.Errorf("getting node %q: %w", name, err)
	}
	return NodeOf(n), true, nil
}

// record is the part of an agent's record that matters here.
type record struct {
	Version      int       `json:"version"`
	Cycle        string    `json:"cycle"`
	Attempt      int       `json:"attempt"`
	Phase        string    `json:"phase"`
	PendingSince time.Time `json:"pendingSince"`
	WishedSince  time.Time `json:"wishedSince"`
	Bids         bool      `json:"bids"`
	Reasons      []string  `json:"reasons"`
	Slot         string    `json:"slot"`
	Survived     string    `json:"survived"`
	Stays        bool      `json:"stays"`
	Warnings     []string  `json:"warnings"`
	Sentinel     struct {
		Fingerprint string `json:"fingerprint"`
	} `json:"sentinel"`
}

// history is the part of an agent's history that matters here.
type history struct {
	Cycles []struct {
		At          time.Time     `json:"at"`
		Result      string        `json:"result"`
		Took        time.Duration `json:"took"`
		WishedSince time.Time     `json:"wishedSince"`
	} `json:"cycles"`
}

// resultRebooted is the result of a cycle whose reboot ended well.
const resultRebooted = "rebooted"

// prove takes over the last reboot that ended well. It leaves everything zero when there is none, or when that cannot be read.
func (n *Node) prove(text string) {
	var h history
	if text == "" || json.Unmarshal([]byte(text), &h) != nil {
		return
	}
	for _, c := range slices.Backward(h.Cycles) {
		if c.Result == resultRebooted {
			n.Proven, n.Took, n.Tried = c.At, c.Took, c.WishedSince
			return
		}
	}
}

// RecordVersion is the newest version that is understood, as the agent's of that name. A newer record is that of a node
// which is left alone.
const RecordVersion = 1

// NodeOf keeps of a Node what the marshal needs: some hundred bytes of 12 KB or more.
func NodeOf(n *corev1.Node) Node {
	out := Node{
		Name: n.Name, UID: string(n.UID), BootID: n.Status.NodeInfo.BootID,
		Unschedulable: n.Spec.Unschedulable, Deleting: n.DeletionTimestamp != nil, Labels: n.Labels, Foreign: foreign(n),
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			out.Ready = c.Status == corev1.ConditionTrue
		}
	}
	if why, ok := n.Annotations[holdKey]; ok {
		out.Hold = cmp.Or(why, noReason)
	}
	_, out.Acknowledged = n.Annotations[acknowledgeKey]
	out.prove(n.Annotations[historyKey])
	raw, ok := n.Annotations[recordKey]
	if !ok {
		return out
	}
	var r record
	if err := json.Unmarshal([]byte(raw), &r); err != nil || r.Version > RecordVersion || r.Phase == "" {
		out.Phase, out.Reason = phaseNamed(n.Labels[phaseKey]), reasonRecord
		return out
	}
	out.Phase, out.Cycle, out.Attempt, out.Slot = r.Phase, r.Cycle, r.Attempt, r.Slot
	out.Bids = r.Bids && r.Phase == phaseWaiting
	out.Pending, out.Wished = r.PendingSince, r.WishedSince
	out.Warned = len(r.Warnings) > 0
	out.Stays = r.Stays
	out.Survived = r.Survived != "" && (r.Sentinel.Fingerprint == "" || r.Survived == r.Sentinel.Fingerprint)
	if len(r.Reasons) > 0 {
		out.Reason = r.Reasons[0]
	}
	return out
}

// phaseNamed returns the phase of a label's value. One that is not known may be anything, so it counts as down.
func phaseNamed(label string) string {
	for _, p := range []string{phaseWaiting, phaseDraining, phaseRebooting, phaseVerifying, phaseBackoff, phaseFailed} {
		if strings.EqualFold(p, label) {
			return p
		}
	}
	return phaseDraining
}

// foreign tells nodes on which no agent can run: those of virtual-kubelet, of Fargate, and Windows.
func foreign(n *corev1.Node) bool {
	if n.Labels["type"] == "virtual-kubelet" || n.Labels["eks.amazonaws.com/compute-type"] == "fargate" {
		return true
	}
	if os := cmp.Or(n.Labels[corev1.LabelOSStable], n.Status.NodeInfo.OperatingSystem); os != "" && os != "linux" {
		return true
	}
	return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == "virtual-kubelet.io/provider" })
}

func (n *Node) same(o *Node) bool {
	return n.Name == o.Name && n.UID == o.UID && n.BootID == o.BootID && n.Ready == o.Ready &&
		n.Unschedulable == o.Unschedulable && n.Deleting == o.Deleting && n.Foreign == o.Foreign && n.Phase == o.Phase &&
		n.Cycle == o.Cycle && n.Attempt == o.Attempt && n.Bids == o.Bids && n.Pending.Equal(o.Pending) && n.Slot == o.Slot &&
		n.Survived == o.Survived && n.Warned == o.Warned && n.Stays == o.Stays && n.Hold == o.Hold && n.Acknowledged == o.Acknowledged &&
		n.Reason == o.Reason && n.Wished.Equal(o.Wished) && n.Proven.Equal(o.Proven) && n.Took == o.Took && n.Tried.Equal(o.Tried) && maps.Equal(n.Labels, o.Labels)
}

// kept is a trimmed Node on its way through the reflector, which asks for the metadata of what it stores.
type kept struct {
	metav1.ObjectMeta
	node Node
}

// roster is the reflector's store: trimmed Nodes by name. changed is called when something that matters changed.
type roster struct {
	changed func()

	mu     sync.Mutex
	synced bool
	nodes  map[string]Node
}

var _ cache.TransformingStore = (*roster)(nil)

func (r *roster) Add(obj any) error    { return r.put(obj) }
func (r *roster) Update(obj any) error { return r.put(obj) }
func (r *roster) Resync() error        { return nil }

// Transformer lets the reflector trim the Nodes of its first list one by one, as they arrive.
func (r *roster) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		n, err := node(obj)
		if err != nil {
			return nil, err
		}
		return &kept{ObjectMeta: metav1.ObjectMeta{Name: n.Name}, node: n}, nil
	}
}

func node(obj any) (Node, error) {
	switch o := obj.(type) {
	case *kept:
		return o.node, nil
	case *corev1.Node:
		return NodeOf(o), nil
	}
	return Node{}, fmt.Errorf("a watch of Nodes brought a %T", obj)
}

func (r *roster) put(obj any) error {
	n, err := node(obj)
	if err != nil {
		return err
	}
	r.mu.Lock()
	old, ok := r.nodes[n.Name]
	r.nodes[n.Name] = n
	r.mu.Unlock()
	if !ok || !n.same(&old) { // a kubelet's heartbeat changes nothing here
		r.changed()
	}
	return nil
}

func (r *roster) Delete(obj any) error {
	key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
	if err != nil {
		return fmt.Errorf("keying a deleted Node: %w", err)
	}
	r.mu.Lock()
	delete(r.nodes, key)
	r.mu.Unlock()
	r.changed()
	return nil
}

func (r *roster) Replace(objs []any, _ string) error {
	nodes := make(map[string]Node, len(objs))
	for _, obj := range objs {
		n, err := node(obj)
		if err != nil {
			return err
		}
		nodes[n.Name] = n
	}
	r.mu.Lock()
	r.nodes, r.synced = nodes, true
	r.mu.Unlock()
	r.changed()
	return nil
}

// list returns all the Nodes by name; ok is false before the first list is complete.
func (r *roster) list() (nodes []Node, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.synced {
		return nil, false
	}
	nodes = slices.AppendSeq(make([]Node, 0, len(r.nodes)), maps.Values(r.nodes))
	slices.SortFunc(nodes, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	return nodes, true
}

// watchNodes keeps r up to date until ctx ends.
func watchNodes(ctx context.Context, client corev1client.NodeInterface, r *roster, log *slog.Logger) {
	_ = kube.Reflect(ctx, client.List, client.Watch, kube.Selection{}, &corev1.Node{}, r, func(err error) {
		if ctx.Err() == nil {
			log.Warn("reading nodes", "err", err)
		}
	}) // ends with ctx only
}
