package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// What the peers of docs/reliability.md get wrong, by its number there. More of them stand in the package where it would
// break.

func TestPeer1_ARestartOfTheAgentIsNoReboot(t *testing.T) {
	for phase, stay := range map[Phase]func(s *sim){
		Draining:  func(s *sim) { s.blocked = string(ReasonPDB) },
		Rebooting: func(s *sim) { s.goesAfter = time.Hour },
		Verifying: func(s *sim) { s.missing = []string{"ds/a"} },
	} {
		t.Run("in "+string(phase), func(t *testing.T) {
			s := newSim(t)
			stay(s)
			s.live(14*time.Minute, func() {
				s.raise("a")
				pass(40 * time.Second)
				for range 5 {
					s.with(s.cut)
					pass(20 * time.Second)
					n, sl, _ := s.state()
					if r := s.record(); r.Phase != phase || !n.Unschedulable || sl.Holder != "n1" {
						t.Fatalf("after a restart: phase %s, cordoned %v, slot %+v", r.Phase, n.Unschedulable, sl)
					}
				}
			})
			if slices.ContainsFunc(s.events, func(e string) bool { return strings.HasPrefix(e, "RebootFinished") }) || s.node.History != "" {
				t.Errorf("a restart was told as a reboot: %v, history %s", s.events, s.node.History)
			}
		})
	}
}

func TestPeer2_TheWayHomeIsTriedForAsLongAsItTakes(t *testing.T) {
	for _, away := range []time.Duration{time.Second, time.Minute, 3 * time.Hour, 48 * time.Hour} {
		t.Run(fmt.Sprintf("an API server that is away for %s after the boot", away), func(t *testing.T) {
			s := newSim(t)
			s.after = func(what string) {
				if what == "reboot" {
					s.goAway(away)
				}
			}
			s.live(away+10*time.Minute, func() { s.raise("a") })
			s.settled(t, 1)
			s.cordoned(t, false)
		})
	}
}

func TestPeer5_ADrainThatIsBlockedGivesTheSlotBack(t *testing.T) {
	s := newSim(t)
	s.blocked = string(ReasonPDB)
	held := time.Duration(0)
	s.live(24*time.Hour, func() {
		s.raise("a")
		for range 24 * 60 {
			pass(time.Minute - time.Second)
			if _, sl, _ := s.state(); sl.Holder != "" {
				held += time.Minute
			}
		}
	})
	// 15 minutes of each attempt, and the delay between them grows to an hour.
	if held > 7*time.Hour || held < 4*time.Hour {
		t.Errorf("of 24 hours it held the slot for %s", held)
	}
	s.rebooted(t, 0)
}

func TestPeer6_AFailedDrainKeepsTheCordonOfOthersAndUncordonsBeforeItReleases(t *testing.T) {
	for _, theirs := range []bool{false, true} {
		t.Run(fmt.Sprintf("cordoned before %v", theirs), func(t *testing.T) {
			s := newSim(t)
			s.setCordon(theirs)
			s.blocked = string(ReasonPDB)
			freed := false
			s.after = func(what string) {
				if what == "free" {
					freed = true
					if s.node.Unschedulable != theirs {
						s.violated("freed while cordoned %v, by people %v", s.node.Unschedulable, theirs)
					}
				}
			}
			s.live(15*time.Minute+30*time.Second, func() { s.raise("a") })
			if r := s.record(); r.Phase != Backoff || !freed {
				t.Errorf("phase %s, freed %v", r.Phase, freed)
			}
			s.cordoned(t, theirs)
			for _, b := range s.bad {
				t.Error(b)
			}
		})
	}
}

