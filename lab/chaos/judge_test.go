package chaos

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/observe"
)

// at is a number of seconds since the faults began.
func at(seconds float64) time.Time {
	return time.Unix(0, 0).Add(time.Duration(seconds * float64(time.Second)))
}

// story is what happens, in the order of time.
type story struct{ facts }

func tell() *story {
	return &story{facts{limit: func(time.Time) int { return 1 }}}
}

func (s *story) node(seconds float64, n observe.Node) *story {
	n.Exists = n.UID != ""
	s.log.Events = append(s.log.Events, observe.Event{Time: at(seconds), Revision: uint64(len(s.log.Events)), Node: &n})
	return s
}

func (s *story) slot(seconds float64, name, holder string) *story {
	s.log.Events = append(s.log.Events, observe.Event{
		Time: at(seconds), Revision: uint64(len(s.log.Events)), Slot: &observe.Slot{Name: name, Group: "workers", Holder: holder, Exists: true},
	})
	return s
}

// off switches a machine off with an exit code, and on again after a second.
func (s *story) off(seconds float64, node string, exit int) *story {
	s.power = append(s.power, cluster.PowerEvent{Time: at(seconds), Node: node, Exit: exit}, cluster.PowerEvent{Time: at(seconds + 1), Node: node, On: true})
	slices.SortFunc(s.power, func(a, b cluster.PowerEvent) int { return a.Time.Compare(b.Time) })
	return s
}

func history(cycles ...string) string {
	for i, c := range cycles {
		cycles[i] = fmt.Sprintf(`{"cycle":%q,"rebooted":true}`, c)
	}
	return `{"cycles":[` + strings.Join(cycles, ",") + `]}`
}

// cycle is one cycle of n1 as it should be, from second 0 to second 10.
func cycle(newBoot, past string) *story {
	n := observe.Node{Name: "n1", UID: "u1", BootID: "a", Ready: true}
	s := tell().node(0, n).slot(1, "slot-workers-0", "n1")
	n.Phase, n.Record, n.Unschedulable = observe.Draining, "draining", true
	s.node(2, n)
	n.Phase, n.Record = observe.Rebooting, `{"bootID":"a"}`
	s.node(3, n).off(4, "n1", rebooted)
	n.BootID = newBoot
	s.node(7, n)
	n.Phase, n.Record = observe.Verifying, "verifying"
	s.node(8, n)
	n.Phase, n.Record, n.Unschedulable, n.History = observe.Idle, "", false, past
	return s.node(9, n).slot(10, "slot-workers-0", "")
}

// down is n1 taken down at second 1, in that phase from second 2 on with a record of that boot; its machine reboots at second 5.
func down(phase, boot string) *story {
	n := observe.Node{Name: "n1", UID: "u1", BootID: "a", Ready: true}
	s := tell().node(0, n).slot(0.5, "slot-workers-0", "n1")
	n.Phase, n.Record, n.Unschedulable = observe.Draining, `{"bootID":"a"}`, true
	s.node(1, n)
	n.Phase, n.Record = phase, fmt.Sprintf(`{"bootID":%q}`, boot)
	return s.node(2, n).off(5, "n1", rebooted)
}

// seen is when the last version is seen.
func (s *story) seen(seconds float64) *story {
	s.log.Events[len(s.log.Events)-1].Time = at(seconds)
	return s
}

// asked is a machine that somebody has asked to reboot by hand.
func (s *story) asked(seconds float64, node string) *story {
	s.hand = append(s.hand, handReboot{node, at(seconds)})
	return s
}

