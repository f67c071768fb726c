package search

import "kubebaton.io/baton/agent"

// patch is the API server's side of a Node: it carries out a change if the Node is still the one that it was decided on.
// bad names what must never be.
func (m *model) patch(w *world, l letter) (taken bool, bad string) {
	n := int(l.of)
	nd, h := &w.nodes[n], &w.hosts[n]
	if !nd.exists || nd.uid != l.uid || l.seen != current && !m.rules.blind {
		return false, ""
	}
	ch := m.changes.rows[l.change]
	switch {
	case ch.cordon > 0 && !nd.cordoned:
		nd.cordoned, h.cordonBy = true, baton
	case ch.cordon < 0 && nd.cordoned:
		if h.cordonBy == person {
			bad = foreign
		}
		nd.cordoned, h.cordonBy = false, nobody
	}
	if ch.done && h.left == h.boot+1 {
		bad = unproven
	}
	nd.record, nd.instance = ch.record, l.instance
	if ch.record == 0 {
		nd.instance = 0
	}
	if !ch.keepHistory {
		nd.history = ch.history
	}
	nd.acked = nd.acked && !ch.clearAck
	phase := m.phase(ch.record)
	switch {
	case !active(phase):
		h.left = 0
	case h.left == 0 && phase == agent.Draining:
		h.left = l.boot + 1
	}
	if nd.cordoned && h.cordonBy == baton && (ch.record == 0 || m.records.rows[ch.record].Cordon != agent.CordonBaton) {
		// It is nobody's from now on: a person's hold makes it a person's, else it was forgotten.
		if !nd.hold && bad == "" {
			bad = leftBehind
		}
		h.cordonBy = person
	}
	w.nodeChanged(n, &m.rules)
	return true, bad
}
