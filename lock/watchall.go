package lock

import (
	"context"
	"fmt"
	"slices"

	coordinationv1 "k8s.io/api/coordination/v1"

	"kubebaton.io/baton/kube"
)

// WatchAll calls apply with every slot of the namespace, at the start and whenever one of them changes: the marshal's
// view. It ends with ctx and returns its error.
func (s *Slots) WatchAll(ctx context.Context, apply func([]Slot)) error {
	// By name, not by label: a slot whose label somebody removed is a slot all the same.
	err := kube.Watch(ctx, s.leases.List, s.leases.Watch, kube.Selection{}, &coordinationv1.Lease{},
		func(items map[string]*coordinationv1.Lease) {
			slots := make([]Slot, 0, len(items))
			for _, l := range items {
				if isSlot(l.Name) {
					s.remember(l)
					slots = append(slots, slotOf(l))
				}
			}
			apply(sorted(slices.Values(slots)))
		},
		func(err error) {
			s.metrics.count("watch", err)
			s.log.Warn("watching all slots", "err", err)
		})
	if err != nil {
		return fmt.Errorf("watching all slots: %w", err)
	}
	return nil
}
