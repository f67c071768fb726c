// Package kube is how Baton talks to the API server: one place that builds the client and one way to watch.
//
// # Guarantees
//
//   - A dead connection is noticed within [DeadConnection], not after client-go's default of 45 s.
//   - Requests are not throttled by the client: the few that an agent sends must not wait behind each other. The API
//     server's priority and fairness protects the cluster.
//   - [Watch] resumes from the last resourceVersion when its time was over, lists again when it was cut or when that version
//     is too old, waits with a growing, jittered delay while the API server is away, and ends only with its context. An API
//     server that was restored from a backup is noticed, although its versions lie in the past, and [ErrRestored] is told.
//
// # Not guaranteed
//
//   - What a watch shows may be old. Every write that is decided on it must carry the object's resourceVersion.
package kube
