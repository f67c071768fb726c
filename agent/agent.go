package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// Config is what an Agent needs. Every field but Hooks, Clock and Home is required.
type Config struct {
	Node       NodeStore
	Slots      SlotStore
	Host       Host
	Pods       Pods
	Marshal    Marshal
	Hooks      Hooks // nil: none are run
	Clock      Clock // nil: the skew is not known and never shuts a gate
	Home       Home  // nil: a stop is never a removal
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Policy is what the configuration says to the cycle.
type Policy struct {
	// Of returns the group of a node with these labels, "" for none, and the settings that hold for it.
	Of func(labels map[string]string) (group string, s Settings)
	// Rules tells the rules of a group's drains from others; "" when there is no such group.
	Rules    func(group string) string
	Schedule Schedule
}

// How often the loop looks at itself, and how long a single call to the API server or the host may take.
const (
	pulse       = 20 * time.Second
	callTimeout = 15 * time.Second
	// retryFirst and retryLast bound the growing delay after a call that failed.
	retryFirst = 100 * time.Millisecond
	retryLast  = 10 * time.Second
	// standbyRetry is how often a second agent of the same host tries to become the first.
	standbyRetry = time.Second
)

// Agent runs the cycle of one node.
type Agent struct {
	Config
	metrics *metrics
	wake    chan struct{}
	events  chan event

	slotsRead  <-chan struct{} // closed when the slots are known: the Node is to be read after them
	slotsKnown func()          // closes it

	// world is what is known, kept by callbacks and by the loop.
	mu    sync.Mutex
	world world

	reading sync.Mutex // of the sentinels

	unreadable string // the record that was said to be unreadable

	drain job    // evictions of the phase Draining
	rules string // by which they go
	pods  job    // the watch of the phases Verifying and Failed
	hooks job    // of a stage of the phases Draining, Verifying and Failed
}

// New checks c and names everything that is missing.
func New(c Config) (*Agent, error) {
	var faults []error
	for name, missing := range map[string]bool{
		"Node": c.Node == nil, "Slots": c.Slots == nil, "Host": c.Host == nil, "Pods": c.Pods == nil,
		"Marshal": c.Marshal == nil, "Log": c.Log == nil, "Registerer": c.Registerer == nil,
	} {
		if missing {
			faults = append(faults, fmt.Errorf("agent: Config.%s is required", name))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	m, err := newMetrics(c.Registerer)
	if err != nil {
		return nil, err
	}
	a := &Agent{Config: c, metrics: m, wake: make(chan struct{}, 1), events: make(chan event, 32)}
	read := make(chan struct{})
	a.slotsRead, a.slotsKnown = read, sync.OnceFunc(func() { close(read) })
	a.world = world{instance: rand.Text(), why: "starts", beat: time.Now()}
	a.world.hooks.Left = true // by an earlier process
	return a, nil
}

// SetPolicy makes p the configuration from now on. It may be called at any time, from any goroutine.
func (a *Agent) SetPolicy(p Policy) {
	a.change(func(w *world) {
		w.policy, w.windowAsked = &p, time.Time{}
		w.gates.Until = time.Time{} // what was answered under the old rules is asked again
	})
}

// change updates the world and wakes the loop.
func (a *Agent) change(f func(*world)) {
	a.update(f)
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Run runs the cycle until ctx ends, and returns nil then. Whatever goes wrong on the way, it waits, says why, goes on. It
// writes nothing after the end of ctx, unless Baton is being removed: then it gives the node back first, if it can.
func (a *Agent) Run(ctx context.Context) error {
	boot, ok := a.bootID(ctx)
	if !ok {
		return nil
	}
	release, ok := a.lock(ctx)
	if !ok {
		return nil
	}
	defer release()
	a.change(func(w *world) { w.boot = boot })
	a.readSentinel(ctx)
	a.update(func(w *world) { w.owe(ownNode) })

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return ends(ctx, a.watchNode(ctx)) })
	g.Go(func() error { return ends(ctx, a.Host.Watch(ctx, func() { a.readSentinel(ctx) })) })
	g.Go(func() error {
		return ends(ctx, a.Slots.Watch(ctx, func(slots []Slot, heir bool) {
			a.slotsChanged(slots, heir)
			a.slotsKnown()
		}))
	})
	g.Go(func() error { return a.sendEvents(ctx) })
	g.Go(func() error { return a.loop(ctx) })
	if err := g.Wait(); err != nil {
		return fmt.Errorf("running the agent: %w", err)
	}
	a.leave(context.WithoutCancel(ctx))
	return nil
}

// watchNode watches the Node, from when the slots are known.
func (a *Agent) watchNode(ctx context.Context) error {
	select {
	case <-a.slotsRead:
		return a.Node.Watch(ctx, a.nodeChanged)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ends turns the end of a context, which is how every part of the agent stops, into success.
func ends(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// bootID reads the boot ID, which nothing can be done without, however long it takes.
func (a *Agent) bootID(ctx context.Context) (string, bool) {
	for delay := retryFirst; ; delay = min(2*delay, retryLast) {
		id, err := a.Host.BootID()
		if err == nil {
			return id, true
		}
		a.failed("reading the boot ID", err)
		a.beat()
		if !a.pause(ctx, delay) {
			return "", false
		}
	}
}

// lock makes this process the one agent of its host, or waits until it is.
func (a *Agent) lock(ctx context.Context) (func(), bool) {
	for {
		release, err := a.Host.Lock()
		if err == nil {
			return release, true
		}
		a.failed("becoming the agent of this host", err)
		a.beat()
		if !a.pause(ctx, standbyRetry) {
			return nil, false
		}
	}
}

// loop observes, decides and acts until ctx ends. Nothing is written on the way out.
func (a *Agent) loop(ctx context.Context) error {
	defer a.drain.stop()
	defer a.pods.stop()
	defer a.hooks.stop()
	delay := retryFirst
	for ctx.Err() == nil {
		worked, err := a.turn(ctx)
		switch {
		case ctx.Err() != nil:
		case worked:
			delay = retryFirst
		case err == nil:
		case errors.Is(err, ErrConflict) && delay == retryFirst:
			delay *= 2
		default:
			a.pause(ctx, delay)
			delay = min(2*delay, retryLast)
		}
	}
	return nil
}

// turn is one round: at most one effect. worked tells that the next one has no reason to wait: something was changed, or
// nothing is to be done. That a question was answered between two writes that fail is no such reason.
func (a *Agent) turn(ctx context.Context) (worked bool, err error) {
	if err := a.refresh(ctx); err != nil {
		a.beat()
		a.failed(readingAPI, err)
		a.housekeep(a.observe()) // the watch may have brought meanwhile what ends the drain
		return false, err
	}
	if !a.knows() {
		a.beat()
		a.sleep(ctx, time.Time{})
		return true, nil
	}
	o := a.observe()
	a.housekeep(o)
	d := Step(o)
	a.show(o, d)
	if d.Do == nil {
		a.succeeded()
		a.sleep(ctx, d.Wake)
		return true, nil
	}
	err = a.apply(ctx, o, d.Do)
	if err == nil {
		return !asks(d.Do), nil
	}
	a.failed(strings.TrimPrefix(fmt.Sprintf("%T", d.Do), "agent."), err)
	a.change(func(w *world) {
		w.stale = true
		if errors.Is(err, ErrUnknown) {
			w.instance = rand.Text() // what may still be on its way is fenced off by the next write
		}
	})
	return false, err
}

// knows tells whether anything is known of the Node.
func (a *Agent) knows() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.world.known
}

// housekeep ends what belongs to a phase that is over, and says whether this node may be elected.
func (a *Agent) housekeep(o Observation) {
	phase, key := Idle, ""
	if o.Exists && o.Record != nil {
		phase, key = o.Record.Phase, fmt.Sprintf("%s/%d/%s", o.Record.Cycle, o.Record.Attempt, o.Record.NewBootID)
	}
	switch {
	case !mayEvict(o) || a.drain.key != key:
		a.drain.stop()
		a.update(func(w *world) { w.drain, w.evicted = DrainView{}, 0 })
	case a.rules != o.Rules && !o.Drain.Empty: // other rules are another drain
		a.drain.stop()
		a.update(func(w *world) { w.drain = DrainView{} })
	}
	if phase != Verifying && phase != Failed || a.pods.key != key {
		a.pods.stop()
		a.update(func(w *world) { w.pods = PodsReady{} })
	}
	run := o.hookRun().key()
	if a.hooks.key != run {
		a.hooks.stop()
	}
	a.hooks.next = run
	if phase != Rebooting {
		a.update(func(w *world) { w.call = Call{} })
	}
	a.drain.next, a.pods.next, a.rules = key, key, o.Rules
	_, holds := o.held()
	a.Marshal.Stand(phase == Failed || !holds && (phase == Waiting || phase == Backoff))
}

// update changes the world without waking the loop: for the loop itself, and for what it need not know at once.
func (a *Agent) update(f func(*world)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(&a.world)
}

// sleep waits for a change, for until, or for the next beat of the loop's own pulse.
func (a *Agent) sleep(ctx context.Context, until time.Time) {
	d := pulse
	if !until.IsZero() {
		d = min(d, max(time.Until(until), time.Millisecond))
	}
	a.mu.Lock()
	for _, at := range []time.Time{a.world.refreshAt, a.world.sentinelAgain} {
		if !at.IsZero() {
			d = min(d, max(time.Until(at), time.Millisecond))
		}
	}
	a.mu.Unlock()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-a.wake:
	case <-t.C:
	}
}

// pause waits for d; it tells whether ctx is still alive.
func (a *Agent) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

const readingAPI = "reading the Node and its slots"

// beat says that the loop turns.
func (a *Agent) beat() { a.update(func(w *world) { w.beat = time.Now() }) }

// failed logs an error once for as long as it stays the same, and shows it.
func (a *Agent) failed(doing string, err error) {
	var news bool
	a.update(func(w *world) {
		if w.trouble == nil {
			w.trouble = map[string]string{}
		}
		news, w.trouble[doing] = w.trouble[doing] != err.Error(), err.Error()
	})
	if news {
		a.Log.Warn("waits and tries again", "doing", doing, "err", err)
	}
	a.metrics.errors.WithLabelValues(doing).Inc()
}

// succeeded forgets the errors of what the loop does: it has come to a point where it waits for something else.
func (a *Agent) succeeded() {
	a.update(func(w *world) {
		maps.DeleteFunc(w.trouble, func(doing, _ string) bool {
			return !slices.Contains([]string{readingSentinels, evicting, awaitingPods, runningHooks}, doing)
		})
	})
}

// job is a goroutine that belongs to a phase.
type job struct {
	key, next string        // of the cycle it runs for; of the cycle that a start would be for
	delay     time.Duration // before the next try, after one that failed
	cancel    context.CancelFunc
	done      chan struct{}
}

func (j *job) start(ctx context.Context, run func(context.Context)) {
	if j.key != j.next {
		j.delay = retryFirst
	}
	j.stop()
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	j.key, j.cancel, j.done = j.next, cancel, done
	go func() {
		defer close(done)
		run(ctx)
	}()
}

// stop ends the job and waits for its end: nothing of it happens afterwards.
func (j *job) stop() {
	if j.cancel == nil {
		return
	}
	j.cancel()
	<-j.done
	j.key, j.cancel, j.done = "", nil, nil
}
