package observe

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"kubebaton.io/baton/lab/cluster"
)

// script makes a log of lines such as "n1 cordoned draining boot=1", one a millisecond. Words stay as they were until they
// are said again: ready|notready, cordoned|schedulable, a phase or idle, boot=N, hold, by=people, gone; for slots: free, held=n1,
// for=n1.
func script(t *testing.T, lines ...string) Log {
	t.Helper()
	var log Log
	nodes, slots := map[string]Node{}, map[string]Slot{}
	for i, line := range lines {
		words := strings.Fields(line)
		e := Event{Time: at(i), Revision: uint64(i + 1)}
		if strings.HasPrefix(words[0], "slot-") {
			s, known := slots[words[0]]
			if !known {
				s = Slot{Name: words[0], Group: "workers", Exists: true}
			}
			for _, w := range words[1:] {
				holder, held := strings.CutPrefix(w, "held=")
				nominee, named := strings.CutPrefix(w, "for=")
				switch {
				case held:
					s.Holder = holder
				case named:
					s.Nominee = nominee
				case w == "free":
					s.Holder, s.Nominee = "", ""
				default:
					t.Fatalf("line %q: word %q", line, w)
				}
			}
			slots[s.Name], e.Slot = s, &s
			log.Events = append(log.Events, e)
			continue
		}
		n, known := nodes[words[0]]
		if !known {
			n = Node{Name: words[0], UID: words[0], BootID: "1", Ready: true, Exists: true}
		}
		for _, w := range words[1:] {
			n = n.say(t, w)
		}
		nodes[n.Name], e.Node = n, &n
		log.Events = append(log.Events, e)
	}
	return log
}

func (n Node) say(t *testing.T, word string) Node {
	t.Helper()
	boot, booted := strings.CutPrefix(word, "boot=")
	by, said := strings.CutPrefix(word, "by=")
	switch {
	case said:
		n.By = by
	case booted:
		n.BootID = boot
	case word == "ready", word == "notready":
		n.Ready = word == "ready"
	case word == "cordoned", word == "schedulable":
		n.Unschedulable = word == "cordoned"
	case word == "hold":
		n.Hold = true
	case word == "gone":
		n.Exists = false
	case word == "idle":
		n.Phase = Idle
	case taken(word), word == Waiting, word == Backoff:
		n.Phase = word
	default:
		t.Fatalf("word %q", word)
	}
	return n
}

func at(i int) time.Time { return time.UnixMilli(int64(i)).UTC() }

