package main

import "slices"

// Where the promises are kept.
const (
	step, waiting, draining, verifying = "agent/step.go", "agent/waiting.go", "agent/draining.go", "agent/verifying.go"
	apply, agent, world, record        = "agent/apply.go", "agent/agent.go", "agent/world.go", "agent/record.go"
	reboot                             = "agent/reboot.go"
	observation, hooks                 = "agent/observation.go", "agent/hooks.go"
	store, verbs, own                  = "lock/store.go", "lock/verbs.go", "lock/own.go"
	housekeep, order, canary, election = "marshal/housekeep.go", "marshal/nominate.go", "marshal/canary.go", "marshal/election.go"
	change, drain, plan, rota, quick   = "node/change.go", "node/drain.go", "node/plan.go", "node/rota.go", "node/quick.go"
	policy, config                     = "node/policy.go", "config/config.go"
	identity, client, stream           = "node/identity.go", "node/client.go", "node/stream.go"
)

// mutants are the promises, one broken in each.
func mutants() []mutant {
	return slices.Concat(ofTheWay(), ofTheWorld(), ofTheDrain(), ofTheHooks(), ofTheEnd(), ofTheLoop(), ofTheView(), ofTheSlots(), ofTheOrder(), ofTheMarshal(), ofTheNode(), ofTheBudgets(), ofTheSurroundings())
}

func ofTheWay() []mutant {
	return []mutant{
		{
			name: "nothing is changed", file: step, survives: true, test: "TestCycle",
			old: "// Step decides what comes next. It does no I/O and reads no clock.", new: "// Step decides.",
		},
		{
			name: "the cordon comes in a second write", file: waiting, test: "TestCycle",
			old: "	if r.Cordon == CordonBaton {\n		on := true\n		w.Cordon = &on\n	}\n	return do(w)", new: "	return do(w)",
		},
		{
			name: "a foreign cordon is undone", file: step, test: "TestCycle/a_cordon_from_before",
			old: "	if o.Record.Cordon == CordonBaton && o.Node.Unschedulable {", new: "	if o.Node.Unschedulable {",
		},
		{
			name: "the slot is given up while the host goes down", file: step, test: "TestCycle|TestCrash",
			old: "	if o.Shutdown.Coming != \"\" {\n		return wait(", new: "	if o.Shutdown.Coming == \"never\" {\n		return wait(",
		},
		{
			name: "what cannot be asked counts as calm", file: step, test: "TestCycle/what_cannot_be_asked",
			old: "	if o.Shutdown.Err != nil {\n		return wait(", new: "	if o.Shutdown.Err != nil && o.Node.Name == \"\" {\n		return wait(",
		},
		{
			name: "a sentinel that was served is not known again", file: waiting, test: "TestHazards/the_same_sentinel_again",
			old: "o.History.served(o.Sentinel.Fingerprint, o.Now) {", new: "o.History.served(\"\", o.Now) {",
		},
		{
			name: "a slot of another cycle is used", file: waiting, test: "TestWrongBeliefs",
			old: "(s.Cycle != r.Cycle || s.Attempt != r.Attempt || r.Yield ||", new: "(r.Yield ||",
		},
		{
			name: "the delay is not stored", file: step, test: "TestCycle/a_drain_that_never_ends",
			old: "	r.Until = o.Now.Add(delay)\n", new: "	r.Until = o.Now\n",
		},
		{
			name: "nothing is fenced after a restart", file: step, test: "TestLateWrites|TestFence",
			old: "	if o.Record != nil && o.Record.Instance != o.Instance && !writesNode {", new: "	if false && !writesNode {",
		},
		{
			name: "the slot is not fenced after a restart", file: step, test: "TestLateWrites|TestFence",
			old: "	if holds && s.Instance != o.Instance && !frees && !o.outlived(s) {", new: "	if false && holds && !frees {",
		},
		{
			name: "a slot that says another boot than the record is taken for safe from the past", file: step, test: "TestFence",
			old: " && s.BootID == r.BootID &&\n", new: " &&\n",
		},
		{
			name: "a slot is taken for safe from the past on the boot on which it was taken", file: step, test: "TestFence|TestLateWrites",
			old: " && r.BootID != o.Boot && s.BootID", new: " && s.BootID",
		},
		{
			name: "a slot that its record does not justify is kept", file: waiting, test: "TestCrash",
			old: "		if s.Cycle == o.History.Ended {\n			return do(FreeSlot{s})\n		}", new: "		if s.Cycle == o.History.Ended {\n			return wait(\"keeps it\")\n		}",
		},
		{
			name: "the marshal keeps its office through the cordon", file: waiting, test: "TestCycle/the_marshal_resigns",
			old: "	case o.Leading:\n		return do(Resign{})\n", new: "",
		},
	}
}

