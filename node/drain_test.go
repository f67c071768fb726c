package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// world is a node's pods and an API server that answers evictions, in virtual time.
type world struct {
	mu        sync.Mutex
	pods      map[string]*corev1.Pod // by name
	snapshots chan []*corev1.Pod
	asked     []string                      // "AT NAME", in the order of asking
	begun     time.Time                     // of the run
	answer    func(*corev1.Pod) error       // nil: accepted
	end       func(*world, *corev1.Pod)     // what follows an accepted eviction; nil: the pod is gone at once
	latency   time.Duration                 // of an eviction
	confirm   func() ([]*corev1.Pod, error) // nil: no pod is left
	facts     Facts
	host      func() error // nil: it can be asked
	left      string       // volumes
	detach    func() bool  // called when volumes are awaited; tells that it took time
	views     []DrainView
	budgets   []policyv1.PodDisruptionBudget // nil: they cannot be read
	budgeting func()                         // called when they are asked for
	unusual   func(context.Context) error    // in place of an answer
}

func newWorld(pods ...*corev1.Pod) *world {
	w := &world{pods: map[string]*corev1.Pod{}, snapshots: make(chan []*corev1.Pod, 1), begun: time.Now()}
	for _, p := range pods {
		w.pods[p.Name] = p
	}
	w.show()
	return w
}

// show puts the pods into the watch; w.mu is held or not needed yet.
func (w *world) show() {
	select {
	case <-w.snapshots:
	default:
	}
	var all []*corev1.Pod
	for _, p := range w.pods {
		all = append(all, p.DeepCopy())
	}
	w.snapshots <- all
}

func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	w.show()
}

func (w *world) evict(ctx context.Context, p PodPlan) error {
	w.mu.Lock()
	w.asked = append(w.asked, fmt.Sprintf("%v %s", time.Since(w.begun).Truncate(time.Second), p.Name))
	w.mu.Unlock()
	if w.unusual != nil {
		return w.unusual(ctx)
	}
	if w.latency > 0 {
		select {
		case <-time.After(w.latency):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	found, ok := w.pods[p.Name]
	if !ok {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, p.Name)
	}
	if w.answer != nil {
		if err := w.answer(found); err != nil {
			return err
		}
	}
	if w.end != nil {
		w.end(w, found)
	} else {
		delete(w.pods, p.Name)
	}
	w.show()
	return nil
}

func (w *world) unasked() error {
	if w.host == nil {
		return nil
	}
	return w.host()
}

// there are the pods as the API server has them.
func (w *world) there() ([]*corev1.Pod, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Collect(maps.Values(w.pods)), nil
}

// drain runs a drain of w until it ends or limit is over.
func (w *world) drain(t *testing.T, limit time.Duration, s DrainSettings) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Begun = time.Now()
	d := &Drainer{node: "n1", concurrency: DefaultConcurrency, metrics: m, log: logger(nil)}
	err = d.run(ctx, effects{
		snapshots: w.snapshots, evict: w.evict,
		facts: func(context.Context, []*corev1.Pod) (Facts, error) { return w.facts, w.unasked() },
		volumes: func(context.Context, []*corev1.Pod) (bound, unread map[string]string) {
			return w.facts.Bound, w.facts.Unread
		},
		budgets: func(context.Context, []*corev1.Pod) ([]policyv1.PodDisruptionBudget, error) {
			if w.budgeting != nil {
				w.budgeting()
			}
			if w.budgets == nil {
				return nil, errors.New("they cannot be read")
			}
			return w.budgets, nil
		},
		confirm: func(context.Context) ([]*corev1.Pod, error) {
			if w.confirm == nil {
				return nil, nil
			}
			return w.confirm()
		},
		detached: func(context.Context, []*corev1.Pod, func(string)) (string, bool) {
			if w.detach == nil {
				return w.left, false
			}
			return w.left, w.detach()
		},
		progress: func(v DrainView) { w.views = append(w.views, v) },
	}, newRota(s, d.concurrency))
	var counted float64
	for _, result := range []string{resultAccepted, resultGone, resultBudget, resultThrottled, resultRefused, resultError} {
		counted += testutil.ToFloat64(m.evictions.WithLabelValues(result))
	}
	if err == nil && int(counted) != len(w.asked) {
		t.Errorf("the metric counts %v evictions, %d were asked", counted, len(w.asked))
	}
	return err
}

func (w *world) last() DrainView { return w.views[len(w.views)-1] }

func many(n int, edits ...func(*corev1.Pod)) []*corev1.Pod {
	var pods []*corev1.Pod
	for i := range n {
		pods = append(pods, pod(fmt.Sprintf("web-%02d", i), append(edits, ownedBy("ReplicaSet", "web"))...))
	}
	return pods
}

func budgetSays(message string) error {
	err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: policyv1.DisruptionBudgetCause, Message: message}}
	return err
}

const noRoom = "The disruption budget web needs 3 healthy pods and has 3 currently"

