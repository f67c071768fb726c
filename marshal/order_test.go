package marshal

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// went is a node that came back healthy so many minutes ago, five after it went down, from the reboot for a wish of 100 minutes
// ago.
func went(name string, ago int, change ...func(*Node)) Node {
	return idle(name, append([]func(*Node){func(n *Node) {
		n.Proven, n.Took, n.Tried = zero.Add(-time.Duration(ago)*time.Minute), 5*time.Minute, zero.Add(-100*time.Minute)
	}}, change...)...)
}

func wished(ago int) func(*Node) {
	return func(n *Node) { n.Wished = zero.Add(-time.Duration(ago) * time.Minute) }
}

func inZone(z string) func(*Node) { return func(n *Node) { n.Labels = map[string]string{"zone": z} } }
func warned(n *Node)              { n.Warned = true }

// verdicts are nominations and reasons: node=slot or node:reason, in the order of the nodes.
func verdicts(v View) string {
	_, says := look(v).decide()
	noms := map[string]string{}
	for _, n := range Nominate(v) {
		noms[n.Node] = n.Slot
	}
	var out []string
	for _, n := range v.Nodes {
		for _, s := range says {
			switch {
			case s.Node != n.Name:
			case s.Reason == "":
				out = append(out, n.Name+"="+noms[n.Name])
			default:
				out = append(out, n.Name+":"+s.Reason)
			}
		}
	}
	return strings.Join(out, " ")
}

// gone holds slot 0 and is down.
func gone(name string, change ...func(*Node)) Node {
	return idle(name, append([]func(*Node){inPhase(phaseRebooting, SlotName("workers", 0)), notReady}, change...)...)
}

func known(n *Node) { n.Acknowledged = true }

// lost is v with a node that is away for longer than it may.
func lost(v View, name string) View {
	v.Away = map[string]time.Time{"uid-" + name: zero.Add(-2 * defaultRebootTimeout)}
	return v
}

// bears is g with three slots and a failed node that it bears.
func bears(g Group) Group {
	g.MaxFailed, g.MaxUnavailable = 1, 3
	return g
}

// beside are the three slots of such a group, the first in the hands of a node.
func beside(name string) []Slot {
	return []Slot{held("workers", 0, name), free("workers", 1), free("workers", 2)}
}

