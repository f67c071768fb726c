package lock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"

	"kubebaton.io/baton/kube"
)

// rememberedLeases bounds the memory of read Leases. It only saves requests, so it is emptied when it is full.
const rememberedLeases = 1024

// Config makes a Slots.
type Config struct {
	Clientset  kube.Interface
	Namespace  string // of the slot Leases
	Node       string // own node's name: the identity of a holder
	Registerer prometheus.Registerer
	Log        *slog.Logger     // of watches only, every other error is returned; nil discards
	Now        func() time.Time // nil is time.Now
}

// Slots is one node's, or the marshal's, door to the slot Leases of a namespace. Its methods may be called at the same
// time.
type Slots struct {
	leases  coordinationclient.LeaseInterface
	node    string
	now     func() time.Time
	log     *slog.Logger
	metrics *metrics

	mu   sync.Mutex
	seen map[string]*coordinationv1.Lease // by name, as last read; never changed in place

	own own
}

// New checks everything at once. Registerer may be nil; several Slots may share one.
func New(c Config) (*Slots, error) {
	var faults []error
	if c.Clientset == nil {
		faults = append(faults, errors.New("no clientset"))
	}
	if c.Namespace == "" {
		faults = append(faults, errors.New("no namespace"))
	}
	if c.Node == "" {
		faults = append(faults, errors.New("no node name"))
	}
	m, err := newMetrics(c.Registerer)
	if err != nil {
		faults = append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("configuring the slots: %w", err)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Slots{
		leases: c.Clientset.CoordinationV1().Leases(c.Namespace), node: c.Node, now: c.Now, log: c.Log, metrics: m,
		seen: map[string]*coordinationv1.Lease{},
	}, nil
}

// Get reads one slot by quorum.
func (s *Slots) Get(ctx context.Context, name string) (sl Slot, err error) {
	defer func() { s.metrics.count("get", err) }()
	l, err := s.get(ctx, name)
	if err != nil {
		return Slot{}, err
	}
	return slotOf(l), nil
}

func (s *Slots) get(ctx context.Context, name string) (*coordinationv1.Lease, error) {
	if !isSlot(name) {
		return nil, fmt.Errorf("getting slot %q: a slot's name begins with %q: %w", name, slotPrefix, apierrors.NewNotFound(coordinationv1.Resource("leases"), name))
	}
	l, err := s.leases.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("getting slot %q: %w", name, err)
	}
	s.remember(l)
	return l, nil
}

// Named reads, by quorum, every slot that names this node as its nominee or holder, under whatever UID: the node may have been
// registered anew. They are sorted by name.
func (s *Slots) Named(ctx context.Context) (slots []Slot, err error) {
	defer func() { s.metrics.count("named", err) }()
	list, err := s.leases.List(ctx, metav1.ListOptions{LabelSelector: s.selector()})
	if err != nil {
		return nil, fmt.Errorf("listing the slots that name this node: %w", err)
	}
	for i := range list.Items {
		if l := &list.Items[i]; s.names(l) {
			s.remember(l)
			slots = append(slots, slotOf(l))
		}
	}
	slots = sorted(slices.Values(slots))
	s.metrics.heartbeats(s.node, slots)
	return slots, nil
}

// Check reads a slot, and the annotations of the election's Lease, in which people put the brake, by quorum and as of one moment.
// What a label does not show is read by its name, the slot last.
func (s *Slots) Check(ctx context.Context, name string) (sl Slot, marshal map[string]string, err error) {
	defer func() { s.metrics.count("check", err) }()
	selector := fmt.Sprintf("%s in (%s,%s)", LabelNode, kube.NodeLabel(s.node), kube.NoNode)
	list, err := s.leases.List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return Slot{}, nil, fmt.Errorf("listing the slots of this node and Lease %q: %w", MarshalLease, err)
	}
	var slot, brake *coordinationv1.Lease
	for i := range list.Items {
		switch l := &list.Items[i]; l.Name {
		case name:
			slot = l
		case MarshalLease:
			brake = l
		}
	}
	if brake == nil {
		switch brake, err = s.leases.Get(ctx, MarshalLease, metav1.GetOptions{}); {
		case apierrors.IsNotFound(err):
			brake = &coordinationv1.Lease{}
		case err != nil:
			return Slot{}, nil, fmt.Errorf("getting Lease %q: %w", MarshalLease, err)
		}
		slot = nil // it is to be no older than the brake
	}
	if slot == nil {
		if slot, err = s.get(ctx, name); err != nil {
			return Slot{}, nil, err
		}
	}
	s.remember(slot)
	return slotOf(slot), brake.Annotations, nil
}

