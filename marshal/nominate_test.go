package marshal

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var zero = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// bidder is a healthy node that waits with every gate open, since so many minutes before zero.
func bidder(name string, minutes int, change ...func(*Node)) Node {
	n := Node{
		Name: name, UID: "uid-" + name, BootID: "boot-" + name, Ready: true, Phase: phaseWaiting, Cycle: "cycle-" + name,
		Attempt: 1, Bids: true, Pending: zero.Add(-time.Duration(minutes) * time.Minute),
	}
	for _, c := range change {
		c(&n)
	}
	return n
}

func idle(name string, change ...func(*Node)) Node {
	n := Node{Name: name, UID: "uid-" + name, BootID: "boot-" + name, Ready: true}
	for _, c := range change {
		c(&n)
	}
	return n
}

func notReady(n *Node) { n.Ready = false }
func cordoned(n *Node) { n.Unschedulable = true }
func deleting(n *Node) { n.Deleting = true }
func onHold(n *Node)   { n.Hold = "do not touch" }
func survivor(n *Node) { n.Survived = true }
func alien(n *Node)    { n.Foreign = true }
func gateShut(n *Node) { n.Bids, n.Reason = false, "window" }
func inPhase(phase, slot string) func(*Node) {
	return func(n *Node) { n.Phase, n.Slot, n.Bids, n.Unschedulable = phase, slot, false, true }
}

func free(group string, i int) Slot {
	return Slot{Name: SlotName(group, i), ResourceVersion: "7", Group: group}
}

func held(group string, i int, node string) Slot {
	s := free(group, i)
	s.Holder, s.HolderUID, s.Nominee, s.BootID = node, "uid-"+node, "uid-"+node, "boot-"+node
	return s
}

func offered(group string, i int, node string, until time.Duration) Slot {
	s := free(group, i)
	s.Nominee, s.BidCycle, s.BidAttempt, s.BidUntil = "uid-"+node, "cycle-"+node, 1, zero.Add(until)
	return s
}

func slots(group string, n int) []Slot {
	var out []Slot
	for i := range n {
		out = append(out, free(group, i))
	}
	return out
}

func viewOf(g Group, nodes []Node, s []Slot) View {
	return View{Now: zero, Own: zero, Groups: []Group{g}, Nodes: nodes, Slots: s, NominationTimeout: 30 * time.Second}
}

func workers(n int) Group { return Group{Name: "workers", MaxUnavailable: n} }

