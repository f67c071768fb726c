package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// sim is a cluster of one node and its host, strict about what the real ones are strict about: every write is a
// compare-and-swap, a reboot changes the boot ID and kills the agent. It checks the invariants at each effect.
type sim struct {
	t  *testing.T
	mu sync.Mutex
	rv int

	node    Node
	exists  bool
	slot    Slot
	boot    int
	sent    Sentinel
	keeps   bool // the sentinel is there again after a reboot
	pending bool // the host is going down
	stuck   bool // the host accepts a reboot and does not go

	refuse    error         // what the host answers to a reboot
	calm      error         // the host cannot be asked for a shutdown
	goesAfter time.Duration // from the accepted call to the new boot
	pods      int           // that are still to be evicted
	blocked   string        // reason for which no pod goes
	inhibitor []string
	paused    string
	leading   bool
	missing   []string // pods not Ready after the reboot
	noMarshal bool
	hours     hours
	metrics   *prometheus.Registry // of the last agent
	noPolicy  bool                 // the next agent starts without a configuration
	drainErr  error                // of every drain
	drains    int                  // that were begun
	mute      error                // the other rebooters cannot be asked
	slowList  time.Duration        // a quorum read of the slots takes so long after it has read
	odd       bool                 // the host answers with an error that says nothing, and goes down all the same

	nodeWatch []func()
	slotWatch []func()
	hostWatch []func()

	reboots   int
	effects   int
	asked     int    // reboots that the host was asked for
	lastCheck func() // runs when the last check begins: in the first quorum read of the Node in Rebooting
	log       []string
	events    []string // reason, first word, whether it warns
	landed    []string // late writes that took hold
	kill      context.CancelFunc
	dead      bool // the agent of the current life is dead: nothing of it may reach the world
	fault     func(n int, what string) fault
	after     func(what string)    // runs after each effect
	lag       func() time.Duration // of what the watch of the slots tells, in order; nil: none
	bad       []string
}

var errCut = errors.New("power cut")

func newSim(t *testing.T) *sim {
	s := &sim{t: t, exists: true, boot: 1, pods: 3, goesAfter: 20 * time.Second}
	s.node = Node{Name: "n1", UID: "uid-1", BootID: "boot-1", Ready: true, ResourceVersion: "1", Allocatable: map[string]int64{"nvidia.com/gpu": 2}}
	s.slot = Slot{Name: "slot-workers-0", Group: "workers", ResourceVersion: "1"}
	s.rv = 1
	return s
}

func (s *sim) violated(format string, a ...any) { s.bad = append(s.bad, fmt.Sprintf(format, a...)) }

func (s *sim) next() string { s.rv++; return strconv.Itoa(s.rv) }

func (s *sim) bootID() string { return "boot-" + strconv.Itoa(s.boot) }

// told runs the watch of the slots, in order; the callers hold s.mu.
func (s *sim) told() {
	for _, f := range s.slotWatch {
		f()
	}
}

// notify runs the other watches; the callers hold s.mu, the callbacks do not need it.
func (s *sim) notify(fs []func()) {
	for _, f := range fs {
		go f()
	}
}

// fault is what happens to one effect. The zero value: nothing, it takes hold and is answered.
type fault struct {
	dropped bool          // it does not take hold
	late    time.Duration // it takes hold so much later
	lost    bool          // its answer does not arrive; so does that of one that is dropped or late
	cut     bool          // the agent dies with it
}

// at is passed by every effect.
func (s *sim) at(what string, f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return errCut
	}
	s.effects++
	s.log = append(s.log, what)
	var how fault
	if s.fault != nil {
		how = s.fault(s.effects, what)
	}
	var err error
	switch {
	case how.dropped:
	case how.late > 0:
		go func() {
			pass(how.late)
			s.mu.Lock()
			defer s.mu.Unlock()
			if f() == nil {
				s.landed = append(s.landed, what)
			}
		}()
	default:
		err = f()
	}
	if s.after != nil {
		s.after(what)
	}
	if how.cut {
		s.cut()
	}
	if how != (fault{}) {
		return errCut
	}
	return err
}