// What the peers of docs/reliability.md get wrong, by its number there.
func TestPeer5_ABudgetThatNeverAllowsIsAskedFourTimesAMinuteWhateverTheNumberOfPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(many(60)...)
		w.answer = func(*corev1.Pod) error { return budgetSays(noRoom) }
		if err := w.drain(t, 15*time.Minute, DrainSettings{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		if n := len(w.asked); n < 50 || n > 70 {
			t.Errorf("asked %d times in 15 minutes, want 50 to 70", n)
		}
		want := DrainView{
			Running: true, Remaining: 60, Reason: ReasonBudget,
			Message: "shop/web-00, shop/web-01, shop/web-02 and 57 more: disruption budget shop/web needs 3 healthy pods and has 3 currently",
		}
		if diff := cmp.Diff(want, w.last()); diff != "" {
			t.Error(diff)
		}
		if len(w.views) > 3 {
			t.Errorf("progress told %d times of the same thing: %v", len(w.views), w.views)
		}
	})
}

// covering is a budget of the pods with a label.
func covering(name string, allows int32, key, value string) policyv1.PodDisruptionBudget {
	return policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}},
		Status:     policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: allows},
	}
}

// TestFirstEvictions: how many are asked for at once, before the first answer.
func TestFirstEvictions(t *testing.T) {
	web := func(name string, allows int32) policyv1.PodDisruptionBudget {
		return covering(name, allows, "app", "web")
	}
	app := func(p *corev1.Pod) { p.Labels = map[string]string{"app": "web"} }
	other := covering("other", 9, "app", "other")
	for name, c := range map[string]struct {
		pods    int
		budgets []policyv1.PodDisruptionBudget
		want    int
	}{
		"one, when the budgets cannot be read": {40, nil, 1},
		"all, when no budget covers them":      {40, []policyv1.PodDisruptionBudget{other}, 40},
		"no more than may be in flight":        {80, []policyv1.PodDisruptionBudget{other}, DefaultConcurrency},
		"so many as their budget allows":       {40, []policyv1.PodDisruptionBudget{web("web", 7), other}, 7},
		"one, when their budget allows none":   {40, []policyv1.PodDisruptionBudget{web("web", 0)}, 1},
		"one, when two budgets cover them":     {40, []policyv1.PodDisruptionBudget{web("web", 7), web("too", 7)}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(many(c.pods, app)...)
				w.budgets, w.latency = c.budgets, time.Second
				if err := w.drain(t, time.Hour, DrainSettings{}); err != nil {
					t.Fatal(err)
				}
				first := 0
				for _, asked := range w.asked {
					if strings.HasPrefix(asked, "0s ") {
						first++
					}
				}
				if first != c.want {
					t.Errorf("%d were asked for at once, want %d", first, c.want)
				}
			})
		})
	}
}

func TestRunBudgets(t *testing.T) {
	t.Run("a budget that opens is used up pod by pod without a wait, and the delay begins anew", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(many(4)...)
			allowed := 0
			w.answer = func(*corev1.Pod) error {
				if allowed == 0 {
					return budgetSays(noRoom)
				}
				allowed--
				return nil
			}
			time.AfterFunc(60*time.Second, func() { w.change(func() { allowed = 2 }) })
			time.AfterFunc(90*time.Second, func() { w.change(func() { allowed = 2 }) })
			if err := w.drain(t, 3*time.Minute, DrainSettings{}); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(w.begun); took > 108*time.Second {
				t.Errorf("took %v", took)
			}
			if n := len(w.asked); n > 20 {
				t.Errorf("asked %d times: %v", n, w.asked)
			}
		})
	})
	t.Run("a budget whose status is behind is left alone for as long as the server says", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(many(2)...)
			w.answer = func(*corev1.Pod) error {
				if time.Since(w.begun) > 25*time.Second {
					return nil
				}
				err := budgetSays("The disruption budget web is still being processed by the server.")
				var status *apierrors.StatusError
				if errors.As(err, &status) {
					status.ErrStatus.Details.RetryAfterSeconds = 10
				}
				return err
			}
			if err := w.drain(t, time.Minute, DrainSettings{}); err != nil {
				t.Fatal(err)
			}
			if n := len(w.asked); n < 4 || n > 5 { // at once, after 10 s to 12 s, and again, and then both
				t.Errorf("asked %v", w.asked)
			}
		})
	})
	t.Run("a blocked budget holds its own pods only", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(append(many(3), pod("api-1", ownedBy("ReplicaSet", "api")), pod("api-2", ownedBy("ReplicaSet", "api")))...)
			w.answer = func(p *corev1.Pod) error {
				if strings.HasPrefix(p.Name, "web") {
					return budgetSays(noRoom)
				}
				return nil
			}
			_ = w.drain(t, 900*time.Millisecond, DrainSettings{})
			if got := w.last(); got.Evicted != 2 || got.Remaining != 3 {
				t.Errorf("after 0.9 s: %+v", got)
			}
		})
	})
	t.Run("two controllers under one budget share its probe", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(append(many(3), pod("api-1", ownedBy("ReplicaSet", "api")), pod("api-2", ownedBy("ReplicaSet", "api")))...)
			w.answer = func(*corev1.Pod) error { return budgetSays(noRoom) }
			_ = w.drain(t, 15*time.Minute, DrainSettings{})
			if n := len(w.asked); n > 70 {
				t.Errorf("asked %d times in 15 minutes, want at most 70", n)
			}
		})
	})
	t.Run("every pod of a blocked budget gets its turn, so that the unready one goes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			sick := pod("web-zz", ownedBy("ReplicaSet", "web"), func(p *corev1.Pod) { p.Status.Conditions = nil })
			w := newWorld(append(many(30), sick)...)
			w.answer = func(p *corev1.Pod) error {
				if p.Name == "web-zz" {
					return nil
				}
				return budgetSays(noRoom)
			}
			_ = w.drain(t, 500*time.Millisecond, DrainSettings{})
			if w.last().Evicted != 1 {
				t.Errorf("%+v, asked %v", w.last(), w.asked)
			}
		})
	})
	t.Run("a budget whose name is not told is known by the pod's controller, or by the budget that covers it", func(t *testing.T) {
		app := func(p *corev1.Pod) { p.Labels = map[string]string{"app": "web"} }
		for _, budgets := range [][]policyv1.PodDisruptionBudget{nil, {}, {covering("web", 1, "app", "web")}} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(many(20, app)...)
				w.budgets, w.latency = budgets, time.Millisecond
				w.answer = func(*corev1.Pod) error { return budgetSays("Not today") }
				_ = w.drain(t, time.Minute, DrainSettings{})
				if n := len(w.asked); n > 30 { // 20 at once, where none is said to cover them
					t.Errorf("%d budgets: asked %d times in a minute", len(budgets), n)
				}
				if got := w.last(); got.Reason != ReasonBudget || !strings.HasSuffix(got.Message, ": Not today") {
					t.Errorf("%d budgets: %+v", len(budgets), got)
				}
			})
		}
	})
	t.Run("pods of a controller that no budget covers do not share the luck of those that one covers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			pods := many(4)
			pods[0].Labels = map[string]string{"role": "primary"}
			w := newWorld(pods...)
			w.budgets, w.latency = []policyv1.PodDisruptionBudget{covering("web", 0, "role", "primary")}, time.Millisecond
			w.answer = func(p *corev1.Pod) error {
				if p.Name == "web-00" {
					return budgetSays(noRoom)
				}
				return nil
			}
			_ = w.drain(t, time.Minute, DrainSettings{})
			for _, p := range []string{"web-01", "web-02", "web-03"} {
				if !slices.Contains(w.asked, "0s "+p) {
					t.Errorf("%s is not asked for at once: %v", p, w.asked)
				}
			}
			if got := w.last(); got.Message != "shop/web-00: disruption budget shop/web needs 3 healthy pods and has 3 currently" {
				t.Errorf("%+v", got)
			}
		})
	})
	t.Run("nobody asks for budgets where nobody is evicted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(pod("d", ownedBy("DaemonSet", "proxy")))
			asked := false
			w.budgeting = func() { asked = true }
			if err := w.drain(t, time.Minute, DrainSettings{}); err != nil || asked {
				t.Errorf("%v, asked for budgets: %v", err, asked)
			}
		})
	})
}

