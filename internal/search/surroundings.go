package search

import "kubebaton.io/baton/agent"

// Fault is a kind of thing that goes wrong or that a person does. Each may happen as often as the budget says.
type Fault uint8

// The kinds of faults.
const (
	Crash    Fault = iota // an agent dies between two steps
	Leave                 // an agent is removed for good, and installed again some day
	Lose                  // a write gets lost, its answer gets lost, or it arrives late
	Stall                 // a watch of an agent brings nothing for a while
	Lag                   // a watch of a marshal brings nothing for a while
	Twin                  // a second agent starts on a host; only while rule 3 is switched off
	Delete                // a person deletes a Node; the kubelet registers it again
	Scrap                 // a machine is taken away for good, and its Node deleted
	Power                 // a host reboots by itself
	Late                  // a deadline passes
	Refuse                // logind refuses a reboot, or gives up one that it accepted
	Mute                  // a host cannot be asked what is coming, for a while
	Sick                  // a Node is not Ready after a boot until somebody cures it
	Survive               // a sentinel is there again after the reboot
	Update                // a host wants a reboot, by another sentinel
	Clear                 // a person removes a sentinel
	Cordon                // a person cordons a Node
	Uncordon              // a person uncordons a Node that Baton cordoned
	Hold                  // a person puts a Node on hold
	Ack                   // a person acknowledges
	Strip                 // a person removes a record
	Pause                 // a person pauses the rollout
	Release               // a person asks for a slot
	Remove                // a person deletes a slot's Lease
	faultKinds
)

func (f Fault) String() string {
	return [...]string{
		"crash", "leave", "lose", "stall", "lag", "twin", "delete", "scrap", "power", "late", "refuse", "mute", "sick", "survive", "update", "clear",
		"cordon", "uncordon", "hold", "ack", "strip", "pause", "release", "remove",
	}[f]
}

// use returns the world after one fault of a kind.
func (w *world) use(f Fault) world {
	next := *w
	next.left[f]--
	return next
}

// hostSteps are what happens to a host and its Node by themselves.
func (m *model) hostSteps(w *world, n int) {
	h, nd := &w.hosts[n], &w.nodes[n]
	who := m.names.hosts[n]
	m.twinSteps(w, n)
	switch {
	case h.down:
		next := *w
		bad := ""
		if nd.exists && !m.named(w, n) {
			bad = wentWithout
		}
		m.boot(&next, n)
		m.emit(&next, move{who: who, what: "reboots", bad: bad})
		if w.left[Survive] > 0 && h.sentinel != 0 {
			next := w.use(Survive)
			m.boot(&next, n)
			next.hosts[n].sentinel = h.sentinel
			m.emit(&next, move{who: who, what: "reboots", how: "its sentinel is there again", fault: true, bad: bad})
		}
		if w.left[Refuse] > 0 {
			next := w.use(Refuse)
			next.hosts[n].down = false
			m.emit(&next, move{who: who, what: "gives up the reboot", fault: true})
		}
	case w.left[Power] > 0:
		next := w.use(Power)
		m.boot(&next, n)
		m.emit(&next, move{who: who, what: "loses power and starts again", fault: true})
	}
	if h.mute {
		next := *w
		next.hosts[n].mute = false
		m.emit(&next, move{who: who, what: "can be asked again"})
	} else if w.left[Mute] > 0 {
		next := w.use(Mute)
		next.hosts[n].mute = true
		m.emit(&next, move{who: who, what: "cannot be asked any more", fault: true})
	}
	if nd.exists && (nd.boot != h.boot || !nd.ready) {
		report := func(next world, ready bool, what string, fault bool) {
			next.nodes[n].boot, next.nodes[n].ready = h.boot, ready
			next.nodeChanged(n, &m.rules)
			m.emit(&next, move{who: m.names.kubelets[n], what: what, fault: fault})
		}
		report(*w, true, "reports the boot, Ready", false)
		if w.left[Sick] > 0 && nd.boot != h.boot {
			report(w.use(Sick), false, "reports the boot, not Ready", true)
		}
	}
	// A kubelet registers its Node when it starts. That takes longer than the time from a last check to its call, and a
	// host that has been going down for the grace period, at whose end the slot is freed, starts none any more.
	if !nd.exists && !w.busy(n) && (!h.down || m.named(w, n) && !m.freeing(w, n)) {
		next := *w
		m.register(&next, n)
		m.emit(&next, move{who: m.names.kubelets[n], what: "registers the Node again"})
	}
}

// freeing tells that the marshal's write that frees the slot of a node is on its way.
func (m *model) freeing(w *world, n int) bool {
	for _, l := range w.letters {
		if l.verb == putLease && m.holder(w.slots[l.of].lease) == n && m.holder(l.lease) < 0 {
			return true
		}
	}
	return false
}

func (m *model) twinSteps(w *world, n int) {
	twin := &w.agents[n][1]
	switch {
	case twin.alive:
		next := *w
		next.retire(n, 1, m)
		next.agents[n][1] = process{}
		m.emit(&next, move{who: m.names.agents[n][1], what: "ends"})
	case m.rules.twins && w.left[Twin] > 0:
		next := w.use(Twin)
		next.agents[n][1] = process{alive: true}
		m.emit(&next, move{who: m.names.agents[n][1], what: "starts", fault: true})
	}
}

