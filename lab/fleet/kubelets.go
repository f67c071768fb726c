package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// connections is how many connections all kubelets share: each carries some hundred requests at once.
const connections = 8

// kubelets are all of them: what they send goes through a few connections, and none of them watches anything.
type kubelets struct {
	clients []kubernetes.Interface
	asked   atomic.Int64 // requests
}

// newKubelets comes before the first agent: what that sets for its connections holds for the process, and is not a kubelet's.
func newKubelets(cfg *rest.Config) (*kubelets, error) {
	k := &kubelets{}
	for range connections {
		c := rest.CopyConfig(cfg)
		c.UserAgent, c.QPS = "fleet-kubelets", -1
		c.ContentType = "application/vnd.kubernetes.protobuf"
		c.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
		c.Dial = (&net.Dialer{}).DialContext // client-go shares the connections of those that dial in the same way
		c.Wrap(func(next http.RoundTripper) http.RoundTripper { return counting{next, &k.asked} })
		client, err := kubernetes.NewForConfig(c)
		if err != nil {
			return nil, fmt.Errorf("creating the kubelets' client: %w", err)
		}
		k.clients = append(k.clients, client)
	}
	return k, nil
}

type counting struct {
	next http.RoundTripper
	n    *atomic.Int64
}

func (c counting) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return c.next.RoundTrip(r)
}

func (k *kubelets) client(i int) kubernetes.Interface { return k.clients[i%len(k.clients)] }

// beat renews the Lease of a node, and now and then its status, until ctx ends. A host that is off is silent.
func (m *machine) beat(ctx context.Context) {
	leases := m.client().CoordinationV1().Leases(corev1.NamespaceNodeLease)
	var lease *coordinationv1.Lease
	phase := time.Duration(m.number) * (m.Lease / time.Duration(m.Nodes)) % m.Lease // spread evenly
	pause(ctx, phase)
	t := time.NewTicker(m.Lease)
	defer t.Stop()
	for n := m.number; ctx.Err() == nil; n++ {
		m.mu.Lock()
		off, gone := m.off, m.gone
		m.mu.Unlock()
		if gone {
			return
		}
		if !off {
			lease = renew(ctx, leases, lease, m.name)
			if n%max(1, int(statusEvery/m.Lease)) == 0 {
				m.heartbeat(ctx)
			}
		}
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
}

type leaseWriter interface {
	Get(ctx context.Context, name string, opts metav1.GetOptions) (*coordinationv1.Lease, error)
	Update(ctx context.Context, l *coordinationv1.Lease, opts metav1.UpdateOptions) (*coordinationv1.Lease, error)
}

// renew returns the Lease as it is afterwards; nil when it must be read again.
func renew(ctx context.Context, leases leaseWriter, l *coordinationv1.Lease, name string) *coordinationv1.Lease {
	var err error
	if l == nil {
		if l, err = leases.Get(ctx, name, metav1.GetOptions{}); err != nil {
			return nil
		}
	}
	now := metav1.NowMicro()
	l.Spec.RenewTime = &now
	if l, err = leases.Update(ctx, l, metav1.UpdateOptions{}); err != nil {
		return nil
	}
	return l
}

// heartbeat is the kubelet's status of a node on which nothing has changed.
func (m *machine) heartbeat(ctx context.Context) {
	c := ready(true)
	body, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []map[string]any{
		{"type": c.Type, "lastHeartbeatTime": c.LastHeartbeatTime},
	}}})
	if err == nil {
		_, err = m.client().CoreV1().Nodes().Patch(ctx, m.name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status")
	}
	if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) {
		m.log.Warn("a kubelet's heartbeat", "node", m.name, "err", err)
	}
}

// endings ends the pods that are being deleted, each in its time.
type endings struct {
	ctx   context.Context //nolint:containedctx // of the watch, which calls without one
	fleet *fleet

	mu    sync.Mutex
	begun map[types.UID]bool
	ended map[string]int // pods of a node
}

func (e *endings) pod(p *corev1.Pod) {
	if p.DeletionTimestamp == nil {
		return
	}
	m := e.fleet.machine(p.Spec.NodeName)
	e.mu.Lock()
	if m == nil || e.begun[p.UID] {
		e.mu.Unlock()
		return
	}
	e.begun[p.UID] = true
	e.ended[m.name]++
	part := e.ended[m.name] // the last one needs all of the drain's time
	e.mu.Unlock()
	e.fleet.work.Go(func() {
		pause(e.ctx, m.drain*time.Duration(part)/time.Duration(m.Pods))
		m.pod(e.ctx, p.Namespace, p.Name, stopped())
		opts := metav1.NewDeleteOptions(0)
		opts.Preconditions = metav1.NewUIDPreconditions(string(p.UID))
		err := m.client().CoreV1().Pods(p.Namespace).Delete(e.ctx, p.Name, *opts)
		if err != nil && e.ctx.Err() == nil && !apierrors.IsNotFound(err) {
			m.log.Warn("ending a pod", "pod", p.Name, "err", err)
		}
	})
}
