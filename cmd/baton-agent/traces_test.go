package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"

	"kubebaton.io/baton/agent"
	"kubebaton.io/baton/internal/badline"
)

// TestTraces drives whole agents, on hosts that really reboot as far as they can tell, against a real API server, through
// the histories in which one rule of the cycle or another is all that stands between a cluster and two nodes down, a lost
// cordon, or a slot lost for ever. Each trace brings the situation about and proves that it was reached; what must never
// happen in any of them, its judge knows.
func TestTraces(t *testing.T) {
	t.Parallel()
	for name, trace := range map[string]func(*testing.T){
		"three nodes that want a reboot at once go one after another":                                   oneAfterAnother,
		"an agent that is restarted while its host takes long to stop frees nothing":                    slowStop,
		"a second agent of a host stands by and takes over when the first dies":                         secondAgent,
		"a kill between take and cordon, with the wish gone meanwhile, frees the slot without a cordon": killedBeforeTheCordon,
		"a PATCH that cordons and lands after its sender's successor acted is refused":                  lateCordon,
		"a PATCH that uncordons and lands on a person's cordon is refused":                              lateUncordon,
		"a take that lands when its sender's successor has declined is refused":                         lateTake,
		"a free that lands when another node holds the slot is refused":                                 lateFree,
		"a person's cordon between reading and writing is kept to the end":                              cordonInBetween,
		"a person's uncordon during the drain is a veto":                                                veto,
		"a marshal that does not see a Node come back leaves its slot alone":                            frozenMarshal,
		"a marshal that sees no Node change lets nobody go too many and gets everybody home":            blindMarshal,
		"a held Lease that is deleted by hand stays until its holder is home":                           deletedLease,
		"from two at once to one and back to two, in the middle of a rollout":                           resized,
		"a record that is rubbish is left alone, and the cycle goes on when it is gone":                 rubbish,
		"a reboot that is accepted and never comes is given up, and comes in the next attempt":          neverComes,
		"a holder whose record is of a newer version is left alone, and the others wait for it":         newerVersion,
		"with a clock hours off nobody goes, and somebody does when it is right again":                  clockGate,
		"a clock that goes wrong in a drain gives the node back":                                        clockInTheDrain,
		"a node whose clock is behind after its reboot comes home":                                      func(t *testing.T) { clockAfterTheReboot(t, 3*time.Hour) },
		"a node whose clock is ahead after its reboot comes home":                                       func(t *testing.T) { clockAfterTheReboot(t, -3*time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			trace(t)
		})
	}
}

// What a request is.

func cordons(r *badline.Request) bool { return writesNode(r, `"unschedulable":true`) }

func uncordons(r *badline.Request) bool { return writesNode(r, `"unschedulable":false`) }

func writesNode(r *badline.Request, text string) bool {
	return r.Method == http.MethodPatch && strings.HasPrefix(r.Path, "/api/v1/nodes/") && strings.Contains(string(r.Body), text)
}

// takes is the first write that names a holder, frees one that names none, of a slot.
func takes(r *badline.Request) bool { l := slotIn(r); return l != nil && holderOf(l) != "" }

func frees(r *badline.Request) bool { l := slotIn(r); return l != nil && holderOf(l) == "" }

// slotIn returns the slot that r writes; nil when it writes none.
func slotIn(r *badline.Request) *coordinationv1.Lease {
	if r.Method != http.MethodPut || !strings.Contains(r.Path, "/leases/slot-") {
		return nil
	}
	o, _, err := scheme.Codecs.UniversalDeserializer().Decode(r.Body, nil, nil)
	l, ok := o.(*coordinationv1.Lease)
	if err != nil || !ok {
		return nil
	}
	return l
}

// nodeWatch is the marshal's watch of all Nodes.
func nodeWatch(r *badline.Request) bool {
	return r.Watch && r.Path == "/api/v1/nodes" && r.Query.Get("fieldSelector") == ""
}