// cut ends the agent at once.
func (s *sim) cut() {
	s.dead = true
	s.kill()
}

func (s *sim) person(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.node.ResourceVersion = s.next()
	s.notify(s.nodeWatch)
}

func (s *sim) raise(fp string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = Sentinel{Source: "/run/reboot-required", Reason: "linux-image", Fingerprint: fp}
	s.notify(s.hostWatch)
}

// reboot is the power coming back: a new boot ID, and the kubelet reports it a little later.
func (s *sim) rebootNow() {
	s.mu.Lock()
	s.boot++
	s.reboots++
	s.pending = false
	if !s.keeps {
		s.sent = Sentinel{}
	}
	s.dead = true
	kill := s.kill
	s.mu.Unlock()
	if kill != nil {
		kill()
	}
	go func() {
		pass(3 * time.Second)
		s.person(func() { s.node.BootID, s.node.Ready = s.bootID(), true })
	}()
}

// The seams.

type simNode struct{ *sim }

func (s simNode) Get(context.Context) (Node, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return Node{}, ErrUnknown
	}
	if !s.exists {
		return Node{}, ErrGone
	}
	if s.lastCheck != nil && s.node.Phase == "rebooting" {
		s.lastCheck()
	}
	return s.node, nil
}

func (s simNode) Patch(_ context.Context, from Node, c NodeChange) (Node, error) {
	var out Node
	err := s.at("patch", func() error {
		if !s.exists || from.UID != s.node.UID || from.ResourceVersion != s.node.ResourceVersion {
			return ErrConflict
		}
		var old, rec Record
		_ = json.Unmarshal([]byte(s.node.Record), &old)
		if c.Record != nil && *c.Record != "" {
			if err := json.Unmarshal([]byte(*c.Record), &rec); err != nil {
				return err
			}
		}
		if c.Unschedulable != nil && !*c.Unschedulable {
			if old.Cordon != CordonBaton {
				s.violated("uncordon of a cordon that is not Baton's (%s)", old.Cordon)
			}
			if s.pending && !s.stuck {
				s.violated("uncordon while the host goes down")
			}
		}
		if c.Unschedulable != nil && *c.Unschedulable && s.slot.Holder != s.node.Name {
			s.violated("cordon without the slot")
		}
		if c.Unschedulable != nil && *c.Unschedulable && (rec.Phase != Draining || rec.Cordon != CordonBaton) {
			s.violated("cordon without saying so in the record")
		}
		if c.History != nil {
			was, is := parseHistory(s.node.History), parseHistory(*c.History)
			news := len(is.Cycles) > 0 && (len(was.Cycles) == 0 || was.Cycles[len(was.Cycles)-1] != is.Cycles[len(is.Cycles)-1])
			if news && is.Cycles[len(is.Cycles)-1].Rebooted && old.BootID == s.bootID() {
				s.violated("a reboot is called done on the boot on which it was asked for")
			}
		}
		n := &s.node
		set := func(to, from *string) {
			if from != nil {
				*to = *from
			}
		}
		set(&n.Record, c.Record)
		set(&n.History, c.History)
		set(&n.Phase, c.Phase)
		if c.Unschedulable != nil {
			n.Unschedulable = *c.Unschedulable
		}
		if c.Taint != nil {
			n.Tainted = *c.Taint
		}
		if c.ClearRequest {
			n.Request = ""
		}
		if c.ClearAcknowledge {
			n.Acknowledge = ""
		}
		n.ResourceVersion = s.next()
		out = *n
		s.notify(s.nodeWatch)
		s.nominate()
		return nil
	})
	if err != nil {
		return Node{}, s.outcome(err)
	}
	return out, nil
}

