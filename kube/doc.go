// Package kube is how Baton talks to the API server: one place that builds the client and one way to watch.
//
// # Guarantees
//
//   - A dead connection is noticed within [DeadConnection], not after client-go's default of 45 s.
//   - Requests are not throttled by the client: the few that an agent sends must not wait behind each other. The API
//     server's priority and fairness protects the cluster.
//   - [Watch] resumes from the last resourceVersion, lists again when that one is too old, waits with a growing,
//     jittered delay while the API server is away, and ends only with its context.
//
// # Not guaranteed
//
//   - What a watch shows may be old. Every write that is decided on it must carry the object's resourceVersion.
package kube
