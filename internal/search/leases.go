package search

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"kubebaton.io/baton/kube"
	"kubebaton.io/baton/lock"
)

// apiServer is the API server as far as package lock uses it. It is strict about what the real one is strict about:
// resourceVersion, UID, finalizers. Everything that is written is kept in log, with what it was decided on.
type apiServer struct {
	kube.Interface
	coordinationclient.CoordinationV1Interface
	coordinationclient.LeaseInterface

	blind   bool // it does not compare resourceVersions
	leases  map[string]*coordinationv1.Lease
	version int
	log     []request
}

// request is a write as it was sent, and what came of it.
type request struct {
	verb  writeVerb
	name  string
	body  *coordinationv1.Lease // of a PUT
	on    string                // the resourceVersion that it carried
	taken bool                  // it took effect
	after *coordinationv1.Lease // nil: there is none
}

func (a *apiServer) CoordinationV1() coordinationclient.CoordinationV1Interface { return a }

func (a *apiServer) Leases(string) coordinationclient.LeaseInterface { return a }

// set makes l what is there, at a new version.
func (a *apiServer) set(name string, l *coordinationv1.Lease) {
	if l == nil {
		delete(a.leases, name)
		return
	}
	a.version++
	l.ResourceVersion = strconv.Itoa(a.version)
	a.leases[name] = l
}

func (a *apiServer) Get(_ context.Context, name string, _ metav1.GetOptions) (*coordinationv1.Lease, error) {
	if l, ok := a.leases[name]; ok {
		return l.DeepCopy(), nil
	}
	return nil, apierrors.NewNotFound(coordinationv1.Resource("leases"), name)
}

func (a *apiServer) List(_ context.Context, o metav1.ListOptions) (*coordinationv1.LeaseList, error) {
	sel, err := labels.Parse(o.LabelSelector)
	if err != nil {
		return nil, fmt.Errorf("reading the selector: %w", err)
	}
	list := &coordinationv1.LeaseList{}
	for k := range maxSlots {
		if l, ok := a.leases[slotName(k)]; ok && sel.Matches(labels.Set(l.Labels)) {
			list.Items = append(list.Items, *l.DeepCopy())
		}
	}
	return list, nil
}

func (a *apiServer) Update(_ context.Context, body *coordinationv1.Lease, _ metav1.UpdateOptions) (*coordinationv1.Lease, error) {
	err := a.refuses(body.Name, body.ResourceVersion, string(body.UID))
	r := request{verb: putLease, name: body.Name, body: body.DeepCopy(), on: body.ResourceVersion, taken: err == nil}
	if err == nil {
		l := body.DeepCopy()
		if was, ok := a.leases[l.Name]; ok {
			l.DeletionTimestamp = was.DeletionTimestamp
		}
		if l.DeletionTimestamp != nil && len(l.Finalizers) == 0 {
			a.set(l.Name, nil)
		} else {
			a.set(l.Name, l)
			r.after = l
		}
		body = l
	}
	a.log = append(a.log, r)
	return body.DeepCopy(), err
}

// refuses compares what a PUT carries with what is there. A Lease is never written unconditionally. A PUT of one that is
// not there creates it, unless it carries a UID.
func (a *apiServer) refuses(name, version, uid string) error {
	l, ok := a.leases[name]
	conflict := func(why string) error {
		return apierrors.NewConflict(coordinationv1.Resource("leases"), name, errors.New(why))
	}
	switch {
	case !ok && uid != "":
		return conflict("there is none with this UID")
	case !ok:
		return nil
	case version == "":
		return apierrors.NewInvalid(coordinationv1.SchemeGroupVersion.WithKind("Lease").GroupKind(), name, nil)
	case version != l.ResourceVersion && !a.blind:
		return conflict("it was written since")
	case uid != "" && uid != string(l.UID):
		return conflict("it is another one")
	}
	return nil
}

func (a *apiServer) Create(_ context.Context, body *coordinationv1.Lease, _ metav1.CreateOptions) (*coordinationv1.Lease, error) {
	_, there := a.leases[body.Name]
	r := request{verb: createLease, name: body.Name, taken: !there}
	var err error
	if there {
		err = apierrors.NewAlreadyExists(coordinationv1.Resource("leases"), body.Name)
	} else {
		r.after = body.DeepCopy()
		a.set(body.Name, r.after)
	}
	a.log = append(a.log, r)
	return body, err
}

