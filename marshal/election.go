package marshal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"

	"kubebaton.io/baton/kube"
)

// Times of the election. They are those of Kubernetes' own components.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
	lookInterval  = time.Minute      // between two looks of an agent that stands while another leads
	lookRetry     = 10 * time.Second // after a look that failed
)

// What matters is how soon anybody looks after a marshal has died, not how soon each does: when more than lookTogether agents
// stand, each looks less often, and one of them every lookInterval / lookTogether, 6 s. An agent that is left alone by the others
// learns of it at its next look, so that is never put off to more than lookMost times lookInterval, 5 min.
const (
	lookTogether = 10
	lookMost     = 5
)

// State is what the Lease `marshal` said when it was read.
type State struct {
	Holder   string // Node name of the marshal; "" is none
	Renewed  time.Time
	Lasts    time.Duration     // the holder's word on how long its lease is good
	Heir     string            // [kube.NodeLabel] of the node that is to lead next; "" is none
	Paused   map[string]string // group to reason; "" stands for all groups
	standing int               // how many agents stand besides the holder, by its own word; 0 is not known
	version  string            // of the Lease; "" for one that is not there
	observed time.Time         // when this agent first saw this holder and renewal
}

func stateOf(l *coordinationv1.Lease) State {
	s := State{Paused: pauses(l.Annotations), standing: standingOf(l.Annotations), version: l.ResourceVersion}
	if heir := l.Labels[kube.LabelNode]; heir != kube.NoNode {
		s.Heir = heir
	}
	if l.Spec.HolderIdentity != nil {
		s.Holder = *l.Spec.HolderIdentity
	}
	if l.Spec.RenewTime != nil {
		s.Renewed = l.Spec.RenewTime.Time
	}
	if l.Spec.LeaseDurationSeconds != nil {
		s.Lasts = time.Duration(*l.Spec.LeaseDurationSeconds) * time.Second
	}
	return s
}

// Pause returns why people paused a group by the annotations of the Lease `marshal`; "" when they did not.
func Pause(annotations map[string]string, group string) string {
	return State{Paused: pauses(annotations)}.Pause(group)
}

// Pause returns why people paused a group, which needs no reason; "" when they did not.
func (s State) Pause(group string) string {
	for _, g := range []string{"", group} {
		if why, ok := s.Paused[g]; ok {
			return cmp.Or(why, noReason)
		}
	}
	return ""
}

// pauses returns the groups that people paused: the presence of the annotation counts, its value is the reason.
func pauses(annotations map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range annotations {
		if k == pauseKey {
			out[""] = v
		} else if group, ok := strings.CutPrefix(k, pauseKey+"."); ok {
			out[group] = v
		}
	}
	return out
}

// same tells whether the Lease has neither changed hands nor been renewed.
func (s State) same(o State) bool { return s.Holder == o.Holder && s.Renewed.Equal(o.Renewed) }

// before tells whether the Lease was read at an earlier version than that, or is gone, which it never is.
func (s State) before(version string) bool {
	return newer(version, s.version) || version != "" && s.version == ""
}

// ElectionConfig makes an Elector.
type ElectionConfig struct {
	Leases   coordinationclient.LeaseInterface
	Identity string                    // own Node's name
	Lead     func(ctx context.Context) // runs while this agent leads, and returns soon after ctx ends
	Heir     func() string             // name of the node that leads next, "" for nobody; nil names nobody
	Log      *slog.Logger
	// LeaseDuration, RenewDeadline and RetryPeriod are leaderelection's, LookInterval is the time between two looks of an
	// agent that stands with few others. Zero means 15 s, 10 s, 2 s and 1 min.
	LeaseDuration, RenewDeadline, RetryPeriod, LookInterval time.Duration
}

