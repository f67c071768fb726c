// Package fleet runs the agents of a large cluster in one process, against a real API server, and measures what a rollout
// of reboots takes and what it costs.
//
// Real are etcd, the API server with its default priority and fairness, RBAC and policies of deploy/base, and the agents:
// the code of package wire, each with client, connections and a token of its own, bound to its pod and its Node as a kubelet
// gets it. Beside them stands one agent that is the shipped program. It has no bus, so it never bids, but it stands for
// election first: it is the marshal of the rollout, and its memory and CPU time are those of a process.
//
// Simulated are the hosts, the kubelets and the pods. A drain takes as long as the node's pods take to end, a boot as long
// as was drawn for the node; both are drawn once, from a seed. Nodes have the size of real ones, with 50 images, and renew
// their Leases every 10 s and their status every 5 min. What that costs is measured before the first agent starts. The
// clock is real.
//
// # Guarantees
//
//   - Requests are counted by the API server, in its audit log, and told apart by the caller's Node.
//   - The limit is checked at each event of a watch of the Nodes, by a judge that shares no code with the agents: a node is
//     down while it is cordoned or its host is off.
//   - A seed fixes the durations and who never comes back. It does not fix the order of events.
//
// # Not guaranteed
//
//   - What other controllers would cost: there is no scheduler, no controller manager, and no watch by a kubelet.
//   - That the machine is fast enough. All of it shares the processors of one machine; the report says how busy they were.
package fleet
