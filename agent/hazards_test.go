package agent

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// What reviewers, models and accidents have shown to go wrong.
func TestHazards(t *testing.T) {
	for _, tt := range []struct {
		name   string
		last   time.Duration // how long the world runs
		script func(t *testing.T, s *sim)
		check  func(t *testing.T, s *sim)
	}{
		{
			"a delay stored while the clock was a year ahead is over in time", 6 * time.Hour,
			func(_ *testing.T, s *sim) {
				s.with(func() { s.refuse = ErrInhibited })
				s.raise("a")
				pass(30 * time.Second)
				s.with(func() { s.refuse = nil })
				s.person(func() {
					r := s.recordLocked()
					r.Until = time.Now().Add(365 * 24 * time.Hour)
					s.node.Record, _ = r.encode()
				})
			},
			func(t *testing.T, s *sim) { s.settled(t, 1) },
		},
		{
			"a cordon laid on a failed node after an uncordon is kept", 4 * time.Hour,
			func(_ *testing.T, s *sim) {
				s.with(func() { s.missing = []string{"ds/a"} })
				s.raise("a")
				pass(time.Hour)
				s.person(func() { s.node.Unschedulable = false })
				pass(10 * time.Minute)
				s.person(func() { s.node.Unschedulable = true })
				pass(10 * time.Minute)
				s.person(func() { s.node.Acknowledge = "known" })
			},
			func(t *testing.T, s *sim) { s.settled(t, 1); s.cordoned(t, true) },
		},
		{
			"a cordon laid while the reboot is coming, after an uncordon, is kept", time.Hour,
			func(_ *testing.T, s *sim) {
				s.with(func() { s.goesAfter = 10 * time.Minute })
				s.raise("a")
				pass(time.Minute)
				s.person(func() { s.node.Unschedulable = false })
				pass(time.Minute)
				s.person(func() { s.node.Unschedulable = true })
			},
			func(t *testing.T, s *sim) { s.settled(t, 1); s.cordoned(t, true) },
		},
		{
			"an agent that starts before its Node frees the slot of the Node before", 24 * time.Hour,
			func(_ *testing.T, s *sim) {
				s.with(func() {
					s.exists, s.node.UID = false, "uid-2"
					s.slot.Nominee, s.slot.Holder, s.slot.HolderUID, s.slot.Cycle, s.slot.BootID = "uid-1", "n1", "uid-1", "old", "boot-1"
				})
				pass(10 * time.Second)
				s.person(func() { s.exists = true })
			},
			func(t *testing.T, s *sim) { s.settled(t, 0) },
		},
		{
			"a hold stops the evictions, also while the bus is away", 10 * time.Minute,
			func(t *testing.T, s *sim) {
				s.evictsNoMore(t, func() {
					s.with(func() { s.calm = errors.New("the bus is gone") })
					s.person(func() { s.node.Hold = "stop!" })
				})
			}, nil,
		},
		{
			"a lost slot stops the evictions, also while the bus is away", 10 * time.Minute,
			func(t *testing.T, s *sim) {
				s.evictsNoMore(t, func() {
					s.with(func() {
						s.calm, s.noMarshal = errors.New("the bus is gone"), true
						s.slot = Slot{Name: s.slot.Name, Group: s.slot.Group, Holder: "n2", HolderUID: "uid-n2", Nominee: "uid-n2", ResourceVersion: s.next()}
						s.told()
					})
					pass(recheck + time.Second)
				})
			}, nil,
		},
		{
			"a hold stops the evictions, also while the slots cannot be read", 10 * time.Minute,
			func(t *testing.T, s *sim) {
				s.evictsNoMore(t, func() {
					s.with(func() {
						s.noSlots, s.unlabelled = errors.New("forbidden"), true
						s.told()
					})
					pass(recheck + time.Second)
					s.person(func() { s.node.Hold = "stop!" })
				})
			}, nil,
		},
		{
			"a group that is taken out of the configuration ends its drain, whose rules nobody knows any more", 10 * time.Minute,
			func(t *testing.T, s *sim) {
				s.evictsNoMore(t, func() {
					s.with(func() { s.renamed = true })
					s.configure()
				})
				s.cordoned(t, false)
			}, nil,
		},
		{
			"a drain goes on by the rules of a new configuration", 30 * time.Minute,
			func(t *testing.T, s *sim) {
				s.with(func() { s.pods = 60 })
				s.raise("a")
				pass(10 * time.Second)
				s.configure() // the rules of drains are the same
				pass(10 * time.Second)
				s.with(func() { s.rules++ })
				s.configure()
				pass(10 * time.Second)
				s.with(func() {
					if s.drains != 2 {
						t.Errorf("%d drains were begun", s.drains)
					}
				})
			},
			func(t *testing.T, s *sim) { s.settled(t, 1) },
		},
		{
			"a Node that is being deleted is not drained on", 10 * time.Minute,
			func(t *testing.T, s *sim) {
				s.evictsNoMore(t, func() { s.person(func() { s.node.Deleting = true }) })
			}, nil,
		},
		{
			"the same sentinel again soon after is the one that survived", 100 * time.Hour,
			func(_ *testing.T, s *sim) {
				for range 95 {
					s.raise("a")
					pass(time.Hour)
				}
			},
			func(t *testing.T, s *sim) { s.rebooted(t, 1) },
		},
		{
			"a soak begins anew with another boot", time.Hour,
			func(t *testing.T, s *sim) {
				s.settings.Soak = 5 * time.Minute
				s.raise("a")
				pass(3 * time.Minute)
				if r := s.record(); r.Phase != Verifying || r.Healthy.IsZero() {
					t.Errorf("it does not soak: %+v", r)
				}
				s.rebootNow()
				pass(4 * time.Minute)
				if r := s.record(); r.Phase != Verifying {
					t.Errorf("it is over in phase %q", r.Phase)
				}
			},
			func(t *testing.T, s *sim) { s.settled(t, 2) },
		},
		{
			"a slot that is to be freed is kept while people take the host down", time.Hour,
			func(t *testing.T, s *sim) {
				s.with(func() {
					s.pods = 60
					s.fault = func(_ int, what string) fault {
						if what != "free" {
							return fault{}
						}
						s.fault = nil
						s.plan(20 * time.Minute)
						return fault{dropped: true, cut: true}
					}
				})
				s.raise("a")
				pass(10 * time.Second)
				s.person(func() { s.node.Hold = "wait" })
				pass(10 * time.Minute)
				if _, sl, _ := s.state(); sl.Holder != "n1" {
					t.Errorf("slot %+v while a shutdown is coming", sl)
				}
			},
			func(t *testing.T, s *sim) { s.rebooted(t, 1) },
		},
		{
			"a delay outlives the agent, and is no longer for it", time.Hour,
			func(t *testing.T, s *sim) {
				s.with(func() { s.settings.BackoffInitial, s.refuse = 10*time.Minute, ErrInhibited })
				s.raise("a")
				pass(30 * time.Second)
				s.with(func() { s.refuse = nil; s.cut() })
				pass(9 * time.Minute)
				if r := s.record(); r.Phase != Backoff {
					t.Errorf("phase %q before the delay is over", r.Phase)
				}
				pass(2 * time.Minute)
				if r := s.record(); r.Phase == Backoff {
					t.Error("the delay is not over")
				}
			},
			func(t *testing.T, s *sim) { s.settled(t, 1) },
		},
		{
			"a node that failed has failed for the next agent, too", 3 * time.Hour,
			func(t *testing.T, s *sim) {
				s.with(func() { s.missing = []string{"ds/a"} })
				s.raise("a")
				pass(time.Hour)
				s.with(s.cut)
				pass(10 * time.Minute)
				if n, _, _ := s.state(); s.record().Phase != Failed || !n.Unschedulable {
					t.Errorf("phase %q, cordoned %t", s.record().Phase, n.Unschedulable)
				}
				s.with(func() { s.missing = nil })
			},
			func(t *testing.T, s *sim) { s.settled(t, 1) },
		},
		{
			"a request is served once, also by a node that failed", 3 * time.Hour,
			func(_ *testing.T, s *sim) {
				s.with(func() { s.missing = []string{"ds/a"} })
				s.person(func() { s.node.Request = "kernel" })
				pass(time.Hour)
				s.with(func() { s.missing = nil })
				s.person(func() { s.node.Acknowledge = "known" })
			},
			func(t *testing.T, s *sim) { s.settled(t, 1) },
		},
		{
			"an acknowledged failure is no second reboot for a sentinel that survived", 3 * time.Hour,
			func(_ *testing.T, s *sim) {
				s.with(func() { s.keeps, s.missing = true, []string{"ds/a"} })
				s.raise("a")
				pass(time.Hour)
				s.person(func() { s.node.Acknowledge = "known" })
			},
			func(t *testing.T, s *sim) { s.rebooted(t, 1) },
		},
		{
			"a node on hold stays cordoned when its failure is acknowledged", 3 * time.Hour,
			func(_ *testing.T, s *sim) {
				s.with(func() { s.missing = []string{"ds/a"} })
				s.raise("a")
				pass(time.Hour)
				s.person(func() { s.node.Hold = "I look at it" })
				s.person(func() { s.node.Acknowledge = "known" })
			},
			func(t *testing.T, s *sim) { s.cordoned(t, true) },
		},
		{
			"an acknowledgement of last month acknowledges nothing new", 2 * time.Hour,
			func(_ *testing.T, s *sim) {
				s.with(func() { s.missing, s.node.Acknowledge = []string{"ds/a"}, "of a failure last month" })
				s.raise("a")
			},
			func(t *testing.T, s *sim) {
				if r := s.record(); r.Phase != Failed {
					t.Errorf("phase %q", r.Phase)
				}
			},
		},
		{
			"drains that fail are begun again slowly", 10 * time.Minute,
			func(_ *testing.T, s *sim) {
				s.with(func() { s.drainErr = errors.New("connection refused") })
				s.raise("a")
			},
			func(t *testing.T, s *sim) {
				if s.drains > 100 || s.drains < 10 {
					t.Errorf("%d drains begun in 10 minutes", s.drains)
				}
			},
		},
		{
			"a gate that cannot be asked holds a drained node only for the reboot's time", 24 * time.Hour,
			func(t *testing.T, s *sim) {
				s.raise("a")
				pass(500 * time.Millisecond)
				s.with(func() { s.mute = errors.New("systemd does not answer") })
				pass(20 * time.Hour)
				s.cordoned(t, false)
			}, nil,
		},
		{
			"an inhibitor stops a drain although the other rebooters cannot be asked", 24 * time.Hour,
			func(t *testing.T, s *sim) {
				s.evictsNoMore(t, func() {
					s.with(func() { s.mute, s.inhibitor = errors.New("systemd does not answer"), []string{"backup"} })
					pass(6 * time.Minute) // the gates are asked again
				})
				s.with(func() { s.mute, s.inhibitor = nil, nil })
			}, nil,
		},
		{
			"a last check that is always too slow is given up in the end", 24 * time.Hour,
			func(t *testing.T, s *sim) {
				s.with(func() { s.slowGates = 6 * time.Second })
				s.raise("a")
				pass(time.Hour)
				s.rebooted(t, 0)
				s.with(func() {
					s.slowGates = 0
					if !slices.Contains(s.events, "RebootBackoff last-check true") {
						t.Errorf("not given up: %v", s.events)
					}
				})
			},
			func(t *testing.T, s *sim) { s.settled(t, 1) },
		},
		{
			"a bus that answers nothing closes one gate, which is written once", 24 * time.Hour,
			func(t *testing.T, s *sim) {
				s.with(func() { s.hung, s.slot.Holder = true, "n2" })
				s.raise("a")
				pass(2 * time.Minute)
				n, _, _ := s.state()
				if r := s.record(); len(r.Reasons) != 1 || r.Reasons[0] != ReasonInhibitor || r.Bids {
					t.Errorf("reasons %v, bids %v", r.Reasons, r.Bids)
				}
				pass(20 * time.Minute)
				if later, _, _ := s.state(); later.ResourceVersion != n.ResourceVersion {
					t.Errorf("written again: %s", later.Record)
				}
				s.with(func() { s.hung, s.slot.Holder = false, "" })
			},
			func(t *testing.T, s *sim) { s.settled(t, 1) },
		},
		{
			"an agent that lost its configuration in the drain gives the node back", 24 * time.Hour,
			func(t *testing.T, s *sim) {
				s.with(func() { s.pods = 60 })
				s.raise("a")
				pass(10 * time.Second)
				s.with(func() { s.noPolicy = true; s.cut() })
				pass(20 * time.Hour)
				s.cordoned(t, false)
				s.rebooted(t, 0)
			}, nil,
		},
		{
			"a node that another controller removes is not taken down, and given back when it was", 2 * time.Hour,
			func(t *testing.T, s *sim) {
				s.with(func() { s.pods = 60 })
				s.raise("a")
				pass(10 * time.Second)
				s.person(func() { s.node.Removal = "ToBeDeletedByClusterAutoscaler" })
				pass(time.Hour)
				s.cordoned(t, false)
				s.rebooted(t, 0)
				if r := s.record(); r.Phase != Waiting || r.Reasons[0] != ReasonRemoval {
					t.Errorf("record %+v", r)
				}
			}, nil,
		},
		{
			"shields left by a cycle whose record was lost are taken off", time.Hour,
			func(_ *testing.T, s *sim) { s.person(func() { s.node.Shields = "karpenter.sh/do-not-disrupt" }) },
			func(t *testing.T, s *sim) { s.settled(t, 0) },
		},
		{
			"an answer that says nothing is no proof that the host stays up", time.Hour,
			func(_ *testing.T, s *sim) { s.with(func() { s.odd, s.goesAfter = true, 30*time.Second }); s.raise("a") },
			func(t *testing.T, s *sim) { s.settled(t, 1) },
		},
		{
			"a clock that is three hours ahead after the reboot changes nothing on the way home", time.Hour,
			func(_ *testing.T, s *sim) { s.raise("a"); pass(20 * time.Second); s.skew.Store(int64(3 * time.Hour)) },
			func(t *testing.T, s *sim) { s.settled(t, 1); s.did(t, "renew", 10) },
		},
		{
			"nor does one that is three hours behind", time.Hour,
			func(_ *testing.T, s *sim) { s.raise("a"); pass(20 * time.Second); s.skew.Store(int64(-3 * time.Hour)) },
			func(t *testing.T, s *sim) { s.settled(t, 1); s.did(t, "renew", 10) },
		},
		{
			"an API server that takes no writes for an hour is asked less and less often", 2 * time.Hour,
			func(_ *testing.T, s *sim) {
				s.with(func() {
					s.fault = func(_ int, what string) fault { return fault{dropped: what == "patch", lost: what == "patch"} }
				})
				s.raise("a")
				pass(time.Hour)
				s.did(t, "patch", 400) // one in 10 s, and some at the beginning
				s.with(func() { s.fault = nil })
			},
			func(t *testing.T, s *sim) { s.settled(t, 1) },
		},
		{
			"a failed node with a wrong clock writes a heartbeat a minute", 30 * time.Minute,
			func(_ *testing.T, s *sim) {
				s.with(func() { s.missing = []string{"ds/a"} })
				s.raise("a")
				pass(20 * time.Second)
				s.skew.Store(int64(90 * time.Minute))
			},
			func(t *testing.T, s *sim) { s.did(t, "renew", 40) },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSim(t)
			s.live(tt.last, func() { tt.script(t, s) })
			for _, b := range s.bad {
				t.Error(b)
			}
			if tt.check != nil {
				tt.check(t, s)
			}
		})
	}
}