// ofTheWorld are about what others do meanwhile.
func ofTheWorld() []mutant {
	return []mutant{
		{
			name: "a slot is freed without a question to the host", file: step, test: "TestHazards",
			old: "		if e.Slot.BootID == o.Boot || e.Slot.BootID == \"\" {", new: "		if e.Slot.BootID == \"none\" {",
		},
		{
			name: "the slot of an earlier Node is freed without a question to the host", file: step, test: "TestCrashes",
			old: "is held for an earlier Node\"); !safe {", new: "is held for an earlier Node\"); !safe && d.Do != nil && o.Boot == \"\" {",
		},
		{
			name: "a node whose host goes down again is given back", file: step, test: "TestCrashes",
			old: "	return d, calm || d.Do == nil && o.Shutdown.Err != nil", new: "	return d, calm || d.Do == nil",
		},
		{
			name: "two agents act on one host", file: agent, test: "TestCrashes",
			old: "		release, err := a.Host.Lock()\n", new: "		release, err := a.Host.Lock()\n		if err != nil {\n			release, err = func() {}, nil\n		}\n",
		},
		{
			name: "the soak goes on over a second boot", file: verifying, test: "TestWrongBeliefs",
			old: "		n.NewBootID, n.Healthy, n.Until, n.Deadline = o.Boot, time.Time{}, time.Time{},", new: "		n.NewBootID, n.Until, n.Deadline = o.Boot, time.Time{},",
		},
		{
			name: "evictions go on while the slots cannot be read", file: agent, test: "TestHazards",
			old: "		a.housekeep(a.observe()) // the watch", new: "		// the watch",
		},
		{
			name: "pods that come during the hooks are rebooted under", file: draining, test: "TestHooks",
			old: "	case o.Drain.Empty && !o.fresh(o.Emptied, emptyAge) &&", new: "	case o.Drain.Empty && o.Emptied.IsZero() &&",
		},
		{
			name: "a marshal that has just started believes every Ready", file: "marshal/silent.go", test: "TestSilentKubelets",
			old: "		if r.now().Sub(l.Spec.RenewTime.Time) > due+late {", new: "		if r.now().Sub(l.Spec.RenewTime.Time) > due+time.Hour {",
		},
		{
			name: "a cordoned node goes where one is dead", file: order, test: "TestPeer13",
			old: "		case counted && q.onlyOne() && q.deadBeside(n) != \"\":", new: "		case counted && q.onlyOne() && q.deadBeside(n) == n.Name:",
		},
		{
			name: "others go while a node is away with its pods", file: order, test: "TestNominate",
			old: "n.Stays && n.active() && (n.Phase", new: "n.Stays && n.Foreign && (n.Phase",
		},
	}
}

