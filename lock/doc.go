// Package lock holds the slots: the permission to take a node down. A slot is one Lease of coordination.k8s.io/v1, held
// by a node by name and by the UID of its Node. The marshal nominates a node for an empty slot; the node's agent takes it,
// renews it and frees it: empty, own, empty.
//
// A [Slot] is a plain value: what a Lease said at one resourceVersion. The verbs are pure functions on it. Every one goes
// through one function that writes on exactly the version that the verb was decided on.
//
// # Guarantees
//
//   - A slot has one holder at most, so N slots have N at most, whatever marshals do and however many there are. Between
//     two holders it is empty.
//   - A write takes hold only on the version of the Slot that it was given; on any other it is a Conflict. A write still
//     in flight is dead as soon as anybody has written the Lease. A deleted Lease is never brought back by a late write
//     (a PUT may create a Lease): the write carries the UID too.
//   - [Slots.Take] takes only an empty slot, not being deleted, whose nomination is for this UID and this bid (cycle and
//     attempt) and not over. A node never holds two, not even by a late write of its own: what this process has not ruled
//     out, it asks the API server first.
//   - A held Lease does not vanish: it carries a finalizer from the write that takes it to the write that empties it.
//   - A freed slot carries no claim of any kind. Annotations, labels, finalizers and fields that are not Baton's survive
//     every verb.
//   - What cannot be read counts against the reader: a Lease with a holder is held, whatever else it says; a nomination
//     with an unreadable part is over.
//   - A verb that does not apply is refused with [ErrHeld], [ErrNotHeld], [ErrNotNominated] or [ErrDeleting] before
//     its Lease is written. Every other error wraps the API's. A Conflict means: read again and decide again.
//
// # Not guaranteed
//
//   - An error that is neither one of the four nor a clear answer of the API server (a lost connection, a timeout) leaves
//     open whether the write took hold, now or later. Read again and write again (renew, take, decline, free): after one
//     write of known success no earlier one can take hold.
//   - That a Slot is ours is only its name here. The agent compares HolderUID with its Node's UID before it acts; it may
//     free a slot that an earlier Node of its name left.
//   - Hold and Release stop nothing by themselves: the agent reads them.
//   - The end of a nomination is the marshal's clock, compared with the taker's. It keeps order; nothing unsafe follows
//     from a wrong clock.
//   - Somebody who may write Leases by hand may empty a holder or strip the finalizer. The next write of the holder then
//     fails, or puts the finalizer back; until then there is no protection.
//   - Somebody who deletes an EMPTY Lease by hand, without a resourceVersion, at the very moment at which it is taken, may
//     take it from under the finalizer: the API server looks for finalizers first and deletes then, and compares nothing
//     in between unless it is asked to ([Slots.Delete] asks). The holder's next Renew or Get then says NotFound; renew
//     once between the take and the cordon. (A finalizer on empty slots would close this, and make `kubectl delete
//     namespace` hang for ever once the agents are gone.)
//   - What [Slots.Watch] shows may be old, but for the first time. It is good to decide on, because the write carries the version.
//   - A held slot whose label [LabelNode] a person took off is shown by neither [Slots.Watch] nor
//     [Slots.Named] until its holder's next write puts it back;
//     [Slots.Get] finds it.
//
// # Why the whole object, and not a patch
//
// The API server applies a merge patch to whatever object is current; with metadata.resourceVersion in it that is safe as
// well, but a merge patch replaces the list of finalizers, for which the foreign ones must be known, and counting
// leaseTransitions needs the old number. So the Lease must be known anyway, and a full Update of the Lease read at that
// version says everything at once. The Slot itself stays flat: the Leases last read are remembered beside it, and where
// the one needed is not there it is read again, which is refused as a Conflict when the version has moved on.
//
// # Why not leaderelection for a slot
//
// client-go's leaderelection is for a living process that renews all the time, and says itself that it does not fence: a
// candidate takes over after some seconds of silence. A node that reboots is silent for minutes, and its silence is what
// the slot is for. It is the right thing for the marshal, who only orders the queue.
//
// # Why nothing is stolen by time
//
// No span of time proves that a node is back. One that hangs in its firmware, or whose reboot systemd finishes half an
// hour later, is down all that time, and taking its slot takes a second node down. What a lost holder costs is one slot
// of its group and an alert; spec.renewTime tells people and metrics how long it is silent. Only a Node that is gone from
// the API frees its slot without its agent ([Slots.FreeGone]), on the version read before the Node was looked for.
package lock