func (s *sim) with(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *sim) cordoned(t *testing.T, want bool) {
	t.Helper()
	if n, sl, _ := s.state(); n.Unschedulable != want || sl.Holder != "" {
		t.Errorf("cordoned %v, want %v; holder %q; record %s", n.Unschedulable, want, sl.Holder, n.Record)
	}
}

// did bounds how often something was done.
func (s *sim) did(t *testing.T, what string, most int) {
	t.Helper()
	n := 0
	s.with(func() {
		for _, l := range s.log {
			if l == what {
				n++
			}
		}
	})
	if n == 0 || n > most {
		t.Errorf("%s: %d times, want 1 to %d", what, n, most)
	}
}

func (s *sim) rebooted(t *testing.T, want int) {
	t.Helper()
	if _, _, n := s.state(); n != want {
		t.Errorf("%d reboots, want %d", n, want)
	}
}

// evictsNoMore begins a long drain and lets stop happen in it.
func (s *sim) evictsNoMore(t *testing.T, stop func()) {
	t.Helper()
	s.with(func() { s.pods = 200 })
	s.raise("a")
	pass(10 * time.Second)
	stop()
	var was int
	s.with(func() { was = s.pods })
	pass(3 * time.Minute)
	s.with(func() {
		if was-s.pods > 2 || was == 200 {
			t.Errorf("%d pods evicted before, %d afterwards", 200-was, was-s.pods)
		}
	})
}