func TestRunTiers(t *testing.T) {
	critical := func() *corev1.Pod { return pod("dns", ownedBy("ReplicaSet", "dns"), priority(systemCritical)) }
	t.Run("system-critical pods are evicted when the ordinary ones have ended, not when they were asked to", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(append(many(2), critical())...)
			w.end = func(w *world, p *corev1.Pod) {
				ending(p)
				time.AfterFunc(20*time.Second, func() { w.change(func() { delete(w.pods, p.Name) }) })
			}
			if err := w.drain(t, time.Minute, DrainSettings{}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"0s web-00", "0s web-01", "20s dns"}, w.asked); diff != "" {
				t.Error(diff)
			}
			if took := time.Since(w.begun); took != 40*time.Second {
				t.Errorf("took %v", took)
			}
		})
	})
	t.Run("of two pods the one that may take longer to end is asked first", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			pods := many(2)
			long := int64(60)
			pods[1].Spec.TerminationGracePeriodSeconds = &long
			w := newWorld(pods...)
			w.latency = time.Second
			if err := w.drain(t, time.Minute, DrainSettings{}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"0s web-01", "1s web-00"}, w.asked); diff != "" {
				t.Error(diff)
			}
		})
	})
	t.Run("a pod that rides through does not hold the critical ones, and stays", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(pod("green"), critical())
			if err := w.drain(t, time.Minute, DrainSettings{Policy: Policy{Unmanaged: DoRideThrough}}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"0s dns"}, w.asked); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(DrainView{Empty: true, Evicted: 1, Summary: "1 pod evicted, 1 stay"}, w.last()); diff != "" {
				t.Error(diff)
			}
		})
	})
	t.Run("a pod that is waited for holds the drain until it has run to its end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(pod("job"), critical())
			time.AfterFunc(5*time.Minute, func() { w.change(func() { w.pods["job"].Status.Phase = corev1.PodSucceeded }) })
			if err := w.drain(t, time.Hour, DrainSettings{Policy: Policy{Unmanaged: DoWait}}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"5m0s dns"}, w.asked); diff != "" {
				t.Error(diff)
			}
			want := DrainView{Running: true, Remaining: 2, Reason: ReasonUnmanagedPod, Message: "shop/job: it has no controller: its end is awaited; waiting for shop/dns"}
			if !slices.Contains(w.views, want) {
				t.Errorf("no %+v in %+v", want, w.views)
			}
		})
	})
	t.Run("while the end of a pod is awaited that nobody knows, none is evicted, of whatever tier", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(append(many(2), critical(), web(says(DoWait)))...)
			time.AfterFunc(5*time.Minute, func() { w.change(func() { delete(w.pods, "a") }) })
			if err := w.drain(t, time.Hour, DrainSettings{}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"5m0s web-00", "5m0s web-01", "5m0s dns"}, w.asked); diff != "" {
				t.Error(diff)
			}
		})
	})
	t.Run("a drain that a pod keeps from ending evicts nobody, and one that comes meanwhile ends the evictions", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(many(3)...)
			w.latency = time.Second
			time.AfterFunc(500*time.Millisecond, func() { w.change(func() { w.pods["green"] = pod("green") }) })
			if err := w.drain(t, time.Minute, DrainSettings{}); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("got %v", err)
			}
			want := DrainView{
				Running: true, Evicted: 1, Remaining: 3, Reason: ReasonUnmanagedPod,
				Message: "shop/green: it has no controller: an eviction would delete it for good; waiting for shop/web-01, shop/web-02",
			}
			if diff := cmp.Diff([]string{"0s web-00"}, w.asked); diff != "" || w.last() != want {
				t.Errorf("%s%+v", diff, w.last())
			}
		})
	})
	t.Run("that it cannot end is said before what pods were refused for until then", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(many(1)...)
			w.answer = func(*corev1.Pod) error { return budgetSays(noRoom) }
			time.AfterFunc(10*time.Second, func() { w.change(func() { w.pods["green"] = pod("green") }) })
			_ = w.drain(t, time.Minute, DrainSettings{})
			if got := w.last(); got.Reason != ReasonUnmanagedPod || !strings.Contains(got.Message, "disruption budget shop/web") {
				t.Errorf("%+v", got)
			}
		})
	})
	t.Run("a pod that is awaited for a time, or that ends already, holds no other", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(append(many(1), pod("job", ownedBy("Job", "report")), pod("ends", ending))...)
			time.AfterFunc(20*time.Minute, func() { w.change(func() { delete(w.pods, "ends") }) })
			s := DrainSettings{Policy: Policy{Jobs: DoWait, JobsFor: 10 * time.Minute}}
			if err := w.drain(t, time.Hour, s); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"0s web-00", "10m0s job"}, w.asked); diff != "" {
				t.Error(diff)
			}
		})
	})
	t.Run("a pod that blocks and appears during the drain holds it, and is not touched", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(pod("green"))
			if err := w.drain(t, time.Minute, DrainSettings{}); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("got %v", err)
			}
			if len(w.asked) != 0 || w.last().Reason != ReasonUnmanagedPod {
				t.Errorf("asked %v, %+v", w.asked, w.last())
			}
		})
	})
}

