package marshal

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// apiNode is a Node as a cluster has it.
func apiNode(i int, change ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("worker-%04d", i), UID: types.UID(fmt.Sprintf("uid-%04d", i)),
			Labels: map[string]string{"kubernetes.io/os": "linux"}, Annotations: map[string]string{},
		},
		Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeMemoryPressure, Status: corev1.ConditionFalse}, {Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			NodeInfo:   corev1.NodeSystemInfo{BootID: "boot", OperatingSystem: "linux"},
		},
	}
	for _, c := range change {
		c(n)
	}
	return n
}

func TestTrim(t *testing.T) {
	const waiting = `{"version":1,"instance":"i","cycle":"c","attempt":2,"phase":"Waiting","since":"2026-03-01T11:00:00Z",` +
		`"pendingSince":"2026-03-01T10:00:00Z","bids":true,"reasons":["window","pdb"],"sentinel":{"fingerprint":"f"},"survived":%q}`
	annotate := func(k, v string) func(*corev1.Node) { return func(n *corev1.Node) { n.Annotations[k] = v } }
	label := func(k, v string) func(*corev1.Node) { return func(n *corev1.Node) { n.Labels[k] = v } }
	base := func(change ...func(*Node)) Node {
		n := Node{Name: "worker-0001", UID: "uid-0001", BootID: "boot", Ready: true}
		for _, c := range change {
			c(&n)
		}
		return n
	}
	for _, c := range []struct {
		name string
		node *corev1.Node
		want Node
	}{
		{"a node without a record is idle", apiNode(1), base()},
		{"a bid", apiNode(1, annotate(recordKey, fmt.Sprintf(waiting, ""))), base(func(n *Node) {
			n.Phase, n.Cycle, n.Attempt, n.Bids, n.Reason = "Waiting", "c", 2, true, "window"
			n.Pending = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
		})},
		{"a sentinel that survived", apiNode(1, annotate(recordKey, fmt.Sprintf(waiting, "f"))), base(func(n *Node) {
			n.Phase, n.Cycle, n.Attempt, n.Bids, n.Reason, n.Survived = "Waiting", "c", 2, true, "window", true
			n.Pending = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
		})},
		{"another sentinel than the one that survived", apiNode(1, annotate(recordKey, fmt.Sprintf(waiting, "g"))), base(func(n *Node) {
			n.Phase, n.Cycle, n.Attempt, n.Bids, n.Reason = "Waiting", "c", 2, true, "window"
			n.Pending = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
		})},
		{
			"a wish that was renewed", apiNode(1, annotate(recordKey, `{"version":1,"cycle":"c","phase":"Waiting","pendingSince":"2026-03-01T10:00:00Z","wishedSince":"2026-03-01T12:00:00Z"}`)),
			base(func(n *Node) { n.Phase, n.Cycle, n.Pending, n.Wished = "Waiting", "c", zero.Add(-2*time.Hour), zero }),
		},
		{
			"the last reboot that ended well, and what it was for", apiNode(1, annotate(historyKey, `{"cycles":[`+
				`{"at":"2026-03-01T12:00:00Z","result":"rebooted","took":60000000000,"wishedSince":"2026-03-01T10:00:00Z"},{"at":"2026-03-01T13:00:00Z","result":"not-ready"}]}`)),
			base(func(n *Node) { n.Proven, n.Took, n.Tried = zero, time.Minute, zero.Add(-2*time.Hour) }),
		},
		{
			"bids count in Waiting only", apiNode(1, annotate(recordKey, `{"version":1,"cycle":"c","phase":"Draining","bids":true,"slot":"slot-w-0"}`)),
			base(func(n *Node) { n.Phase, n.Cycle, n.Slot = "Draining", "c", "slot-w-0" }),
		},
		{
			"a record that cannot be read leaves the label's phase", apiNode(1, annotate(recordKey, "{"), label(phaseKey, "failed")),
			base(func(n *Node) { n.Phase, n.Reason = "Failed", "record" }),
		},
		{
			"a record of a newer version does not bid, and without a label it may be down", apiNode(1, annotate(recordKey, `{"version":2,"phase":"Waiting","bids":true}`)),
			base(func(n *Node) { n.Phase, n.Reason = "Draining", "record" }),
		},
		{"a hold without a value", apiNode(1, annotate(holdKey, "")), base(func(n *Node) { n.Hold = "no reason given" })},
		{"Windows", apiNode(1, label("kubernetes.io/os", "windows")), base(func(n *Node) { n.Foreign = true })},
		{"Fargate", apiNode(1, label("eks.amazonaws.com/compute-type", "fargate")), base(func(n *Node) { n.Foreign = true })},
		{"virtual-kubelet by its label", apiNode(1, label("type", "virtual-kubelet")), base(func(n *Node) { n.Foreign = true })},
		{
			"virtual-kubelet by its taint", apiNode(1, func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "virtual-kubelet.io/provider"}} }),
			base(func(n *Node) { n.Foreign = true }),
		},
		{"unknown is not Ready, and a cordon is anybody's", apiNode(1, func(n *corev1.Node) {
			n.Spec.Unschedulable = true
			n.Status.Conditions[1].Status = corev1.ConditionUnknown
		}), base(func(n *Node) { n.Ready, n.Unschedulable = false, true })},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := NodeOf(c.node)
			got.Labels = nil
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRoster(t *testing.T) {
	t.Run("a heartbeat wakes nobody, a change does", func(t *testing.T) {
		woken := 0
		r := &roster{changed: func() { woken++ }}
		if _, ok := r.list(); ok {
			t.Error("it shows something before its first list")
		}
		if err := r.Replace([]any{apiNode(1)}, ""); err != nil {
			t.Fatal(err)
		}
		beat := apiNode(1, func(n *corev1.Node) { n.ResourceVersion, n.Status.Conditions[0].LastHeartbeatTime = "9", metav1.Now() })
		if err := r.Update(beat); err != nil || woken != 1 {
			t.Errorf("%v, woken %d times after the list and a heartbeat, want 1", err, woken)
		}
		if err := r.Update(apiNode(1, func(n *corev1.Node) { n.Spec.Unschedulable = true })); err != nil || woken != 2 {
			t.Errorf("%v, woken %d times after a cordon, want 2", err, woken)
		}
		if err := r.Delete(apiNode(1)); err != nil || woken != 3 {
			t.Errorf("%v, woken %d times after a deletion, want 3", err, woken)
		}
	})
	t.Run("5,000 Nodes of 12 KB take less than 20 MiB", func(t *testing.T) {
		const nodes = 5000
		r := &roster{changed: func() {}}
		if err := r.Replace(nil, ""); err != nil {
			t.Fatal(err)
		}
		before := heap()
		for i := range nodes {
			if err := r.Add(big(i)); err != nil {
				t.Fatal(err)
			}
		}
		used := heap() - before
		t.Logf("%d bytes a node", used/nodes)
		if used > 20<<20 {
			t.Errorf("%d bytes", used)
		}
		runtime.KeepAlive(r)
	})
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// big is a Node with 20 labels, 50 images and a record.
func big(i int) *corev1.Node {
	return apiNode(i, func(n *corev1.Node) {
		for k := range 20 {
			n.Labels[fmt.Sprintf("topology.example.com/label-%d", k)] = fmt.Sprintf("value-%d-%d", k, i)
		}
		for k := range 50 {
			n.Status.Images = append(n.Status.Images, corev1.ContainerImage{Names: []string{fmt.Sprintf("registry.example.com/%s:%d-%d", strings.Repeat("image/", 30), k, i)}})
		}
		n.Annotations[recordKey] = fmt.Sprintf(`{"version":1,"cycle":"cycle-%d","attempt":1,"phase":"Waiting","pendingSince":"2026-03-01T10:00:00Z","bids":true}`, i)
	})
}

// open takes every nomination.
type open struct {
	Slots
	nominated *atomic.Int64
}

func (o open) Nominate(_ context.Context, s Slot, _ Nomination) (Slot, error) {
	o.nominated.Add(1)
	return s, nil
}

func BenchmarkPass(b *testing.B) {
	const nodes = 5000
	g := Group{Name: "workers", MaxUnavailablePercent: 10, Match: func(l map[string]string) bool { return l["kubernetes.io/os"] == "linux" }}
	v := View{Now: zero, Own: zero, Groups: []Group{g}, NominationTimeout: time.Minute, Slots: slots("workers", nodes/10)}
	for i := range nodes {
		v.Nodes = append(v.Nodes, NodeOf(big(i)))
	}
	var nominated atomic.Int64
	r := newRunner()
	r.slots, r.annotate = open{nominated: &nominated}, func(map[string]string) {}
	for b.Loop() {
		nominated.Store(0)
		if !r.pass(b.Context(), v) || nominated.Load() != nodes/10 {
			b.Fatal(nominated.Load(), "nominations")
		}
		r.due(v)
	}
}