// boot starts a host on a new boot. /run is empty then, and the sentinel with it.
func (m *model) boot(w *world, n int) {
	m.restart(w, n, 0)
	w.retire(n, 1, m)
	w.agents[n][1] = process{}
	h := &w.hosts[n]
	h.boot++
	h.down, h.mute, h.sentinel = false, false, 0
	if !w.nodes[n].exists {
		m.register(w, n)
	}
}

func (m *model) register(w *world, n int) {
	w.nodes[n] = node{exists: true, ready: true, uid: w.nodes[n].uid + 1, boot: w.hosts[n].boot}
	w.nodeChanged(n, &m.rules)
}

// wishSteps are what becomes of the wish for a reboot by itself.
func (m *model) wishSteps(w *world, n int) {
	if w.left[Clear] > 0 && w.hosts[n].sentinel != 0 {
		next := w.use(Clear)
		next.hosts[n].sentinel = 0
		m.emit(&next, move{who: "a person", what: "removes the sentinel of " + nodeName(n), fault: true})
	}
	if w.left[Update] > 0 {
		next := w.use(Update)
		next.hosts[n].updates++
		next.hosts[n].sentinel = next.hosts[n].updates
		m.emit(&next, move{who: m.names.hosts[n], what: "gets an update that wants a reboot", fault: true})
	}
}

// peopleSteps are what people do to a node.
func (m *model) peopleSteps(w *world, n int) {
	nd, h := &w.nodes[n], &w.hosts[n]
	do := func(next world, what string, fault bool) {
		next.nodeChanged(n, &m.rules)
		m.emit(&next, move{who: "a person", what: what + " " + nodeName(n), fault: fault})
	}
	if !nd.exists {
		return
	}
	if w.left[Scrap] > 0 {
		next := w.use(Scrap)
		next.retire(n, 0, m)
		next.retire(n, 1, m)
		next.nodes[n], next.hosts[n], next.agents[n] = node{uid: nd.uid}, host{scrapped: true}, [perHost]process{}
		do(next, "takes away the machine", true)
	}
	if w.left[Delete] > 0 {
		next := w.use(Delete)
		next.nodes[n] = node{uid: nd.uid}
		next.hosts[n].cordonBy, next.hosts[n].left = nobody, 0
		do(next, "deletes the Node", true)
	}
	if w.left[Cordon] > 0 && !nd.cordoned {
		next := w.use(Cordon)
		next.nodes[n].cordoned, next.hosts[n].cordonBy = true, person
		if nd.record != 0 && m.records.rows[nd.record].Cordon == agent.CordonBaton {
			next.hosts[n].cordonBy = baton // laid before the agent saw the uncordon: nothing tells it from Baton's own
		}
		do(next, "cordons", true)
	}
	if nd.cordoned && (h.cordonBy == person || w.left[Uncordon] > 0) {
		next := *w
		if h.cordonBy != person {
			next = w.use(Uncordon)
		}
		next.nodes[n].cordoned, next.hosts[n].cordonBy = false, nobody
		for p := range next.agents[n] {
			if a := &next.agents[n][p]; a.at != deciding {
				a.uncordons = true
			}
		}
		do(next, "uncordons", h.cordonBy != person)
	}
	if nd.hold || w.left[Hold] > 0 {
		next := *w
		what := "ends the hold of"
		if !nd.hold {
			next, what = w.use(Hold), "puts on hold"
		}
		next.nodes[n].hold = !nd.hold
		do(next, what, !nd.hold)
	}
	if waits := m.waitsForPeople(nd.record); !nd.acked && (waits || w.left[Ack] > 0) {
		next := *w
		if !waits {
			next = w.use(Ack)
		}
		next.nodes[n].acked = true
		do(next, "acknowledges", !waits)
	}
	if w.left[Strip] > 0 && nd.record != 0 {
		next := w.use(Strip)
		next.nodes[n].record, next.nodes[n].instance = 0, 0
		do(next, "removes the record of", true)
	}
}

// waitsForPeople tells that a cycle goes on only when a person says so.
func (m *model) waitsForPeople(id recordID) bool {
	return id != 0 && m.records.rows[id].Survived != ""
}

// slotSteps are what people do to slots, and to the rollout as a whole.
func (m *model) slotSteps(w *world) {
	for k := range m.slots {
		s := w.slots[k]
		if s.lease == 0 {
			continue
		}
		by := func(f Fault, v verb, what string) {
			o := order{verb: v, node: maxNodes, k: uint8(k), now: w.slots}
			next := w.use(f)
			mv := move{who: "a person", what: what + " " + slotName(k), fault: true}
			for _, out := range m.carry(o) {
				for i := range out.writes {
					mv.bad = m.land(&next, &out.writes[i], v)
				}
			}
			m.emit(&next, mv)
		}
		if w.left[Remove] > 0 {
			by(Remove, personDeletes, "deletes the Lease")
		}
		if w.left[Release] > 0 && m.holder(s.lease) >= 0 {
			by(Release, personReleases, "asks for")
		}
	}
	if w.paused || w.left[Pause] > 0 {
		next := *w
		what := "ends the pause"
		if !w.paused {
			next, what = w.use(Pause), "pauses the rollout"
		}
		next.paused = !w.paused
		m.emit(&next, move{who: "a person", what: what, fault: !w.paused})
	}
}