// outcome makes a cut look as it does to the one who is cut off.
func (s *sim) outcome(err error) error {
	if errors.Is(err, errCut) {
		return ErrUnknown
	}
	return err
}

func (s simNode) Watch(ctx context.Context, f func(Node, bool)) error {
	cb := func() {
		s.mu.Lock()
		n, ok := s.node, s.exists
		s.mu.Unlock()
		if ctx.Err() == nil {
			f(n, ok)
		}
	}
	s.mu.Lock()
	s.nodeWatch = []func(){cb}
	s.mu.Unlock()
	cb()
	<-ctx.Done()
	return ctx.Err()
}

func (s simNode) Event(_ context.Context, _ Node, warning bool, reason, message string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	word, _, _ := strings.Cut(message, ":")
	s.events = append(s.events, fmt.Sprintf("%s %s %v", reason, word, warning))
	return nil
}

type simSlots struct{ *sim }

// nominate is a marshal that offers the slot to every bid.
func (s *sim) nominate() {
	if s.noMarshal || s.slot.Holder != "" || !s.exists {
		return
	}
	var r Record
	if json.Unmarshal([]byte(s.node.Record), &r) != nil || !r.Bids || s.paused != "" {
		return
	}
	s.slot.Nominee, s.slot.BidCycle, s.slot.BidAttempt = s.node.UID, r.Cycle, r.Attempt
	s.slot.BidUntil = time.Now().Add(30 * time.Second)
	s.slot.ResourceVersion = s.next()
	s.told()
}

func (s simSlots) Get(context.Context, string) (Slot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slot, nil
}

func (s simSlots) Named(_ context.Context, uid string) ([]Slot, error) {
	l, err := s.named(uid)
	if s.slowList > 0 {
		pass(s.slowList)
	}
	return l, err
}

func (s simSlots) named(uid string) ([]Slot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return nil, ErrUnknown
	}
	if s.slot.Nominee == uid || s.slot.Holder == s.node.Name {
		return []Slot{s.slot}, nil
	}
	return nil, nil
}

func (s simSlots) write(what string, from Slot, f func(*Slot) error) (Slot, error) {
	var out Slot
	err := s.at(what, func() error {
		if from.ResourceVersion != s.slot.ResourceVersion {
			return ErrConflict
		}
		if err := f(&s.slot); err != nil {
			return err
		}
		s.slot.ResourceVersion = s.next()
		out = s.slot
		s.told()
		s.nominate()
		return nil
	})
	if err != nil {
		return Slot{}, s.outcome(err)
	}
	return out, nil
}

func (s simSlots) claim(to *Slot, c Claim) {
	to.Cycle, to.Attempt, to.BootID, to.Cordon, to.Instance = c.Cycle, c.Attempt, c.BootID, c.Cordon, c.Instance
	to.Renewed = time.Now()
}

func (s simSlots) Take(_ context.Context, from Slot, uid string, c Claim) (Slot, error) {
	return s.write("take", from, func(to *Slot) error {
		if to.Holder != "" || to.Nominee != uid {
			return errors.New("not nominated")
		}
		to.Holder, to.HolderUID = s.node.Name, uid
		s.claim(to, c)
		return nil
	})
}

func (s simSlots) Renew(_ context.Context, from Slot, c Claim) (Slot, error) {
	return s.write("renew", from, func(to *Slot) error { s.claim(to, c); return nil })
}

func (s simSlots) Free(_ context.Context, from Slot) (Slot, error) {
	return s.write("free", from, func(to *Slot) error {
		var r Record
		_ = json.Unmarshal([]byte(s.node.Record), &r)
		if s.pending && !s.stuck && to.HolderUID == s.node.UID {
			s.violated("slot freed while the host goes down")
		}
		if r.Cordon == CordonBaton && s.node.Unschedulable {
			s.violated("slot freed while the node is cordoned by Baton")
		}
		*to = Slot{Name: to.Name, Group: to.Group}
		return nil
	})
}