func TestPeer7_ARebootThatDoesNotComeIsNoRebootAndHoldsNothingForEver(t *testing.T) {
	for name, tt := range map[string]struct {
		begin func(s *sim)
		why   Reason
	}{
		"refused":                  {func(s *sim) { s.refuse = errors.New("no polkit") }, ReasonRefused},
		"refused by an inhibitor":  {func(s *sim) { s.refuse = ErrInhibited }, ReasonInhibitor},
		"accepted and never begun": {func(s *sim) { s.stuck = true }, ReasonNoReboot},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSim(t)
			tt.begin(s)
			s.live(40*time.Second, func() { s.raise("a") })
			if r := s.record(); r.Phase != Backoff || r.Reasons[0] != tt.why {
				t.Errorf("record %+v", r)
			}
			s.cordoned(t, false)
			if len(parseHistory(s.node.History).Cycles) > 0 {
				t.Errorf("history %s", s.node.History)
			}
		})
	}
	t.Run("accepted, and coming for an hour: slot and cordon are kept, and people are told", func(t *testing.T) {
		s := newSim(t)
		s.goesAfter = time.Hour
		s.live(50*time.Minute, func() { s.raise("a") })
		n, sl, _ := s.state()
		if r := s.record(); r.Phase != Rebooting || r.Reasons[0] != ReasonRebootSlow || !n.Unschedulable || sl.Holder == "" {
			t.Errorf("record %+v, slot %+v", r, sl)
		}
	})
}

func TestPeer8_GatesAreAskedAgainAfterAnHourOfDraining(t *testing.T) {
	for name, shut := range map[string]func(s *sim){
		"the window": func(s *sim) { s.hours.shut = time.Now(); s.configure() },
		"a pause":    func(s *sim) { s.paused = "incident" },
		"inhibitor":  func(s *sim) { s.inhibitor = []string{"backup: tapes"} },
		"a hold":     func(s *sim) { s.setHold("wait") },
		"the brake":  func(s *sim) { s.slot.Hold, s.slot.ResourceVersion = "halted: n7", s.next(); s.told() },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSim(t)
			s.settings.DrainTimeout = 3 * time.Hour
			s.blocked = string(ReasonPDB)
			s.live(2*time.Hour, func() {
				s.raise("a")
				pass(time.Hour)
				s.with(func() { s.noMarshal = true; shut(s) })
				s.with(func() { s.blocked, s.pods = "", 1 }) // it would be empty in a second
				pass(30 * time.Minute)
			})
			if s.asked > 0 {
				t.Errorf("the host was asked to reboot: %v", s.log)
			}
			s.cordoned(t, false)
		})
	}
}

func TestPeer10_ASentinelThatSurvivesMakesOneRebootAndNoMore(t *testing.T) {
	s := newSim(t)
	s.keeps = true
	s.live(14*24*time.Hour, func() { s.raise("a") })
	s.rebooted(t, 1)
	s.cordoned(t, false)
	if r := s.record(); len(r.Reasons) != 1 || r.Reasons[0] != ReasonSentinelSurvived {
		t.Errorf("record %+v", r)
	}
}

func TestPeer12_ANodeSaysWhereItStandsAndWhy(t *testing.T) {
	s := newSim(t)
	s.inhibitor = []string{"backup: tapes"}
	s.live(time.Minute, func() {
		s.raise("a")
		pass(30 * time.Second)
		r := s.record()
		if r.Phase != Waiting || r.Reasons[0] != ReasonInhibitor || !strings.Contains(r.Message, "tapes") || s.node.Phase != "waiting" {
			t.Errorf("label %q, record %+v", s.node.Phase, r)
		}
		if st := s.lives[0].agent.Status(); st.Phase != Waiting || !strings.Contains(st.Why, "tapes") {
			t.Errorf("status %+v", st)
		}
		if len(s.events) == 0 {
			t.Error("no Event")
		}
		err := testutil.GatherAndCompare(s.metrics, strings.NewReader(`
# HELP baton_gate_closed 1 for each gate that kept this node from going down when it was last asked.
# TYPE baton_gate_closed gauge
baton_gate_closed{reason="inhibitor"} 1
`), "baton_gate_closed")
		if err != nil {
			t.Error(err)
		}
	})
}
