package search

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"kubebaton.io/baton/agent"
)

// group is the one group; everything is in it.
const group = "g"

func settings() agent.Settings {
	return agent.Settings{
		GateInterval: time.Minute, DrainTimeout: time.Hour, RebootTimeout: time.Hour, VerifyTimeout: time.Hour,
		BackoffInitial: time.Minute, BackoffMax: time.Hour, MaxReboots24h: 2,
	}
}

// sight is everything that Step is told, in short.
type sight struct {
	node     node
	slots    [maxSlots]slot // without versions
	n        uint8
	instance uint8
	boot     uint8
	sentinel uint8
	fresh    uint8 // the number of a new cycle
	call     answer
	coming   bool // the host says that it is going down
	mute     bool // the host cannot be asked
	late     bool // every deadline has passed
	leaving  bool // Baton is being removed
	paused   bool
}

// decision is what Step wants, in short.
type decision struct {
	kind   effect
	k      uint8
	begins bool // it uses up the name of a new cycle
	undoes bool // it takes Baton's cordon off
	change changeID
	arg    argID
	says   string
}

type effect uint8

const (
	waits effect = iota
	writesNode
	takes
	renews
	frees
	declines
	reboots
)

// sees puts together what process p of node n is told, rules broken as they are.
func (m *model) sees(w *world, n, p int, nd node, slots [maxSlots]slot) sight {
	a, h := &w.agents[n][p], &w.hosts[n]
	s := sight{
		node: nd, slots: slots, n: uint8(n), instance: instanceOf(p), boot: h.boot, sentinel: h.sentinel, fresh: h.cycles + 1,
		call: a.call, coming: h.down && !m.rules.calm, mute: h.mute && !m.rules.calm, leaving: a.leaving,
	}
	for k := range s.slots {
		s.slots[k].seen = unseen
		if m.rules.inherit && m.holder(s.slots[k].lease) == n {
			s.slots[k].instance = s.instance
		}
	}
	phase := m.phase(nd.record)
	if phase != agent.Rebooting {
		s.call = uncalled
	}
	if a.misled {
		s.boot += 100
		s.node.boot += 100
	}
	if m.rules.inherit && nd.record != 0 {
		s.node.instance = s.instance
	}
	// With a slot before the cordon it goes by the brake on that.
	s.paused = w.paused && (phase == agent.Draining || phase == agent.Rebooting ||
		phase == agent.Waiting && !slices.ContainsFunc(slots[:], func(s slot) bool { return m.concerns(s, n) }))
	switch {
	case m.rules.guessed && phase == agent.Waiting:
		s.node.cordoned = false
	case m.rules.deaf && (phase == agent.Draining || phase == agent.Rebooting):
		s.node.cordoned = true
	}
	return s
}

// concerns tells whether a slot names the node, as nominee or as holder.
func (m *model) concerns(s slot, n int) bool {
	row := &m.leases.rows[s.lease]
	return s.lease != 0 && (row.nominee == n || row.holder == n)
}

// ask asks the real Step.
func (m *model) ask(s sight) *decision {
	if d, ok := m.decisions[s]; ok {
		return d
	}
	o := m.observation(s)
	d, err := m.short(o, s, agent.Step(o))
	if err != nil {
		m.fail(err)
	}
	m.decisions[s] = d
	return d
}