// Delete removes a Lease, or as long as it has a finalizer marks it.
func (a *apiServer) Delete(_ context.Context, name string, o metav1.DeleteOptions) error {
	r := request{verb: deleteLease, name: name}
	l, there := a.leases[name]
	var err error
	if !there {
		err = apierrors.NewNotFound(coordinationv1.Resource("leases"), name)
	} else if o.Preconditions != nil && o.Preconditions.ResourceVersion != nil {
		r.on = *o.Preconditions.ResourceVersion
		err = a.refuses(name, r.on, "")
	}
	if err == nil {
		r.taken = true
		if len(l.Finalizers) > 0 {
			r.after = l.DeepCopy()
			r.after.DeletionTimestamp = &metav1.Time{Time: epoch()}
			a.set(name, r.after)
		} else {
			a.set(name, nil)
		}
	}
	a.log = append(a.log, r)
	return err
}

// verb is one of package lock's, or what somebody else does to a Lease.
type verb uint8

const (
	take verb = iota + 1
	renew
	free
	decline
	nominate
	clearNomination
	setHold
	freeGone
	create
	remove
	arrive         // a letter arrives
	personDeletes  // kubectl delete lease
	personReleases // kubectl annotate lease
)

// order is a verb with everything that its outcome depends on.
type order struct {
	verb     verb
	node     uint8 // whose agent
	uid      uint8 // of its Node
	instance uint8 // of the agent's process
	k        uint8 // the slot
	letter   writeVerb
	arg      argID
	belief   slot // what it was decided on
	now      [maxSlots]slot
}

// outcome is one way in which an order can end: its writes, one after another.
type outcome struct {
	writes []write
	failed bool
}

// write is one request to the API server.
type write struct {
	verb  writeVerb
	k     uint8
	body  slot // that was sent, and the version it was decided on
	taken bool
	after slot
}

// carry runs an order on the real code. A Slots that remembers the Lease that was decided on and one that does not may
// end in different ways.
func (m *model) carry(o order) []outcome {
	if out, ok := m.outcomes[o]; ok {
		return out
	}
	out := []outcome{m.carryOn(o, true)}
	if o.verb < arrive {
		out = append(out, m.carryOn(o, false))
		if slices.Equal(out[0].writes, out[1].writes) && out[0].failed == out[1].failed {
			out = out[:1]
		}
	}
	m.outcomes[o] = out
	return out
}

func (m *model) carryOn(o order, remembers bool) outcome {
	a := &apiServer{blind: m.rules.blind, leases: map[string]*coordinationv1.Lease{}}
	name := slotName(int(o.k))
	s := m.open(a, o)
	var sl lock.Slot
	var err error
	// What was decided on, at the version at which it was read.
	if o.verb != create && o.verb < arrive {
		a.set(name, m.object(o.belief, false))
		if sl, err = s.Get(m.ctx, name); err != nil {
			m.fail(err)
		}
	}
	seen := map[string]version{"": unseen}
	if l := a.leases[name]; l != nil {
		seen[l.ResourceVersion] = o.belief.seen
	}
	for k, at := range o.now {
		if k == int(o.k) && o.belief.seen == current && o.verb < arrive {
			continue // it is there already
		}
		a.set(slotName(k), m.object(at, k == int(o.k) && o.belief.seen == another))
	}
	for _, l := range a.leases {
		seen[l.ResourceVersion] = current
	}
	if !remembers {
		s = m.open(a, o)
	}
	err = m.run(a, s, sl, o)
	out := outcome{failed: err != nil}
	for _, r := range a.log {
		out.writes = append(out.writes, m.logged(r, seen))
	}
	return out
}

// logged turns a request into what a state can hold.
func (m *model) logged(r request, seen map[string]version) write {
	w := write{verb: r.verb, taken: r.taken}
	for k := range maxSlots {
		if slotName(k) == r.name {
			w.k = uint8(k)
		}
	}
	if r.body != nil {
		w.body = m.seenLease(r.body)
	}
	w.body.seen = seen[r.on]
	if r.after != nil {
		w.after = m.seenLease(r.after)
	}
	return w
}

