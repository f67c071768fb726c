package lock

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// foreign is a Lease with things of others on it.
func foreign() *coordinationv1.Lease {
	days := int32(7)
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Name: slot0, ResourceVersion: "7", UID: "lease-uid", Finalizers: []string{"example.com/a", "example.com/b"},
			Labels:      map[string]string{LabelGroup: "workers", "example.com/l": "1"},
			Annotations: map[string]string{"example.com/a": "2", "kubebaton.io/unknown": "3"},
		},
		Spec: coordinationv1.LeaseSpec{LeaseDurationSeconds: &days},
	}
}

// random makes a slot that verbs can bring about: empty, nominated or held.
func random(r *rand.Rand) state {
	word := func() string {
		return []string{"", "x", "a b", "ü/…", "\n", strings.Repeat("long", 100), fmt.Sprint(r.Uint64())}[r.IntN(7)]
	}
	some := func() string { return fmt.Sprintf("%s-%d", word(), r.IntN(9)) }
	at := func() time.Time { return time.UnixMicro(r.Int64N(4e15)).UTC() }
	s := state{Slot: Slot{Name: slot0, ResourceVersion: "7", Group: "workers", Hold: word(), Release: word()}}
	switch r.IntN(3) {
	case 0:
		s.Nominee = some()
		s.bid(word(), some(), r.IntN(100)-10, at().Add(time.Duration(r.IntN(1000))))
	case 1:
		s.Nominee, s.Holder, s.HolderUID = word(), some(), word()
		s.claim(Claim{word(), r.IntN(100) - 10, word(), word(), word()}, at())
		s.acquired, s.transitions = at(), r.Int32N(100)
	}
	return s
}

func TestMapping(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	t.Run("what was written over anything is read again", func(t *testing.T) {
		for range 5000 {
			before, want := random(r), random(r)
			l := foreign()
			read(l).write(before, l)
			read(l).write(want, l)
			if d := cmp.Diff(want, read(l), cmp.AllowUnexported(state{})); d != "" {
				t.Fatalf("over %+v:\n%s", before, d)
			}
			if (want.Holder != "") != slices.Contains(l.Finalizers, FinalizerHeld) {
				t.Fatalf("finalizers %v of holder %q", l.Finalizers, want.Holder)
			}
		}
	})
	t.Run("what is not Baton's survives, and an emptied slot is as before it was first used", func(t *testing.T) {
		for range 1000 {
			want, l := foreign(), foreign()
			read(l).write(random(r), l)
			n := read(l)
			n.empty()
			n.Hold = ""
			read(l).write(n, l)
			l.Spec.LeaseTransitions = nil // a count that only grows
			if d := cmp.Diff(want, l); d != "" {
				t.Fatal(d)
			}
		}
	})
	t.Run("freeing removes also rubbish", func(t *testing.T) {
		l := foreign()
		holder := "a"
		l.Spec.HolderIdentity = &holder
		for _, k := range annotationKeys() {
			l.Annotations[k] = "\x00rubbish"
		}
		n := read(l)
		if err := free("a")(&n); err != nil {
			t.Fatal(err)
		}
		read(l).write(n, l)
		want := map[string]string{"example.com/a": "2", "kubebaton.io/unknown": "3", AnnotationHold: "\x00rubbish"}
		if d := cmp.Diff(want, l.Annotations); d != "" {
			t.Error(d)
		}
	})
	t.Run("a renewal puts a stripped finalizer back", func(t *testing.T) {
		l := foreign()
		read(l).write(state{Slot: heldSlot()}, l)
		l.Finalizers = []string{"example.com/a"}
		n := read(l)
		if err := renew("a", claim("i2"), noon)(&n); err != nil {
			t.Fatal(err)
		}
		read(l).write(n, l)
		if d := cmp.Diff([]string{"example.com/a", FinalizerHeld}, l.Finalizers); d != "" {
			t.Error(d)
		}
	})
	t.Run("an empty hold or release counts", func(t *testing.T) {
		l := foreign()
		l.Annotations[AnnotationHold], l.Annotations[AnnotationRelease] = "", ""
		if s := slotOf(l); s.Hold != noReason || s.Release != noReason {
			t.Errorf("got %q, %q", s.Hold, s.Release)
		}
		read(l).write(read(l), l)
		if v, ok := l.Annotations[AnnotationHold]; !ok || v != "" {
			t.Errorf("a write that was not about it made it %q, %v", v, ok)
		}
	})
	t.Run("a slot without its label is of the group in its name", func(t *testing.T) {
		for name, want := range map[string]string{"slot-workers-0": "workers", "slot-a-1-12": "a-1", "slot-": ""} {
			if got := slotOf(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}).Group; got != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
	})
}

func FuzzRead(f *testing.F) {
	f.Add("a", "uid-a", "1", "2026-03-01T12:01:00Z", "c1", "uid-a", true)
	f.Add("", "", "", "", "", "", false)
	f.Add(" ", "\x00", "-9223372036854775809", "0000-00-00T99:00:00Z", "\n", "ü", true)
	f.Add("", "uid-a", "1e3", "2026-03-01T12:01:00+99:99", "c1", "uid-a", false)
	f.Fuzz(func(t *testing.T, holder, uid, number, until, text, nominee string, named bool) {
		l := foreign()
		if named {
			l.Spec.HolderIdentity = &holder
		}
		maps.Copy(l.Annotations, map[string]string{
			AnnotationNodeUID: uid, AnnotationAttempt: number, AnnotationBidAttempt: number, AnnotationBidUntil: until,
			AnnotationBidCycle: text, AnnotationCycle: text, AnnotationHold: text, AnnotationRelease: text,
		})
		l.Labels[LabelNominee] = nominee
		s := read(l)
		if named && s.Holder != holder {
			t.Fatalf("holder %q is read as %q", holder, s.Holder)
		}
		c := Claim{Cycle: s.BidCycle, Attempt: s.BidAttempt}
		err := take("me", s.Nominee, c, noon)(&state{Slot: s.Slot})
		if s.Holder != "" && !errors.Is(err, ErrHeld) {
			t.Fatalf("held by %q and a take says %v", s.Holder, err)
		}
		if end, perr := time.Parse(time.RFC3339, until); err == nil && (perr != nil || !noon.Before(end)) {
			t.Fatalf("a nomination until %q was taken", until)
		}
		// Writing what was read changes nothing that is read, and a second time nothing at all.
		s.write(s, l)
		again := l.DeepCopy()
		if d := cmp.Diff(s, read(again), cmp.AllowUnexported(state{})); d != "" {
			t.Fatal(d)
		}
		read(again).write(read(again), again)
		if d := cmp.Diff(l, again); d != "" {
			t.Fatal(d)
		}
	})
}
