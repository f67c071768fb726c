package lock

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"kubebaton.io/baton/kube"
)

const (
	contenders = 50
	marshals   = 3
)

// TestContenders lets 50 nodes contend for 1 to 5 slots on lines that drop, delay and swallow writes, while three
// marshals nominate at random, withdraw, brake, delete and create slots. Every node must get through its cycle, never
// more of them inside than there are slots, and the observer, who only watches Leases, must never see a wrong one.
func TestContenders(t *testing.T) {
	for n := 1; n <= 5; n++ {
		t.Run(fmt.Sprintf("%d slots", n), func(t *testing.T) {
			t.Parallel()
			contend(t, n)
		})
	}
}

func contend(t *testing.T, slots int) {
	c := clientset(t, nil)
	ns := namespace(t, c)
	first := open(t, c, ns, "first")
	for i := range slots {
		if err := first.Create(t.Context(), "workers", i); err != nil {
			t.Fatal(err)
		}
	}
	obs := observe(t, ns, slots)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r := &ring{slots: slots}
	r.waiting.Store(contenders)
	nodes, gctx := errgroup.WithContext(ctx)
	for i := range contenders {
		p := &contender{ring: r, name: fmt.Sprintf("node-%d", i), rnd: rand.New(rand.NewPCG(uint64(slots), uint64(i))), signal: make(chan struct{}, 1)}
		p.attempt.Store(1)
		p.line, p.slots = faulty(t, ns, p.name, p.rnd.Uint64(), 20)
		r.nodes = append(r.nodes, p)
	}
	for _, p := range r.nodes {
		nodes.Go(func() error { return p.run(gctx) })
	}
	var careless sync.WaitGroup
	mctx, stop := context.WithCancel(gctx)
	for i := range marshals {
		rnd := rand.New(rand.NewPCG(uint64(slots), uint64(1000+i)))
		l, s := faulty(t, ns, fmt.Sprintf("marshal-%d", i), rnd.Uint64(), 5)
		careless.Go(func() { r.order(mctx, s, l, rnd) })
	}
	err := nodes.Wait()
	stop()
	careless.Wait()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.nodes {
		p.line.arrive()
	}
	takes := obs.end(t, c, ns)
	if takes < contenders {
		t.Errorf("the observer saw %d takes of %d nodes", takes, contenders)
	}
	if r.most.Load() > int32(slots) {
		t.Errorf("%d nodes were inside at once", r.most.Load())
	}
	t.Attr("takes", fmt.Sprintf("%d, at most %d nodes inside, %d faults", takes, r.most.Load(), r.faults.Load()))
}

func faulty(t *testing.T, ns, node string, seed uint64, percent int) (*line, *Slots) {
	t.Helper()
	rnd, mu := rand.New(rand.NewPCG(seed, 7)), sync.Mutex{}
	l, wrap := badLine(t, func() fault {
		mu.Lock()
		defer mu.Unlock()
		if rnd.IntN(100) >= percent {
			return none
		}
		return []fault{dropped, lost, late}[rnd.IntN(3)]
	})
	return l, open(t, clientset(t, wrap), ns, node)
}

// ring is the place where nodes go down: nobody may be in it without a slot.
type ring struct {
	slots                int
	nodes                []*contender
	inside, most, faults atomic.Int32
	waiting              atomic.Int32
}

func (r *ring) enter() error {
	n := r.inside.Add(1)
	m := r.most.Load()
	for n > m && !r.most.CompareAndSwap(m, n) {
		m = r.most.Load()
	}
	if n > int32(r.slots) {
		return fmt.Errorf("%d nodes inside with %d slots", n, r.slots)
	}
	return nil
}

type contender struct {
	ring    *ring
	name    string
	slots   *Slots
	line    *line
	rnd     *rand.Rand
	signal  chan struct{}
	attempt atomic.Int32 // of the current bid
	done    atomic.Bool
	held    bool
}

func (p *contender) uid() string { return "uid-" + p.name }

func (p *contender) claim() Claim {
	return Claim{Cycle: "c-" + p.name, Attempt: int(p.attempt.Load()), BootID: "b", Instance: "i"}
}