// Decisions on what a slow watch, a wrong clock or a deaf host makes believe.
func TestWrongBeliefs(t *testing.T) {
	st := testSettings()
	now := time.Now()
	base := func() Observation {
		r := &Record{Instance: "i", Cycle: "B", Attempt: 1, Phase: Waiting, Bids: true, Reasons: []Reason{ReasonSlot}, BootID: "b2", Group: "workers", Settings: st}
		r.Sentinel.Fingerprint = "f2"
		return Observation{
			Now: now, Instance: "i", Boot: "b2", Exists: true, Group: "workers", Settings: &st, Window: Window{Open: true}, Record: r,
			Node: Node{Name: "n", UID: "u", Ready: true, BootID: "b2"}, Sentinel: Sentinel{Source: "x", Fingerprint: "f2"}, SentinelKnown: true,
			Gates: Gates{At: now, Until: now.Add(time.Minute), Preflight: true}, Shutdown: Shutdown{At: now}, Hooks: HookView{None: true},
		}
	}
	t.Run("what was healthy on another boot soaks anew", func(t *testing.T) {
		o := base()
		o.Record.Phase, o.Record.BootID, o.Record.NewBootID, o.Record.Healthy = Verifying, "b0", "b1", now.Add(-time.Hour)
		if w, ok := Step(o).Do.(WriteNode); !ok || w.Record.NewBootID != "b2" || !w.Record.Healthy.IsZero() {
			t.Errorf("decides %+v", Step(o))
		}
	})
	t.Run("a label that moves the node to another group gives back what the group before has offered, or has let it take", func(t *testing.T) {
		o := base()
		o.Record.Group, o.Group = "big", "big" // the bid is made anew
		o.Slots = []Slot{{Name: "slot-workers-0", Group: "workers", Nominee: "u", BidCycle: "B", BidAttempt: 1, BidUntil: now.Add(time.Minute)}}
		if _, ok := Step(o).Do.(DeclineSlot); !ok {
			t.Errorf("offered, it decides %+v", Step(o))
		}
		o.Slots = []Slot{{Name: "slot-workers-0", Group: "workers", Nominee: "u", Holder: "n", HolderUID: "u", Cycle: "B", Attempt: 1, BootID: "b2", Instance: "i", Renewed: now}}
		if _, ok := Step(o).Do.(FreeSlot); !ok {
			t.Errorf("taken, it decides %+v", Step(o))
		}
	})
	t.Run("another sentinel is a younger wish, and keeps its turn", func(t *testing.T) {
		o := base()
		o.Record.Pending = now.Add(-time.Hour)
		if got := o.Record.wished(); !got.Equal(o.Record.Pending) {
			t.Errorf("at first it is wished since %s", got)
		}
		o.Sentinel.Fingerprint = "f3"
		w, ok := Step(o).Do.(WriteNode)
		if !ok || w.Record == nil {
			t.Fatalf("decides %+v", Step(o))
		}
		if !w.Record.Pending.Equal(o.Record.Pending) || !w.Record.wished().Equal(now) {
			t.Errorf("pending since %s, wished since %s, want %s and %s", w.Record.Pending, w.Record.wished(), o.Record.Pending, now)
		}
	})
	t.Run("a node that is down keeps the slot of the group before to the end of its cycle", func(t *testing.T) {
		o := base()
		o.Record.Phase, o.Record.Cordon, o.Record.Slot, o.Node.Unschedulable, o.Group = Draining, CordonBaton, "slot-workers-0", true, "big"
		o.Slots = []Slot{{Name: "slot-workers-0", Group: "workers", Nominee: "u", Holder: "n", HolderUID: "u", Cycle: "B", Attempt: 1, BootID: "b2", Instance: "i", Cordon: CordonBaton, Renewed: now}}
		o.Due.Deadline = now.Add(time.Minute)
		if d, ok := Step(o).Do.(StartDrain); !ok || d.Settings.Group != "workers" {
			t.Errorf("decides %+v", Step(o))
		}
		o.Drain.Empty, o.Emptied = true, now
		if w, ok := Step(o).Do.(WriteNode); !ok || w.Move == nil || w.Move.To != Rebooting {
			t.Errorf("drained, it decides %+v", Step(o))
		}
		o.Group = "" // of no group at all now
		if w, ok := Step(o).Do.(WriteNode); !ok || w.Move == nil || w.Move.To != Rebooting {
			t.Errorf("of no group, it decides %+v", Step(o))
		}
	})
	t.Run("a slot that was taken for another cycle is freed, not used", func(t *testing.T) {
		o := base()
		o.Slots = []Slot{{Name: "slot-workers-0", Group: "workers", Nominee: "u", Holder: "n", HolderUID: "u", Cycle: "A", Attempt: 3, BootID: "b1", Instance: "i", Cordon: CordonBaton, Renewed: now}}
		if _, ok := Step(o).Do.(FreeSlot); !ok {
			t.Errorf("decides %+v", Step(o))
		}
	})
	t.Run("a clock 40 s ahead of the API server's takes a fresh nomination", func(t *testing.T) {
		o := base()
		o.Skew = 40 * time.Second
		o.Slots = []Slot{{Name: "slot-workers-0", Group: "workers", Nominee: "u", BidCycle: "B", BidAttempt: 1, BidUntil: now.Add(-10 * time.Second)}}
		if _, ok := Step(o).Do.(TakeSlot); !ok {
			t.Errorf("decides %+v", Step(o))
		}
	})
	t.Run("a survived sentinel that cannot be read is no new bid", func(t *testing.T) {
		o := base()
		o.SentinelKnown, o.Sentinel, o.Record.Survived, o.Record.Bids = false, Sentinel{}, "f2", false
		if d := Step(o); d.Do != nil {
			t.Errorf("decides %+v", d)
		}
	})
	t.Run("sentinels that cannot be read are no bid", func(t *testing.T) {
		o := base()
		o.SentinelKnown, o.Sentinel = false, Sentinel{}
		if w, ok := Step(o).Do.(WriteNode); !ok || w.Record.Bids {
			t.Errorf("decides %+v", Step(o))
		}
	})
	t.Run("a clock that jumps ahead does not end the verification", func(t *testing.T) {
		w := &world{}
		o := base()
		o.Record.Phase, o.Record.BootID, o.Record.NewBootID, o.Record.Deadline = Verifying, "b1", "b2", now.Add(15*time.Minute)
		o.Node.BootID, o.Node.Unschedulable, o.Record.Cordon = "b1", true, CordonBaton
		o.Due = w.dueOf(o.Record, now)
		// The wall clock is set two hours ahead; a second has passed by the monotonic one.
		later := now.Add(time.Second)
		o.Now, o.Due = later, w.dueOf(o.Record, later.Round(0).Add(2*time.Hour))
		if d := Step(o); d.Do != nil {
			t.Errorf("decides %+v", d)
		}
	})
	t.Run("a soak that is said to begin tomorrow ends in time", func(t *testing.T) {
		w := &world{}
		o := base()
		st := testSettings()
		st.Soak = time.Minute
		o.Record.Phase, o.Record.BootID, o.Record.NewBootID, o.Record.Settings = Verifying, "b1", "b2", st
		o.Record.Healthy, o.Sentinel = now.Add(24*time.Hour), Sentinel{}
		o.Due = w.dueOf(o.Record, now)
		o.Now = now.Add(2 * time.Minute)
		o.Due = w.dueOf(o.Record, o.Now)
		if write, ok := Step(o).Do.(WriteNode); !ok || write.Move == nil || write.Move.To != Idle {
			t.Errorf("decides %+v", Step(o))
		}
	})
	t.Run("a reboot of the future does not count for today", func(t *testing.T) {
		h := History{Cycles: []Entry{{At: now.Add(time.Hour), Rebooted: true, Fingerprint: "f"}}}
		if h.reboots(now) != 0 || h.served("f", now) {
			t.Error("it counts")
		}
	})
}

