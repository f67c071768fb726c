// Package badline is a bad line between one client and an API server: a proxy that does to requests what networks, load
// balancers and dying processes do to them, when a test says so.
//
//	line, err := badline.Open(ctx, api)
//	defer line.Close()
//	client := kubernetes.NewForConfig(line.Config())
//	line.Rule(func(r *badline.Request) badline.Fate {
//		if r.Method == http.MethodPatch {
//			return badline.Lose(badline.Reset) // it takes hold, and its sender is not told
//		}
//		return badline.Pass()
//	})
//
// A [Rule] is asked for the [Fate] of every request. [Catch] makes a rule that holds one request until the test has done
// what it wants to come between.
//
// What happens to the whole line is no rule: [Line.BlackHole], [Line.Sever], [Line.Refuse] and [Line.Heal]; [Line.Freeze],
// [Line.Thaw] and [Line.Cut] for open watches; [Line.ShiftDate] for the server's clock. Everything may be changed at any time.
//
// # Guarantees
//
//   - TLS and HTTP/2 on both sides, by net/http and httputil: nothing of HTTP is parsed here. What is not meant to happen
//     to a request does not: it is passed on with its body, query and headers as they are, and so is its answer. Every
//     piece of a watch is passed on when it comes.
//   - A request that is held or late arrives when its time has come, whether or not its sender still waits, or lives.
//   - In a black hole nothing is lost and nothing gets through: no byte, no FIN, no RST, either way. TCP itself goes on to
//     acknowledge, as a network that drops packets lets the kernel believe for a while. After Heal what waited goes on.
//   - A frozen watch is held back, not emptied: after Thaw everything comes, in order.
//   - [Line.GivenUp] tells when the client closed each connection that was severed.
//   - [Line.Requests] lists every request in the order in which they came in, with what became of them.
//   - [Line.Close] returns when nothing is under way any more; what was late then never arrives.
//
// # Not guaranteed
//
//   - The client acts with the credentials of the configuration given to Open, because its own certificate ends at the
//     proxy. It needs none.
//   - A connection is accepted before it is refused: the client sees a reset, not ECONNREFUSED. In a black hole it is
//     accepted too, and its TLS handshake hangs.
//   - Requests that switch protocols (exec, port-forward) are not for this line.
package badline