func ofTheDrain() []mutant {
	return []mutant{
		{
			name: "a reboot is done without a new boot ID", file: draining, test: "TestCycle|TestCrash",
			old: "	if r.BootID != o.Boot {\n		return do(verify(o, ReasonRebooted,", new: "	if called := o.Call.Cycle == r.Cycle; called || r.BootID != o.Boot {\n		return do(verify(o, ReasonRebooted,",
		},
		{
			name: "success after any restart of the agent", file: draining, test: "TestCrash",
			old: "	if r.BootID != o.Boot {\n		return do(verify(o, ReasonRebooted,", new: "	if r.Instance != o.Instance || r.BootID != o.Boot {\n		return do(verify(o, ReasonRebooted,",
		},
		{
			name: "the slot is freed before the uncordon", file: draining, test: "TestCycle|TestCrash",
			old: "func draining(o Observation) Decision {\n	r := o.Record\n", new: "func draining(o Observation) Decision {\n	r := o.Record\n	if h, ok := o.held(); ok && o.passed(o.Due.Deadline) {\n		return do(FreeSlot{h})\n	}\n",
		},
		{
			name: "the reboot is asked for before it is stored", file: draining, test: "TestCycle|TestCrash",
			old: "	case o.Drain.Empty:\n		n := r.clone()", new: "	case o.Drain.Empty && o.Node.Name != \"\":\n		return do(Reboot{Slot: s.Name})\n	case o.Drain.Empty:\n		n := r.clone()",
		},
		{
			name: "pods that stay are evicted after the others", file: rota, test: "TestDrainProperties",
			old: "		if p.Decision == DecisionEvict && p.Tier == current && p.group == nil {", new: "		if p.Decision != DecisionIgnore && p.Tier == current && p.group == nil {",
		},
		{
			name: "an eviction is asked for again while it is on its way", file: rota, test: "TestDrainProperties",
			old: "		if p.Decision == DecisionEvict && p.Tier == current && p.group == nil {", new: "		if p.Decision == DecisionEvict && p.Tier == current {",
		},
		{
			name: "a preflight goes by the watch of the one before", file: stream, test: "TestKept",
			old: "	s := d.open(context.WithoutCancel(ctx), true)\n", new: "	s := d.kept.Load()\n	if s == nil {\n		s = d.open(context.WithoutCancel(ctx), true)\n	}\n",
		},
		{
			name: "a watch that no drain takes over stays open", file: stream, test: "TestKept",
			old: "time.AfterFunc(keptFor, stop)", new: "time.AfterFunc(keptFor, func() {})",
		},
		{
			name: "a preflight may be shown what is in any cache", file: identity, test: "TestPreflightByABrokenWatch",
			old: "Quorum: true}", new: "Quorum: false}",
		},
		{
			name: "an empty watch is believed", file: drain, test: "TestRunConfirms",
			old: "	if st.proven(time.Now()) && !st.looksAgain() {", new: "	if !st.looksAgain() {",
		},
		{
			name: "an eviction of long ago proves that a watch is up to date", file: rota, test: "TestRunConfirms",
			old: "	return age >= 0 && age < proofAge\n", new: "	return age >= 0 && !st.asOf.IsZero()\n",
		},
		{
			name: "a pod that is gone was evicted", file: rota, test: "TestRunConfirms",
			old: "		if next[uid] == nil && p.accepted {", new: "		if p.evicted = p.askedAt; next[uid] == nil {",
		},
		{
			name: "evictions go on after a hold or a lost slot", file: draining, test: "TestHazards",
			old: "	return !vetoed && !stopped", new: "	return (!vetoed && !stopped) || holds || !holds",
		},
		{
			name: "a person's uncordon is no veto", file: draining, test: "TestCycle/a_person's_uncordon|TestLastCheck",
			old: "	case !o.Node.Unschedulable || o.Record.Cordon == CordonNone:", new: "	case o.Node.Name == \"\":",
		},
	}
}

func ofTheHooks() []mutant {
	return []mutant{
		{
			name: "the pre-reboot hook is ignored", file: draining, test: "TestHooks/a_failing_one_before_the_reboot",
			old: "	case failed != \"\":\n		return o.backoff(ReasonHook, failed), false", new: "	case failed != \"\" && !o.Drain.Empty:\n		return o.backoff(ReasonHook, failed), false",
		},
		{
			name: "the pre-reboot hook is not waited for", file: draining, test: "TestHooks/run_in_order",
			old: "	return d, ended\n}", new: "	return d, ended || o.Drain.Empty\n}",
		},
		{
			name: "the node is given back before the post-reboot hook has succeeded", file: verifying, test: "TestHooks/a_failing_one_after_the_reboot",
			old: "	if up(o) {\n		switch d, ok := o.postHooks(o.Due.Deadline,", new: "	if up(o) && o.Node.Name == \"\" {\n		switch d, ok := o.postHooks(o.Due.Deadline,",
		},
		{
			name: "an attempt has the number of the one before", file: waiting, test: "TestHooks/one_that_could_not_be_cleared",
			old: "	r.HookRun++\n", new: "",
		},
		{
			name: "hooks that still run are left to themselves", file: hooks, test: "TestHooks/one_that_runs_when_a_person_uncordons",
			old: "	return o.Hooks.Left && !o.Hooks.None", new: "	return o.Hooks.Left && o.Hooks.None",
		},
	}
}

