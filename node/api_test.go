package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"kubebaton.io/baton/internal/apitest"
	"kubebaton.io/baton/kube"
)

// api is the administrator's way to the real API server that all tests of this package share.
var api *rest.Config

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	cfg, stop, err := apitest.Start()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer stop()
	api = cfg
	return m.Run()
}

// counter counts requests, "METHOD PATH" without the query; a watch is a WATCH.
type counter struct {
	http.RoundTripper
	mu    sync.Mutex
	calls []string
}

func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	method := r.Method
	if r.URL.Query().Get("watch") != "" {
		method = "WATCH"
	}
	c.mu.Lock()
	c.calls = append(c.calls, method+" "+r.URL.Path)
	c.mu.Unlock()
	return c.RoundTripper.RoundTrip(r)
}

func (c *counter) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = nil
}

func (c *counter) count(substring string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, call := range c.calls {
		if strings.Contains(call, substring) {
			n++
		}
	}
	return n
}

// connect returns a client made from cfg as the agent makes it, and its count of requests.
func connect(t *testing.T, cfg *rest.Config) (kube.Interface, *counter) {
	t.Helper()
	cfg = rest.CopyConfig(cfg)
	cfg.QPS = -1
	count := &counter{}
	cfg.Wrap(func(rt http.RoundTripper) http.RoundTripper { count.RoundTripper = rt; return count })
	c, err := kube.Client(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c, count
}

// scene is a Node and a namespace of a test's own.
type scene struct {
	t         *testing.T
	admin     kubernetes.Interface
	node, ns  string
	requests  *counter // of the client under test
	clientset kube.Interface
}

func newScene(t *testing.T, taints ...corev1.Taint) *scene {
	t.Helper()
	admin, err := kubernetes.NewForConfig(api)
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{t: t, admin: admin}
	s.clientset, s.requests = connect(t, api)
	n, err := admin.CoreV1().Nodes().Create(t.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "node-"}, Spec: corev1.NodeSpec{Taints: taints},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.node, s.ns = n.Name, n.Name
	if _, err := admin.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.ns}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *scene) client() *Client {
	s.t.Helper()
	c, err := New(Config{Clientset: s.clientset, Name: s.node})
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// watched is a Client that watches the Node, and knows it.
func (s *scene) watched(t *testing.T) *Client {
	t.Helper()
	c := s.client()
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	_, news := c.latest()
	watching.Go(func() { _ = c.Watch(ctx, func(View, bool) {}) })
	t.Cleanup(func() { cancel(); watching.Wait() })
	<-news
	return c
}

func (s *scene) view(c *Client) View {
	s.t.Helper()
	v, err := c.Get(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}

func (s *scene) drainer(c kube.Interface) *Drainer {
	s.t.Helper()
	d, err := NewDrainer(DrainerConfig{Clientset: c, Node: s.node, Metrics: prometheus.NewRegistry()})
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

// edit changes the Node as somebody else would.
func (s *scene) edit(f func(*corev1.Node)) {
	s.t.Helper()
	n, err := s.admin.CoreV1().Nodes().Get(s.t.Context(), s.node, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	f(n)
	if _, err := s.admin.CoreV1().Nodes().Update(s.t.Context(), n, metav1.UpdateOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// pod creates a running, ready pod on the node. It ends as soon as it is evicted, as it has no grace period.
func (s *scene) pod(name string, edits ...func(*corev1.Pod)) *corev1.Pod {
	s.t.Helper()
	none, yes := int64(0), true
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.ns, Labels: map[string]string{"app": "web"}},
		Spec: corev1.PodSpec{
			NodeName: s.node, TerminationGracePeriodSeconds: &none,
			Containers: []corev1.Container{{Name: "main", Image: "none"}},
		},
	}
	p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", UID: "web", Controller: &yes}}
	for _, edit := range edits {
		edit(p)
	}
	p, err := s.admin.CoreV1().Pods(s.ns).Create(s.t.Context(), p, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	p, err = s.admin.CoreV1().Pods(s.ns).UpdateStatus(s.t.Context(), p, metav1.UpdateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (s *scene) podNames() []string {
	s.t.Helper()
	l, err := s.admin.CoreV1().Pods(s.ns).List(s.t.Context(), metav1.ListOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	var names []string
	for _, p := range l.Items {
		if p.DeletionTimestamp == nil {
			names = append(names, p.Name)
		}
	}
	return names
}

// budget covers the pods of app web; allow sets how many evictions it allows now, as its controller would.
func (s *scene) budget(name string) {
	s.t.Helper()
	_, err := s.admin.PolicyV1().PodDisruptionBudgets(s.ns).Create(s.t.Context(), &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: policyv1.PodDisruptionBudgetSpec{
			MinAvailable: &intstr.IntOrString{IntVal: 3},
			Selector:     &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) allow(name string, disruptions int32) {
	s.t.Helper()
	b, err := s.admin.PolicyV1().PodDisruptionBudgets(s.ns).Get(s.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	b.Status = policyv1.PodDisruptionBudgetStatus{
		ObservedGeneration: b.Generation, DisruptionsAllowed: disruptions, ExpectedPods: 4, DesiredHealthy: 3, CurrentHealthy: 3 + disruptions,
	}
	if _, err := s.admin.PolicyV1().PodDisruptionBudgets(s.ns).UpdateStatus(s.t.Context(), b, metav1.UpdateOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

// drain runs a drain that must end within the time, and returns what it told.
func (s *scene) drain(d *Drainer, limit time.Duration, settings DrainSettings, also func(DrainView)) ([]DrainView, error) {
	s.t.Helper()
	var views []DrainView
	settings.Timeout = limit
	err := d.Run(s.t.Context(), settings, func(v DrainView) {
		views = append(views, v)
		if also != nil {
			also(v)
		}
	})
	return views, err
}

func ptr[T any](v T) *T { return &v }

func TestPatch(t *testing.T) {
	foreign := corev1.Taint{Key: "example.com/gpu", Value: "yes", Effect: corev1.TaintEffectNoSchedule}
	start := Change{Record: ptr(`{"version":1}`), Phase: ptr("Draining"), Unschedulable: ptr(true), Taint: ptr(true), Shield: ptr(true)}

	t.Run("cordon, record, label and taint go in one request and come back as they are then, foreign taints kept", func(t *testing.T) {
		s := newScene(t, foreign)
		c := s.client()
		v := s.view(c)
		s.requests.reset()
		got, err := c.Patch(t.Context(), v, start)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"PATCH /api/v1/nodes/" + s.node}, s.requests.calls); diff != "" {
			t.Error(diff)
		}
		want := s.view(c)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if !got.Unschedulable || !got.Tainted || got.Phase != "draining" || got.Record != `{"version":1}` {
			t.Errorf("%+v", got)
		}
		n, err := s.admin.CoreV1().Nodes().Get(t.Context(), s.node, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var all []corev1.Taint
		if err := json.Unmarshal([]byte(v.Taints), &all); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(all, foreign) {
			t.Fatalf("the view lacks the foreign taint: %v", all)
		}
		all = append(all, corev1.Taint{Key: TaintPending, Effect: corev1.TaintEffectPreferNoSchedule})
		if diff := cmp.Diff(all, n.Spec.Taints); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("everything is removed in one request, foreign taints kept", func(t *testing.T) {
		s := newScene(t, foreign)
		s.edit(func(n *corev1.Node) { n.Annotations = map[string]string{AnnotationRequest: "", AnnotationHold: "mine"} })
		c := s.client()
		before := s.view(c)
		if before.Request != "no reason given" || before.Hold != "mine" {
			t.Errorf("%+v", before)
		}
		v, err := c.Patch(t.Context(), before, start)
		if err != nil {
			t.Fatal(err)
		}
		v, err = c.Patch(t.Context(), v, Change{
			Record: ptr(""), History: ptr("[1]"), Phase: ptr(""), Unschedulable: ptr(false), Taint: ptr(false), Shield: ptr(false), ClearRequest: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		want := before
		want.ResourceVersion, want.History, want.Request = v.ResourceVersion, "[1]", ""
		want.Labels = map[string]string{}
		v.Labels = map[string]string{}
		if diff := cmp.Diff(want, v); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a shield whose value somebody has changed since is left to them", func(t *testing.T) {
		s := newScene(t)
		c := s.client()
		if _, err := c.Patch(t.Context(), s.view(c), Change{Shield: ptr(true), Exclude: true}); err != nil {
			t.Fatal(err)
		}
		s.edit(func(n *corev1.Node) {
			n.Annotations[AnnotationDoNotDisrupt], n.Labels[LabelExclude] = "false", "theirs"
		})
		v, err := c.Patch(t.Context(), s.view(c), Change{Shield: ptr(false)})
		if err != nil {
			t.Fatal(err)
		}
		n, err := s.admin.CoreV1().Nodes().Get(t.Context(), s.node, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if v.Shields != "" || n.Annotations[AnnotationDoNotDisrupt] != "false" || n.Labels[LabelExclude] != "theirs" || n.Annotations[AnnotationScaleDownDisabled] != "" {
			t.Errorf("shields %q, annotations %v, labels %v", v.Shields, n.Annotations, n.Labels)
		}
	})
	t.Run("the shields of others are neither changed nor taken off", func(t *testing.T) {
		for theirs, ours := range map[string][]string{
			"": {AnnotationScaleDownDisabled, AnnotationDoNotDisrupt}, AnnotationDoNotDisrupt: {AnnotationScaleDownDisabled},
			AnnotationScaleDownDisabled: {AnnotationDoNotDisrupt},
		} {
			s := newScene(t)
			if theirs != "" {
				s.edit(func(n *corev1.Node) { n.Annotations = map[string]string{theirs: "false"} })
			}
			c := s.client()
			before := s.view(c)
			v, err := c.Patch(t.Context(), before, Change{Shield: ptr(true)})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.Join(ours, ","), v.Shields); diff != "" {
				t.Error(diff)
			}
			n, err := s.admin.CoreV1().Nodes().Get(t.Context(), s.node, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, key := range ours {
				if n.Annotations[key] != "true" {
					t.Errorf("%s is %q", key, n.Annotations[key])
				}
			}
			if v, err = c.Patch(t.Context(), v, Change{Shield: ptr(true), History: ptr("[]")}); err != nil { // again, and nothing changes
				t.Fatal(err)
			}
			if v, err = c.Patch(t.Context(), v, Change{Shield: ptr(false), History: ptr("")}); err != nil {
				t.Fatal(err)
			}
			v.ResourceVersion = before.ResourceVersion
			if diff := cmp.Diff(before, v); diff != "" {
				t.Error(diff)
			}
		}
	})
	t.Run("a controller that removes the node is seen by its taint", func(t *testing.T) {
		s := newScene(t, corev1.Taint{Key: "karpenter.sh/disrupted", Effect: corev1.TaintEffectNoSchedule})
		if v := s.view(s.client()); v.Removal != "karpenter.sh/disrupted" {
			t.Errorf("removal %q", v.Removal)
		}
	})
	t.Run("a view that is no longer true is refused with 409 and nothing changes", func(t *testing.T) {
		s := newScene(t)
		c := s.client()
		v := s.view(c)
		s.edit(func(n *corev1.Node) { n.Annotations = map[string]string{"a": "b"} })
		if _, err := c.Patch(t.Context(), v, start); !apierrors.IsConflict(err) {
			t.Errorf("got %v, want 409", err)
		}
		if got := s.view(c); got.Unschedulable || got.Tainted || got.Record != "" {
			t.Errorf("%+v", got)
		}
	})
	t.Run("a taint that somebody adds between our read and our patch is not lost: 409", func(t *testing.T) {
		s := newScene(t)
		c := s.client()
		v := s.view(c)
		s.edit(func(n *corev1.Node) { n.Spec.Taints = append(n.Spec.Taints, foreign) })
		if _, err := c.Patch(t.Context(), v, start); !apierrors.IsConflict(err) {
			t.Errorf("got %v, want 409", err)
		}
		v, err := c.Patch(t.Context(), s.view(c), start)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(v.Taints, foreign.Key) || !v.Tainted {
			t.Errorf("taints %s", v.Taints)
		}
	})
	t.Run("another Node of the same name is refused, even with its own resourceVersion", func(t *testing.T) {
		s := newScene(t)
		c := s.client()
		old := s.view(c)
		if err := s.admin.CoreV1().Nodes().Delete(t.Context(), s.node, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Patch(t.Context(), old, start); !apierrors.IsNotFound(err) {
			t.Errorf("without a Node: got %v, want 404", err)
		}
		if _, err := s.admin.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: s.node}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Patch(t.Context(), old, start); !apierrors.IsConflict(err) {
			t.Errorf("with another Node: got %v, want 409", err)
		}
		mixed := old
		mixed.ResourceVersion = s.view(c).ResourceVersion
		if _, err := c.Patch(t.Context(), mixed, start); !apierrors.IsInvalid(err) && !apierrors.IsConflict(err) {
			t.Errorf("with the UID of another: got %v, want 409 or 422", err)
		}
		if got := s.view(c); got.Unschedulable {
			t.Error("it was cordoned")
		}
	})
	t.Run("a change that changes nothing is not sent", func(t *testing.T) {
		s := newScene(t)
		c := s.client()
		v, err := c.Patch(t.Context(), s.view(c), start)
		if err != nil {
			t.Fatal(err)
		}
		s.requests.reset()
		got, err := c.Patch(t.Context(), v, Change{
			Record: ptr(v.Record), History: ptr(""), Phase: ptr("Draining"), Unschedulable: ptr(true), Taint: ptr(true),
			ClearRequest: true, ClearAcknowledge: true,
		})
		if err != nil || len(s.requests.calls) != 0 {
			t.Errorf("got %v, requests %v", err, s.requests.calls)
		}
		if diff := cmp.Diff(v, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a view without UID or resourceVersion is not sent", func(t *testing.T) {
		s := newScene(t)
		c := s.client()
		for _, v := range []View{{UID: "x"}, {ResourceVersion: "1"}} {
			if _, err := c.Patch(t.Context(), v, start); !errors.Is(err, errNoVersion) {
				t.Errorf("got %v", err)
			}
		}
	})
}

func TestGet(t *testing.T) {
	t.Run("the view shows what the kubelet reports", func(t *testing.T) {
		s := newScene(t)
		n, err := s.admin.CoreV1().Nodes().Get(t.Context(), s.node, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		n.Status.NodeInfo.BootID = "boot-1"
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		p := pod("x", asksFor("nvidia.com/gpu"), asksFor("cpu"))
		n.Status.Allocatable = p.Spec.Containers[0].Resources.Limits
		if _, err := s.admin.CoreV1().Nodes().UpdateStatus(t.Context(), n, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		v := s.view(s.client())
		if v.BootID != "boot-1" || !v.Ready || v.UID != string(n.UID) || v.Deleting {
			t.Errorf("%+v", v)
		}
		if diff := cmp.Diff(map[string]int64{"cpu": 1000}, v.Allocatable); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a Node that is not there is a 404", func(t *testing.T) {
		s := newScene(t)
		s.node = "nowhere"
		if _, err := s.client().Get(t.Context()); !apierrors.IsNotFound(err) {
			t.Errorf("got %v", err)
		}
	})
}

func TestNew(t *testing.T) {
	t.Run("all that is missing is named", func(t *testing.T) {
		if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "clientset") || !strings.Contains(err.Error(), "node name") {
			t.Errorf("got %v", err)
		}
		_, err := NewDrainer(DrainerConfig{Concurrency: -1, Follow: &Client{name: "other"}})
		for _, want := range []string{"clientset", "node name", "negative", "other"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want it to name %q", err, want)
			}
		}
	})
	t.Run("metrics that are registered already are a fault", func(t *testing.T) {
		s, r := newScene(t), prometheus.NewRegistry()
		cfg := DrainerConfig{Clientset: s.clientset, Node: s.node, Metrics: r}
		if _, err := NewDrainer(cfg); err != nil {
			t.Fatal(err)
		}
		if _, err := NewDrainer(cfg); err == nil {
			t.Error("got no error")
		}
	})
}

func TestEvent(t *testing.T) {
	t.Run("it is found as `kubectl describe node` looks for it, a message too long is cut", func(t *testing.T) {
		s := newScene(t)
		c := s.client()
		v := s.view(c)
		if err := c.Event(t.Context(), v, "Warning", "BatonBackoff", strings.Repeat("ä", 2000)); err != nil {
			t.Fatal(err)
		}
		l, err := s.admin.CoreV1().Events(metav1.NamespaceAll).List(t.Context(), metav1.ListOptions{FieldSelector: fields.Set{
			"involvedObject.name": s.node, "involvedObject.namespace": "", "involvedObject.kind": "Node", "involvedObject.uid": v.UID,
		}.String()})
		if err != nil || len(l.Items) != 1 {
			t.Fatalf("got %v, %d events", err, len(l.Items))
		}
		if e := l.Items[0]; e.Type != "Warning" || e.Reason != "BatonBackoff" || !strings.HasSuffix(e.Message, "ä…") {
			t.Errorf("%+v", e)
		}
	})
}

// proxy stands before the real API server; before may answer in its place.
type proxy struct {
	*httptest.Server
	mu     sync.Mutex
	before func(http.ResponseWriter, *http.Request) bool
}

func (p *proxy) answer(f func(http.ResponseWriter, *http.Request) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before = f
}

func newProxy(t *testing.T) (*proxy, *rest.Config) {
	t.Helper()
	target, err := url.Parse(api.Host)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(api)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{}
	reverse := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: transport, FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		before := p.before
		p.mu.Unlock()
		if before == nil || !before(w, r) {
			reverse.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() { p.CloseClientConnections(); p.Close() })
	return p, &rest.Config{Host: p.URL}
}

func TestWatch(t *testing.T) {
	t.Run("it tells the first state, each change, the end and the next Node of the name, also over a cut connection", func(t *testing.T) {
		s := newScene(t)
		p, cfg := newProxy(t)
		s.clientset, s.requests = connect(t, cfg)
		c := s.client()
		ctx, cancel := context.WithCancel(t.Context())
		type state struct {
			View
			exists bool
		}
		told := make(chan state, 100)
		ended := make(chan error)
		go func() { ended <- c.Watch(ctx, func(v View, exists bool) { told <- state{v, exists} }) }()
		await := func(what string, ok func(state) bool) {
			t.Helper()
			deadline := time.After(20 * time.Second)
			for {
				select {
				case got := <-told:
					if ok(got) {
						return
					}
				case <-deadline:
					t.Fatalf("it never told: %s", what)
				}
			}
		}
		await("the Node as it is", func(st state) bool { return st.exists && st.Name == s.node })
		s.edit(func(n *corev1.Node) { n.Spec.Unschedulable = true })
		await("the cordon", func(st state) bool { return st.Unschedulable })
		p.CloseClientConnections()
		s.edit(func(n *corev1.Node) { n.Spec.Unschedulable = false })
		await("the uncordon after the cut", func(st state) bool { return st.exists && !st.Unschedulable })
		if err := s.admin.CoreV1().Nodes().Delete(ctx, s.node, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		await("the end", func(st state) bool { return !st.exists })
		if _, err := s.admin.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: s.node}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		await("the next Node", func(st state) bool { return st.exists })
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("a Node that is not there is told", func(t *testing.T) {
		s := newScene(t)
		s.node = "nowhere"
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var got []bool
		if err := s.client().Watch(ctx, func(_ View, exists bool) { got = append(got, exists); cancel() }); !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
		if !slices.Equal(got, []bool{false}) {
			t.Errorf("told %v", got)
		}
	})
}

func TestEvict(t *testing.T) {
	t.Run("a pod re-created under the same name is not hit by the eviction of the one before", func(t *testing.T) {
		s := newScene(t)
		first := s.pod("db-0")
		old := Plan([]*corev1.Pod{first}, Policy{}, Facts{}).Pods[0]
		if err := s.admin.CoreV1().Pods(s.ns).Delete(t.Context(), "db-0", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		s.pod("db-0")
		err := s.drainer(s.clientset).evict(t.Context(), old, 0)
		if !apierrors.IsConflict(err) || classify(err).result != resultGone {
			t.Errorf("got %v, want 409, which reads as gone", err)
		}
		if diff := cmp.Diff([]string{"db-0"}, s.podNames()); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a longest grace period shortens that of a pod, and lengthens none", func(t *testing.T) {
		s := newScene(t)
		for name, own := range map[string]int64{"slow": 3600, "quick": 2} {
			p := s.pod(name, func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = &own })
			if err := s.drainer(s.clientset).evict(t.Context(), Plan([]*corev1.Pod{p}, Policy{}, Facts{}).Pods[0], time.Minute); err != nil {
				t.Fatal(err)
			}
			got, err := s.admin.CoreV1().Pods(s.ns).Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if want := min(own, 60); *got.DeletionGracePeriodSeconds != want {
				t.Errorf("%s has %d s, want %d", name, *got.DeletionGracePeriodSeconds, want)
			}
		}
	})
	t.Run("a part of a second is a second: no pod is ended by force", func(t *testing.T) {
		s := newScene(t)
		p := s.pod("web-0", func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr(int64(30)) })
		if err := s.drainer(s.clientset).evict(t.Context(), Plan([]*corev1.Pod{p}, Policy{}, Facts{}).Pods[0], 500*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		got, err := s.admin.CoreV1().Pods(s.ns).Get(t.Context(), "web-0", metav1.GetOptions{})
		if err != nil || *got.DeletionGracePeriodSeconds != 1 {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("a pod that is not there is gone", func(t *testing.T) {
		s := newScene(t)
		err := s.drainer(s.clientset).evict(t.Context(), PodPlan{Namespace: s.ns, Name: "none", UID: "x"}, 0)
		if !apierrors.IsNotFound(err) || classify(err).result != resultGone {
			t.Errorf("got %v", err)
		}
	})
	t.Run("an eviction in a namespace that is being deleted is refused, not taken for gone", func(t *testing.T) {
		s := newScene(t)
		slow := s.pod("web-0", func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr(int64(600)) })
		p := Plan([]*corev1.Pod{slow}, Policy{}, Facts{}).Pods[0]
		if err := s.admin.CoreV1().Namespaces().Delete(t.Context(), s.ns, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		d := s.drainer(s.clientset)
		deadline := time.Now().Add(10 * time.Second)
		err := d.evict(t.Context(), p, 0)
		for err == nil && time.Now().Before(deadline) { // admission looks at a cache: it may be late
			err = d.evict(t.Context(), p, 0)
		}
		if !apierrors.IsForbidden(err) || classify(err).result != resultRefused {
			t.Errorf("got %v, want 403, which reads as refused", err)
		}
	})
	t.Run("the answers of the API server about budgets are understood", func(t *testing.T) {
		s := newScene(t)
		d := s.drainer(s.clientset)
		p := Plan([]*corev1.Pod{s.pod("web-0")}, Policy{}, Facts{}).Pods[0]
		s.budget("web")
		got := classify(d.evict(t.Context(), p, 0))
		want := answer{result: resultBudget, budget: "web", message: "is still being processed by the server.", after: 10 * time.Second}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(answer{})); diff != "" {
			t.Errorf("a new budget: %s", diff)
		}
		s.allow("web", 0)
		got = classify(d.evict(t.Context(), p, 0))
		want.message, want.after = "needs 3 healthy pods and has 3 currently", 0
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(answer{})); diff != "" {
			t.Errorf("a budget without room: %s", diff)
		}
		s.budget("second")
		got = classify(d.evict(t.Context(), p, 0))
		if got.result != resultRefused || got.after != severalBudgets {
			t.Errorf("two budgets: %+v", got)
		}
		if diff := cmp.Diff([]string{"web-0"}, s.podNames()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestDrain(t *testing.T) {
	ride := DrainSettings{Policy: Policy{Unmanaged: DoRideThrough}}
	alone := func(p *corev1.Pod) { p.OwnerReferences = nil }

	t.Run("it evicts what it should and leaves what stays", func(t *testing.T) {
		s := newScene(t)
		s.pod("web-0")
		s.pod("green", alone)
		s.pod("proxy", func(p *corev1.Pod) { p.OwnerReferences[0].Kind = kindDaemonSet })
		s.pod("elsewhere", func(p *corev1.Pod) { p.Spec.NodeName = "another" })
		views, err := s.drain(s.drainer(s.clientset), time.Minute, ride, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"elsewhere", "green", "proxy"}, s.podNames()); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(DrainView{Empty: true, Evicted: 1, Summary: "1 pod evicted, 1 stay"}, views[len(views)-1]); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a full node costs one request a pod, one watch, and a list of budgets", func(t *testing.T) {
		s := newScene(t)
		const pods = 110
		for i := range pods {
			s.pod(fmt.Sprintf("p%03d", i), func(p *corev1.Pod) { p.OwnerReferences[0].UID = types.UID(fmt.Sprint("rs-", i%12)) })
		}
		s.requests.reset()
		begun := time.Now()
		if _, err := s.drain(s.drainer(s.clientset), time.Minute, ride, nil); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d pods of 12 controllers: %v, %d requests", pods, time.Since(begun), len(s.requests.calls))
		if n := len(s.requests.calls); n != pods+2 {
			t.Errorf("%d requests", n)
		}
		if n := s.requests.count("DELETE"); n != 0 {
			t.Errorf("%d of them DELETE", n)
		}
	})
	for name, inAgent := range map[string]bool{"by itself": false, "after a preflight, by an agent that watches the Node": true} {
		t.Run("what a drain asks for "+name, func(t *testing.T) {
			s := newScene(t)
			const pods = 5
			var want []string
			for i := range pods {
				p := s.pod(fmt.Sprint("p", i), func(p *corev1.Pod) { p.OwnerReferences[0].UID = types.UID(fmt.Sprint("rs-", i)) })
				want = append(want, "POST /api/v1/namespaces/"+s.ns+"/pods/"+p.Name+"/eviction")
			}
			cfg := DrainerConfig{Clientset: s.clientset, Node: s.node}
			if inAgent {
				cfg.Follow = s.watched(t)
			} else {
				want = append(want, "WATCH /api/v1/pods", "WATCH /api/v1/nodes", "GET /apis/policy/v1/namespaces/"+s.ns+"/poddisruptionbudgets")
			}
			d, err := NewDrainer(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := d.Look(t.Context(), DrainSettings{}, inAgent); err != nil {
				t.Fatal(err)
			}
			s.requests.reset()
			if _, err := s.drain(d, time.Minute, DrainSettings{Volumes: time.Minute}, nil); err != nil {
				t.Fatal(err)
			}
			slices.Sort(want)
			if diff := cmp.Diff(want, slices.Sorted(slices.Values(s.requests.calls))); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("many pods under one budget that allows them all go without a refusal", func(t *testing.T) {
		s := newScene(t)
		for i := range 20 {
			s.pod(fmt.Sprintf("web-%02d", i))
		}
		s.budget("web")
		s.allow("web", 20)
		s.requests.reset()
		begun := time.Now()
		if _, err := s.drain(s.drainer(s.clientset), time.Minute, ride, nil); err != nil {
			t.Fatal(err)
		}
		t.Logf("20 pods under one open budget: %v, %d requests", time.Since(begun), len(s.requests.calls))
		if n := s.requests.count("eviction"); n != 20 {
			t.Errorf("%d evictions asked", n)
		}
	})
	t.Run("a budget that never allows holds the drain until its deadline, named, at little cost", func(t *testing.T) {
		s := newScene(t)
		for i := range 10 {
			s.pod(fmt.Sprintf("web-%d", i))
		}
		s.budget("web")
		s.allow("web", 0)
		s.requests.reset()
		views, err := s.drain(s.drainer(s.clientset), 4*time.Second, ride, nil)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		want := DrainView{Running: true, Remaining: 10, Reason: ReasonBudget, Message: fmt.Sprintf(
			"%[1]s/web-0, %[1]s/web-1, %[1]s/web-2 and 7 more: disruption budget %[1]s/web needs 3 healthy pods and has 3 currently", s.ns)}
		if diff := cmp.Diff(want, views[len(views)-1]); diff != "" {
			t.Error(diff)
		}
		if n := s.requests.count("eviction"); n > 4 {
			t.Errorf("asked %d times", n)
		}
		if n := len(s.podNames()); n != 10 {
			t.Errorf("%d pods left", n)
		}
	})
	t.Run("a drain that an earlier process began ends when that one would have", func(t *testing.T) {
		s := newScene(t)
		s.pod("web-0")
		s.budget("web")
		s.allow("web", 0)
		again, begun := ride, time.Now()
		again.Begun, again.Timeout = begun.Add(-time.Hour), time.Hour+2*time.Second
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		err := s.drainer(s.clientset).Run(ctx, again, func(DrainView) {})
		if took := time.Since(begun); !errors.Is(err, context.DeadlineExceeded) || took > 15*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	})
	t.Run("a budget that allows one at a time lets the drain through", func(t *testing.T) {
		s := newScene(t)
		for i := range 3 {
			s.pod(fmt.Sprintf("web-%d", i))
		}
		s.budget("web")
		s.allow("web", 1)
		views, err := s.drain(s.drainer(s.clientset), time.Minute, ride, func(v DrainView) {
			if v.Reason == ReasonBudget {
				s.allow("web", 1)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(DrainView{Empty: true, Evicted: 3, Summary: "3 pods evicted"}, views[len(views)-1]); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a pod of the same name that follows the evicted one is evicted on its own", func(t *testing.T) {
		s := newScene(t)
		s.pod("db-0", func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr(int64(600)) })
		replace := sync.OnceFunc(func() {
			if err := s.admin.CoreV1().Pods(s.ns).Delete(t.Context(), "db-0", metav1.DeleteOptions{GracePeriodSeconds: ptr(int64(0))}); err != nil {
				t.Error(err)
			}
			s.pod("db-0")
		})
		views, err := s.drain(s.drainer(s.clientset), time.Minute, ride, func(v DrainView) {
			if v.Evicted == 1 {
				replace()
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := views[len(views)-1]; got.Evicted != 2 || len(s.podNames()) != 0 {
			t.Errorf("%+v, left %v", got, s.podNames())
		}
	})
	t.Run("the watch resumes after a cut: a pod that ends meanwhile is seen", func(t *testing.T) {
		s := newScene(t)
		p, cfg := newProxy(t)
		s.clientset, s.requests = connect(t, cfg)
		s.pod("web-0", func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr(int64(600)) })
		cutOnce := sync.OnceFunc(func() {
			p.CloseClientConnections()
			if err := s.admin.CoreV1().Pods(s.ns).Delete(t.Context(), "web-0", metav1.DeleteOptions{GracePeriodSeconds: ptr(int64(0))}); err != nil {
				t.Error(err)
			}
		})
		if _, err := s.drain(s.drainer(s.clientset), time.Minute, ride, func(v DrainView) {
			if v.Evicted == 1 {
				cutOnce()
			}
		}); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("a throttling server is left alone for as long as it says, and then asked again", func(t *testing.T) {
		s := newScene(t)
		p, cfg := newProxy(t)
		s.clientset, s.requests = connect(t, cfg)
		s.pod("web-0")
		var asked []time.Time
		p.answer(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/eviction") {
				return false
			}
			asked = append(asked, time.Now())
			if len(asked) > 1 {
				return false
			}
			w.Header().Set("Retry-After", "3")
			http.Error(w, "Too many requests, please try again later.", http.StatusTooManyRequests)
			return true
		})
		views, err := s.drain(s.drainer(s.clientset), time.Minute, ride, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(asked) != 2 || asked[1].Sub(asked[0]) < 3*time.Second {
			t.Errorf("asked at %v", asked)
		}
		if !slices.ContainsFunc(views, func(v DrainView) bool { return v.Reason == ReasonEviction }) {
			t.Errorf("nobody was told: %+v", views)
		}
	})
	t.Run("a server that answers 503 is asked again, unseen by the client's own retries", func(t *testing.T) {
		s := newScene(t)
		p, cfg := newProxy(t)
		s.clientset, s.requests = connect(t, cfg)
		s.pod("web-0")
		asked := 0
		p.answer(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/eviction") {
				return false
			}
			asked++
			if asked > 2 {
				return false
			}
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		})
		views, err := s.drain(s.drainer(s.clientset), time.Minute, ride, nil)
		if err != nil || asked != 3 {
			t.Fatalf("got %v, asked %d times", err, asked)
		}
		if !slices.ContainsFunc(views, func(v DrainView) bool { return v.Reason == ReasonEviction }) {
			t.Errorf("nobody was told: %+v", views)
		}
	})
}

func TestLook(t *testing.T) {
	t.Run("one list tells what blocks a drain and who is ready, of the own pods only", func(t *testing.T) {
		s := newScene(t)
		s.pod("green", func(p *corev1.Pod) { p.OwnerReferences = nil })
		s.pod("proxy-x", func(p *corev1.Pod) { p.OwnerReferences[0].Kind, p.OwnerReferences[0].Name = kindDaemonSet, "proxy" })
		s.pod("elsewhere", func(p *corev1.Pod) { p.Spec.NodeName, p.OwnerReferences = "another", nil })
		d := s.drainer(s.clientset)
		s.requests.reset()
		o, err := d.Look(t.Context(), DrainSettings{}, false)
		if want := s.ns + "/green: it has no controller: an eviction would delete it for good"; err != nil || o.Reason != ReasonUnmanagedPod || o.Message != want {
			t.Errorf("got %q, %q, %v", o.Reason, o.Message, err)
		}
		if len(o.Ready) != 1 || !strings.HasPrefix(o.Ready[0], "daemonset/"+s.ns+"/proxy@") {
			t.Errorf("got %q", o.Ready)
		}
		if len(s.requests.calls) != 1 {
			t.Errorf("requests %v", s.requests.calls)
		}
	})
}

func TestAwaitReady(t *testing.T) {
	t.Run("it tells who is missing at once, and that nobody is when the containers are new and ready", func(t *testing.T) {
		s := newScene(t)
		p := s.pod("proxy-x", func(p *corev1.Pod) { p.OwnerReferences[0].Kind, p.OwnerReferences[0].Name = kindDaemonSet, "proxy" })
		d := s.drainer(s.clientset)
		before, err := d.Look(t.Context(), DrainSettings{}, false)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var told [][]string
		err = d.AwaitReady(ctx, before.Ready, func(missing []string) {
			told = append(told, missing)
			if len(told) > 1 {
				cancel()
				return
			}
			s.pod("web-0") // of no concern: nothing is told
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", ContainerID: "containerd://new"}}
			if _, err := s.admin.CoreV1().Pods(s.ns).UpdateStatus(t.Context(), p, metav1.UpdateOptions{}); err != nil {
				t.Error(err)
			}
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
		if diff := cmp.Diff([][]string{{"daemonset/" + s.ns + "/proxy"}, nil}, told); diff != "" {
			t.Error(diff)
		}
	})
}

// agent returns the configuration of a ServiceAccount's token bound to a pod on the scene's node, with rules granted.
func (s *scene) agent(rules ...rbacv1.PolicyRule) *rest.Config {
	s.t.Helper()
	ctx := s.t.Context()
	if _, err := s.admin.CoreV1().ServiceAccounts(s.ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "agent"}}, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	p := s.pod("agent", func(p *corev1.Pod) { p.Spec.ServiceAccountName, p.OwnerReferences[0].Kind = "agent", kindDaemonSet })
	token, err := s.admin.CoreV1().ServiceAccounts(s.ns).CreateToken(ctx, "agent", &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID}},
	}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: s.ns}, Rules: rules}
	if _, err := s.admin.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.admin.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: s.ns},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: s.ns},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: s.ns, Name: "agent"}},
	}, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	cfg := rest.AnonymousClientConfig(api)
	cfg.BearerToken = token.Status.Token
	return cfg
}

// ownNodeRules is what doc of OwnNodeConfig asks for.
func ownNodeRules() []rbacv1.PolicyRule {
	return []rbacv1.PolicyRule{
		{APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"nodes"}, Verbs: []string{"impersonate:associated-node"}},
		{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"impersonate-on:associated-node:list", "impersonate-on:associated-node:watch"}},
		{APIGroups: []string{""}, Resources: []string{"pods/eviction"}, Verbs: []string{"impersonate-on:associated-node:create"}},
	}
}

// permitted waits until the authorizer has seen what was granted a moment ago.
func permitted(t *testing.T, c kube.Interface, node string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := listPods(t.Context(), c, node)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-tick.C
	}
}

func TestOwnNode(t *testing.T) {
	t.Run("an agent with the three rights drains its own node as that node", func(t *testing.T) {
		s := newScene(t)
		own, _ := connect(t, OwnNodeConfig(s.agent(ownNodeRules()...), s.node))
		permitted(t, own, s.node)
		s.pod("web-0")
		if _, err := s.drain(s.drainer(own), time.Minute, DrainSettings{}, nil); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"agent"}, s.podNames()); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("it can neither read nor evict the pods of another node", func(t *testing.T) {
		s, other := newScene(t), newScene(t)
		cfg := s.agent(ownNodeRules()...)
		own, _ := connect(t, OwnNodeConfig(cfg, s.node))
		permitted(t, own, s.node)
		foreign := Plan([]*corev1.Pod{other.pod("web-0")}, Policy{}, Facts{}).Pods[0]
		if err := s.drainer(own).evict(t.Context(), foreign, 0); !apierrors.IsForbidden(err) {
			t.Errorf("evicting as the own node: got %v, want 403", err)
		}
		if _, err := listPods(t.Context(), own, other.node); !apierrors.IsForbidden(err) {
			t.Errorf("listing as the own node: got %v, want 403", err)
		}
		asOther, _ := connect(t, OwnNodeConfig(cfg, other.node))
		if _, err := listPods(t.Context(), asOther, other.node); !apierrors.IsForbidden(err) {
			t.Errorf("as the other node: got %v, want 403", err)
		}
		if diff := cmp.Diff([]string{"web-0"}, other.podNames()); diff != "" {
			t.Error(diff)
		}
	})
	plainRules := []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list", "watch"}},
		{APIGroups: []string{""}, Resources: []string{"pods/eviction"}, Verbs: []string{"create"}},
	}
	for name, tc := range map[string]struct {
		rules     []rbacv1.PolicyRule
		own, pods int // requests as the node, and in the agent's name for pods and evictions
		says      int // lines of the log
	}{
		"where both is admitted it never acts in its own name":                                         {rules: append(plainRules, ownNodeRules()...), own: 2},
		"without the right for impersonation itself it asks once, says so, and drains in its own name": {rules: append(plainRules, ownNodeRules()[1:]...), own: 1, pods: 2, says: 1},
		"nor does it ask again without the rights to list and watch":                                   {rules: append(plainRules, ownNodeRules()[0], ownNodeRules()[2]), own: 1, pods: 2, says: 1},
	} {
		test := func(t *testing.T, preflight bool) {
			s := newScene(t)
			cfg := s.agent(tc.rules...)
			own, asNode := connect(t, OwnNodeConfig(cfg, s.node))
			plain, asAgent := connect(t, cfg)
			permitted(t, plain, s.node)
			if tc.pods == 0 {
				permitted(t, own, s.node)
			}
			s.pod("web-0")
			asNode.reset()
			asAgent.reset()
			var log strings.Builder
			d, err := NewDrainer(DrainerConfig{Clientset: own, Cluster: plain, Node: s.node, Log: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			if preflight {
				if _, err := d.Look(t.Context(), DrainSettings{}, true); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.drain(d, time.Minute, DrainSettings{}, nil); err != nil { // its first request is a WATCH
				t.Fatal(err)
			}
			if n, m := asNode.count("/pods"), asAgent.count("/pods"); n != tc.own || m != tc.pods {
				t.Errorf("as the node %v, as the agent %v", asNode.calls, asAgent.calls)
			}
			if n := strings.Count(log.String(), "the agent's own rights"); n != tc.says || strings.Count(log.String(), "\n") != n {
				t.Errorf("it says: %s", log.String())
			}
		}
		t.Run(name, func(t *testing.T) { test(t, false) })
		t.Run(name+", as it has found out by a preflight", func(t *testing.T) { test(t, true) })
	}
	t.Run("the request carries the user name and nothing else", func(t *testing.T) {
		var got []http.Header
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got = append(got, r.Header)
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "{}")
		}))
		defer server.Close()
		own, _ := connect(t, OwnNodeConfig(&rest.Config{Host: server.URL}, "n1"))
		_, _ = listPods(t.Context(), own, "n1")
		want := map[string][]string{"Impersonate-User": {"system:node:n1"}}
		for _, header := range got {
			sent := map[string][]string{}
			for k, v := range header {
				if strings.HasPrefix(k, "Impersonate-") {
					sent[k] = v
				}
			}
			if diff := cmp.Diff(want, sent); diff != "" {
				t.Error(diff)
			}
		}
		if len(got) == 0 {
			t.Error("nothing was sent")
		}
	})
}
