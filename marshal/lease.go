package marshal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"kubebaton.io/baton/kube"
)

// errNotHolder refuses to release a Lease that somebody else holds by now.
var errNotHolder = errors.New("another holds it")

// election is leaderelection's lock on the Lease `marshal` for one candidacy. Unlike client-go's own it ends the
// candidacy as soon as another holder is seen, so that thousands of waiting agents do not poll; it writes the heir's
// name and the release at once; and no end of a context cuts a write off, whose outcome would be unknown.
type election struct {
	leases   coordinationclient.LeaseInterface
	identity string
	timeout  time.Duration                  // of one write
	base     State                          // what was seen before: a holder that has not moved since may be dead
	asks     func() (saw func(State) State) // begins every request, and is told of its answer
	lost     func()                         // ends the candidacy
	notes    func() map[string]string
	led      chan context.Context

	mu      sync.Mutex
	lease   *coordinationv1.Lease // as last read or written
	heir    string
	other   bool // another holder was seen at work
	won     bool // our name was on the Lease at some time
	holds   bool // our own name is on the Lease, by our last write
	failure error
}

var _ resourcelock.Interface = (*election)(nil)

func (l *election) name(heir string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heir = heir
}

// beaten tells whether the candidacy ended because another one leads.
func (l *election) beaten() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.other
}

func (l *election) elected() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.won
}

// outcome is nil when our name is not on the Lease any more.
func (l *election) outcome() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.holds || l.other {
		return nil
	}
	return fmt.Errorf("releasing Lease %q: %w", leaseName, l.failure)
}

// Get reads the Lease by quorum.
func (l *election) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	saw := l.asks()
	lease, err := l.leases.Get(ctx, leaseName, metav1.GetOptions{})
	if err != nil {
		l.fail(err)
		return nil, nil, err // leaderelection asks for NotFound
	}
	s := saw(stateOf(lease))
	l.mu.Lock()
	l.lease = lease
	beaten := s.Holder != "" && s.Holder != l.identity && !s.same(l.base)
	l.other = beaten
	l.mu.Unlock()
	if beaten {
		l.lost()
	}
	rec := resourcelock.LeaseSpecToLeaderElectionRecord(&lease.Spec)
	raw, err := json.Marshal(rec)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding the record of Lease %q: %w", leaseName, err)
	}
	return rec, raw, nil
}

// Create makes the Lease in our name.
func (l *election) Create(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: leaseName, Labels: map[string]string{kube.LabelNode: kube.NoNode}},
		Spec:       resourcelock.LeaderElectionRecordToLeaseSpec(&r),
	}
	return l.write(ctx, func(ctx context.Context) (*coordinationv1.Lease, error) {
		return l.leases.Create(ctx, lease, metav1.CreateOptions{})
	})
}

// Update takes, renews or, with an empty holder, releases the Lease, at the version read or written last.
func (l *election) Update(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	l.mu.Lock()
	read, heir, won := l.lease, l.heir, l.won
	l.mu.Unlock()
	if read == nil {
		return fmt.Errorf("updating Lease %q: it was not read", leaseName)
	}
	if r.HolderIdentity == "" && stateOf(read).Holder != l.identity {
		return fmt.Errorf("releasing Lease %q: %w", leaseName, errNotHolder)
	}
	lease := read.DeepCopy()
	lease.Spec = resourcelock.LeaderElectionRecordToLeaseSpec(&r)
	named := kube.NoNode // whoever leads, there is no heir now
	if r.HolderIdentity == "" && heir != "" {
		named = kube.NodeLabel(heir)
	}
	metav1.SetMetaDataLabel(&lease.ObjectMeta, kube.LabelNode, named)
	if !won {
		delete(lease.Annotations, standingKey) // an earlier marshal counted others
	}
	for k, v := range l.notes() {
		if v == "" {
			delete(lease.Annotations, k)
		} else {
			metav1.SetMetaDataAnnotation(&lease.ObjectMeta, k, v)
		}
	}
	return l.write(ctx, func(ctx context.Context) (*coordinationv1.Lease, error) {
		return l.leases.Update(ctx, lease, metav1.UpdateOptions{})
	})
}

// write sends one write and waits for its answer even when ctx is cancelled, though never beyond its deadline.
func (l *election) write(ctx context.Context, send func(context.Context) (*coordinationv1.Lease, error)) error {
	until := time.Now().Add(l.timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(until) {
		until = d
	}
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), until)
	defer cancel()
	saw := l.asks()
	got, err := send(ctx)
	if err != nil {
		l.fail(err)
		return err // leaderelection asks for Conflict
	}
	saw(stateOf(got))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lease, l.holds, l.failure = got, stateOf(got).Holder == l.identity, nil
	l.won = l.won || l.holds
	return nil
}

func (l *election) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failure = err
}

// RecordEvent is not used: the log says who leads.
func (l *election) RecordEvent(string) {}

// Identity is the own Node's name.
func (l *election) Identity() string { return l.identity }

// Describe names the Lease in client-go's log lines.
func (l *election) Describe() string { return leaseName }
