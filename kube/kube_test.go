package kube

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"kubebaton.io/baton/internal/apitest"
)

func TestClock(t *testing.T) {
	for _, off := range []time.Duration{-3 * time.Hour, 0, 90 * time.Second} {
		t.Run(fmt.Sprintf("an API server whose clock is %s away is noticed", off), func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Date", time.Now().Add(off).UTC().Format(http.TimeFormat))
			}))
			defer server.Close()
			clock := &Clock{}
			if clock.Skew() != 0 {
				t.Error("a clock that has seen nothing has an opinion")
			}
			cfg := &rest.Config{Host: server.URL}
			clock.Observe(cfg)
			c, err := rest.HTTPClientFor(cfg)
			if err != nil {
				t.Fatal(err)
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if d := clock.Skew() + off; d.Abs() > 2*time.Second {
				t.Errorf("skew %s, want %s", clock.Skew(), -off)
			}
		})
	}
}

// An agent that speaks for its node, too, has one connection to the API server.
func TestSharedClientsHaveOneConnection(t *testing.T) {
	var connections atomic.Int32
	var users sync.Map
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		users.Store(r.Header.Get("Authorization")+" as "+r.Header.Get("Impersonate-User"), r.Proto)
	}))
	server.EnableHTTP2 = true
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.StartTLS()
	defer server.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	cfg := &rest.Config{Host: server.URL, BearerToken: "secret", TLSClientConfig: rest.TLSClientConfig{CAData: ca}}
	if err := Tune(cfg, "test"); err != nil {
		t.Fatal(err)
	}
	shared, err := Shared(cfg)
	if err != nil {
		t.Fatal(err)
	}
	bare := rest.CopyConfig(cfg)
	bare.Host = server.Listener.Addr().String()
	if s, err := Shared(bare); err != nil || s.Host != "https://"+bare.Host {
		t.Errorf("a server without a scheme becomes %q, %v", s.Host, err)
	}
	node := rest.CopyConfig(shared)
	node.Impersonate.UserName = "system:node:n1"
	for _, c := range []*rest.Config{shared, node, shared} {
		client, err := Client(c)
		if err != nil {
			t.Fatal(err)
		}
		_ = client.CoreV1().RESTClient().Get().AbsPath("/x").Do(t.Context()).Error()
	}
	for _, user := range []string{"Bearer secret as ", "Bearer secret as system:node:n1"} {
		if proto, ok := users.Load(user); !ok || proto != "HTTP/2.0" {
			t.Errorf("%q came by %v", user, proto)
		}
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestDialGivesUpWithItsContextAndAtOnceWhenRefused(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := dial(ctx, "tcp", "127.0.0.1:1"); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context ends with %v", err)
	}
	if _, err := dial(t.Context(), "tcp", "127.0.0.1:1"); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a refused connection ends with %v", err)
	}
}

// someConfigMaps are those of a real API server of the test's own.
func someConfigMaps(t *testing.T) typedcorev1.ConfigMapInterface {
	t.Helper()
	cfg, stop, err := apitest.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return client.CoreV1().ConfigMaps("default")
}

// The watch against a real API server, through cuts, refusals, and versions that are too old.
func TestWatch(t *testing.T) {
	configMaps := someConfigMaps(t)
	var mu sync.Mutex
	var open watch.Interface
	fail, opened, lists, resumed := 0, 0, 0, 0
	watching := func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
		mu.Lock()
		defer mu.Unlock()
		if o.TimeoutSeconds == nil || *o.TimeoutSeconds < int64(WatchTimeout.Seconds()) {
			t.Errorf("a watch asks for %v seconds", o.TimeoutSeconds)
		}
		if fail > 0 {
			fail--
			return nil, errors.New("refused by the test")
		}
		if o.SendInitialEvents != nil && *o.SendInitialEvents {
			lists++
		} else if open != nil {
			resumed++
		}
		w, err := configMaps.Watch(ctx, o)
		open, opened = w, opened+1
		return w, err
	}
	states := make(chan []string, 100)
	errs := make(chan error, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Watch(ctx, configMaps.List, watching, Selection{Labels: "of=test"}, &corev1.ConfigMap{},
			func(m map[string]*corev1.ConfigMap) { states <- slices.Sorted(maps.Keys(m)) },
			func(err error) { errs <- err })
	}()
	await := func(what string, want ...string) {
		t.Helper()
		for deadline := time.After(20 * time.Second); ; {
			select {
			case got := <-states:
				if slices.Equal(got, want) {
					return
				}
			case <-deadline:
				t.Fatalf("%s: never shown as %v", what, want)
			}
		}
	}
	create := func(name, label string) {
		t.Helper()
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"of": label}}}
		if _, err := configMaps.Create(t.Context(), m, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	await("nothing, at the start")
	create("other", "others")
	create("a", "test")
	await("one that is selected", "default/a")
	mu.Lock()
	fail = 2
	open.Stop() // as when the API server ends it
	mu.Unlock()
	create("b", "test")
	await("one that came while the watch was cut", "default/a", "default/b")
	if err := configMaps.Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	await("a deletion", "default/b")
	if len(errs) < 2 {
		t.Errorf("%d errors were told, want the two refusals", len(errs))
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the watch ends with %v", err)
	}
	if opened < 2 || lists < 2 || resumed > 0 {
		t.Errorf("%d watches were opened, %d of them after a list, %d were resumed; a cut one is not resumed", opened, lists, resumed)
	}
}