func (s simSlots) Decline(_ context.Context, from Slot) (Slot, error) {
	return s.write("decline", from, func(to *Slot) error {
		to.Nominee, to.BidCycle = "", ""
		return nil
	})
}

func (s simSlots) Watch(ctx context.Context, uid string, f func([]Slot, bool)) error {
	news := make(chan []Slot, 1000)
	cb := func() {
		var l []Slot
		if s.slot.Nominee == uid {
			l = []Slot{s.slot}
		}
		news <- l
	}
	s.mu.Lock()
	s.slotWatch = []func(){cb}
	cb()
	s.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case l := <-news:
			if s.lag != nil {
				pass(s.lag())
			}
			if ctx.Err() == nil {
				f(l, false)
			}
		}
	}
}

type simHost struct{ *sim }

func (s simHost) BootID() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bootID(), nil
}

func (s simHost) Sentinel(context.Context) (Sentinel, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent, nil
}

func (s simHost) Watch(ctx context.Context, f func()) error {
	s.mu.Lock()
	s.hostWatch = []func(){func() {
		if ctx.Err() == nil {
			f()
		}
	}}
	s.mu.Unlock()
	<-ctx.Done()
	return ctx.Err()
}

func (s simHost) Shutdown(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calm != nil {
		return "", s.calm
	}
	if s.pending && !s.stuck {
		return "reboot.target is queued", nil
	}
	return "", nil
}

func (s simHost) Inhibitors(context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inhibitor, nil
}

func (s simHost) OtherRebooters(context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return nil, s.mute
}
func (s simHost) Lock() (func(), error) { return func() {}, nil }

func (s simHost) Reboot(context.Context) error {
	err := s.at("reboot", func() error {
		s.asked++
		var r Record
		_ = json.Unmarshal([]byte(s.node.Record), &r)
		switch {
		case !s.exists || s.slot.Holder != s.node.Name || s.slot.HolderUID != s.node.UID:
			s.violated("reboot without the slot")
		case !s.node.Unschedulable:
			s.violated("reboot without a cordon")
		case r.Phase != Rebooting || r.BootID != s.bootID():
			s.violated("reboot before it was stored")
		case s.pods > 0:
			s.violated("reboot with %d pods on the node", s.pods)
		case s.node.Hold != "":
			s.violated("reboot of a node on hold")
		}
		if s.refuse != nil {
			return s.refuse
		}
		s.pending = true
		if !s.stuck {
			go func() {
				pass(s.goesAfter)
				s.rebootNow()
			}()
		}
		if s.odd {
			return errors.New("org.freedesktop.DBus.Error.LimitsExceeded")
		}
		return nil
	})
	return s.outcome(err)
}

type simPods struct{ *sim }

func (s simPods) Look(context.Context, DrainSettings) (string, string, []string, error) {
	return "", "", []string{"ds/a"}, nil
}