// rule makes a machine's next agents start with this rule.
func rule(r badline.Rule) func(*badline.Line) { return func(l *badline.Line) { l.Rule(r) } }

// caught waits for what a trap has caught.
func (s *site) caught(t *badline.Trap, what string) (r *badline.Request) {
	s.Helper()
	s.until(what, func() bool {
		select {
		case r = <-t.Caught():
			return true
		default:
			return false
		}
	})
	return r
}

// refused lets a request that was late arrive, and wants it refused.
func (s *site) refused(r *badline.Request, arrive chan struct{}) {
	s.Helper()
	close(arrive)
	if code := r.Status(s.Context()); code != http.StatusConflict {
		s.Errorf("%s arrived late and was answered with %d, want %d", r, code, http.StatusConflict)
	}
}

// accepted waits until the host of a machine has accepted a reboot.
func (s *site) accepted(m *machine) {
	s.Helper()
	s.until("the host has accepted a reboot", func() bool { return m.reboots() > 0 })
}

// once wants that a machine was rebooted once, and that this was called done once.
func (s *site) once(h *history, machines ...*machine) {
	s.Helper()
	for _, m := range machines {
		if n, done := m.reboots(), len(h.host(m.name).rebooted); n != 1 || done != 1 {
			s.Errorf("%s accepted %d reboots and called %d done, want one", m.name, n, done)
		}
	}
}

func oneAfterAnother(t *testing.T) {
	s, orders := led(t, "three", 2, 1)
	for _, m := range s.hosts[:2] {
		m.sentinel()
		m.start()
	}
	s.annotate(orders.name, "kubebaton.io/hold", "")
	for _, m := range s.hosts {
		s.accepted(m)
	}
	h := s.end()
	s.once(h, s.hosts...)
	if h.most != 1 {
		t.Errorf("the judge saw %d nodes down at once, and should have seen each", h.most)
	}
}

func slowStop(t *testing.T) {
	s := newSite(t, "slow", 1, 1)
	m := s.hosts[0]
	m.lazy = true
	m.sentinel()
	p := m.start()
	s.accepted(m)
	p.kill()
	asked := m.questions()
	p = m.start()
	s.until("the new process has asked the host more than once, and waits", func() bool {
		says := p.says()
		return m.questions() >= asked+2 && strings.Contains(says, "phase: Rebooting") && strings.Contains(says, "logind is preparing for a shutdown")
	})
	if holder := s.judge.holder(s.slot(0)); holder != m.name || !s.judge.node(m.name).Spec.Unschedulable {
		t.Errorf("the slot is held by %q, the node is unschedulable: %t", holder, s.judge.node(m.name).Spec.Unschedulable)
	}
	m.lazy = false
	h := s.end()
	s.once(h, m)
	if n := h.host(m.name).cordons; n != 1 {
		t.Errorf("the node was cordoned %d times", n)
	}
}

func secondAgent(t *testing.T) {
	s := newSite(t, "second", 1, 1)
	m := s.hosts[0]
	trap := badline.Catch(cordons)
	m.wire = rule(trap.Rule)
	first := m.start()
	s.until("the first acts", func() bool { return strings.Contains(first.says(), "no reboot is wanted") })
	m.wire = nil
	second := m.start()
	s.until("the second stands by", func() bool { return strings.Contains(second.says(), "another agent acts on this host") })
	m.sentinel()
	s.caught(trap, "the first is about to cordon")
	for _, r := range second.line.Requests() {
		if r.Method != http.MethodGet {
			t.Errorf("the one that stands by sent %s", r)
		}
	}
	first.kill()
	trap.Release(badline.Drop(badline.Silence))
	s.accepted(m)
	s.once(s.end(), m)
}