// What an API server without streamed lists has in its cache may be older than the watch; to read its store instead is dear.
func TestWatchBeginsWithAQuorumReadWhereItIsWanted(t *testing.T) {
	configMaps := someConfigMaps(t)
	var asked []string
	list := func(ctx context.Context, o metav1.ListOptions) (*corev1.ConfigMapList, error) {
		asked = append(asked, o.ResourceVersion)
		return configMaps.List(ctx, o)
	}
	watching := func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
		if o.SendInitialEvents != nil {
			return nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("ListOptions").GroupKind(), "", nil)
		}
		return configMaps.Watch(ctx, o)
	}
	for _, quorum := range []bool{true, false} {
		ctx, cancel := context.WithCancel(t.Context())
		_ = Watch(ctx, list, watching, Selection{Quorum: quorum}, &corev1.ConfigMap{}, func(map[string]*corev1.ConfigMap) { cancel() }, func(err error) { t.Log(err) })
		cancel()
	}
	if !slices.Equal(asked, []string{"", "0"}) {
		t.Errorf("lists at %q, want one at no version, and one at any", asked)
	}
}

// An API server that is restored from a backup counts versions anew from where it was.
func TestWatchTellsOfARestore(t *testing.T) {
	s, err := apitest.Run()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	client, err := kubernetes.NewForConfig(s.Config)
	if err != nil {
		t.Fatal(err)
	}
	again := func(meanwhile func() error) {
		t.Helper()
		s.Down()
		if err := errors.Join(meanwhile(), s.Up()); err != nil {
			t.Fatal(err)
		}
	}
	again(s.Save)
	configMaps := client.CoreV1().ConfigMaps("default")
	states, restored := make(chan []string, 100), make(chan struct{}, 100)
	go func() {
		_ = Watch(t.Context(), configMaps.List, configMaps.Watch, Selection{Labels: "of=test"}, &corev1.ConfigMap{},
			func(m map[string]*corev1.ConfigMap) { states <- slices.Sorted(maps.Keys(m)) },
			func(err error) {
				if errors.Is(err, ErrRestored) {
					restored <- struct{}{}
				}
			})
	}()
	await := func(what string, want ...string) {
		t.Helper()
		for deadline := time.After(time.Minute); ; {
			select {
			case got := <-states:
				if slices.Equal(got, want) {
					return
				}
			case <-deadline:
				t.Fatalf("%s: never shown as %v", what, want)
			}
		}
	}
	await("nothing, at the start")
	again(func() error { return nil })
	for i := range 200 { // more than a server writes by itself while it starts
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "m", Labels: map[string]string{"of": "test", "i": strconv.Itoa(i)}}}
		if _, err := configMaps.Create(t.Context(), m, metav1.CreateOptions{}); apierrors.IsAlreadyExists(err) {
			_, err = configMaps.Update(t.Context(), m, metav1.UpdateOptions{})
			if err != nil {
				t.Fatal(err)
			}
		} else if err != nil {
			t.Fatal(err)
		}
	}
	await("what came after the backup", "default/m")
	select {
	case <-restored:
		t.Error("a server that is back on the same data is taken for one that was restored")
	default:
	}
	again(s.Restore)
	await("what the backup knows")
	select {
	case <-restored:
	default:
		t.Error("what the backup knows is shown, and nobody is told that it is one")
	}
}