func TestWhatTheWatchBringsDuringAQuorumReadIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		a := s.agent(func() {}).agent
		for range 2 {
			if err := a.refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		a.update(func(w *world) { w.stale = true })
		s.slowList = 100 * time.Millisecond
		go func() {
			pass(50 * time.Millisecond)
			var sl Slot
			s.with(func() {
				s.slot.Nominee, s.slot.BidUntil, s.slot.ResourceVersion = s.node.UID, time.Now().Add(time.Minute), s.next()
				sl = s.slot
			})
			a.slotsChanged([]Slot{sl}, false)
		}()
		if err := a.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if a.world.slots["slot-workers-0"].Nominee == "" && !a.world.stale {
			t.Error("the nomination that the watch brought is lost")
		}
		// What was read is right, and older than a change of the Node.
		go func() {
			pass(50 * time.Millisecond)
			a.nodeChanged(Node{Name: "n1", UID: "uid-1", ResourceVersion: "1000", Hold: "stop!"}, true)
		}()
		a.update(func(w *world) { w.stale = true })
		if err := a.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if a.world.node.Hold == "" && !a.world.stale {
			t.Error("the hold that the watch brought is lost")
		}
		// A slot that leaves the selection while it is read is looked at again.
		held := Slot{Name: "slot-workers-0", ResourceVersion: "2000", Holder: "n1", HolderUID: "uid-1"}
		s.with(func() { s.slot = held })
		a.update(func(w *world) { w.setSlot(held); w.stale = true })
		go func() {
			pass(50 * time.Millisecond)
			a.slotsChanged(nil, false)
		}()
		if err := a.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if a.world.refreshAt.IsZero() && !a.world.stale {
			t.Error("the slot is taken for held until the next heartbeat")
		}
	})
}

