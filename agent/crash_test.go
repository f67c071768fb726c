package agent

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

var every = flag.Bool("every", false, "TestCrashes: run every combination, not the selection with all pairs and most triples")

// crash is one case: what happens at one effect of a cycle, and in what world.
type crash struct {
	effect                       int
	cut, sentinel, host, trouble int // of the lists below
	foreign                      bool
}

// cuts are what happens to the effect.
var cuts = []struct {
	name  string
	fault fault
	power bool // the host goes down with its agent
}{
	{"the agent dies before it", fault{dropped: true, cut: true}, false},
	{"the agent dies after it", fault{lost: true, cut: true}, false},
	{"the power goes before it", fault{dropped: true, cut: true}, true},
	{"the power goes after it", fault{lost: true, cut: true}, true},
	{"its answer is lost", fault{lost: true}, false},
	{"it is lost", fault{dropped: true}, false},
	{"it lands half a minute late", fault{late: 30 * time.Second}, false},
	{"it lands half a minute late and the agent is dead", fault{late: 30 * time.Second, cut: true}, false},
	{"it is refused", fault{refused: true}, false},
}

// The rest of the world; each starts at the moment of the effect, and ends by calmDown at the latest. Their callers hold
// s.mu.
type part struct {
	name  string
	begin func(s *sim)
}

var sentinels = []part{
	{"the sentinel goes with the boot", func(*sim) {}},
	{"the sentinel is taken away by hand", func(s *sim) { s.wants("") }},
	{"another sentinel comes", func(s *sim) { s.wants("b") }},
	{"the sentinel is there again after the boot", func(s *sim) { s.keeps = true }},
}

var hosts = []part{
	{"the host goes", func(*sim) {}},
	{"the host refuses", func(s *sim) { s.refuse = ErrInhibited }},
	{"the host accepts and stays up", func(s *sim) { s.stuck = true }},
	{"the host goes 20 minutes late", func(s *sim) { s.goesAfter = 20 * time.Minute }},
	{"the host cannot be asked", func(s *sim) { s.calm = errMute }},
	{"the next hooks fail", func(s *sim) { s.failHooks(2) }},
}

var troubles = []part{
	{"nothing else", func(*sim) {}},
	{"the API server is away for two minutes", func(s *sim) { s.goAway(2 * time.Minute) }},
	{"the API server is slow", func(s *sim) { s.slow = 3 * time.Second }},
	{"the window shuts", func(s *sim) { s.hours.shut = time.Now(); s.configure() }},
	{"people hold the node", func(s *sim) { s.setHold("wait") }},
	{"the Node is deleted", func(s *sim) { s.deleteNode() }},
	{"the Node is deleted and made anew", func(s *sim) { s.deleteNode(); s.register(); s.toldNode() }},
	{"the configuration changes", func(s *sim) { s.settings.DrainTimeout, s.settings.Soak = time.Minute, 10*time.Second; s.configure() }},
	{"the configuration is broken", func(s *sim) { s.noPolicy = true }},
	{"a second agent starts", func(s *sim) { s.second() }},
	{"people uncordon the node", func(s *sim) { s.setCordon(false) }},
	{"people cordon the node", func(s *sim) { s.setCordon(true) }},
	{"people reboot the host in half a minute", func(s *sim) { s.plan(30 * time.Second) }},
	{"people ask for the slot", func(s *sim) { s.slot.Release = "please"; s.slot.ResourceVersion = s.next(); s.told() }},
	{"the brake is put on the slot", func(s *sim) { s.slot.Hold = "halted"; s.slot.ResourceVersion = s.next(); s.told() }},
	{"a pod is not ready after the boot", func(s *sim) { s.missing = []string{"ds/a"} }},
}

// leads are by how many effects the rest of the world is ahead of the cut: so that what comes of it is cut, too.
var leads = []int{0, 1, 3, 6}

func (c crash) lead() int { return leads[(c.sentinel+c.host+c.trouble+c.cut+c.effect)%len(leads)] }

func (c crash) String() string {
	cordon := "a schedulable node"
	if c.foreign {
		cordon = "a node that people cordoned"
	}
	return fmt.Sprintf("effect %d of %s: %s; %d effects before %s, %s, %s", c.effect, cordon, cuts[c.cut].name, c.lead(), sentinels[c.sentinel].name,
		hosts[c.host].name, troubles[c.trouble].name)
}