func ofTheEnd() []mutant {
	return []mutant{
		{
			name: "the sentinel's fingerprint is ignored", file: verifying, test: "TestCycle/the_same_sentinel",
			old: "o.Sentinel.Source != \"\" && fp == r.Sentinel.Fingerprint {", new: "o.Sentinel.Source != \"\" && fp == \"\" {",
		},
		{
			name: "Failed frees its slot", file: verifying, test: "TestCycle/a_node_that_does_not_become_ready",
			old: "	if d, ok := keepWatch(o, s, holds); ok {\n		return d\n	}\n	if up(o) {\n		if d, ok := o.postHooks(renewAt",
			new: "	if holds {\n		return do(FreeSlot{s})\n	}\n	if d, ok := keepWatch(o, s, holds); ok {\n		return d\n	}\n	if up(o) {\n		if d, ok := o.postHooks(renewAt",
		},
		{
			name: "the agent is called done by a person's reboot without a look", file: verifying, test: "TestCycle/a_node_that_does_not_become_ready",
			old: "	case len(o.Pods.Missing) > 0:", new: "	case len(o.Pods.Missing) > 1000:",
		},
	}
}

func ofTheLoop() []mutant {
	return []mutant{
		{
			name: "a write of the Node without the version it was decided on", file: apply, test: "TestCrash|TestCycle|TestLateWrites",
			old: "	n, err := a.Node.Patch(ctx, o.Node, c)", new: "	now, err := a.Node.Get(ctx)\n	if err != nil {\n		return err\n	}\n	n, err := a.Node.Patch(ctx, now, c)",
		},
		{
			name: "the last check is dropped", file: reboot, test: "TestLastCheck",
			old: "	if !same || again != e || contradicted || time.Since(began) >= lastCheckAge {", new: "	if false && (!same || again != e || contradicted || time.Since(began) >= lastCheckAge) {",
		},
		{
			name: "a heartbeat is judged by the own clock", file: observation, test: "TestHazards/a_clock_that_is_three_hours_ahead",
			old: "	return o.Now.Add(-o.Skew).Sub(s.Renewed).Abs() < heartbeat", new: "	return o.fresh(s.Renewed, heartbeat)",
		},
		{
			name: "the last check goes by what was read of the Node long ago", file: reboot, test: "TestTheNodeOfTheLastCheck",
			old: "	if sure && time.Since(read) < nodeAge {", new: "	if sure && !read.IsZero() {",
		},
		{
			name: "the last check trusts what a watch has contradicted", file: reboot, test: "TestTheLastCheckReadsTheNodeAgain",
			old: "	if sure && time.Since(read) < nodeAge {", new: "	if (sure || true) && time.Since(read) < nodeAge {",
		},
		{
			name: "the answer to a write undoes what a watch has brought before it", file: world, test: "TestTheLastCheckAfterNewsThatOvertook",
			old: "	if w.before(n) {\n		w.stale = true\n		return false\n	}\n", new: "",
		},
		{
			name: "the answer to a write of a slot undoes the brake that a watch has brought before it", file: world, test: "TestTheAnswerOfASlot",
			old: "older(s.ResourceVersion, have.ResourceVersion) {\n		w.stale = true\n		return\n	}", new: "older(s.ResourceVersion, have.ResourceVersion) && false {\n		w.stale = true\n		return\n	}",
		},
		{
			name: "a deleted Node comes back by old news", file: world, test: "TestOldNews",
			old: "(!w.exists || older(n.ResourceVersion, w.node.ResourceVersion))", new: "w.exists && older(n.ResourceVersion, w.node.ResourceVersion)",
		},
		{
			name: "an answered question shortens the delay after a failed write", file: agent, test: "TestHazards/an_API_server_that_takes_no_writes",
			old: "		return !asks(d.Do), nil", new: "		return true, nil",
		},
		{
			name: "the slot of an earlier Node is freed before its host is back", file: step, test: "TestASlotOfAnEarlierNodeAndBoot",
			old: "		if s.BootID != \"\" && s.BootID != o.Boot && (", new: "		if false && (",
		},
		{
			name: "stored times go by the wall clock", file: world, test: "TestWrongBeliefs|TestHazards",
			old: "		t, ok := w.due[k]\n		if !ok {", new: "		t, ok := w.due[k]\n		ok = false\n		if !ok {",
		},
		{
			name: "a freed slot is forgotten, not remembered as free", file: world, test: "TestOldNews",
			old: "	w.slots[s.Name] = s // also", new: "	if s.Holder == \"\" && s.Nominee == \"\" {\n		delete(w.slots, s.Name)\n		return\n	}\n	w.slots[s.Name] = s // also",
		},
		{
			name: "a Node that is gone is drained on", file: agent, test: "TestCycle/a_node_whose_object",
			old: "	if o.Exists && o.Record != nil {", new: "	if !o.Exists {\n		return\n	}\n	if o.Record != nil {",
		},
		{
			name: "a late answer of a watch undoes what a write returned", file: world, test: "TestOldNews",
			old: "		if exists && w.before(n) ||", new: "		if false && exists ||",
		},
		{
			name: "an unknown outcome is taken for a refusal", file: agent, test: "TestFence",
			old: "		if errors.Is(err, ErrUnknown) {", new: "		if errors.Is(err, ErrGone) {",
		},
	}
}