// What the watches bring first is what an agent begins with; when they bring nothing, it asks.
func TestAStartWithoutNewsFromTheWatches(t *testing.T) {
	s := newSim(t)
	s.boot, s.node.BootID = 2, "boot-2"
	text, err := (&Record{
		Version: RecordVersion, Cycle: "c", Attempt: 1, Phase: Rebooting, BootID: "boot-1", Cordon: CordonBaton, Slot: "slot-workers-0", Settings: testSettings(),
	}).encode()
	if err != nil {
		t.Fatal(err)
	}
	s.node.Record, s.node.Phase, s.node.Unschedulable = text, "rebooting", true
	s.slot.Holder, s.slot.HolderUID, s.slot.Nominee, s.slot.Cycle, s.slot.Attempt, s.slot.BootID = "n1", s.node.UID, s.node.UID, "c", 1, "boot-1"
	s.lag = func() time.Duration { return time.Hour }
	s.live(time.Minute, func() {})
	if n, sl, _ := s.state(); n.Unschedulable || n.Record != "" || sl.Holder != "" {
		t.Errorf("the node is not home: %+v, %+v", n, sl)
	}
}

// A gate that cannot be asked is asked again soon, then later and later, and not as if it were open.
func TestAGateThatCannotBeAskedIsAskedLessAndLessOften(t *testing.T) {
	s := newSim(t)
	s.mute = errMute
	var looks [2]int // in the first minute, and in an hour
	s.live(time.Hour, func() {
		s.raise("a")
		pass(time.Minute)
		s.with(func() { looks[0] = s.looks })
	})
	looks[1] = s.looks
	if looks[0] < 3 || looks[1] < 50 || looks[1] > 80 || s.asked > 0 {
		t.Errorf("%d looks in the first minute, %d in an hour; the host was asked to reboot %d times", looks[0], looks[1], s.asked)
	}
}

