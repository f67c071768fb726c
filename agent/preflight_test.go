package agent

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPreflight(t *testing.T) {
	// held is what the world looks like at each moment when the slot is held, without repetitions.
	type held struct {
		attempt  int
		phase    Phase
		warnings []string
		shields  string
	}
	watch := func(s *sim) *[]held {
		var all []held
		s.after = func(string) {
			r, err := parseRecord(s.node.Record)
			if err != nil || r == nil || s.slot.Holder == "" {
				return
			}
			h := held{s.slot.Attempt, r.Phase, r.Warnings, s.node.Shields}
			if len(all) == 0 || !cmp.Equal(all[len(all)-1], h, cmp.AllowUnexported(held{})) {
				all = append(all, h)
			}
		}
		return &all
	}

	t.Run("a node with warnings leaves the first offer to others, says why, and goes when it is offered a slot again", func(t *testing.T) {
		s := newSim(t)
		s.warnings = []string{"shop/db: disruption budget db allows none", "b", "c", "d"}
		all := watch(s)
		s.live(10*time.Minute, func() { s.raise("a") })
		s.settled(t, 1)
		if len(*all) == 0 || (*all)[0].attempt != 2 {
			t.Fatalf("it held the slot first for another bid than the second: %+v", *all)
		}
		if diff := cmp.Diff(s.warnings[:maxWarnings], (*all)[0].warnings); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a node without warnings takes the first offer", func(t *testing.T) {
		s := newSim(t)
		all := watch(s)
		s.live(10*time.Minute, func() { s.raise("a") })
		s.settled(t, 1)
		if len(*all) == 0 || (*all)[0].attempt != 1 || (*all)[0].warnings != nil {
			t.Errorf("%+v", *all)
		}
	})
	t.Run("nothing is tried on before a slot is offered", func(t *testing.T) {
		s := newSim(t)
		s.noMarshal = true
		s.live(time.Hour, func() { s.raise("a") })
		if s.looks < 2 || s.preflight != 0 {
			t.Errorf("%d looks, of which %d preflights", s.looks, s.preflight)
		}
	})
	t.Run("people's brake is read before the bid and in the last check, and not before a slot is taken that the marshal offers", func(t *testing.T) {
		s := newSim(t)
		var read []string
		s.braked = func() { read = append(read, s.node.Phase+" "+s.slot.Holder) }
		s.live(10*time.Minute, func() { s.raise("a") })
		s.settled(t, 1)
		if diff := cmp.Diff([]string{" ", "rebooting n1"}, read); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("load balancers are kept away from the cordon to the end, when the configuration wants it", func(t *testing.T) {
		for _, exclude := range []bool{true, false} {
			s := newSim(t)
			s.settings.Exclude = exclude
			all := watch(s)
			s.live(10*time.Minute, func() { s.raise("a") })
			s.settled(t, 1) // and nothing is left of it
			want := map[bool]string{true: "karpenter.sh/do-not-disrupt,exclude", false: "karpenter.sh/do-not-disrupt"}[exclude]
			down := slices.DeleteFunc(slices.Clone(*all), func(h held) bool { return !h.phase.down() })
			if len(down) < 3 || slices.ContainsFunc(down, func(h held) bool { return h.shields != want }) {
				t.Errorf("exclude %v: %+v", exclude, *all)
			}
		}
	})
}
