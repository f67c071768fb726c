// Package agent is the cycle of one node: from a sentinel on the host to a node that is schedulable again.
//
// The cycle is a state machine of seven phases. [Step] is a pure function from an [Observation] (everything that is
// known, the time included) to a [Decision] (at most one effect, and when to look again). [Agent.Run] observes, asks
// step, carries out the one effect, and begins anew; it decides nothing itself. What the cycle stands at is kept in a
// [Record] on the node's own Node object, so any process of this package may die at any instruction and the next one
// goes on.
//
// The package knows neither Kubernetes nor D-Bus. What it needs of them stands behind the small interfaces of seams.go.
//
// # Guarantees
//
//   - A reboot is asked for only while the record says Rebooting, the slot was read to be held by this Node, by name
//     and UID, and the Node was read to be cordoned and not on hold, all within [lastCheckAge] of the call.
//   - A reboot is called done only when the boot ID differs from the one that was stored before the call.
//   - The Node is uncordoned only when the record says that the cordon is Baton's, and always before the slot is freed.
//   - No pod is evicted before the pre-drain hooks have succeeded, no reboot is asked for before the pre-reboot hooks have, and
//     the Node is not given back before the post-reboot hooks have, unless a person acknowledges its failure. Each attempt
//     is one run of them, whatever process sees it through.
//   - On the same boot the slot is given up only when the host proves that no reboot is coming.
//   - Every write carries the resourceVersion of the object it was decided on. After a write whose outcome is not known
//     the next write fences the earlier one off before anything else is done.
//   - A stop (SIGTERM) writes nothing, unless Baton is being removed: then the node is given back, as long as its reboot
//     was not asked for.
//
// # Not guaranteed
//
//   - A person's cordon laid over Baton's own cordon leaves no trace in the API and is undone at the end; the hold
//     annotation is the way to keep a node cordoned.
//   - What a hook has done is undone by nobody when its attempt is given up.
//   - Between the last check and the reboot itself somebody may still uncordon the node; nothing can close that gap.
package agent
