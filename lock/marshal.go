package lock

import (
	"context"
	"fmt"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// List reads all the slots, sorted by name, by quorum.
func (s *Slots) List(ctx context.Context) (slots []Slot, err error) {
	defer func() { s.metrics.count("list", err) }()
	list, err := s.leases.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing the slots: %w", err)
	}
	for i := range list.Items {
		if l := &list.Items[i]; isSlot(l.Name) {
			s.remember(l)
			slots = append(slots, slotOf(l))
		}
	}
	return sorted(slices.Values(slots)), nil
}

// Create makes the empty slot i of a group. One that is there already is left as it is.
func (s *Slots) Create(ctx context.Context, group string, i int) (err error) {
	defer func() { s.metrics.count("create", err) }()
	name := slotName(group, i)
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{LabelGroup: group}}}
	if _, err := s.leases.Create(ctx, l, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating slot %q: %w", name, err)
	}
	return nil
}

// Delete removes an empty slot that is nominated to nobody, if it is still at the version of sl. One that is gone already
// is no error.
func (s *Slots) Delete(ctx context.Context, sl Slot) (err error) {
	defer func() { s.metrics.count("delete", err) }()
	switch {
	case sl.Holder != "" || sl.Nominee != "":
		return fmt.Errorf("deleting slot %q: %w by %q or nominated to %q", sl.Name, ErrHeld, sl.Holder, sl.Nominee)
	case !isSlot(sl.Name) || sl.ResourceVersion == "":
		return fmt.Errorf("deleting slot %q: it has no resourceVersion or is no slot", sl.Name)
	}
	opts := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &sl.ResourceVersion}}
	if err := s.leases.Delete(ctx, sl.Name, opts); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting slot %q: %w", sl.Name, err)
	}
	return nil
}

// Nominate offers an empty slot to one bid of one Node, until a time; an earlier nomination is replaced. By
// the node's name its agent finds it.
func (s *Slots) Nominate(ctx context.Context, sl Slot, uid, node, cycle string, attempt int, until time.Time) (out Slot, err error) {
	defer func() { s.metrics.count("nominate", err) }()
	if out, err = s.update(ctx, sl, nominate(uid, node, cycle, attempt, until)); err != nil {
		return Slot{}, fmt.Errorf("nominating %q for slot %q: %w", node, sl.Name, err)
	}
	return out, nil
}

// ClearNomination takes a nomination back that nobody has taken up.
func (s *Slots) ClearNomination(ctx context.Context, sl Slot) (out Slot, err error) {
	defer func() { s.metrics.count("clear", err) }()
	if out, err = s.update(ctx, sl, withdraw()); err != nil {
		return Slot{}, fmt.Errorf("clearing the nomination of slot %q: %w", sl.Name, err)
	}
	return out, nil
}

// SetHold stops whoever has the slot or its nomination, for a reason; "" lifts it. It writes only what changes.
func (s *Slots) SetHold(ctx context.Context, sl Slot, reason string) (out Slot, err error) {
	defer func() { s.metrics.count("hold", err) }()
	if sl.Hold == reason {
		return sl, nil
	}
	if out, err = s.update(ctx, sl, setHold(reason)); err != nil {
		return Slot{}, fmt.Errorf("setting the hold of slot %q: %w", sl.Name, err)
	}
	return out, nil
}

// FreeGone empties the slot of a holder whose Node is gone. That it is gone, the caller has read by quorum AFTER it read
// sl: whoever took or renewed the slot since then makes this a Conflict.
func (s *Slots) FreeGone(ctx context.Context, sl Slot) (out Slot, err error) {
	defer func() { s.metrics.count("free-gone", err) }()
	if out, err = s.update(ctx, sl, freeGone()); err != nil {
		return Slot{}, fmt.Errorf("freeing slot %q of %q, which is gone: %w", sl.Name, sl.Holder, err)
	}
	return out, nil
}
