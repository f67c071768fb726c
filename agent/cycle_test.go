package agent

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestCycle(t *testing.T) {
	t.Run("a sentinel leads to one reboot and back to a schedulable node", func(t *testing.T) {
		s := newSim(t)
		s.live(10*time.Minute, func() { s.raise("a") })
		s.settled(t, 1)
		n, _, _ := s.state()
		if n.Unschedulable {
			t.Error("the node is still cordoned")
		}
		h := parseHistory(n.History)
		if len(h.Cycles) != 1 || !h.Cycles[0].Rebooted || h.Cycles[0].Result != ReasonRebooted || h.Cycles[0].Downtime < 20*time.Second {
			t.Fatalf("history %+v", h)
		}
		if w := h.Cycles[0].Wished; w.IsZero() || w.After(h.Cycles[0].At.Add(-h.Cycles[0].Took)) {
			t.Errorf("the reboot is for what was there since %s: %+v", w, h)
		}
	})

	t.Run("every step is an Event but the new boot, of which the kubelet tells, and the last ones are counted by the agent that made them", func(t *testing.T) {
		s := newSim(t)
		s.live(10*time.Minute, func() { s.raise("a") })
		want := []string{
			"RebootWaiting sentinel false", "RebootDraining slot false", "RebootRebooting drained false",
			"RebootFinished healthy false",
		}
		if diff := cmp.Diff(s.events, want); diff != "" {
			t.Error(diff)
		}
		err := testutil.GatherAndCompare(s.metrics, strings.NewReader(`
# HELP baton_transitions_total Moves of this node's cycle since the agent started.
# TYPE baton_transitions_total counter
baton_transitions_total{from="Rebooting",reason="rebooted",to="Verifying"} 1
baton_transitions_total{from="Verifying",reason="healthy",to="Idle"} 1
`), "baton_transitions_total")
		if err != nil {
			t.Error(err)
		}
	})

	t.Run("what the drain evicted is known when the node is back, also to the next agent", func(t *testing.T) {
		s := newSim(t)
		s.pods = 3
		s.live(10*time.Minute, func() {
			s.raise("a")
			pass(5 * time.Minute)
			s.with(func() { s.cut() })
		})
		s.settled(t, 1)
		err := testutil.GatherAndCompare(s.metrics, strings.NewReader(`
# HELP baton_last_evictions Pods that were evicted for the last finished cycle. The sum over the nodes is what the last rollout evicted.
# TYPE baton_last_evictions gauge
baton_last_evictions 3
`), "baton_last_evictions")
		if err != nil {
			t.Error(err)
		}
	})

	t.Run("a window that shuts during the drain gives the node back, and nobody reboots it in the morning", func(t *testing.T) {
		s := newSim(t)
		s.blocked = string(ReasonPDB)
		s.live(2*time.Hour, func() {
			s.with(func() { s.hours.shut = time.Now().Add(10 * time.Minute) })
			s.raise("a")
			pass(5 * time.Minute)
			s.with(func() { s.cut() }) // the agent that comes next knows the hours
			pass(4 * time.Minute)
			if r := s.record(); r.Phase != Draining {
				t.Errorf("phase %s before the window shuts", r.Phase)
			}
			pass(61 * time.Second)
			if r := s.record(); r.Phase != Waiting || r.Reasons[0] != ReasonWindow {
				t.Errorf("record %+v", r)
			}
			s.with(func() { s.blocked = "" })
		})
		s.rebooted(t, 0)
		s.cordoned(t, false)
	})

	t.Run("a node that waits is tainted, unless the configuration says otherwise", func(t *testing.T) {
		for _, want := range []bool{true, false} {
			s := newSim(t)
			s.settings.PendingTaint = want
			s.inhibitor = []string{"backup: tapes"}
			s.live(time.Minute, func() {
				s.raise("a")
				pass(10 * time.Second)
				if n, _, _ := s.state(); n.Tainted != want || n.Phase != "waiting" {
					t.Errorf("phase %q, tainted %v, want %v", n.Phase, n.Tainted, want)
				}
			})
		}
	})

	t.Run("nothing is written while no reboot is wanted", func(t *testing.T) {
		s := newSim(t)
		s.live(24*time.Hour, nil)
		s.settled(t, 0)
		if s.effects != 0 {
			t.Errorf("effects: %v", s.log)
		}
	})

	t.Run("a cordon from before is kept", func(t *testing.T) {
		s := newSim(t)
		s.node.Unschedulable = true
		s.live(10*time.Minute, func() { s.raise("a") })
		s.settled(t, 1)
		if n, _, _ := s.state(); !n.Unschedulable {
			t.Error("the cordon of somebody else is gone")
		}
	})

	t.Run("a cordon laid between our read and our write is kept", func(t *testing.T) {
		s := newSim(t)
		s.after = func(what string) {
			if what == "renew" && s.node.Phase == "waiting" { // and the watch does not tell of it in time
				s.node.Unschedulable, s.node.ResourceVersion = true, s.next()
			}
		}
		s.live(10*time.Minute, func() { s.raise("a") })
		s.settled(t, 1)
		if n, _, _ := s.state(); !n.Unschedulable {
			t.Error("the cordon of somebody else is gone")
		}
	})

	t.Run("the same sentinel after the reboot leads to no second one", func(t *testing.T) {
		s := newSim(t)
		s.keeps = true
		s.live(48*time.Hour, func() { s.raise("a") })
		n, sl, reboots := s.state()
		if reboots != 1 || n.Unschedulable || sl.Holder != "" {
			t.Errorf("reboots %d, cordoned %v, slot %+v", reboots, n.Unschedulable, sl)
		}
		if h := parseHistory(n.History); len(h.Cycles) != 1 || h.Cycles[0].Result != ReasonSentinelSurvived {
			t.Errorf("history %+v", h)
		}
		if r := s.record(); r.Phase != Waiting || r.Bids || len(r.Reasons) != 1 || r.Reasons[0] != ReasonSentinelSurvived {
			t.Errorf("record %+v", r)
		}
	})

	t.Run("at most two proven reboots in a day", func(t *testing.T) {
		s := newSim(t)
		s.keeps = true
		s.live(20*time.Hour, func() {
			for i := range 10 {
				s.raise(fmt.Sprint(i))
				pass(time.Hour)
			}
		})
		if _, _, reboots := s.state(); reboots != 2 {
			t.Errorf("%d reboots", reboots)
		}
	})

	t.Run("a drain that never ends backs off, uncordons, frees the slot and tries later", func(t *testing.T) {
		s := newSim(t)
		s.blocked = string(ReasonPDB)
		s.live(17*time.Minute, func() {
			s.raise("a")
			pass(15*time.Minute + 30*time.Second)
			n, sl, _ := s.state()
			r := s.record()
			if r.Phase != Backoff || n.Unschedulable || sl.Holder != "" {
				t.Errorf("phase %s, cordoned %v, holder %q", r.Phase, n.Unschedulable, sl.Holder)
			}
			pass(time.Minute)
			if r := s.record(); r.Phase != Draining || r.Attempt != 2 {
				t.Errorf("a minute later: phase %s, attempt %d", r.Phase, r.Attempt)
			}
		})
	})

	t.Run("an inhibitor is a gate, and the node bids once it is gone", func(t *testing.T) {
		s := newSim(t)
		s.inhibitor = []string{"backup: writing tapes"}
		s.live(20*time.Minute, func() {
			s.raise("a")
			pass(time.Minute)
			if r := s.record(); r.Bids || !strings.Contains(r.Message, "writing tapes") {
				t.Errorf("record %+v", r)
			}
			s.mu.Lock()
			s.inhibitor = nil
			s.mu.Unlock()
		})
		s.settled(t, 1)
	})

	t.Run("a refused reboot backs off and does not count as done", func(t *testing.T) {
		s := newSim(t)
		s.refuse = ErrInhibited
		s.live(5*time.Minute, func() {
			s.raise("a")
			pass(30 * time.Second)
			if r := s.record(); r.Phase != Backoff || r.Reasons[0] != ReasonInhibitor {
				t.Errorf("record %+v", r)
			}
			s.mu.Lock()
			s.refuse = nil
			s.mu.Unlock()
		})
		s.settled(t, 1)
	})

	t.Run("an accepted reboot that the host proves not to come backs off", func(t *testing.T) {
		s := newSim(t)
		s.stuck = true
		s.live(10*time.Minute, func() {
			s.raise("a")
			pass(40 * time.Second)
			if r := s.record(); r.Phase != Backoff || r.Reasons[0] != ReasonNoReboot {
				t.Errorf("record %+v", r)
			}
		})
		for _, b := range s.bad {
			t.Error(b)
		}
	})

	t.Run("a reboot that takes 20 minutes keeps slot and cordon all the time", func(t *testing.T) {
		s := newSim(t)
		s.goesAfter = 40 * time.Minute
		s.live(2*time.Hour, func() {
			s.raise("a")
			pass(35 * time.Minute)
			n, sl, _ := s.state()
			if r := s.record(); r.Phase != Rebooting || r.Reasons[0] != ReasonRebootSlow || !n.Unschedulable || sl.Holder == "" {
				t.Errorf("record %+v", r)
			}
		})
		s.settled(t, 1)
	})

	t.Run("what cannot be asked counts as a reboot that is coming", func(t *testing.T) {
		s := newSim(t)
		s.blocked = string(ReasonPDB)
		s.live(time.Hour, func() {
			s.raise("a")
			pass(5 * time.Second)
			s.mu.Lock()
			s.calm = errors.New("the bus is gone")
			s.mu.Unlock()
			pass(30 * time.Minute)
			if n, sl, _ := s.state(); !n.Unschedulable || sl.Holder == "" || s.record().Attempt != 1 {
				t.Error("slot or cordon were given up")
			}
			s.mu.Lock()
			s.calm, s.blocked = nil, ""
			s.mu.Unlock()
		})
		s.settled(t, 1)
	})

	t.Run("a person's uncordon during the drain is a veto", func(t *testing.T) {
		s := newSim(t)
		s.blocked = string(ReasonPDB)
		s.live(30*time.Minute, func() {
			s.raise("a")
			pass(10 * time.Second)
			s.person(func() { s.node.Unschedulable = false })
			pass(10 * time.Minute)
			n, sl, _ := s.state()
			if r := s.record(); r.Phase != Waiting || r.Attempt != 1 || n.Unschedulable || sl.Holder != "" {
				t.Errorf("record %+v, slot %+v", r, sl)
			}
		})
	})

	t.Run("a hold during the drain undoes it, and its end lets it go on", func(t *testing.T) {
		s := newSim(t)
		s.blocked = string(ReasonPDB)
		s.live(30*time.Minute, func() {
			s.raise("a")
			pass(10 * time.Second)
			s.person(func() { s.node.Hold = "debugging" })
			pass(10 * time.Second)
			n, sl, _ := s.state()
			if r := s.record(); r.Phase != Waiting || n.Unschedulable || sl.Holder != "" {
				t.Errorf("record %+v, slot %+v", r, sl)
			}
			s.mu.Lock()
			s.blocked = ""
			s.mu.Unlock()
			s.person(func() { s.node.Hold = "" })
		})
		s.settled(t, 1)
	})

	t.Run("a sentinel that goes away during the drain ends the cycle", func(t *testing.T) {
		s := newSim(t)
		s.blocked = string(ReasonPDB)
		s.live(10*time.Minute, func() {
			s.raise("a")
			pass(10 * time.Second)
			s.with(func() { s.wants("") })
		})
		s.settled(t, 0)
		if n, _, _ := s.state(); n.Unschedulable {
			t.Error("still cordoned")
		}
	})

	t.Run("a request by a person is served once and cleared", func(t *testing.T) {
		s := newSim(t)
		s.live(20*time.Minute, func() { s.person(func() { s.node.Request = "kernel" }) })
		s.settled(t, 1)
		if n, _, _ := s.state(); n.Request != "" {
			t.Errorf("request %q", n.Request)
		}
	})

	t.Run("a node that does not become ready fails, and an acknowledgement ends that", func(t *testing.T) {
		s := newSim(t)
		s.missing = []string{"ds/a"}
		s.live(2*time.Hour, func() {
			s.raise("a")
			pass(time.Hour)
			n, sl, _ := s.state()
			if r := s.record(); r.Phase != Failed || !n.Unschedulable || sl.Holder == "" {
				t.Errorf("record %+v", r)
			}
			s.person(func() { s.node.Acknowledge = "known" })
		})
		s.settled(t, 1)
		if n, _, _ := s.state(); n.Unschedulable {
			t.Error("still cordoned")
		}
	})

	t.Run("a power cut during the drain is verified and not called Baton's reboot", func(t *testing.T) {
		s := newSim(t)
		s.blocked = string(ReasonPDB)
		s.live(20*time.Minute, func() {
			s.raise("a")
			pass(10 * time.Second)
			s.rebootNow()
		})
		s.settled(t, 1)
	})

	t.Run("a lost record is rebuilt from the slot", func(t *testing.T) {
		s := newSim(t)
		s.blocked = string(ReasonPDB)
		s.live(30*time.Minute, func() {
			s.raise("a")
			pass(10 * time.Second)
			s.mu.Lock()
			s.blocked = ""
			s.mu.Unlock()
			s.person(func() { s.node.Record = "" })
		})
		s.settled(t, 1)
		if n, _, _ := s.state(); n.Unschedulable {
			t.Error("still cordoned")
		}
	})

	t.Run("a record of a newer version is left alone", func(t *testing.T) {
		s := newSim(t)
		s.node.Record = `{"version":2,"phase":"Draining"}`
		s.live(time.Hour, func() { s.raise("a") })
		if s.effects != 0 {
			t.Errorf("effects: %v", s.log)
		}
	})

	t.Run("the marshal resigns between the take and the cordon", func(t *testing.T) {
		s := newSim(t)
		s.leading = true
		s.live(10*time.Minute, func() { s.raise("a") })
		s.settled(t, 1)
		if got := strings.Join(s.log[:5], " "); got != "patch take resign renew patch" {
			t.Errorf("effects begin %s", got)
		}
	})

	t.Run("a node whose object is deleted is neither drained nor rebooted", func(t *testing.T) {
		s := newSim(t)
		s.blocked = string(ReasonPDB)
		s.live(30*time.Minute, func() {
			s.raise("a")
			pass(10 * time.Second)
			s.person(func() { s.exists = false })
			pass(time.Second)
			s.mu.Lock()
			s.blocked = ""
			was := s.effects
			s.mu.Unlock()
			pass(20 * time.Minute)
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.effects != was {
				t.Errorf("effects afterwards: %v", s.log[was:])
			}
		})
	})
}
