package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kubebaton.io/baton/lab/audit"
	"kubebaton.io/baton/lab/observe"
)

// patience is how long a drain may take where it is to fail.
const patience = 8 * time.Second

// scenarios are all there are, in the order they run: those with the same settings stand together.
func scenarios() []scenario {
	failing := settings{drainTimeout: patience}
	return []scenario{
		{"all nodes reboot, one after another", true, settings{}, func(ctx context.Context, w *world) error { return rollout(ctx, w, 1) }},
		{"an agent killed in Draining goes on where it was", true, settings{}, killedInDraining},
		{"an agent killed in Rebooting reboots its node once", false, settings{}, killedInRebooting},
		{"a cordon from before stays through a reboot", true, settings{}, cordonKept},
		{"the policy refuses the token of one node on another", true, settings{}, tokenOfAnother},
		{"an inhibitor keeps a node waiting and is named", false, settings{}, inhibitorBefore},
		{"an inhibitor that appears in Draining gives the slot back", false, settings{}, inhibitorInDraining},
		{"a reboot that the host refuses is given up", false, settings{}, hostRefuses},
		{"a sentinel that survives the reboot brings no second one", false, settings{}, sentinelSurvives},
		{"a reboot by hand in Waiting is noticed", false, settings{}, rebootInWaiting},
		{"a reboot by hand in Draining ends the cycle", false, settings{}, rebootInDraining},
		{"a held slot survives its deletion", false, settings{}, slotDeleted},
		{"the slot of a deleted node is freed", false, settings{}, nodeDeleted},
		{"an agent killed in Verifying brings its node home", false, settings{soak: 4 * time.Second}, killedInVerifying},
		{"all nodes reboot, two at a time", true, settings{maxUnavailable: 2}, func(ctx context.Context, w *world) error { return rollout(ctx, w, 2) }},
		{"a budget that allows nothing lets the next node go", true, failing, budgetBlocks},
		{"a cordon from before stays through a failed drain", false, failing, cordonKeptInBackoff},
	}
}

// rollout: every node wants a reboot, and gets one.
func rollout(ctx context.Context, w *world, atOnce int) error {
	if err := w.raise(w.nodes...); err != nil {
		return err
	}
	if err := w.home(ctx, w.nodes...); err != nil {
		return err
	}
	log := w.obs.Log().After(w.began)
	if n, names, _ := log.MaxDown(); n != atOnce {
		return fmt.Errorf("%d nodes were down at most, %v; want %d", n, names, atOnce)
	}
	for _, d := range log.Downs() {
		w.note("%s was down for %.1f s", d.Node, d.Until.Sub(d.From).Seconds())
	}
	evictions, err := audit.Evictions(w.c.AuditLog(), w.began, time.Time{})
	if err != nil {
		return err
	}
	evicted := 0
	for _, e := range evictions {
		if e.Code < 300 {
			evicted++
		}
	}
	if evicted == 0 {
		return errors.New("no pod was evicted")
	}
	return w.rebooted(w.nodes...)
}

