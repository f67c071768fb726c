package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// world is what the agent knows between two turns.
type world struct {
	instance string
	boot     string
	policy   *Policy

	window      Window // as of windowAsked; zero: to be asked
	windowAsked time.Time

	node      Node
	parsed    parsed // what its record and its history say
	exists    bool
	known     bool      // the slots, and then the Node, were read at least once
	watched   string    // UID of the Node that the watch has shown last
	read      time.Time // when the Node was asked for last by quorum: a write of it is such a question, too
	slots     map[string]Slot
	stale     bool            // read the Node and the slots by quorum before the next decision
	owed      map[string]bool // of which objects the watches have shown less than what is known
	refreshAt time.Time       // the same as stale, at that time, if they still have not

	sentinel      Sentinel
	sentinelKnown bool
	sentinelAgain time.Time // read them again then; zero: when the host tells of a change
	moves         int       // transitions
	news          int       // counts what the watches brought
	due           map[dueKey]time.Time

	gates    Gates
	shutdown Shutdown
	drain    DrainView
	emptied  time.Time // when a drain ended
	evicted  int       // by the drains of this cycle that have ended
	pods     PodsReady
	hooks    HookView
	call     Call
	leaving  bool

	why     string            // what the cycle waits for
	trouble map[string]string // by what was being done: its last error, until something works again
	beat    time.Time         // the loop turned
}

// recheck is how long after an outdated piece of news the truth is read by quorum, unless the watch has caught up by then.
const recheck = 5 * time.Second

// ownNode stands for the Node among what the watches owe; the slots have their names.
const ownNode = ""

// older tells whether resourceVersion a comes before b. Versions that are not numbers are never older.
func older(a, b string) bool {
	x, err := strconv.ParseUint(a, 10, 64)
	if err != nil {
		return false
	}
	y, err := strconv.ParseUint(b, 10, 64)
	return err == nil && x < y
}

// nodeChanged takes what the watch of the Node brings. Something older than what is known, by a write of our own for example, is
// dropped; a Node that is gone never comes back. When nothing newer follows, the truth is read, in case the API server's clock of
// versions was set back.
func (a *Agent) nodeChanged(n Node, exists bool) {
	a.change(func(w *world) {
		w.news++
		if exists {
			w.watched = n.UID
		}
		if exists && w.before(n) || !exists && w.exists && w.watched != w.node.UID { // the end of an earlier one
			w.owe(ownNode)
			return
		}
		w.shown(ownNode)
		first := !w.known
		w.setNode(n, exists)
		if !first {
			return
		}
		if r := w.parse().record; r != nil && r.Slot != "" {
			_, named := w.slots[r.Slot]
			w.stale = w.stale || !named // the label may have been taken off, by which it is found
		}
	})
}

// before tells whether the Node is older than what is known of it. One that is gone never comes back.
func (w *world) before(n Node) bool {
	return w.known && n.UID == w.node.UID && (!w.exists || older(n.ResourceVersion, w.node.ResourceVersion))
}

// answeredNode takes the answer to a request. The watch may have been faster: then the truth is read before the next decision.
func (w *world) answeredNode(n Node) (news bool) {
	if w.before(n) {
		w.stale = true
		return false
	}
	w.setNode(n, true)
	return true
}

// answeredSlot is answeredNode for a slot.
func (w *world) answeredSlot(s Slot) {
	if have, ok := w.slots[s.Name]; ok && older(s.ResourceVersion, have.ResourceVersion) {
		w.stale = true
		return
	}
	w.setSlot(s)
	if s.Holder == "" { // the watch, which was faster perhaps, shows it no more
		w.shown(s.Name)
	}
}

func (w *world) setSlot(s Slot) {
	if w.slots == nil {
		w.slots = map[string]Slot{}
	}
	w.slots[s.Name] = s // also one that is free now: an older state of it may still be on its way
}

func (w *world) setNode(n Node, exists bool) {
	if exists && w.known && n.UID != w.node.UID {
		w.slots, w.stale = nil, true // another Node of the same name: nothing known of the old one's slots is ours
	}
	if !exists {
		n = Node{UID: w.node.UID}
	}
	w.node, w.exists, w.known = n, exists, true
}

func (w *world) owe(what string) {
	if len(w.owed) == 0 {
		w.owed, w.refreshAt = map[string]bool{}, time.Now().Add(recheck)
	}
	w.owed[what] = true
}

// sure tells whether the watches have brought nothing that what is known does not explain.
func (w *world) sure() bool { return !w.stale && len(w.owed) == 0 }

func (w *world) shown(what string) {
	if delete(w.owed, what); len(w.owed) == 0 {
		w.refreshAt = time.Time{}
	}
}

