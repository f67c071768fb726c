// Package bustest gives tests a host's system bus: a real dbus-daemon of their own, at the place where the host below a
// directory has it, and services on it that say what a script tells them to.
//
//	bus := bustest.Start(t, root)
//	login := bustest.Login()
//	login.Properties["PreparingForShutdown"] = true
//	bus.Serve(t, bustest.Login1, login)
//	bus.Serve(t, bustest.Systemd1, bustest.Systemd())
//
// # Guarantees
//
//   - The daemon is the real one. Names, errors and the shapes of replies go over a socket as on a host; a call for a name
//     that nobody serves gets the daemon's own error.
//   - [Login] is a logind and [Systemd] a systemd with nothing going on, as far as package host asks them. A test changes
//     what it is about.
//   - [Units] is a systemd that takes transient units and tells of them. A script says how they end; nothing is run.
//   - [Bus.Stop] is sudden: no connection is closed in an orderly way. [Bus.Run] starts the daemon again on the same socket.
//   - Nothing is left when the test ends.
//
// # Not guaranteed
//
//   - There is no policy: everybody may own every name and call every method.
//   - A Service sends no signals and has no introspection.
package bustest
