package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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
	keeps   bool      // the sentinel is there again after a reboot
	pending bool      // the host is going down
	stuck   bool      // the host accepts a reboot and does not go
	planned time.Time // people have planned a reboot of the host since then; zero for none
	ended   time.Time // the last cycle

	refuse     error         // what the host answers to a reboot
	calm       error         // the host cannot be asked for a shutdown
	goesAfter  time.Duration // from the accepted call to the new boot
	pods       int           // that are still to be evicted
	blocked    string        // reason for which no pod goes
	inhibitor  []string
	paused     string
	leading    bool
	missing    []string // pods not Ready after the reboot
	noMarshal  bool
	hours      hours
	metrics    *prometheus.Registry // of the last agent
	rules      int                  // of drains that the configuration has had
	renamed    bool                 // the configuration has another group for this node, and not the one of before
	noPolicy   bool                 // the next agent starts without a configuration
	drainErr   error                // of every drain
	drains     int                  // that were begun
	warnings   []string             // of a preflight
	looks      int                  // at the pods, ahead of a drain
	preflight  int                  // looks that went further
	hung       bool                 // the bus takes calls and answers none
	slowGates  time.Duration        // inhibitors take so long to be listed
	mute       error                // the other rebooters cannot be asked
	noSlots    error                // the slots that name this node cannot be listed
	unlabelled bool                 // a person took off the label by which the slot's node finds it
	slowList   time.Duration        // a quorum read of the slots takes so long after it has read
	skew       atomic.Int64         // own clock minus the API server's
	odd        bool                 // the host answers with an error that says nothing, and goes down all the same

	declined   string // the bid that declined an offer
	declinedAt time.Time

	hooks  map[string][]*simHook // of the host, by stage
	units  map[string]*simUnit   // of this boot
	hooked []string              // hooks that were started

	keepsUnits bool // no hook can be cleared away

	uids     int           // Nodes that were registered under this name
	theirs   bool          // the cordon that is on the node is a person's
	settings Settings      // of the configuration in force
	away     bool          // the API server does not answer
	slow     time.Duration // every request to the API server takes so long
	removed  bool          // Baton is being removed

	ctx    context.Context // of the world
	lives  []*life         // agents that are not dead
	locked *life           // has the host's lock

	reboots   int
	effects   int
	asked     int               // reboots that the host was asked for
	gap       bool              // something happens between the last look and the call to the host, which nothing can close
	lastCheck func(what string) // runs in the last check: when the Node is read in Rebooting, and when the gates are asked
	braked    func()            // runs when the pause is read
	log       []string
	events    []string // reason, first word, whether it warns
	landed    []string // late writes that took hold
	fault     func(n int, what string) fault
	after     func(what string)    // runs after each effect
	lag       func() time.Duration // of what the watch of the slots tells, in order; nil: none
	bad       []string
}

var (
	errCut     = errors.New("power cut")
	errRefused = errors.New("too many requests")
	errMute    = errors.New("the bus does not answer")
	errLocked  = errors.New("another agent acts on this host")
)

func newSim(t *testing.T) *sim {
	s := &sim{t: t, boot: 1, pods: 3, goesAfter: 20 * time.Second, settings: testSettings(), units: map[string]*simUnit{}}
	s.register()
	s.slot = Slot{Name: "slot-workers-0", Group: "workers", ResourceVersion: s.next()}
	return s
}

// register is what the kubelet does when there is no Node of its name.
func (s *sim) register() {
	s.uids++
	s.node = Node{
		Name: "n1", UID: "uid-" + strconv.Itoa(s.uids), BootID: s.bootID(), Ready: true, ResourceVersion: s.next(),
		Allocatable: map[string]int64{"nvidia.com/gpu": 2},
	}
	s.exists, s.theirs = true, false
}

// setCordon is `kubectl cordon` and `kubectl uncordon`. A cordon over Baton's own leaves no trace.
func (s *sim) setCordon(on bool) {
	if s.node.Unschedulable == on {
		return
	}
	s.node.Unschedulable, s.theirs = on, on
	s.touch()
}

