package marshal_test

import (
	"context"

	"kubebaton.io/baton/lock"
	"kubebaton.io/baton/marshal"
)

// door joins the marshal to the package that stores slots, as the agent's wiring does.
type door struct{ *lock.Slots }

var _ marshal.Slots = door{}

func (d door) Watch(ctx context.Context, apply func([]marshal.Slot)) error {
	return d.WatchAll(ctx, func(list []lock.Slot) {
		out := make([]marshal.Slot, len(list))
		for i := range list {
			out[i] = marshal.Slot(list[i])
		}
		apply(out)
	})
}

func (d door) Get(ctx context.Context, name string) (marshal.Slot, error) {
	s, err := d.Slots.Get(ctx, name)
	return marshal.Slot(s), err
}

func (d door) Delete(ctx context.Context, s marshal.Slot) error {
	return d.Slots.Delete(ctx, lock.Slot(s))
}

func (d door) Nominate(ctx context.Context, s marshal.Slot, n marshal.Nomination) (marshal.Slot, error) {
	out, err := d.Slots.Nominate(ctx, lock.Slot(s), n.UID, n.Node, n.Cycle, n.Attempt, n.Until)
	return marshal.Slot(out), err
}

func (d door) ClearNomination(ctx context.Context, s marshal.Slot) (marshal.Slot, error) {
	out, err := d.Slots.ClearNomination(ctx, lock.Slot(s))
	return marshal.Slot(out), err
}

func (d door) SetHold(ctx context.Context, s marshal.Slot, reason string) (marshal.Slot, error) {
	out, err := d.Slots.SetHold(ctx, lock.Slot(s), reason)
	return marshal.Slot(out), err
}

func (d door) FreeGone(ctx context.Context, s marshal.Slot) (marshal.Slot, error) {
	out, err := d.Slots.FreeGone(ctx, lock.Slot(s))
	return marshal.Slot(out), err
}
