package node

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// TestPreflightAndDrain: what a drain reads of the pods when a preflight came before.
func TestPreflightAndDrain(t *testing.T) {
	look := func(t *testing.T, d *Drainer) {
		t.Helper()
		if o, err := d.Look(t.Context(), DrainSettings{}, true); err != nil || o.Reason != "" {
			t.Fatalf("%+v, %v", o, err)
		}
	}
	reads := func(t *testing.T, s *scene, watches, lists int) {
		t.Helper()
		if w, l := s.requests.count("WATCH /api/v1/pods"), s.requests.count("GET /api/v1/pods"); w != watches || l != lists {
			t.Errorf("%d watches and %d lists, want %d and %d: %v", w, l, watches, lists, s.requests.calls)
		}
	}
	t.Run("one watch, and no list, in all", func(t *testing.T) {
		s := newScene(t)
		s.pod("web-0")
		d := s.drainer(s.clientset)
		look(t, d)
		if _, err := s.drain(d, time.Minute, DrainSettings{}, nil); err != nil {
			t.Fatal(err)
		}
		reads(t, s, 1, 0)
	})
	t.Run("a pod that comes in between, and blocks, is seen", func(t *testing.T) {
		s := newScene(t)
		s.pod("web-0")
		d := s.drainer(s.clientset)
		look(t, d)
		s.pod("green", func(p *corev1.Pod) { p.OwnerReferences = nil })
		views, err := s.drain(d, 3*time.Second, DrainSettings{Wait: time.Second}, nil)
		if !errors.Is(err, context.DeadlineExceeded) || views[len(views)-1].Reason != ReasonUnmanagedPod || len(s.podNames()) != 2 {
			t.Errorf("%v, %+v, left are %v", err, views, s.podNames())
		}
		reads(t, s, 1, 0)
	})
	t.Run("each further drain has a watch of its own", func(t *testing.T) {
		s := newScene(t)
		d := s.drainer(s.clientset)
		for n := range 3 {
			s.pod("web-0") // before it is looked at: a drain that sees nothing asks whether that is so
			if n == 0 {
				look(t, d)
			}
			if _, err := s.drain(d, time.Minute, DrainSettings{}, nil); err != nil {
				t.Fatal(err)
			}
			reads(t, s, n+1, 0)
		}
	})
	t.Run("a watch that the API server leaves without an answer is not waited for beyond the caller's time", func(t *testing.T) {
		s := newScene(t)
		p, cfg := newProxy(t)
		s.clientset, s.requests = connect(t, cfg)
		p.answer(func(_ http.ResponseWriter, r *http.Request) bool {
			watches := r.URL.Query().Get("watch") != ""
			if watches {
				<-r.Context().Done()
			}
			return watches
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		if _, err := s.drainer(s.clientset).Look(ctx, DrainSettings{}, true); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > preflightTime {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
	})
}

// screen is what the API server shows of the pods, in virtual time: a list always nothing, each watch what was made for it.
type screen struct {
	*fake.Clientset
	watches []*watch.FakeWatcher
	opened  int
	refuses error // every watch
}

// newScreen makes one watch for each pod, that shows it.
func newScreen(pods ...*corev1.Pod) *screen {
	s := &screen{Clientset: fake.NewClientset()}
	for _, p := range pods {
		p.ResourceVersion = "1"
		w := watch.NewFakeWithChanSize(10, false)
		w.Add(p)
		end := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "1", Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"}}}
		w.Action(watch.Bookmark, end)
		s.watches = append(s.watches, w)
	}
	s.PrependWatchReactor("pods", func(clienttesting.Action) (bool, watch.Interface, error) {
		if s.opened++; s.refuses != nil {
			return true, nil, s.refuses
		}
		return true, s.watches[s.opened-1], nil
	})
	return s
}

func (s *screen) drainer(t *testing.T) *Drainer {
	t.Helper()
	d, err := NewDrainer(DrainerConfig{Clientset: s, Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// stopped tells which of the watches are.
func (s *screen) stopped() string {
	synctest.Wait()
	var is []string
	for _, w := range s.watches {
		is = append(is, map[bool]string{true: "stopped", false: "open"}[w.IsStopped()])
	}
	return strings.Join(is, " ")
}

// TestKept: a watch that is kept for a drain. When the bubble of a test ends, so has all that it began.
func TestKept(t *testing.T) {
	awaited := func() *corev1.Pod { return web(says(DoWait)) }
	run := func(t *testing.T, name string, pods []*corev1.Pod, f func(*testing.T, *screen, *Drainer, context.Context)) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScreen(pods...)
				d := s.drainer(t)
				ctx, cancel := context.WithCancel(t.Context())
				if _, err := d.Look(ctx, DrainSettings{}, true); err != nil {
					t.Fatal(err)
				}
				cancel() // what is kept outlives the look
				f(t, s, d, t.Context())
			})
		})
	}
	want := func(t *testing.T, s *screen, stopped string) {
		t.Helper()
		if diff := cmp.Diff(stopped, s.stopped()); diff != "" {
			t.Error(diff)
		}
	}
	// ends runs a drain that sees the pod of the watch with that number end, later.
	ends := func(t *testing.T, s *screen, d *Drainer, n int, later time.Duration) {
		t.Helper()
		time.AfterFunc(later, func() { s.watches[n].Delete(awaited()) })
		begun := time.Now()
		if err := d.Run(t.Context(), DrainSettings{Timeout: later + time.Minute}, func(DrainView) {}); err != nil || time.Since(begun) < later {
			t.Errorf("it ended after %v: %v", time.Since(begun), err)
		}
		if s.opened != n+1 {
			t.Errorf("%d watches were opened", s.opened)
		}
	}
	run(t, "it ends by itself when no drain comes, and one that comes then has its own", []*corev1.Pod{awaited(), awaited()}, func(t *testing.T, s *screen, d *Drainer, _ context.Context) {
		<-time.After(keptFor - time.Second)
		want(t, s, "open open")
		<-time.After(time.Second)
		want(t, s, "stopped open")
		ends(t, s, d, 1, time.Second)
	})
	run(t, "a drain that has taken it over has it for as long as it likes, and ends it", []*corev1.Pod{awaited()}, func(t *testing.T, s *screen, d *Drainer, _ context.Context) {
		<-time.After(keptFor / 2)
		ends(t, s, d, 0, time.Hour)
		want(t, s, "stopped")
	})
	run(t, "at the first error it ends, and the drain has its own", []*corev1.Pod{awaited(), awaited(), awaited()}, func(t *testing.T, s *screen, d *Drainer, _ context.Context) {
		s.refuses = errors.New("away")
		s.watches[0].Stop()
		<-time.After(10 * time.Second)
		synctest.Wait()
		opened := s.opened
		if s.refuses = nil; opened != 2 {
			t.Errorf("a watch that nobody needs was opened %d times", opened)
		}
		ends(t, s, d, opened, time.Second)
	})
	run(t, "a second preflight does not go by it: it may lag", []*corev1.Pod{awaited(), pod("green")}, func(t *testing.T, s *screen, d *Drainer, ctx context.Context) {
		if o, err := d.Look(ctx, DrainSettings{}, true); err != nil || o.Reason != ReasonUnmanagedPod {
			t.Errorf("%+v, %v", o, err)
		}
		want(t, s, "stopped open")
		<-time.After(keptFor)
		want(t, s, "stopped stopped")
	})
	run(t, "a look that is no preflight leaves it alone", []*corev1.Pod{awaited()}, func(t *testing.T, s *screen, d *Drainer, ctx context.Context) {
		if _, err := d.Look(ctx, DrainSettings{}, false); err != nil {
			t.Error(err)
		}
		want(t, s, "open")
		ends(t, s, d, 0, time.Second)
	})
}

// TestPreflightByABrokenWatch: what it shows after all is not from a cache that may lag.
func TestPreflightByABrokenWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScreen()
		s.watches = []*watch.FakeWatcher{watch.NewFake(), watch.NewFake()}
		s.watches[0].Stop() // before it has shown all
		var versions []string
		s.PrependReactor("list", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
			if l, ok := a.(clienttesting.ListActionImpl); ok {
				versions = append(versions, l.ListOptions.ResourceVersion)
			}
			return false, nil, nil
		})
		if _, err := s.drainer(t).Look(t.Context(), DrainSettings{}, true); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{""}, versions); diff != "" { // 0 is that of any cache
			t.Error(diff)
		}
		<-time.After(keptFor)
	})
}

