package marshal

import (
	"testing"
	"time"
)

// What the peers of docs/reliability.md get wrong, by its number there.

func TestPeer4_NoTimeStealsASlotAndNoGhostKeepsOne(t *testing.T) {
	silent := held("workers", 0, "x")
	silent.Renewed = zero.Add(-365 * 24 * time.Hour)
	bids := []Node{bidder("a", 9), bidder("b", 1), idle("x", inPhase(phaseRebooting, "slot-workers-0"), notReady)}
	v := viewOf(workers(1), bids, []Slot{silent})
	v.Away = map[string]time.Time{"uid-x": zero.Add(-time.Hour)}
	if got := Gone(v); len(got) != 0 {
		t.Errorf("a slot whose holder is silent for a year is freed: %v", got)
	}
	if got := Nominate(v); len(got) != 0 {
		t.Errorf("somebody goes beside a holder that is silent: %v", got)
	}
	v.Nodes = bids[:2] // the Node was deleted
	if got := Gone(v); len(got) != 1 {
		t.Error("the slot of a Node that is gone is kept")
	}
	if got := Nominate(v); len(got) != 0 {
		t.Errorf("somebody goes before the slot is freed: %v", got)
	}
	v.Slots = slots("workers", 1)
	if got := Nominate(v); len(got) != 1 || got[0].Node != "a" {
		t.Errorf("nobody goes once it is: %v", got)
	}
}

func TestPeer13_NoNodeGoesWhereOneIsMissingAlready(t *testing.T) {
	control := Group{Name: "control-plane", MaxUnavailable: 1, Match: func(l map[string]string) bool { _, ok := l["cp"]; return ok }}
	cp := func(n *Node) { n.Labels = map[string]string{"cp": ""} }
	for _, c := range []struct {
		name string
		view View
		goes int
	}{
		{"a worker that is not Ready keeps the others", viewOf(workers(1), []Node{bidder("a", 1), idle("b", notReady), idle("c")}, slots("workers", 1)), 0},
		{"one that people cordoned does, too", viewOf(workers(1), []Node{bidder("a", 1), idle("b", cordoned), idle("c")}, slots("workers", 1)), 0},
		{"of three control-plane nodes none goes while one is not Ready", viewOf(control,
			[]Node{bidder("a", 1, cp), idle("b", cp, notReady), idle("c", cp)}, slots("control-plane", 1)), 0},
		{"the last healthy control-plane node does not go", viewOf(control,
			[]Node{bidder("a", 1, cp), idle("b", cp, notReady), idle("c", cp, notReady)}, slots("control-plane", 1)), 0},
		{"nor when people hold the one that is not Ready", viewOf(control,
			[]Node{bidder("a", 1, cp), idle("b", cp, notReady, onHold), idle("c", cp)}, slots("control-plane", 1)), 0},
		{"nor when people hold the other of two", viewOf(control, []Node{bidder("a", 1, cp), idle("b", cp, notReady, onHold)}, slots("control-plane", 1)), 0},
		{"nor does one that people cordoned while another is not Ready", viewOf(control,
			[]Node{bidder("a", 1, cp, cordoned), idle("b", cp, notReady), idle("c", cp)}, slots("control-plane", 1)), 0},
		{"though it may while the others are", viewOf(control,
			[]Node{bidder("a", 1, cp, cordoned), idle("b", cp), idle("c", cp)}, slots("control-plane", 1)), 1},
		{"but one may go when they hold one that is only cordoned", viewOf(control,
			[]Node{bidder("a", 1, cp), idle("b", cp, cordoned, onHold), idle("c", cp)}, slots("control-plane", 1)), 1},
		{"a control-plane node that is the only one may go", viewOf(control, []Node{bidder("a", 1, cp)}, slots("control-plane", 1)), 1},
		{"and when all are Ready, one goes", viewOf(control, []Node{bidder("a", 1, cp), bidder("b", 2, cp), idle("c", cp)}, slots("control-plane", 1)), 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Nominate(c.view); len(got) != c.goes {
				t.Errorf("%v go, want %d", got, c.goes)
			}
		})
	}
}
