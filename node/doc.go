// Package node is the agent's door to its own Node object and to the Pods bound to it: what the Node says, the one
// PATCH that changes it, the plan of a drain, the drain itself, and which of the node's own pods are ready.
//
// # Guarantees
//
//   - Every write of the Node carries the UID and the resourceVersion of the [View] it was decided on. A write decided
//     on an old view is refused by the API server with 409 (or 422 for another UID) and changes nothing.
//   - Record, history, label, cordon and taint change in one PATCH, so they hold together or not at all. Taints are an
//     atomic list in the API: the whole list is computed from the one in the view, and the resourceVersion refuses it
//     when somebody added a taint in between.
//   - A pod is evicted through the Eviction API only, with its UID as a precondition: a pod re-created under the same
//     name is never hit by an eviction meant for the one before. There is no DELETE.
//   - A pod that would be lost or would not come back is never evicted or ridden through unless the setting says so;
//     a setting that is not known reads as `block`.
//   - Nothing is evicted while a pod is there that blocks, or that is awaited without a limit, nor while the host cannot be asked
//     whether pods outlive its reboot.
//   - Where the API server lets the agent act as its own node, nothing is evicted in the agent's own name. Which of the two it is,
//     the first request for pods that is permitted settles: the node's name for good, the agent's, where it has the right at all, until
//     that is forbidden.
//   - After [Drainer.Run] has returned, it sends no further eviction.
//   - [Drainer.Run] returns nil only when nothing is in the way, by all that had happened up to 5 s before, or later. That its watch is
//     so new is proven when it has shown the end of a pod that this run had evicted, or whose containers had stopped after that, within
//     those 5 s; in all other cases a consistent LIST confirms it.
//
// # Not guaranteed
//
//   - The state shown by a watch may be old; it is the write that finds out. A drain that goes on with the watch of its preflight begins
//     with what is not older than that, and may learn a moment later of a pod that has come since. Which volumes are on the node it goes
//     by what the watch of the Node shows: that is not older than the cordon, but may be a moment older than the end of the last pod.
//   - An eviction whose reply was lost may have been accepted. The watch shows it.
//   - The scheduler may bind one more pod with what it knew before the cordon. It is drained when the watch shows it
//     before Run returns, not after.
//   - Fields of a taint that this version of the API types does not know are lost when Baton's own taint changes.
package node