// A gate that is shut when its wish goes is no news of an idle node.
func TestAGateIsNotShownOnAnIdleNode(t *testing.T) {
	s := newSim(t)
	s.live(time.Hour, func() {
		s.with(func() { s.inhibitor = []string{"backup: tapes"} })
		s.raise("a")
		pass(10 * time.Minute)
		if n, err := testutil.GatherAndCount(s.metrics, "baton_gate_closed"); err != nil || n != 1 {
			t.Errorf("%d gates while it waits: %v", n, err)
		}
		s.raise("")
	})
	if n, err := testutil.GatherAndCount(s.metrics, "baton_gate_closed"); err != nil || n != 0 {
		t.Errorf("%d gates are said to be shut on an idle node: %v", n, err)
	}
}

func TestTroubleThatIsOverIsNotShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		a := s.agent(func() {}).agent
		a.SetPolicy(s.policy())
		a.world.stale = true
		s.away = true
		if _, err := a.turn(t.Context()); err == nil || a.Status().Trouble == "" {
			t.Errorf("error %v, trouble %q", err, a.Status().Trouble)
		}
		s.away = false
		for range 5 {
			if _, err := a.turn(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if st := a.Status(); st.Trouble != "" {
			t.Errorf("trouble stays: %s", st.Trouble)
		}
	})
}

