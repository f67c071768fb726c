package agent

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// An answer is lost, or a write arrives half a minute late, at every effect; the agent lives on, or dies and is
// restarted, while the write is still on its way.
func TestLateWrites(t *testing.T) {
	cases, landed := 0, 0
	for _, dies := range []bool{false, true} {
		for _, late := range []time.Duration{0, time.Second, 10 * time.Second, 30 * time.Second} {
			for n := 1; n < 60; n++ {
				reached, over := false, false
				t.Run(fmt.Sprintf("effect %d, %s late, the agent dies %v", n, late, dies), func(t *testing.T) {
					s := newSim(t)
					s.fault = func(i int, what string) fault {
						if i != n || what == "evict" || what == "reboot" {
							return fault{}
						}
						reached = true
						return fault{late: late, lost: true, cut: dies}
					}
					s.live(4*time.Hour, func() { s.raise("a") })
					s.settled(t, 1)
					if nd, _, _ := s.state(); nd.Unschedulable {
						t.Error("still cordoned")
					}
					landed += len(s.landed)
					over = s.effects < n
				})
				if over {
					break
				}
				if reached {
					cases++
				}
			}
		}
	}
	t.Attr("late-writes", fmt.Sprintf("%d, of which %d landed", cases, landed))
	if cases < 60 || landed == 0 {
		t.Errorf("%d cases, %d landed: the faults do not reach the cycle", cases, landed)
	}
}

// After a restart, and after an outcome that is not known, the first write makes what may be on its way stale.
func TestFence(t *testing.T) {
	o := func(phase Phase) Observation {
		r := &Record{Version: 1, Instance: "old", Cycle: "c", Attempt: 1, Phase: phase, BootID: "b", Cordon: CordonBaton, Slot: "slot-workers-0", Settings: testSettings()}
		now := time.Now()
		r.Since, r.Deadline = now, now.Add(time.Minute)
		st := testSettings()
		return Observation{
			Now: now, Instance: "new", Boot: "b", Exists: true, Record: r, Settings: &st, Group: "workers", SentinelKnown: true,
			Node:     Node{Name: "n1", UID: "u", Unschedulable: true, BootID: "b", Ready: true},
			Sentinel: Sentinel{Source: "s", Fingerprint: "f"}, Window: Window{Open: true}, Hooks: HookView{None: true},
			Slots:    []Slot{{Name: "slot-workers-0", Group: "workers", Holder: "n1", HolderUID: "u", Nominee: "u", Instance: "old", Cordon: CordonBaton, BootID: "b", Renewed: now}},
			Gates:    Gates{At: now, Until: now.Add(time.Minute)},
			Shutdown: Shutdown{At: now},
			Due:      Due{Deadline: now.Add(time.Minute), Slow: now.Add(time.Minute)},
		}
	}
	t.Run("the Node before a reboot", func(t *testing.T) {
		if w, ok := Step(o(Rebooting)).Do.(WriteNode); !ok || w.Move != nil || w.Record.Phase != Rebooting {
			t.Errorf("first comes %+v", Step(o(Rebooting)))
		}
	})
	t.Run("the slot before a reboot", func(t *testing.T) {
		ob := o(Rebooting)
		ob.Record.Instance = "new"
		if _, ok := Step(ob).Do.(RenewSlot); !ok {
			t.Errorf("first comes %+v", Step(ob))
		}
	})
	t.Run("the Node before an eviction", func(t *testing.T) {
		if w, ok := Step(o(Draining)).Do.(WriteNode); !ok || w.Move != nil {
			t.Errorf("first comes %+v", Step(o(Draining)))
		}
	})
	t.Run("the slot before the Node is written", func(t *testing.T) {
		ob := o(Draining)
		ob.Drain.Empty, ob.Emptied = true, ob.Now
		if _, ok := Step(ob).Do.(RenewSlot); !ok {
			t.Errorf("first comes %+v", Step(ob))
		}
	})
	t.Run("the slot after a reboot, unless it was held for the boot before", func(t *testing.T) {
		ob := o(Verifying)
		ob.Boot, ob.Node.BootID, ob.Record.NewBootID, ob.Record.Instance = "c", "c", "c", "new"
		for _, asked := range []string{"b", "a", ""} { // on which boot the slot says that it was taken; the record says b
			ob.Slots[0].BootID = asked
			if _, renews := Step(ob).Do.(RenewSlot); renews != (asked != "b") {
				t.Errorf("held since boot %q: first comes %+v", asked, Step(ob))
			}
		}
	})
	t.Run("then the reboot", func(t *testing.T) {
		ob := o(Rebooting)
		ob.Record.Instance, ob.Slots[0].Instance = "new", "new"
		if _, ok := Step(ob).Do.(Reboot); !ok {
			t.Errorf("first comes %+v", Step(ob))
		}
	})
	t.Run("an unknown outcome makes this process a new instance", func(t *testing.T) {
		s := newSim(t)
		seen := map[string]bool{}
		s.fault = func(i int, _ string) fault {
			if s.node.Record != "" {
				seen[s.recordLocked().Instance] = true
			}
			return fault{lost: i == 3}
		}
		s.live(10*time.Minute, func() { s.raise("a") })
		s.settled(t, 1)
		if len(seen) < 3 { // before the lost answer, after it, after the reboot
			t.Errorf("%d instances wrote: %v", len(seen), seen)
		}
	})
}

