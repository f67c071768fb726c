package search

import (
	"fmt"
	"slices"

	"kubebaton.io/baton/agent"
)

// rules are the rules 1 to 8 of the protocol, each by the way in which it is broken. The zero value breaks none.
type rules struct {
	blind    bool // 1: the API server takes a write whatever version it was decided on
	calm     bool // 2: the host always says that no shutdown is coming
	twins    bool // 3: a second agent may act on a host
	inherit  bool // 4: a process takes the writes of an earlier one for its own
	misled   bool // 5: a process that was started anew is told another boot ID
	unstored bool // 5: the record does not say on which boot the reboot was asked for, so any boot proves it
	blunt    bool // 6: nothing is read again before the call
	early    bool // 7: the slot is freed before the uncordon
	guessed  bool // 7: whose cordon it is, is computed from a Node seen before
	deaf     bool // 7: a person's uncordon is not seen
	keeps    bool // 8: after a proven reboot the slot is kept
}

// rule is a way to break a rule: its number, with a letter where there are several.
type rule struct {
	name, says string
	off        func(*rules)
}

func allRules() []rule {
	return []rule{
		{"1", "writes are taken whatever version they carry", func(r *rules) { r.blind = true }},
		{"2", "the host always says that no shutdown is coming", func(r *rules) { r.calm = true }},
		{"3", "two agents act on one host", func(r *rules) { r.twins = true }},
		{"4", "writes of the past are not fenced off", func(r *rules) { r.inherit = true }},
		{"5a", "a restarted agent is told another boot ID", func(r *rules) { r.misled = true }},
		{"5b", "the boot ID is not stored before the call", func(r *rules) { r.unstored = true }},
		{"6", "nothing is read again before the call", func(r *rules) { r.blunt = true }},
		{"7a", "the slot is freed before the uncordon", func(r *rules) { r.early = true }},
		{"7b", "whose cordon it is, is computed from an older Node", func(r *rules) { r.guessed = true }},
		{"7c", "a person's uncordon is not seen", func(r *rules) { r.deaf = true }},
		{"8", "the slot is kept after a proven reboot", func(r *rules) { r.keeps = true }},
	}
}

func without(name string) (rules, error) {
	var r rules
	if name == "" {
		return r, nil
	}
	all := allRules()
	i := slices.IndexFunc(all, func(x rule) bool { return x.name == name })
	if i < 0 {
		return r, fmt.Errorf("there is no rule %q", name)
	}
	all[i].off(&r)
	return r, nil
}

// What must never be.
const (
	tooMany     = "more nodes are down than there are slots"
	twoSlots    = "a node holds two slots"
	noSlot      = "the host is asked to reboot without the slot"
	onHold      = "the host is asked to reboot although people or the marshal hold it back"
	noCordon    = "the host is asked to reboot without a cordon"
	wentWithout = "a host goes down without the slot"
	foreign     = "the cordon of a person is taken off"
	leftBehind  = "Baton's cordon is left behind"
	unproven    = "a reboot is called done, and the boot ID is the old one"
	freedGoing  = "a slot is freed while its host goes down"
	freedCordon = "a slot is freed before the uncordon"
	freedActive = "a slot is freed while its node is down"
	theft       = "the slot of a node that is there is freed by the marshal"
	noWay       = "no way leads to the end"
)

// down tells whether Baton has taken a node down. What is no Node any more is nobody's concern.
func (m *model) down(w *world, n int) bool {
	return w.nodes[n].exists && (w.hosts[n].down || active(m.phase(w.nodes[n].record)))
}

// broken looks at a state as a whole.
func (m *model) broken(w *world) string {
	down := 0
	for n := range m.nodes {
		if m.down(w, n) {
			down++
		}
		held := 0
		for k := range m.slots {
			if m.holds(w, n, k) {
				held++
			}
		}
		if held > 1 {
			return twoSlots
		}
	}
	if down > m.slots {
		return tooMany
	}
	return ""
}

// holds tells whether the Node of now holds slot k.
func (m *model) holds(w *world, n, k int) bool {
	l := &m.leases.rows[w.slots[k].lease]
	return l.holder == n && w.nodes[n].exists && l.uid == int(w.nodes[n].uid)
}

func (m *model) holdsAny(w *world, n int) bool {
	for k := range m.slots {
		if m.holds(w, n, k) {
			return true
		}
	}
	return false
}

// named tells whether a slot is held in the name of a node, be it by an earlier Node of that name.
func (m *model) named(w *world, n int) bool {
	for k := range m.slots {
		if m.holder(w.slots[k].lease) == n {
			return true
		}
	}
	return false
}

// heldBack judges a last check of node n that passes on this state of its Node.
func (m *model) heldBack(w *world, n int, nd *node) string {
	held := nd.hold || w.paused
	for k := range m.slots {
		held = held || m.holds(w, n, k) && m.leases.rows[w.slots[k].lease].slot.Hold != ""
	}
	if held {
		return onHold
	}
	return ""
}

// freed judges the end of a holding, of slot k by whom.
func (m *model) freed(w *world, k int, by verb) string {
	n := m.holder(w.slots[k].lease)
	mine := m.holds(w, n, k)
	h, nd := &w.hosts[n], &w.nodes[n]
	switch {
	case by == freeGone && mine:
		return theft
	case nd.exists && h.down:
		return freedGoing
	case mine && nd.cordoned && h.cordonBy == baton:
		return freedCordon
	case mine && active(m.phase(nd.record)):
		return freedActive
	}
	return ""
}

// over tells whether everything has come to its end: no node is down or wants to be, every slot is there and empty.
func (m *model) over(w *world) bool {
	for n := range m.nodes {
		nd, h := &w.nodes[n], &w.hosts[n]
		if h.scrapped {
			continue
		}
		if !nd.exists || h.down || nd.cordoned && h.cordonBy == baton || h.sentinel != 0 && nd.record == 0 {
			return false
		}
		if nd.record != 0 && !m.restsOn(nd.record) {
			return false
		}
	}
	for k := range m.slots {
		if l := &m.leases.rows[w.slots[k].lease]; w.slots[k].lease == 0 || l.holder >= 0 || l.slot.Deleting {
			return false
		}
	}
	return w.letters == [maxLetters]letter{}
}

// restsOn tells that a record stays for good, and its node with it: it was rebooted as often as may be.
func (m *model) restsOn(id recordID) bool {
	r := m.records.rows[id]
	return r.Phase == agent.Waiting && (r.Survived != "" || slices.Contains(r.Reasons, agent.ReasonRebootLimit))
}
