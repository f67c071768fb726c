package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

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
	_, release, err := w.stuck(ctx, "stuck", node)
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

// inhibitorAtTheCall takes the lock after the agent's last look at the inhibitors and before its call: so it is logind that
// refuses. See lockAtLastCheck.
func inhibitorAtTheCall(ctx context.Context, w *world) error {
	const node = "n3"
	_, release, err := w.stuck(ctx, "stuck", node)
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
	stop, err := w.lockAtLastCheck(ctx, node, release)
	if err != nil {
		return err
	}
	refused, err := w.next(ctx, draining, node+" to give up", func(e observe.Event) bool {
		return e.Node != nil && e.Node.Name == node && e.Node.Phase != observe.Draining && e.Node.Phase != observe.Rebooting
	})
	if err != nil {
		return err
	}
	r, err := recordOf(refused)
	if err != nil {
		return err
	}
	w.note("the agent says: %s", r.Message)
	if refused.Node.Phase != observe.Backoff || !slices.Contains(r.Reasons, "inhibitor") || !strings.Contains(r.Message, "asking for a reboot") {
		return fmt.Errorf("the refused reboot led to %s for %v: %q; want Backoff for inhibitor", refused.Node.Phase, r.Reasons, r.Message)
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
	if err := errors.Join(stop(ctx), w.home(ctx, node)); err != nil {
		return err
	}
	return w.rebooted(node)
}

// lockAtLastCheck lets the drain end and starts an inhibitor when the last check is all but over; stop ends it. In the last
// check the agent lists the inhibitors, then systemd's jobs, and then reads its slot from the API server. All but the last is
// seen on the node's bus. So that the lock is not late, the API server stands still meanwhile.
func (w *world) lockAtLastCheck(ctx context.Context, node string, release func(context.Context) error) (stop func(context.Context) error, err error) {
	monitor, err := w.bus(ctx, node)
	if err != nil {
		return nil, err
	}
	defer monitor.Close()
	seen, err := calls(ctx, monitor, "ListJobs", "ListInhibitors")
	if err != nil {
		return nil, err
	}
	api, err := w.apiServer()
	if err != nil {
		return nil, err
	}
	if err := release(ctx); err != nil {
		return nil, err
	}
	rebooting := false // on entering the phase the agent lists the jobs, which it does not do before
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the last check of %s: %w", node, context.Cause(ctx))
		case m := <-seen:
			if member(m) == "ListJobs" {
				rebooting = true
				continue
			}
		}
		if !rebooting {
			continue
		}
		if stop, err = w.lockWhileStill(ctx, node, api, seen); stop != nil || err != nil {
			return stop, err
		}
	}
}

// lockWhileStill stops the API server, waits for the agent to list the jobs and starts the inhibitor. Nothing is returned
// when the agent does not list them: it was not the last check but the gates' turn, after which it asks the API server first.
func (w *world) lockWhileStill(ctx context.Context, node string, api int, seen <-chan *dbus.Message) (stop func(context.Context) error, err error) {
	if err := unix.Kill(api, unix.SIGSTOP); err != nil {
		return nil, fmt.Errorf("stopping the API server: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Kill(api, unix.SIGCONT)) }()
	turn := time.NewTimer(time.Second)
	defer turn.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-turn.C:
			return nil, nil //nolint:nilnil // said above
		case m := <-seen:
			if member(m) == "ListJobs" {
				return w.startInhibitor(ctx, node)
			}
		}
	}
}

// sentinelSurvives: the update asks for a reboot again after every boot. n2 wants one too, so that there is somebody who
// orders, and a slot to be given to the wrong one.
func sentinelSurvives(ctx context.Context, w *world) error {
	const node, other = "n2", "n3"
	if err := errors.Join(w.raiseAtBoot(node), w.raise(node)); err != nil {
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
	if _, _, err := w.stuck(ctx, "stuck", node); err != nil {
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
		return fmt.Errorf("Verifying for %v, want other-reboot", r.Reasons)
	}
	if err := w.home(ctx, node); err != nil {
		return err
	}
	return w.rebooted(node)
}
