package fleet

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// churn kills the marshal and lets nodes leave and join until ctx ends.
func (f *fleet) churn(ctx context.Context) {
	kill, change := time.NewTicker(killEvery), time.NewTicker(churnEvery)
	defer kill.Stop()
	defer change.Stop()
	r := rand.New(rand.NewPCG(f.Seed, 0)) //nolint:gosec // a simulation that can be repeated
	for next := f.Nodes + 1; ; {
		select {
		case <-ctx.Done():
			return
		case <-kill.C:
			f.killMarshal(ctx)
		case <-change.C:
			if err := f.exchange(ctx, r, next); err != nil && ctx.Err() == nil {
				f.log.Error("exchanging a node", "err", err)
			}
			next++
		}
	}
}

// killMarshal ends the agent that is the marshal now, as kill -9 does. Its kubelet starts it again.
func (f *fleet) killMarshal(ctx context.Context) {
	machines := f.present()
	i := slices.IndexFunc(machines, func(m *machine) bool {
		a := m.agent()
		return a != nil && a.Leading()
	})
	if i < 0 {
		f.vacant.Add(1)
		return
	}
	m := machines[i]
	m.end(true)
	f.killed.Add(1)
	f.work.Go(func() {
		if err := m.restart(ctx); err != nil {
			f.log.Error("starting a killed agent", "node", m.name, "err", err)
		}
	})
}

// restart is the kubelet's, of an agent whose process was killed.
func (m *machine) restart(ctx context.Context) error {
	pause(ctx, restartAfter)
	m.mu.Lock()
	down := m.going || m.off || m.gone
	m.mu.Unlock()
	if down {
		return nil
	}
	return m.start(ctx)
}

// exchange lets a new node join, which wants a reboot that nobody waits for, and one leave, whatever it is doing.
func (f *fleet) exchange(ctx context.Context, r *rand.Rand, next int) error {
	m, err := f.add(ctx, next)
	if err != nil {
		return err
	}
	f.work.Go(func() { m.beat(f.life) })
	m.raise()
	if err := m.start(ctx); err != nil {
		return err
	}
	machines := f.present()
	leaves := machines[r.IntN(len(machines)-1)]
	f.mu.Lock()
	delete(f.machines, leaves.name)
	f.mu.Unlock()
	leaves.mu.Lock()
	leaves.gone = true
	leaves.mu.Unlock()
	leaves.end(true)
	f.judge.forget(leaves.name)
	f.left.Add(1)
	err = f.kubelets.client(0).CoreV1().Nodes().Delete(ctx, leaves.name, metav1.DeleteOptions{})
	if err == nil {
		err = f.kubelets.client(0).CoordinationV1().Leases(corev1.NamespaceNodeLease).Delete(ctx, leaves.name, metav1.DeleteOptions{})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("removing node %q: %w", leaves.name, err)
	}
	return nil
}
