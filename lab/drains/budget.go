package drains

import (
	"context"
	"fmt"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"

	"kubebaton.io/baton/lab/cluster"
)

const (
	budgetPods = 10
	budgetTick = 2 * time.Second
)

// budgets drains under a budget that frees one pod at every tick, also while nobody asks: the same for both tools, whatever
// they make of it.
func (b *bench) budgets(ctx context.Context, config *rest.Config) error {
	both, err := tools(config, agentLimits())
	if err != nil {
		return err
	}
	b.say("%d pods, a budget that frees one of them every %v.", budgetPods, budgetTick)
	if err := b.fill(ctx, budgetPods, atOnce()); err != nil {
		return err
	}
	for _, t := range both {
		row, err := b.budget(ctx, t)
		if err != nil {
			return fmt.Errorf("draining with %s: %w", t.name, err)
		}
		b.report.Budgets = append(b.report.Budgets, row)
		b.say("%-8s through %.2f s after the last pod was free, %d evictions asked for %d pods",
			t.name, row.After, row.Requests.Evictions, row.Pods)
	}
	return nil
}

func (b *bench) budget(ctx context.Context, t tool) (row Budget, err error) {
	budgets := b.client.PolicyV1().PodDisruptionBudgets(namespace)
	all := intstr.FromInt32(budgetPods)
	_, err = budgets.Create(ctx, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: workload},
		Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: &all, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": workload}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return row, fmt.Errorf("creating the budget: %w", err)
	}
	if err := until(ctx, "the budget to count the pods", func() (bool, error) {
		p, err := budgets.Get(ctx, workload, metav1.GetOptions{})
		return err == nil && p.Status.ObservedGeneration == p.Generation && p.Status.CurrentHealthy == budgetPods, err
	}); err != nil {
		return row, err
	}
	life, cancel := context.WithCancel(ctx)
	freed := make(chan result, 1)
	go func() { freed <- b.free(life) }()
	h, err := b.drain(ctx, t)
	if err == nil {
		err = h.failed()
	}
	if err != nil {
		cancel()
	}
	last := <-freed
	cancel()
	if err == nil {
		err = last.err
	}
	if err != nil {
		return row, err
	}
	if err := budgets.Delete(ctx, workload, metav1.DeleteOptions{}); err != nil {
		return row, fmt.Errorf("deleting the budget: %w", err)
	}
	if err := b.fill(ctx, budgetPods, atOnce()); err != nil {
		return row, err
	}
	r, err := b.requests(t, h)
	return Budget{Tool: t.name, Pods: len(h.lives), Seconds: h.total().Seconds(), After: h.to.Sub(last.at).Seconds(), Requests: r}, err
}

// result is when the last pod was freed.
type result struct {
	at  time.Time
	err error
}

// free lowers what must be available by one at every tick.
func (b *bench) free(ctx context.Context) (last result) {
	tick := time.NewTicker(budgetTick)
	defer tick.Stop()
	for left := budgetPods - 1; left >= 0; left-- {
		select {
		case <-ctx.Done():
			return result{err: ctx.Err()}
		case <-tick.C:
		}
		patch := fmt.Appendf(nil, `{"spec":{"minAvailable":%d}}`, left)
		if _, err := b.client.PolicyV1().PodDisruptionBudgets(namespace).Patch(ctx, workload, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return result{err: fmt.Errorf("freeing a pod: %w", err)}
		}
		last.at = time.Now()
	}
	return last
}

// until asks again and again, for at most a minute.
func until(ctx context.Context, what string, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return cluster.Until(ctx, what, 50*time.Millisecond, ok)
}