// killedIn kills the node's agent and proves that it was in that phase when it died.
func (w *world) killedIn(ctx context.Context, e observe.Event) error {
	if err := w.c.Signal(e.Node.Name, agentProgram, unix.SIGKILL); err != nil {
		return err
	}
	after := time.Since(e.Time)
	n, err := w.client.CoreV1().Nodes().Get(ctx, e.Node.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if n.Labels[phaseKey] != e.Node.Phase {
		return fmt.Errorf("the agent of %s was killed too late: the phase was %q by then", n.Name, n.Labels[phaseKey])
	}
	w.note("killed %.1f ms after the watch showed %s", float64(after.Microseconds())/1000, e.Node.Phase)
	return nil
}

// sameCycle fails unless the cycle went through with the same identity, in its first attempt.
func sameCycle(before, after observe.Event) error {
	a, err := recordOf(before)
	if err != nil {
		return err
	}
	b, err := recordOf(after)
	if err != nil {
		return err
	}
	if a.Cycle != b.Cycle || b.Attempt != 1 || a.Slot != b.Slot {
		return fmt.Errorf("the cycle did not go on: it was %+v, it became %+v", a, b)
	}
	return nil
}

func killedInDraining(ctx context.Context, w *world) error {
	const node = "n1"
	if _, err := w.pin(ctx, "slow", node, 5*time.Second); err != nil {
		return err
	}
	if err := w.raise(node); err != nil {
		return err
	}
	draining, err := w.phase(ctx, node, observe.Draining)
	if err != nil {
		return err
	}
	if err := w.killedIn(ctx, draining); err != nil {
		return err
	}
	rebooting, err := w.nextPhase(ctx, draining, observe.Rebooting)
	if err != nil {
		return err
	}
	if err := errors.Join(sameCycle(draining, rebooting), w.home(ctx, node)); err != nil {
		return err
	}
	return w.rebooted(node)
}

func killedInRebooting(ctx context.Context, w *world) error {
	const node = "n2"
	if err := w.raise(node); err != nil {
		return err
	}
	rebooting, err := w.phase(ctx, node, observe.Rebooting)
	if err != nil {
		return err
	}
	if err := w.killedIn(ctx, rebooting); err != nil {
		return err
	}
	verifying, err := w.nextPhase(ctx, rebooting, observe.Verifying)
	if err != nil {
		return err
	}
	if err := errors.Join(sameCycle(rebooting, verifying), w.home(ctx, node)); err != nil {
		return err
	}
	return w.rebooted(node)
}

func killedInVerifying(ctx context.Context, w *world) error {
	const node = "n3"
	if err := w.raise(node); err != nil {
		return err
	}
	verifying, err := w.phase(ctx, node, observe.Verifying)
	if err != nil {
		return err
	}
	if err := w.killedIn(ctx, verifying); err != nil {
		return err
	}
	if err := w.home(ctx, node); err != nil {
		return err
	}
	return w.rebooted(node)
}

func cordonKept(ctx context.Context, w *world) error {
	const node = "n4"
	if err := errors.Join(w.cordon(ctx, node), w.raise(node)); err != nil {
		return err
	}
	draining, err := w.phase(ctx, node, observe.Draining)
	if err != nil {
		return err
	}
	r, err := recordOf(draining)
	if err != nil {
		return err
	}
	if r.Cordon != "foreign" {
		return fmt.Errorf("the record says that the cordon is %q, want foreign", r.Cordon)
	}
	if err := w.home(ctx, node); err != nil {
		return err
	}
	return w.rebooted(node)
}

func cordonKeptInBackoff(ctx context.Context, w *world) error {
	const node = "n4"
	if _, _, err := w.stuck(ctx, node); err != nil {
		return err
	}
	if err := errors.Join(w.cordon(ctx, node), w.raise(node)); err != nil {
		return err
	}
	backoff, err := w.phase(ctx, node, observe.Backoff)
	if err != nil {
		return err
	}
	r, err := recordOf(backoff)
	if err != nil {
		return err
	}
	if !slices.Contains(r.Reasons, "pdb") {
		return fmt.Errorf("it is in Backoff for %v, want pdb: %s", r.Reasons, r.Message)
	}
	if err := w.dropSentinel(node); err != nil {
		return err
	}
	idle, err := w.nextPhase(ctx, backoff, observe.Idle)
	if err != nil {
		return err
	}
	if !idle.Node.Unschedulable {
		return errors.New("the cordon from before was lost")
	}
	return w.rebooted()
}

// budgetBlocks: n1 is first and cannot be drained, n2 waits for the same slot.
func budgetBlocks(ctx context.Context, w *world) error {
	const first, second = "n1", "n2"
	pod, release, err := w.stuck(ctx, first)
	if err != nil {
		return err
	}
	if err := w.raise(first); err != nil {
		return err
	}
	draining, err := w.phase(ctx, first, observe.Draining)
	if err != nil {
		return err
	}
	if err := w.raise(second); err != nil {
		return err
	}
	backoff, err := w.nextPhase(ctx, draining, observe.Backoff)
	if err != nil {
		return err
	}
	held, err := recordOf(draining)
	if err != nil {
		return err
	}
	r, err := recordOf(backoff)
	if err != nil {
		return err
	}
	if !slices.Contains(r.Reasons, "pdb") || !strings.Contains(r.Message, pod.Name) {
		return fmt.Errorf("it is in Backoff for %v, %q; want pdb, and the pod %s named", r.Reasons, r.Message, pod.Name)
	}
	if backoff.Node.Unschedulable {
		return errors.New("the node is in Backoff and still cordoned")
	}
	freed, err := w.next(ctx, backoff, held.Slot+" to be freed", slotFreed(held.Slot, first))
	if err != nil {
		return err
	}
	next, err := w.next(ctx, freed, second+" to go", observe.InPhase(second, observe.Draining))
	if err != nil {
		return err
	}
	w.note("gave up after %.1f s, slot freed after %.0f ms more, the next node cordoned after %.0f ms more", backoff.Time.Sub(draining.Time).Seconds(),
		freed.Time.Sub(backoff.Time).Seconds()*1000, next.Time.Sub(freed.Time).Seconds()*1000)
	if err := w.home(ctx, second); err != nil {
		return err
	}
	if err := w.rebooted(second); err != nil {
		return err
	}
	now, err := w.client.CoreV1().Pods(space).Get(ctx, pod.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if now.UID != pod.UID || now.DeletionTimestamp != nil {
		return errors.New("the pod that the budget protects was evicted")
	}
	if err := errors.Join(release(ctx), w.home(ctx, first)); err != nil {
		return err
	}
	return w.rebooted(first, second)
}
