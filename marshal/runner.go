package marshal

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"golang.org/x/sync/errgroup"

	"kubebaton.io/baton/kube"
)

const (
	writesAtOnce = 8                     // so that a big group's slots are filled quickly, and the API server is not flooded
	restAtLeast  = 10 * time.Millisecond // between two passes: what happens meanwhile is decided on together
	retryFirst   = 50 * time.Millisecond // after a refused or failed write, doubled with each pass that has one
	retryMost    = 30 * time.Second
	missFirst    = 10 * time.Second // the penalty for the first nomination that was not taken, doubled with each
	missMost     = time.Hour
	// showsDown is how long after a restore from a backup the API server may still call nodes Ready that are down: kubelets
	// report every 10 s, and one that does not is NotReady after 50 s.
	showsDown = 75 * time.Second
)

// Slots is how the marshal reads and writes slots. Every write carries the resourceVersion of the Slot it is given and
// is refused with a Conflict when the Lease has changed since.
type Slots interface {
	// Watch calls apply with all the slots, at the start and after every change, until ctx ends.
	Watch(ctx context.Context, apply func([]Slot)) error
	Get(ctx context.Context, name string) (Slot, error) // by quorum
	Create(ctx context.Context, group string, index int) error
	Delete(ctx context.Context, s Slot) error // empty ones only
	Nominate(ctx context.Context, s Slot, n Nomination) (Slot, error)
	ClearNomination(ctx context.Context, s Slot) (Slot, error)
	SetHold(ctx context.Context, s Slot, reason string) (Slot, error)
	FreeGone(ctx context.Context, s Slot) (Slot, error) // empties a slot whose holder's Node is gone
}

// runner does the marshal's work while it leads. One runner serves one leadership.
type runner struct {
	self   string
	now    func() time.Time
	groups func() []Group
	slots  Slots
	nodes  corev1client.NodeInterface
	leases coordinationclient.LeaseInterface
	beats  coordinationclient.LeaseInterface // the kubelets' own
	log    *slog.Logger
	times  func() (nomination, grace time.Duration)
	// restored is when the API server was seen to have been restored from a backup; zero for never.
	restored func() time.Time
	// annotate keeps annotations on the Lease `marshal`.
	annotate func(map[string]string)

	events chan struct{}
	roster *roster
	last   atomic.Pointer[report]

	mu     sync.Mutex
	slot   map[string]Slot // nil before the first list
	paused map[string]string
	trials map[string]Trial
	absent map[string]time.Time
	doubt  time.Time // until then it is not known who is down, see trust
	notes  []string  // the annotations of Baton's own that are on the Lease `marshal`

	memory  memory
	retries int
}

// memory is what the marshal knows only by having watched. It is lost with the leadership, but for those who are away.
type memory struct {
	looked bool                 // once at least
	away   map[string]time.Time // Node UID: seen away since
	gone   map[tenure]time.Time // the holder's Node not seen since
	misses map[string]miss      // Node UID
}

// tenure is one slot in the hands of one Node.
type tenure struct{ slot, holder, uid string }

func (s *Slot) tenure() tenure { return tenure{s.Name, s.Holder, s.HolderUID} }

// miss is about one bid: a later one of the same node begins anew.
type miss struct {
	count   int
	until   time.Time
	cycle   string
	attempt int
}

func (r *runner) poke() {
	select {
	case r.events <- struct{}{}:
	default:
	}
}

func (r *runner) prepare() {
	r.events = make(chan struct{}, 1)
	r.roster = &roster{changed: r.poke}
	r.memory = memory{away: map[string]time.Time{}, gone: map[tenure]time.Time{}, misses: map[string]miss{}}
}

// run watches and works until ctx ends.
func (r *runner) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var watches sync.WaitGroup
	defer watches.Wait()
	watches.Go(func() { watchNodes(ctx, r.nodes, r.roster, r.log) })
	watches.Go(func() {
		if err := r.slots.Watch(ctx, r.setSlots); err != nil && ctx.Err() == nil {
			r.log.Error("watching slots", "err", err)
			cancel() // without its slots a marshal is of no use: let another one lead
		}
	})
	watches.Go(func() { r.watchLease(ctx) })
	r.loop(ctx)
	cancel()
}

