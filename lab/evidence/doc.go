// Package evidence keeps what is needed to see, later and elsewhere, why something went wrong in a cluster of the lab: how
// Nodes and slots changed and in which order, when machines were on, evictions, Events, objects and the agents' logs.
//
// Guarantees:
//   - What can be had is written, and what could not be had is said in its place.
//   - Logs keeps what an agent wrote when its pod is gone, or its node, or its node's power.
//
// Not guaranteed:
//   - Logs misses a file that came and went between two calls of Keep.
package evidence
