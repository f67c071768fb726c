// Package e2e shows on real nodes that Baton does what it promises, when all goes well and when it does not.
//
// One cluster is started, and the scenarios run in it one after the other, each from a settled state: no cycle, every node
// Ready and schedulable, every slot free, its own configuration in force.
//
// Guarantees:
//   - A scenario acts on what a watch or the host itself shows, within a deadline. Nothing sleeps until it is probably time.
//   - The product runs as it is installed by users: without hooks, and from deploy/base unchanged but for the configuration.
//   - After every scenario, also one that succeeded, the whole of it is judged: never more nodes down or switched off at once
//     than allowed, no node down without a slot, no cordon of people lost, no slot taken from its holder.
//   - A scenario that fails leaves what is needed to see why: records, slots, Events, the agents' logs, the order of events.
//
// Not guaranteed:
//   - That something never happens is watched for a bounded time only, while there is a reason for it to happen.
package e2e