func TestZones(t *testing.T) {
	zoned := Group{Name: "workers", MaxUnavailable: 2, TopologyKey: "zone"}
	active := func(name, zone string, i int) Node {
		return idle(name, inPhase(phaseDraining, SlotName("workers", i)), inZone(zone))
	}
	for _, c := range []struct {
		name string
		view View
		want string
	}{
		{
			"the zone that comes first by name goes, as far as there are slots", viewOf(zoned,
				[]Node{bidder("b1", 9, inZone("b")), bidder("a1", 1, inZone("a")), bidder("a2", 2, inZone("a")), bidder("a3", 3, inZone("a"))}, slots("workers", 2)),
			"b1:zone a1:slot a2=slot-workers-1 a3=slot-workers-0",
		},
		{
			"while a node of a zone is on its way, no node of another goes", viewOf(zoned,
				[]Node{active("b1", "b", 0), bidder("a1", 9, inZone("a")), bidder("b2", 1, inZone("b"))}, []Slot{held("workers", 0, "b1"), free("workers", 1)}),
			"a1:zone b2=slot-workers-1",
		},
		{
			"a zone whose last node is on its way still holds the others", viewOf(zoned,
				[]Node{active("a1", "a", 0), bidder("b1", 9, inZone("b"))}, []Slot{held("workers", 0, "a1"), free("workers", 1)}),
			"b1:zone",
		},
		{
			"when two zones are on their way, by a marshal that saw too little, no further node of either goes",
			viewOf(Group{Name: "workers", MaxUnavailable: 3, TopologyKey: "zone"}, []Node{active("a1", "a", 0), active("b1", "b", 1), bidder("a2", 9, inZone("a")), bidder("b2", 8, inZone("b"))},
				[]Slot{held("workers", 0, "a1"), held("workers", 1, "b1"), free("workers", 2)}),
			"a2:zone b2:zone",
		},
		{"a zone in which nobody can go holds nobody", viewOf(zoned, []Node{bidder("a1", 9, inZone("a"), gateShut), bidder("b1", 1, inZone("b")), idle("c")}, slots("workers", 2)), "a1:window b1=slot-workers-0"},
		{"a failed node that its group bears holds no zone", func() View {
			g := zoned
			g.MaxFailed, g.MaxUnavailable = 1, 3
			return viewOf(g, []Node{idle("a1", inPhase(phaseFailed, SlotName("workers", 0)), inZone("a")), bidder("b1", 1, inZone("b")), bidder("b2", 2, inZone("b"))},
				[]Slot{held("workers", 0, "a1"), free("workers", 1), free("workers", 2)})
		}(), "b1=slot-workers-2 b2=slot-workers-1"},
		{"nor does one that its group bears and that does not come back", lost(viewOf(bears(zoned),
			[]Node{gone("a1", inZone("a")), bidder("b1", 1, inZone("b")), bidder("b2", 2, inZone("b"))}, beside("a1")), "a1"), "b1=slot-workers-2 b2=slot-workers-1"},
		{"nor one that does not come back, which people know", lost(viewOf(bears(zoned),
			[]Node{gone("a1", inZone("a"), known), bidder("b1", 1, inZone("b")), bidder("b2", 2, inZone("b"))}, beside("a1")), "a1"), "b1=slot-workers-2 b2=slot-workers-1"},
		{"nodes without the label are a zone of their own", viewOf(zoned, []Node{bidder("a1", 9, inZone("a")), bidder("x", 1), bidder("y", 2)}, slots("workers", 2)), "a1:zone x=slot-workers-1 y=slot-workers-0"},
		{
			"a nominated node counts as on its way", viewOf(zoned, []Node{bidder("b1", 9, inZone("b")), bidder("a1", 1, inZone("a"))},
				[]Slot{offered("workers", 0, "b1", time.Second), free("workers", 1)}),
			"b1:slot a1:zone",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, verdicts(c.view)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRank(t *testing.T) {
	t.Run("a node that is expected to be difficult goes after those that are not", func(t *testing.T) {
		v := viewOf(workers(2), []Node{bidder("a", 9, warned), bidder("b", 1), bidder("c", 2)}, slots("workers", 2))
		if got := verdicts(v); got != "a:slot b=slot-workers-1 c=slot-workers-0" {
			t.Error(got)
		}
	})
	t.Run("and goes when nobody else does", func(t *testing.T) {
		if got := verdicts(viewOf(workers(1), []Node{bidder("a", 9, warned), idle("b")}, slots("workers", 1))); got != "a=slot-workers-0" {
			t.Error(got)
		}
	})
}

func TestAfter(t *testing.T) {
	of := func(w, cp []Node, change ...func(*View)) View {
		isCP := func(l map[string]string) bool { return l["cp"] != "" }
		for i := range cp {
			cp[i].Labels = map[string]string{"cp": "yes"}
		}
		v := View{Now: zero, Own: zero, NominationTimeout: 30 * time.Second, Nodes: append(cp, w...), Groups: []Group{
			{Name: "control-plane", MaxUnavailable: 1, Match: isCP, After: []string{"workers"}}, {Name: "workers", MaxUnavailable: 1},
		}, Slots: append(slots("control-plane", 1), slots("workers", 1)...)}
		for _, f := range change {
			f(&v)
		}
		return v
	}
	holds := func(node string) func(*View) {
		return func(v *View) { v.Slots[1] = held("workers", 0, node) }
	}
	hangs := func(v *View) { v.Slots[1].Deleting = true }
	for _, c := range []struct {
		name string
		view View
		want string
	}{
		{"workers that can go go first", of([]Node{bidder("w", 1)}, []Node{bidder("c", 9)}), "c:after w=slot-workers-0"},
		{"a worker on its way is waited for", of([]Node{idle("w", inPhase(phaseRebooting, SlotName("workers", 0)))}, []Node{bidder("c", 9)}, holds("w")), "c:after"},
		{"workers that wait for something else hold nobody", of([]Node{bidder("w", 1, gateShut), bidder("h", 1, onHold)}, []Node{bidder("c", 9)}), "c=slot-control-plane-0 w:window h:hold"},
		{"nor do workers that a dead one holds up", of([]Node{bidder("w", 1), idle("x", notReady)}, []Node{bidder("c", 9)}), "c=slot-control-plane-0 w:budget"},
		{"workers that are halted do", of([]Node{bidder("w", 1), idle("x", inPhase(phaseFailed, SlotName("workers", 0)))}, []Node{bidder("c", 9)}, holds("x")), "c:after w:halted"},
		{"workers that are paused do not", of([]Node{bidder("w", 1)}, []Node{bidder("c", 9)}, func(v *View) { v.Paused = map[string]string{"workers": "x"} }), "c=slot-control-plane-0 w:paused"},
		{"workers whose canary has to prove itself do", of([]Node{bidder("w", 1), went("x", 1)}, []Node{bidder("c", 9)}, func(v *View) {
			v.Groups[1].Canaries, v.Groups[1].CanarySoak = 1, time.Hour
			v.Trials = map[string]Trial{"workers": {Started: zero.Add(-2 * time.Minute)}}
		}), "c:after w:canary"},
		{"a worker that its group bears and that does not come back holds nobody", of([]Node{gone("w")}, []Node{bidder("c", 9)}, holds("w"), func(v *View) {
			v.Groups[1].MaxFailed = 1
			*v = lost(*v, "w")
		}), "c=slot-control-plane-0"},
		{"nor does one that is away, which people know", of([]Node{gone("w", known)}, []Node{bidder("c", 9)}, holds("w")), "c=slot-control-plane-0"},
		{"nor do workers whose canary a dead one holds up", of([]Node{bidder("w", 2), bidder("v", 1), idle("x", notReady)}, []Node{bidder("c", 9)}, func(v *View) {
			v.Groups[1].Canaries, v.Groups[1].CanarySoak = 1, time.Hour
			v.Trials = map[string]Trial{"workers": {Started: zero}}
		}), "c=slot-control-plane-0 w:budget v:canary"},
		{"workers whose slots are not there yet go first all the same", of([]Node{bidder("w", 1)}, []Node{bidder("c", 9)}, func(v *View) { v.Slots = v.Slots[:1] }), "c:after w:slot"},
		{"and so do those whose slot has still to be tidied up", of([]Node{bidder("w", 1)}, []Node{bidder("c", 9)}, func(v *View) { v.Slots[1].Hold = "paused: storm" }), "c:after w:slot"},
		{"but not those whose only slot hangs in its deletion", of([]Node{bidder("w", 1)}, []Node{bidder("c", 9)}, hangs), "c=slot-control-plane-0 w:slot"},
		{"nor those of which a failed node keeps one, which the group bears, and the other hangs", of([]Node{bidder("w", 1), gone("x"), idle("y")}, []Node{bidder("c", 9)}, holds("x"), func(v *View) {
			v.Groups[1].MaxFailed, v.Groups[1].MaxUnavailable = 1, 2
			v.Slots = append(v.Slots, free("workers", 1))
			v.Slots[2].Deleting = true
			*v = lost(*v, "x")
		}), "c=slot-control-plane-0 w:slot"},
		{"those of which one hangs and the other is not there yet go first", of([]Node{bidder("w", 1), idle("y")}, []Node{bidder("c", 9)}, hangs, func(v *View) { v.Groups[1].MaxUnavailable = 2 }), "c:after w:slot"},
		{"and so do those whose slot hangs while its holder is on the way", of([]Node{bidder("w", 1), idle("x", inPhase(phaseRebooting, SlotName("workers", 0)))}, []Node{bidder("c", 9)}, holds("x"), hangs), "c:after w:slot"},
		{"nor those whose only slot a failed node keeps, which the group bears", of([]Node{bidder("w", 1, cordoned), gone("x")}, []Node{bidder("c", 9)}, holds("x"), func(v *View) {
			v.Groups[1].MaxFailed = 1
			*v = lost(*v, "x")
		}), "c=slot-control-plane-0 w:budget"},
		{"when the workers are done the control plane goes, one at a time", of([]Node{idle("w")}, []Node{bidder("c", 9), bidder("d", 1), idle("e")}), "c=slot-control-plane-0 d:slot"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, verdicts(c.view)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A holder goes on by the group that its slot was made for, which people may have renamed since.
func TestRenamedGroups(t *testing.T) {
	old := Slot{Name: SlotName("old", 0), ResourceVersion: "7", Group: "old", Holder: "x", HolderUID: "uid-x", Nominee: "uid-x"}
	onItsWay := func(change ...func(*Node)) Node {
		return idle("x", append([]func(*Node){inPhase(phaseRebooting, old.Name), inZone("b")}, change...)...)
	}
	zoned := Group{Name: "workers", MaxUnavailable: 3, TopologyKey: "zone"}
	for _, c := range []struct {
		name string
		view View
		want string
	}{
		{
			"its node keeps other zones waiting",
			viewOf(zoned, []Node{onItsWay(), bidder("a", 9, inZone("a")), bidder("b", 1, inZone("b"))}, append(slots("workers", 3), old)), "a:zone b=slot-workers-0",
		},
		{
			"also when the slot is lost",
			viewOf(zoned, []Node{onItsWay(), bidder("a", 9, inZone("a")), bidder("b", 1, inZone("b"))}, slots("workers", 3)), "a:zone b=slot-workers-0",
		},
		{"it keeps the groups that come after its node's", func() View {
			v := viewOf(workers(1), []Node{onItsWay(), bidder("c", 1, func(n *Node) { n.Labels = map[string]string{"cp": ""} })}, append(slots("control-plane", 1), free("workers", 0), old))
			isCP := func(l map[string]string) bool { _, ok := l["cp"]; return ok }
			v.Groups = append([]Group{{Name: "control-plane", MaxUnavailable: 1, Match: isCP, After: []string{"workers"}}}, v.Groups...)
			return v
		}(), "c:after"},
		{
			"it takes a place from one that is cordoned already",
			viewOf(workers(1), []Node{onItsWay(), bidder("b", 9, cordoned), idle("y")}, append(slots("workers", 1), old)), "b:slot",
		},
		{"one that failed, which the group bears, keeps nobody waiting", func() View {
			zoned.MaxFailed = 1
			return viewOf(zoned, []Node{onItsWay(inPhase(phaseFailed, old.Name)), bidder("a", 9, inZone("a"))}, append(slots("workers", 3), old))
		}(), "a=slot-workers-0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, verdicts(c.view)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAfterIsTransitive(t *testing.T) {
	in := func(g string) func(*Node) { return func(n *Node) { n.Labels = map[string]string{"g": g} } }
	group := func(name string, after ...string) Group {
		return Group{Name: name, MaxUnavailable: 1, After: after, Match: func(l map[string]string) bool { return l["g"] == name }}
	}
	v := View{
		Now: zero, Own: zero, NominationTimeout: 30 * time.Second, Groups: []Group{group("a"), group("b", "a"), group("c", "b")},
		Nodes: []Node{bidder("a1", 1, in("a")), bidder("b1", 2, in("b")), bidder("c1", 3, in("c"))},
		Slots: slices.Concat(slots("a", 1), slots("b", 1), slots("c", 1)),
	}
	if got := verdicts(v); got != "a1=slot-a-0 b1:after c1:after" {
		t.Error(got)
	}
	v.Nodes[1].Bids, v.Nodes[1].Reason = false, "window"
	if got := verdicts(v); got != "a1=slot-a-0 b1:window c1=slot-c-0" {
		t.Errorf("b has nobody to go, c need not wait: %s", got)
	}
}

func TestCanaries(t *testing.T) {
	group := Group{Name: "workers", MaxUnavailable: 2, Canaries: 1, CanarySoak: 30 * time.Minute}
	two := group
	two.Canaries = 2
	minutes := func(ago int) time.Time { return zero.Add(-time.Duration(ago) * time.Minute) }
	of := func(g Group, trial Trial, nodes []Node, s []Slot) View {
		v := viewOf(g, nodes, s)
		v.Trials = map[string]Trial{"workers": trial}
		return v
	}
	for _, c := range []struct {
		name  string
		view  View
		want  string
		trial Trial // afterwards
	}{
		{
			"before a trial is on record nobody goes, and one begins", of(group, Trial{}, []Node{bidder("a", 9), bidder("b", 1)}, slots("workers", 2)),
			"a:canary b:canary",
			Trial{Started: zero},
		},
		{
			"then one node goes, though there are two slots", of(group, Trial{Started: zero}, []Node{bidder("a", 9), bidder("b", 1)}, slots("workers", 2)),
			"a=slot-workers-0 b:canary",
			Trial{Started: zero},
		},
		{
			"of those that wait one without warnings", of(group, Trial{Started: zero}, []Node{bidder("a", 9, warned), bidder("b", 1)}, slots("workers", 2)),
			"a:canary b=slot-workers-0",
			Trial{Started: zero},
		},
		{
			"while it is on its way the others wait", of(group, Trial{Started: minutes(5)},
				[]Node{bidder("a", 9, inPhase(phaseRebooting, "slot-workers-0")), bidder("b", 1), idle("c")}, []Slot{held("workers", 0, "a"), free("workers", 1)}),
			"b:canary",
			Trial{Started: minutes(5)},
		},
		{
			"and while it proves itself", of(group, Trial{Started: minutes(40)}, []Node{went("a", 29), bidder("b", 90), idle("c")}, slots("workers", 2)),
			"b:canary",
			Trial{Started: minutes(40)},
		},
		{
			"when it has, the wishes that are not younger are covered", of(group, Trial{Started: minutes(40)}, []Node{went("a", 30), bidder("b", 90)}, slots("workers", 2)),
			"b:canary", // until that is on record
			Trial{Covered: minutes(35)},
		},
		{
			"those that arose while it proved itself are not", of(group, Trial{Started: minutes(40)}, []Node{went("a", 30), bidder("b", 34)}, slots("workers", 2)),
			"b:canary",
			Trial{Covered: minutes(35), Started: zero},
		},
		{
			"nor one that was renewed then, whatever its turn", of(group, Trial{Covered: minutes(35), Started: minutes(1)},
				[]Node{went("a", 30), bidder("b", 90, wished(34)), bidder("c", 80, wished(33)), bidder("d", 70)}, slots("workers", 2)),
			"b=slot-workers-0 c:canary d=slot-workers-1",
			Trial{Covered: minutes(35), Started: minutes(1)},
		},
		{
			"and go as there are slots", of(group, Trial{Covered: zero}, []Node{went("a", 30), bidder("b", 90), bidder("c", 91), bidder("d", 92)}, slots("workers", 2)),
			"b:slot c=slot-workers-1 d=slot-workers-0",
			Trial{Covered: zero},
		},
		{
			"a younger wish is tried anew, beside those that are covered", of(group, Trial{Covered: minutes(10), Started: zero},
				[]Node{bidder("old", 20), bidder("new", 5), bidder("newer", 4)}, slots("workers", 2)),
			"old=slot-workers-1 new=slot-workers-0 newer:canary",
			Trial{Covered: minutes(10), Started: zero},
		},
		{
			"of two canaries one that is back is not enough", of(two, Trial{Started: minutes(90)}, []Node{went("a", 60), bidder("b", 95), bidder("c", 94)}, slots("workers", 2)),
			"b=slot-workers-0 c:canary",
			Trial{Started: minutes(90)},
		},
		{
			"the second one's return is what counts", of(two, Trial{Started: minutes(90)}, []Node{went("a", 60), went("b", 29), bidder("c", 94)}, slots("workers", 2)),
			"c:canary",
			Trial{Started: minutes(90)},
		},
		{
			"a canary that breaks before its time is over halts its group", of(group, Trial{Started: minutes(90)},
				[]Node{went("a", 20, notReady), bidder("b", 95), idle("c"), idle("d")}, slots("workers", 2)),
			"b:halted",
			Trial{Started: minutes(90)},
		},
		{
			"in a group that bears it, it does not count", of(bears(group), Trial{Started: minutes(90)},
				[]Node{went("a", 20, notReady), bidder("b", 95), idle("c"), idle("d")}, slots("workers", 3)),
			"b=slot-workers-0",
			Trial{Started: minutes(90)},
		},
		{
			"nor when people know of it", of(group, Trial{Started: minutes(90)},
				[]Node{went("a", 20, notReady, known), bidder("b", 95), idle("c"), idle("d")}, slots("workers", 2)),
			"b=slot-workers-0",
			Trial{Started: minutes(90)},
		},
		{
			"a reboot from before the trial is no canary's", of(group, Trial{Started: minutes(20)}, []Node{went("a", 21), bidder("b", 95)}, slots("workers", 2)),
			"b=slot-workers-0",
			Trial{Started: minutes(20)},
		},
		{
			"more canaries than nodes are all nodes", of(Group{Name: "workers", MaxUnavailable: 2, Canaries: 5, CanarySoak: time.Minute}, Trial{Started: minutes(20)},
				[]Node{went("a", 10), went("b", 5)}, slots("workers", 2)),
			"",
			Trial{Covered: minutes(15)},
		},
		{
			"a node that comes back from a wish that was tried before is no canary", of(group, Trial{Covered: minutes(99), Started: minutes(20)},
				[]Node{went("a", 10), bidder("b", 30)}, slots("workers", 2)),
			"b=slot-workers-0",
			Trial{Covered: minutes(99), Started: minutes(20)},
		},
		{
			"the only canary of two that an earlier wish had says nothing of a younger one", of(two, Trial{Started: minutes(99)},
				[]Node{went("a", 80), bidder("b", 30), bidder("c", 29), bidder("d", 28)}, slots("workers", 2)),
			"b=slot-workers-0 c=slot-workers-1 d:canary",
			Trial{Started: minutes(99)},
		},
		{
			"but while it soaks no more go than there are to be canaries", of(two, Trial{Started: minutes(99)},
				[]Node{went("a", 20), bidder("b", 15), bidder("c", 14)}, slots("workers", 2)),
			"b=slot-workers-0 c:canary",
			Trial{Started: minutes(99)},
		},
		{
			"a canary whose sentinel survived does not count, in a group that bears it", of(bears(group), Trial{Started: minutes(40)},
				[]Node{went("a", 29, inPhase(phaseWaiting, ""), survivor), bidder("b", 90), bidder("c", 89)}, slots("workers", 3)),
			"a:sentinel-survived b=slot-workers-0 c:canary",
			Trial{Started: minutes(40)},
		},
		{
			"a canary that goes down for another wish has not failed", of(two, Trial{Started: minutes(90)},
				[]Node{went("a", 60, inPhase(phaseRebooting, "slot-workers-0"), notReady), bidder("b", 95), idle("c")}, []Slot{held("workers", 0, "a"), free("workers", 1)}),
			"b=slot-workers-1",
			Trial{Started: minutes(90)},
		},
		{
			"when a canary that its group bears fails, another one goes", of(bears(group), Trial{Started: minutes(20)},
				[]Node{bidder("a", 30, inPhase(phaseFailed, "slot-workers-0")), bidder("b", 25), bidder("c", 24)}, beside("a")),
			"b=slot-workers-1 c:canary",
			Trial{Started: minutes(20)},
		},
		{
			"and when it does not come back", lost(of(bears(group), Trial{Started: minutes(20)},
				[]Node{bidder("a", 30, inPhase(phaseRebooting, "slot-workers-0")), bidder("b", 25), bidder("c", 24)}, beside("a")), "a"),
			"b=slot-workers-1 c:canary",
			Trial{Started: minutes(20)},
		},
		{"without canaries nothing is remembered", of(workers(1), Trial{Covered: minutes(4), Started: minutes(1)}, []Node{bidder("a", 1)}, slots("workers", 1)), "a=slot-workers-0", Trial{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, verdicts(c.view)); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(c.trial, look(c.view).trials()["workers"]); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAcknowledgedFailuresDoNotHalt(t *testing.T) {
	for acked, want := range map[bool]string{false: "a:halted", true: "a=slot-workers-1"} {
		dead := idle("x", inPhase(phaseRebooting, "slot-workers-0"), notReady, func(n *Node) { n.Acknowledged = acked })
		v := viewOf(workers(2), []Node{bidder("a", 1), dead, idle("b")}, []Slot{held("workers", 0, "x"), free("workers", 1)})
		v.Away = map[string]time.Time{"uid-x": zero.Add(-50 * time.Minute)}
		if got := verdicts(v); got != want {
			t.Errorf("acknowledged %v: %s, want %s", acked, got, want)
		}
	}
}

func TestAcknowledgedFailureOfADeadAgentDoesNotHalt(t *testing.T) {
	for acked, want := range map[bool]string{false: "a:halted", true: "a=slot-workers-1"} {
		dead := idle("x", inPhase(phaseFailed, "slot-workers-0"), func(n *Node) { n.Acknowledged = acked })
		v := viewOf(workers(2), []Node{bidder("a", 1), dead, idle("b")}, []Slot{held("workers", 0, "x"), free("workers", 1)})
		if got := verdicts(v); got != want {
			t.Errorf("acknowledged %v: %s, want %s", acked, got, want)
		}
	}
}

func TestHowLongIsLeft(t *testing.T) {
	took := func(minutes int) func(*Node) { return func(n *Node) { n.Took = time.Duration(minutes) * time.Minute } }
	busy := idle("x", inPhase(phaseRebooting, "slot-workers-0"))
	for _, c := range []struct {
		name string
		view View
		want time.Duration
	}{
		{"nobody bids, nothing is left", viewOf(workers(1), []Node{idle("a", took(5))}, slots("workers", 1)), 0},
		{"nobody has gone yet, it cannot be told", viewOf(workers(1), []Node{bidder("a", 1)}, slots("workers", 1)), -1},
		{"five minutes for each of three", viewOf(workers(1), []Node{bidder("a", 1, took(5)), bidder("b", 1), bidder("c", 1)}, slots("workers", 1)), 15 * time.Minute},
		{"two at a time", viewOf(workers(2), []Node{bidder("a", 1, took(4)), bidder("b", 1, took(6))}, slots("workers", 2)), 5 * time.Minute},
		{"one on its way is half done", viewOf(workers(1), []Node{busy, idle("a", took(10))}, []Slot{held("workers", 0, "x")}), 5 * time.Minute},
		{"a node whose gates are shut is not waited for", viewOf(workers(1), []Node{bidder("a", 1, took(5), gateShut), bidder("b", 1)}, slots("workers", 1)), 5 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := look(c.view)
			if got := s.left(s.squads[0]); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func TestNotes(t *testing.T) {
	says := []Verdict{
		{Node: "a", Group: "workers", Reason: reasonBudget, Message: "1 of 1 may be unavailable: n7"},
		{Node: "b", Group: "workers", Reason: reasonBudget, Message: "else"},
		{Node: "c", Group: "workers", Reason: "window"},
		{Node: "d", Group: "workers"},
		{Node: "e", Reason: reasonGroup},
	}
	away := map[string]map[string]time.Time{"workers": {"c1": zero}}
	got := notes(map[string]Trial{"workers": {Covered: zero}}, away, says, 7, []string{trialKey + ".old", waitingKey + ".workers"})
	want := map[string]string{
		"kubebaton.io/away.workers":    `{"c1":"` + zero.Format(time.RFC3339) + `"}`,
		"kubebaton.io/canary.old":      "",
		"kubebaton.io/standing":        "7",
		"kubebaton.io/canary.workers":  `{"covered":"` + zero.Format(time.RFC3339) + `"}`,
		"kubebaton.io/waiting.workers": "2 for budget (1 of 1 may be unavailable: n7); 1 for window",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]Trial{"workers": {Covered: zero}}, trialsOf(got)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(away["workers"], absentOf(got)); diff != "" {
		t.Error(diff)
	}
}
