// Package spread counts how often a rollout over all nodes evicts a pod: with the taint that keeps new pods off the nodes that
// wait for their own reboot, and without it, on the same cluster. The evictions are those of the API server's audit log, of the
// pods of one controller.
//
// Whether the taint works is not seen by that number: without it the scheduler spreads such pods well, too. So there are picky
// pods besides, which prefer the nodes that go last, and it is judged, by what was seen of Nodes and pods, that each waiting node
// had the taint all the time, and that no pod went to a waiting node while there was one that had come home. A scheduler is given
// a second to know. Without the taint that has to happen, and to cost evictions of picky pods.
//
// Each pod has to go at least once from its own node; the ideal is a little more than that, as the pods of the first nodes
// have only nodes to go to whose turn is still to come.
package spread
