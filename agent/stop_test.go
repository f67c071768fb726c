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
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			a := s.agent(cancel).agent
			a.SetPolicy(s.policy())
			done := make(chan error)
			go func() { done <- a.Run(ctx) }()
			s.raise("a")
			pass(at)
			var before int
			s.with(func() { before = s.effects; phases[s.recordLocked().Phase] = true })
			cancel()
			if err := <-done; err != nil {
				t.Errorf("a stop after %s ends with %v", at, err)
			}
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