func TestRunRipens(t *testing.T) {
	t.Run("a pod of a Job is evicted when it was awaited for long enough, and so is one that has become old enough", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(pod("job", ownedBy("Job", "report")), pod("young", ownedBy("ReplicaSet", "web"), startedAt(time.Now().Add(-time.Minute))),
				pod("old", ownedBy("ReplicaSet", "web"), startedAt(time.Now().Add(-time.Hour))))
			s := DrainSettings{Policy: Policy{Jobs: DoWait, JobsFor: 10 * time.Minute, MinAge: 5 * time.Minute}}
			if err := w.drain(t, time.Hour, s); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"0s old", "4m0s young", "10m0s job"}, w.asked); diff != "" {
				t.Error(diff)
			}
		})
	})
}

func TestRunStays(t *testing.T) {
	t.Run("pods stay on a node that is quick, and those whose owners want it go", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(web(tolerating(300)), pod("b", ownedBy("ReplicaSet", "web"), tolerating(300), says(DoEvict)), pod("d", ownedBy("DaemonSet", "proxy")))
			w.facts = measured()
			w.left = "vol-1"
			w.confirm = w.there
			if err := w.drain(t, time.Minute, DrainSettings{Policy: Policy{Mode: ModeAuto}}); err != nil {
				t.Fatal(err)
			}
			want := "1 pod evicted, 1 stay, quick: expected back within 1m30s, half as much again as the worst of 3 downtimes, 1m0s; " +
				"no pod is moved within 5m0s, still attached: vol-1"
			if diff := cmp.Diff([]string{"0s b"}, w.asked); diff != "" || w.last().Summary != want {
				t.Errorf("%s%s", diff, w.last().Summary)
			}
		})
	})
	t.Run("when the others of its kind have gone meanwhile, it goes after all", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(web(tolerating(300)))
			w.facts = measured()
			w.confirm = func() ([]*corev1.Pod, error) {
				pods, err := w.there()
				w.facts.Elsewhere = map[string]int{"uid-web": 0}
				return pods, err
			}
			if err := w.drain(t, time.Minute, DrainSettings{Policy: Policy{Mode: ModeAuto}, Wait: 10 * time.Second}); err != nil {
				t.Fatal(err)
			}
			if len(w.asked) != 1 || !strings.Contains(w.last().Summary, "not quick") {
				t.Errorf("asked %v: %s", w.asked, w.last().Summary)
			}
		})
	})
	t.Run("a pod that comes while volumes are awaited is evicted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(pod("a", ownedBy("ReplicaSet", "web")))
			w.confirm = w.there
			waits := 0
			w.detach = func() bool {
				if waits++; waits == 1 {
					w.mu.Lock()
					defer w.mu.Unlock()
					w.pods["b"] = pod("b", ownedBy("ReplicaSet", "api"))
					w.show()
				}
				return waits == 1
			}
			if err := w.drain(t, time.Minute, DrainSettings{}); err != nil {
				t.Fatal(err)
			}
			if len(w.asked) != 2 || waits != 2 {
				t.Errorf("asked %v, waited %d times", w.asked, waits)
			}
		})
	})
	t.Run("what is decided at the beginning holds for a pod that comes later, and one that cannot stay goes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(web(), pod("b", ownedBy("ReplicaSet", "web"), asksFor("nvidia.com/gpu")))
			w.end = func(w *world, p *corev1.Pod) {
				delete(w.pods, p.Name)
				w.pods["c"] = pod("c", ownedBy("ReplicaSet", "web"))
			}
			if err := w.drain(t, time.Minute, DrainSettings{Policy: Policy{Mode: ModeNever}}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"0s b"}, w.asked); diff != "" || w.last().Summary != "1 pod evicted, 2 stay, the mode of the drain is never" {
				t.Errorf("%s%s", diff, w.last().Summary)
			}
		})
	})
}

