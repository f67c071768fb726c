// Package drains measures Baton's drain beside `k8s.io/kubectl/pkg/drain`, the library behind `kubectl drain`, on a real node
// of the lab: how long each takes for the same pods, what each asks of the API server, and what each does when a disruption
// budget or an admission webhook holds it up.
//
// # Guarantees
//
//   - Both tools drain the same node of the same cluster, in the same run and in alternating order, with the same rest.Config
//     and the same identity: the administrator's, whom the API server lets pass without a queue. Only the User-Agent differs,
//     by which the audit log tells them apart.
//   - A drain is timed from the call to its return. What is compared is the time above the slowest pod's own end: from when
//     its deletionTimestamp was set to when it was gone, as a watch of this program shows them.
//   - Requests are those of the API server's audit log, from the call to the return.
//   - A drain that leaves a pod is a failed run, and a goal that was not measured is a goal missed.
//
// # Not guaranteed
//
//   - The node, the API server and this program share one machine's processors. So that the pods that start in place of the
//     drained ones do not take time from the drain, as they would not on a node of their own, they are Pending until it is over.
//   - The tools are called as libraries, inside this program: what a kubectl takes to start is not counted, nor what an agent
//     does before and after a drain.
package drains
