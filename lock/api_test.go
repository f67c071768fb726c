package lock

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kubebaton.io/baton/kube"
)

// patch is a person with kubectl.
func (w *world) patch(name, merge string) {
	w.t.Helper()
	must(w.c.CoordinationV1().Leases(w.ns).Patch(w.t.Context(), name, types.MergePatchType, []byte(merge), metav1.PatchOptions{}))(w.t)
}

func (w *world) deleteByHand(name string) {
	w.t.Helper()
	if err := w.c.CoordinationV1().Leases(w.ns).Delete(w.t.Context(), name, metav1.DeleteOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) gone(name string) {
	w.t.Helper()
	if _, err := w.c.CoordinationV1().Leases(w.ns).Get(w.t.Context(), name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		w.t.Fatalf("Lease %q: got %v, want NotFound", name, err)
	}
}

func TestLease(t *testing.T) {
	t.Run("a slot goes from empty to own to empty, and the Lease says so", func(t *testing.T) {
		w := newWorld(t)
		before := w.lease(slot0)
		if d := cmp.Diff(map[string]string{LabelGroup: "workers"}, before.Labels); d != "" {
			t.Error(d)
		}
		held := w.held(slot0)
		l := w.lease(slot0)
		if d := cmp.Diff(held, slotOf(l)); d != "" {
			t.Error("what Take returned is not what is stored", d)
		}
		if *l.Spec.HolderIdentity != "a" || l.Spec.AcquireTime.IsZero() || *l.Spec.LeaseTransitions != 1 {
			t.Errorf("spec %+v", l.Spec)
		}
		if d := cmp.Diff([]string{FinalizerHeld}, l.Finalizers); d != "" {
			t.Error(d)
		}
		wantLabels := map[string]string{LabelGroup: "workers", LabelNominee: "uid-a", LabelNode: kube.NodeLabel("a")}
		if d := cmp.Diff(wantLabels, l.Labels); d != "" {
			t.Error(d)
		}
		renewed := must(w.a.Renew(t.Context(), held, Claim{"c1", 1, "boot-1", "baton", "i2"}))(t)
		if renewed.Cordon != "baton" || renewed.Instance != "i2" || !renewed.Renewed.After(held.Renewed) {
			t.Errorf("got %+v", renewed)
		}
		w.patch(slot0, `{"metadata":{"annotations":{"kubebaton.io/release":"please"}}}`)
		free := must(w.a.Free(t.Context(), w.get(slot0)))(t)
		want := Slot{Name: slot0, Group: "workers", ResourceVersion: free.ResourceVersion}
		if d := cmp.Diff(want, free); d != "" {
			t.Error(d)
		}
		after := w.lease(slot0)
		after.ResourceVersion, after.ManagedFields, before.ManagedFields = before.ResourceVersion, nil, nil
		if *after.Spec.LeaseTransitions != 1 {
			t.Errorf("transitions %d", *after.Spec.LeaseTransitions)
		}
		before.Spec.LeaseTransitions = after.Spec.LeaseTransitions
		if d := cmp.Diff(before, after); d != "" {
			t.Error("freed is not as before:", d)
		}
	})
	t.Run("a held Lease deleted by hand stays, is renewed, and vanishes when freed", func(t *testing.T) {
		w := newWorld(t)
		w.held(slot0)
		w.deleteByHand(slot0)
		sl := w.get(slot0)
		if !sl.Deleting || sl.Holder != "a" {
			t.Fatalf("got %+v", sl)
		}
		sl = must(w.a.Renew(t.Context(), sl, claim("i2")))(t)
		if _, err := w.a.Free(t.Context(), sl); err != nil {
			t.Fatal(err)
		}
		w.gone(slot0)
		if err := w.marshal.Create(t.Context(), "workers", 0); err != nil {
			t.Fatal(err)
		}
		w.held(slot0)
	})
	t.Run("a held Lease deleted by hand vanishes when the marshal frees it of a Node that is gone", func(t *testing.T) {
		w := newWorld(t)
		w.held(slot0)
		w.deleteByHand(slot0)
		must(w.marshal.FreeGone(t.Context(), w.get(slot0)))(t)
		w.gone(slot0)
	})
	t.Run("a Lease whose holder was emptied by hand while it was deleted is let go by the marshal", func(t *testing.T) {
		w := newWorld(t)
		w.held(slot0)
		w.deleteByHand(slot0)
		w.patch(slot0, `{"spec":{"holderIdentity":null}}`)
		must(w.marshal.FreeGone(t.Context(), w.get(slot0)))(t)
		w.gone(slot0)
	})
	t.Run("an empty Lease being deleted, kept by a foreign finalizer, is not taken", func(t *testing.T) {
		w := newWorld(t)
		w.patch(slot0, `{"metadata":{"finalizers":["example.com/keep"]}}`)
		w.nominated(slot0)
		w.deleteByHand(slot0)
		if _, err := w.a.Take(t.Context(), w.get(slot0), "uid-a", claim("i1")); !errors.Is(err, ErrDeleting) {
			t.Errorf("got %v", err)
		}
		w.patch(slot0, `{"metadata":{"finalizers":null}}`)
	})
	t.Run("what is not Baton's survives all verbs", func(t *testing.T) {
		w := newWorld(t)
		w.patch(slot0, `{"metadata":{"annotations":{"example.com/a":"1","kubebaton.io/unknown":"2"},"labels":{"example.com/l":"3"},
			"finalizers":["example.com/f"]},"spec":{"leaseDurationSeconds":99}}`)
		check := func(verb string) {
			t.Helper()
			l := w.lease(slot0)
			if l.Annotations["example.com/a"] != "1" || l.Annotations["kubebaton.io/unknown"] != "2" || l.Labels["example.com/l"] != "3" ||
				l.Finalizers[0] != "example.com/f" || *l.Spec.LeaseDurationSeconds != 99 {
				t.Errorf("after %s: %+v", verb, l)
			}
		}
		ctx := t.Context()
		sl := w.nominated(slot0)
		check("nominate")
		must(w.a.Decline(ctx, sl))(t)
		check("decline")
		w.nominated(slot0)
		sl = must(w.marshal.ClearNomination(ctx, w.get(slot0)))(t)
		check("clear")
		must(w.marshal.SetHold(ctx, sl, "halted"))(t)
		check("hold")
		w.held(slot0)
		check("take")
		sl = must(w.a.Renew(ctx, w.get(slot0), claim("i2")))(t)
		check("renew")
		sl = must(w.a.Free(ctx, sl))(t)
		check("free")
		if sl.Hold != "halted" {
			t.Errorf("hold %q after free", sl.Hold)
		}
		sl = w.held(slot0)
		must(w.marshal.FreeGone(ctx, sl))(t)
		check("free-gone")
		if d := cmp.Diff([]string{"example.com/f"}, w.lease(slot0).Finalizers); d != "" {
			t.Error(d)
		}
	})
}

func TestLateWrites(t *testing.T) {
	t.Run("a write decided on an old version is refused, by this process and by the API server", func(t *testing.T) {
		for name, verb := range map[string]func(*world, *Slots, Slot) error{
			"renew": func(_ *world, s *Slots, sl Slot) error { _, err := s.Renew(t.Context(), sl, claim("late")); return err },
			"free":  func(_ *world, s *Slots, sl Slot) error { _, err := s.Free(t.Context(), sl); return err },
		} {
			t.Run(name, func(t *testing.T) {
				w := newWorld(t)
				other := open(t, w.c, w.ns, "a") // remembers nothing
				old := w.held(slot0)
				forgetful := must(other.Get(t.Context(), slot0))(t)
				w.patch(slot0, `{"metadata":{"annotations":{"example.com/a":"1"}}}`) // any write whatever
				before := w.lease(slot0)
				for _, err := range []error{verb(w, w.a, old), verb(w, other, forgetful), verb(w, open(t, w.c, w.ns, "a"), old)} {
					if !apierrors.IsConflict(err) {
						t.Errorf("got %v, want a Conflict", err)
					}
				}
				if d := cmp.Diff(before, w.lease(slot0)); d != "" {
					t.Error(d)
				}
			})
		}
	})
	t.Run("a take on a nomination that was cleared and given again is refused", func(t *testing.T) {
		w := newWorld(t)
		old := w.nominated(slot0)
		must(w.marshal.ClearNomination(t.Context(), old))(t)
		w.nominated(slot0)
		if _, err := w.a.Take(t.Context(), old, "uid-a", claim("i1")); !apierrors.IsConflict(err) {
			t.Errorf("got %v, want a Conflict", err)
		}
	})
	t.Run("a late write does not bring a deleted Lease back", func(t *testing.T) {
		w := newWorld(t)
		remembered := w.nominated(slot0)
		must(w.a.Get(t.Context(), slot0))(t) // so that the write is sent without a look
		w.deleteByHand(slot0)
		if _, err := w.a.update(t.Context(), remembered, take("a", "uid-a", claim("i1"), time.Now())); err == nil {
			t.Error("it was taken")
		}
		w.gone(slot0)
		if err := w.marshal.Create(t.Context(), "workers", 0); err != nil {
			t.Fatal(err)
		}
		if _, err := w.a.update(t.Context(), remembered, take("a", "uid-a", claim("i1"), time.Now())); !apierrors.IsConflict(err) {
			t.Errorf("on its successor: got %v, want a Conflict", err)
		}
	})
	t.Run("without a version nothing is written", func(t *testing.T) {
		w := newWorld(t)
		sl := w.held(slot0)
		sl.ResourceVersion = ""
		if _, err := w.a.Free(t.Context(), sl); err == nil || !strings.Contains(err.Error(), "resourceVersion") {
			t.Errorf("got %v", err)
		}
		if err := w.marshal.Delete(t.Context(), Slot{Name: slot0}); err == nil {
			t.Error("it was deleted")
		}
	})
	t.Run("the marshal does not free a slot that its dead holder renewed meanwhile", func(t *testing.T) {
		w := newWorld(t)
		old := w.held(slot0)
		must(w.a.Renew(t.Context(), old, claim("i2")))(t)
		if _, err := w.marshal.FreeGone(t.Context(), old); !apierrors.IsConflict(err) {
			t.Errorf("got %v, want a Conflict", err)
		}
	})
	t.Run("an empty slot that was nominated meanwhile is not deleted", func(t *testing.T) {
		w := newWorld(t)
		old := w.get(slot0)
		nominated := w.nominated(slot0)
		if err := w.marshal.Delete(t.Context(), old); !apierrors.IsConflict(err) {
			t.Errorf("got %v, want a Conflict", err)
		}
		if err := w.marshal.Delete(t.Context(), nominated); !errors.Is(err, ErrHeld) {
			t.Errorf("got %v, want a refusal", err)
		}
		sl := must(w.a.Decline(t.Context(), nominated))(t)
		for range 2 { // gone already is no error
			if err := w.marshal.Delete(t.Context(), sl); err != nil {
				t.Error(err)
			}
		}
		w.gone(slot0)
	})
}

func TestOneSlotANode(t *testing.T) {
	two := func(t *testing.T) *world {
		w := newWorld(t)
		if err := w.marshal.Create(t.Context(), "workers", 1); err != nil {
			t.Fatal(err)
		}
		return w
	}
	const slot1 = "slot-workers-1"
	t.Run("no second slot is taken", func(t *testing.T) {
		w := two(t)
		w.held(slot0)
		if _, err := w.a.Take(t.Context(), w.nominated(slot1), "uid-a", claim("i1")); !errors.Is(err, ErrHeld) {
			t.Errorf("got %v, want ErrHeld", err)
		}
	})
	t.Run("no slot is taken that the node could not find again", func(t *testing.T) {
		w := newWorld(t)
		sl := w.nominated(slot0)
		w.patch(slot0, `{"metadata":{"labels":{"kubebaton.io/node":null}}}`)
		if _, err := w.a.Take(t.Context(), sl, "uid-a", claim("i1")); !errors.Is(err, ErrNotNominated) {
			t.Errorf("got %v, want ErrNotNominated", err)
		}
	})
	t.Run("a label that a person took off a held slot, or changed, is put right by the next heartbeat", func(t *testing.T) {
		w := newWorld(t)
		w.held(slot0)
		for _, label := range []string{"null", `"x"`} {
			w.patch(slot0, `{"metadata":{"labels":{"kubebaton.io/node":`+label+`}}}`)
			if l := must(w.a.Named(t.Context()))(t); len(l) != 0 {
				t.Errorf("named %v", l)
			}
			sl := must(w.a.Renew(t.Context(), w.get(slot0), claim("i1")))(t)
			if d := cmp.Diff([]Slot{sl}, must(w.a.Named(t.Context()))(t)); d != "" {
				t.Error(d)
			}
		}
	})
	t.Run("what was nominated for an earlier Node of this name is left to the marshal", func(t *testing.T) {
		w := two(t)
		old := must(w.marshal.Nominate(t.Context(), w.get(slot1), "uid-old", "a", "c0", 1, time.Now().Add(time.Minute)))(t)
		must(w.a.Take(t.Context(), w.nominated(slot0), "uid-a", claim("i1")))(t)
		if d := cmp.Diff(old, w.get(slot1)); d != "" {
			t.Error(d)
		}
	})
	t.Run("no second slot is taken beside one that an earlier Node of this name left", func(t *testing.T) {
		w := two(t)
		w.held(slot0)
		sl := must(w.marshal.Nominate(t.Context(), w.get(slot1), "uid-a2", "a", "c1", 1, time.Now().Add(time.Minute)))(t)
		if _, err := w.a.Take(t.Context(), sl, "uid-a2", claim("i1")); !errors.Is(err, ErrHeld) {
			t.Errorf("got %v, want ErrHeld", err)
		}
	})
	t.Run("of two nominations one is taken and the other declined", func(t *testing.T) {
		w := two(t)
		first := w.nominated(slot0)
		must(w.a.Take(t.Context(), w.nominated(slot1), "uid-a", claim("i1")))(t)
		if d := cmp.Diff(Slot{Name: slot0, Group: "workers"}, with(w.get(slot0), func(s *Slot) { s.ResourceVersion = "" })); d != "" {
			t.Error(d)
		}
		if _, err := w.a.Take(t.Context(), first, "uid-a", claim("i1")); !errors.Is(err, ErrHeld) {
			t.Errorf("got %v, want ErrHeld", err)
		}
	})
}

func TestNamed(t *testing.T) {
	w := newWorld(t)
	for i := 1; i < 5; i++ {
		if err := w.marshal.Create(t.Context(), "workers", i); err != nil {
			t.Fatal(err)
		}
	}
	// 0 held under an earlier UID; 1 nominated; 2 held by another; 3 of another whose hash is the same; 4 empty, labelled by a person.
	w.held(slot0)
	w.patch(slot0, `{"metadata":{"labels":{"kubebaton.io/nominee":"uid-old"},"annotations":{"kubebaton.io/node-uid":"uid-old"}}}`)
	w.nominated("slot-workers-1")
	b := open(t, w.c, w.ns, "b")
	sl := must(w.marshal.Nominate(t.Context(), w.get("slot-workers-2"), "uid-b", "b", "c1", 1, time.Now().Add(time.Minute)))(t)
	must(b.Take(t.Context(), sl, "uid-b", claim("i")))(t)
	w.patch("slot-workers-3", `{"metadata":{"labels":{"kubebaton.io/node":"`+kube.NodeLabel("a")+`"}},"spec":{"holderIdentity":"zz"}}`)
	w.patch("slot-workers-4", `{"metadata":{"labels":{"kubebaton.io/node":"`+kube.NodeLabel("a")+`"}}}`)
	w.callToStand("a")

	got := must(w.a.Named(t.Context()))(t)
	if d := cmp.Diff([]Slot{w.get(slot0), w.get("slot-workers-1")}, got); d != "" {
		t.Error(d)
	}
}

// callToStand makes the Lease `marshal` with an heir on it.
func (w *world) callToStand(node string) {
	w.t.Helper()
	must(w.c.CoordinationV1().Leases(w.ns).Create(w.t.Context(), &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: MarshalLease, Labels: map[string]string{LabelNode: kube.NodeLabel(node)}},
	}, metav1.CreateOptions{}))(w.t)
}