func TestRunEndsWhenTheHostCannotBeAsked(t *testing.T) {
	noBus := errors.New("no bus")
	t.Run("at the first look, before anything is evicted, whatever the mode", func(t *testing.T) {
		for _, mode := range []string{ModeAlways, ModeAuto, ModeNever} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(web(tolerating(300)))
				w.facts = measured(func(f *Facts) { f.Ends = "whether the kubelet ends it is not known" })
				w.host = func() error { return noBus }
				if err := w.drain(t, time.Minute, DrainSettings{Policy: Policy{Mode: mode}}); !errors.Is(err, noBus) || len(w.asked) > 0 {
					t.Errorf("%s: %v, asked %v", mode, err, w.asked)
				}
				if len(w.views) > 0 {
					t.Errorf("%s: a drain that has not begun says how it stands, by which whoever starts it again takes it to get on: %v", mode, w.views)
				}
			})
		}
	})
	t.Run("and at the last, before it evicts those that were to stay", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(web(tolerating(300)))
			w.facts, w.confirm = measured(), w.there
			looks := 0
			w.host = func() error {
				if looks++; looks == 1 {
					return nil
				}
				return noBus
			}
			if err := w.drain(t, time.Minute, DrainSettings{Policy: Policy{Mode: ModeAuto}}); !errors.Is(err, noBus) || len(w.asked) > 0 {
				t.Errorf("%v, asked %v", err, w.asked)
			}
		})
	})
}

func TestRunWaitsForLoadBalancers(t *testing.T) {
	for name, pods := range map[string][]*corev1.Pod{"with pods to evict": many(2), "with none": {pod("d", ownedBy("DaemonSet", "proxy"))}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(pods...)
				if err := w.drain(t, time.Minute, DrainSettings{Wait: 20 * time.Second}); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(w.begun).Truncate(time.Second); took != 20*time.Second || len(w.asked) > 0 && w.asked[0][:3] != "20s" {
					t.Errorf("took %s, asked %v", took, w.asked)
				}
				if v := w.views[0]; v.Reason != ReasonLoadBalancer || !strings.Contains(v.Message, leaving) {
					t.Errorf("said %+v", v)
				}
			})
		})
	}
}

