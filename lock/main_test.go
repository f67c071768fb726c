package lock

import (
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"kubebaton.io/baton/internal/apitest"
	"kubebaton.io/baton/kube"
)

// server is started by the first test that needs it: the workers of a fuzz run need none.
var server struct {
	once sync.Once
	cfg  *rest.Config
	stop func()
	err  error
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	server.stop = func() {}
	defer func() { server.stop() }()
	return m.Run()
}

// clientset talks to the real API server through wrap, which may be nil.
func clientset(t testing.TB, wrap func(http.RoundTripper) http.RoundTripper) kube.Interface {
	t.Helper()
	server.once.Do(func() { server.cfg, server.stop, server.err = apitest.Start() })
	if server.err != nil {
		t.Fatal(server.err)
	}
	cfg := rest.CopyConfig(server.cfg)
	cfg.QPS = -1
	if wrap != nil {
		cfg.Wrap(wrap)
	}
	c, err := kube.Client(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func namespace(t testing.TB, c kube.Interface) string {
	t.Helper()
	ns, err := c.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "slots-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return ns.Name
}

func open(t testing.TB, c kube.Interface, ns, node string) *Slots {
	t.Helper()
	s, err := New(Config{Clientset: c, Namespace: ns, Node: node})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// world is one namespace with the slot slot-workers-0, node a (its UID is uid-a) and the marshal.
type world struct {
	t       testing.TB
	c       kube.Interface
	ns      string
	a       *Slots
	marshal *Slots
}

const slot0 = "slot-workers-0"

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, c: clientset(t, nil)}
	w.ns = namespace(t, w.c)
	w.a, w.marshal = open(t, w.c, w.ns, "a"), open(t, w.c, w.ns, "m")
	if err := w.marshal.Create(t.Context(), "workers", 0); err != nil {
		t.Fatal(err)
	}
	return w
}

func claim(instance string) Claim {
	return Claim{Cycle: "c1", Attempt: 1, BootID: "boot-1", Instance: instance}
}

func (w *world) get(name string) Slot {
	w.t.Helper()
	return must(w.marshal.Get(w.t.Context(), name))(w.t)
}

func (w *world) lease(name string) *coordinationv1.Lease {
	w.t.Helper()
	return must(w.c.CoordinationV1().Leases(w.ns).Get(w.t.Context(), name, metav1.GetOptions{}))(w.t)
}

func (w *world) nominated(name string) Slot {
	w.t.Helper()
	return must(w.marshal.Nominate(w.t.Context(), w.get(name), "uid-a", "a", "c1", 1, time.Now().Add(time.Minute)))(w.t)
}

func (w *world) held(name string) Slot {
	w.t.Helper()
	return must(w.a.Take(w.t.Context(), w.nominated(name), "uid-a", claim("i1")))(w.t)
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