func (m *model) open(a *apiServer, o order) *lock.Slots {
	s, err := lock.New(lock.Config{Clientset: a, Namespace: "baton-system", Node: nodeName(int(o.node)), Now: epoch})
	if err != nil {
		m.fail(err)
	}
	return s
}

// run carries out the verb itself.
func (m *model) run(a *apiServer, s *lock.Slots, sl lock.Slot, o order) error {
	x := m.args.rows[o.arg]
	c := lock.Claim(x.claim)
	c.Instance = instanceID(o.instance)
	var err error
	switch o.verb {
	case take:
		_, err = s.Take(m.ctx, sl, nodeUID(int(o.node), o.uid), c)
	case renew:
		_, err = s.Renew(m.ctx, sl, c)
	case free:
		_, err = s.Free(m.ctx, sl)
	case decline:
		_, err = s.Decline(m.ctx, sl)
	case nominate:
		n := x.nomination
		_, err = s.Nominate(m.ctx, sl, n.UID, n.Node, n.Cycle, n.Attempt, n.Until)
	case clearNomination:
		_, err = s.ClearNomination(m.ctx, sl)
	case setHold:
		_, err = s.SetHold(m.ctx, sl, x.hold)
	case freeGone:
		_, err = s.FreeGone(m.ctx, sl)
	case create:
		err = s.Create(m.ctx, group, x.index)
	case remove:
		err = s.Delete(m.ctx, sl)
	case arrive:
		err = m.arrives(a, o)
	case personDeletes:
		err = a.Delete(m.ctx, slotName(int(o.k)), metav1.DeleteOptions{})
	case personReleases:
		l := a.leases[slotName(int(o.k))].DeepCopy()
		l.Annotations[lock.AnnotationRelease] = "asked for"
		_, err = a.Update(m.ctx, l, metav1.UpdateOptions{})
	}
	return err
}

// arrives sends what is in a letter.
func (m *model) arrives(a *apiServer, o order) error {
	name := slotName(int(o.k))
	on := "0" // a version of the past
	if l, ok := a.leases[name]; ok && o.belief.seen == current {
		on = l.ResourceVersion
	}
	switch o.letter {
	case putLease:
		l := m.object(o.belief, false)
		l.ResourceVersion = on
		_, err := a.Update(m.ctx, l, metav1.UpdateOptions{})
		return err
	case deleteLease:
		return a.Delete(m.ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &on}})
	case createLease:
		l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{lock.LabelGroup: group}}}
		_, err := a.Create(m.ctx, l, metav1.CreateOptions{})
		return err
	case nothing, patchNode:
	}
	return nil
}

// object makes the Lease of a slot, nil for none. replaced: it is another object than the one that was decided on.
func (m *model) object(s slot, replaced bool) *coordinationv1.Lease {
	if s.lease == 0 {
		return nil
	}
	row := m.leases.rows[s.lease]
	l := row.object.DeepCopy()
	if row.holder >= 0 {
		l.Annotations[lock.AnnotationInstance] = instanceID(s.instance)
	}
	l.UID = types.UID("lease-1")
	if replaced {
		l.UID = "lease-2"
	}
	return l
}

// seenLease numbers a Lease. What only measures time and what tells versions apart is left out.
func (m *model) seenLease(l *coordinationv1.Lease) slot {
	l = l.DeepCopy()
	s := slot{instance: instanceNumber(l.Annotations[lock.AnnotationInstance])}
	delete(l.Annotations, lock.AnnotationInstance)
	l.UID, l.ResourceVersion, l.Spec.LeaseTransitions = "", "", nil
	if len(l.Annotations) == 0 {
		l.Annotations = nil
	}
	if len(l.Finalizers) == 0 {
		l.Finalizers = nil
	}
	key := m.key(l)
	if id, ok := m.leases.ids[key]; ok {
		s.lease = leaseID(id)
		return s
	}
	// What it says, the real code reads.
	a := &apiServer{leases: map[string]*coordinationv1.Lease{l.Name: l}}
	sl, err := m.open(a, order{}).Get(m.ctx, l.Name)
	if err != nil {
		m.fail(err)
	}
	row := lease{object: l, slot: sl, holder: nodeNumber(sl.Holder)}
	_, row.uid = nodeOf(sl.HolderUID)
	row.nominee, _ = nodeOf(sl.Nominee)
	s.lease = leaseID(m.leases.id(key, row))
	return s
}

