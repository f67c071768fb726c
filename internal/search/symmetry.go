package search

import (
	"hash/maphash"
	"math"
	"strings"

	"kubebaton.io/baton/kube"
	"kubebaton.io/baton/lock"
)

// shuffle maps old numbers of nodes to new ones.
type shuffle [maxNodes]uint8

// shuffles are all there are for so many nodes. Those that are not there keep their numbers.
func shuffles(nodes int) []shuffle {
	all := []shuffle{{0, 1, 2}, {1, 0, 2}, {0, 2, 1}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}
	return all[:[...]int{1: 1, 2: 2, 3: 6}[nodes]]
}

// symmetry finds worlds that differ only in the names of their nodes and marshals: one of them is enough.
type symmetry struct {
	m        *model
	seed     maphash.Seed
	shuffles []shuffle
	renamed  map[shuffle][]leaseID
}

func newSymmetry(m *model) *symmetry {
	return &symmetry{m: m, seed: maphash.MakeSeed(), shuffles: shuffles(m.nodes), renamed: map[shuffle][]leaseID{}}
}

// traits are what tells one node from another without its name.
type traits struct {
	node   node
	host   host
	agents [perHost]process
	roles  [maxSlots]uint8
}

// hash returns the same number for worlds that are the same but for names: the nodes are put in the order of their
// traits, and where those do not tell, every order is tried.
func (s *symmetry) hash(w *world) uint64 {
	m := s.m
	var by [maxNodes]uint64
	for n := range m.nodes {
		t := traits{node: w.nodes[n], host: w.hosts[n], agents: w.agents[n]}
		for p := range t.agents {
			t.agents[p].slots = [maxSlots]slot{}
		}
		for k := range m.slots {
			t.roles[k] = m.role(n, w.slots[k].lease)
		}
		by[n] = maphash.Comparable(s.seed, t)
	}
	least := uint64(math.MaxUint64)
	for i, to := range s.shuffles {
		if !to.sorts(by[:m.nodes]) {
			continue
		}
		x := *w
		if i > 0 {
			s.rename(&x, to)
		}
		least = min(least, maphash.Comparable(s.seed, x))
		if x.marshals[0] != x.marshals[1] {
			x.marshals[0], x.marshals[1] = x.marshals[1], x.marshals[0]
			least = min(least, maphash.Comparable(s.seed, x))
		}
	}
	return least
}

// sorts tells whether a shuffle brings what the nodes are sorted by in order.
func (to shuffle) sorts(by []uint64) bool {
	for n := range by {
		for o := range by {
			if by[n] < by[o] && to[n] > to[o] {
				return false
			}
		}
	}
	return true
}

// role tells what a Lease is to a node.
func (m *model) role(n int, id leaseID) uint8 {
	l := &m.leases.rows[id]
	switch n {
	case l.holder:
		return 2
	case l.nominee:
		return 1
	}
	return 0
}

// rename gives the nodes of a world other names.
func (s *symmetry) rename(x *world, to shuffle) {
	nodes, hosts, agents := x.nodes, x.hosts, x.agents
	for n := range s.m.nodes {
		x.nodes[to[n]], x.hosts[to[n]], x.agents[to[n]] = nodes[n], hosts[n], agents[n]
	}
	s.renameSlots(&x.slots, to)
	for n := range x.agents {
		for p := range x.agents[n] {
			if x.agents[n][p].oldSlots {
				s.renameSlots(&x.agents[n][p].slots, to)
			}
		}
	}
	for i := range x.marshals {
		if v := &x.marshals[i]; v.oldNodes {
			was := v.nodes
			for n := range s.m.nodes {
				v.nodes[to[n]] = was[n]
			}
		}
		if x.marshals[i].oldSlots {
			s.renameSlots(&x.marshals[i].slots, to)
		}
	}
	for i := range x.letters {
		l := &x.letters[i]
		if l.verb == patchNode {
			l.of = to[l.of]
		}
		l.lease = s.renameLease(l.lease, to)
	}
}

func (s *symmetry) renameSlots(slots *[maxSlots]slot, to shuffle) {
	for k := range slots {
		slots[k].lease = s.renameLease(slots[k].lease, to)
	}
}

func (s *symmetry) renameLease(id leaseID, to shuffle) leaseID {
	m := s.m
	if l := &m.leases.rows[id]; l.holder < 0 && l.nominee < 0 {
		return id
	}
	known := s.renamed[to]
	if int(id) < len(known) && known[id] != 0 {
		return known[id]
	}
	for len(known) <= int(id) {
		known = append(known, 0)
	}
	l := m.leases.rows[id].object.DeepCopy()
	name := func(old string) string { return nodeName(int(to[nodeNumber(old)])) }
	uid := func(old string) string {
		part := strings.Split(old, "-")
		part[1] = name(part[1])
		return strings.Join(part, "-")
	}
	each := func(in map[string]string, key string, change func(string) string) {
		if v, ok := in[key]; ok {
			in[key] = change(v)
		}
	}
	each(l.Labels, lock.LabelNominee, uid)
	each(l.Annotations, lock.AnnotationNodeUID, uid)
	each(l.Annotations, lock.AnnotationNomineeNode, name)
	if h := l.Spec.HolderIdentity; h != nil {
		*h = name(*h)
	}
	each(l.Labels, lock.LabelNode, func(string) string {
		h := l.Spec.HolderIdentity
		if h == nil {
			return kube.NodeLabel(l.Annotations[lock.AnnotationNomineeNode])
		}
		return kube.NodeLabel(*h)
	})
	known[id] = m.seenLease(l).lease
	s.renamed[to] = known
	return known[id]
}
