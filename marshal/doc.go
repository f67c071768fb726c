// Package marshal says which node may go next. Every agent carries one; at most one of them, elected on the Lease
// `marshal`, is at work, and only while some node waits for something.
//
// It is made of three parts. [Elector] decides who is at work. The runner watches Nodes and slots, and writes. What it
// writes is decided by pure functions over a [View], which is put in order first: what becomes of the slots ([Housekeep]), which of
// them are to be freed ([Gone]), who is invited and why the others wait, what is to be remembered of canaries and of those that are
// away, and who leads next.
//
// The marshal orders, it does not permit: a nomination is an invitation to take one slot, by compare-and-swap, for one
// bid, until a stated time. The permission to take a node down is the slot, and it is the agent that takes it.
//
// # Guarantees
//
//   - In a group of limit N, nominations are made only while held and nominated slots are fewer than N, and a node that
//     is not yet unavailable is nominated only while fewer than N nodes of its group are. Unavailable are the nodes
//     that are not Ready, are cordoned by anybody, hold a slot, are nominated, or have an active record; each counts once.
//   - In a group with a topology key the nodes on their way are of one zone; with canaries no more nodes than those try a wish
//     that was not tried; a group goes only when nobody of those that it comes after is on the way. As far as this marshal sees.
//   - A slot is never freed because of time. It is freed for a holder whose Node is gone: this marshal has seen it so
//     for the whole grace period, then reads the Lease, then the Node by quorum read, and frees by compare-and-swap on
//     that Lease. A Node registered again under the same name frees it only with another boot ID; on the same boot the slot
//     is left to its own agent, which alone knows whether its host is going down.
//   - After the API server was restored from a backup, which the Lease `marshal` shows to every agent that has read it, and its
//     own Node to every agent that ran ([Marshal.Restored]), nobody is nominated until nodes that have gone down since must show
//     as NotReady.
//   - Only empty slots are deleted; a nomination is cleared and a hold is set on the version of the Lease that was
//     looked at, or not at all.
//   - An agent that is not asked to stand sends nothing. One that stands while another marshal lives reads one Lease a
//     minute, jittered; where more than ten stand each does it less often, down to once in five minutes, but one of them every 6 s.
//     How many they are the marshal says on its Lease. That is looked up at each look, and a word that is missing means one minute.
//   - When [Marshal.Resign] returns without an error this agent has stopped ordering and the Lease is released.
//
// # Not guaranteed
//
//   - That a dead marshal is missed soon by the few who are left of many: each learns that it is one of few at its next look,
//     five minutes after the last on average.
//   - That there is one marshal. Leader election has no fencing: two may be at work for some seconds. The slots bound
//     the nodes down even then; what can suffer is the order, or a nomination that is made twice and expires once.
//   - That slots alone bound a group while it is renamed: those of the old name and of the new one are other Leases. A marshal counts
//     both; two that are at work at once, each by an old view, may nominate for both.
//   - That an agent that started after a restore to a backup of less than 15 s ago knows who went down in between: a kubelet is
//     silent only after that.
//   - That a restore is noticed by an agent that started after it; or by one whose own Node has not changed since the backup,
//     in the few seconds until its watch is back.
//   - That a nominated node goes: its agent may be dead, or one of its gates shut. Its nomination expires, and its bids
//     are passed over for a time that grows with each miss. That memory is lost with the marshal: its successor begins anew.
//     Since when nodes are away stands on the Lease, as of its last renewal.
//   - That the views are fresh. Every write carries the resourceVersion it was decided on; a refused write is decided
//     again.
package marshal
