package node

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestBudgetWarnings(t *testing.T) {
	labelled := func(app string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Labels = map[string]string{"app": app} }
	}
	one := func(name string, edits ...func(*corev1.Pod)) *corev1.Pod {
		return pod(name, append([]func(*corev1.Pod){ownedBy("ReplicaSet", "web"), labelled("web")}, edits...)...)
	}
	budget := func(name string, allowed int32, edits ...func(*policyv1.PodDisruptionBudget)) policyv1.PodDisruptionBudget {
		b := policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Generation: 1},
			Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
			Status:     policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, DisruptionsAllowed: allowed, CurrentHealthy: 3, ExpectedPods: 3, DesiredHealthy: 3 - allowed},
		}
		for _, edit := range edits {
			edit(&b)
		}
		return b
	}
	unready := func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }
	lenient := func(b *policyv1.PodDisruptionBudget) {
		always := policyv1.AlwaysAllow
		b.Spec.UnhealthyPodEvictionPolicy = &always
	}
	for _, tc := range []struct {
		name    string
		pods    []*corev1.Pod
		budgets []policyv1.PodDisruptionBudget
		want    []string
	}{
		{"a budget that allows it is no warning", []*corev1.Pod{one("a")}, []policyv1.PodDisruptionBudget{budget("web", 1)}, nil},
		{"one that allows nothing is", []*corev1.Pod{one("a")}, []policyv1.PodDisruptionBudget{budget("web", 0)}, []string{
			"shop/a: disruption budget web allows 0 of 1 now: 3 of 3 pods are healthy, it needs 3",
		}},
		{"the pods of this node are summed", []*corev1.Pod{one("a"), one("b"), one("c")}, []policyv1.PodDisruptionBudget{budget("web", 2)}, []string{
			"shop/a, shop/b, shop/c: disruption budget web allows 2 of 3 now: 3 of 3 pods are healthy, it needs 1",
		}},
		{"two budgets over one pod are named", []*corev1.Pod{one("a")}, []policyv1.PodDisruptionBudget{budget("web", 1), budget("all", 1, func(b *policyv1.PodDisruptionBudget) {
			b.Spec.Selector = &metav1.LabelSelector{}
		})}, []string{"shop/a: more than one disruption budget covers it, which the API server does not support: all, web"}},
		{"a status that is behind is no answer", []*corev1.Pod{one("a")}, []policyv1.PodDisruptionBudget{budget("web", 1, func(b *policyv1.PodDisruptionBudget) { b.Generation = 2 })}, []string{
			"shop/a: disruption budget web is newer than its status: its controller has not looked at it yet",
		}},
		{"a budget of another namespace is none of its", []*corev1.Pod{one("a", func(p *corev1.Pod) { p.Namespace = "bank" })}, []policyv1.PodDisruptionBudget{budget("web", 0)}, nil},
		{"a budget without a selector covers nothing", []*corev1.Pod{one("a")}, []policyv1.PodDisruptionBudget{budget("web", 0, func(b *policyv1.PodDisruptionBudget) { b.Spec.Selector = nil })}, nil},
		{"a pod that has not started needs no budget", []*corev1.Pod{one("a", func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending })}, []policyv1.PodDisruptionBudget{budget("web", 0)}, nil},
		{"pods that are not ready count too", []*corev1.Pod{one("a", unready)}, []policyv1.PodDisruptionBudget{budget("web", 0)}, []string{
			"shop/a: disruption budget web allows 0 of 1 now: 3 of 3 pods are healthy, it needs 3",
		}},
		{"but not with a budget that always lets them go", []*corev1.Pod{one("a", unready), one("b")}, []policyv1.PodDisruptionBudget{budget("web", 0, lenient)}, []string{
			"shop/b: disruption budget web allows 0 of 1 now: 3 of 3 pods are healthy, it needs 3",
		}},
		{"a pod that is not evicted needs none", []*corev1.Pod{one("a", says(DoRideThrough))}, []policyv1.PodDisruptionBudget{budget("web", 0)}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			warnings, warned := budgetWarnings(tc.pods, Plan(tc.pods, Policy{}, Facts{}).Pods, tc.budgets)
			var got []string
			for _, w := range warnings {
				got = append(got, w.Message)
				if w.Reason != ReasonBudget {
					t.Errorf("reason %q", w.Reason)
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			if (len(warned) > 0) != (len(tc.want) > 0) {
				t.Errorf("warned of %v", warned)
			}
		})
	}
}

