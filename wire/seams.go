package wire

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kubebaton.io/baton/agent"
	"kubebaton.io/baton/kube"
	"kubebaton.io/baton/lock"
	"kubebaton.io/baton/marshal"
	"kubebaton.io/baton/node"
	"kubebaton.io/baton/window"
)

// outcome is the one place that says what an error of an API write means to the cycle.
func outcome(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, lock.ErrHeld), errors.Is(err, lock.ErrNotHeld), errors.Is(err, lock.ErrNotNominated), errors.Is(err, lock.ErrDeleting):
		return fmt.Errorf("%w: %w", agent.ErrConflict, err)
	case apierrors.IsConflict(err), apierrors.IsInvalid(err), apierrors.IsAlreadyExists(err):
		return fmt.Errorf("%w: %w", agent.ErrConflict, err)
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%w: %w", agent.ErrGone, err)
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err), apierrors.IsBadRequest(err), apierrors.IsTooManyRequests(err):
		return err // refused before anything was written
	}
	return fmt.Errorf("%w: %w", agent.ErrUnknown, err)
}

type nodeSeam struct{ c *node.Client }

func (s nodeSeam) Get(ctx context.Context) (agent.Node, error) {
	v, err := s.c.Get(ctx)
	return agent.Node(v), outcome(err)
}

func (s nodeSeam) Patch(ctx context.Context, from agent.Node, c agent.NodeChange) (agent.Node, error) {
	v, err := s.c.Patch(ctx, node.View(from), node.Change(c))
	return agent.Node(v), outcome(err)
}

func (s nodeSeam) Watch(ctx context.Context, changed func(agent.Node, bool)) error {
	return s.c.Watch(ctx, func(v node.View, exists bool) { changed(agent.Node(v), exists) })
}

func (s nodeSeam) Event(ctx context.Context, n agent.Node, warning bool, reason, message string) error {
	kind := "Normal"
	if warning {
		kind = "Warning"
	}
	return s.c.Event(ctx, node.View(n), kind, reason, message)
}

type slotSeam struct{ s *lock.Slots }

func (s slotSeam) Get(ctx context.Context, name string) (agent.Slot, error) {
	return agentSlot(s.s.Get(ctx, name))
}

func agentSlot(sl lock.Slot, err error) (agent.Slot, error) { return agent.Slot(sl), outcome(err) }

func agentSlots(in []lock.Slot) []agent.Slot {
	out := make([]agent.Slot, len(in))
	for i, sl := range in {
		out[i] = agent.Slot(sl)
	}
	return out
}

func (s slotSeam) Check(ctx context.Context, name string) (agent.Slot, string, error) {
	sl, annotations, err := s.s.Check(ctx, name)
	return agent.Slot(sl), marshal.Pause(annotations, sl.Group), outcome(err)
}

func (s slotSeam) Named(ctx context.Context) ([]agent.Slot, error) {
	l, err := s.s.Named(ctx)
	return agentSlots(l), outcome(err)
}

func (s slotSeam) Take(ctx context.Context, sl agent.Slot, uid string, c agent.Claim) (agent.Slot, error) {
	return agentSlot(s.s.Take(ctx, lock.Slot(sl), uid, lock.Claim(c)))
}

func (s slotSeam) Renew(ctx context.Context, sl agent.Slot, c agent.Claim) (agent.Slot, error) {
	return agentSlot(s.s.Renew(ctx, lock.Slot(sl), lock.Claim(c)))
}

func (s slotSeam) Free(ctx context.Context, sl agent.Slot) (agent.Slot, error) {
	return agentSlot(s.s.Free(ctx, lock.Slot(sl)))
}

func (s slotSeam) Decline(ctx context.Context, sl agent.Slot) (agent.Slot, error) {
	return agentSlot(s.s.Decline(ctx, lock.Slot(sl)))
}

func (s slotSeam) Watch(ctx context.Context, changed func([]agent.Slot, bool)) error {
	return s.s.Watch(ctx, func(l []lock.Slot, heir bool) { changed(agentSlots(l), heir) })
}

// orderSeam is the slots as the marshal uses them.
type orderSeam struct{ s *lock.Slots }

func (s orderSeam) Watch(ctx context.Context, apply func([]marshal.Slot)) error {
	return s.s.WatchAll(ctx, func(l []lock.Slot) {
		out := make([]marshal.Slot, len(l))
		for i, sl := range l {
			out[i] = marshal.Slot(sl)
		}
		apply(out)
	})
}