// watchLease follows the annotations of the Lease `marshal`. Its renewals change nothing here.
func (r *runner) watchLease(ctx context.Context) {
	apply := func(items map[string]*coordinationv1.Lease) {
		paused, trials := map[string]string{}, map[string]Trial{}
		var absent map[string]time.Time
		var notes []string
		for _, l := range items {
			paused = pauses(l.Annotations)
			trials, absent, notes = trialsOf(l.Annotations), absentOf(l.Annotations), notesOf(l.Annotations)
		}
		r.mu.Lock()
		changed := r.paused == nil || !maps.Equal(r.paused, paused) || !maps.Equal(r.trials, trials)
		r.paused, r.trials, r.absent, r.notes = paused, trials, absent, notes
		r.mu.Unlock()
		if changed {
			r.poke()
		}
	}
	_ = kube.Watch(ctx, r.leases.List, r.leases.Watch, kube.Selection{Fields: "metadata.name=" + leaseName},
		&coordinationv1.Lease{}, apply, func(err error) {
			if ctx.Err() == nil {
				r.log.Warn("watching Lease marshal", "err", err)
			}
		}) // ends with ctx only
}

// setSlots takes over what the watch shows, except where an answer to our own write is newer.
func (r *runner) setSlots(list []Slot) {
	next := make(map[string]Slot, len(list))
	r.mu.Lock()
	for _, s := range list {
		if old, ok := r.slot[s.Name]; ok && newer(old.ResourceVersion, s.ResourceVersion) {
			s = old
		}
		next[s.Name] = s
	}
	r.slot = next
	r.mu.Unlock()
	r.poke()
}

// newer tells whether version a is later than b. Versions that cannot be compared are no reason to keep anything.
func newer(a, b string) bool {
	c, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && c > 0
}

func (r *runner) wrote(s Slot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.slot[s.Name]; ok && !newer(old.ResourceVersion, s.ResourceVersion) {
		r.slot[s.Name] = s
	}
}

// view returns everything as the loop knows it now; ok is false until every watch has brought its first list.
func (r *runner) view() (v View, ok bool) {
	v, ok = r.snapshot()
	v.Penalty = r.memory.penalty()
	v.Away = maps.Clone(r.memory.away)
	return v, ok
}

