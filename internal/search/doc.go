// Package search looks at every state that a small cluster can get into, breadth first, over the real code: [agent.Step],
// [marshal.Nominate], [marshal.Housekeep] and [marshal.Gone] decide, and the verbs of [lock.Slots] write. It finds the
// shortest way to a state that must never be, and tells it step by step.
//
//	go test ./internal/search -run TestSearch -v
//	go test ./internal/search -run TestSearch -v -timeout 0 -args -nodes 3 -marshals 2 -faults crash=1,lose=2,lag=1
//	go test ./internal/search -run TestSearch -v -args -rule 4 -faults lose=1,late=1
//
// The first is the table of every day: each rule switched off, and all rules together. The others are searches of one's
// own, as long as memory lasts (about half a kilobyte a state); -depth and -states limit them.
//
// # What is modelled
//
//   - Nodes and Leases as the API server keeps them: writes by resourceVersion and UID, finalizers, deletion. A write is
//     answered; or it takes effect and its answer is lost; or it is lost; or it arrives at any later time, when its sender
//     has given it up or died (lose). So are the writes of marshals.
//   - Agents as far as their loop decides anything: what Step wants is carried out; after a refusal everything is read
//     again; after a write without an answer the process is another instance; the last check reads the Node, then the
//     slot, decides again, and calls, and anything may happen in between. An agent may die at any step (crash), or be
//     removed and installed again (leave).
//   - Watches that bring nothing for a while (stall for agents, lag for marshals, for Nodes and for slots separately): who
//     watches goes on seeing what was there before, and acts on it. An agent is not told of a slot that a late write takes
//     in its node's name for an earlier Node. Up to two marshals are at work at any time, on such views, and either may
//     nominate whom it likes among those that Nominate finds equal but for their age.
//   - Hosts: an accepted reboot comes, is given up, or is refused; power fails; the host cannot be asked for a while; the
//     sentinel goes with the boot or is there again; the kubelet reports the boot when it likes, and not Ready perhaps; a
//     machine is taken away for good.
//   - People: they cordon, uncordon, hold, pause, acknowledge, ask for slots, remove sentinels, delete Nodes, Leases and
//     records.
//
// A configuration says how often each fault may happen; every order and every moment of them is looked at.
//
// # What must never be
//
// More nodes down than slots; a node that holds two; a call without slot, or without cordon unless a person uncordoned
// after the last check began; a last check that passes over a hold or a pause; a host that goes down without its slot; a
// person's cordon taken off, or Baton's left behind; a reboot called done on the boot on which it was asked for; a slot
// freed while its host goes down, its node is down or cordoned by Baton, or by the marshal while its Node is there; a
// state from which no way without a further fault leads to the end, where every node is up and schedulable and every slot
// is there and empty (people lift their holds, pauses and cordons some day, and acknowledge a sentinel that survived). A
// search stops at the first of these, which is where a disaster begins and not where it ends.
//
// Each rule of the protocol, 1 to 8, can be switched off, by the world and not by the code under test: an API server that
// compares no versions, a host that always says it is calm, a second agent, a process that takes the instance of the last
// one for its own, and so on; rules.go lists them.
//
// # Guarantees
//
//   - What a report calls complete is complete: for that many nodes and faults there is no other state. What it calls
//     truncated was complete to the depth that it states.
//   - The code under test is what is linked in. It is asked once for each different input, which is sound because the
//     functions are pure, and the verbs are given a new API server each time, set up with everything that they see.
//   - Worlds that differ only in the names of nodes and marshals are one. States are told apart by a hash of 64 bits: that
//     one is taken for another is possible, and for ten million states less likely than one in a hundred thousand.
//
// # Not shown
//
//   - What is not in the model: the loop of the agent, the runner of the marshal, the election and resigning for it, the
//     memory of the marshal (penalties, nodes away too long), gates but the pause, windows, drains, hooks and soaks, budgets but
//     the number of slots, groups, clocks. Package node's PATCH is a compare-and-swap here by decree; its own tests show it.
//   - Time. It stands still; what a deadline, a nomination's end or a delay may bring, may happen at any moment (late, for
//     deadlines). Three relations of times are believed. A Node is not registered again within the seconds between a last
//     check and its call; nor is its slot freed within them as that of a Node that is gone, which takes the grace period;
//     and a host that has been going down for so long starts no kubelet any more.
//   - A verb's own reads happen at once with its first write. A person's cordon over Baton's own, laid before the agent has
//     seen the uncordon, counts as Baton's: nothing tells them apart.
//   - More: three nodes, two slots, two marshals, two late writes, and the faults that were counted out. A record removed
//     by hand (strip) while a write of the same node is late, or just before the cordon, can leave a cordon with the wrong
//     owner, because the slot knows only what was last written on it.
package search
