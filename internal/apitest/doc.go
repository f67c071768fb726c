// Package apitest gives the tests of a package a real Kubernetes API server: one etcd and one kube-apiserver, started
// once from TestMain and stopped after the last test.
//
//	var api *rest.Config
//
//	func TestMain(m *testing.M) { os.Exit(run(m)) }
//
//	func run(m *testing.M) int {
//		cfg, stop, err := apitest.Start()
//		if err != nil {
//			fmt.Fprintln(os.Stderr, err)
//			return 1
//		}
//		defer stop()
//		api = cfg
//		return m.Run()
//	}
//
// # Guarantees
//
//   - The returned configuration is an administrator's (group system:masters) with a client limit high enough never to
//     be noticed.
//   - Requests are authorized by Node and RBAC and admitted with NodeRestriction, as in a cluster of its users: a token
//     of a ServiceAccount may do what RBAC grants it and nothing else, a node identity what the node authorizer grants.
//   - A [Server] that is down and up again has kept its data, its address and its certificates: its clients see what they
//     would see of a control plane of one machine that was restarted.
//   - Nothing is ever skipped: without the two binaries Start returns an error that says how to get them.
//
// # Not guaranteed
//
//   - There are no controllers, no scheduler and no kubelet: a Pod bound to a Node stays Pending, a namespace is never
//     emptied, no ServiceAccount `default` appears (and the admission plugin that would ask for it is off).
//   - The two processes outlive a test binary that is killed without a chance to call stop.
package apitest
