package agent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// SIGTERM, at any moment of a cycle, is answered by silence: nothing is written, nothing is released.
func TestAStopWritesNothing(t *testing.T) {
	phases := map[Phase]bool{}
	for at := 7 * time.Millisecond; at < 40*time.Second; at += 250 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t)
			s.goesAfter = time.Hour // the host takes its time: Rebooting is stopped too
			stop := s.runs(t)
			s.raise("a")
			pass(at)
			var before int
			s.with(func() { before = s.effects; phases[s.recordLocked().Phase] = true })
			stop()
			if s.effects != before {
				t.Errorf("a stop after %s is followed by %v", at, s.log[before:])
			}
			pass(2 * time.Hour) // the host's reboot
		})
	}
	for _, p := range []Phase{Draining, Rebooting} {
		if !phases[p] {
			t.Errorf("no stop fell into %s: %v", p, phases)
		}
	}
}

// runs starts an agent that lives until stop is called, which returns when it has ended.
func (s *sim) runs(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s.ctx = ctx
	l := s.agent(cancel)
	l.agent.SetPolicy(s.policy())
	done := make(chan error)
	go func() { done <- l.agent.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("a stop ends with %v", err)
		}
	}
}

// A stop that is a removal gives the node back at any moment of a cycle, as long as the reboot was not asked for.
func TestAStopThatIsARemoval(t *testing.T) {
	phases := map[Phase]int{}
	for at := 7 * time.Millisecond; at < 30*time.Second; at += 250 * time.Millisecond {
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t)
			s.goesAfter = 10 * time.Second
			stop := s.runs(t)
			s.raise("a")
			pass(at)
			var was Phase
			s.with(func() { was, s.removed = s.recordLocked().Phase, true })
			phases[was]++
			began := time.Now()
			stop()
			if took := time.Since(began); took > leaveTimeout+callTimeout {
				t.Errorf("a removal in %s took %s", was, took)
			}
			asked := false
			s.with(func() { asked = s.asked > 0 })
			if took := time.Since(began); asked && took > time.Second {
				t.Errorf("after the call there is nothing to give back: a stop took %s", took)
			}
			n, sl, _ := s.state()
			if left := n.Record != "" || n.Tainted || n.Unschedulable || sl.Holder != ""; left != asked {
				t.Errorf("a removal in %s, a reboot asked for %v: left behind %v: %s", was, asked, left, n.Record)
			}
			pass(time.Hour) // the host's reboot
			for _, b := range s.bad {
				t.Error(b)
			}
		})
	}
	for _, p := range []Phase{Draining, Rebooting} {
		if phases[p] == 0 {
			t.Errorf("no removal fell into %s: %v", p, phases)
		}
	}
	for name, begin := range map[Phase]func(s *sim){
		Waiting: func(s *sim) { s.paused, s.noMarshal = "incident", true },
		Backoff: func(s *sim) { s.refuse = ErrInhibited },
	} {
		t.Run("in "+string(name)+", too", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t)
				begin(s)
				stop := s.runs(t)
				s.raise("a")
				pass(15 * time.Second)
				if r := s.record(); r.Phase != name {
					t.Errorf("phase %s, want %s", r.Phase, name)
				}
				s.with(func() { s.removed = true })
				stop()
				s.settled(t, 0)
				pass(time.Hour)
			})
		})
	}
	t.Run("an API server that does not say is no removal", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t)
			stop := s.runs(t)
			s.raise("a")
			pass(time.Second)
			was := 0
			s.with(func() { s.removed, s.away, was = true, true, s.effects })
			stop()
			if s.effects != was || s.record().Phase != Draining {
				t.Errorf("effects %v", s.log[was:])
			}
			pass(time.Hour)
		})
	})
}

// A loop that hangs is told from one that waits for an API server that is away.
func TestAlive(t *testing.T) {
	run := func(t *testing.T, a *Agent) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("an API server that is away is no reason to be killed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t)
			a := s.agent(func() {}).agent
			s.away = true
			run(t, a)
			for range 60 {
				pass(time.Minute)
				if err := a.Alive(); err != nil {
					t.Fatal(err)
				}
			}
			if st := a.Status(); st.Ready || st.Trouble == "" {
				t.Errorf("status %+v", st)
			}
		})
	})
	t.Run("a loop that hangs is", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newSim(t)
			l := s.agent(func() {})
			a := l.agent
			hang := make(chan struct{})
			a.Marshal = hangingMarshal{simMarshal{l}, hang}
			run(t, a)
			pass(hung / 2)
			if err := a.Alive(); err != nil {
				t.Error(err)
			}
			pass(hung)
			if a.Alive() == nil {
				t.Error("the loop has not turned for minutes and is called alive")
			}
			close(hang)
			pass(time.Minute)
			if err := a.Alive(); err != nil {
				t.Error(err)
			}
		})
	})
}

type hangingMarshal struct {
	simMarshal
	until chan struct{}
}

func (m hangingMarshal) Stand(bool) { <-m.until }