func TestDowns(t *testing.T) {
	for _, tc := range []struct {
		name  string
		lines []string
		want  []Down
	}{
		{
			"a node is down from the cordon until it is Ready, schedulable and Baton is done with it",
			[]string{"n1", "n1 waiting", "n1 draining cordoned", "n1 rebooting", "n1 notready boot=2", "n1 verifying", "n1 ready", "n1 idle schedulable"},
			[]Down{{Node: "n1", From: at(2), Until: at(7), OldBootID: "1", NewBootID: "2"}},
		},
		{
			"uncordoned is not enough while it is not Ready",
			[]string{"n1", "n1 draining cordoned", "n1 notready boot=2", "n1 idle schedulable", "n1 ready"},
			[]Down{{Node: "n1", From: at(1), Until: at(4), OldBootID: "1", NewBootID: "2"}},
		},
		{
			"a cycle that is given up is a down that ends with the old boot ID",
			[]string{"n1", "n1 draining cordoned", "n1 backoff schedulable"},
			[]Down{{Node: "n1", From: at(1), Until: at(2), OldBootID: "1", NewBootID: "1"}},
		},
		{
			"a node that others had cordoned is Baton's only from Draining on, and ends cordoned",
			[]string{"n1 cordoned", "n1 waiting", "n1 draining", "n1 boot=2 verifying", "n1 idle"},
			[]Down{{Node: "n1", From: at(2), Until: at(4), OldBootID: "1", NewBootID: "2"}},
		},
		{
			"a node left cordoned stays down",
			[]string{"n1", "n1 draining cordoned", "n1 boot=2 idle"},
			[]Down{{Node: "n1", From: at(1), OldBootID: "1"}},
		},
		{
			"unless people hold it",
			[]string{"n1", "n1 draining cordoned", "n1 boot=2 idle hold"},
			[]Down{{Node: "n1", From: at(1), Until: at(2), OldBootID: "1", NewBootID: "2"}},
		},
		{
			"a deleted node is not down",
			[]string{"n1", "n1 draining cordoned", "n1 gone"},
			[]Down{{Node: "n1", From: at(1), Until: at(2), OldBootID: "1", NewBootID: "1", NodeDeleted: true}},
		},
		{
			"a cycle given up ends with the cordon, whether the node is Ready or not",
			[]string{"n1", "n1 draining cordoned", "n1 notready", "n1 backoff schedulable"},
			[]Down{{Node: "n1", From: at(1), Until: at(3), OldBootID: "1", NewBootID: "1"}},
		},
		{
			"a rebooted node is down until it is Ready",
			[]string{"n1", "n1 draining cordoned", "n1 verifying boot=2 notready", "n1 idle schedulable", "n1 ready"},
			[]Down{{Node: "n1", From: at(1), Until: at(4), OldBootID: "1", NewBootID: "2"}},
		},
		{
			"unless people accepted it as it is",
			[]string{"n1", "n1 draining cordoned", "n1 failed boot=2 notready", "n1 idle schedulable"},
			[]Down{{Node: "n1", From: at(1), Until: at(3), OldBootID: "1", NewBootID: "2"}},
		},
		{
			"a cordon that people lay once Baton has seen theirs come off is theirs",
			[]string{"n1", "n1 draining cordoned", "n1 schedulable by=1", "n1 waiting", "n1 cordoned by=2"},
			[]Down{{Node: "n1", From: at(1), Until: at(3), OldBootID: "1", NewBootID: "1"}},
		},
		{
			"one that they lay before Baton has seen it leaves no trace",
			[]string{"n1", "n1 draining cordoned", "n1 schedulable by=1", "n1 cordoned by=2", "n1 idle"},
			[]Down{{Node: "n1", From: at(1), OldBootID: "1"}},
		},
		{"people's cordon is none of Baton's", []string{"n1", "n1 cordoned", "n1 notready", "n1 waiting"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := script(t, tc.lines...).Downs()
			if diff := cmp.Diff(tc.want, got, cmpopts.IgnoreUnexported(Down{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestViolations(t *testing.T) {
	good := []string{
		"n1 waiting", "n2 waiting", "slot-workers-0", "slot-workers-0 for=n1", "slot-workers-0 held=n1", "n1 draining cordoned",
		"n1 boot=2 verifying", "n1 idle schedulable", "slot-workers-0 free", "slot-workers-0 for=n2", "slot-workers-0 held=n2",
		"n2 draining cordoned", "n2 boot=2 verifying", "n2 idle schedulable", "slot-workers-0 free",
	}
	without := func(lines ...string) []string {
		var kept []string
		for _, l := range good {
			drop := false
			for _, d := range lines {
				drop = drop || l == d
			}
			if !drop {
				kept = append(kept, l)
			}
		}
		return kept
	}
	for _, tc := range []struct {
		name  string
		lines []string
		limit int
		want  []string // a part of each
	}{
		{"a rollout as it should be has none", good, 1, nil},
		{"two nodes down", append([]string{"slot-workers-1 held=n2", "n2 draining cordoned"}, good[2:8]...), 1, []string{"2 nodes are down, n2, n1"}},
		{"two nodes down, and they may", append([]string{"slot-workers-1 held=n2", "n2 draining cordoned"}, good[2:8]...), 2, nil},
		{"a cordon without a slot", without("slot-workers-0 held=n1"), 1, []string{"n1 is down and holds no slot"}},
		{"a slot freed before the uncordon", []string{"slot-workers-0 held=n1", "n1 draining cordoned", "slot-workers-0 free", "n1 idle schedulable"}, 1, []string{"n1 is down and holds no slot"}},
		{"a slot that is stolen", []string{"slot-workers-0 held=n1", "slot-workers-0 held=n2"}, 1, []string{"went from n1 to n2"}},
		{"a cordon of people that is lost", []string{"slot-workers-0 held=n1", "n1", "n1 cordoned", "n1 draining", "n1 idle schedulable"}, 1, []string{"n1: Baton took off a cordon"}},
		{"a cordon of people that they take off", []string{"slot-workers-0 held=n1", "n1", "n1 cordoned by=1", "n1 draining", "n1 schedulable by=2", "n1 idle"}, 1, nil},
		{"a cordon of people that they take off in the very write", []string{"n1", "n1 cordoned by=1", "n1 waiting", "n1 idle schedulable by=2"}, 1, nil},
		{"two slots of one node", []string{"slot-workers-0 held=n1", "slot-workers-1 held=n1"}, 2, []string{"n1 holds 2 slots"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := script(t, tc.lines...).Violations(tc.limit)
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

	t.Run("nodes that were down before the limit fell may come home, and no other goes", func(t *testing.T) {
		both := []string{"slot-workers-0 held=n1", "n1 draining cordoned", "slot-workers-1 held=n2", "n2 draining cordoned", "n1 verifying", "n2 verifying"}
		limit := func(when time.Time) int {
			if when.Before(at(4)) {
				return 2
			}
			return 1
		}
		if got := script(t, both...).ViolationsUnder(limit); len(got) != 0 {
			t.Errorf("violations %q", got)
		}
		third := append(both, "n1 idle schedulable", "slot-workers-0 free", "slot-workers-0 held=n3", "n3 draining cordoned")
		if got := script(t, third...).ViolationsUnder(limit); len(got) != 1 || !strings.Contains(got[0], "2 nodes are down, n2, n3; at most 1") {
			t.Errorf("violations %q", got)
		}
	})

	t.Run("an observer that lost its watch cannot say that there were none", func(t *testing.T) {
		log := script(t, good...)
		log.Faults = []string{"the watch of Nodes ended"}
		if got := log.Violations(1); len(got) != 1 {
			t.Errorf("violations %q", got)
		}
	})

	t.Run("the last state before the cut belongs to the log after it", func(t *testing.T) {
		log := script(t, "slot-workers-0 held=n1", "n1 draining cordoned", "n2", "n2 draining cordoned").After(at(2))
		if n, who, when := log.MaxDown(); n != 2 || !when.Equal(at(3)) {
			t.Errorf("%d down, %v, at %v", n, who, when)
		}
	})
}

func TestHandOvers(t *testing.T) {
	log := script(t,
		"n1", "n2 waiting", "n3", "slot-workers-0 held=n1 for=n1", "slot-workers-0 free", "slot-workers-0 for=n2", "slot-workers-0 held=n2",
		"n2 draining cordoned", "n2 idle schedulable", "slot-workers-0 free", "n3 waiting", "slot-workers-0 for=n3", "slot-workers-0 held=n3", "n3 draining cordoned")
	want := []HandOver{{Slot: "slot-workers-0", From: "n1", To: "n2", Freed: at(4), Named: at(5), Taken: at(6), Cordoned: at(7)}}
	if diff := cmp.Diff(want, log.HandOvers()); diff != "" {
		t.Errorf("n3 did not wait when n2 freed the slot:\n%s", diff)
	}
}

func TestStays(t *testing.T) {
	got := script(t, "n1 waiting", "n1 waiting cordoned", "n1 draining", "n1 idle", "n2 waiting").Stays()
	want := []Stay{
		{Node: "n1", Phase: Waiting, From: at(0), Until: at(2)},
		{Node: "n1", Phase: Draining, From: at(2), Until: at(3)},
		{Node: "n2", Phase: Waiting, From: at(4)},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestBothOff(t *testing.T) {
	log := []cluster.PowerEvent{{Time: at(1), Node: "n1", On: true}, {Time: at(2), Node: "n1"}, {Time: at(3), Node: "n2"}, {Time: at(4), Node: "n1", On: true}}
	if got := BothOff(log, at(0), 1); len(got) != 1 {
		t.Errorf("%q, want one", got)
	}
	if got := BothOff(log, at(0), 2); len(got) != 0 {
		t.Errorf("%q, want none: two may be off", got)
	}
}

func TestParseMemory(t *testing.T) {
	one := "Name:\tbaton-agent\nVmHWM:\t   31000 kB\nVmRSS:\t   25000 kB\nRssAnon:\t    9000 kB\nRssFile:\t   16000 kB\n"
	want := Memory{RSS: 25000 << 10, Anon: 9000 << 10, File: 16000 << 10, Peak: 31000 << 10}
	if got, err := parseMemory(one); err != nil || got != want {
		t.Errorf("no control group: %+v, error %v", got, err)
	}
	want.Group, want.Working = 40<<20, 30<<20
	if got, err := parseMemory(one + "Group: 41943040\nInactive: 10485760\n"); err != nil || got != want {
		t.Errorf("with a control group: %+v, error %v", got, err)
	}
	for name, text := range map[string]string{"no agent": "", "two agents": one + one} {
		if _, err := parseMemory(text); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
