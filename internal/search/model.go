package search

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"kubebaton.io/baton/agent"
	"kubebaton.io/baton/marshal"
)

// model makes the steps of a world. What the real code answered once is remembered: what is asked is pure, or is given
// everything that its answer depends on.
type model struct {
	ctx                    context.Context // of the search that the model is made for
	rules                  rules
	nodes, slots, marshals int
	names                  names
	err                    error // the first thing that went wrong

	records   *table[string, *agent.Record]
	histories *table[string, agent.History]
	leases    *table[string, lease]
	changes   *table[change, change]
	args      *table[arg, arg]

	decisions map[sight]*decision
	outcomes  map[order][]outcome
	errands   map[scene][]errand
	gone      map[scene]bool
	kept      map[namedNode]marshal.Node
	moves     map[string]bool // transitions that Step wanted

	from *world // the world under look
	hunt *hunt  // is told of every step of it; not by an interface, which would put every step on the heap
}

// move says what a step is.
type move struct {
	who, what, how string
	missed         string // who does not see it
	fault          bool   // it need not happen
	bad            string // what must never be and is
}

func (mv move) String() string {
	s := mv.who + " " + mv.what
	if mv.how != "" {
		s += ": " + mv.how
	}
	return s + mv.missed
}

// names are made once.
type names struct {
	agents          [maxNodes][perHost]string
	hosts, kubelets [maxNodes]string
	marshals        [maxMarshals]string
}

func newModel(ctx context.Context, c Config, r rules) *model {
	m := &model{
		ctx: ctx, rules: r, nodes: c.Nodes, slots: c.Slots, marshals: c.Marshals,
		records: newTable[string, *agent.Record](), histories: newTable[string, agent.History](), leases: newTable[string, lease](),
		changes: newTable[change, change](), args: newTable[arg, arg](),
		decisions: map[sight]*decision{}, outcomes: map[order][]outcome{}, errands: map[scene][]errand{}, gone: map[scene]bool{},
		kept:  map[namedNode]marshal.Node{},
		moves: map[string]bool{},
	}
	m.leases.rows[0].holder, m.leases.rows[0].nominee = -1, -1
	for n := range maxNodes {
		m.names.agents[n] = [perHost]string{"agent " + nodeName(n), "second agent " + nodeName(n)}
		m.names.hosts[n], m.names.kubelets[n] = "host "+nodeName(n), "kubelet "+nodeName(n)
	}
	for i := range maxMarshals {
		m.names.marshals[i] = fmt.Sprintf("marshal %d", i+1)
	}
	return m
}

func (m *model) fail(err error) {
	if m.err == nil {
		m.err = err
	}
}

// first is the world in which every slot is there and every host wants a reboot, and nothing has happened yet.
func (m *model) first(faults map[Fault]int) world {
	var w world
	for n := range m.nodes {
		w.nodes[n] = node{exists: true, ready: true}
		w.hosts[n].sentinel, w.hosts[n].updates = 1, 1
		w.agents[n][0].alive = true
	}
	for f, n := range faults {
		w.left[f] = uint8(n)
	}
	for k := range m.slots {
		o := order{verb: create, node: maxNodes, k: uint8(k), arg: m.arg(arg{index: k}), now: w.slots}
		m.land(&w, &m.carry(o)[0].writes[0], create)
	}
	return w
}

// next makes every step from w, always in the same order.
func (m *model) next(w *world) {
	m.from = w
	for n := range m.nodes {
		for p := range w.agents[n] {
			if w.agents[n][p].alive {
				m.agentSteps(w, n, p)
			}
		}
		if !w.hosts[n].scrapped {
			m.hostSteps(w, n)
			m.wishSteps(w, n)
			m.peopleSteps(w, n)
		}
	}
	for i := range m.marshals {
		m.marshalSteps(w, i)
	}
	for i := range w.letters {
		if w.letters[i].verb != nothing {
			m.deliver(w, i)
		}
	}
	m.slotSteps(w)
}

// emit makes a step, and those that differ from it in who sees what it changed.
func (m *model) emit(next *world, mv move) {
	m.hunt.take(next, mv)
	m.missed(m.from, next, mv, 0)
}

// moved are the transitions that Step wanted.
func (m *model) moved() []string {
	var all []string
	for mv := range m.moves {
		all = append(all, mv)
	}
	slices.SortFunc(all, strings.Compare)
	return all
}