// Elector stands for election while it is asked to.
type Elector struct {
	cfg  ElectionConfig
	wake chan struct{} // something below changed

	mu       sync.Mutex
	standing bool
	heir     bool  // named as the next leader: run without a look
	free     bool  // the Lease was read for another purpose, and nobody holds it: run without another look
	term     *term // nil while no candidate
	leading  bool
	seen     State
	heard    time.Time // when the Lease was read last
	restored time.Time // the Lease was seen to go back in time then
	notes    map[string]string
}

// term is one candidacy, with or without leadership.
type term struct {
	stop chan struct{} // closed by who wants its end
	done chan struct{} // closed after the Lease was released
	err  error         // set before done is closed
}

// NewElector names every fault of its configuration.
func NewElector(c ElectionConfig) (*Elector, error) {
	var faults []error
	if c.Leases == nil {
		faults = append(faults, errors.New("no client for Leases"))
	}
	if c.Identity == "" {
		faults = append(faults, errors.New("no identity"))
	}
	if c.Lead == nil {
		faults = append(faults, errors.New("nothing to run while leading"))
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		value  *time.Duration
		normal time.Duration
	}{{&c.LeaseDuration, leaseDuration}, {&c.RenewDeadline, renewDeadline}, {&c.RetryPeriod, retryPeriod}, {&c.LookInterval, lookInterval}} {
		if *d.value == 0 {
			*d.value = d.normal
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("configuring the election: %w", err)
	}
	e := &Elector{cfg: c, wake: make(chan struct{}, 1)}
	if _, err := e.candidate(&election{identity: c.Identity}); err != nil { // it checks the times against each other
		return nil, fmt.Errorf("configuring the election: %w", err)
	}
	return e, nil
}

// Run takes part in elections until ctx ends, and returns after the Lease has been released.
func (e *Elector) Run(ctx context.Context) error {
	next := time.Duration(0)
	for ctx.Err() == nil {
		standing, heir, free := e.wanted()
		switch {
		case !standing:
			e.pause(ctx, 0)
			next = 0
		case heir:
			next = e.stand(ctx, State{})
		case free:
			next = e.stand(ctx, e.Seen())
		case next > 0:
			from := time.Now()
			e.pause(ctx, next)
			next = e.spared(from)
		default:
			next = e.look(ctx)
		}
	}
	return ctx.Err()
}

// Stand says whether this agent takes part. It may be called as often as one likes; to stop while leading is to resign
// without waiting for it.
func (e *Elector) Stand(on bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.standing == on {
		return
	}
	e.standing = on
	if !on {
		e.heir, e.free = false, false
		e.term.end()
	}
	e.poke()
}

// Inherit makes an agent that stands run for election at once: the Lease `marshal` carries its node's label.
func (e *Elector) Inherit() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.standing && e.term == nil {
		e.heir = true
		e.poke()
	}
}

// Leading tells whether this agent leads.
func (e *Elector) Leading() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.leading
}

// Resign stops standing, as Stand(false) does, and returns after the Lease has been released with the name of the heir
// on it. An error means that the Lease may still carry our name and has to run out.
func (e *Elector) Resign(ctx context.Context) error {
	e.mu.Lock()
	e.standing, e.heir, e.free = false, false, false
	t := e.term
	t.end()
	e.poke()
	e.mu.Unlock()
	if t == nil {
		return nil
	}
	select {
	case <-t.done:
		return t.err
	case <-ctx.Done():
		return fmt.Errorf("resigning: %w", context.Cause(ctx))
	}
}

// end asks for the end of a term. The caller holds the Elector's lock.
func (t *term) end() {
	if t == nil {
		return
	}
	select {
	case <-t.stop:
	default:
		close(t.stop)
	}
}

// Look reads the Lease `marshal` by quorum. One that is not there has an empty state.
func (e *Elector) Look(ctx context.Context) (State, error) {
	saw := e.asks()
	l, err := e.cfg.Leases.Get(ctx, leaseName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return saw(State{}), nil
	}
	if err != nil {
		return State{}, fmt.Errorf("getting Lease %q: %w", leaseName, err)
	}
	return saw(stateOf(l)), nil
}