func TestViolations(t *testing.T) {
	idle := observe.Node{Name: "n1", UID: "u1", BootID: "a", Ready: true}
	cordoned := idle
	cordoned.Unschedulable = true
	byPeople := cordoned
	byPeople.By = "fault 1"
	again := idle
	again.UID = "u2"
	for _, tc := range []struct {
		name string
		story
		want []string // a part of each
	}{
		{"a cycle as it should be has none", *cycle("b", history("c1")), nil},
		{"a reboot that is claimed on the same boot", *cycle("a", history("c1")), []string{"n1 says that cycle c1 rebooted it, and it did not reboot"}},
		{
			"a reboot that is claimed of a machine that was never off",
			story{facts{log: cycle("b", history("c1")).log, limit: tell().limit}},
			[]string{"n1 says that cycle c1 rebooted it, and it did not reboot"},
		},
		{"a machine that reboots and was not taken down", *tell().node(0, idle).off(1, "n1", rebooted), []string{"n1 rebooted while it was not down"}},
		{"a machine that reboots while its node drains", *down(observe.Draining, "a"), []string{`n1 rebooted and was "draining" on boot "a"`}},
		{"a machine that reboots while its node has failed", *down(observe.Failed, "a"), []string{`n1 rebooted and was "failed" on boot "a"`}},
		{"a machine that reboots by a record of another boot", *down(observe.Rebooting, "z"), []string{`n1 rebooted and was "rebooting" on boot "a", with the record "{\"bootID\":\"z\"}"`}},
		{"a machine that reboots in Rebooting", *down(observe.Rebooting, "a"), nil},
		{"a machine that reboots in Rebooting, of which etcd tells late", *down(observe.Rebooting, "a").seen(12), nil},
		{"a machine that reboots before it is Rebooting, on its next boot", *down(observe.Rebooting, "b").seen(12), []string{`n1 rebooted and was "draining"`}},
		{"a machine that is rebooted by hand while its node drains", *down(observe.Draining, "a").asked(4, "n1"), nil},
		{"a machine whose Node is deleted when it was asked", *down(observe.Rebooting, "a").node(4, observe.Node{Name: "n1"}), nil},
		{
			"a machine that reboots long after its Node was deleted",
			*down(observe.Rebooting, "a").node(2.5, observe.Node{Name: "n1"}),
			[]string{"n1 rebooted while it was not down"},
		},
		{"a machine whose power was cut is none of Baton's", *tell().node(0, idle).off(1, "n1", -1), nil},
		{"a machine that switches itself off", *tell().node(0, idle).off(1, "n1", 0), []string{"n1 switched itself off"}},
		{
			"two machines that reboot at once where one may",
			*cycle("b", history("c1")).off(4.5, "n2", rebooted),
			[]string{"2 machines reboot at once, n2 the last", "n2 rebooted while it was not down"},
		},
		{"the power of another may be cut at the same time", *cycle("b", history("c1")).off(4.5, "n2", -1), nil},
		{"a cordon that nobody knows", *tell().node(0, idle).node(1, cordoned), []string{"somebody unknown set unschedulable of n1 to true"}},
		{"a cordon of people", *tell().node(0, idle).node(1, byPeople), nil},
		{
			"a slot that is freed too soon after its Node was deleted",
			*tell().node(0, idle).slot(1, "slot-workers-0", "n1").node(2, observe.Node{Name: "n1"}).slot(9.5, "slot-workers-0", ""),
			[]string{"slot-workers-0 of n1 was freed 7.5 s after its Node was deleted"},
		},
		{
			"a slot that is freed in time",
			*tell().node(0, idle).slot(1, "slot-workers-0", "n1").node(2, observe.Node{Name: "n1"}).slot(12.5, "slot-workers-0", ""),
			nil,
		},
		{
			"a Node that is there again frees its slot when it likes",
			*tell().node(0, idle).slot(1, "slot-workers-0", "n1").node(2, observe.Node{Name: "n1"}).node(3, again).slot(4, "slot-workers-0", ""),
			nil,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := tc.violations()
			if len(got) != len(tc.want) {
				t.Fatalf("violations %q, want %q", got, tc.want)
			}
			for i := range got {
				if !strings.Contains(got[i], tc.want[i]) {
					t.Errorf("violation %q, want %q", got[i], tc.want[i])
				}
			}
		})
	}
}

func TestCycles(t *testing.T) {
	log := cycle("b", history("c1")).log
	if got, want := countCycles(log), (Cycles{Rebooted: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, want := quietest(log, at(0), at(30)), 21*time.Second; got != want {
		t.Errorf("the quietest time is %s, want %s: from the last phase to the end", got, want)
	}
}

func TestGoals(t *testing.T) {
	good := Report{Plan: Plan{Length: 15 * time.Minute}, Faults: 100, Cycles: Cycles{Rebooted: 22, Failed: 1}}
	for _, tc := range []struct {
		name   string
		change func(*Report)
		missed string // "" nothing
	}{
		{"all is well", func(*Report) {}, ""},
		{"a violation", func(p *Report) { p.Violations = []string{"two nodes down"} }, "violations"},
		{"something is left", func(p *Report) { p.Left = "n1 is failed" }, "at rest"},
		{"too few faults", func(p *Report) { p.Faults = 99 }, "faults"},
		{"too few cycles", func(p *Report) { p.Cycles.Rebooted = 21 }, "cycles"},
		{"no node that failed", func(p *Report) { p.Cycles.Failed = 0 }, "failed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := good
			tc.change(&p)
			p.judge()
			err := p.verdict()
			if (err == nil) != (tc.missed == "") || err != nil && !strings.Contains(err.Error(), tc.missed) {
				t.Errorf("the verdict is %v, want it to name %q", err, tc.missed)
			}
		})
	}
}