// run is what an agent does with its slots, woken by its watch: read, decide, write, and after any error read again.
func (p *contender) run(ctx context.Context) error {
	wctx, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		_ = p.slots.Watch(wctx, func([]Slot, bool) {
			select {
			case p.signal <- struct{}{}:
			default:
			}
		})
	})
	defer watching.Wait()
	defer stop()
	for !p.done.Load() {
		again, err := p.step(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if again {
			continue
		}
		select {
		case <-p.signal:
		case <-time.After(time.Second): // late writes arrive although nothing changes
			p.line.arrive()
		case <-ctx.Done():
			return fmt.Errorf("%s still waits: %w", p.name, ctx.Err())
		}
	}
	p.ring.waiting.Add(-1)
	return nil
}

func (p *contender) step(ctx context.Context) (again bool, err error) {
	named, err := p.slots.Named(ctx)
	if err != nil {
		return false, err
	}
	mine := slices.IndexFunc(named, func(s Slot) bool { return s.Holder == p.name })
	switch {
	case mine >= 0:
		p.held = true
		return true, p.goDown(ctx, named[mine])
	case p.held: // freed, perhaps without an answer
		p.held = false
		p.done.Store(true)
		return false, nil
	case len(named) == 0:
		return false, nil
	}
	if p.rnd.IntN(10) == 0 {
		p.attempt.Add(1) // the bid changes: what was nominated before is not to be taken
	}
	sl := named[p.rnd.IntN(len(named))]
	_, err = p.slots.Take(ctx, sl, p.uid(), p.claim())
	if p.rnd.IntN(2) == 0 {
		p.line.arrive()
	}
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, ErrNotNominated):
		if _, err := p.slots.Decline(ctx, sl); err != nil {
			p.ring.faults.Add(1)
		}
	case errors.Is(err, ErrHeld), errors.Is(err, ErrDeleting):
	default:
		p.ring.faults.Add(1)
		return true, nil
	}
	return false, nil
}

// goDown renews first: after that no earlier write, a late Free for example, can take the slot away.
func (p *contender) goDown(ctx context.Context, sl Slot) error {
	sl, renewal := p.slots.Renew(ctx, sl, p.claim())
	if renewal != nil {
		p.ring.faults.Add(1)
		return nil //nolint:nilerr // an injected fault is counted, and is no failure of the test.
	}
	if err := p.ring.enter(); err != nil {
		return err
	}
	p.line.arrive()
	select {
	case <-time.After(time.Duration(p.rnd.IntN(10)) * time.Millisecond):
	case <-ctx.Done():
	}
	check, err := p.slots.Get(ctx, sl.Name)
	p.ring.inside.Add(-1)
	if err != nil {
		return err
	}
	if check.Holder != p.name {
		return fmt.Errorf("lost %q while inside: it is %+v", sl.Name, check)
	}
	if _, err := p.slots.Free(ctx, check); err != nil { // a marshal may have set a hold: the version of check counts
		p.ring.faults.Add(1)
	}
	return nil
}

// order is a marshal that does whatever comes to its mind.
func (r *ring) order(ctx context.Context, s *Slots, l *line, rnd *rand.Rand) {
	for ctx.Err() == nil {
		slots, err := s.List(ctx)
		if err != nil {
			continue
		}
		for _, sl := range slots {
			p := r.nodes[rnd.IntN(len(r.nodes))]
			for range 10 { // prefer those that still wait, so that it ends
				if !p.done.Load() {
					break
				}
				p = r.nodes[rnd.IntN(len(r.nodes))]
			}
			r.whim(ctx, s, sl, p, rnd)
		}
		if len(slots) < r.slots {
			for i := range r.slots {
				_ = s.Create(ctx, "workers", i)
			}
		}
		l.arrive()
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(10+rnd.IntN(30)) * time.Millisecond):
		}
	}
}

// whim ignores every error: it must not matter.
func (r *ring) whim(ctx context.Context, s *Slots, sl Slot, p *contender, rnd *rand.Rand) {
	what := rnd.IntN(100)
	switch {
	case what < 3:
		_, _ = s.ClearNomination(ctx, sl)
	case what < 6:
		_, _ = s.SetHold(ctx, sl, []string{"halted", ""}[rnd.IntN(2)])
	case what < 9:
		_ = s.Delete(ctx, sl)
	case what < 12: // also held ones: the finalizer must keep them. See doc.go for why a version is given.
		_ = s.leases.Delete(ctx, sl.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &sl.ResourceVersion}})
	case what < 15:
		_, _ = s.Nominate(ctx, sl, p.uid(), p.name, "c-"+p.name, int(p.attempt.Load()), time.Now().Add(-time.Second))
	case sl.Nominee == "" || what < 20 || time.Now().After(sl.BidUntil):
		_, _ = s.Nominate(ctx, sl, p.uid(), p.name, "c-"+p.name, int(p.attempt.Load()), time.Now().Add(time.Second))
	}
}