// What changes between the decision to reboot and the call is found by the last check: at once when it is not the Node that has
// changed, which the write of the phase has just read, and also the Node when the check comes later than that.
func TestLastCheck(t *testing.T) {
	for name, c := range map[string]struct {
		change func(s *sim)
		ofNode bool
	}{
		"a hold":                        {func(s *sim) { s.node.Hold = "wait"; s.node.ResourceVersion = s.next() }, true},
		"an uncordon":                   {func(s *sim) { s.node.Unschedulable = false; s.node.ResourceVersion = s.next() }, true},
		"another Node of that name":     {func(s *sim) { s.node.UID = "uid-2"; s.node.Record = ""; s.node.ResourceVersion = s.next() }, true},
		"a brake on the slot":           {func(s *sim) { s.slot.Hold = "paused"; s.slot.ResourceVersion = s.next() }, false},
		"the slot freed by somebody":    {func(s *sim) { s.slot = Slot{Name: s.slot.Name, Group: s.slot.Group, ResourceVersion: s.next()} }, false},
		"an operator asks for the slot": {func(s *sim) { s.slot.Release = "mine"; s.slot.ResourceVersion = s.next() }, false},
		"a pause":                       {func(s *sim) { s.paused = "incident" }, false},
		"an inhibitor":                  {func(s *sim) { s.inhibitor = []string{"backup: tapes"} }, false},
		"a shutdown by somebody else":   {func(s *sim) { s.pending = true }, false},
	} {
		check := func(t *testing.T, in string, late bool) {
			s := newSim(t)
			changed := false
			s.lastCheck = func(what string) {
				if late && !changed {
					s.mute = errMute // asked in vain, it asks again a little later
				}
				if what != in || changed {
					return
				}
				changed, s.mute, s.noMarshal = true, nil, true
				c.change(s) // and no watch tells of it
			}
			s.live(time.Minute, func() { s.raise("a") })
			for _, b := range s.bad {
				t.Error(b)
			}
			if s.asked > 0 || !changed {
				t.Errorf("changed %v, the host was asked to reboot %d times: %v", changed, s.asked, s.log)
			}
		}
		if !c.ofNode {
			t.Run(name, func(t *testing.T) { check(t, "gates", false) })
		}
		t.Run(name+", later", func(t *testing.T) { check(t, "node", true) })
	}
}

// The last check reads the Node but for what a write has just read, and counts from then.
func TestTheNodeOfTheLastCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		a := s.agent(func() {}).agent
		read := func(age time.Duration) (holds bool) {
			t.Helper()
			s.with(func() { s.node.Hold = "" })
			written := time.Now()
			a.update(func(w *world) { w.setNode(s.node, true); w.read = written })
			pass(age)
			s.with(func() { s.node.Hold, s.node.ResourceVersion = "wait", s.next() }) // and no watch tells of it
			began, err := a.readNode(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			holds = a.world.node.Hold != ""
			if want := map[bool]time.Time{false: written, true: time.Now()}[holds]; !began.Equal(want) {
				t.Errorf("it counts from %v, want %v", began, want)
			}
			return holds
		}
		if read(nodeAge - 1) {
			t.Error("what was written just now is read again")
		}
		if !read(nodeAge) {
			t.Error("what was written long ago is not read again")
		}
	})
}

// A slot that an earlier Node of this name holds is no permission, and is freed once the host is calm.
func TestASlotOfAnEarlierNode(t *testing.T) {
	s := newSim(t)
	s.noMarshal = true
	s.slot.Holder, s.slot.HolderUID, s.slot.Nominee, s.slot.Cycle, s.slot.BootID = "n1", "uid-0", "uid-0", "old", "boot-1"
	s.live(10*time.Minute, func() { s.raise("a") })
	n, sl, reboots := s.state()
	if s.log[0] != "free" || reboots != 0 || n.Unschedulable || sl.Holder != "" {
		t.Errorf("reboots %d, cordoned %v, slot %+v", reboots, n.Unschedulable, sl)
	}
}