func killedBeforeTheCordon(t *testing.T) {
	s := newSite(t, "killed", 1, 1)
	m := s.hosts[0]
	trap := badline.Catch(cordons)
	m.wire = rule(trap.Rule)
	m.sentinel()
	p := m.start()
	s.caught(trap, "it is about to cordon")
	s.until("it has the slot", s.holds(s.slot(0), m.name))
	p.kill()
	trap.Release(badline.Drop(badline.Silence))
	m.unsentinel()
	m.wire = nil
	m.start()
	s.until("the slot is free", s.holds(s.slot(0), ""))
	h := s.end()
	if n := h.host(m.name).cordons; n != 0 || m.reboots() != 0 {
		t.Errorf("%d cordons and %d reboots", n, m.reboots())
	}
}

// The successor frees the slot because a person asks for it on the Lease, which leaves the Node as the late PATCH knows it:
// what refuses that is the successor's fence alone.
func lateCordon(t *testing.T) {
	s := newSite(t, "cordon", 1, 1)
	m := s.hosts[0]
	trap, arrive := badline.Catch(cordons), make(chan struct{})
	m.wire = rule(trap.Rule)
	m.sentinel()
	p := m.start()
	late := s.caught(trap, "it is about to cordon")
	trap.Release(badline.Late(arrive, badline.Silence))
	p.kill()
	release := `{"metadata":{"annotations":{"kubebaton.io/release":"test"}}}`
	if _, err := s.api.CoordinationV1().Leases(s.name).Patch(t.Context(), s.slot(0), types.MergePatchType, []byte(release), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	var freed atomic.Bool
	again := badline.Catch(func(r *badline.Request) bool {
		freed.CompareAndSwap(false, frees(r))
		return freed.Load() && takes(r)
	})
	m.wire = rule(again.Rule)
	m.start()
	s.caught(again, "its successor has freed the slot, and is about to take it again")
	s.refused(late, arrive)
	s.until("nobody held the slot when the cordon arrived", s.holds(s.slot(0), ""))
	again.Release(badline.Pass())
	s.accepted(m)
	s.once(s.end(), m)
}

func lateUncordon(t *testing.T) {
	s := newSite(t, "uncordon", 1, 1)
	m := s.hosts[0]
	trap, arrive := badline.Catch(uncordons), make(chan struct{})
	m.wire = rule(trap.Rule)
	m.sentinel()
	m.start()
	late := s.caught(trap, "it is back and about to uncordon")
	trap.Release(badline.Late(arrive, badline.Silence))
	m.agents[0].kill()
	m.wire = nil
	m.start()
	s.until("its successor is home", s.judge.settled)
	s.cordon(m.name)
	s.refused(late, arrive)
	s.once(s.end(), m)
	if !s.judge.node(m.name).Spec.Unschedulable {
		t.Error("the person's cordon is lost")
	}
}

// led makes a site of some nodes that may be told to go, and one more whose agent is the marshal and does not bid, because
// its node is on hold. Only that one is started.
func led(t *testing.T, name string, nodes, limit int) (s *site, orders *machine) {
	t.Helper()
	s = newSite(t, name, nodes+1, limit)
	orders = s.hosts[nodes]
	s.annotate(orders.name, "kubebaton.io/hold", "it is to order")
	orders.sentinel()
	orders.start()
	s.until("there is a marshal", func() bool { return s.judge.holder("marshal") == orders.name })
	return s, orders
}

// pair is one such node, and the marshal.
func pair(t *testing.T, name string) (s *site, bidder, orders *machine) {
	t.Helper()
	s, orders = led(t, name, 1, 1)
	return s, s.hosts[0], orders
}

func lateTake(t *testing.T) {
	s, m, orders := pair(t, "take")
	trap, arrive := badline.Catch(takes), make(chan struct{})
	m.wire = rule(trap.Rule)
	m.sentinel()
	p := m.start()
	late := s.caught(trap, "it is about to take the slot")
	trap.Release(badline.Late(arrive, badline.Silence))
	p.kill()
	m.unsentinel()
	m.wire = nil
	m.start()
	s.until("its successor wants nothing and has declined", func() bool {
		l := s.judge.slot(s.slot(0))
		return s.record(m.name).Phase == "" && l != nil && l.Labels["kubebaton.io/nominee"] == ""
	})
	s.refused(late, arrive)
	s.annotate(orders.name, "kubebaton.io/hold", "")
	s.accepted(orders)
	h := s.end()
	s.once(h, orders)
	if m.reboots() != 0 || h.host(m.name).cordons != 0 {
		t.Errorf("the node that wanted none was cordoned %d times and rebooted %d times", h.host(m.name).cordons, m.reboots())
	}
}

func lateFree(t *testing.T) {
	s, m, orders := pair(t, "free")
	trap, arrive := badline.Catch(frees), make(chan struct{})
	m.wire = rule(trap.Rule)
	m.sentinel()
	m.start()
	late := s.caught(trap, "it is home and about to free the slot")
	s.until("that is after the reboot", func() bool { return m.reboots() == 1 && !s.judge.node(m.name).Spec.Unschedulable })
	trap.Release(badline.Late(arrive, badline.Silence))
	m.agents[0].kill()
	orders.lazy = true
	s.annotate(orders.name, "kubebaton.io/hold", "")
	m.wire = nil
	m.start()
	s.accepted(orders)
	s.refused(late, arrive)
	s.until("the other holds the slot", s.holds(s.slot(0), orders.name))
	orders.lazy = false
	s.once(s.end(), m, orders)
}

func cordonInBetween(t *testing.T) {
	s := newSite(t, "between", 1, 1)
	m := s.hosts[0]
	trap := badline.Catch(cordons)
	m.wire = rule(trap.Rule)
	m.sentinel()
	m.start()
	held := s.caught(trap, "it is about to cordon")
	s.cordon(m.name)
	trap.Release(badline.Pass())
	if code := held.Status(t.Context()); code != http.StatusConflict {
		t.Errorf("the cordon that was decided on an older Node was answered with %d", code)
	}
	s.accepted(m)
	h := s.end()
	s.once(h, m)
	if !s.judge.node(m.name).Spec.Unschedulable || h.host(m.name).cordons != 0 {
		t.Errorf("unschedulable at the end: %t, cordons of Baton: %d", s.judge.node(m.name).Spec.Unschedulable, h.host(m.name).cordons)
	}
}

func veto(t *testing.T) {
	s := newSite(t, "veto", 1, 1)
	m := s.hosts[0]
	m.lazyPods = true
	s.pod(m.name, "web")
	m.sentinel()
	m.start()
	s.until("the pod was evicted and does not end", func() bool {
		p, err := s.api.CoreV1().Pods(s.name).Get(t.Context(), "web", metav1.GetOptions{})
		return err == nil && p.DeletionTimestamp != nil && s.in(m.name, agent.Draining)()
	})
	s.uncordon(m.name)
	began := time.Now()
	s.until("the slot is free, and the record says why", func() bool {
		r := s.record(m.name)
		return s.judge.holder(s.slot(0)) == "" && r.Phase == agent.Waiting && slices.Equal(r.Reasons, []agent.Reason{agent.ReasonUncordoned}) && !r.Bids
	})
	m.lazyPods = false
	s.until("it has the slot again", s.holds(s.slot(0), m.name))
	if d := time.Since(began); d < 3500*time.Millisecond { // backoff.max is 4 s
		t.Errorf("it took the slot again after %s", d)
	}
	s.accepted(m)
	s.once(s.end(), m)
}

func frozenMarshal(t *testing.T) {
	s, m, orders := pair(t, "frozen")
	m.lazy = true
	m.sentinel()
	m.start()
	s.accepted(m)
	// The marshal has seen for the whole grace period that the Node is gone, and now reads it by quorum.
	looks := func(r *badline.Request) bool { return r.Method == http.MethodGet && r.Path == "/api/v1/nodes/"+m.name }
	trap, line := badline.Catch(looks), orders.agents[0].line
	line.Rule(trap.Rule)
	if err := s.api.CoreV1().Nodes().Delete(t.Context(), m.name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.caught(trap, "the marshal looks whether the Node is gone")
	line.Freeze(nodeWatch)
	m.report(true)
	trap.Release(badline.Pass())
	s.until("it believes again that the Node is gone, and looks again", func() bool {
		n := 0
		for _, r := range line.Requests() {
			if looks(r) {
				n++
			}
		}
		return n >= 2
	})
	if holder := s.judge.holder(s.slot(0)); holder != m.name {
		t.Errorf("the slot is held by %q", holder)
	}
	s.annotate(orders.name, "kubebaton.io/hold", "")
	// It takes long until the kubelet is there.
	m.lazy, m.lazyKubelet = false, true
	s.until("the host is up again, and so is its agent", func() bool { return len(m.agents) > 0 && m.starts == 2 })
	s.until("the agent waits for the kubelet", func() bool { return strings.Contains(m.agents[0].says(), "until the node is Ready on this boot") })
	m.lazyKubelet = false
	m.report(true)
	line.Thaw()
	s.accepted(orders)
	s.end()
}

func blindMarshal(t *testing.T) {
	s, orders := led(t, "blind", 2, 1)
	m, other, line := s.hosts[0], s.hosts[1], orders.agents[0].line
	trap := badline.Catch(takes)
	m.wire, m.lazy = rule(trap.Rule), true
	m.sentinel()
	m.start()
	s.caught(trap, "the first is about to take the slot")
	other.sentinel()
	other.start()
	s.until("the marshal knows of the second bid", func() bool { return orders.agents[0].waiting("slot", 2) })
	line.Freeze(nodeWatch) // so that both bid, and are Ready, as far as it knows
	trap.Release(badline.Pass())
	s.accepted(m)
	m.report(false)
	m.lazy, m.lazyKubelet = false, true
	s.until("the first is up again, and its kubelet is not", func() bool { return m.starts == 2 && s.record(m.name).Phase == agent.Verifying })
	m.report(true)
	s.accepted(other)
	s.until("both are home", func() bool { return s.record(m.name).Phase == "" && s.record(other.name).Phase == "" })
	line.Thaw()
	s.annotate(orders.name, "kubebaton.io/hold", "")
	s.accepted(orders)
	s.once(s.end(), s.hosts...)
}

func deletedLease(t *testing.T) {
	s, m, orders := pair(t, "deleted")
	m.lazy = true
	m.sentinel()
	m.start()
	s.accepted(m)
	s.annotate(orders.name, "kubebaton.io/hold", "")
	before := s.judge.slot(s.slot(0))
	if err := s.api.CoordinationV1().Leases(s.name).Delete(t.Context(), s.slot(0), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.until("the Lease is to go, and is held", func() bool {
		l := s.judge.slot(s.slot(0))
		return l != nil && l.DeletionTimestamp != nil && holderOf(l) == m.name
	})
	s.until("the other waits for it", func() bool { return orders.agents[0].waiting("slot", 1) })
	m.lazy = false
	s.accepted(orders)
	s.until("there is another Lease", func() bool {
		after := s.judge.slot(s.slot(0))
		return after != nil && after.UID != before.UID
	})
	s.once(s.end(), m, orders)
}

func resized(t *testing.T) {
	s, orders := led(t, "resized", 3, 2)
	workers := s.hosts[:3]
	for _, m := range workers {
		m.lazy = true
		m.sentinel()
		m.start()
	}
	var down []*machine
	var third *machine
	s.until("two are on their way", func() bool {
		down, third = nil, nil
		for _, m := range workers {
			if m.reboots() > 0 {
				down = append(down, m)
			} else {
				third = m
			}
		}
		return len(down) == 2
	})
	s.configure(1)
	s.until("the marshal has taken up the configuration", func() bool { return s.told(orders.name, "ConfigurationTakenUp", "") })
	down[0].lazy = false
	s.until("one is home", func() bool {
		return s.record(down[0].name).Phase == "" && s.judge.holder(s.slot(0))+s.judge.holder(s.slot(1)) == down[1].name
	})
	s.allow(1)
	s.until("the third may not go", func() bool {
		p := orders.agents[0] // with two allowed, the pass that sees one slot held nominates for the other
		return p.waiting("slot", 1) && strings.Contains(p.metrics(), fmt.Sprintf("baton_group_slots{group=%q,state=\"held\"} 1\n", s.name))
	})
	if third.reboots() != 0 {
		t.Error("the third went")
	}
	s.allow(2)
	s.configure(2)
	s.accepted(third)
	if s.record(down[1].name).Phase != agent.Rebooting {
		t.Error("the third went only when the second was back")
	}
	s.annotate(orders.name, "kubebaton.io/hold", "")
	for _, m := range workers {
		m.lazy = false
	}
	s.accepted(orders)
	s.once(s.end(), s.hosts...)
}

func rubbish(t *testing.T) {
	s, m, orders := pair(t, "rubbish")
	m.lazy = true
	m.sentinel()
	m.start()
	s.accepted(m)
	s.annotate(orders.name, "kubebaton.io/hold", "")
	s.annotate(m.name, "kubebaton.io/reboot", "{rubbish")
	m.lazy = false
	s.until("the host has rebooted, and its agent says what is wrong", func() bool {
		return m.starts == 2 && len(m.agents) == 1 && strings.Contains(m.agents[0].says(), "the record cannot be read") &&
			strings.Contains(m.agents[0].metrics(), `baton_gate_closed{reason="record"} 1`)
	})
	s.until("people are told", func() bool { return s.told(m.name, "RebootRecordUnreadable", "invalid character") })
	s.until("the other waits", func() bool { return orders.agents[0].waiting("slot", 1) })
	for _, r := range m.agents[0].line.Requests() {
		if r.Method != http.MethodGet && !strings.HasSuffix(r.Path, "/events") {
			t.Errorf("it touched something: %s", r)
		}
	}
	if holder := s.judge.holder(s.slot(0)); holder != m.name || !s.judge.node(m.name).Spec.Unschedulable {
		t.Errorf("the slot is held by %q, unschedulable %t", holder, s.judge.node(m.name).Spec.Unschedulable)
	}
	s.annotate(m.name, "kubebaton.io/reboot", "")
	s.accepted(orders)
	s.once(s.end(), m, orders)
}

func neverComes(t *testing.T) {
	s := newSite(t, "never", 1, 1)
	m := s.hosts[0]
	m.forgets = 1
	m.sentinel()
	m.start()
	s.until("it asks for the reboot", s.in(m.name, agent.Rebooting))
	asked := m.questions()
	s.until("it has given node and slot back, and the record says why", func() bool {
		r := s.record(m.name)
		return r.Phase == agent.Backoff && slices.Equal(r.Reasons, []agent.Reason{agent.ReasonNoReboot}) &&
			s.judge.holder(s.slot(0)) == "" && !s.judge.node(m.name).Spec.Unschedulable
	})
	if m.reboots() != 0 || m.questions() == asked {
		t.Errorf("the host goes down %d times, and was asked %d times whether it does", m.reboots(), m.questions()-asked)
	}
	s.accepted(m)
	if r := s.record(m.name); r.Attempt != 2 {
		t.Errorf("it goes in attempt %d, want 2", r.Attempt)
	}
	h := s.end()
	s.once(h, m)
	if n := h.host(m.name).cordons; n != 2 {
		t.Errorf("the node was cordoned %d times, want once for each attempt", n)
	}
}

// The newer agent is the one that is there until the host goes, and again at the end: it differs in what it calls its record.
// Between them an older one is there, as when an update is taken back.
func newerVersion(t *testing.T) {
	s, m, orders := pair(t, "newer")
	m.lazy = true
	m.sentinel()
	m.start()
	s.accepted(m)
	m.agents[0].kill()
	ours := s.judge.node(m.name).Annotations["kubebaton.io/reboot"]
	theirs := strings.Replace(ours, `"version":1,`, `"version":2,"news":true,`, 1)
	s.annotate(m.name, "kubebaton.io/reboot", theirs)
	line, began := orders.agents[0].line, time.Now()
	s.annotate(orders.name, "kubebaton.io/hold", "")
	m.start()
	m.lazy = false
	s.until("the host has rebooted, and the older agent says what it cannot read", func() bool {
		return m.starts == 3 && len(m.agents) == 1 && strings.Contains(m.agents[0].says(), "version 2: written by a newer version of the agent")
	})
	s.until("the other bids, and waits", func() bool { return s.record(orders.name).Bids && orders.agents[0].waiting("slot", 1) })
	touches := func(r *badline.Request) bool {
		return r.Method != http.MethodGet && (strings.HasPrefix(r.Path, "/api/v1/nodes/"+m.name) || slotIn(r) != nil)
	}
	if all := append(sent(line, touches, began), sent(m.agents[0].line, touches, began)...); len(all) != 0 {
		t.Errorf("somebody touched what the newer one has: %v", all)
	}
	n := s.judge.node(m.name)
	if holder := s.judge.holder(s.slot(0)); holder != m.name || !n.Spec.Unschedulable || n.Annotations["kubebaton.io/reboot"] != theirs {
		t.Errorf("the slot is held by %q, unschedulable %t, the record is %s", holder, n.Spec.Unschedulable, n.Annotations["kubebaton.io/reboot"])
	}
	s.annotate(m.name, "kubebaton.io/reboot", ours)
	s.accepted(orders)
	s.once(s.end(), m, orders)
}

func shifted(d time.Duration) func(*badline.Line) { return func(l *badline.Line) { l.ShiftDate(d) } }

func clockGate(t *testing.T) {
	s := newSite(t, "clock", 1, 1)
	m := s.hosts[0]
	m.wire = shifted(-3 * time.Hour)
	m.sentinel()
	p := m.start()
	s.until("it waits for its clock", func() bool {
		r := s.record(m.name)
		return r.Phase == agent.Waiting && !r.Bids && slices.Contains(r.Reasons, agent.ReasonClock)
	})
	p.line.ShiftDate(0)
	s.accepted(m)
	s.once(s.end(), m)
}

func clockInTheDrain(t *testing.T) {
	s := newSite(t, "drift", 1, 1)
	m := s.hosts[0]
	m.lazyPods = true
	s.pod(m.name, "web")
	m.sentinel()
	p := m.start()
	s.until("it drains", s.in(m.name, agent.Draining))
	p.line.ShiftDate(-3 * time.Hour)
	s.until("the slot is free and the node is back", func() bool {
		r := s.record(m.name)
		return s.judge.holder(s.slot(0)) == "" && r.Phase == agent.Waiting && slices.Contains(r.Reasons, agent.ReasonClock) &&
			!s.judge.node(m.name).Spec.Unschedulable
	})
	p.line.ShiftDate(0)
	m.lazyPods = false
	s.accepted(m)
	s.once(s.end(), m)
}

func clockAfterTheReboot(t *testing.T, off time.Duration) {
	s := newSite(t, "home", 1, 1)
	m := s.hosts[0]
	m.lazy = true
	m.sentinel()
	m.start()
	s.accepted(m)
	m.wire = shifted(off)
	m.lazy = false
	s.once(s.end(), m)
	if n := len(m.agents[0].line.Requests()); n > 100 {
		t.Errorf("it took %d requests to come home", n)
	}
}
