package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"kubebaton.io/baton/lab/observe"
)

// waitsFor matches versions of a node that is Waiting for this reason.
func waitsFor(node, reason string) func(observe.Event) bool {
	in := observe.InPhase(node, observe.Waiting)
	return func(e observe.Event) bool {
		if !in(e) {
			return false
		}
		r, err := recordOf(e)
		return err == nil && slices.Contains(r.Reasons, reason)
	}
}

// untouched matches what must not happen to a node that only waits.
func untouched(node string) func(observe.Event) bool {
	return func(e observe.Event) bool {
		return e.Slot != nil && e.Slot.Exists && e.Slot.Holder == node ||
			e.Node != nil && e.Node.Name == node && (e.Node.Unschedulable || e.Node.Phase == observe.Draining || e.Node.Phase == observe.Rebooting)
	}
}

func inhibitorBefore(ctx context.Context, w *world) error {
	const node = "n1"
	stop, err := w.startInhibitor(ctx, node)
	if err != nil {
		return err
	}
	if err := w.raise(node); err != nil {
		return err
	}
	waits, err := w.next(ctx, observe.Event{}, node+" to wait for the inhibitor", waitsFor(node, "inhibitor"))
	if err != nil {
		return err
	}
	r, err := recordOf(waits)
	if err != nil {
		return err
	}
	if !strings.Contains(r.Message, inhibitorWho) || !strings.Contains(r.Message, inhibitorWhy) {
		return fmt.Errorf("the message does not name the inhibitor: %q", r.Message)
	}
	// Longer than a gateInterval: the gate is asked again meanwhile.
	if err := w.never(ctx, observe.Event{}, 13*time.Second, node+" was taken down in spite of the inhibitor", untouched(node)); err != nil {
		return err
	}
	if err := errors.Join(stop(ctx), w.home(ctx, node)); err != nil {
		return err
	}
	return w.rebooted(node)
}

func inhibitorInDraining(ctx context.Context, w *world) error {
	const node = "n2"
	_, release, err := w.stuck(ctx, node)
	if err != nil {
		return err
	}
	if err := w.raise(node); err != nil {
		return err
	}
	draining, err := w.phase(ctx, node, observe.Draining)
	if err != nil {
		return err
	}
	held, err := recordOf(draining)
	if err != nil {
		return err
	}
	stop, err := w.startInhibitor(ctx, node)
	if err != nil {
		return err
	}
	waits, err := w.next(ctx, draining, node+" to go back to Waiting", waitsFor(node, "inhibitor"))
	if err != nil {
		return err
	}
	r, err := recordOf(waits)
	if err != nil {
		return err
	}
	if waits.Node.Unschedulable || r.Attempt != held.Attempt || !strings.Contains(r.Message, inhibitorWho) {
		return fmt.Errorf("undone as unschedulable %t, attempt %d (was %d), message %q", waits.Node.Unschedulable, r.Attempt, held.Attempt, r.Message)
	}
	if _, err := w.next(ctx, waits, held.Slot+" to be freed", slotFreed(held.Slot, node)); err != nil {
		return err
	}
	if err := w.rebooted(); err != nil {
		return err
	}
	if err := errors.Join(release(ctx), stop(ctx), w.home(ctx, node)); err != nil {
		return err
	}
	return w.rebooted(node)
}

// hostRefuses: every gate is open, and the reboot is refused all the same. It is the bus that refuses: the logind of systemd
// 252 never refuses root a reboot for a lock that root holds, whatever the flags say.
func hostRefuses(ctx context.Context, w *world) error {
	const node = "n3"
	allow, err := w.denyReboots(ctx, node)
	if err != nil {
		return err
	}
	if err := w.raise(node); err != nil {
		return err
	}
	rebooting, err := w.phase(ctx, node, observe.Rebooting)
	if err != nil {
		return err
	}
	held, err := recordOf(rebooting)
	if err != nil {
		return err
	}
	refused, err := w.next(ctx, rebooting, node+" to give up", func(e observe.Event) bool {
		return e.Node != nil && e.Node.Name == node && e.Node.Phase != observe.Rebooting
	})
	if err != nil {
		return err
	}
	r, err := recordOf(refused)
	if err != nil {
		return err
	}
	if refused.Node.Phase != observe.Backoff || !slices.Contains(r.Reasons, "refused") || !strings.Contains(r.Message, "AccessDenied") {
		return fmt.Errorf("the refused reboot led to %s for %v: %q; want Backoff for refused", refused.Node.Phase, r.Reasons, r.Message)
	}
	if refused.Node.Unschedulable {
		return errors.New("the node is in Backoff and still cordoned")
	}
	if _, err := w.next(ctx, refused, held.Slot+" to be freed", slotFreed(held.Slot, node)); err != nil {
		return err
	}
	if err := w.rebooted(); err != nil {
		return err
	}
	if err := errors.Join(allow(ctx), w.home(ctx, node)); err != nil {
		return err
	}
	return w.rebooted(node)
}