func (m *model) observation(s sight) agent.Observation {
	n := int(s.n)
	t := epoch()
	deadline := t.Add(soon)
	if s.late {
		deadline = t
	}
	set := settings()
	o := agent.Observation{
		Now: t, Instance: instanceID(s.instance), FreshID: cycleID(s.fresh), Boot: bootID(s.boot),
		Node: m.agentNode(n, s.node), Exists: s.node.exists, History: m.histories.rows[s.node.history], SentinelKnown: true,
		Due:      agent.Due{Deadline: deadline, Slow: deadline, Until: t, Soaked: t},
		Settings: &set, Group: group, Window: agent.Window{Open: true},
		Gates: agent.Gates{At: t, Until: t.Add(soon), Preflight: true}, Shutdown: agent.Shutdown{At: t},
		Drain: agent.DrainView{Running: true, Empty: !s.late}, Emptied: t, Leaving: s.leaving,
		Hooks: agent.HookView{None: true},
	}
	if s.node.record != 0 {
		r := *m.records.rows[s.node.record]
		r.Instance = instanceID(s.node.instance)
		o.Record = &r
		if s.call != uncalled {
			o.Call = agent.Call{At: t.Add(-soon), Cycle: r.Cycle, Attempt: r.Attempt}
		}
	}
	if s.call == refused {
		o.Call.Refused = agent.ReasonRefused
	}
	if s.sentinel != 0 {
		o.Sentinel = agent.Sentinel{Source: "/run/reboot-required", Fingerprint: fingerprint(s.sentinel)}
	}
	switch {
	case s.mute:
		o.Shutdown.Err = errors.New("no answer")
	case s.coming:
		o.Shutdown.Coming = "reboot"
	}
	if s.paused {
		o.Gates.Closed = []agent.Closed{{Reason: agent.ReasonPaused, Message: "paused", Advised: true}}
	}
	for _, l := range s.slots {
		if m.concerns(l, n) {
			o.Slots = append(o.Slots, agent.Slot(m.slotOf(l)))
		}
	}
	return o
}

func (m *model) agentNode(n int, nd node) agent.Node {
	out := agent.Node{
		Name: nodeName(n), UID: nodeUID(n, nd.uid), ResourceVersion: "1", BootID: bootID(nd.boot), Ready: nd.ready, Unschedulable: nd.cordoned,
	}
	if nd.record != 0 {
		out.Phase, out.Tainted = string(m.phase(nd.record)), true
	}
	if nd.hold {
		out.Hold = "a person's"
	}
	if nd.acked {
		out.Acknowledge = "a person's"
	}
	return out
}

// short turns a decision into what a state can hold.
func (m *model) short(o agent.Observation, s sight, d agent.Decision) (*decision, error) {
	out := &decision{}
	on := func(kind effect, name string, c agent.Claim, says string) {
		out.kind, out.says = kind, says+" "+name
		for k := range m.slots {
			if slotName(k) == name {
				out.k = uint8(k)
			}
		}
		c.Instance = ""
		out.arg = m.arg(arg{claim: c})
	}
	switch e := d.Do.(type) {
	case nil:
		if strings.HasPrefix(d.Why, "bug:") {
			return nil, errors.New(d.Why)
		}
		out.says = d.Why
	case agent.WriteNode:
		m.shortWrite(out, o, s, e)
	case agent.TakeSlot:
		on(takes, e.Slot.Name, e.Claim, "takes")
	case agent.RenewSlot:
		on(renews, e.Slot.Name, e.Claim, "renews")
	case agent.FreeSlot:
		on(frees, e.Slot.Name, agent.Claim{}, "frees")
	case agent.DeclineSlot:
		on(declines, e.Slot.Name, agent.Claim{}, "declines")
	case agent.Reboot:
		on(reboots, e.Slot, agent.Claim{}, "begins the last check with")
	default:
		return nil, fmt.Errorf("asking Step: it wants %T, which the search does not know: %+v", e, o)
	}
	return out, nil
}

func (m *model) shortWrite(out *decision, o agent.Observation, s sight, e agent.WriteNode) {
	out.kind = writesNode
	if e.Record != nil && m.rules.unstored && e.Record.Phase == agent.Rebooting {
		e.Record.BootID = "not stored"
	}
	c := change{record: m.record(e.Record), keepHistory: e.History == nil, clearAck: e.ClearAcknowledge}
	if e.History != nil {
		c.history = m.history(*e.History)
		c.done = len(e.History.Cycles) > len(o.History.Cycles)
	}
	if e.Cordon != nil {
		c.cordon = -1
		if *e.Cordon {
			c.cordon = 1
		}
	}
	out.change = changeID(m.changes.id(c, c))
	out.undoes = c.cordon < 0
	out.begins = e.Record != nil && e.Record.Cycle == o.FreshID
	phase := agent.Idle
	if e.Record != nil {
		phase = e.Record.Phase
	}
	switch {
	case e.Move != nil:
		m.moves[fmt.Sprintf("%s to %s: %s", e.Move.From, e.Move.To, e.Move.Reason)] = true
		out.says = fmt.Sprintf("writes %s (%s)", phase, e.Move.Reason)
	case s.node.instance != s.instance:
		out.says = fmt.Sprintf("writes %s to fence off the past", phase)
	default:
		out.says = fmt.Sprintf("writes %s", phase)
	}
	switch c.cordon {
	case 1:
		out.says += ", cordons"
	case -1:
		out.says += ", uncordons"
	}
}

