package node

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
)

// operator is what an operator of storage or of a database does about a node that is drained: it looks whenever something
// has changed, and opens its budget only then.
type operator struct {
	name  string
	pods  func(s *scene)
	looks func(ctx context.Context, s *scene, n *corev1.Node, pods map[string]*corev1.Pod) error
}

// operators do as the real ones do, as far as their budgets go. Their budgets' numbers are set by hand: there is no
// disruption controller here.
func operators() []operator {
	of := func(kind, name, role string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.OwnerReferences[0] = metav1.OwnerReference{APIVersion: "example.com/v1", Kind: kind, Name: name, UID: types.UID(name), Controller: ptr(true)}
			p.Labels = map[string]string{"role": role}
		}
	}
	return []operator{
		{
			// Longhorn: the engines of a node's volumes run in its instance manager, whose budget goes when the node is cordoned
			// and none of them is in use any more.
			name: "Longhorn",
			pods: func(s *scene) {
				s.pod("db-0")
				s.pod("instance-manager", of("InstanceManager", "im", "engines"))
				s.budgetOf("instance-manager", "engines", 0)
			},
			looks: func(ctx context.Context, s *scene, n *corev1.Node, pods map[string]*corev1.Pod) error {
				if !n.Spec.Unschedulable || pods["db-0"] != nil {
					return nil
				}
				return s.admin.PolicyV1().PodDisruptionBudgets(s.ns).Delete(ctx, "instance-manager", metav1.DeleteOptions{})
			},
		},
		{
			// Rook-Ceph: one budget for all OSDs allows one to go. When one has gone, the budgets of all other hosts forbid
			// everything and the common one is taken away, which lets the rest of this host go.
			name: "Rook-Ceph",
			pods: func(s *scene) {
				s.pod("osd-0", of("ReplicaSet", "osd-0", "osd"))
				s.pod("osd-1", of("ReplicaSet", "osd-1", "osd"))
				s.pod("osd-2", of("ReplicaSet", "osd-2", "osd"))
				s.budgetOf("osd", "osd", 1)
			},
			looks: func(ctx context.Context, s *scene, _ *corev1.Node, pods map[string]*corev1.Pod) error {
				if len(pods) == 3 {
					return nil
				}
				return s.admin.PolicyV1().PodDisruptionBudgets(s.ns).Delete(ctx, "osd", metav1.DeleteOptions{})
			},
		},
		{
			// CloudNativePG: nobody may evict the primary. When its node is cordoned another instance becomes the primary, and this
			// one a replica, of which one may go.
			name: "CloudNativePG",
			pods: func(s *scene) {
				s.pod("pg-1", of("Cluster", "pg", "primary"))
				s.budgetOf("pg-primary", "primary", 0)
				s.budgetOf("pg", "replica", 1)
			},
			looks: func(ctx context.Context, s *scene, n *corev1.Node, pods map[string]*corev1.Pod) error {
				p := pods["pg-1"]
				if !n.Spec.Unschedulable || p == nil || p.Labels["role"] == "replica" {
					return nil
				}
				p = p.DeepCopy()
				p.Labels["role"] = "replica"
				_, err := s.admin.CoreV1().Pods(s.ns).Update(ctx, p, metav1.UpdateOptions{})
				return err
			},
		},
	}
}

// budgetOf covers the pods of a role, and allows so many disruptions.
func (s *scene) budgetOf(name, role string, allows int32) {
	s.t.Helper()
	_, err := s.admin.PolicyV1().PodDisruptionBudgets(s.ns).Create(s.t.Context(), &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: policyv1.PodDisruptionBudgetSpec{
			MinAvailable: &intstr.IntOrString{IntVal: 1}, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"role": role}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.allow(name, allows)
}

// run looks after each change of the Node or of the namespace's pods, until ctx ends.
func (o operator) run(ctx context.Context, s *scene) error {
	own := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, s.node).String()}
	nodes, err := s.admin.CoreV1().Nodes().Watch(ctx, own)
	if err != nil {
		return err
	}
	defer nodes.Stop()
	pods, err := s.admin.CoreV1().Pods(s.ns).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	defer pods.Stop()
	var node *corev1.Node
	there := map[string]*corev1.Pod{}
	for {
		var ev watch.Event
		select {
		case <-ctx.Done():
			return nil
		case ev = <-nodes.ResultChan():
		case ev = <-pods.ResultChan():
		}
		switch obj := ev.Object.(type) {
		case *corev1.Node:
			node = obj
		case *corev1.Pod:
			there[obj.Name] = obj
			if ev.Type == watch.Deleted {
				delete(there, obj.Name)
			}
		}
		if node == nil {
			continue
		}
		if err := o.looks(ctx, s, node, there); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && ctx.Err() == nil {
			return err
		}
	}
}

// Operators of storage and databases open their budgets only when the node is cordoned, or when the first pod has gone. A
// preflight that vetoed would keep such a node for ever.
func TestOperatorsThatOpenTheirBudgetsLateLetTheDrainThrough(t *testing.T) {
	for _, o := range operators() {
		t.Run(o.name, func(t *testing.T) {
			s := newScene(t)
			o.pods(s)
			d := s.drainer(s.clientset)
			plan, warnings, err := d.Preflight(t.Context(), DrainSettings{})
			if err != nil {
				t.Fatal(err)
			}
			if reason, message := blocked(plan.Pods); reason != "" || len(warnings) == 0 || warnings[0].Reason != ReasonBudget {
				t.Errorf("a preflight advises: got %s %q and the warnings %v", reason, message, warnings)
			}

			ctx, stop := context.WithCancel(t.Context())
			var working sync.WaitGroup
			working.Go(func() {
				if err := o.run(ctx, s); err != nil {
					t.Errorf("the operator: %v", err)
				}
			})
			defer working.Wait()
			defer stop()
			s.edit(func(n *corev1.Node) { n.Spec.Unschedulable = true })
			if _, err := s.drain(d, time.Minute, DrainSettings{}, nil); err != nil {
				t.Fatalf("%v; left are %s", err, strings.Join(s.podNames(), ", "))
			}
			if left := s.podNames(); len(left) > 0 {
				t.Errorf("left are %s", strings.Join(left, ", "))
			}
		})
	}
}