// Seen returns what was read last, by whatever read it.
func (e *Elector) Seen() State {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seen
}

// asks begins a request for the Lease; what it returns takes the answer. An answer that is older than what was known before
// it was asked for comes from a restored API server; one that is only older than what is known by now was overtaken, by a
// write of the election for example, and is no news.
func (e *Elector) asks() (saw func(State) State) {
	before := e.Seen().version
	return func(s State) State {
		e.mu.Lock()
		defer e.mu.Unlock()
		s.observed = time.Now()
		e.heard = s.observed
		defer e.noticed()
		if s.same(e.seen) {
			s.observed = e.seen.observed
		}
		switch {
		case s.before(before):
			e.restored = time.Now()
			e.cfg.Log.Warn("the API server has gone back in time: was it restored from a backup?", "lease", leaseName,
				"seen", before, "now", s.version)
		case s.before(e.seen.version):
			return s
		}
		e.seen = s
		return s
	}
}

// noticed makes an agent that waits stand when the Lease, read for another purpose, looks free, without a word of the holder's
// clock. The caller holds the lock.
func (e *Elector) noticed() {
	s := e.seen
	silent := time.Since(s.observed) > e.lasts(s)
	if e.standing && e.term == nil && (s.Holder == "" || s.Holder == e.cfg.Identity || silent) {
		e.free = true
		e.poke()
	}
}

// goneBack is told of a restore that showed elsewhere.
func (e *Elector) goneBack() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.restored = time.Now()
}

// Annotate keeps these annotations on the Lease, "" for one that is to go, from the next renewal of this agent's leadership
// on: they cost no write of their own. It replaces what was said before.
func (e *Elector) Annotate(notes map[string]string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.notes = notes
}

func (e *Elector) annotations() map[string]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.notes
}

// Restored returns when the Lease was last seen to go back in time, or to be gone, or when something else showed that the API
// server was restored; zero for never. What the API server
// tells from then on is what it knew when its backup was made.
func (e *Elector) Restored() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.restored
}

func (e *Elector) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

func (e *Elector) wanted() (standing, heir, free bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case <-e.wake: // what it stands for is seen here
	default:
	}
	heir, e.heir = e.heir, false
	free, e.free = e.free, false
	return e.standing, heir, free
}

// pause waits for about d, for ever if that is 0, or until something changes.
func (e *Elector) pause(ctx context.Context, d time.Duration) {
	var after <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d/2 + rand.N(d))
		defer t.Stop()
		after = t.C
	}
	select {
	case <-after:
	case <-e.wake:
	case <-ctx.Done():
	}
}

// spared returns how long a look may still wait because the Lease was read since then for the brake, and was held by who had just
// renewed it.
func (e *Elector) spared(since time.Time) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.heard.After(since) && e.heard.Sub(e.seen.Renewed) <= e.lasts(e.seen) {
		return max(0, e.interval(e.seen)-time.Since(e.heard))
	}
	return 0
}

// look reads the Lease and stands if nobody holds it. It returns after what time to look again. An agent that begins to wait
// has just read the Lease for the brake, and does not ask again.
func (e *Elector) look(ctx context.Context) time.Duration {
	s, fresh := e.heardOf()
	var err error
	if !fresh {
		s, err = e.Look(ctx)
	}
	if err != nil {
		if ctx.Err() == nil {
			e.cfg.Log.Warn("looking for the marshal", "err", err)
		}
		return min(lookRetry, e.cfg.LookInterval)
	}
	if !e.vacant(s) {
		return e.interval(s)
	}
	return e.stand(ctx, s)
}