func TestList(t *testing.T) {
	w := newWorld(t)
	w.patch(slot0, `{"metadata":{"labels":{"kubebaton.io/group":null}}}`)
	w.callToStand("a")
	must(w.c.CoordinationV1().Leases(w.ns).Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "else"}}, metav1.CreateOptions{}))(t)
	slots := must(w.marshal.List(t.Context()))(t)
	if d := cmp.Diff([]Slot{w.get(slot0)}, slots); d != "" || slots[0].Group != "workers" {
		t.Error("a slot without its label is still a slot:", d)
	}
	if err := w.marshal.Create(t.Context(), "workers", 0); err != nil {
		t.Errorf("creating what is there: %v", err)
	}
	if _, err := w.a.Get(t.Context(), MarshalLease); err == nil {
		t.Error("Lease marshal is read as a slot")
	}
}

// The last check reads the slot and the brake by one list, and by their names what its labels do not show.
func TestCheck(t *testing.T) {
	w := newWorld(t)
	l, wrap := badLine(t, func() fault { return none })
	s := open(t, clientset(t, wrap), w.ns, "a")
	w.held(slot0)
	check := func(what, want string, gets int32) {
		t.Helper()
		before := l.gets.Load()
		sl, m, err := s.Check(t.Context(), slot0)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if d := cmp.Diff(w.get(slot0), sl); d != "" {
			t.Errorf("%s: %s", what, d)
		}
		if got := m["kubebaton.io/pause"]; got != want {
			t.Errorf("%s: the Lease says %v", what, m)
		}
		if n := l.gets.Load() - before; n != gets {
			t.Errorf("%s: %d reads by name, want %d", what, n, gets)
		}
	}
	label := func(v string) string { return `{"metadata":{"labels":{"kubebaton.io/node":` + v + `}}}` }
	check("no marshal yet", "", 2)
	w.callToStand("b")
	w.patch(MarshalLease, `{"metadata":{"annotations":{"kubebaton.io/pause":"freeze"}}}`)
	check("another node is the heir", "freeze", 2)
	w.patch(MarshalLease, label(`"`+kube.NoNode+`"`))
	check("nobody is", "freeze", 0)
	w.patch(slot0, label("null"))
	check("the slot has lost its label", "freeze", 1)
	w.patch(MarshalLease, label("null"))
	check("so has the Lease", "freeze", 2)
	if _, _, err := s.Check(t.Context(), "slot-workers-7"); !apierrors.IsNotFound(err) {
		t.Errorf("a slot that is not there: %v", err)
	}
}