// arg numbers what a verb carries.
func (m *model) arg(a arg) argID { return argID(m.args.id(a, a)) }

// agentSteps are the steps of one process.
func (m *model) agentSteps(w *world, n, p int) {
	a := &w.agents[n][p]
	who := m.names.agents[n][p]
	switch a.at {
	case deciding:
		m.decide(w, n, p)
		if a.oldNode || a.oldSlots {
			next := *w
			next.agents[n][p].refresh()
			m.emit(&next, move{who: who, what: "sees everything again"})
		}
	case checking:
		m.lastCheck(w, n, p)
	case calling:
		m.call(w, n, p)
	}
	if a.leaving {
		next := *w
		m.restart(&next, n, p)
		m.emit(&next, move{who: who, what: "ends, and is installed again"})
	} else if w.left[Leave] > 0 && a.at == deciding {
		next := w.use(Leave)
		next.agents[n][p].refresh()
		next.agents[n][p].leaving = true
		m.emit(&next, move{who: who, what: "is being removed", fault: true})
	}
	if w.left[Crash] > 0 {
		next := *w
		m.restart(&next, n, p)
		next.agents[n][p].misled = m.rules.misled
		if next != *w { // else there was nothing to lose
			next.left[Crash]--
			m.emit(&next, move{who: who, what: "crashes and starts again", fault: true})
		}
	}
}

// restart ends a process and starts the next one, which may take any time: a process that does nothing and none are the
// same to the search.
func (m *model) restart(w *world, n, p int) {
	w.retire(n, p, m)
	w.agents[n][p] = process{alive: true}
}

// turn is what a process goes by in one decision.
type turn struct {
	n, p  int
	sight sight
	seen  version // of the Node
	slots [maxSlots]slot
}

// decide asks Step, and carries out what it wants.
func (m *model) decide(w *world, n, p int) {
	nd, seen, slots := w.seenBy(n, p)
	t := turn{n: n, p: p, sight: m.sees(w, n, p, nd, slots), seen: seen, slots: slots}
	d := m.ask(t.sight)
	m.act(w, &t, d)
	if w.left[Late] > 0 {
		switch m.phase(nd.record) {
		case agent.Draining, agent.Rebooting, agent.Verifying:
			t.sight.late = true
			if late := m.ask(t.sight); *late != *d {
				m.act(w, &t, late)
			}
		case agent.Idle, agent.Waiting, agent.Backoff, agent.Failed:
		}
	}
}

// act carries out what Step wants.
func (m *model) act(w *world, t *turn, d *decision) {
	s := &t.sight
	if d.kind == waits || m.rules.keeps && d.kind == frees && s.node.record == 0 && s.node.history != 0 {
		return
	}
	if k, ok := m.heldIn(s); ok && m.rules.early && d.undoes {
		d = &decision{kind: frees, k: k, says: "frees " + slotName(int(k)) + " first"}
	}
	base := *w
	if s.late {
		base.left[Late]--
	}
	if d.begins {
		base.hosts[t.n].cycles++
	}
	base.agents[t.n][t.p].call = s.call
	mv := move{who: m.names.agents[t.n][t.p], what: d.says, fault: s.late}
	o := order{
		node: s.n, uid: s.node.uid, instance: s.instance, k: d.k, arg: d.arg, belief: t.slots[d.k], now: w.slots,
	}
	switch d.kind {
	case writesNode:
		m.writeNode(&base, t, d.change, mv)
		return
	case reboots:
		m.beginCheck(&base, t, mv)
		return
	case takes:
		o.verb = take
	case renews:
		o.verb = renew
	case frees:
		o.verb = free
	case declines:
		o.verb = decline
	case waits:
	}
	m.writeSlot(&base, o, mv, sender{t.n, t.p})
}