// interval is the time from a look that showed a marshal at work to the next one. By a clock that disagrees with the holder's
// nobody sees at one look that it has died: such an agent looks as often as if it stood alone.
func (e *Elector) interval(s State) time.Duration {
	if time.Until(s.Renewed) > e.lasts(s) {
		return e.cfg.LookInterval
	}
	return e.cfg.LookInterval * time.Duration(min(max(s.standing, lookTogether), lookMost*lookTogether)) / lookTogether
}

// lasts is for how long a renewal is good.
func (e *Elector) lasts(s State) time.Duration { return max(s.Lasts, e.cfg.LeaseDuration) }

// heardOf returns what was read last, and whether that was just now.
func (e *Elector) heardOf() (s State, fresh bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seen, !e.heard.IsZero() && time.Since(e.heard) < e.cfg.RetryPeriod
}

// vacant tells whether the Lease looks free. A holder's clock may be wrong, so one whose renewal has not moved while we
// looked on is as good as gone; leaderelection makes its own observation before it takes the Lease over.
func (e *Elector) vacant(s State) bool {
	lasts := e.lasts(s)
	return s.Holder == "" || s.Holder == e.cfg.Identity || time.Since(s.Renewed) > lasts || time.Since(s.observed) > lasts
}

// stand runs for election and leads if elected. It returns after what time to look again, 0 for at once.
func (e *Elector) stand(ctx context.Context, base State) time.Duration {
	t := &term{stop: make(chan struct{}), done: make(chan struct{})}
	e.mu.Lock()
	if !e.standing {
		e.mu.Unlock()
		return 0
	}
	e.term, e.notes, e.free = t, nil, false
	e.mu.Unlock()
	// The release at the end must come after the work has stopped, so the candidacy does not end with ctx by itself.
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	l := &election{
		leases: e.cfg.Leases, identity: e.cfg.Identity, timeout: e.cfg.RenewDeadline / 2, base: base, asks: e.asks, lost: cancel, notes: e.annotations,
		led: make(chan context.Context, 1),
	}
	t.err = e.serve(ctx, run, cancel, l, t)
	e.mu.Lock()
	e.term = nil
	e.mu.Unlock()
	close(t.done)
	switch {
	case l.beaten():
		return e.cfg.LookInterval
	case l.elected():
		return e.cfg.RetryPeriod
	}
	return 0
}

// serve is one candidacy from its first attempt to the release.
func (e *Elector) serve(ctx, run context.Context, cancel func(), l *election, t *term) error {
	c, err := e.candidate(l)
	if err != nil {
		return err
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		c.Run(run)
	}()
	var lead context.Context
	select {
	case lead = <-l.led:
	case <-stopped:
	case <-t.stop:
	case <-ctx.Done():
	}
	if lead != nil {
		l.name(e.lead(ctx, lead, t, stopped))
	}
	cancel()
	<-stopped
	return l.outcome()
}

// lead works until the term ends or is lost, and returns the heir's name.
func (e *Elector) lead(ctx, lead context.Context, t *term, stopped <-chan struct{}) string {
	e.cfg.Log.Info("leading", "lease", leaseName)
	e.setLeading(true)
	defer e.setLeading(false)
	lead, end := context.WithCancel(lead)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		e.cfg.Lead(lead)
	}()
	select {
	case <-t.stop:
	case <-ctx.Done():
	case <-stopped:
	case <-finished:
	}
	heir := ""
	if e.cfg.Heir != nil {
		heir = e.cfg.Heir()
	}
	end()
	<-finished
	e.cfg.Log.Info("leading no more", "lease", leaseName, "heir", heir)
	return heir
}

func (e *Elector) setLeading(on bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leading = on
}

func (e *Elector) candidate(l *election) (*leaderelection.LeaderElector, error) {
	return leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: l, Name: leaseName, ReleaseOnCancel: true,
		LeaseDuration: e.cfg.LeaseDuration, RenewDeadline: e.cfg.RenewDeadline, RetryPeriod: e.cfg.RetryPeriod,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) { l.led <- ctx },
			OnStoppedLeading: func() {},
		},
	})
}