func (s simPods) Drain(ctx context.Context, _ DrainSettings, progress func(DrainView)) error {
	s.mu.Lock()
	s.drains++
	err := s.drainErr
	s.mu.Unlock()
	if err != nil {
		return err
	}
	for {
		s.mu.Lock()
		left, why := s.pods, s.blocked
		s.mu.Unlock()
		if left == 0 {
			return nil
		}
		progress(DrainView{Remaining: left, Reason: why, Message: "some pod"})
		if why == "" {
			if err := s.at("evict", func() error { s.pods--; return nil }); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

func (s simPods) AwaitReady(ctx context.Context, _ []string, missing func([]string)) error {
	s.mu.Lock()
	m := s.missing
	s.mu.Unlock()
	missing(m)
	<-ctx.Done()
	return ctx.Err()
}

type simMarshal struct{ *sim }

func (s simMarshal) Stand(bool) {}
func (s simMarshal) Summon()    {}
func (s simMarshal) Leading() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leading
}

func (s simMarshal) Resign(context.Context) error {
	return s.outcome(s.at("resign", func() error {
		if s.node.Unschedulable {
			s.violated("resigns after the cordon")
		}
		s.leading = false
		return nil
	}))
}

func (s simMarshal) Paused(context.Context, string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.paused, nil
}

// pass lets virtual time go by: a script says when people and hosts do what they do.
func pass(d time.Duration) { <-time.After(d) }

// hours are open until shut, and for ever when that is zero.
type hours struct{ shut time.Time }

func (h hours) Open(t time.Time) (bool, string) {
	return h.shut.IsZero() || t.Before(h.shut), "the night is over"
}
func (h hours) Change(t time.Time) (time.Time, bool) { return h.shut, t.Before(h.shut) }

func everyNode(map[string]string) (string, Settings) { return "workers", testSettings() }
func (s *sim) policy() Policy                        { return Policy{everyNode, s.hours} }

func (s *sim) record() Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.recordLocked()
}
func (s *sim) recordLocked() (r Record) { _ = json.Unmarshal([]byte(s.node.Record), &r); return r }

func (s *sim) state() (n Node, sl Slot, reboots int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node, s.slot, s.reboots
}

func testSettings() Settings {
	return Settings{
		GateInterval: 5 * time.Minute, DrainTimeout: 15 * time.Minute, RebootTimeout: 30 * time.Minute, VerifyTimeout: 15 * time.Minute,
		BackoffInitial: time.Minute, BackoffMax: time.Hour, MaxReboots24h: 2, UnmanagedPods: "block",
	}
}

// live runs agents one after the other, as the kubelet would, until d has passed in virtual time.
func (s *sim) live(d time.Duration, script func()) {
	synctest.Test(s.t, func(t *testing.T) {
		s.t = t
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for ctx.Err() == nil {
				s.life(ctx, t)
				select {
				case <-ctx.Done():
				case <-time.After(2 * time.Second): // the restart of a pod, or of the host
				}
			}
		}()
		if script != nil {
			script()
		}
		<-done
		pass(time.Hour) // whatever was still on its way
	})
}

func (s *sim) agent(t *testing.T) *Agent {
	t.Helper()
	s.metrics = prometheus.NewRegistry()
	a, err := New(Config{
		Node: simNode{s}, Slots: simSlots{s}, Host: simHost{s}, Pods: simPods{s}, Marshal: simMarshal{s},
		Log: slog.New(slog.NewTextHandler(logTo{t}, nil)), Registerer: s.metrics,
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// life is one agent process.
func (s *sim) life(ctx context.Context, t *testing.T) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	s.dead, s.kill = false, cancel
	s.mu.Unlock()
	a := s.agent(t)
	if !s.noPolicy {
		a.SetPolicy(s.policy())
	}
	if err := a.Run(ctx); err != nil {
		t.Error(err)
	}
}

type logTo struct{ t *testing.T }

func (l logTo) Write(b []byte) (int, error) {
	if testing.Verbose() {
		l.t.Logf("%s %s", time.Now().Format("15:04:05.000"), b)
	}
	return len(b), nil
}

// settled fails the test when an invariant was violated, or when anything of Baton's is left behind.
func (s *sim) settled(t *testing.T, wantReboots int) {
	t.Helper()
	n, sl, reboots := s.state()
	for _, b := range s.bad {
		t.Errorf("invariant: %s", b)
	}
	if n.Record != "" || n.Phase != "" || n.Tainted {
		t.Errorf("the node still has record %q, label %q, taint %v", n.Record, n.Phase, n.Tainted)
	}
	if sl.Holder != "" {
		t.Errorf("the slot is still held: %+v", sl)
	}
	if reboots != wantReboots {
		t.Errorf("%d reboots, want %d", reboots, wantReboots)
	}
}