func marshalSlot(sl lock.Slot, err error) (marshal.Slot, error) { return marshal.Slot(sl), err }

func (s orderSeam) Get(ctx context.Context, name string) (marshal.Slot, error) {
	return marshalSlot(s.s.Get(ctx, name))
}

func (s orderSeam) Create(ctx context.Context, group string, i int) error {
	return s.s.Create(ctx, group, i)
}

func (s orderSeam) Delete(ctx context.Context, sl marshal.Slot) error {
	return s.s.Delete(ctx, lock.Slot(sl))
}

func (s orderSeam) Nominate(ctx context.Context, sl marshal.Slot, n marshal.Nomination) (marshal.Slot, error) {
	return marshalSlot(s.s.Nominate(ctx, lock.Slot(sl), n.UID, n.Node, n.Cycle, n.Attempt, n.Until))
}

func (s orderSeam) ClearNomination(ctx context.Context, sl marshal.Slot) (marshal.Slot, error) {
	return marshalSlot(s.s.ClearNomination(ctx, lock.Slot(sl)))
}

func (s orderSeam) SetHold(ctx context.Context, sl marshal.Slot, reason string) (marshal.Slot, error) {
	return marshalSlot(s.s.SetHold(ctx, lock.Slot(sl), reason))
}

func (s orderSeam) FreeGone(ctx context.Context, sl marshal.Slot) (marshal.Slot, error) {
	return marshalSlot(s.s.FreeGone(ctx, lock.Slot(sl)))
}

// podSeam is the drainer, with the rules of the configuration in force.
type podSeam struct {
	d     *node.Drainer
	rules func(group string) node.DrainSettings
}

func (s podSeam) settings(ds agent.DrainSettings) node.DrainSettings {
	out := s.rules(ds.Group)
	out.Begun, out.Downtimes = ds.Begun, ds.Downtimes
	if ds.Timeout > 0 {
		out.Timeout = ds.Timeout
	}
	return out
}

func (s podSeam) Look(ctx context.Context, ds agent.DrainSettings, preflight bool) (agent.Outlook, error) {
	l, err := s.d.Look(ctx, s.settings(ds), preflight)
	out := agent.Outlook{Reason: l.Reason, Message: l.Message, Ready: l.Ready}
	for _, w := range l.Warnings {
		out.Warnings = append(out.Warnings, w.Message)
	}
	return out, err
}

func (s podSeam) Drain(ctx context.Context, ds agent.DrainSettings, progress func(agent.DrainView)) error {
	return s.d.Run(ctx, s.settings(ds), func(v node.DrainView) { progress(agent.DrainView(v)) })
}

func (s podSeam) AwaitReady(ctx context.Context, want []string, missing func([]string)) error {
	return s.d.AwaitReady(ctx, want, missing)
}

type marshalSeam struct{ m *marshal.Marshal }

func (s marshalSeam) Stand(on bool)                    { s.m.Stand(on) }
func (s marshalSeam) Summon()                          { s.m.Inherit() }
func (s marshalSeam) Leading() bool                    { return s.m.Leading() }
func (s marshalSeam) Resign(ctx context.Context) error { return s.m.Resign(ctx) }

func (s marshalSeam) Paused(ctx context.Context, group string) (string, error) {
	st, err := s.m.Look(ctx)
	if err != nil {
		return "", err
	}
	return st.Pause(group), nil
}

// homeSeam is the agent's namespace.
type homeSeam struct {
	client kube.Interface
	name   string
}

// Removed goes by the deletion of the namespace: it takes the DaemonSet with it. An update of the DaemonSet, or its deletion
// alone, is a stop like any other.
func (s homeSeam) Removed(ctx context.Context) (bool, error) {
	ns, err := s.client.CoreV1().Namespaces().Get(ctx, s.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("getting namespace %q: %w", s.name, err)
	}
	return ns.DeletionTimestamp != nil, nil
}

// scheduleSeam is the windows of the configuration.
type scheduleSeam struct{ *window.Schedule }

func (s scheduleSeam) Change(t time.Time) (time.Time, bool) {
	if open, _ := s.Open(t); open {
		return s.Until(t)
	}
	return s.Next(t)
}
