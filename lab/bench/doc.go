// Package bench measures Baton on real nodes of the lab: how fast a slot goes from one node to the next, how fast a sentinel is
// noticed, what an idle agent asks of the API server, how much memory it holds, how large it is.
//
// Every figure stands beside its goal, what the peer takes, and a yardstick measured by this program at the same time on the
// same machine: what the bare API needs for the least that any program would have to do. It says how busy the machine was.
//
// Guarantees:
//   - Nothing is measured by the agent itself: times come from watches of this program's own and from when it wrote a file,
//     requests from the API server's audit log, memory from the kernel.
//   - A goal that was not measured is a goal missed; the one exception, an idle time too short to judge, is said.
//   - A rollout in which a node was lost, or more than one was down, is a failed run.
//
// Not guaranteed:
//   - The nodes, the API server and this program share one machine's processors: on a busy one every time is longer.
package bench