// heldIn returns the slot that the node holds, as far as it sees.
func (m *model) heldIn(s *sight) (uint8, bool) {
	for k := range m.slots {
		if l := &m.leases.rows[s.slots[k].lease]; l.holder == int(s.n) && l.uid == int(s.node.uid) {
			return uint8(k), true
		}
	}
	return 0, false
}

// writeNode sends a PATCH: it is answered, or its answer is lost, or it is lost, or it is late.
func (m *model) writeNode(w *world, t *turn, c changeID, mv move) {
	by := sender{t.n, t.p}
	l := letter{
		verb: patchNode, of: t.sight.n, change: c, uid: t.sight.node.uid, instance: t.sight.instance, seen: t.seen,
		boot: w.hosts[t.n].boot,
	}
	next := *w
	taken, bad := m.patch(&next, l)
	landed := next
	a := &next.agents[t.n][t.p]
	mv.bad = bad
	if !taken {
		mv.how = "conflict"
		a.refresh()
	} else if a.oldNode {
		a.node, a.nodeSeen = next.nodes[t.n], current
	}
	m.emit(&next, mv)
	if !taken || w.left[Lose] == 0 {
		return
	}
	mv.fault = true
	lost, late := *w, *w
	landed.left[Lose]--
	lost.left[Lose]--
	late.left[Lose]--
	sent := late.send(l)
	m.unknown(&landed, by)
	m.unknown(&lost, by)
	m.unknown(&late, by)
	mv.how = "no answer, it took effect"
	m.emit(&landed, mv)
	mv.how, mv.bad = "no answer, it got lost", ""
	m.emit(&lost, mv)
	if sent {
		mv.how = "no answer, it is on its way"
		m.emit(&late, mv)
	}
}

// beginCheck reads the Node.
func (m *model) beginCheck(w *world, t *turn, mv move) {
	a := &w.agents[t.n][t.p]
	switch {
	case m.rules.blunt:
		a.at = calling
		mv.bad = m.heldBack(w, t.n, &w.nodes[t.n])
	case w.nodes[t.n].exists:
		a.refresh()
		a.at, a.oldNode, a.node, a.nodeSeen = checking, true, w.nodes[t.n], current
	default:
		a.refresh()
		mv.how = "the Node is gone"
	}
	m.emit(w, mv)
}

// lastCheck asks the host and reads the slot, and decides again: the same decision leads to the call.
func (m *model) lastCheck(w *world, n, p int) {
	nd, _, _ := w.seenBy(n, p)
	next := *w
	a := &next.agents[n][p]
	mv := move{who: m.names.agents[n][p], what: "passes the last check"}
	if d := m.ask(m.sees(w, n, p, nd, w.nowSlots())); d.kind == reboots {
		a.at = calling
		mv.bad = m.heldBack(w, n, &nd)
	} else {
		a.at, a.uncordons = deciding, false
		a.refresh()
		mv.what = "does not pass the last check"
	}
	m.emit(&next, mv)
}

// call asks the host to reboot.
func (m *model) call(w *world, n, p int) {
	next := *w
	a := &next.agents[n][p]
	mv := move{who: m.names.agents[n][p], what: "asks the host to reboot", how: "accepted"}
	switch {
	case !w.nodes[n].exists: // deleted since the last check
	case !m.holdsAny(w, n):
		mv.bad = noSlot
	case !w.nodes[n].cordoned && !a.uncordons:
		mv.bad = noCordon
	}
	a.refresh()
	a.at, a.uncordons, a.call = deciding, false, accepted
	next.hosts[n].down = true
	m.emit(&next, mv)
	if w.left[Refuse] > 0 {
		next.left[Refuse]--
		next.hosts[n].down = w.hosts[n].down
		a.call = refused
		mv.how, mv.bad, mv.fault = "refused", "", true
		m.emit(&next, mv)
	}
}