func TestRunPace(t *testing.T) {
	t.Run("a hundred pods of one controller are asked in few round trips, never more than the limit at once", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(many(100)...)
			w.latency = 100 * time.Millisecond
			if err := w.drain(t, time.Minute, DrainSettings{}); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(w.begun); took > 800*time.Millisecond {
				t.Errorf("took %v", took)
			}
			if len(w.asked) != 100 {
				t.Errorf("asked %d times", len(w.asked))
			}
		})
	})
	t.Run("a hundred controllers are asked at once, fifty at a time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var pods []*corev1.Pod
			for i := range 100 {
				pods = append(pods, pod(fmt.Sprintf("p%d", i), ownedBy("ReplicaSet", fmt.Sprint(i))))
			}
			w := newWorld(pods...)
			w.latency = time.Second
			if err := w.drain(t, time.Minute, DrainSettings{}); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(w.begun); took != 2*time.Second {
				t.Errorf("took %v", took)
			}
		})
	})
	t.Run("a throttling API server is left alone for the time it asks for, then asked by one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var pods []*corev1.Pod
			for i := range 10 {
				pods = append(pods, pod(fmt.Sprintf("p%d", i), ownedBy("ReplicaSet", fmt.Sprint(i))))
			}
			w := newWorld(pods...)
			w.answer = func(*corev1.Pod) error {
				if time.Since(w.begun) < time.Minute {
					return apierrors.NewTooManyRequests("Too many requests, please try again later.", 7)
				}
				return nil
			}
			if err := w.drain(t, 2*time.Minute, DrainSettings{}); err != nil {
				t.Fatal(err)
			}
			// ten at once, one after 7 s to 8.4 s each until the minute is over, then the ten
			if n := len(w.asked); n < 10+5+10 || n > 10+9+10 {
				t.Errorf("asked %d times: %v", n, w.asked)
			}
			for _, a := range w.asked[10:] {
				if strings.HasPrefix(a, "0s ") || strings.HasPrefix(a, "6s ") {
					t.Errorf("asked again too early: %v", w.asked)
				}
			}
		})
	})
	t.Run("a webhook's 429 for one pod does not hold the others", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(pod("vm", ownedBy("VirtualMachineInstance", "vm")), pod("a", ownedBy("ReplicaSet", "a")), pod("b", ownedBy("ReplicaSet", "b")))
			w.answer = func(p *corev1.Pod) error {
				if p.Name == "vm" {
					return apierrors.NewTooManyRequests("Eviction triggered evacuation of the virtual machine", 0)
				}
				return nil
			}
			_ = w.drain(t, 500*time.Millisecond, DrainSettings{})
			want := DrainView{Running: true, Evicted: 2, Remaining: 1, Reason: ReasonEviction, Message: "shop/vm: Eviction triggered evacuation of the virtual machine"}
			if diff := cmp.Diff(want, w.last()); diff != "" {
				t.Error(diff)
			}
		})
	})
	t.Run("an API server that is away is asked by one at a time, with a growing delay, and the drain goes on when it is back", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(append(many(5), pod("a", ownedBy("ReplicaSet", "a")))...)
			away := errors.New("dial tcp: connection refused")
			w.unusual = func(context.Context) error {
				if time.Since(w.begun) > 2*time.Minute {
					w.mu.Lock()
					w.unusual = nil
					w.mu.Unlock()
				}
				return away
			}
			if err := w.drain(t, 3*time.Minute, DrainSettings{}); err != nil {
				t.Fatal(err)
			}
			if n := len(w.asked); n > 30 {
				t.Errorf("asked %d times", n)
			}
			if !slices.ContainsFunc(w.views, func(v DrainView) bool {
				return v.Reason == ReasonEviction && strings.Contains(v.Message, "connection refused")
			}) {
				t.Errorf("nobody was told: %+v", w.views)
			}
		})
	})
	t.Run("a pod under two budgets is asked about every half minute and named", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(append(many(1), pod("a", ownedBy("ReplicaSet", "a")))...)
			w.answer = func(p *corev1.Pod) error {
				if p.Name == "a" {
					return nil
				}
				return &apierrors.StatusError{ErrStatus: metav1.Status{
					Status: metav1.StatusFailure, Code: http.StatusInternalServerError,
					Message: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
				}}
			}
			_ = w.drain(t, 10*time.Minute, DrainSettings{})
			if n := len(w.asked); n < 17 || n > 22 {
				t.Errorf("asked %d times in 10 minutes", n)
			}
			want := DrainView{
				Running: true, Evicted: 1, Remaining: 1, Reason: ReasonEviction,
				Message: "shop/web-00: more than one disruption budget covers it, which the API server does not support",
			}
			if diff := cmp.Diff(want, w.last()); diff != "" {
				t.Error(diff)
			}
		})
	})
	t.Run("a webhook that is down is a refusal of the pods that it is asked about, with its words, and is got over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(many(2)...)
			w.answer = func(p *corev1.Pod) error {
				if p.Name == "web-00" && time.Since(w.begun) < 20*time.Second {
					return apierrors.NewInternalError(errors.New(`failed calling webhook "guard.example.com": connection refused`))
				}
				return nil
			}
			if err := w.drain(t, time.Minute, DrainSettings{}); err != nil {
				t.Error(err)
			}
			if !slices.ContainsFunc(w.views, func(v DrainView) bool {
				return v.Evicted == 1 && v.Reason == ReasonEviction && strings.Contains(v.Message, "shop/web-00") && strings.Contains(v.Message, "guard.example.com")
			}) {
				t.Errorf("nobody was told: %+v", w.views)
			}
		})
	})
	t.Run("what denied many is over for all as soon as it is over for one", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(many(30)...)
			var first time.Time
			w.answer = func(p *corev1.Pod) error {
				if time.Since(w.begun) < 7*time.Second { // between the fourth time that they are asked and the fifth
					return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, p.Name, errors.New("not now"))
				}
				if first.IsZero() {
					first = time.Now()
				}
				return nil
			}
			if err := w.drain(t, time.Minute, DrainSettings{}); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(first); d > 50*time.Millisecond {
				t.Errorf("the last followed the first by %v", d)
			}
			if n := len(w.asked); n > 5*30 {
				t.Errorf("asked %d times: %v", n, w.asked)
			}
		})
	})
	t.Run("a refusal by admission is asked again and named", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(many(1)...)
			w.answer = func(*corev1.Pod) error {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "web-00", errors.New("the namespace is being terminated"))
			}
			_ = w.drain(t, time.Minute, DrainSettings{})
			if got := w.last(); got.Reason != ReasonEviction || !strings.Contains(got.Message, "being terminated") {
				t.Errorf("%+v", got)
			}
			if n := len(w.asked); n < 5 || n > 12 {
				t.Errorf("asked %d times in a minute", n)
			}
		})
	})
}

// Names as long as those that charts make.
func TestRunNamesWhatHoldsItUp(t *testing.T) {
	long := func(name string) string { return name + strings.Repeat("x", 47-len(name)) }
	named := func(n int) []*corev1.Pod {
		var pods []*corev1.Pod
		for i := range n {
			pods = append(pods, pod(fmt.Sprintf("%s-%05d", long("web"), i), ownedBy("ReplicaSet", "web"), func(p *corev1.Pod) { p.Namespace = long("shop") }))
		}
		return pods
	}
	t.Run("a budget", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(named(60)...)
			w.answer = func(*corev1.Pod) error {
				return budgetSays("The disruption budget " + long("budget") + " needs 3 healthy pods and has 3 currently")
			}
			_ = w.drain(t, time.Minute, DrainSettings{})
			if want := "disruption budget " + long("shop") + "/" + long("budget") + " needs 3"; !strings.Contains(w.last().Message, want) {
				t.Errorf("no %q in %q", want, w.last().Message)
			}
		})
	})
	t.Run("finalizers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			pods := named(1)
			pods[0].Finalizers = []string{long("example.com/a"), long("example.com/b"), long("example.com/c")}
			w := newWorld(pods...)
			w.end = func(_ *world, p *corev1.Pod) { ending(p) }
			_ = w.drain(t, 2*time.Minute, DrainSettings{})
			if want := "its finalizers are " + list(pods[0].Finalizers); !strings.HasSuffix(w.last().Message, want) {
				t.Errorf("no %q in %q", want, w.last().Message)
			}
		})
	})
}