// run lives through the case and returns what is wrong in the end, and whether the cycle came to the effect at all.
func (c crash) run(t *testing.T) (faults []string, reached bool) {
	s := newSim(t).withHooks()
	s.settings.MaxReboots24h = 100
	s.leading = (c.effect+c.cut)%2 == 0
	if c.foreign {
		s.setCordon(true)
	}
	begun := false
	s.fault = func(n int, what string) fault {
		if !begun && n >= c.effect-c.lead() {
			begun = true
			s.gap = what == "reboot" || what == "hook"
			for _, p := range []part{sentinels[c.sentinel], hosts[c.host], troubles[c.trouble]} {
				p.begin(s)
			}
		}
		if n != c.effect || reached {
			return fault{}
		}
		reached = true
		if cuts[c.cut].power {
			go s.rebootNow()
		}
		how := cuts[c.cut].fault
		if how.late > 0 && slices.Contains([]string{"evict", "resign", "reboot", "hook"}, what) {
			how = fault{lost: true, cut: how.cut} // these do not wait on a line
		}
		return how
	}
	s.liveUntil(60*time.Hour, func() {
		s.raise("a")
		await(40*time.Minute, s.quiet)
		s.with(s.calmDown)
	}, s.quiet)
	faults = s.bad
	if !s.quiet() {
		faults = append(faults, fmt.Sprintf("it never settles: slot %+v, record %s", s.slot, s.node.Record))
	}
	if s.node.Unschedulable != s.theirs {
		faults = append(faults, fmt.Sprintf("cordoned %v, by people %v", s.node.Unschedulable, s.theirs))
	}
	if s.node.Shields != "" && s.node.Record == "" {
		faults = append(faults, "other controllers are still kept from the node")
	}
	if s.node.Record == "" && (s.node.Phase != "" || s.node.Tainted) {
		faults = append(faults, fmt.Sprintf("label %q, taint %v stay", s.node.Phase, s.node.Tainted))
	}
	if s.reboots == 0 && sentinels[c.sentinel].name != "the sentinel is taken away by hand" {
		faults = append(faults, "the host was never rebooted")
	}
	if len(faults) > 0 {
		faults = append(faults, "effects: "+strings.Join(s.log, " "))
	}
	return faults, reached
}

// selected tells whether a case is one of the selection: with every cut and trouble all sentinels, and all hosts, so that
// every pair and most triples are there.
func (c crash) selected() bool {
	if (c.sentinel+2*c.host+3*c.trouble+5*c.cut+c.effect)%thin != 0 {
		return false
	}
	foreign := (c.sentinel/2+c.trouble+c.cut+c.effect)%2 == 1
	return c.host == (c.sentinel+c.trouble+c.cut+c.effect)%len(hosts) && c.foreign == foreign
}

// TestCrashes cuts the power, the API server, the bus or the agent at every effect of a cycle, before it took hold and
// after, in every kind of world. The invariants are checked at each effect; in the end everything is as it should be.
func TestCrashes(t *testing.T) {
	var cases atomic.Int64
	var failed atomic.Bool
	t.Run("of every kind at every effect", func(t *testing.T) {
		for trouble := range troubles {
			for cut := range cuts {
				t.Run(troubles[trouble].name+", "+cuts[cut].name, func(t *testing.T) {
					t.Parallel()
					cases.Add(crashes(t, crash{cut: cut, trouble: trouble}, &failed))
				})
			}
		}
	})
	t.Attr("crashes", fmt.Sprintf("%d, 1 in %d", cases.Load(), thin))
	if cases.Load() < 3000/thin && !failed.Load() {
		t.Errorf("only %d crashes: the cycle has more effects than that", cases.Load())
	}
}

// crashes runs the cases of one cut and one trouble. Unless all are wanted it ends with the first that fails anywhere: what is
// broken breaks hundreds.
func crashes(t *testing.T, c crash, failed *atomic.Bool) (ran int64) {
	for c.sentinel = range sentinels {
		for c.host = range hosts {
			for _, c.foreign = range []bool{false, true} {
				beyond := 0 // effects that the cycle did not come to, one after the other
				for c.effect = 1; c.effect < 40 && beyond < len(leads); c.effect++ {
					if !*every && !c.selected() {
						continue
					}
					if failed.Load() && !*every {
						return ran
					}
					faults, reached := c.run(t)
					for _, f := range faults {
						t.Errorf("%s: %s", c, f)
						failed.Store(true)
					}
					if !reached {
						beyond++
						continue
					}
					beyond = 0
					ran++
				}
			}
		}
	}
	return ran
}