// The label by which a node finds its slot may be taken off by hand: a slot that it held is looked up by its name then, by the
// process that held it and by one that has only the record.
func TestASlotWithoutItsLabel(t *testing.T) {
	for _, phase := range []Phase{Verifying, Failed, Backoff} {
		t.Run(fmt.Sprintf("found in %s by a process that starts", phase), func(t *testing.T) {
			s := newSim(t)
			s.boot = 2
			r := Record{Version: RecordVersion, Cycle: "c", Attempt: 1, Phase: phase, BootID: "boot-1", NewBootID: "boot-2", Cordon: CordonBaton, Slot: "slot-workers-0", Settings: testSettings()}
			s.node.Unschedulable, s.node.Acknowledge = true, "known"
			if phase == Backoff {
				r.BootID, r.NewBootID, r.Cordon, s.node.Unschedulable = "boot-2", "", CordonNone, false
			}
			text, err := r.encode()
			if err != nil {
				t.Fatal(err)
			}
			s.node.Record, s.node.BootID, s.node.Phase = text, s.bootID(), strings.ToLower(string(phase))
			s.slot.Holder, s.slot.HolderUID, s.slot.Nominee, s.slot.Cycle, s.slot.Attempt, s.slot.BootID = "n1", s.node.UID, s.node.UID, "c", 1, r.BootID
			s.unlabelled = true
			s.live(10*time.Minute, func() {})
			s.settled(t, 0)
		})
	}
	for _, restarted := range []bool{false, true} {
		t.Run(fmt.Sprintf("restarted %v", restarted), func(t *testing.T) {
			s := newSim(t)
			s.pods = 60
			s.live(10*time.Minute, func() {
				s.raise("a")
				pass(10 * time.Second)
				s.with(func() {
					if s.recordLocked().Phase != Draining {
						t.Errorf("in phase %s", s.recordLocked().Phase)
					}
					s.unlabelled, s.slot.ResourceVersion = true, s.next()
					s.told()
				})
				if restarted {
					s.with(s.cut)
					s.second()
				}
			})
			s.settled(t, 1)
		})
	}
}

// The host went down under the earlier Node: its slot goes on to say so until the new one is back.
func TestASlotOfAnEarlierNodeAndBoot(t *testing.T) {
	now := time.Now()
	o := Observation{
		Now: now, Instance: "i", Boot: "b2", Exists: true, Node: Node{Name: "n", UID: "u2", Ready: true, BootID: "b2"}, Shutdown: Shutdown{At: now},
		Slots: []Slot{{Name: "slot-workers-0", Group: "workers", Holder: "n", HolderUID: "u1", Cycle: "c", Attempt: 1, BootID: "b1"}},
	}
	if d := Step(o); d.Do != (FreeSlot{o.Slots[0]}) {
		t.Errorf("on a node that is back it decides %+v", d)
	}
	for name, change := range map[string]func(*Node){
		"whose kubelet still reports the boot before": func(n *Node) { n.BootID = "b1" },
		"that is not Ready":                           func(n *Node) { n.Ready = false },
	} {
		o := o
		change(&o.Node)
		if d := Step(o); d.Do != nil || d.Why == "" {
			t.Errorf("on a node %s it decides %+v", name, d)
		}
	}
}

// What a watch brings late does not undo what a write has returned.
func TestOldNews(t *testing.T) {
	a := &Agent{wake: make(chan struct{}, 1)}
	a.nodeChanged(Node{UID: "u", ResourceVersion: "10", Record: "new"}, true)
	a.nodeChanged(Node{UID: "u", ResourceVersion: "9", Record: "old"}, true)
	if a.world.node.Record != "new" || a.world.refreshAt.IsZero() {
		t.Errorf("record %q, refresh at %v", a.world.node.Record, a.world.refreshAt)
	}
	a.nodeChanged(Node{UID: "u", ResourceVersion: "10", Record: "new"}, true)
	if !a.world.refreshAt.IsZero() {
		t.Error("the watch has caught up, and the Node is to be read all the same")
	}
	if err := a.slot("s")(Slot{Name: "s", ResourceVersion: "20"}, nil); err != nil { // it was freed
		t.Fatal(err)
	}
	a.slotsChanged([]Slot{{Name: "s", ResourceVersion: "19", Holder: "n", HolderUID: "u"}}, false)
	if a.world.slots["s"].Holder != "" || a.world.refreshAt.IsZero() {
		t.Error("a slot that was freed is held again by old news, or nobody looks")
	}
	a.nodeChanged(Node{UID: "u", ResourceVersion: "11"}, true)
	if a.world.refreshAt.IsZero() {
		t.Error("news of the Node is taken for news of the slot")
	}
	a.slotsChanged([]Slot{{Name: "s", ResourceVersion: "20"}}, false)
	if !a.world.refreshAt.IsZero() {
		t.Error("the watch has caught up, and the slot is to be read all the same")
	}
	a.nodeChanged(Node{UID: "v", ResourceVersion: "9", Record: "other"}, true)
	if a.world.node.Record != "other" {
		t.Error("another Node of the same name is news, whatever its version")
	}
	a.update(func(w *world) { w.setNode(Node{}, false) }) // as a quorum read found it
	a.nodeChanged(Node{UID: "v", ResourceVersion: "12", Record: "older than its end"}, true)
	if a.world.exists || a.world.refreshAt.IsZero() {
		t.Error("a Node that is gone is back by old news, or nobody looks")
	}
	a.nodeChanged(Node{}, false)
	if a.world.exists || !a.world.refreshAt.IsZero() {
		t.Error("the watch has told of the end, too, and the Node is to be read all the same")
	}
	a.update(func(w *world) { w.setNode(Node{UID: "w", ResourceVersion: "14"}, true); w.stale = false }) // as a quorum read found it
	a.nodeChanged(Node{}, false)
	if !a.world.exists || a.world.refreshAt.IsZero() {
		t.Error("the end of the earlier Node is taken for that of this one, or nobody looks")
	}
	a.nodeChanged(Node{UID: "w", ResourceVersion: "14"}, true)
	a.nodeChanged(Node{}, false)
	if a.world.exists {
		t.Error("the end of the Node is not believed")
	}
}