func TestRunEnds(t *testing.T) {
	t.Run("an ending pod is not evicted a second time, and named once its grace period is well over", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(many(1)...)
			w.end = func(_ *world, p *corev1.Pod) { ending(p) }
			_ = w.drain(t, 2*time.Minute, DrainSettings{})
			want := []DrainView{
				{Running: true},
				{Running: true, Remaining: 1, Message: "waiting for shop/web-00"},
				{Running: true, Evicted: 1, Remaining: 1, Message: "waiting for shop/web-00"},
				{Running: true, Evicted: 1, Remaining: 1, Reason: ReasonTerminating, Message: "shop/web-00: has not ended within its grace period"},
			}
			if len(w.views) == 3 {
				want = want[1:]
			}
			if diff := cmp.Diff(want, w.views); diff != "" {
				t.Error(diff)
			}
			if len(w.asked) != 1 {
				t.Errorf("asked %v", w.asked)
			}
		})
	})
	t.Run("an accepted eviction that shows no effect is asked again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(many(1)...)
			w.end = func(w *world, p *corev1.Pod) {
				if len(w.asked) == 2 {
					delete(w.pods, p.Name)
				}
			}
			if err := w.drain(t, time.Minute, DrainSettings{}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"0s web-00", "10s web-00"}, w.asked); diff != "" {
				t.Error(diff)
			}
			if w.last().Evicted != 1 {
				t.Errorf("counted %d pods", w.last().Evicted)
			}
		})
	})
	t.Run("a pod said to be gone that the watch still shows is asked again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(many(1)...)
			w.answer = func(p *corev1.Pod) error {
				if len(w.asked) == 1 {
					return apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, p.Name)
				}
				return nil
			}
			if err := w.drain(t, time.Minute, DrainSettings{}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"0s web-00", "2s web-00"}, w.asked); diff != "" {
				t.Error(diff)
			}
		})
	})
	t.Run("a pod re-created under the same name is another pod", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(pod("db-0", ownedBy("StatefulSet", "db")))
			w.end = func(w *world, p *corev1.Pod) {
				if len(w.asked) == 1 {
					p.UID = "second"
				} else {
					delete(w.pods, p.Name)
				}
			}
			if err := w.drain(t, time.Minute, DrainSettings{}); err != nil {
				t.Fatal(err)
			}
			if got := w.last(); got.Evicted != 2 || len(w.asked) != 2 {
				t.Errorf("%+v, asked %v", got, w.asked)
			}
		})
	})
	t.Run("a controller that puts its pod back on this node is not fought in a tight loop", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(many(1)...)
			w.end = func(w *world, p *corev1.Pod) { p.UID = types.UID(fmt.Sprint("uid-", len(w.asked))) }
			_ = w.drain(t, 10*time.Minute, DrainSettings{})
			if n := len(w.asked); n > 50 {
				t.Errorf("asked %d times in 10 minutes", n)
			}
			if got := w.last(); got.Reason != ReasonEviction || got.Message != "shop/web-00: its controller puts it back on this node" {
				t.Errorf("%+v", got)
			}
		})
	})
	t.Run("a pod that appears while draining is evicted too", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(many(1)...)
			w.end = func(w *world, p *corev1.Pod) {
				delete(w.pods, p.Name)
				if len(w.asked) == 1 {
					w.pods["late"] = pod("late", ownedBy("ReplicaSet", "late"))
				}
			}
			if err := w.drain(t, time.Minute, DrainSettings{}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{"0s web-00", "0s late"}, w.asked); diff != "" {
				t.Error(diff)
			}
		})
	})
	t.Run("an empty watch is believed only when the API server confirms it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			calls := 0
			late := pod("late", ownedBy("ReplicaSet", "late"))
			w.confirm = func() ([]*corev1.Pod, error) {
				calls++
				if calls == 1 {
					return nil, errors.New("no answer")
				}
				time.AfterFunc(100*time.Millisecond, func() { w.change(func() { w.pods["late"] = late }) })
				return []*corev1.Pod{late, pod("proxy", ownedBy("DaemonSet", "proxy"))}, nil
			}
			if err := w.drain(t, time.Minute, DrainSettings{}); err != nil {
				t.Fatal(err)
			}
			if len(w.asked) != 1 || calls != 2 {
				t.Errorf("asked %v, confirmed %d times", w.asked, calls)
			}
		})
	})
	t.Run("nothing ends before the watch has shown anything", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			<-w.snapshots
			if err := w.drain(t, time.Minute, DrainSettings{}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
	})
	t.Run("a cancelled drain returns at once, with an eviction under way", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(many(3)...)
			w.unusual = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
			if err := w.drain(t, time.Second, DrainSettings{}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			if took := time.Since(w.begun); took != time.Second {
				t.Errorf("took %v", took)
			}
		})
	})
}

