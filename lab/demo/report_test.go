package demo

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kubebaton.io/baton/lab/audit"
	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/observe"
)

// at is a time in the rollout, which begins at 0.
func at(ms int) time.Time { return time.UnixMilli(int64(ms)).UTC() }

// rollout is a good one, of 1.0 s a node, with hand-overs of 100 ms; n2 goes first.
func rollout() (observe.Log, []cluster.PowerEvent) {
	var log observe.Log
	var power []cluster.PowerEvent
	add := func(ms int, n *observe.Node, s *observe.Slot) {
		log.Events = append(log.Events, observe.Event{Seq: len(log.Events), Revision: uint64(len(log.Events) + 1), Time: at(ms), Node: n, Slot: s})
	}
	slot := func(ms int, holder string) {
		add(ms, nil, &observe.Slot{Name: "slot-workers-0", Group: "workers", Holder: holder, Exists: true})
	}
	node := func(ms int, name, phase, boot string, cordoned bool) {
		add(ms, &observe.Node{Name: name, UID: name, BootID: boot, Ready: true, Exists: true, Phase: phase, Unschedulable: cordoned}, nil)
	}
	order := []string{"n2", "n1", "n3"}
	slot(-1, "")
	for _, n := range order {
		node(-1, n, observe.Idle, "old "+n, false)
		node(20, n, observe.Waiting, "old "+n, false)
	}
	for i, n := range order {
		start := 1000 * i
		slot(start+50, n)
		node(start+100, n, observe.Draining, "old "+n, true)
		node(start+300, n, observe.Rebooting, "old "+n, true)
		power = append(power, cluster.PowerEvent{Time: at(start + 400), Node: n, Exit: rebooted}, cluster.PowerEvent{Time: at(start + 500), Node: n, On: true})
		node(start+800, n, observe.Verifying, "new "+n, true)
		node(start+1000, n, observe.Idle, "new "+n, false)
		slot(start+1000, "")
	}
	return log, power
}

// reportOf is the report of a rollout, and of one by hand that took 0.4 s a node.
func reportOf(log observe.Log, power []cluster.PowerEvent) *Report {
	r := &Report{Green: Green{UID: "g", NewUID: "g"}}
	for _, n := range []string{"n1", "n2", "n3"} {
		r.Nodes = append(r.Nodes, NodeReport{Node: n, OldBootID: "old " + n, Hand: &Hand{Total: seconds(400 * time.Millisecond)}})
	}
	r.fromLog(log, at(0))
	r.fromPower(power, at(0), at(10000))
	r.judge()
	return r
}

