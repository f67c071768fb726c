package marshal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"kubebaton.io/baton/kube"
)

// Defaults of Config.Times.
const (
	nominationTimeout = 30 * time.Second
	deletedGrace      = 30 * time.Second
)

// Config makes a Marshal.
type Config struct {
	Clientset  kube.Interface
	Namespace  string         // of the slots and of the Lease `marshal`
	Self       string         // own Node's name
	Groups     func() []Group // asked in every pass; nil or none while there is no valid configuration
	Slots      Slots
	Registerer prometheus.Registerer // of the rollout's metrics, used while leading; nil for none
	Log        *slog.Logger          // nil discards

	// Times says, for one pass each time it is asked, how long a nomination may be taken, and how long a holder's Node must have
	// been gone before its slot is freed. Nil, or a 0 of it, means 30 s.
	Times func() (nomination, grace time.Duration)

	Now func() time.Time // the API server's time, by which agents judge a nomination; nil is time.Now

	// Times of the election; 0 means 15 s, 10 s, 2 s, and 1 min between two looks of an agent that waits with few others.
	LeaseDuration, RenewDeadline, RetryPeriod, LookInterval time.Duration
}

// Marshal is the part of an agent that orders the queue whenever it is elected.
type Marshal struct {
	cfg     Config
	elector *Elector
	born    time.Time
	runner  atomic.Pointer[runner] // nil while not leading
}

// New names every fault of its configuration.
func New(c Config) (*Marshal, error) {
	var faults []error
	if c.Clientset == nil {
		faults = append(faults, errors.New("no clientset"))
	}
	if c.Namespace == "" {
		faults = append(faults, errors.New("no namespace"))
	}
	if c.Self == "" {
		faults = append(faults, errors.New("no name of the own Node"))
	}
	if c.Groups == nil {
		faults = append(faults, errors.New("no groups"))
	}
	if c.Slots == nil {
		faults = append(faults, errors.New("no slots"))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("configuring the marshal: %w", err)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	m := &Marshal{cfg: c, born: time.Now()}
	var err error
	m.elector, err = NewElector(ElectionConfig{
		Leases: c.Clientset.CoordinationV1().Leases(c.Namespace), Identity: c.Self, Lead: m.lead, Heir: m.heir, Log: c.Log,
		LeaseDuration: c.LeaseDuration, RenewDeadline: c.RenewDeadline, RetryPeriod: c.RetryPeriod, LookInterval: c.LookInterval,
	})
	if err != nil {
		return nil, fmt.Errorf("configuring the marshal: %w", err)
	}
	return m, nil
}

// Run takes part until ctx ends, and returns after the Lease `marshal` has been released, to an heir if anybody waits.
func (m *Marshal) Run(ctx context.Context) error { return m.elector.Run(ctx) }

// Stand says whether the agent takes part: while its record is Waiting, Backoff or Failed. It may be called as often as
// one likes and does not block. To stop while leading names an heir and releases the Lease, like Resign.
func (m *Marshal) Stand(on bool) { m.elector.Stand(on) }

// Inherit is for an agent whose watch shows the Lease `marshal` with the label of its own node.
func (m *Marshal) Inherit() { m.elector.Inherit() }

// Resign stops taking part and returns after the Lease was released, with an heir named on it if anybody waits: after
// the own slot was taken and before the own node is cordoned. Stand begins again. It returns nil at once for an agent
// that does not lead. An error means that the Lease may have to run out, which harms nobody but those who wait.
func (m *Marshal) Resign(ctx context.Context) error { return m.elector.Resign(ctx) }

// Look reads the Lease `marshal` once.
func (m *Marshal) Look(ctx context.Context) (State, error) { return m.elector.Look(ctx) }

// Leading tells whether this agent is the marshal.
func (m *Marshal) Leading() bool { return m.elector.Leading() }

// Restored tells that the API server was restored from a backup. The marshal notices by itself only when this agent has read
// the Lease before.
func (m *Marshal) Restored() {
	m.elector.goneBack()
	m.Reconfigured()
}

// Reconfigured makes a marshal at work ask for its groups again.
func (m *Marshal) Reconfigured() {
	if r := m.runner.Load(); r != nil {
		r.poke()
	}
}

// lead is one leadership.
func (m *Marshal) lead(ctx context.Context) {
	c := m.cfg
	r := &runner{
		self: c.Self, now: c.Now, groups: c.Groups, slots: c.Slots, nodes: c.Clientset.CoreV1().Nodes(),
		leases: c.Clientset.CoordinationV1().Leases(c.Namespace), log: c.Log,
		beats: c.Clientset.CoordinationV1().Leases(corev1.NamespaceNodeLease),
		times: c.times, restored: m.elector.Restored, annotate: m.elector.Annotate,
	}
	if doubt := m.born.Add(showsDown); time.Now().Before(doubt) {
		r.doubt = doubt
	}
	r.prepare()
	m.runner.Store(r)
	defer m.runner.Store(nil)
	if c.Registerer != nil {
		col := newCollector(&r.last)
		if err := c.Registerer.Register(col); err != nil {
			c.Log.Error("registering the rollout's metrics", "err", err)
		} else {
			defer c.Registerer.Unregister(col)
		}
	}
	r.run(ctx)
}

// heir is asked while the runner still works.
func (m *Marshal) heir() string {
	r := m.runner.Load()
	if r == nil {
		return ""
	}
	v, ok := r.snapshot()
	if !ok {
		return ""
	}
	return heir(v)
}

// times are the two durations as they are in force now.
func (c Config) times() (nomination, grace time.Duration) {
	if c.Times != nil {
		nomination, grace = c.Times()
	}
	return cmp.Or(nomination, nominationTimeout), cmp.Or(grace, deletedGrace)
}