func ofTheView() []mutant {
	return []mutant{
		{
			name: "a slot of an earlier Node of that name is kept", file: observation, test: "TestASlotOfAnEarlierNode",
			old: "(s.HolderUID != o.Node.UID || ok && s.Name != held.Name)", new: "ok && s.Name != held.Name",
		},
		{
			name: "a hold is not looked at again", file: observation, test: "TestCycle/a_hold_during|TestLastCheck",
			old: "	if o.Node.Hold != \"\" {\n		c = append(c,", new: "	if o.Node.Hold == \"never\" {\n		c = append(c,",
		},
		{
			name: "a record of a newer version is overwritten", file: record, test: "TestCycle/a_record_of_a_newer",
			old: "	if r.Version > RecordVersion {", new: "	if r.Version > RecordVersion {\n		return nil, nil\n	}\n	if r.Version < 0 {",
		},
		{
			name: "a node is rebooted as often as it asks", file: observation, test: "TestCycle/at_most_two",
			old: ">= o.Settings.MaxReboots24h {", new: ">= 1000 {",
		},
	}
}

func ofTheSlots() []mutant {
	return []mutant{
		{
			name: "a held slot is freed because it is old: theft by time", file: housekeep, pkg: "internal/search", test: "TestSearch/searches/nothing_breaks_2",
			old: "		if l.Holder != \"\" && holderGone(l, nodes[l.Holder]) {", new: "		if l.Holder != \"\" && (holderGone(l, nodes[l.Holder]) || v.Now.Sub(l.Renewed).Hours() > 1) {",
		},
		{
			name: "a slot is written on whatever version is there: taking without CAS", file: store, pkg: "internal/search", test: "TestSearch/searches/nothing_breaks_2",
			old: "	from.write(to, l)\n", new: "	from.write(to, l)\n	if now, err := s.leases.Get(ctx, l.Name, metav1.GetOptions{}); err == nil {\n		l.ResourceVersion = now.ResourceVersion\n	}\n",
		},
		{
			name: "at the start the Node is read before the slots", file: agent, test: "TestTraffic/a_start_is_two_watches", pkg: "cmd/baton-agent",
			old: "	case <-a.slotsRead:\n		return", new: "	default:\n		return",
		},
		{
			name: "a process that starts finds a held slot by its label only", file: world, test: "TestASlotWithoutItsLabel",
			old: "			w.stale = w.stale || !named //", new: "			w.stale = w.stale //",
		},
		{
			name: "a held slot is found by its label only", file: world, test: "TestASlotWithoutItsLabel",
			old: "	if r == nil || r.Slot == \"\" || slices", new: "	if r == nil || r.Slot != \"\" || slices",
		},
		{
			name: "the last check does not go by the brake", file: reboot, test: "TestLastCheck/a_pause",
			old: "		if paused != \"\" {\n			w.gates", new: "		if false {\n			w.gates",
		},
		{
			name: "a pause without a reason is none", file: election, test: "TestElectionLock",
			old: "			return cmp.Or(why, noReason)", new: "			return cmp.Or(why, \"\")",
		},
		{
			name: "a take goes by what no process before may still take", file: own, test: "TestLateTakeOfAnotherSlot",
			old: "	for _, s := range slots {\n		o.names[s.Name] = true\n	}\n", new: "",
		},
		{
			name: "a take whose outcome is unknown is forgotten", file: store, test: "TestLateTakeOfAnotherSlot/the_same_process",
			old: "		s.own.are(nil) // it may", new: "		s.own.are(map[string]bool{}) // it may",
		},
		{
			name: "what a watch shows at first is believed after a take", file: own, test: "TestTakeAsksNothing",
			old: "	if o.took {\n		return\n	}\n", new: "",
		},
		{
			name: "a slot that an earlier Node of the name holds is not seen", file: store, test: "TestNamed",
			old: "	return isSlot(l.Name) && cmp.Or(st.Holder, st.nomineeNode) == s.node\n", new: "	return isSlot(l.Name) && cmp.Or(\"\", st.nomineeNode) == s.node\n",
		},
		{
			name: "a slot is taken by the name of the nominee instead of its UID", file: verbs, test: "TestVerbs",
			old: "uid == \"\" || s.Nominee != uid:", new: "uid == \"\" || s.nomineeNode != node:",
		},
		{
			name: "an offer is taken for another bid than it was made to", file: verbs, test: "TestVerbs",
			old: "s.BidCycle == \"\" || s.BidCycle != c.Cycle || s.BidAttempt != c.Attempt:", new: "s.BidCycle == \"\":",
		},
		{
			name: "an offer never ends", file: verbs, test: "TestVerbs",
			old: "!now.Before(s.BidUntil):", new: "s.BidUntil.IsZero():",
		},
		{
			name: "a slot that is being deleted is taken", file: verbs, test: "TestVerbs",
			old: "		case s.Deleting:\n			return ErrDeleting\n		case uid == \"\" || s.Nominee != uid:", new: "		case uid == \"\" || s.Nominee != uid:",
		},
		{
			name: "a slot that another holds is freed", file: verbs, test: "TestVerbs",
			old: "		if s.Holder != node {\n			return fmt.Errorf(\"%w by %q: its holder is %q\", ErrNotHeld, node, s.Holder)\n		}\n		s.empty()",
			new: "		s.empty()",
		},
	}
}

