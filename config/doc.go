// Package config is Baton's configuration: one strict YAML file, its types, defaults,
// bounds and documentation, and a watch that takes up a new one without a restart.
//
// The file is usually the key of a ConfigMap that is mounted as a directory (never by
// subPath, which kubelet does not update). Everything has a default; a file with only
// apiVersion and kind is valid.
//
// # Guarantees
//
//   - A Config that Parse returns is complete: defaults filled in, every value within its
//     bounds, groups carrying the top level's settings where they have none of their own.
//   - Parse names every fault at once, each with its field path, the value and the fix.
//     Unknown fields (case counts), duplicate fields and a second document are faults.
//   - Written out and parsed again, a Config is the same.
//   - Watch never passes the same content twice in a row, and never a Config with a fault.
//
// # Not guaranteed
//
//   - That all agents see a change at the same time: kubelets update mounted ConfigMaps
//     within a minute or two of each other. Whoever compares groups across nodes does it
//     in one place.
//   - That a host path is visible to the agent: that is the DaemonSet's to mount.
package config