// setHold is `kubectl annotate`; "" removes it.
func (s *sim) setHold(why string) {
	s.node.Hold = why
	s.touch()
}

// touch makes a new version of the Node, which the watches tell of.
func (s *sim) touch() {
	s.node.ResourceVersion = s.next()
	s.toldNode()
}

// deletedGrace is how long the marshal of this world waits before it frees the slot of a Node that is gone.
const deletedGrace = 30 * time.Second

// deleteNode is `kubectl delete node`. The kubelet registers again when it starts again.
func (s *sim) deleteNode() {
	s.exists = false
	s.toldNode()
	uid := s.node.UID
	go func() {
		for {
			pass(deletedGrace)
			s.mu.Lock()
			over := s.slot.HolderUID != uid
			back := s.exists && (s.node.BootID == s.slot.BootID || s.node.UID == uid)
			if !over && !back {
				s.slot = Slot{Name: s.slot.Name, Group: s.slot.Group, ResourceVersion: s.next()}
				s.told()
				s.nominate()
				over = true
			}
			s.mu.Unlock()
			if over || back {
				return
			}
		}
	}()
}

func (s *sim) violated(format string, a ...any) { s.bad = append(s.bad, fmt.Sprintf(format, a...)) }

func (s *sim) next() string { s.rv++; return strconv.Itoa(s.rv) }

func (s *sim) bootID() string { return "boot-" + strconv.Itoa(s.boot) }

// told runs the watches of the slots, in order; the callers hold s.mu.
func (s *sim) told() {
	for _, l := range s.lives {
		if l.slotNews != nil {
			l.slotNews()
		}
	}
}

// toldNode runs the watches of the Node, toldHost those of the host; the callers hold s.mu, the callbacks do not need it.
func (s *sim) toldNode() {
	for _, l := range s.lives {
		if l.nodeNews != nil {
			go l.nodeNews()
		}
	}
}

func (s *sim) toldHost() {
	for _, l := range s.lives {
		if l.hostNews != nil {
			go l.hostNews()
		}
	}
}

// life is one agent process and what it has to do with the world.
type life struct {
	*sim
	agent    *Agent
	kill     context.CancelFunc
	dead     bool   // nothing of it may reach the world any more
	nodeNews func() // its watches, once it has them
	slotNews func()
	hostNews func()
}

// goAway is an API server that does not answer for a while, and whose watches then resume.
func (s *sim) goAway(d time.Duration) {
	s.away = true
	go func() {
		pass(d)
		s.with(func() {
			s.away = false
			s.told()
			s.toldNode()
		})
	}()
}