// slotsChanged takes what the watch of the slots that name this node brings.
func (a *Agent) slotsChanged(slots []Slot, heir bool) {
	if heir {
		a.Marshal.Summon()
	}
	a.change(func(w *world) {
		w.news++
		next := make(map[string]Slot, len(slots))
		for _, s := range slots {
			if have, ok := w.slots[s.Name]; ok && older(s.ResourceVersion, have.ResourceVersion) {
				w.owe(s.Name)
				s = have
			} else {
				w.shown(s.Name)
			}
			next[s.Name] = s
		}
		for name, have := range w.slots {
			if _, ok := next[name]; ok {
				continue
			}
			next[name] = have // an older state of it may still be on its way, and must be known as old
			if have.Holder != "" {
				w.owe(name)
			} else {
				w.shown(name)
			}
		}
		w.slots = next
	})
}

// readSentinel asks the host for its sentinels. One at a time: of two answers the older one must not be stored last, as the host
// tells of a change only once.
func (a *Agent) readSentinel(ctx context.Context) {
	a.reading.Lock()
	defer a.reading.Unlock()
	s, err := a.Host.Sentinel(ctx)
	if err != nil {
		if ctx.Err() == nil {
			a.failed(readingSentinels, err)
		}
		a.change(func(w *world) { w.sentinelKnown, w.sentinelAgain = false, time.Now().Add(retryLast) })
		return
	}
	a.change(func(w *world) {
		w.sentinel, w.sentinelKnown, w.sentinelAgain = s, true, time.Time{}
		delete(w.trouble, readingSentinels)
	})
}

const readingSentinels = "reading the sentinels"

