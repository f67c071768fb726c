package lock

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)

func empty() Slot { return Slot{Name: slot0, ResourceVersion: "7", Group: "workers"} }

func nominatedSlot() Slot {
	s := empty()
	s.Nominee, s.BidCycle, s.BidAttempt, s.BidUntil = "uid-a", "c1", 1, noon.Add(time.Minute)
	return s
}

func heldSlot() Slot {
	s := empty()
	s.Nominee, s.Holder, s.HolderUID, s.Renewed = "uid-a", "a", "uid-a", noon
	s.Cycle, s.Attempt, s.BootID, s.Instance = "c1", 1, "boot-1", "i1"
	return s
}

func with(s Slot, f func(*Slot)) Slot { f(&s); return s }

func TestVerbs(t *testing.T) {
	takes := take("a", "uid-a", claim("i1"), noon)
	later := noon.Add(time.Hour)
	for _, tt := range []struct {
		name string
		from Slot
		verb verb
		err  error
		want Slot
	}{
		{"take makes the nominee the holder and uses the nomination up", nominatedSlot(), takes, nil, heldSlot()},
		{
			"take keeps the hold, which is not the taker's", with(nominatedSlot(), func(s *Slot) { s.Hold = "halted" }), takes, nil,
			with(heldSlot(), func(s *Slot) { s.Hold = "halted" }),
		},
		{"take refuses a slot without a nominee", empty(), takes, ErrNotNominated, Slot{}},
		{"take refuses another node's nomination", with(nominatedSlot(), func(s *Slot) { s.Nominee = "uid-b" }), takes, ErrNotNominated, Slot{}},
		{"take refuses when its own UID is unknown", with(nominatedSlot(), func(s *Slot) { s.Nominee = "" }), take("a", "", claim("i"), noon), ErrNotNominated, Slot{}},
		{"take refuses an earlier cycle's nomination", with(nominatedSlot(), func(s *Slot) { s.BidCycle = "c0" }), takes, ErrNotNominated, Slot{}},
		{"take refuses an earlier attempt's nomination", with(nominatedSlot(), func(s *Slot) { s.BidAttempt = 0 }), takes, ErrNotNominated, Slot{}},
		{
			"take refuses a nomination without a cycle", with(nominatedSlot(), func(s *Slot) { s.BidCycle = "" }),
			take("a", "uid-a", Claim{Attempt: 1}, noon), ErrNotNominated,
			Slot{},
		},
		{"take refuses a nomination at the moment it ends", with(nominatedSlot(), func(s *Slot) { s.BidUntil = noon }), takes, ErrNotNominated, Slot{}},
		{"take refuses a nomination without an end", with(nominatedSlot(), func(s *Slot) { s.BidUntil = time.Time{} }), takes, ErrNotNominated, Slot{}},
		{"take refuses a Lease that is being deleted", with(nominatedSlot(), func(s *Slot) { s.Deleting = true }), takes, ErrDeleting, Slot{}},
		{"take refuses another's slot", with(nominatedSlot(), func(s *Slot) { s.Holder = "b" }), takes, ErrHeld, Slot{}},
		{"take refuses its own slot, which it may only renew", heldSlot(), takes, ErrHeld, Slot{}},

		{
			"renew writes the claim and the time", heldSlot(), renew("a", Claim{"c1", 2, "boot-1", "foreign", "i2"}, later), nil,
			with(heldSlot(), func(s *Slot) { s.Attempt, s.Cordon, s.Instance, s.Renewed = 2, "foreign", "i2", later }),
		},
		{
			"renew serves a Lease that is being deleted", with(heldSlot(), func(s *Slot) { s.Deleting = true }), renew("a", claim("i1"), noon), nil,
			with(heldSlot(), func(s *Slot) { s.Deleting = true }),
		},
		{"renew refuses another's slot", heldSlot(), renew("b", claim("i2"), later), ErrNotHeld, Slot{}},
		{"renew refuses an empty slot, also a nominated one", nominatedSlot(), renew("a", claim("i2"), later), ErrNotHeld, Slot{}},

		{
			"free empties all but the hold", with(heldSlot(), func(s *Slot) { s.Hold, s.Release, s.Cordon = "halted", "asked", "baton" }), free("a"), nil,
			with(empty(), func(s *Slot) { s.Hold = "halted" }),
		},
		{"free refuses another's slot", heldSlot(), free("b"), ErrNotHeld, Slot{}},
		{"free refuses an empty slot", nominatedSlot(), free("a"), ErrNotHeld, Slot{}},

		{"the marshal frees whoever is gone", heldSlot(), freeGone(), nil, empty()},
		{"the marshal frees nothing that is empty", nominatedSlot(), freeGone(), ErrNotHeld, Slot{}},
		{
			"the marshal lets an emptied Lease go that is being deleted", with(nominatedSlot(), func(s *Slot) { s.Deleting = true }), freeGone(), nil,
			with(empty(), func(s *Slot) { s.Deleting = true }),
		},

		{"nominate offers an empty slot", empty(), nominate("uid-a", "a", "c1", 1, noon.Add(time.Minute)), nil, nominatedSlot()},
		{
			"nominate replaces a nomination", with(nominatedSlot(), func(s *Slot) { s.Nominee, s.BidCycle = "uid-b", "c9" }),
			nominate("uid-a", "a", "c1", 1, noon.Add(time.Minute)), nil, nominatedSlot(),
		},
		{"nominate refuses a held slot", heldSlot(), nominate("uid-b", "b", "c1", 1, later), ErrHeld, Slot{}},
		{"nominate refuses a Lease that is being deleted", with(empty(), func(s *Slot) { s.Deleting = true }), nominate("uid-b", "b", "c1", 1, later), ErrDeleting, Slot{}},
		{"nominate refuses nobody", empty(), nominate("", "b", "c1", 1, later), ErrNotNominated, Slot{}},
		{"nominate refuses a node without a name, which could not find it", empty(), nominate("uid-b", "", "c1", 1, later), ErrNotNominated, Slot{}},
		{"nominate refuses no bid", empty(), nominate("uid-b", "b", "", 1, later), ErrNotNominated, Slot{}},

		{"withdraw clears a nomination", nominatedSlot(), withdraw(), nil, empty()},
		{"withdraw clears what is left of a nomination", with(empty(), func(s *Slot) { s.Nominee = "uid-a" }), withdraw(), nil, empty()},
		{"withdraw refuses a held slot, which keeps its nominee", heldSlot(), withdraw(), ErrHeld, Slot{}},
		{"withdraw refuses when there is none", empty(), withdraw(), ErrNotNominated, Slot{}},

		{"a hold goes on a held slot", heldSlot(), setHold("halted"), nil, with(heldSlot(), func(s *Slot) { s.Hold = "halted" })},
		{"a hold is lifted", with(empty(), func(s *Slot) { s.Hold = "halted" }), setHold(""), nil, empty()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := state{Slot: tt.from}
			err := tt.verb(&got)
			if !errors.Is(err, tt.err) {
				t.Fatalf("got error %v, want %v", err, tt.err)
			}
			want := tt.want
			if tt.err != nil {
				want = tt.from // refused: nothing has changed
			}
			if d := cmp.Diff(want, got.Slot); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestTakeCountsTransitions(t *testing.T) {
	s := state{Slot: nominatedSlot(), transitions: 4}
	if err := take("a", "uid-a", claim("i1"), noon)(&s); err != nil {
		t.Fatal(err)
	}
	if err := renew("a", claim("i1"), noon.Add(time.Hour))(&s); err != nil {
		t.Fatal(err)
	}
	if s.transitions != 5 || !s.acquired.Equal(noon) {
		t.Errorf("got transition %d acquired %v, want 5 at %v", s.transitions, s.acquired, noon)
	}
}

func TestNewNamesEveryFault(t *testing.T) {
	_, err := New(Config{})
	want := "configuring the slots: no clientset\nno namespace\nno node name"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %q", err, want)
	}
}