func TestNominate(t *testing.T) {
	control := Group{Name: "control-plane", MaxUnavailable: 1, Match: func(l map[string]string) bool { _, ok := l["cp"]; return ok }}
	cp := func(n *Node) { n.Labels = map[string]string{"cp": ""} }
	for _, c := range []struct {
		name string
		view View
		want string // slot=node, in order
	}{
		{"nobody bids, nobody is nominated", viewOf(workers(1), []Node{idle("a")}, slots("workers", 1)), ""},
		{
			"the oldest bid goes first", viewOf(workers(1), []Node{bidder("a", 1), bidder("b", 9), bidder("c", 5)}, slots("workers", 1)),
			"slot-workers-0=b",
		},
		{
			"of equally old bids the name decides", viewOf(workers(2), []Node{bidder("c", 1), bidder("b", 1), bidder("a", 1)}, slots("workers", 2)),
			"slot-workers-0=a slot-workers-1=b",
		},
		{"the marshal's own node goes last though its bid is the oldest", func() View {
			v := viewOf(workers(2), []Node{bidder("a", 9), bidder("b", 2), bidder("c", 1)}, slots("workers", 2))
			v.Self = "a"
			return v
		}(), "slot-workers-0=b slot-workers-1=c"},
		{"but not for ever, though new ones keep coming", func() View {
			v := viewOf(workers(1), []Node{bidder("a", 24*60+9), bidder("b", 2), bidder("c", 1)}, slots("workers", 1))
			v.Self = "a"
			return v
		}(), "slot-workers-0=a"},
		{"the marshal's own node goes when it is the only one", func() View {
			v := viewOf(workers(1), []Node{bidder("a", 9), idle("b")}, slots("workers", 1))
			v.Self = "a"
			return v
		}(), "slot-workers-0=a"},
		{"nobody goes while a node is away with its pods, also of another group", View{
			Now: zero, Own: zero, NominationTimeout: 30 * time.Second,
			Groups: []Group{control, workers(2)}, Slots: append(slots("control-plane", 1), held("workers", 0, "x"), free("workers", 1)),
			Nodes: []Node{idle("x", inPhase(phaseRebooting, "slot-workers-0"), func(n *Node) { n.Stays = true }), bidder("a", 1), bidder("c", 1, cp)},
		}, ""},
		{"but not for one that failed, which the group bears", func() View {
			g := workers(2)
			g.MaxFailed = 1
			return viewOf(g, []Node{idle("x", inPhase(phaseFailed, "slot-workers-0"), func(n *Node) { n.Stays = true }), bidder("a", 1)},
				[]Slot{held("workers", 0, "x"), free("workers", 1)})
		}(), "slot-workers-1=a"},
		{"a held slot counts", viewOf(workers(2), []Node{idle("x", inPhase(phaseDraining, "slot-workers-0")), bidder("a", 1), bidder("b", 1)},
			[]Slot{held("workers", 0, "x"), free("workers", 1)}), "slot-workers-1=a"},
		{"a holder that is cordoned and not Ready counts once", viewOf(workers(2),
			[]Node{idle("x", inPhase(phaseRebooting, "slot-workers-0"), notReady), bidder("a", 1), idle("b")},
			[]Slot{held("workers", 0, "x"), free("workers", 1)}), "slot-workers-1=a"},
		{"a holder whose Node is missing counts", viewOf(workers(2), []Node{bidder("a", 2), bidder("b", 1), idle("c")},
			[]Slot{held("workers", 0, "ghost"), free("workers", 1)}), "slot-workers-1=a"},
		{"a live nominee counts and is not nominated again", viewOf(workers(2), []Node{bidder("a", 3), bidder("b", 2), bidder("c", 1)},
			[]Slot{free("workers", 0), offered("workers", 1, "a", time.Second)}), "slot-workers-0=b"},
		{"a nomination that is over counts until it is cleared", viewOf(workers(1), []Node{bidder("a", 3), bidder("b", 2)},
			[]Slot{offered("workers", 0, "a", -time.Second)}), ""},
		{"a node that is not Ready uses up the budget", viewOf(workers(1), []Node{bidder("a", 1), idle("b", notReady)}, slots("workers", 1)), ""},
		{"a node that somebody cordoned uses up the budget", viewOf(workers(1), []Node{bidder("a", 1), idle("b", cordoned)}, slots("workers", 1)), ""},
		{
			"a bidder that is cordoned already costs nothing", viewOf(workers(1), []Node{bidder("a", 9), bidder("b", 1, cordoned)}, slots("workers", 1)),
			"slot-workers-0=b",
		},
		{"a cordoned bidder needs a slot like everybody else", viewOf(workers(1),
			[]Node{idle("x", inPhase(phaseDraining, "slot-workers-0")), bidder("b", 1, cordoned)}, []Slot{held("workers", 0, "x")}), ""},
		{"an active record that names a missing slot counts as held", viewOf(workers(2),
			[]Node{idle("x", inPhase(phaseRebooting, "slot-workers-1")), idle("y"), bidder("a", 2), bidder("b", 1)}, slots("workers", 2)), "slot-workers-0=a"},
		{"an active record whose slot another holds counts beside it", viewOf(workers(2),
			[]Node{idle("x", inPhase(phaseRebooting, "slot-workers-0")), idle("y", inPhase(phaseDraining, "slot-workers-0")), bidder("a", 2)},
			[]Slot{held("workers", 0, "y"), free("workers", 1)}), ""},
		{"an active record whose slot is missing takes a place from one that is cordoned already", viewOf(workers(1),
			[]Node{idle("x", inPhase(phaseRebooting, "slot-workers-0")), bidder("b", 1, cordoned)}, slots("workers", 1)), ""},
		{"an active record counts in its slot's group though its node is in none now", viewOf(
			Group{Name: "workers", MaxUnavailable: 1, Match: func(l map[string]string) bool { return l["out"] == "" }},
			[]Node{idle("x", inPhase(phaseRebooting, "slot-workers-0"), func(n *Node) { n.Labels = map[string]string{"out": "yes"} }), bidder("b", 1)},
			slots("workers", 1)), ""},
		{"a slot that is being deleted is not nominated", viewOf(workers(1), []Node{bidder("a", 1)}, func() []Slot {
			s := free("workers", 0)
			s.Deleting = true
			return []Slot{s}
		}()), ""},
		{"a surplus slot is not nominated", viewOf(workers(1), []Node{bidder("a", 2), bidder("b", 1)}, []Slot{free("workers", 1), free("workers", 7)}), ""},
		{"a bidder on hold is left alone", viewOf(workers(1), []Node{bidder("a", 2, onHold), bidder("b", 1)}, slots("workers", 1)), "slot-workers-0=b"},
		{
			"a node on hold that is not Ready uses up no budget", viewOf(workers(2), []Node{idle("a", onHold, notReady), bidder("b", 1)}, slots("workers", 1)),
			"slot-workers-0=b",
		},
		{
			"nor does one on hold that is cordoned, also where one at most may be missing", viewOf(workers(1), []Node{idle("a", onHold, cordoned), bidder("b", 1)}, slots("workers", 1)),
			"slot-workers-0=b",
		},
		{"a nominee of a group that was renamed uses up the budget of the new one", viewOf(Group{Name: "pool", MaxUnavailable: 1},
			[]Node{bidder("a", 9), bidder("b", 1)}, []Slot{offered("workers", 0, "a", time.Second), free("pool", 0)}), ""},
		{"and so does a holder", viewOf(Group{Name: "pool", MaxUnavailable: 1},
			[]Node{bidder("a", 9), bidder("b", 1)}, []Slot{held("workers", 0, "a"), free("pool", 0)}), ""},
		{"one that changed groups uses up the budget of both", func() View {
			blue := func(n *Node) { n.Labels = map[string]string{"g": "blue"} }
			v := viewOf(Group{Name: "blue", MaxUnavailable: 1, Match: func(l map[string]string) bool { return l["g"] == "blue" }},
				[]Node{bidder("a", 9, blue), bidder("b", 1, blue), bidder("c", 1)}, []Slot{held("workers", 0, "a"), free("blue", 0), free("workers", 1)})
			v.Groups = append(v.Groups, workers(1))
			return v
		}(), ""},
		{"a node on hold that holds a slot counts", viewOf(workers(1), []Node{idle("a", onHold, inPhase(phaseDraining, "slot-workers-0")), bidder("b", 1)},
			[]Slot{held("workers", 0, "a")}), ""},
		{"a node whose gates are shut is passed over", viewOf(workers(1), []Node{bidder("a", 2, gateShut), bidder("b", 1)}, slots("workers", 1)), "slot-workers-0=b"},
		{"a bidder that is not Ready is passed over", viewOf(workers(2), []Node{bidder("a", 2, notReady), bidder("b", 1)}, slots("workers", 2)), "slot-workers-0=b"},
		{"a Node that is being deleted is passed over", viewOf(workers(1), []Node{bidder("a", 2, deleting), bidder("b", 1)}, slots("workers", 1)), "slot-workers-0=b"},
		{
			"a virtual node is neither nominated nor counted", viewOf(workers(1), []Node{bidder("a", 2, alien, notReady), bidder("b", 1)}, slots("workers", 1)),
			"slot-workers-0=b",
		},
		{"a bid that is passed over waits", func() View {
			v := viewOf(workers(1), []Node{bidder("a", 9), bidder("b", 1)}, slots("workers", 1))
			v.Penalty = map[string]time.Time{"uid-a": zero.Add(time.Second)}
			return v
		}(), "slot-workers-0=b"},
		{"a bid whose wait is over is first again", func() View {
			v := viewOf(workers(1), []Node{bidder("a", 9), bidder("b", 1)}, slots("workers", 1))
			v.Penalty = map[string]time.Time{"uid-a": zero}
			return v
		}(), "slot-workers-0=a"},
		{"a node that was registered again does not bid for a second slot", viewOf(workers(2), []Node{bidder("a", 9), idle("b")}, func() []Slot {
			s := held("workers", 0, "a")
			s.HolderUID = "uid-before"
			return []Slot{s, free("workers", 1)}
		}()), ""},
		{
			"a node that no group selects is not nominated", viewOf(control, []Node{bidder("a", 9), bidder("b", 1, cp)}, slots("control-plane", 1)),
			"slot-control-plane-0=b",
		},
		{"the first group that matches wins", func() View {
			v := viewOf(control, []Node{bidder("a", 9, cp), bidder("b", 1)}, append(slots("control-plane", 1), slots("workers", 1)...))
			v.Groups = append(v.Groups, workers(1))
			return v
		}(), "slot-control-plane-0=a slot-workers-0=b"},
		{"another control-plane node that is not Ready stops the group", viewOf(control, []Node{bidder("a", 9, cp), idle("b", cp, notReady)},
			slots("control-plane", 1)), ""},
		{"a group of one node may go", viewOf(control, []Node{bidder("a", 9, cp)}, slots("control-plane", 1)), "slot-control-plane-0=a"},
		{"per cent is rounded down", viewOf(Group{Name: "workers", MaxUnavailablePercent: 50}, []Node{bidder("a", 3), bidder("b", 2), bidder("c", 1)},
			slots("workers", 3)), "slot-workers-0=a"},
		{"a paused group is not nominated", func() View {
			v := viewOf(workers(1), []Node{bidder("a", 1)}, slots("workers", 1))
			v.Paused = map[string]string{"workers": ""}
			return v
		}(), ""},
		{"the pause of another group does not matter", func() View {
			v := viewOf(workers(1), []Node{bidder("a", 1)}, slots("workers", 1))
			v.Paused = map[string]string{"control-plane": ""}
			return v
		}(), "slot-workers-0=a"},
		{"a failed node halts its group", viewOf(workers(3), []Node{bidder("a", 1), idle("x", inPhase(phaseFailed, "slot-workers-0")), idle("y")},
			[]Slot{held("workers", 0, "x"), free("workers", 1), free("workers", 2)}), ""},
		{"as many failed nodes as maxFailed do not halt", viewOf(Group{Name: "workers", MaxUnavailable: 3, MaxFailed: 1},
			[]Node{bidder("a", 1), idle("x", inPhase(phaseFailed, "slot-workers-0")), idle("y")},
			[]Slot{held("workers", 0, "x"), free("workers", 1), free("workers", 2)}), "slot-workers-1=a"},
		{"a sentinel that survived halts the group", viewOf(workers(1), []Node{bidder("a", 1), bidder("b", 5, survivor)}, slots("workers", 1)), ""},
		{"a drain that gave up does not halt", viewOf(workers(1), []Node{bidder("a", 1), idle("b", func(n *Node) { n.Phase = phaseBackoff })},
			slots("workers", 1)), "slot-workers-0=a"},
		{"without a configuration nobody is nominated", func() View {
			v := viewOf(workers(1), []Node{bidder("a", 1)}, slots("workers", 1))
			v.Groups = nil
			return v
		}(), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, n := range Nominate(c.view) {
				got = append(got, n.Slot+"="+n.Node)
			}
			if diff := cmp.Diff(c.want, strings.Join(got, " ")); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("a nomination names the bid and its end", func(t *testing.T) {
		got := Nominate(viewOf(workers(1), []Node{bidder("a", 1, func(n *Node) { n.Attempt = 3 })}, slots("workers", 1)))
		want := []Nomination{{Slot: "slot-workers-0", Node: "a", UID: "uid-a", Cycle: "cycle-a", Attempt: 3, Until: zero.Add(30 * time.Second)}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a node that is not back in time halts its group, and no longer when it is", func(t *testing.T) {
		g := Group{Name: "workers", MaxUnavailable: 2, RebootTimeout: time.Minute}
		v := viewOf(g, []Node{bidder("a", 1), idle("x", inPhase(phaseRebooting, "slot-workers-0")), idle("y")}, []Slot{held("workers", 0, "x"), free("workers", 1)})
		for _, c := range []struct {
			away time.Duration
			want int
		}{{59 * time.Second, 1}, {61 * time.Second, 0}} {
			v.Away = map[string]time.Time{"uid-x": zero.Add(-c.away)}
			if got := len(Nominate(v)); got != c.want {
				t.Errorf("away for %v: %d nominations, want %d", c.away, got, c.want)
			}
		}
		v.Nodes[1].Phase = phaseVerifying
		if got := len(Nominate(v)); got != 1 {
			t.Errorf("back and Ready: %d nominations, want 1", got)
		}
	})
}

func TestVerdicts(t *testing.T) {
	many := Group{Name: "workers", MaxUnavailable: 2}
	control := Group{Name: "workers", MaxUnavailable: 1, Match: func(l map[string]string) bool { return l["w"] != "" }}
	for _, c := range []struct {
		name         string
		view         View
		node, reason string
		names        string // in the message
	}{
		{"budget names the nodes that use it up", viewOf(many, []Node{bidder("a", 1), idle("x", cordoned), idle("y", notReady)}, slots("workers", 2)), "a", "budget", "x, y"},
		{"no slot is there", viewOf(many, []Node{bidder("a", 1), idle("y"), idle("z")}, nil), "a", "slot", "not there yet"},
		{"the slot hangs", viewOf(workers(1), []Node{bidder("a", 1), idle("y")}, func() []Slot {
			s := free("workers", 0)
			s.Deleting = true
			return []Slot{s}
		}()), "a", "slot", "slot-workers-0 is being deleted"},
		{"no slot is free", viewOf(workers(1), []Node{bidder("a", 1), idle("x", inPhase(phaseDraining, "slot-workers-0"))}, []Slot{held("workers", 0, "x")}), "a", "slot", "taken: x"},
		{"so does a node that is away for too long, in the only slot", lost(viewOf(Group{Name: "workers", MaxUnavailable: 1, MaxFailed: 1},
			[]Node{bidder("a", 1), gone("x"), idle("y")}, []Slot{held("workers", 0, "x")}), "x"), "a", "budget", "x"},
		{"a hold gives its own reason", viewOf(many, []Node{bidder("a", 1, onHold)}, slots("workers", 2)), "a", "hold", "do not touch"},
		{"the agent's own reason is repeated", viewOf(many, []Node{bidder("a", 1, gateShut)}, slots("workers", 2)), "a", "window", ""},
		{"a halt names the failed node", viewOf(many, []Node{bidder("a", 1), idle("x", inPhase(phaseFailed, "")), idle("y")}, slots("workers", 2)), "a", "halted", "x"},
		{"after a restore from a backup nobody goes for a while", func() View {
			v := viewOf(many, []Node{bidder("a", 1), idle("y"), idle("z")}, slots("workers", 2))
			v.Unsure = zero.Add(time.Second)
			return v
		}(), "a", "restored", "backup"},
		{"and goes when it is over", func() View {
			v := viewOf(many, []Node{bidder("a", 1), idle("y"), idle("z")}, slots("workers", 2))
			v.Unsure = zero
			return v
		}(), "a", "", ""},
		{"nobody's node", viewOf(control, []Node{bidder("a", 1)}, slots("workers", 1)), "a", "group", "no group"},
		{"a nominated one has none", viewOf(many, []Node{bidder("a", 1)}, slots("workers", 2)), "a", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, verdicts := look(c.view).decide()
			for _, v := range verdicts {
				if v.Node == c.node {
					if v.Reason != c.reason || !strings.Contains(v.Message, c.names) {
						t.Errorf("got %+v, want reason %q and a message with %q", v, c.reason, c.names)
					}
					return
				}
			}
			t.Errorf("no verdict on %q in %+v", c.node, verdicts)
		})
	}
}

func TestHousekeep(t *testing.T) {
	failed := idle("x", inPhase(phaseFailed, "slot-workers-0"))
	braked := func(s Slot, why string) Slot { s.Hold = why; return s }
	paused := func(v View) View { v.Paused = map[string]string{"": "storm"}; return v }
	for _, c := range []struct {
		name string
		view View
		want string
	}{
		{"a group's missing slots are made", viewOf(workers(2), []Node{idle("a"), idle("b")}, slots("workers", 1)), "create slot-workers-1"},
		{"a group without nodes gets none", viewOf(Group{Name: "none", Match: func(map[string]string) bool { return false }}, []Node{idle("a")}, nil), ""},
		{"there are never more slots than nodes", viewOf(workers(50), []Node{idle("a"), idle("b")}, nil), "create slot-workers-0, create slot-workers-1"},
		{"empty surplus slots are deleted", viewOf(workers(1), []Node{idle("a")}, slots("workers", 2)), "delete slot-workers-1"},
		{"a held surplus slot stays", viewOf(workers(1), []Node{idle("a"), idle("b")}, []Slot{free("workers", 0), held("workers", 1, "b")}), ""},
		{"a nominated surplus slot stays while its nomination lasts", viewOf(workers(1), []Node{idle("a"), bidder("b", 1)},
			[]Slot{free("workers", 0), offered("workers", 1, "b", time.Second)}), ""},
		{
			"the empty slots of a group that is no more are deleted", viewOf(workers(1), []Node{idle("a")}, []Slot{free("old", 0), free("workers", 0), held("old", 1, "z")}),
			"delete slot-old-0",
		},
		{"without a configuration nothing is deleted", func() View {
			v := viewOf(workers(1), []Node{idle("a")}, slots("workers", 3))
			v.Groups = nil
			return v
		}(), ""},
		{"a nomination that is over is cleared", viewOf(workers(1), []Node{bidder("a", 1)}, []Slot{offered("workers", 0, "a", 0)}), "expire slot-workers-0"},
		{"one that claims to last an hour is over", viewOf(workers(1), []Node{bidder("a", 1)}, []Slot{offered("workers", 0, "a", time.Hour)}), "expire slot-workers-0"},
		{"a live one is left alone", viewOf(workers(1), []Node{bidder("a", 1)}, []Slot{offered("workers", 0, "a", time.Second)}), ""},
		{
			"that of a node which does not bid any more is cleared", viewOf(workers(1), []Node{bidder("a", 1, gateShut)}, []Slot{offered("workers", 0, "a", time.Second)}),
			"withdraw slot-workers-0",
		},
		{"that of another bid of the node is cleared", viewOf(workers(1), []Node{bidder("a", 1, func(n *Node) { n.Attempt = 2 })},
			[]Slot{offered("workers", 0, "a", time.Second)}), "withdraw slot-workers-0"},
		{"that of a group which is renamed is cleared", viewOf(Group{Name: "pool", MaxUnavailable: 1}, []Node{bidder("a", 1)},
			[]Slot{offered("workers", 0, "a", time.Second), free("pool", 0)}), "withdraw slot-workers-0"},
		{"that of a node which belongs to another group now is cleared", func() View {
			v := viewOf(Group{Name: "blue", Match: func(l map[string]string) bool { return l["g"] == "blue" }}, []Node{bidder("a", 1), idle("b")},
				[]Slot{offered("workers", 0, "a", time.Second), free("blue", 0)})
			v.Groups = append(v.Groups, workers(1))
			v.Nodes[0].Labels = map[string]string{"g": "blue"}
			return v
		}(), "withdraw slot-workers-0"},
		{"without a configuration a live one is left alone", func() View {
			v := viewOf(workers(1), []Node{bidder("a", 1)}, []Slot{offered("workers", 0, "a", time.Second)})
			v.Groups = nil
			return v
		}(), ""},
		{"that of a Node which is not there is cleared", viewOf(workers(1), []Node{idle("b")}, []Slot{offered("workers", 0, "a", time.Second)}), "withdraw slot-workers-0"},
		{"the nominee's name on a held slot is no nomination", viewOf(workers(1), []Node{idle("a", inPhase(phaseDraining, "slot-workers-0"))},
			[]Slot{held("workers", 0, "a")}), ""},
		{
			"a pause holds who has a slot or a nomination, and no empty slot", paused(viewOf(workers(3),
				[]Node{idle("x", inPhase(phaseDraining, "slot-workers-0")), bidder("a", 1), idle("b")},
				[]Slot{held("workers", 0, "x"), offered("workers", 1, "a", time.Second), free("workers", 2)})),
			"hold slot-workers-0 paused: storm, hold slot-workers-1 paused: storm",
		},
		{"a hold that is there already is not written again", paused(viewOf(workers(1), []Node{idle("x", inPhase(phaseDraining, "slot-workers-0"))},
			[]Slot{braked(held("workers", 0, "x"), "paused: storm")})), ""},
		{"a hold is lifted when the pause is over", viewOf(workers(1), []Node{idle("x", inPhase(phaseDraining, "slot-workers-0"))},
			[]Slot{braked(held("workers", 0, "x"), "paused: storm")}), "hold slot-workers-0 "},
		{
			"a hold left on a slot that was freed is lifted", paused(viewOf(workers(1), []Node{idle("x")}, []Slot{braked(free("workers", 0), "paused: storm")})),
			"hold slot-workers-0 ",
		},
		{"a halt holds the others of the group", viewOf(workers(2), []Node{failed, idle("y", inPhase(phaseDraining, "slot-workers-1"))},
			[]Slot{held("workers", 0, "x"), held("workers", 1, "y")}), "hold slot-workers-0 halted: x, hold slot-workers-1 halted: x"},
		{
			"a slot of an earlier Node on the same boot is left to the agent that is there", viewOf(workers(1),
				[]Node{idle("a", func(n *Node) { n.UID = "new" })}, []Slot{held("workers", 0, "a")}), "",
		},
		{"one that is gone since, is not", viewOf(workers(1), []Node{idle("a", func(n *Node) { n.UID, n.BootID = "new", "boot-2" })},
			[]Slot{held("workers", 0, "a")}), ""},
		{"a node that changed groups in its cycle halts the group of its slot", func() View {
			v := viewOf(Group{Name: "blue", MaxUnavailable: 2, Match: func(l map[string]string) bool { return l["g"] == "blue" }}, []Node{
				failed,
				idle("y", inPhase(phaseDraining, "slot-workers-1")),
			}, []Slot{held("workers", 0, "x"), held("workers", 1, "y")})
			v.Nodes[0].Labels = map[string]string{"g": "blue"}
			v.Groups = append(v.Groups, Group{Name: "workers", MaxUnavailable: 2})
			return v
		}(), "hold slot-workers-0 halted: x, hold slot-workers-1 halted: x, create slot-blue-0"},
		{
			"a group that was renamed in a rollout halts too", viewOf(workers(2), []Node{failed, idle("y", inPhase(phaseDraining, "slot-old-1"))},
				[]Slot{held("old", 0, "x"), held("old", 1, "y"), free("workers", 0), free("workers", 1)}), "hold slot-old-0 halted: x, hold slot-old-1 halted: x",
		},
		{
			"the pause of its old name holds it as well", func() View {
				v := viewOf(workers(1), []Node{idle("y", inPhase(phaseDraining, "slot-old-0"))}, []Slot{held("old", 0, "y"), free("workers", 0)})
				v.Paused = map[string]string{"old": "storm"}
				return v
			}(), "hold slot-old-0 paused: storm",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, a := range Housekeep(c.view) {
				line := a.Kind.String() + " " + a.Slot.Name
				switch a.Kind {
				case SetHold:
					line += " " + a.Hold
				case Create, Delete, Expire, Withdraw:
				}
				got = append(got, line)
			}
			if diff := cmp.Diff(c.want, strings.Join(got, ", ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestGone(t *testing.T) {
	for _, c := range []struct {
		name string
		node []Node
		want bool
	}{
		{"a Node that is there is not gone", []Node{idle("a")}, false},
		{"a Node that is not Ready is not gone", []Node{idle("a", notReady)}, false},
		{"a Node that is missing is gone", []Node{idle("b")}, true},
		{"a Node registered again on the same boot is not gone", []Node{idle("a", func(n *Node) { n.UID = "new" })}, false},
		{"a Node registered again after another boot is gone", []Node{idle("a", func(n *Node) { n.UID, n.BootID = "new", "boot-2" })}, true},
		{"a Node registered again that does not tell its boot is not gone", []Node{idle("a", func(n *Node) { n.UID, n.BootID = "new", "" })}, false},
		{"the same Node after another boot is not gone", []Node{idle("a", func(n *Node) { n.BootID = "boot-2" })}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Gone(viewOf(workers(1), c.node, []Slot{held("workers", 0, "a"), free("workers", 1)}))
			if (len(got) == 1) != c.want {
				t.Errorf("got %v, want gone %v", got, c.want)
			}
		})
	}
}

func TestHeir(t *testing.T) {
	for _, c := range []struct {
		name string
		view View
		want string
	}{
		{"nobody waits", viewOf(workers(1), []Node{idle("a"), bidder("me", 1)}, nil), ""},
		{"of those that wait the last in the queue", viewOf(workers(1), []Node{bidder("a", 9), bidder("b", 1), bidder("c", 5), bidder("me", 0)}, nil), "b"},
		{"not one that is invited when another waits", viewOf(workers(1), []Node{bidder("a", 1), bidder("b", 9)},
			[]Slot{offered("workers", 0, "a", time.Second)}), "b"},
		{"not one that is not Ready", viewOf(workers(1), []Node{bidder("a", 1, notReady), bidder("b", 9)}, nil), "b"},
		{"one on hold waits longest and is as good as any", viewOf(workers(1), []Node{bidder("a", 1, onHold), bidder("b", 9)}, nil), "a"},
		{"one in Backoff when nobody waits", viewOf(workers(1), []Node{idle("a", func(n *Node) { n.Phase = phaseBackoff }), idle("b", inPhase(phaseDraining, ""))}, nil), "a"},
		{"not one that has the slot already", viewOf(workers(1), []Node{bidder("a", 1)}, []Slot{held("workers", 0, "a")}), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.view.Self = "me"
			if got := heir(c.view); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestStanding(t *testing.T) {
	inBackoff := func(n *Node) { n.Phase = phaseBackoff }
	v := viewOf(workers(3), []Node{
		idle("a"), bidder("b", 1), bidder("c", 1, gateShut), bidder("d", 1, onHold), idle("e", inBackoff), bidder("f", 1), // these five and one more
		idle("g", inPhase(phaseFailed, SlotName("workers", 0))),
		idle("h", inPhase(phaseDraining, SlotName("workers", 1))), bidder("i", 1, notReady), bidder("j", 1, alien), bidder("me", 1),
	}, []Slot{held("workers", 0, "g"), held("workers", 1, "h"), offered("workers", 2, "f", time.Second)})
	v.Self = "me"
	if got := look(v).standing(); got != 6 {
		t.Errorf("%d stand besides the marshal, want 6", got)
	}
}

func TestLimit(t *testing.T) {
	for _, c := range []struct {
		group       Group
		nodes, want int
	}{
		{Group{}, 10, 1},
		{Group{MaxUnavailable: 3}, 10, 3},
		{Group{MaxUnavailable: 30}, 10, 10},
		{Group{MaxUnavailablePercent: 10}, 9, 1},
		{Group{MaxUnavailablePercent: 10}, 29, 2},
		{Group{MaxUnavailablePercent: 10}, 0, 1},
		{Group{MaxUnavailablePercent: 100}, 5000, 5000},
	} {
		t.Run(fmt.Sprintf("%d or %d per cent of %d nodes is %d", c.group.MaxUnavailable, c.group.MaxUnavailablePercent, c.nodes, c.want), func(t *testing.T) {
			if got := c.group.Limit(c.nodes); got != c.want {
				t.Errorf("got %d", got)
			}
		})
	}
}