func ofTheOrder() []mutant {
	return []mutant{
		{
			name: "the marshal ignores records: a node that is down without its slot is not counted", file: order, test: "TestNominate",
			old: "	if !n.active() || n.Slot == \"\" {", new: "	if !n.active() || n.Slot != \"\" {",
		},
		{
			name: "a node that is not ready is not counted", file: order, test: "TestPeer13",
			old: "if !n.Ready || n.Unschedulable || n.active() ||", new: "if n.Unschedulable || n.active() ||",
		},
		{
			name: "a node that somebody has cordoned is not counted", file: order, test: "TestNominate|TestRandomClusters",
			old: "if !n.Ready || n.Unschedulable || n.active() ||", new: "if !n.Ready || n.active() ||",
		},
		{
			name: "a nomination is not counted until it is taken", file: order, test: "TestNominate|TestRandomClusters",
			old: "			s.takes(s.group[l.Group], who, n)\n", new: "			_, _ = who, n\n",
		},
		{
			name: "a halted group goes on", file: order, test: "TestNominate",
			old: "	case q.halted != \"\":\n		return reasonHalted, q.halted", new: "	case q.halted == reasonHalted:\n		return reasonHalted, q.halted",
		},
		{
			name: "a node that does not come back halts nobody", file: order, test: "TestNominate|TestAcknowledged",
			old: "s.Own.Sub(since) > q.rebootTimeout()", new: "s.Own.Sub(since) < 0",
		},
		{
			name: "two zones at once", file: order, test: "TestZones",
			old: "		case other:\n", new: "		case other && q.limit == 0:\n",
		},
		{
			name: "the workers do not wait for their turn after others", file: order, test: "TestAfter",
			old: "		case first != \"\":\n", new: "		case first == q.Name:\n",
		},
		{
			name: "a slot that hangs in its deletion keeps other groups waiting", file: order, test: "TestAfter",
			old: "i < q.limit && (l.Deleting || !l.empty()) {", new: "i < q.limit && !l.empty() {",
		},
		{
			name: "the soak of the canaries is left out", file: canary, test: "TestCanaries",
			old: "	return covers, back[want-1].Proven.Add(q.CanarySoak), true", new: "	return covers, back[want-1].Proven, true",
		},
		{
			name: "a dead node that its group bears holds its zone", file: order, test: "TestZones|TestAfter",
			old: "	if n != nil && s.stuck(q, n) {", new: "	if n != nil && n.Phase == phaseFailed {",
		},
		{
			name: "a hold brings a dead member of the control plane back", file: order, test: "TestPeer13",
			old: "		for _, name := range missing[q] {", new: "		for _, name := range missing[nil] {",
		},
		{
			name: "a holder that changes groups counts in the old one only", file: order, test: "TestNominate",
			old: "n.active() || s.slotOf[n.UID] != nil {\n					home", new: "n.active() {\n					home",
		},
		{
			name: "a canary speaks for what came while it soaked", file: canary, test: "TestCanaries|TestRandomClusters",
			old: "Trial{Covered: covers}", new: "Trial{Covered: end.Add(covers.Sub(covers))}",
		},
		{
			name: "the sentinel that came on top is tried already", file: canary, test: "TestCanaries|TestRandomClusters",
			old: "!n.wish().After(q.trial.Covered)", new: "!n.Pending.After(q.trial.Covered)",
		},
	}
}

