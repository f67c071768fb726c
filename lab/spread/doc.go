// Package spread counts how often a rollout over all nodes evicts a pod: with the taint that keeps new pods off the nodes that
// wait for their own reboot, and without it, on the same cluster. The evictions are those of the API server's audit log.
//
// Each pod has to go at least once from its own node; the ideal is a little more than that, as the pods of the first nodes
// have only nodes to go to whose turn is still to come.
package spread