// A watch that was faster than the answer to the write into Rebooting is not undone by that answer.
func TestTheLastCheckAfterNewsThatOvertookItsWrite(t *testing.T) {
	for name, change := range map[string]func(s *sim){
		"a hold":      func(s *sim) { s.setHold("stop") },
		"an uncordon": func(s *sim) { s.setCordon(false) },
		"a deletion":  func(s *sim) { s.exists = false },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSim(t)
			done := false
			s.after = func(what string) {
				if what != "patch" || s.node.Phase != "rebooting" || done {
					return
				}
				done = true
				change(s)
				s.lives[0].agent.nodeChanged(s.node, s.exists) // before the agent has its answer
			}
			s.live(time.Minute, func() { s.raise("a") })
			for _, b := range s.bad {
				t.Error(b)
			}
			if !done || s.asked > 0 {
				t.Errorf("it came to the write: %v, and the host was asked %d times", done, s.asked)
			}
		})
	}
}

// A slot that a watch has shown newer than the answer to its write is read again.
func TestTheAnswerOfASlotThatNewsHasOvertaken(t *testing.T) {
	a := &Agent{wake: make(chan struct{}, 1)}
	a.slotsChanged([]Slot{{Name: "s", ResourceVersion: "21", Holder: "n", Hold: "halted"}}, false)
	if err := a.slot("s")(Slot{Name: "s", ResourceVersion: "20", Holder: "n"}, nil); err != nil {
		t.Fatal(err)
	}
	if a.world.slots["s"].Hold != "halted" || !a.world.stale {
		t.Errorf("the brake is lost: %+v", a.world.slots["s"])
	}
	// A Lease that came back from a backup is older, and what there is.
	a.update(func(w *world) { w.setSlot(Slot{Name: "s", ResourceVersion: "7"}) })
	if a.world.slots["s"].ResourceVersion != "7" {
		t.Error("what a reading of everything found is not believed")
	}
}

// A watch that is faster than the answer to the write that frees a slot shows it no more, and owes nothing.
func TestAFreedSlotThatTheWatchHasDroppedBeforeTheAnswer(t *testing.T) {
	a := &Agent{wake: make(chan struct{}, 1)}
	a.slotsChanged([]Slot{{Name: "s", ResourceVersion: "20", Holder: "n"}}, false)
	a.slotsChanged(nil, false)
	if a.world.sure() {
		t.Fatal("a held slot that the watch shows no more is nothing to look into")
	}
	if err := a.slot("s")(Slot{Name: "s", ResourceVersion: "21"}, nil); err != nil {
		t.Fatal(err)
	}
	if !a.world.sure() || !a.world.refreshAt.IsZero() {
		t.Error("everything is to be read again")
	}
}

// The last check reads the Node again when a watch has contradicted what was read just now.
func TestTheLastCheckReadsTheNodeAgainAfterOldNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t)
		a := s.agent(func() {}).agent
		reads := 0
		s.node.Phase = "rebooting"
		s.lastCheck = func(string) { reads++ }
		a.update(func(w *world) { w.setNode(s.node, true); w.read = time.Now() })
		for i, want := range []int{0, 1} {
			reads = 0
			if _, err := a.readNode(t.Context()); err != nil {
				t.Fatal(err)
			}
			if reads != want {
				t.Errorf("look %d reads the Node %d times, want %d", i, reads, want)
			}
			a.nodeChanged(Node{Name: "n1", UID: s.node.UID, ResourceVersion: "0"}, true)
		}
	})
}