// ofTheMarshal are about what it does besides nominating.
func ofTheMarshal() []mutant {
	return []mutant{
		{
			name: "a reading for the brake that shows a dead marshal puts the look off", file: election, test: "TestElector/also_when",
			old: "if e.heard.After(since) && e.heard.Sub(e.seen.Renewed) <= e.lasts(e.seen) {", new: "if e.heard.After(since) {",
		},
		{
			name: "nobody brakes those who are on their way", file: housekeep, test: "TestHousekeep",
			old: "		want = q.brake()\n", new: "		want = \"\"\n",
		},
		{
			name: "nobody brakes those who are on their way when their group was renamed", file: housekeep, test: "TestHousekeep",
			old: "			want = cmp.Or(want, home.brake())\n", new: "			want = cmp.Or(want, \"\")\n",
		},
		{
			name: "who is on the way when the group is renamed is not waited for", file: order, test: "TestRenamedGroups",
			old: "	if q == nil && n != nil {\n		q = s.match(n)", new: "	if q == nil && n == nil {\n		q = s.match(n)",
		},
		{
			name: "a slot is freed for a Node that is registered anew on the same boot", file: housekeep, test: "TestGone",
			old: "l.BootID != \"\" && n.BootID != \"\" && n.BootID != l.BootID", new: "l.BootID != \"\"",
		},
		{
			name: "a held slot goes when the group shrinks", file: housekeep, test: "TestHousekeep",
			old: "	if l.empty() && !l.Deleting && len(s.Groups) > 0", new: "	if !l.Deleting && len(s.Groups) > 0",
		},
		{
			name: "each of a thousand looks for a marshal every minute", file: election, test: "TestElector|TestLookInterval",
			old: "min(max(s.standing, lookTogether), lookMost*lookTogether)", new: "min(lookTogether, lookMost*lookTogether)",
		},
		{
			name: "the last of many looks for a marshal once in hours", file: election, test: "TestElector|TestLookInterval",
			old: "min(max(s.standing, lookTogether), lookMost*lookTogether)", new: "max(s.standing, lookTogether)",
		},
		{
			name: "what an earlier marshal counted makes agents look less often", file: "marshal/lease.go", test: "TestElector",
			old: "		delete(lease.Annotations, standingKey)", new: "		delete(lease.Annotations, \"\")",
		},
	}
}