func TestPreflight(t *testing.T) {
	t.Run("budgets are read once, evictions are tried on once a controller, and nothing is evicted", func(t *testing.T) {
		s := newScene(t)
		for _, name := range []string{"web-0", "web-1", "web-2"} {
			s.pod(name)
		}
		s.pod("other", func(p *corev1.Pod) { p.Labels, p.OwnerReferences[0].Name = nil, "other" })
		s.budget("web")
		s.allow("web", 1)
		d := s.drainer(s.clientset)
		s.requests.reset()
		plan, warnings, err := d.Preflight(t.Context(), DrainSettings{})
		if err != nil {
			t.Fatal(err)
		}
		want := s.ns + "/web-0, " + s.ns + "/web-1, " + s.ns + "/web-2: disruption budget web allows 1 of 3 now: 4 of 4 pods are healthy, it needs 3"
		if len(plan.Pods) != 4 || len(warnings) != 1 || warnings[0].Message != want {
			t.Errorf("plan %+v, warnings %+v", plan, warnings)
		}
		if diff := cmp.Diff([]string{
			"GET /api/v1/pods", "GET /apis/apps/v1/namespaces/" + s.ns + "/replicasets/web", "GET /apis/policy/v1/namespaces/" + s.ns + "/poddisruptionbudgets", "POST /api/v1/namespaces/" + s.ns + "/pods/other/eviction",
		}, s.requests.calls); diff != "" {
			t.Error(diff)
		}
		if names := s.podNames(); len(names) != 4 {
			t.Errorf("left are %v", names)
		}
	})
	bare := func(p *corev1.Pod) { p.OwnerReferences = nil }
	deleted := DrainSettings{Policy: Policy{Unmanaged: DoDelete}}
	t.Run("each pod without a controller is tried on by itself", func(t *testing.T) {
		s := newScene(t)
		s.pod("a", bare)
		s.pod("b", bare)
		s.requests.reset()
		if _, _, err := s.drainer(s.clientset).Preflight(t.Context(), deleted); err != nil {
			t.Fatal(err)
		}
		if n := s.requests.count("/eviction"); n != 2 {
			t.Errorf("%d evictions are tried on", n)
		}
	})
	t.Run("a webhook that cannot be asked by a dry run refuses nothing", func(t *testing.T) {
		s := newScene(t)
		p, cfg := newProxy(t)
		s.clientset, s.requests = connect(t, cfg)
		s.pod("a", bare)
		p.answer(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "/eviction") {
				return false
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			err := apierrors.NewBadRequest(`admission webhook "guard.example.com" does not support dry run`)
			err.ErrStatus.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
			_ = json.NewEncoder(w).Encode(err.ErrStatus)
			return true
		})
		if _, warnings, err := s.drainer(s.clientset).Preflight(t.Context(), deleted); err != nil || len(warnings) != 0 || s.requests.count("/eviction") != 1 {
			t.Errorf("%v, %v, %v", warnings, err, s.requests.calls)
		}
	})
	t.Run("budgets that cannot be read are a warning, and the plan is made", func(t *testing.T) {
		s := newScene(t)
		p, cfg := newProxy(t)
		s.clientset, s.requests = connect(t, cfg)
		s.pod("a", bare)
		p.answer(func(w http.ResponseWriter, r *http.Request) bool {
			denied := strings.HasSuffix(r.URL.Path, "/poddisruptionbudgets")
			if denied {
				w.WriteHeader(http.StatusForbidden)
			}
			return denied
		})
		plan, warnings, err := s.drainer(s.clientset).Preflight(t.Context(), deleted)
		if err != nil || len(plan.Pods) != 1 || len(warnings) != 1 || !strings.Contains(warnings[0].Message, "not known") {
			t.Errorf("%+v, %v, %v", plan, warnings, err)
		}
	})
	t.Run("a node without pods to evict asks for nothing more than its pods", func(t *testing.T) {
		s := newScene(t)
		s.requests.reset()
		if _, warnings, err := s.drainer(s.clientset).Preflight(t.Context(), DrainSettings{}); err != nil || warnings != nil || len(s.requests.calls) != 1 {
			t.Errorf("warnings %v, %v, requests %v", warnings, err, s.requests.calls)
		}
	})
}

// Budgets that were read for some namespaces say nothing about another.
func TestBudgetsAreKeptForTheirNamespaces(t *testing.T) {
	var b budgets
	if _, good := b.last(nil); good {
		t.Error("there are some before any were read")
	}
	b.keep([]policyv1.PodDisruptionBudget{{}}, map[string]bool{"a": true, "b": true})
	for _, c := range []struct {
		of   []string
		want bool
	}{{[]string{"a"}, true}, {[]string{"a", "b"}, true}, {[]string{"a", "c"}, false}} {
		of := map[string]bool{}
		for _, ns := range c.of {
			of[ns] = true
		}
		if seen, good := b.last(of); good != c.want || good && len(seen) != 1 {
			t.Errorf("for %v: %d budgets, good %v", c.of, len(seen), good)
		}
	}
}
