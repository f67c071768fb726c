package marshal

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A marshal whose process is young cannot tell an API server that has just been restored from a backup: it has seen nothing of
// what was before. So it does not believe that a node is Ready whose kubelet is silent, until it must show.
const (
	late     = 5 * time.Second // that a kubelet may be with the renewal of its Lease, which is due after a quarter of its duration
	askAgain = 3 * time.Second // after kubelets were silent, or could not be asked for
)

// trust believes the API server when no node that it calls Ready is silent, or when the time is over by which it must show.
func (r *runner) trust(ctx context.Context) {
	for {
		silent, err := r.silent(ctx)
		if err == nil && silent == "" {
			break
		}
		wait := time.Until(r.doubtful())
		if ctx.Err() != nil || wait <= 0 {
			return
		}
		r.log.Info("nobody is nominated yet: whether a node is down is not known", "silent", silent, "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(wait, askAgain)):
		}
	}
	r.mu.Lock()
	r.doubt = time.Time{}
	r.mu.Unlock()
	r.poke()
}

// doubtful is until when the API server is not believed; zero when it is.
func (r *runner) doubtful() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.doubt
}

// silent names a node that is Ready and whose kubelet should have renewed its Lease by now. A node without a Lease has none that
// could be late.
func (r *runner) silent(ctx context.Context) (string, error) {
	v, _ := r.snapshot() // it is complete when anybody asks
	leases, err := r.beats.List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return "", fmt.Errorf("listing the Leases in %s: %w", corev1.NamespaceNodeLease, err)
	}
	ready := map[string]bool{} // of those that count
	for _, q := range look(v).squads {
		for _, n := range q.members {
			ready[n.Name] = n.Ready
		}
	}
	for i := range leases.Items {
		l := &leases.Items[i]
		if !ready[l.Name] || l.Spec.RenewTime == nil || l.Spec.LeaseDurationSeconds == nil {
			continue
		}
		due := time.Duration(*l.Spec.LeaseDurationSeconds) * time.Second / 4
		if r.now().Sub(l.Spec.RenewTime.Time) > due+late {
			return l.Name, nil
		}
	}
	return "", nil
}