func TestWatch(t *testing.T) {
	w := newWorld(t)
	type seen struct {
		slots []Slot
		heir  bool
	}
	ctx, cancel := context.WithCancel(t.Context())
	events, ended := make(chan seen, 100), make(chan error, 1)
	go func() {
		ended <- w.a.Watch(ctx, func(slots []Slot, heir bool) { events <- seen{slots, heir} })
	}()
	next := func(what string, ok func(seen) bool) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for {
			select {
			case e := <-events:
				if ok(e) {
					return
				}
			case <-deadline:
				t.Fatalf("no event: %s", what)
			}
		}
	}
	next("nothing at the start", func(e seen) bool { return len(e.slots) == 0 && !e.heir })
	w.nominated(slot0)
	next("the nomination", func(e seen) bool { return len(e.slots) == 1 && e.slots[0].BidCycle == "c1" && !e.heir })
	held := must(w.a.Take(t.Context(), w.get(slot0), "uid-a", claim("i1")))(t)
	next("the held slot stays in sight", func(e seen) bool { return len(e.slots) == 1 && e.slots[0] == held })
	w.callToStand("a")
	next("the call to stand for election", func(e seen) bool { return len(e.slots) == 1 && e.heir })
	w.patch(MarshalLease, `{"metadata":{"labels":{"kubebaton.io/node":null}}}`)
	next("the end of it", func(e seen) bool { return len(e.slots) == 1 && !e.heir })
	must(w.marshal.SetHold(t.Context(), held, "halted"))(t)
	next("the brake", func(e seen) bool { return len(e.slots) == 1 && e.slots[0].Hold == "halted" })
	must(w.a.Free(t.Context(), w.get(slot0)))(t)
	next("nothing after the end", func(e seen) bool { return len(e.slots) == 0 })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestWatchAll(t *testing.T) {
	w := newWorld(t)
	held := w.held(slot0)
	must(w.c.CoordinationV1().Leases(w.ns).Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: MarshalLease}}, metav1.CreateOptions{}))(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var last []Slot
	err := w.marshal.WatchAll(ctx, func(slots []Slot) {
		switch last = slots; len(slots) {
		case 1:
			if err := w.marshal.Create(ctx, "workers", 1); err != nil {
				t.Error(err)
			}
		case 2:
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if d := cmp.Diff([]Slot{held, w.get("slot-workers-1")}, last); d != "" {
		t.Error(d)
	}
}

func TestMetrics(t *testing.T) {
	w := newWorld(t)
	reg := prometheus.NewRegistry()
	var a *Slots
	for range 2 { // the agent's and its marshal's share one registry
		a = must(New(Config{Clientset: w.c, Namespace: w.ns, Node: "a", Registerer: reg}))(t)
	}
	if _, err := a.Take(t.Context(), w.get(slot0), "uid-a", claim("i")); !errors.Is(err, ErrNotNominated) {
		t.Fatal(err)
	}
	held := must(a.Take(t.Context(), w.nominated(slot0), "uid-a", claim("i")))(t)
	if got := testutil.ToFloat64(a.metrics.heartbeat.WithLabelValues(slot0)); got != float64(held.Renewed.UnixMicro())/1e6 {
		t.Errorf("heartbeat %v, renewed %v", got, held.Renewed)
	}
	must(w.marshal.FreeGone(t.Context(), held))(t)
	if _, err := a.Renew(t.Context(), held, claim("i")); !apierrors.IsConflict(err) {
		t.Fatal(err)
	}
	must(a.Named(t.Context()))(t)
	if n := testutil.CollectAndCount(a.metrics.heartbeat); n != 0 {
		t.Errorf("%d heartbeats of no slot", n)
	}
	for verb, want := range map[[2]string]float64{
		{"take", "refused"}: 1, {"take", "ok"}: 1, {"renew", "conflict"}: 1, {"named", "ok"}: 2,
	} {
		if got := testutil.ToFloat64(a.metrics.requests.WithLabelValues(verb[0], verb[1])); got != want {
			t.Errorf("%v: got %v, want %v", verb, got, want)
		}
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
	taken := prometheus.NewRegistry()
	taken.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "baton_slot_requests_total", Help: "x"}))
	if _, err := New(Config{Clientset: w.c, Namespace: w.ns, Node: "a", Registerer: taken}); err == nil {
		t.Error("a name that is taken by another metric is no fault")
	}
}