// selector selects the Leases that name this node.
func (s *Slots) selector() string { return labels.Set{LabelNode: kube.NodeLabel(s.node)}.String() }

// names tells whether a Lease with that label is a slot that names this node. The label is a hash, and people may have put it
// there.
func (s *Slots) names(l *coordinationv1.Lease) bool {
	st := read(l)
	return isSlot(l.Name) && cmp.Or(st.Holder, st.nomineeNode) == s.node
}

// Take makes this node the holder of sl: an empty slot, not being deleted, that was nominated for this very bid and whose
// nomination is not over. The write is on the version of sl and on no other.
//
// A node holds one slot at most. Unless it is known that no other one is this node's or can become so, Take therefore reads the
// slots that name this node once more: see [Slots.alone].
func (s *Slots) Take(ctx context.Context, sl Slot, uid string, c Claim) (out Slot, err error) {
	defer func() { s.metrics.count("take", err) }()
	v := take(s.node, uid, c, s.now())
	if err := v(&state{Slot: sl}); err != nil {
		return Slot{}, fmt.Errorf("taking slot %q: %w", sl.Name, err)
	}
	if !s.own.only(sl.Name) {
		if err := s.alone(ctx, sl, uid); err != nil {
			return Slot{}, fmt.Errorf("taking slot %q: %w", sl.Name, err)
		}
	}
	if out, err = s.update(ctx, sl, v); err != nil {
		s.own.are(nil) // it may have taken hold, or may yet
		return Slot{}, fmt.Errorf("taking slot %q: %w", sl.Name, err)
	}
	s.own.are(map[string]bool{sl.Name: true})
	s.metrics.beat(out)
	return out, nil
}