func ofTheNode() []mutant {
	return []mutant{
		{
			name: "the list of taints is replaced", file: change, test: "TestPatch",
			old: "	taints = slices.DeleteFunc(taints, func(t corev1.Taint) bool { return t.Key == TaintPending })\n", new: "	taints = nil\n",
		},
		{
			name: "the shields of others are taken off", file: change, test: "TestPatch",
			old: "		absent := slices.DeleteFunc(slices.Clone(from.Bare), ", new: "		absent := slices.DeleteFunc(shieldKeys(), ",
		},
		{
			name: "that both names are refused is believed", file: identity, test: "TestInWhoseName",
			old: "	if agentErr != nil {\n", new: "	i.chosen.Store(&i.agent)\n	if agentErr != nil {\n",
		},
		{
			name: "the agent evicts by its own rights before it knows whether its node's would do", file: identity, test: "TestInWhoseName",
			old: "	return i.node\n", new: "	return i.agent\n",
		},
		{
			name: "what a watch shows late is believed by a drain", file: client, test: "TestVolumesAreAwaited",
			old: "	if uid == c.last.uid && older(n.ResourceVersion, c.last.version) {", new: "	if n == nil {",
		},
		{
			name: "a Node that is gone has no volumes", file: client, test: "TestVolumesAreAwaited",
			old: "	c.know(seen{uid: c.last.uid, version: c.last.version, gone: true})", new: "	c.know(seen{uid: c.last.uid, version: c.last.version})",
		},
		{
			name: "an eviction hits the next pod of that name", file: drain, test: "TestEvict",
			old: "		DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}},\n	}\n	if own",
			new: "		DeleteOptions: &metav1.DeleteOptions{},\n	}\n	_ = uid\n	if own",
		},
		{
			name: "a pod without a controller is evicted unasked", file: plan, test: "TestPlan",
			old: "deleting(cmp.Or(pol.Unmanaged, DoBlock))", new: "deleting(cmp.Or(pol.Unmanaged, DoDelete))",
		},
		{
			name: "a rule's settings are those of no pod", file: policy, test: "TestPlan|TestDrainProperties",
			old: "			return r.Policy\n", new: "			return p\n",
		},
		{
			name: "the last rule that matches counts", file: policy, test: "TestPlan|TestDrainProperties",
			old: "	for _, r := range p.Rules {\n		if r.matches", new: "	for _, r := range slices.Backward(p.Rules) {\n		if r.matches",
		},
		{
			name: "what a rule does not say is as nobody says", file: config, test: "TestRulesOfADrain", pkg: "wire",
			old: "	d.Jobs = cmp.Or(r.Jobs, d.Jobs)\n", new: "	d.Jobs = r.Jobs\n",
		},
		{
			name: "pods stay on a node that is away for longer than they would", file: quick, test: "TestStaying",
			old: "t <= downtime {", new: "t < 0 {",
		},
	}
}

// ofTheBudgets are about how often whom is asked.
func ofTheBudgets() []mutant {
	return []mutant{
		{
			name: "a drain begins as if there were no budgets", file: rota, test: "TestFirstEvictions",
			old: "max(1, int(by[0].Status.DisruptionsAllowed))", new: "st.limit",
		},
		{
			name: "a budget that is not named delays nobody", file: rota, test: "TestRunBudgets",
			old: "g, words := st.groupOf(p), a.message", new: "g, words := st.groupFor(p.owner), a.message",
		},
		{
			name: "pods that no budget covers share the luck of their siblings", file: rota, test: "TestRunBudgets",
			old: "			p.budget = p.owner // others", new: "			// others",
		},
		{
			name: "a drain that has not begun says that it runs", file: drain, test: "TestRunEndsWhenTheHostCannotBeAsked",
			old: "v := st.view(now); st.seen && v != told {", new: "v := st.view(now); v != told {",
		},
		{
			name: "a budget is asked five times a second", file: rota, test: "TestPeer5",
			old: "	b.notBefore = now.Add(wait + rand.N(wait/5+1))", new: "	b.notBefore = now.Add(200*time.Millisecond + 0*rand.N(wait/5+1))",
		},
	}
}

// ofTheSurroundings are about the host, the calendar, and what people are told.
func ofTheSurroundings() []mutant {
	return []mutant{
		{
			name: "hooks of a directory that was replaced are skipped", file: "host/hooks.go", test: "TestHooksRefused",
			old: "removed(h.under(above)) {", new: "false && removed(h.under(above)) {",
		},
		{
			name: "a day field that begins with a star leaves it to the other one", file: "window/recurrence.go", test: "TestSchedule",
			old: "				*field |= star", new: "				*field |= 0",
		},
		{
			name: "a shut gate is shown on an idle node", file: apply, test: "TestAGateIsNotShown",
			old: "		a.metrics.gates(nil)\n", new: "",
		},
		{
			name: "a node that is drained in vain does not wait", file: "marshal/metrics.go", test: "TestCollector",
			old: "[]string{phaseWaiting, phaseDraining, phaseBackoff}", new: "[]string{phaseWaiting}",
		},
		{
			name: "a gate that cannot be asked is asked as often for ever", file: apply, test: "TestAGateThatCannotBeAsked",
			old: "		d = min(max(d, 2*before.Until.Sub(before.At)), unknownLast)", new: "		d = min(d, unknownLast)",
		},
		{
			name: "each identity has a connection", file: "kube/client.go", test: "TestSharedClients",
			old: "	out.Host, out.Transport, out.TLSClientConfig, out.Dial = server.String(), conn, rest.TLSClientConfig{}, nil", new: "	_, _ = conn, server",
		},
	}
}