// Watches that lag, people who act at any moment, power cuts and reboots, by seed. Every effect is checked when it
// takes hold; in the end everything converges.
func TestRandomWorlds(t *testing.T) {
	for seed := range 40 {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			var mu sync.Mutex
			rnd := rand.New(rand.NewPCG(uint64(seed), 7)) //nolint:gosec // replayable by its seed.
			n := func(k int) int { mu.Lock(); defer mu.Unlock(); return rnd.IntN(k) }
			s := newSim(t)
			s.goesAfter = 2 * time.Second
			calmTime := false
			lag := []int{0, 10, 100, 4000}[seed%4]
			if lag > 0 {
				s.lag = func() time.Duration { return time.Duration(n(lag)) * time.Millisecond }
			}
			s.fault = func(int, string) fault {
				if calmTime || n(25) != 0 {
					return fault{}
				}
				if n(3) == 0 {
					go s.rebootNow()
				}
				return fault{dropped: n(2) == 0, lost: true, cut: n(2) == 0}
			}
			s.live(28*time.Hour, func() {
				for i := range 40 {
					s.people(n, i)
					pass(time.Duration(n(4000)) * time.Millisecond)
				}
				s.with(func() { calmTime, s.missing, s.pods, s.paused = true, nil, 0, ""; s.nominate() })
				s.person(func() {})
				pass(2 * time.Hour)
				if s.record().Phase == Failed {
					s.person(func() { s.node.Acknowledge = "ok" })
				}
				pass(25 * time.Hour)
			})
			for _, b := range s.bad {
				t.Error(b)
			}
			nd, sl, _ := s.state()
			if r := s.record(); nd.Unschedulable || sl.Holder != "" || nd.Record != "" && r.Survived == "" {
				t.Errorf("left behind: cordoned %v, record %s, slot %+v", nd.Unschedulable, nd.Record, sl)
			}
		})
	}
}

// people do the i-th thing that n chooses.
func (s *sim) people(n func(int) int, i int) {
	switch n(8) {
	case 0, 1, 2:
		s.raise(fmt.Sprint(i))
	case 3:
		s.with(func() { s.paused = []string{"", "incident"}[n(2)]; s.nominate() })
	case 4:
		s.with(func() { s.wants("") })
	case 5:
		s.with(func() {
			if s.slot.Holder != "" {
				s.slot.Release, s.slot.ResourceVersion = "please", s.next()
				s.told()
			}
		})
	case 6:
		s.person(func() { s.node.Request = fmt.Sprint(i) })
	case 7:
		s.with(func() { s.missing = [][]string{nil, {"ds/a"}}[n(2)] })
	}
}