// refresh reads slots and Node by quorum, in this order, when what is known may not be true. A slot that was read
// before the Node is never newer than what the Node says about it. At the start the watches do that in the same order: what they
// bring first is read by quorum, too.
func (a *Agent) refresh(ctx context.Context) error {
	a.mu.Lock()
	w := &a.world
	due := w.stale || !w.refreshAt.IsZero() && !time.Now().Before(w.refreshAt)
	if due {
		w.stale, w.owed, w.refreshAt = true, nil, time.Time{}
	}
	news := w.news
	sentinelsDue := !w.sentinelAgain.IsZero() && !time.Now().Before(w.sentinelAgain)
	a.mu.Unlock()
	if sentinelsDue {
		a.readSentinel(ctx)
	}
	if !due {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	asked := time.Now()
	slots, n, err := a.read(ctx)
	if err != nil && !errors.Is(err, ErrGone) {
		return err
	}
	exists := err == nil
	a.slotsKnown()
	a.update(func(w *world) {
		outdated := w.news != news && !w.agrees(n, exists, slots) // perhaps: the watches have brought something else meanwhile
		w.setNode(n, exists)
		w.read = asked
		for name, have := range w.slots {
			w.slots[name] = Slot{Name: name, ResourceVersion: have.ResourceVersion} // known as old, if it is not named now
		}
		for _, s := range slots {
			w.setSlot(s)
		}
		w.stale = outdated
	})
	return nil
}

// read returns the slots that name this node, and the Node; ErrGone when there is none. When the slot of its record is not among
// them it is read by its name: the label may have been taken off, by which the others are found.
func (a *Agent) read(ctx context.Context) (slots []Slot, n Node, err error) {
	slots, err = a.Slots.Named(ctx)
	if err != nil {
		return nil, Node{}, err
	}
	n, err = a.Node.Get(ctx)
	if err != nil {
		return slots, n, err
	}
	r, _ := parseRecord(n.Record)
	if r == nil || r.Slot == "" || slices.ContainsFunc(slots, func(s Slot) bool { return s.Name == r.Slot }) {
		return slots, n, nil
	}
	switch s, err := a.Slots.Get(ctx, r.Slot); {
	case errors.Is(err, ErrGone) || err == nil && s.Holder != n.Name:
		return slots, n, nil
	case err != nil:
		return nil, Node{}, fmt.Errorf("reading the slot of the record: %w", err)
	default:
		slots = append(slots, s)
	}
	n, err = a.Node.Get(ctx) // after its slot
	return slots, n, err
}

// agrees tells whether what the watches have brought is what was read.
func (w *world) agrees(n Node, exists bool, slots []Slot) bool {
	if w.exists != exists || w.node.UID != n.UID || w.node.ResourceVersion != n.ResourceVersion {
		return false
	}
	for _, have := range w.slots {
		names := have.Holder != "" || have.Nominee != ""
		if names && !slices.ContainsFunc(slots, func(s Slot) bool { return s.Name == have.Name && s.ResourceVersion == have.ResourceVersion }) {
			return false
		}
	}
	return true
}

// observe makes the observation of this moment.
func (a *Agent) observe() Observation {
	a.mu.Lock()
	defer a.mu.Unlock()
	w := &a.world
	now := time.Now()
	w.beat = now
	o := Observation{
		Now: now, Instance: w.instance, FreshID: rand.Text(), Boot: w.boot, Node: w.node, Exists: w.known && w.exists,
		Sentinel: w.sentinel, SentinelKnown: w.sentinelKnown,
		Gates: w.gates, Shutdown: w.shutdown, Drain: w.drain, Emptied: w.emptied, Pods: w.pods, Hooks: w.hooks, Call: w.call,
		Leading: a.Marshal.Leading(), Leaving: w.leaving, Window: Window{Open: true},
	}
	o.Hooks.None = a.Hooks == nil
	p := w.parse()
	o.Record, o.RecordErr, o.History = p.record, p.err, p.history
	o.Due = w.dueOf(o.Record, now)
	for _, s := range w.slots {
		o.Slots = append(o.Slots, s)
	}
	slices.SortFunc(o.Slots, func(a, b Slot) int { return strings.Compare(a.Name, b.Name) })
	if a.Clock != nil {
		o.Skew = a.Clock.Skew()
	}
	if p := w.policy; p != nil {
		group, s := p.Of(w.node.Labels)
		o.Settings, o.Group = &s, group
		if o.Record != nil {
			o.Rules = p.Rules(o.Record.Group)
			o.GroupGone = o.Rules == ""
		}
		o.Window = w.windowAt(now)
	}
	return o
}

// parsed is the record and the history of a Node, read once. Nobody changes it.
type parsed struct {
	texts   [2]string
	record  *Record
	err     error
	history History
}

func (w *world) parse() parsed {
	if texts := [2]string{w.node.Record, w.node.History}; texts != w.parsed.texts {
		w.parsed = parsed{texts: texts, history: parseHistory(w.node.History)}
		w.parsed.record, w.parsed.err = parseRecord(w.node.Record)
	}
	return w.parsed
}

// dueKey is one stored time.
type dueKey struct {
	what   string
	stored int64
}

// dueOf turns the record's stored times into this process's own. What was seen before keeps the time it was given then.
func (w *world) dueOf(r *Record, now time.Time) Due {
	if r == nil {
		w.due = nil
		return Due{}
	}
	seen := map[dueKey]time.Time{}
	local := func(what string, stored time.Time, longest time.Duration) time.Time {
		if stored.IsZero() {
			return time.Time{}
		}
		k := dueKey{what, stored.UnixMilli()}
		t, ok := w.due[k]
		if !ok {
			t = now.Add(max(0, min(stored.Sub(now), longest)))
		}
		seen[k] = t
		return t
	}
	s, d := r.Settings, Due{}
	longest := s.DrainTimeout
	if r.Phase == Verifying {
		longest = s.VerifyTimeout
	}
	d.Deadline = local("deadline", r.Deadline, longest)
	d.Until = local("until", r.Until, s.BackoffMax)
	d.Slow = local("slow", r.Since.Add(s.RebootTimeout), s.RebootTimeout)
	if !r.Healthy.IsZero() {
		d.Soaked = local("soaked", r.Healthy.Add(s.Soak), s.Soak)
	}
	w.due = seen
	return d
}

// windowAge is how long an answer of the schedule is used at most: it is cheap, but not free.
const windowAge = time.Minute

func (w *world) windowAt(now time.Time) Window {
	over := !w.window.Next.IsZero() && !now.Before(w.window.Next)
	if age := now.Sub(w.windowAsked); over || age < 0 || age >= windowAge {
		w.windowAsked = now
		w.window.Open, w.window.Why = w.policy.Schedule.Open(now)
		w.window.Next = time.Time{}
		if next, ok := w.policy.Schedule.Change(now); ok && next.After(now) {
			w.window.Next = next
		}
	}
	return w.window
}

// troubles are the errors of now, in one line.
func (w *world) troubles() string {
	var all []string
	for doing, text := range w.trouble {
		all = append(all, doing+": "+text)
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

// Status is what the agent says about itself.
type Status struct {
	Phase   Phase
	Why     string // what the cycle waits for
	Trouble string // the errors of what has not worked yet, one after another; "" for none
	Ready   bool
	NotYet  []string // why it is not ready
	Moves   int      // transitions since the start
}

// Status returns how things stand.
func (a *Agent) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	w := &a.world
	s := Status{Phase: Idle, Why: w.why, Trouble: w.troubles(), Moves: w.moves}
	if p := w.parse(); p.err != nil {
		s.NotYet = append(s.NotYet, p.err.Error())
	} else if p.record != nil {
		s.Phase = p.record.Phase
	}
	if w.boot == "" {
		s.NotYet = append(s.NotYet, "not the agent of this host yet: "+w.troubles())
	}
	if w.policy == nil {
		s.NotYet = append(s.NotYet, "there is no valid configuration")
	}
	if !w.known {
		s.NotYet = append(s.NotYet, "the Node has not been read yet")
	}
	if !w.sentinelKnown {
		s.NotYet = append(s.NotYet, "the sentinels cannot be read")
	}
	s.Ready = len(s.NotYet) == 0
	return s
}

// hung is the longest time between two beats of the loop of a healthy process: every call is bounded by callTimeout.
const hung = 2 * time.Minute

// Alive returns an error when the loop hangs. An API server that is away is no such thing.
func (a *Agent) Alive() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if d := time.Since(a.world.beat); d > hung {
		return fmt.Errorf("the loop has not turned for %s", d.Round(time.Second))
	}
	return nil
}