// TestPreflightWithoutAWatch: then it says what a list says, and keeps nothing.
func TestPreflightWithoutAWatch(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	forbidden := apierrors.NewForbidden(pods, "", errors.New("no"))
	for name, tc := range map[string]struct {
		watch, list error // nil: it is silent; it shows nothing
		within      time.Duration
	}{
		"one that is not permitted":               {watch: forbidden},
		"the pods may not be read":                {watch: forbidden, list: forbidden},
		"one that the API server has no room for": {watch: apierrors.NewTooManyRequests("later", 1)},
		"one that it does not know":               {watch: apierrors.NewInvalid(schema.GroupKind{}, "", nil)},
		"the API server is in trouble":            {watch: apierrors.NewInternalError(errors.New("etcd")), list: apierrors.NewInternalError(errors.New("etcd"))},
		"one that shows nothing":                  {within: preflightTime},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScreen()
				s.refuses, s.watches = tc.watch, []*watch.FakeWatcher{watch.NewFake()}
				s.PrependReactor("list", "pods", func(clienttesting.Action) (bool, runtime.Object, error) { return tc.list != nil, nil, tc.list })
				d, begun := s.drainer(t), time.Now()
				if _, err := d.Look(t.Context(), DrainSettings{}, true); !errors.Is(err, tc.list) {
					t.Errorf("got %v, want %v", err, tc.list)
				}
				if took := time.Since(begun); took != tc.within {
					t.Errorf("it took %v", took)
				}
				<-time.After(keptFor / 2) // one that is to be tried again waits first, and sees then that it is not
				if d.kept.Load() != nil {
					t.Error("it is kept")
				}
			})
		})
	}
}