// observer has its own watch and looks at raw Leases, not through this package's reading of them.
type observer struct {
	w      watch.Interface
	faults []string
	leases map[string]*coordinationv1.Lease
	takes  int
	slots  int
	ended  chan struct{}
}

func observe(t *testing.T, ns string, slots int) *observer {
	t.Helper()
	leases := clientset(t, nil).CoordinationV1().Leases(ns)
	l := must(leases.List(t.Context(), metav1.ListOptions{}))(t)
	o := &observer{slots: slots, leases: map[string]*coordinationv1.Lease{}, ended: make(chan struct{})}
	for i := range l.Items {
		o.leases[l.Items[i].Name] = &l.Items[i]
	}
	o.w = must(leases.Watch(t.Context(), metav1.ListOptions{ResourceVersion: l.ResourceVersion}))(t)
	go func() {
		defer close(o.ended)
		for e := range o.w.ResultChan() {
			l, ok := e.Object.(*coordinationv1.Lease)
			if !ok {
				o.faultf("event %s %v", e.Type, e.Object)
				return
			}
			if l.Name == "end" {
				return
			}
			o.see(e.Type, l)
		}
		o.faultf("the watch ended before the test")
	}()
	return o
}

// end waits until the observer has seen everything up to now.
func (o *observer) end(t *testing.T, c kube.Interface, ns string) (takes int) {
	t.Helper()
	must(c.CoordinationV1().Leases(ns).Create(t.Context(),
		&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "end"}}, metav1.CreateOptions{}))(t)
	select {
	case <-o.ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the observer did not see the end")
	}
	o.w.Stop()
	for _, f := range o.faults {
		t.Error(f)
	}
	for name, l := range o.leases {
		if h := holderOf(l); h != "" {
			t.Errorf("%s is left with %q", name, h)
		}
	}
	return o.takes
}

// see checks one event against all that was seen before it.
func (o *observer) see(kind watch.EventType, l *coordinationv1.Lease) {
	before, after := holderOf(o.leases[l.Name]), holderOf(l)
	nominee := ""
	if prev := o.leases[l.Name]; prev != nil {
		nominee = prev.Labels[LabelNominee]
	}
	if kind == watch.Deleted {
		// The write that frees a Lease being deleted removes it, and the event shows the state before that write.
		// That nobody else removes it, the holder itself checks while it is inside.
		if after != "" && o.leases[l.Name].DeletionTimestamp == nil {
			o.faultf("%s vanished while %q held it", l.Name, after)
		}
		delete(o.leases, l.Name)
		return
	}
	o.leases[l.Name] = l
	switch {
	case before != "" && after != "" && before != after:
		o.faultf("%s went from %q to %q", l.Name, before, after)
	case before == "" && after != "":
		o.takes++
		if nominee != "uid-"+after {
			o.faultf("%s was taken by %q, its nominee was %q", l.Name, after, nominee)
		}
		if l.DeletionTimestamp != nil {
			o.faultf("%s was taken by %q while being deleted", l.Name, after)
		}
	}
	if slices.Contains(l.Finalizers, FinalizerHeld) != (after != "") {
		o.faultf("%s: holder %q with finalizers %v", l.Name, after, l.Finalizers)
	}
	if after != "" && (l.Labels[LabelNominee] != "uid-"+after || l.Annotations[AnnotationNodeUID] != "uid-"+after) {
		o.faultf("%s: held by %q, labels %v annotations %v", l.Name, after, l.Labels, l.Annotations)
	}
	for _, k := range []string{AnnotationNodeUID, AnnotationCycle, AnnotationAttempt, AnnotationBootID, AnnotationInstance} {
		if _, ok := l.Annotations[k]; ok != (after != "") {
			o.faultf("%s: holder %q, annotation %s is there: %v", l.Name, after, k, ok)
		}
	}
	holders := map[string]string{}
	for name, l := range o.leases {
		h := holderOf(l)
		if other, twice := holders[h]; twice && h != "" {
			o.faultf("%q holds %s and %s", h, name, other)
		}
		holders[h] = name
	}
	delete(holders, "")
	if len(holders) > o.slots {
		o.faultf("%d holders of %d slots", len(holders), o.slots)
	}
}

func (o *observer) faultf(format string, args ...any) {
	o.faults = append(o.faults, fmt.Sprintf(format, args...))
}

func holderOf(l *coordinationv1.Lease) string {
	if l == nil || l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}