// alone makes sure that this node holds no other slot than sl when it takes that, and comes to hold none: it refuses when another is
// held, or when sl itself is not shown, and declines every other nomination. That also ends an earlier Take of
// another slot whose outcome is unknown: it was decided on a version that this read still shows, and that the decline
// replaces, or on one that is gone already.
func (s *Slots) alone(ctx context.Context, sl Slot, uid string) error {
	s.own.are(nil)
	named, err := s.Named(ctx)
	if err != nil {
		return err
	}
	shown := false
	for _, n := range named {
		if n.Holder == s.node && n.Name != sl.Name {
			return fmt.Errorf("%w: this node holds %q", ErrHeld, n.Name)
		}
		shown = shown || n.Name == sl.Name
	}
	if !shown {
		return fmt.Errorf("%w: its label %s does not name this node", ErrNotNominated, LabelNode)
	}
	for _, other := range named {
		if other.Name == sl.Name || other.Nominee != uid {
			continue
		}
		if _, err := s.Decline(ctx, other); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// Renew writes the heartbeat and the claim on a slot that this node holds. After it, no earlier write of anybody can take
// hold any more.
func (s *Slots) Renew(ctx context.Context, sl Slot, c Claim) (out Slot, err error) {
	defer func() { s.metrics.count("renew", err) }()
	if out, err = s.update(ctx, sl, renew(s.node, c, s.now())); err != nil {
		return Slot{}, fmt.Errorf("renewing slot %q: %w", sl.Name, err)
	}
	s.metrics.beat(out)
	return out, nil
}

// Free empties a slot that this node holds, under whatever UID: holder, claim, nomination and release go with the
// finalizer, the marshal's hold stays. A Lease that is being deleted then vanishes.
func (s *Slots) Free(ctx context.Context, sl Slot) (out Slot, err error) {
	defer func() { s.metrics.count("free", err) }()
	if out, err = s.update(ctx, sl, free(s.node)); err != nil {
		return Slot{}, fmt.Errorf("freeing slot %q: %w", sl.Name, err)
	}
	s.own.without(sl.Name)
	s.metrics.rest(out.Name)
	return out, nil
}

// Decline gives back a nomination of this node. Whose it is, the caller has checked.
func (s *Slots) Decline(ctx context.Context, sl Slot) (out Slot, err error) {
	defer func() { s.metrics.count("decline", err) }()
	if out, err = s.update(ctx, sl, withdraw()); err != nil {
		return Slot{}, fmt.Errorf("declining slot %q: %w", sl.Name, err)
	}
	s.own.without(sl.Name)
	return out, nil
}

// Watch calls apply with the slots that [Slots.Named] would return, at the start and whenever one of them changes; heir says
// that the Lease `marshal` names this node, too: it is to stand for election now. Watch ends with ctx and returns its error.
func (s *Slots) Watch(ctx context.Context, apply func(slots []Slot, heir bool)) error {
	var once sync.Once
	err := kube.Watch(ctx, s.leases.List, s.leases.Watch, kube.Selection{Labels: s.selector(), Quorum: true}, &coordinationv1.Lease{},
		func(items map[string]*coordinationv1.Lease) {
			heir := false
			slots := make([]Slot, 0, len(items))
			for _, l := range items {
				switch {
				case l.Name == MarshalLease:
					heir = true
				case s.names(l):
					s.remember(l)
					slots = append(slots, slotOf(l))
				}
			}
			slots = sorted(slices.Values(slots))
			once.Do(func() { s.own.first(slots) })
			apply(slots, heir)
		},
		func(err error) {
			s.metrics.count("watch", err)
			s.log.Warn("watching slots", "err", err)
		})
	if err != nil {
		return fmt.Errorf("watching the slots of this node: %w", err)
	}
	return nil
}

// update is the only way to change a slot: v decides on sl, and again on the Lease itself, and the write carries the
// version and the UID of that Lease. A version that is not the current one is a Conflict, as the API server would say.
func (s *Slots) update(ctx context.Context, sl Slot, v verb) (Slot, error) {
	given := state{Slot: sl}
	if err := v(&given); err != nil {
		return Slot{}, err
	}
	if sl.ResourceVersion == "" { // the API server would read it as: any version
		return Slot{}, errors.New("it has no resourceVersion")
	}
	l, err := s.at(ctx, sl)
	if err != nil {
		return Slot{}, err
	}
	from := read(l)
	to := from
	if err := v(&to); err != nil {
		return Slot{}, err
	}
	l = l.DeepCopy()
	from.write(to, l)
	got, err := s.leases.Update(ctx, l, metav1.UpdateOptions{})
	if err != nil {
		return Slot{}, fmt.Errorf("updating the Lease: %w", err)
	}
	s.remember(got)
	return slotOf(got), nil
}

// at returns the whole Lease at the version of sl: the one remembered, or else the current one if it is that.
func (s *Slots) at(ctx context.Context, sl Slot) (*coordinationv1.Lease, error) {
	s.mu.Lock()
	l := s.seen[sl.Name]
	s.mu.Unlock()
	if l != nil && l.ResourceVersion == sl.ResourceVersion {
		return l, nil
	}
	l, err := s.get(ctx, sl.Name)
	if err != nil {
		return nil, err
	}
	if l.ResourceVersion != sl.ResourceVersion {
		return nil, apierrors.NewConflict(coordinationv1.Resource("leases"), sl.Name,
			fmt.Errorf("decided on version %s, it is at %s", sl.ResourceVersion, l.ResourceVersion))
	}
	return l, nil
}

func (s *Slots) remember(l *coordinationv1.Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.seen) >= rememberedLeases {
		clear(s.seen)
	}
	s.seen[l.Name] = l
}

func sorted(slots func(func(Slot) bool)) []Slot {
	return slices.SortedFunc(slots, func(a, b Slot) int { return strings.Compare(a.Name, b.Name) })
}
