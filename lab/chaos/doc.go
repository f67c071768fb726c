// Package chaos holds Baton to its promises on real nodes while everything else breaks: a seeded plan of kills, power cuts,
// spoiled connections, shifted clocks, changed and broken configurations, updates, nodes that come and go, and people who do
// the right thing at the wrong moment.
//
// All nodes want a reboot all the time, so that cycles are always under way. Most faults are aimed at a moment of a cycle: they
// wait for a node to come to it, and strike there. What moment was really hit is written down.
//
// A judge looks on that is neither Baton nor the API server: it reads every version of every Node and slot from etcd, and the
// power supplies' own log.
//
// Guarantees:
//   - The plan follows from the seed and the length, and from nothing else; a longer plan begins with the shorter one, up to
//     the first change of maxUnavailable.
//   - The agents run from deploy/base unchanged. Their connections go through toxiproxy by a rule in each node's firewall,
//     which survives its reboots.
//   - Judged is all of it: never more nodes taken down at once than any configuration of the last minutes allowed; no node
//     down without a slot; no slot taken from its holder, and that of a deleted Node not before its grace; no cordon of people
//     lost; no machine rebooted but in Rebooting, by a record of the boot that ended; no reboot claimed that the machine's
//     power does not show; no agent that died of itself; the pod without a controller still the same.
//   - At the end all faults are taken back and all has to come to rest in time, by itself: people take back what people did,
//     and nobody else helps.
//
// Not guaranteed:
//   - Two runs of one plan differ in what a fault meets, as far as the machine's scheduling differs.
//   - The device that nodes lose is a number that the lab shows on each Node, as the device's plugin would.
//   - The nodes' clocks do not jump, as all of them are this machine's. The time that the API server tells an agent does.
//   - A person's cordon over Baton's own leaves no trace in the API. It is not held to be lost when Baton takes it off.
package chaos