// sender is who sends an order: process p of node n, or with p below 0 a marshal, who remembers nothing of it.
type sender struct{ n, p int }

// writeSlot sends an order: it is answered, or the answer to one of its writes is lost, or the write is, or it is late.
func (m *model) writeSlot(w *world, o order, mv move, by sender) {
	for _, out := range m.carry(o) {
		next := *w
		mv.bad, mv.how = "", ""
		for i := range out.writes {
			mv.bad = cmp.Or(m.land(&next, &out.writes[i], o.verb), mv.bad)
		}
		if out.failed {
			mv.how = "refused"
		}
		m.answered(&next, by, &out)
		m.emit(&next, mv)
		if w.left[Lose] > 0 {
			m.loseOne(w, o, &out, mv, by)
		}
	}
}

// answered lets a process take the answer to its order: what it wrote it knows, after a refusal it reads again.
func (m *model) answered(w *world, by sender, out *outcome) {
	if by.p < 0 {
		return
	}
	a := &w.agents[by.n][by.p]
	last := len(out.writes) - 1
	switch {
	case out.failed || last < 0:
		a.refresh()
	case a.oldSlots:
		wr := &out.writes[last]
		a.slots[wr.k] = wr.after
		a.slots[wr.k].seen = current
	}
}

// unknown lets a process give up waiting for an answer: it becomes another instance, and reads again.
func (m *model) unknown(w *world, by sender) {
	w.retire(by.n, by.p, m)
	w.agents[by.n][by.p].refresh()
}

// loseOne loses, in turn, each write of an outcome; what would have followed is not sent.
func (m *model) loseOne(w *world, o order, out *outcome, mv move, by sender) {
	base := *w
	base.left[Lose]--
	mv.fault = true
	for i := range out.writes {
		wr := &out.writes[i]
		if !wr.taken {
			return
		}
		landed, late := base, base
		bad := m.land(&landed, wr, o.verb)
		sent := late.send(letter{
			verb: wr.verb, of: wr.k, lease: wr.body.lease, instance: wr.body.instance, seen: wr.body.seen,
		})
		if by.p >= 0 {
			lost := base
			m.unknown(&landed, by)
			m.unknown(&lost, by)
			m.unknown(&late, by)
			mv.how, mv.bad = "no answer, it took effect", bad
			m.emit(&landed, mv)
			mv.how, mv.bad = "no answer, it got lost", ""
			m.emit(&lost, mv)
		}
		if sent {
			mv.how, mv.bad = "no answer, it is on its way", ""
			m.emit(&late, mv)
		}
		m.land(&base, wr, o.verb)
	}
}

// land makes the effect of a write part of the world, and judges it.
func (m *model) land(w *world, wr *write, by verb) (bad string) {
	if !wr.taken {
		return ""
	}
	k := int(wr.k)
	was, is := m.leases.rows[w.slots[k].lease], m.leases.rows[wr.after.lease]
	if was.slot.Holder != "" && (is.slot.Holder != was.slot.Holder || is.slot.HolderUID != was.slot.HolderUID) {
		bad = m.freed(w, k, by)
	}
	w.slots[k] = slot{lease: wr.after.lease, instance: wr.after.instance}
	w.slotChanged(k, wr.after.lease == 0, &m.rules)
	return bad
}

// deliver lets a letter arrive.
func (m *model) deliver(w *world, i int) {
	l := w.letters[i]
	next := *w
	next.discard(i)
	mv := move{who: "a late write", how: "refused"}
	if l.verb == patchNode {
		taken, bad := m.patch(&next, l)
		mv.what, mv.bad = "of the Node "+nodeName(int(l.of))+" arrives", bad
		if taken {
			mv.how = ""
		}
		m.emit(&next, mv)
		return
	}
	mv.what = "of " + slotName(int(l.of)) + " arrives"
	o := order{
		verb: arrive, k: l.of, letter: l.verb, belief: slot{lease: l.lease, instance: l.instance, seen: l.seen}, now: w.slots,
	}
	for _, out := range m.carry(o) {
		for i := range out.writes {
			mv.bad = m.land(&next, &out.writes[i], arrive)
			if out.writes[i].taken {
				mv.how = ""
			}
		}
	}
	m.emit(&next, mv)
}