func TestReport(t *testing.T) {
	t.Run("a good rollout holds all goals", func(t *testing.T) {
		r := reportOf(rollout())
		if err := r.verdict(); err != nil {
			t.Errorf("%v\n%q %q", err, r.Violations, r.PowerFaults)
		}
		var order []string
		for _, n := range r.Nodes {
			order = append(order, n.Node)
			if want := seconds(time.Second); n.Turn != want || n.Down != seconds(900*time.Millisecond) || n.NewBootID != "new "+n.Node {
				t.Errorf("%+v", n)
			}
		}
		if diff := cmp.Diff([]string{"n2", "n1", "n3"}, order); diff != "" {
			t.Errorf("nodes in the order they went:\n%s", diff)
		}
		if want := seconds(100 * time.Millisecond); len(r.HandOvers) != 2 || r.HandOvers[0].Took != want {
			t.Errorf("hand-overs %+v", r.HandOvers)
		}
	})

	for _, tc := range []struct {
		name   string
		spoil  func(*Report, *observe.Log, *[]cluster.PowerEvent)
		missed string
	}{
		{"a node that did not come back", func(_ *Report, l *observe.Log, _ *[]cluster.PowerEvent) {
			l.Events = l.Events[:len(l.Events)-2]
		}, "nodes rebooted once, Ready, schedulable"},
		{"a rollout that did not end", func(r *Report, _ *observe.Log, _ *[]cluster.PowerEvent) { r.Error = "too long" }, "nodes rebooted once, Ready, schedulable"},
		{"two nodes down", func(_ *Report, l *observe.Log, _ *[]cluster.PowerEvent) {
			last := l.Events[len(l.Events)-2]
			n := *last.Node
			n.Name, n.Unschedulable, n.Phase = "n1", true, observe.Draining
			l.Events = slices.Insert(l.Events, len(l.Events)-2, observe.Event{Revision: last.Revision, Time: last.Time, Node: &n})
		}, "nodes down at once, by an observer"},
		{"two machines off", func(_ *Report, _ *observe.Log, p *[]cluster.PowerEvent) {
			*p = slices.Insert(*p, 1, cluster.PowerEvent{Time: at(450), Node: "n1", Exit: rebooted})
		}, "faults by the machines' power log"},
		{"a machine that was cut", func(_ *Report, _ *observe.Log, p *[]cluster.PowerEvent) { (*p)[0].Exit = -1 }, "faults by the machines' power log"},
		{"a machine that never went off", func(_ *Report, _ *observe.Log, p *[]cluster.PowerEvent) { *p = (*p)[2:] }, "faults by the machines' power log"},
		{"green lost", func(r *Report, _ *observe.Log, _ *[]cluster.PowerEvent) { r.Green.NewUID = "" }, "green's UID after the rollout"},
		{"green evicted and made again", func(r *Report, _ *observe.Log, _ *[]cluster.PowerEvent) { r.Green.NewUID = "other" }, "green's UID after the rollout"},
		{"green evicted, and there all the same", func(r *Report, _ *observe.Log, _ *[]cluster.PowerEvent) {
			r.Evictions = map[string]int{"Pod/green/g": 1}
		}, "green's UID after the rollout"},
		{"a rollout by hand that was not done", func(r *Report, _ *observe.Log, _ *[]cluster.PowerEvent) { r.Nodes[0].Hand = nil }, "added over the hand, a node (median)"},
		{"a slow rollout", func(r *Report, _ *observe.Log, _ *[]cluster.PowerEvent) {
			for i := range r.Nodes {
				r.Nodes[i].Hand.Total = seconds(-2100 * time.Millisecond)
			}
		}, "added over the hand, a node (median)"},
		{"slow hand-overs", func(r *Report, _ *observe.Log, _ *[]cluster.PowerEvent) {
			r.HandOvers = []HandOver{{Took: seconds(time.Second)}, {Took: seconds(time.Second)}}
		}, "slot freed → next node cordoned (median)"},
	} {
		t.Run(tc.name+" is missed", func(t *testing.T) {
			log, power := rollout()
			tc.spoil(reportOf(rollout()), &log, &power) // what was seen, before it is judged
			r := reportOf(log, power)
			tc.spoil(r, &log, &power) // or what was made of it
			r.judge()
			if err := r.verdict(); err == nil || !strings.Contains(err.Error(), tc.missed) {
				t.Errorf("verdict %v, want %q", err, tc.missed)
			}
		})
	}

	t.Run("the summary names faults, and the JSON has times as seconds", func(t *testing.T) {
		r := reportOf(rollout())
		r.Violations = []string{"two at once"}
		r.judge()
		var text bytes.Buffer
		r.summarize(&text)
		for _, want := range []string{"MISSED", "FAULT: two at once", "old n1"} {
			if !strings.Contains(text.String(), want) {
				t.Errorf("no %q in\n%s", want, &text)
			}
		}
		data, err := json.Marshal(r)
		if err != nil || !strings.Contains(string(data), `"total":3.000`) {
			t.Errorf("error %v in\n%s", err, data)
		}
	})
}

func TestEvictions(t *testing.T) {
	pods := []observe.Pod{{Name: "a", Owner: "ReplicaSet/blue/1"}, {Name: "b", Owner: "ReplicaSet/blue/1"}, {Name: "c", Owner: "ReplicaSet/blue/2"}}
	baton := audit.Caller{User: observe.AgentUser}
	got := evicted([]audit.Eviction{
		{Caller: baton, Namespace: namespace, Pod: "a", Code: 201},
		{Caller: baton, Namespace: namespace, Pod: "b", Code: 201},
		{Caller: baton, Namespace: namespace, Pod: "b", Code: 429},
		{Caller: baton, Namespace: namespace, Pod: "c", Code: 201},
		{Caller: baton, Namespace: "other", Pod: "a", Code: 201},
		{Namespace: namespace, Pod: "a", Code: 201},
	}, pods, func(c audit.Caller) bool { return c == baton })
	want := map[string]int{"ReplicaSet/blue/1": 2, "ReplicaSet/blue/2": 1, "other/a": 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if text := evictions(got); text != "4\n  2× ReplicaSet/blue/1\n  1× ReplicaSet/blue/2\n  1× other/a" {
		t.Errorf("%q", text)
	}
}

func TestRow(t *testing.T) {
	n := observe.Node{Name: "n1", Phase: observe.Waiting, BootID: "b", Record: `{"since":"1970-01-01T00:00:01Z","reasons":["slot","budget"],"message":"n2 is cordoned"}`}
	want := row{node: "n1", phase: "waiting", bootID: "b", since: at(1000), why: "slot, budget: n2 is cordoned"}
	if got := rowOf(n, at(0)); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := rowOf(observe.Node{Name: "n1"}, at(5)); got != (row{node: "n1", phase: "idle", since: at(5)}) {
		t.Errorf("%+v", got)
	}
}
