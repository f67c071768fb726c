// Package observe watches from outside what a rollout of reboots does to a cluster, and judges it: which nodes were down when,
// in which phase, who held which slot, what the agents cost; on demand also whose pods went where.
//
// "Down" is: unschedulable by Baton, until the boot ID is new and the node is Ready and schedulable again.
//
// Guarantees:
//   - Every version of every Node and slot since Start is seen, however short it lived, and stamped with the time of its
//     arrival here. A watch that loses a version is itself reported as a violation.
//   - Judgements rest on the order in which the writes took effect (the resourceVersion is one counter for all objects of a
//     cluster), not on the order in which two watches happened to deliver them.
//   - Waits are driven by the watch. A state that was there and is gone again is found by a wait that started before it.
//
// Not guaranteed:
//   - What the API does not tell is not seen: whether a machine is on is said by the lab's power log, see BothOff.
//   - Clusters older than Kubernetes 1.35 do not promise that resourceVersions compare, though they all do with etcd.
package observe
