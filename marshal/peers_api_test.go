package marshal_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"kubebaton.io/baton/lock"
	"kubebaton.io/baton/marshal"
)

func TestPeer3_AChangeOfTheLimitNeitherLosesASlotNorStops(t *testing.T) {
	t.Parallel()
	s := newSite(t, "limit", 2)
	var uids []string
	for i := range 5 {
		uids = append(uids, s.register(i, fmt.Sprint("b", i), 9-i))
	}
	var limit atomic.Int64
	limit.Store(2)
	a := s.agent(4, nil, func(c *marshal.Config) {
		c.Groups = func() []marshal.Group {
			g := s.group
			g.MaxUnavailable = int(limit.Load())
			return []marshal.Group{g}
		}
	})
	a.Stand(true)
	set := func(n int64) { limit.Store(n); a.Reconfigured() }
	holders := func() (out []string) {
		for _, l := range s.list() {
			if l.Holder != "" {
				out = append(out, l.Holder)
			}
		}
		slices.Sort(out)
		return out
	}
	release := func(i int, sl lock.Slot) {
		t.Helper()
		s.write(i, "")
		sl, err := s.slots(i).Get(t.Context(), sl.Name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.slots(i).Free(t.Context(), sl); err != nil {
			t.Fatal(err)
		}
	}
	first, second := s.take(0, uids[0], "b0"), s.take(1, uids[1], "b1")
	set(1)
	pause(500 * time.Millisecond) // long enough for the marshal to do the wrong thing
	if got := holders(); !slices.Equal(got, []string{"limit-0", "limit-1"}) {
		t.Fatalf("2→1: the holders are %v", got)
	}
	release(0, first)
	pause(500 * time.Millisecond)
	if got := nominees(s.list()); len(got) > 0 {
		t.Fatalf("2→1: %v is nominated while the one slot that there may be is held", got)
	}
	release(1, second)
	third := s.take(2, uids[2], "b2") // 2→1 does not stop
	if n := len(s.list()); n != 1 {
		t.Errorf("there are %d slots at a limit of 1", n)
	}
	set(2)
	fourth := s.take(3, uids[3], "b3") // nor does 1→2, and
	if got := holders(); !slices.Equal(got, []string{"limit-2", "limit-3"}) {
		t.Errorf("1→2: the holders are %v", got)
	}
	if third.Name == fourth.Name {
		t.Errorf("%s is held twice", third.Name)
	}
}