// snapshot is a view without what only the loop knows. Anybody may take one.
func (r *runner) snapshot() (v View, ok bool) {
	nodes, ok := r.roster.list()
	if !ok {
		return View{}, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.slot == nil || r.paused == nil {
		return View{}, false
	}
	v = View{
		Now: r.now(), Own: time.Now(), Self: r.self, Groups: r.groups(), Nodes: nodes,
		Slots: sorted(slices.Collect(maps.Values(r.slot))), Paused: maps.Clone(r.paused), Trials: maps.Clone(r.trials), Absent: r.absent,
	}
	v.NominationTimeout, v.DeletedGrace = r.times()
	if at := r.restored(); !at.IsZero() {
		v.Unsure = v.Own.Add(showsDown - time.Since(at))
	}
	if r.doubt.After(v.Unsure) {
		v.Unsure = r.doubt
	}
	return v, true
}

// loop makes a pass after every event, and when the next time limit is reached.
func (r *runner) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	timer.Stop()
	var before []Slot
	var asking sync.WaitGroup
	defer asking.Wait()
	asked := r.doubtful().IsZero()
	for {
		select {
		case <-r.events:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		start := time.Now()
		v, ok := r.view()
		if !ok {
			continue
		}
		if !asked {
			asked = true
			asking.Go(func() { r.trust(ctx) })
		}
		r.observe(&v, before)
		clean := r.pass(ctx, v)
		if v, ok = r.view(); ok {
			before = v.Slots
			r.rest(timer, v, clean)
		}
		// A storm of events must not keep a processor busy: rest twice as long as the pass took.
		wait := time.NewTimer(max(restAtLeast, 2*time.Since(start)))
		select {
		case <-wait.C:
		case <-ctx.Done():
		}
		wait.Stop()
	}
}

// rest sets the timer to the next limit.
func (r *runner) rest(timer *time.Timer, v View, clean bool) {
	next := r.due(v)
	if clean {
		r.retries = 0
	} else {
		retry := v.Own.Add(min(retryFirst<<min(r.retries, 12), retryMost))
		r.retries++
		if next.IsZero() || retry.Before(next) {
			next = retry
		}
	}
	timer.Stop()
	if !next.IsZero() {
		timer.Reset(max(next.Sub(v.Own), 0))
	}
}

// observe brings the memory up to date with what v shows; before are the slots at the end of the last pass, with our own
// writes in them.
func (r *runner) observe(v *View, before []Slot) {
	m := &r.memory
	uids := make(map[string]*Node, len(v.Nodes))
	for i := range v.Nodes {
		n := &v.Nodes[i]
		uids[n.UID] = n
		if _, ok := m.away[n.UID]; n.away() && !ok {
			m.away[n.UID] = m.left(v, n)
		} else if !n.away() {
			delete(m.away, n.UID)
		}
	}
	m.looked = true
	maps.DeleteFunc(m.away, func(uid string, _ time.Time) bool { return uids[uid] == nil })
	maps.DeleteFunc(m.misses, func(uid string, s miss) bool { return uids[uid] == nil || !uids[uid].bid(s.cycle, s.attempt) })
	r.declined(v, before, uids)
	missing := map[tenure]time.Time{}
	for _, s := range Gone(*v) {
		missing[s.tenure()] = cmp.Or(m.gone[s.tenure()], v.Own)
	}
	m.gone = missing
	v.Away = maps.Clone(m.away)
	v.Penalty = m.penalty()
}

// left is since when a node that is seen away has been so: now, or, at the first look, when an earlier marshal saw it so in the
// same cycle. That may be wrong by as much as the API server's clock has jumped since, but not lie ahead.
func (m *memory) left(v *View, n *Node) time.Time {
	if at, ok := v.Absent[n.Cycle]; ok && !m.looked && at.Before(v.Now) {
		return v.Own.Add(at.Sub(v.Now))
	}
	return v.Own
}

// penalty is until when whose bids are passed over.
func (m *memory) penalty() map[string]time.Time {
	out := make(map[string]time.Time, len(m.misses))
	for uid, s := range m.misses {
		out[uid] = s.until
	}
	return out
}

// declined notes who gave a nomination back without a brake on it, and forgives who took one. A node that has made its bid anew,
// to let others go first, has not declined that one.
func (r *runner) declined(v *View, before []Slot, uids map[string]*Node) {
	now := make(map[string]*Slot, len(v.Slots))
	for i := range v.Slots {
		now[v.Slots[i].Name] = &v.Slots[i]
		delete(r.memory.misses, v.Slots[i].HolderUID)
	}
	for i := range before {
		b := &before[i]
		who := uids[b.Nominee]
		if n := now[b.Name]; n != nil && b.nominated() && b.Hold == "" && n.empty() && who != nil && who.bid(b.BidCycle, b.BidAttempt) {
			r.missed(v.Own, b)
		}
	}
}

// missed makes the nominee's next bids wait.
func (r *runner) missed(now time.Time, s *Slot) {
	m := r.memory.misses[s.Nominee]
	m.count++
	m.cycle, m.attempt = s.BidCycle, s.BidAttempt
	m.until = now.Add(min(missFirst<<min(m.count-1, 10), missMost))
	r.memory.misses[s.Nominee] = m
	r.log.Info("nomination not taken", "slot", s.Name, "uid", s.Nominee, "misses", m.count, "until", m.until)
}

// pass writes what v calls for. It returns false when a write was refused or failed.
func (r *runner) pass(ctx context.Context, v View) bool {
	s := look(v)
	actions := s.housekeep()
	done := make([]bool, len(actions))
	clean := r.write(ctx, len(actions), func(ctx context.Context, i int) error {
		err := r.act(ctx, actions[i])
		done[i] = err == nil
		return err
	})
	for i, a := range actions {
		if done[i] && a.Kind == Expire && a.Slot.Hold == "" {
			r.missed(v.Own, &a.Slot)
		}
	}
	clean = r.freeGone(ctx, v) && clean
	if len(actions) > 0 {
		var ok bool
		if v, ok = r.view(); !ok {
			return clean
		}
		s = look(v)
	}
	noms, verdicts := s.decide()
	byName := make(map[string]Slot, len(v.Slots))
	for _, l := range v.Slots {
		byName[l.Name] = l
	}
	clean = r.write(ctx, len(noms), func(ctx context.Context, i int) error {
		got, err := r.slots.Nominate(ctx, byName[noms[i].Slot], noms[i])
		if err == nil {
			r.log.Info("nominated", "slot", noms[i].Slot, "node", noms[i].Node, "cycle", noms[i].Cycle, "attempt", noms[i].Attempt)
			r.wrote(got)
		}
		return err
	}) && clean
	r.last.Store(newReport(s, verdicts))
	r.mu.Lock()
	there := r.notes
	r.mu.Unlock()
	r.annotate(notes(s.trials(), s.absent(), verdicts, s.standing(), there))
	return clean
}

// act writes one housekeeping action.
func (r *runner) act(ctx context.Context, a Action) error {
	var got Slot
	var err error
	switch a.Kind {
	case Create:
		err = r.slots.Create(ctx, a.Slot.Group, a.Index)
	case Delete:
		err = r.slots.Delete(ctx, a.Slot)
	case Expire, Withdraw:
		got, err = r.slots.ClearNomination(ctx, a.Slot)
	case SetHold:
		got, err = r.slots.SetHold(ctx, a.Slot, a.Hold)
	}
	if err != nil {
		return err
	}
	if got.Name != "" {
		r.wrote(got)
	}
	r.log.Info("slot", "action", a.Kind.String(), "slot", a.Slot.Name, "holder", a.Slot.Holder, "nominee", a.Slot.Nominee, "hold", a.Hold)
	return nil
}

// write runs n writes, some at the same time. A refused one means that the view was old: the watch brings the rest.
func (r *runner) write(ctx context.Context, n int, one func(ctx context.Context, i int) error) bool {
	var g errgroup.Group
	g.SetLimit(writesAtOnce)
	for i := range n {
		g.Go(func() error {
			err := one(ctx, i)
			switch {
			case err == nil || ctx.Err() != nil:
			case apierrors.IsConflict(err) || apierrors.IsNotFound(err) || apierrors.IsInvalid(err):
				r.log.Debug("decided on an old view", "err", err)
			default:
				r.log.Warn("writing a slot", "err", err)
			}
			return err
		})
	}
	return g.Wait() == nil
}

// freeGone frees the slots whose holder has been gone for the whole grace period and is still so at the API server.
func (r *runner) freeGone(ctx context.Context, v View) bool {
	var ripe []Slot
	for _, s := range Gone(v) {
		since, ok := r.memory.gone[s.tenure()]
		if ok && v.Own.Sub(since) >= v.DeletedGrace {
			ripe = append(ripe, s)
		}
	}
	var mu sync.Mutex
	return r.write(ctx, len(ripe), func(ctx context.Context, i int) error {
		freed, err := r.freeIfGone(ctx, ripe[i])
		if err == nil && !freed { // our view was wrong: observe anew
			mu.Lock()
			r.memory.gone[ripe[i].tenure()] = v.Own
			mu.Unlock()
		}
		return err
	})
}

// freeIfGone reads the Lease, THEN the Node. In this order a holder that comes between is seen: as a Node, or by its
// write on the Lease, which refuses ours.
func (r *runner) freeIfGone(ctx context.Context, seen Slot) (bool, error) {
	s, err := r.slots.Get(ctx, seen.Name)
	if err != nil {
		return false, err
	}
	if s.Holder != seen.Holder || s.HolderUID != seen.HolderUID {
		return false, nil
	}
	n, ok, err := getNode(ctx, r.nodes, s.Holder)
	if err != nil {
		return false, err
	}
	there := &n
	if !ok {
		there = nil
	}
	if !holderGone(&s, there) {
		return false, nil
	}
	got, err := r.slots.FreeGone(ctx, s)
	if err != nil {
		return false, err
	}
	r.wrote(got)
	r.log.Warn("freed the slot of a node that is gone", "slot", s.Name, "node", s.Holder, "uid", s.HolderUID, "cycle", s.Cycle)
	return true, nil
}

// due returns the earliest time, by the own clock, at which something changes by itself, zero for never.
func (r *runner) due(v View) time.Time {
	var next time.Time
	at := func(t time.Time) {
		if t.After(v.Own) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	theirs := func(t time.Time) { at(v.Own.Add(t.Sub(v.Now))) } // by the API server's clock
	for i := range v.Slots {
		if v.Slots[i].nominated() {
			theirs(v.Slots[i].BidUntil)
		}
	}
	for _, t := range v.Penalty {
		at(t)
	}
	at(v.Unsure)
	s := look(v)
	theirs(s.trialsDue())
	for _, t := range r.memory.gone {
		at(t.Add(v.DeletedGrace))
	}
	for uid, since := range v.Away {
		n := s.byUID[uid]
		if n == nil {
			continue
		}
		if q := s.counts(n); q != nil {
			at(since.Add(q.rebootTimeout() + time.Nanosecond))
		}
	}
	return next
}
