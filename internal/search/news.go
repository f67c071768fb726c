package search

// missed adds to a step from w to next those in which one watch, and then another, does not bring what changed: whoever
// watches goes on seeing what was there before. first is the watch to begin with; who acts sees what it does.
func (m *model) missed(w, next *world, mv move, first int) {
	if next.left[Stall] == 0 && next.left[Lag] == 0 || next.nodes == w.nodes && next.slots == w.slots {
		return
	}
	var then world
	for watch := first; watch < 2*(maxNodes*perHost+maxMarshals); watch++ {
		then = *next
		who := m.misses(w, &then, watch, mv.who)
		if who == "" {
			continue
		}
		x := mv
		x.fault = true
		x.missed += "; " + who + " does not see it"
		m.hunt.take(&then, x)
		m.missed(w, &then, x, watch+1)
	}
}

// misses makes a watch miss what happened, and returns whose it is; "" if it has nothing to tell, or tells it to who did
// it. Everybody has two watches, the first for Nodes.
func (m *model) misses(w, then *world, watch int, by string) string {
	ofNodes, of := watch%2 == 0, watch/2
	if of < maxNodes*perHost {
		n, p := of/perHost, of%perHost
		who := m.names.agents[n][p]
		if then.left[Stall] == 0 || who == by || !m.agentMisses(w, then, n, p, ofNodes) {
			return ""
		}
		then.left[Stall]--
		return who
	}
	i := of - maxNodes*perHost
	who := m.names.marshals[i]
	if then.left[Lag] == 0 || who == by || i >= m.marshals || !m.marshalMisses(w, then, i, ofNodes) {
		return ""
	}
	then.left[Lag]--
	return who
}

// agentMisses makes a process miss what happened to its Node, or else to the slots that name it.
func (m *model) agentMisses(w, then *world, n, p int, ofNode bool) bool {
	a := &then.agents[n][p]
	if !a.alive || a.at != deciding || w.agents[n][p].at != deciding {
		return false
	}
	if ofNode {
		if a.oldNode || w.nodes[n] == then.nodes[n] {
			return false
		}
		a.oldNode, a.node, a.nodeSeen = true, w.nodes[n], old
		return true
	}
	named := false
	for k := range m.slots {
		was, is := w.slots[k], then.slots[k]
		named = named || was != is && (m.role(n, was.lease) > 0 || m.role(n, is.lease) > 0)
	}
	if a.oldSlots || !named {
		return false
	}
	a.oldSlots, a.slots = true, m.before(w, then)
	return true
}

// before are the slots of w, as one sees them who has missed what made then of it.
func (m *model) before(w, then *world) [maxSlots]slot {
	s := w.nowSlots()
	for k := range s {
		switch {
		case w.slots[k] == then.slots[k]:
		case then.slots[k].lease == 0:
			s[k].seen = another
		default:
			s[k].seen = old
		}
	}
	return s
}

// marshalMisses does the same for a marshal.
func (m *model) marshalMisses(w, then *world, i int, ofNodes bool) bool {
	v := &then.marshals[i]
	switch {
	case i > 0 && v.upToDate() && then.marshals[0].upToDate():
		return false // the first one over again
	case ofNodes && !v.oldNodes && w.nodes != then.nodes:
		v.oldNodes, v.nodes = true, w.nodes
		for n := range v.nodes {
			v.nodes[n].instance = 0
		}
		return true
	case !ofNodes && !v.oldSlots && w.slots != then.slots:
		v.oldSlots, v.slots = true, m.before(w, then)
		return true
	}
	return false
}