// TestRunConfirms: when the API server is asked whether the node is as empty as the watch shows. It knows of a pod then that the watch
// is late with.
func TestRunConfirms(t *testing.T) {
	ends := func(after time.Duration, edits ...func(*corev1.Pod)) func(*world, *corev1.Pod) {
		return func(w *world, p *corev1.Pod) {
			ending(p)
			time.AfterFunc(after-time.Second, func() {
				w.change(func() {
					for _, edit := range edits {
						edit(p)
					}
				})
			})
			time.AfterFunc(after, func() { w.change(func() { delete(w.pods, p.Name) }) })
		}
	}
	stopped := func(ago time.Duration) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			end := &corev1.ContainerStateTerminated{FinishedAt: metav1.NewTime(time.Now().Add(-ago))}
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Terminated: end}}}
		}
	}
	replies := func(after time.Duration, err error) func(*world) {
		return func(w *world) {
			w.unusual = func(context.Context) error {
				w.change(func() { delete(w.pods, "web-00"); w.unusual = nil })
				<-time.After(after)
				return err
			}
		}
	}
	for name, tc := range map[string]struct {
		pods  []*corev1.Pod
		mode  string
		with  func(*world)
		finds bool
	}{
		"not where the watch shows at once that an eviction has ended its pod": {pods: many(3)},
		"where nothing was evicted": {finds: true},
		"where others have ended the pods": {pods: many(2, ending), with: func(w *world) {
			for _, p := range w.pods {
				ends(time.Minute)(w, p)
			}
		}, finds: true},
		"where the last eviction was long ago":                                              {pods: many(1), with: func(w *world) { w.end = ends(proofAge) }, finds: true},
		"not where it was not":                                                              {pods: many(1), with: func(w *world) { w.end = ends(proofAge - 1) }},
		"not where the kubelet tells that the containers have just stopped":                 {pods: many(1), with: func(w *world) { w.end = ends(time.Minute, stopped(time.Second)) }},
		"where it tells so a while later":                                                   {pods: many(1), with: func(w *world) { w.end = ends(time.Minute, stopped(proofAge)) }, finds: true},
		"where the clock was set back since":                                                {pods: many(1), with: func(w *world) { w.end = ends(time.Minute, stopped(-time.Hour)) }, finds: true},
		"where others have ended a pod long after the last eviction":                        {pods: append(many(1), pod("b", ending)), with: func(w *world) { ends(time.Minute)(w, w.pods["b"]) }, finds: true},
		"not where the watch is faster than the answer":                                     {pods: many(1), with: replies(lastReplies/2, nil)},
		"where the answer is lost: others may have ended the pod before":                    {pods: many(1), with: replies(0, errors.New("reset")), finds: true},
		"where the answer is that there is no such pod":                                     {pods: many(1), with: replies(0, apierrors.NewNotFound(schema.GroupResource{}, "web-00")), finds: true},
		"where pods stay, for which the end of the drain is a matter of what is there then": {pods: []*corev1.Pod{web(tolerating(300)), pod("b", ownedBy("ReplicaSet", "web"), says(DoEvict))}, mode: ModeAuto, finds: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(tc.pods...)
				w.facts = measured()
				late := pod("late", ownedBy("ReplicaSet", "late"), says(DoEvict))
				w.confirm = func() ([]*corev1.Pod, error) {
					if late != nil {
						w.change(func() { w.pods["late"], late = late, nil })
					}
					return w.there()
				}
				if tc.with != nil {
					tc.with(w)
				}
				if err := w.drain(t, 10*time.Minute, DrainSettings{Policy: Policy{Mode: tc.mode}}); err != nil {
					t.Fatal(err)
				}
				if found := strings.Contains(strings.Join(w.asked, ","), "late"); found != tc.finds {
					t.Errorf("the pod was found: %v, asked %v", found, w.asked)
				}
			})
		})
	}
}

func TestADeniedPodThatIsAcceptedAsksForOneOtherNotForAll(t *testing.T) {
	pods, now := many(4), time.Unix(1000, 0)
	st := newRota(DrainSettings{Begun: now}, DefaultConcurrency)
	st.observe(pods, Facts{}, now)
	ask := func(now time.Time, a answer) string {
		t.Helper()
		p := st.start(now)
		if len(p) != 1 {
			t.Fatalf("%d pods are asked for at once, want 1", len(p))
		}
		st.answered(p[0].UID, a, now)
		return p[0].Name
	}
	denied := answer{result: resultRefused, message: "not now"}
	first := ask(now, denied)
	now = now.Add(10 * time.Second)
	for range pods {
		ask(now, denied) // the first one again, too
	}
	now = now.Add(1950 * time.Millisecond) // the others may be asked for after 1 s, the first after 1.6 s
	for range len(pods) - 1 {
		if ask(now, denied) == first {
			t.Fatal("the first is asked for again before the others")
		}
	}
	if got := ask(now, answer{result: resultAccepted}); got != first {
		t.Fatalf("%s is accepted, want %s", got, first)
	}
	if p := st.start(now); len(p) != 1 {
		t.Errorf("%d others are asked for at once, want 1", len(p))
	}
}
