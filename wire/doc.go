// Package wire makes an agent of its parts. The packages of Baton do not know each other: each says in small interfaces
// what it needs, in types of its own, and what one calls a Slot is another type in the next, of the same fields. Here,
// and only here, they meet. A field that one of them lacks does not compile.
//
// The program baton-agent adds flags, a configuration file that it watches, HTTP and signals. The lab's fleet runs a
// thousand agents in one process, so that what it measures is what is shipped.
//
// The seams, and what fills them:
//
//   - [agent.NodeStore]: [node.Client], the own Node
//   - [agent.SlotStore] and [marshal.Slots]: [lock.Slots], as the agent and as the marshal use them
//   - [agent.Host]: a [Host], which is a [host.Host]; the sentinels are those of the configuration in force
//   - [agent.Hooks]: [Hooks], which is a [host.Host] too
//   - [agent.Pods]: [node.Drainer], with the identity of the own node where that is admitted
//   - [agent.Marshal]: [marshal.Marshal]
//   - [agent.Home]: the agent's namespace
//   - [agent.Schedule]: [window.Schedule]
//   - [agent.Clock]: [kube.Clock], which reads the Date of each reply
//
// # Guarantees
//
//   - What an error of an API write means to the cycle is decided in one place: refused, a conflict, gone, or unknown.
//   - A configuration is put in force as a whole or not at all, for the cycle, the marshal, the drain and the sentinels.
//   - There is no state outside of an [Agent]: any number of them run in one process, each with connections of its own.
//
// # Not guaranteed
//
//   - That two agents in one process know of each other. Two of them for one host exclude each other only as its
//     [Host] does.
package wire