// request is a way to the API server. The callers do not hold s.mu.
func (l *life) request(ctx context.Context) error {
	l.mu.Lock()
	slow := l.slow
	l.mu.Unlock()
	if slow > 0 {
		select {
		case <-ctx.Done():
			return ErrUnknown
		case <-time.After(slow):
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead || l.away {
		return ErrUnknown
	}
	return nil
}

// fault is what happens to one effect. The zero value: nothing, it takes hold and is answered.
type fault struct {
	dropped bool          // it does not take hold
	late    time.Duration // it takes hold so much later
	lost    bool          // its answer does not arrive; so does that of one that is dropped or late
	cut     bool          // the agent dies with it
	refused bool          // it is answered with a plain no
}

// restless is how many effects no world needs.
const restless = 50_000

// at is passed by every effect.
func (l *life) at(what string, f func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return errCut
	}
	l.effects++
	if l.effects >= restless {
		if l.effects == restless {
			l.violated("the agent does not come to rest: it has done %d things, the last ones %s", restless, strings.Join(l.log[restless-5:], ", "))
		}
		l.end()
		return errCut
	}
	l.log = append(l.log, what)
	var how fault
	if l.fault != nil {
		how = l.fault(l.effects, what)
	}
	var err error
	switch {
	case how.dropped:
	case how.refused:
		err = errRefused
	case how.late > 0:
		go func() {
			pass(how.late)
			l.mu.Lock()
			defer l.mu.Unlock()
			if f() == nil {
				l.landed = append(l.landed, what)
			}
		}()
	default:
		err = f()
	}
	l.gap = false
	if l.after != nil {
		l.after(what)
	}
	if how.cut {
		l.end()
	}
	if how != (fault{}) && !how.refused {
		return errCut
	}
	return err
}

// end ends an agent at once.
func (l *life) end() {
	l.dead = true
	l.lives = slices.DeleteFunc(l.lives, func(o *life) bool { return o == l })
	if l.locked == l {
		l.locked = nil
	}
	l.kill()
}

// cut ends every agent at once.
func (s *sim) cut() {
	for _, l := range slices.Clone(s.lives) {
		l.end()
	}
}

func (s *sim) person(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.touch()
}

func (s *sim) raise(fp string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wants(fp)
}

// wants is raise for those who hold s.mu; "" takes the wish back.
func (s *sim) wants(fp string) {
	s.sent = Sentinel{}
	if fp != "" {
		s.sent = Sentinel{Source: "/run/reboot-required", Reason: "linux-image", Fingerprint: fp}
	}
	s.toldHost()
}

// reboot is the power coming back: a new boot ID, and the kubelet reports it a little later.
// goingDown tells whether the host is on its way down for all who look at it: of what people plan in the moment of a last look
// nobody can know, nor of what a host is about that cannot be asked.
func (s *sim) goingDown(looked time.Time) bool {
	return s.pending && !s.stuck || s.calm == nil && !s.planned.IsZero() && s.planned.Before(looked.Add(-lastCheckAge))
}

// plan is a person's `shutdown -r`. The caller holds s.mu.
func (s *sim) plan(in time.Duration) {
	s.planned = time.Now()
	go func() {
		pass(in)
		var still bool
		s.with(func() { still = !s.planned.IsZero() })
		if still {
			s.rebootNow()
		}
	}()
}

func (s *sim) rebootNow() {
	s.mu.Lock()
	s.boot++
	s.reboots++
	s.pending, s.planned = false, time.Time{}
	s.units = map[string]*simUnit{}
	if !s.keeps {
		s.sent = Sentinel{}
	}
	s.cut()
	s.mu.Unlock()
	go func() {
		pass(3 * time.Second)
		s.person(func() {
			if !s.exists {
				s.register()
			}
			s.node.BootID, s.node.Ready = s.bootID(), true
		})
	}()
}

// The seams.

type simNode struct{ *life }

func (s simNode) Get(ctx context.Context) (Node, error) {
	if err := s.request(ctx); err != nil {
		return Node{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.exists {
		return Node{}, ErrGone
	}
	s.checks("node")
	return s.node, nil
}

func (s simNode) Patch(ctx context.Context, from Node, c NodeChange) (Node, error) {
	if err := s.request(ctx); err != nil {
		return Node{}, err
	}
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
			if old.Cordon != CordonBaton || s.theirs {
				s.violated("uncordon of a cordon that is not Baton's (%s)", old.Cordon)
			}
			if s.goingDown(time.Now()) {
				s.violated("uncordon while the host goes down")
			}
		}
		if c.Unschedulable != nil && *c.Unschedulable && !*c.Shield {
			s.violated("cordon without a shield against other controllers")
		}
		if c.Unschedulable != nil && *c.Unschedulable && s.slot.Holder != s.node.Name {
			s.violated("cordon without the slot")
		}
		if c.Unschedulable != nil && *c.Unschedulable && (rec.Phase != Draining || rec.Cordon != CordonBaton) {
			s.violated("cordon without saying so in the record")
		}
		s.checkHome(old, rec)
		if c.History != nil {
			was, is := parseHistory(s.node.History), parseHistory(*c.History)
			news := len(is.Cycles) > 0 && (len(was.Cycles) == 0 || was.Cycles[len(was.Cycles)-1] != is.Cycles[len(is.Cycles)-1])
			if news && is.Cycles[len(is.Cycles)-1].Rebooted && old.BootID == s.bootID() {
				s.violated("a reboot is called done on the boot on which it was asked for")
			}
		}
		if old.Cordon == CordonBaton && rec.Cordon == CordonNone && c.Unschedulable == nil && s.node.Unschedulable && s.node.Hold != "" {
			s.theirs = true // the hold asks for it: the cordon is handed over
		}
		n := &s.node
		set := func(to, from *string) {
			if from != nil {
				*to = *from
			}
		}
		if old.Phase != "" && rec.Phase == "" {
			s.ended = time.Now()
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
		if c.Shield != nil {
			n.Shields = map[bool]string{true: "karpenter.sh/do-not-disrupt"}[*c.Shield]
			if *c.Shield && c.Exclude {
				n.Shields += ",exclude"
			}
		}
		n.ResourceVersion = s.next()
		out = *n
		s.toldNode()
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
		n, ok, away := s.node, s.exists, s.away
		s.mu.Unlock()
		if ctx.Err() == nil && !away {
			f(n, ok)
		}
	}
	s.mu.Lock()
	s.nodeNews = cb
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

// checks is passed by what the last check asks. The caller holds the lock.
func (s *sim) checks(what string) {
	if s.lastCheck != nil && s.node.Phase == "rebooting" {
		s.lastCheck(what)
	}
}

type simSlots struct{ *life }

// nominate is a marshal that offers the slot to every bid.
func (s *sim) nominate() {
	if s.noMarshal || !s.exists || s.slot.Holder != "" || s.slot.Hold != "" {
		return
	}
	var r Record
	if json.Unmarshal([]byte(s.node.Record), &r) != nil || !r.Bids || s.paused != "" {
		return
	}
	if s.declined == bidOf(r.Cycle, r.Attempt) && time.Since(s.declinedAt) < declinedPause {
		return
	}
	s.slot.Nominee, s.slot.BidCycle, s.slot.BidAttempt = s.node.UID, r.Cycle, r.Attempt
	s.slot.BidUntil = time.Now().Add(nominationTimeout)
	s.slot.ResourceVersion = s.next()
	s.told()
	offered := s.slot.ResourceVersion
	go func() {
		pass(nominationTimeout)
		s.with(func() {
			if s.slot.ResourceVersion == offered && s.ctx.Err() == nil {
				s.nominate() // nobody took it
			}
		})
	}()
}

func bidOf(cycle string, attempt int) string { return fmt.Sprint(cycle, "/", attempt) }

// declinedPause is for how long this world's marshal passes over a bid that declined its offer.
const declinedPause = 10 * time.Second

// nominationTimeout is how long an offer of this world's marshal stands.
const nominationTimeout = 30 * time.Second

func (s simSlots) Get(ctx context.Context, _ string) (Slot, error) {
	if err := s.request(ctx); err != nil {
		return Slot{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slot, nil
}

func (s simSlots) Named(ctx context.Context) ([]Slot, error) {
	if err := s.request(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	l, err := s.named(), s.noSlots
	s.mu.Unlock()
	if s.slowList > 0 {
		pass(s.slowList)
	}
	return l, err
}

// named are the slots whose label names this node. The caller holds the lock.
func (s simSlots) named() []Slot {
	if !s.unlabelled && (s.slot.Holder == s.node.Name || s.slot.Holder == "" && s.slot.Nominee != "") {
		return []Slot{s.slot}
	}
	return nil
}

func (s simSlots) write(ctx context.Context, what string, from Slot, f func(*Slot) error) (Slot, error) {
	if err := s.request(ctx); err != nil {
		return Slot{}, err
	}
	var out Slot
	err := s.at(what, func() error {
		if from.ResourceVersion != s.slot.ResourceVersion {
			return ErrConflict
		}
		if err := f(&s.slot); err != nil {
			return err
		}
		s.slot.ResourceVersion, s.unlabelled = s.next(), false
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
	to.Renewed = time.Now().Add(-s.Skew())
}

func (s simSlots) Take(ctx context.Context, from Slot, uid string, c Claim) (Slot, error) {
	return s.write(ctx, "take", from, func(to *Slot) error {
		if to.Holder != "" || to.Nominee != uid {
			return errors.New("not nominated")
		}
		to.Holder, to.HolderUID = s.node.Name, uid
		s.claim(to, c)
		return nil
	})
}

func (s simSlots) Renew(ctx context.Context, from Slot, c Claim) (Slot, error) {
	return s.write(ctx, "renew", from, func(to *Slot) error { s.claim(to, c); return nil })
}

func (s simSlots) Free(ctx context.Context, from Slot) (Slot, error) {
	return s.write(ctx, "free", from, func(to *Slot) error {
		var r Record
		_ = json.Unmarshal([]byte(s.node.Record), &r)
		looked := time.Now()
		if r.Phase == "" {
			looked = s.ended
		}
		if s.goingDown(looked) {
			s.violated("slot freed while the host goes down")
		}
		if r.Cordon == CordonBaton && s.node.Unschedulable {
			s.violated("slot freed while the node is cordoned by Baton")
		}
		*to = Slot{Name: to.Name, Group: to.Group, Hold: to.Hold}
		return nil
	})
}

func (s simSlots) Decline(ctx context.Context, from Slot) (Slot, error) {
	return s.write(ctx, "decline", from, func(to *Slot) error {
		s.declined, s.declinedAt = bidOf(to.BidCycle, to.BidAttempt), time.Now()
		go func() {
			pass(declinedPause)
			s.with(func() {
				if s.ctx.Err() == nil {
					s.nominate()
				}
			})
		}()
		to.Nominee, to.BidCycle = "", ""
		return nil
	})
}

func (s simSlots) Watch(ctx context.Context, f func([]Slot, bool)) error {
	news := make(chan []Slot, 1000)
	cb := func() {
		if !s.away {
			news <- s.named()
		}
	}
	s.mu.Lock()
	s.slotNews = cb
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

type simHost struct{ *life }

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
	s.hostNews = func() {
		if ctx.Err() == nil {
			f()
		}
	}
	s.mu.Unlock()
	f()
	<-ctx.Done()
	return ctx.Err()
}

// answers waits for the bus, which may be hung.
func (s simHost) answers(ctx context.Context) error {
	hung := false
	s.with(func() { hung = s.hung })
	if !hung {
		return nil
	}
	select {
	case <-time.After(5 * time.Second): // the host's own patience with a call
		return errors.New("the bus does not answer")
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s simHost) Shutdown(ctx context.Context) (string, error) {
	if err := s.answers(ctx); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calm != nil {
		return "", s.calm
	}
	if s.pending && !s.stuck || !s.planned.IsZero() {
		return "reboot.target is queued", nil
	}
	return "", nil
}

func (s simHost) Inhibitors(ctx context.Context) ([]string, error) {
	var slow time.Duration
	s.with(func() { slow = s.slowGates })
	pass(slow)
	s.with(func() { s.checks("gates") })
	if err := s.answers(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inhibitor, nil
}

func (s simHost) OtherRebooters(ctx context.Context) ([]string, error) {
	if err := s.answers(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return nil, s.mute
}

// Lock is flock: the kernel gives it back when its holder dies.
func (s simHost) Lock() (func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locked != nil && s.locked != s.life {
		return nil, errLocked
	}
	s.locked = s.life
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.locked == s.life {
			s.locked = nil
		}
	}, nil
}

func (s simHost) Reboot(context.Context) error {
	err := s.at("reboot", func() error {
		s.asked++
		var r Record
		_ = json.Unmarshal([]byte(s.node.Record), &r)
		switch {
		case s.gap && !s.exists, s.gap && s.slot.HolderUID != s.node.UID:
		case !s.exists || s.slot.Holder != s.node.Name || s.slot.HolderUID != s.node.UID:
			s.violated("reboot without the slot")
		case !s.node.Unschedulable && !s.gap:
			s.violated("reboot without a cordon")
		case r.Phase != Rebooting || r.BootID != s.bootID():
			s.violated("reboot before it was stored")
		case s.pods > 0:
			s.violated("reboot with %d pods on the node", s.pods)
		case s.node.Hold != "" && !s.gap:
			s.violated("reboot of a node on hold")
		default:
			s.needHooks(r, PreDrain, "reboot")
			s.needHooks(r, PreReboot, "reboot")
		}
		if s.refuse != nil {
			return s.refuse
		}
		s.pending = true
		if boot, after := s.boot, s.goesAfter; !s.stuck {
			go func() {
				pass(after)
				same := false
				s.with(func() { same = s.boot == boot })
				if same {
					s.rebootNow()
				}
			}()
		}
		if s.odd {
			return errors.New("org.freedesktop.DBus.Error.LimitsExceeded")
		}
		return nil
	})
	return s.outcome(err)
}

type simPods struct{ *life }

func (s simPods) Look(ctx context.Context, _ DrainSettings, preflight bool) (Outlook, error) {
	if err := s.request(ctx); err != nil {
		return Outlook{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Outlook{Ready: []string{"ds/a"}}
	s.looks++
	if preflight {
		s.preflight++
		out.Warnings = s.warnings
	}
	return out, nil
}

func (s simPods) Drain(ctx context.Context, _ DrainSettings, progress func(DrainView)) error {
	s.mu.Lock()
	s.drains++
	err := s.drainErr
	s.mu.Unlock()
	if err != nil {
		return err
	}
	for evicted := 0; ; {
		s.mu.Lock()
		left, why := s.pods, s.blocked
		s.mu.Unlock()
		if left == 0 {
			progress(DrainView{Empty: true, Evicted: evicted})
			return nil
		}
		progress(DrainView{Evicted: evicted, Remaining: left, Reason: why, Message: "some pod"})
		if err := s.request(ctx); err != nil {
			return err
		}
		if why == "" {
			if err := s.at("evict", func() error {
				s.needHooks(s.recordLocked(), PreDrain, "eviction")
				s.pods--
				return nil
			}); err != nil {
				return err
			}
			evicted++
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

func (s simPods) AwaitReady(ctx context.Context, _ []string, missing func([]string)) error {
	var told []string
	for first := true; ctx.Err() == nil; first = false {
		var m []string
		s.with(func() { m = s.missing })
		if first || !slices.Equal(m, told) {
			told = m
			missing(m)
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Second):
		}
	}
	return ctx.Err()
}

type simHome struct{ *life }

func (s simHome) Removed(ctx context.Context) (bool, error) {
	if err := s.request(ctx); err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.removed, nil
}

type simMarshal struct{ *life }

func (s simMarshal) Stand(bool) {}
func (s simMarshal) Summon()    {}
func (s simMarshal) Leading() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leading
}

func (s simMarshal) Resign(context.Context) error {
	return s.outcome(s.at("resign", func() error {
		if s.recordLocked().Phase == Draining {
			s.violated("resigns after the cordon")
		}
		s.leading = false
		return nil
	}))
}

func (s simMarshal) Paused(ctx context.Context, _ string) (string, error) {
	if err := s.request(ctx); err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pauseRead(), nil
}

func (s *sim) pauseRead() string {
	if s.braked != nil {
		s.braked()
	}
	return s.paused
}

func (s simSlots) Check(ctx context.Context, name string) (Slot, string, error) {
	sl, err := s.Get(ctx, name)
	s.mu.Lock()
	defer s.mu.Unlock()
	return sl, s.pauseRead(), err
}

// pass lets virtual time go by: a script says when people and hosts do what they do.
// Skew is the clock's.
func (s *sim) Skew() time.Duration { return time.Duration(s.skew.Load()) }

func pass(d time.Duration) { <-time.After(d) }

// hours are open until shut, and for ever when that is zero.
type hours struct{ shut time.Time }

func (h hours) Open(t time.Time) (bool, string) {
	return h.shut.IsZero() || t.Before(h.shut), "the night is over"
}
func (h hours) Change(t time.Time) (time.Time, bool) { return h.shut, t.Before(h.shut) }

// policy is the configuration in force.
func (s *sim) policy() Policy {
	s.mu.Lock()
	defer s.mu.Unlock()
	settings, group, rules := s.settings, "workers", fmt.Sprint("rules ", s.rules)
	if s.renamed {
		group = "pool"
	}
	return Policy{
		Of: func(map[string]string) (string, Settings) { return group, settings },
		Rules: func(name string) string {
			if name != group {
				return ""
			}
			return rules
		},
		Schedule: s.hours,
	}
}

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
		BackoffInitial: time.Minute, BackoffMax: time.Hour, MaxReboots24h: 2, PendingTaint: true,
	}
}

// live runs agents one after the other, as the kubelet would, until d has passed in virtual time.
func (s *sim) live(d time.Duration, script func()) {
	s.liveUntil(d, script, func() bool { return false })
}

// second starts another agent of the same host beside the one that lives.
func (s *sim) second() { go s.life(s.ctx) }

// configure puts the configuration in force in every agent.
func (s *sim) configure() {
	for _, l := range s.lives {
		go func() { l.agent.SetPolicy(s.policy()) }()
	}
}

// await lets time pass until ok, at most d.
func await(d time.Duration, ok func() bool) {
	for end := time.Now().Add(d); time.Now().Before(end) && !ok(); {
		pass(10 * time.Second)
	}
}

// calmDown ends every trouble.
func (s *sim) calmDown() {
	if s.stuck {
		s.stuck, s.pending = false, false
	}
	s.refuse, s.calm, s.slow, s.hours, s.noPolicy = nil, nil, 0, hours{}, false
	s.goesAfter, s.missing = time.Second, nil
	if s.slot.Hold != "" {
		s.slot.Hold, s.slot.ResourceVersion = "", s.next()
		s.told()
		s.nominate()
	}
	if !s.exists {
		s.register()
	}
	s.setHold("")
	s.configure()
}

// quiet tells whether nothing is left to do.
func (s *sim) quiet() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.exists || s.pending || !s.planned.IsZero() || s.slot.Holder != "":
		return false
	case s.node.Record == "":
		return s.sent.Source == ""
	}
	return s.recordLocked().Survived == s.sent.Fingerprint
}

// liveUntil is live until over has been true for a while after the script, and for d at most.
func (s *sim) liveUntil(d time.Duration, script func(), over func() bool) {
	synctest.Test(s.t, func(t *testing.T) {
		was := s.t
		s.t = t
		defer func() { s.t = was }()
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		s.ctx = ctx
		done := make(chan struct{})
		go func() {
			defer close(done)
			for ctx.Err() == nil {
				s.life(ctx)
				select {
				case <-ctx.Done():
				case <-time.After(2 * time.Second): // the restart of a pod, or of the host
				}
			}
		}()
		if script != nil {
			script()
		}
		for still := 0; ctx.Err() == nil && still < 4; still++ {
			pass(20 * time.Second)
			if !over() {
				still = -1
			}
		}
		cancel()
		<-done
		pass(time.Hour) // whatever was still on its way
	})
}

// life is one agent process, which ends with ctx or when it is killed.
func (s *sim) life(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := s.agent(cancel)
	broken := false
	s.with(func() { broken = s.noPolicy })
	if !broken {
		l.agent.SetPolicy(s.policy())
	}
	if err := l.agent.Run(ctx); err != nil {
		s.t.Error(err)
	}
	s.with(func() { l.end() })
}

// agent makes an agent that does not run yet.
func (s *sim) agent(kill context.CancelFunc) *life {
	s.t.Helper()
	l := &life{sim: s, kill: kill}
	reg := prometheus.NewRegistry()
	a, err := New(Config{
		Node: simNode{l}, Slots: simSlots{l}, Host: simHost{l}, Pods: simPods{l}, Hooks: simHooks{l}, Marshal: simMarshal{l}, Home: simHome{l}, Clock: s,
		Log: slog.New(slog.NewTextHandler(logTo{s.t}, nil)), Registerer: reg,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	l.agent = a
	s.with(func() { s.lives, s.metrics = append(s.lives, l), reg })
	return l
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
	if n.Shields != "" {
		t.Errorf("other controllers are still kept from the node by %s", n.Shields)
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
