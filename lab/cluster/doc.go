// Package cluster runs a real Kubernetes cluster on one machine: the control plane as processes in a network namespace, every
// node as a systemd-nspawn machine with a systemd, logind, D-Bus, boot ID, containerd and kubelet of its own.
//
// The processes belong to the cluster, not to the program that started it: a program may end and another one Open the cluster.
//
// Guarantees:
//   - All traffic stays in the cluster's network namespace. Nothing listens on the host.
//   - Everything that a cluster owns can be found by its name: processes by an environment variable, control groups, mounts,
//     the network namespace and the directory by their path. Stop, and the next Start, remove all of it, also after SIGKILL.
//   - The power log says when a node's machine was switched on and off, and by what, independently of Kubernetes.
//   - Two clusters of different names do not touch each other.
//
// Not guaranteed:
//   - There is no cluster DNS and no image registry. Images are loaded into the nodes.
//   - etcd does not sync to disk: a crash of the host loses the cluster.
package cluster
