package search

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kubebaton.io/baton/marshal"
	keys "kubebaton.io/baton/node"
)

// scene is everything that a marshal's decisions depend on, in short.
type scene struct {
	nodes  [maxNodes]node // without instances
	slots  [maxSlots]slot // without instances and versions
	paused bool
}

// errand is a write that a marshal wants.
type errand struct {
	verb verb
	k    uint8
	arg  argID
	says string
}

// marshalSteps are the steps of one marshal. It works at any time: the election is not in the model, so there are
// always as many as there may be, and what each of them writes does not wait for the rest of its pass.
func (m *model) marshalSteps(w *world, i int) {
	v := &w.marshals[i]
	if i > 0 && v.upToDate() && w.marshals[0].upToDate() {
		return // the first one over again
	}
	nodes, slots := w.nodes, w.nowSlots()
	if v.oldNodes {
		nodes = v.nodes
	}
	if v.oldSlots {
		slots = v.slots
	}
	s := scene{nodes: nodes, slots: slots, paused: w.paused}
	for n := range s.nodes {
		s.nodes[n].instance = 0
	}
	for k := range s.slots {
		s.slots[k].instance, s.slots[k].seen = 0, unseen
	}
	for _, e := range m.wants(s) {
		o := order{verb: e.verb, node: maxNodes, k: e.k, arg: e.arg, belief: slots[e.k], now: w.slots}
		if e.verb == freeGone {
			// Seen gone for the grace period; now it reads the Lease, then the Node.
			o.belief = slot{lease: w.slots[e.k].lease, instance: w.slots[e.k].instance, seen: current}
			if !m.stillGone(w, int(e.k), m.leases.rows[slots[e.k].lease]) {
				continue
			}
		}
		m.writeSlot(w, o, move{who: m.names.marshals[i], what: e.says}, sender{p: -1})
	}
	if !v.upToDate() {
		next := *w
		next.marshals[i] = marshalView{}
		m.emit(&next, move{who: m.names.marshals[i], what: "sees everything again"})
	}
}

// stillGone is what the runner reads before it frees the slot of a Node that is gone: the same holder, and still gone by
// the real Gone. A process between its last check and its call has read its Node within seconds; the grace period is
// longer than that.
func (m *model) stillGone(w *world, k int, seen lease) bool {
	s := slot{lease: w.slots[k].lease}
	now := m.leases.rows[s.lease]
	n := now.holder
	if n < 0 || now.slot.Holder != seen.slot.Holder || now.slot.HolderUID != seen.slot.HolderUID || w.busy(n) {
		return false
	}
	sc := scene{}
	sc.nodes[n] = w.nodes[n]
	sc.nodes[n].instance = 0
	sc.slots[k] = s
	gone, ok := m.gone[sc]
	if !ok {
		v := m.view(sc)
		v.Now = epoch().Add(long)
		gone = len(marshal.Gone(v)) > 0
		m.gone[sc] = gone
	}
	return gone
}

// wants asks the real functions what is to be done.
func (m *model) wants(s scene) []errand {
	if e, ok := m.errands[s]; ok {
		return e
	}
	var out []errand
	add := func(v verb, name string, a arg, says string) {
		e := errand{verb: v, arg: m.arg(a), says: says + " " + name}
		for k := range m.slots {
			if slotName(k) == name {
				e.k = uint8(k)
			}
		}
		if !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	now := m.view(s)
	later := now
	later.Now, later.Own = now.Now.Add(long), now.Own.Add(long)
	for _, v := range []marshal.View{now, later} {
		for _, a := range marshal.Housekeep(v) {
			switch a.Kind {
			case marshal.Create:
				add(create, a.Slot.Name, arg{index: a.Index}, "creates")
			case marshal.Delete:
				add(remove, a.Slot.Name, arg{}, "deletes")
			case marshal.Expire:
				add(clearNomination, a.Slot.Name, arg{}, "ends the nomination of")
			case marshal.Withdraw:
				add(clearNomination, a.Slot.Name, arg{}, "withdraws the nomination of")
			case marshal.SetHold:
				add(setHold, a.Slot.Name, arg{hold: a.Hold}, "sets the hold of")
			default:
				m.fail(fmt.Errorf("asking Housekeep: it wants %v, which the search does not know", a.Kind))
			}
		}
	}
	for _, older := range shuffles(m.nodes) { // whose bid is older is anybody's guess
		v := now
		v.Nodes = slices.Clone(now.Nodes)
		for i := range v.Nodes {
			v.Nodes[i].Pending = epoch().Add(time.Duration(older[nodeNumber(v.Nodes[i].Name)]) * time.Second)
		}
		for _, n := range marshal.Nominate(v) {
			add(nominate, n.Slot, arg{nomination: n}, "nominates "+n.Node+" for")
		}
	}
	for _, l := range marshal.Gone(later) {
		add(freeGone, l.Name, arg{}, "frees for "+l.Holder+", which is gone,")
	}
	m.errands[s] = out
	return out
}

// view makes the View of a scene.
func (m *model) view(s scene) marshal.View {
	v := marshal.View{
		Now: epoch(), Own: epoch(), Groups: []marshal.Group{{Name: group, MaxUnavailable: m.slots}},
		NominationTimeout: nominationTimeout, DeletedGrace: 30 * time.Second,
	}
	if s.paused {
		v.Paused = map[string]string{"": "paused"}
	}
	for n := range m.nodes {
		if s.nodes[n].exists {
			v.Nodes = append(v.Nodes, m.marshalNode(n, s.nodes[n]))
		}
	}
	for k := range m.slots {
		if s.slots[k].lease != 0 {
			v.Slots = append(v.Slots, marshal.Slot(m.slotOf(s.slots[k])))
		}
	}
	return v
}

const nominationTimeout = 30 * time.Second

// marshalNode is what the real code keeps of a Node.
func (m *model) marshalNode(n int, nd node) marshal.Node {
	of := namedNode{n, nd}
	kept, ok := m.kept[of]
	if !ok {
		kept = marshal.NodeOf(m.nodeObject(n, nd))
		m.kept[of] = kept
	}
	return kept
}

// namedNode is a node with its number.
type namedNode struct {
	n  int
	nd node
}

func (m *model) nodeObject(n int, nd node) *corev1.Node {
	ready := corev1.ConditionFalse
	if nd.ready {
		ready = corev1.ConditionTrue
	}
	o := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: nodeName(n), UID: types.UID(nodeUID(n, nd.uid)), Annotations: map[string]string{}},
		Spec:       corev1.NodeSpec{Unschedulable: nd.cordoned},
		Status: corev1.NodeStatus{
			NodeInfo:   corev1.NodeSystemInfo{BootID: bootID(nd.boot)},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}},
		},
	}
	if nd.record != 0 {
		o.Annotations[keys.AnnotationRecord] = m.key(m.records.rows[nd.record])
	}
	if nd.history != 0 {
		o.Annotations[keys.AnnotationHistory] = m.key(m.histories.rows[nd.history])
	}
	if nd.hold {
		o.Annotations[keys.AnnotationHold] = "a person's"
	}
	if nd.acked {
		o.Annotations[keys.AnnotationAcknowledge] = "a person's"
	}
	return o
}