// sentinelSurvives: the update asks for a reboot again after every boot. n2 wants one too, so that there is somebody who
// orders, and a slot to be given to the wrong one.
func sentinelSurvives(ctx context.Context, w *world) error {
	const node, other = "n2", "n3"
	if err := errors.Join(w.raiseAtBoot(node), w.c.RaiseSentinel(node, "linux-image-amd64")); err != nil {
		return err
	}
	verifying, err := w.phase(ctx, node, observe.Verifying)
	if err != nil {
		return err
	}
	held, err := recordOf(verifying)
	if err != nil {
		return err
	}
	waits, err := w.next(ctx, verifying, node+" to say that the sentinel survived", waitsFor(node, "sentinel-survived"))
	if err != nil {
		return err
	}
	if waits.Node.Unschedulable {
		return errors.New("the node is healthy, and still cordoned")
	}
	if _, err := w.next(ctx, waits, held.Slot+" to be freed", slotFreed(held.Slot, node)); err != nil {
		return err
	}
	if err := w.raise(other); err != nil {
		return err
	}
	// Longer than a gateInterval and a backoff.
	if err := w.never(ctx, waits, 15*time.Second, node+" was taken down a second time", untouched(node)); err != nil {
		return err
	}
	if err := w.dropSentinel(node); err != nil {
		return err
	}
	if err := w.home(ctx, node, other); err != nil {
		return err
	}
	return w.rebooted(node, other)
}

func rebootInWaiting(ctx context.Context, w *world) error {
	const node = "n4"
	if err := errors.Join(w.annotate(ctx, node, holdKey, "e2e"), w.raise(node)); err != nil {
		return err
	}
	waits, err := w.next(ctx, observe.Event{}, node+" to wait for the hold", waitsFor(node, "hold"))
	if err != nil {
		return err
	}
	if err := w.reboot(ctx, node); err != nil {
		return err
	}
	before, err := recordOf(waits)
	if err != nil {
		return err
	}
	if _, err := w.next(ctx, waits, node+" to notice the reboot", func(e observe.Event) bool {
		if !observe.InPhase(node, observe.Waiting)(e) {
			return false
		}
		r, err := recordOf(e)
		return err == nil && r.BootID != before.BootID
	}); err != nil {
		return err
	}
	// The boot emptied /run: nothing wants a reboot any more.
	if err := w.home(ctx, node); err != nil {
		return err
	}
	for _, e := range w.obs.Log().After(w.began).Events {
		if untouched(node)(e) {
			return fmt.Errorf("the node was taken down at %s, it only waited", e.Time.Format(timeFormat))
		}
	}
	return w.rebooted(node)
}

func rebootInDraining(ctx context.Context, w *world) error {
	const node = "n1"
	if _, _, err := w.stuck(ctx, node); err != nil {
		return err
	}
	if err := w.raise(node); err != nil {
		return err
	}
	draining, err := w.phase(ctx, node, observe.Draining)
	if err != nil {
		return err
	}
	if err := w.reboot(ctx, node); err != nil {
		return err
	}
	verifying, err := w.nextPhase(ctx, draining, observe.Verifying)
	if err != nil {
		return err
	}
	r, err := recordOf(verifying)
	if err != nil {
		return err
	}
	if !slices.Contains(r.Reasons, "other-reboot") {
		return fmt.Errorf("it is Verifying for %v, want other-reboot", r.Reasons)
	}
	if err := w.home(ctx, node); err != nil {
		return err
	}
	return w.rebooted(node)
}
