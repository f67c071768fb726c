package main

import (
	"bytes"
	"encoding/json"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"kubebaton.io/baton/internal/bustest"

	"kubebaton.io/baton/wire"
)

// TestPlan asks a real API server what a drain would do: with a pod that keeps it from beginning, and without.
func TestPlan(t *testing.T) {
	t.Parallel()
	client := kubernetes.NewForConfigOrDie(server.Config)
	const name = "plan-node"
	dir := t.TempDir()
	if _, err := client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ns := "plan"
	if _, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	controlled := true
	// set is a ReplicaSet with so many ready pods, here and elsewhere.
	set := func(name string, ready int32) []metav1.OwnerReference {
		selector := &metav1.LabelSelector{MatchLabels: map[string]string{"set": name}}
		rs := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.ReplicaSetSpec{Selector: selector, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: selector.MatchLabels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
		}}}
		sets := client.AppsV1().ReplicaSets(ns)
		rs, err := sets.Create(t.Context(), rs, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		rs.Status = appsv1.ReplicaSetStatus{Replicas: ready, ReadyReplicas: ready}
		if _, err := sets.UpdateStatus(t.Context(), rs, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		return []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: name, UID: rs.UID, Controller: &controlled}}
	}
	web, last := set("web", 3), set("last", 1)
	unread := []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "unread", UID: "1", Controller: &controlled}}
	for pod, owners := range map[string][]metav1.OwnerReference{"web-0": web, "web-1": web, "last-0": last, "unread-0": unread, "alone": nil} {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: pod, Namespace: ns, OwnerReferences: owners, Labels: map[string]string{"app": "web"}},
			Spec:       corev1.PodSpec{NodeName: name, Containers: []corev1.Container{{Name: "app", Image: "app"}}},
		}
		p, err := client.CoreV1().Pods(ns).Create(t.Context(), p, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		p.Status = corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
		if _, err := client.CoreV1().Pods(ns).UpdateStatus(t.Context(), p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	one := intstr.FromInt32(2)
	budget := &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "narrow"},
		Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
	}
	if _, err := client.PolicyV1().PodDisruptionBudgets(ns).Create(t.Context(), budget, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "config.yaml")
	write(t, file, "apiVersion: kubebaton.io/v1alpha1\nkind: RebootConfiguration\n")
	args := []string{"plan", "--config", file, "--kubeconfig", kubeconfig(t, dir, server.Config), "--node-name", name}
	ask := func(want int, says ...string) string {
		t.Helper()
		var out, err bytes.Buffer
		if code := run(t.Context(), args, &out, &err); code != want {
			t.Errorf("exit code %d, want %d; %s%s", code, want, &out, &err)
		}
		for _, s := range says {
			if !strings.Contains(out.String(), s) {
				t.Errorf("no %q in:\n%s%s", s, &out, &err)
			}
		}
		return out.String()
	}
	felt := func(text, pod, want string) {
		t.Helper()
		for line := range strings.Lines(text) {
			if fields := strings.Fields(line); len(fields) > 4 && fields[1] == ns+"/"+pod && fields[4] == want {
				return
			}
		}
		t.Errorf("users of %s do not feel %s:\n%s", pod, want, text)
	}
	text := ask(exitFault, "group workers", "plan/alone", "unmanaged-pod", "plan/web-0", "ReplicaSet/web", "narrow")
	t.Log("\n" + text)
	felt(text, "web-0", "served")
	felt(text, "last-0", "outage")
	felt(text, "unread-0", "moved")
	if strings.Index(text, "plan/alone") > strings.Index(text, "plan/web-0") {
		t.Errorf("what keeps the drain from beginning does not come first:\n%s", text)
	}
	write(t, file, "apiVersion: kubebaton.io/v1alpha1\nkind: RebootConfiguration\ndrain: {rules: [{namespaces: [plan], unmanagedPods: delete}]}\n")
	text = ask(exitOK, "it is deleted for good, as the setting says; a rule of the configuration wants it so")
	felt(text, "alone", "lost")
	write(t, file, "apiVersion: kubebaton.io/v1alpha1\nkind: RebootConfiguration\n")
	now := int64(0)
	if err := client.CoreV1().Pods(ns).Delete(t.Context(), "alone", metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
	ask(exitOK, "plan/web-1", "warning: pdb")
	if pods, err := client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{}); err != nil || len(pods.Items) != 4 {
		t.Errorf("%d pods after a plan, %v", len(pods.Items), err)
	}
	// Under mode auto the node's own history counts, and who else is down.
	write(t, file, "apiVersion: kubebaton.io/v1alpha1\nkind: RebootConfiguration\ndrain:\n  mode: auto\n")
	other := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name + "-other"}}
	if _, err := client.CoreV1().Nodes().Create(t.Context(), other, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ask(exitOK, "not quick: 0 of 3 downtimes measured")
	history := `{"cycles":[{"rebooted":true,"downtime":9000000000},{"rebooted":true,"downtime":6000000000},{"rebooted":true,"downtime":7000000000}]}`
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{"kubebaton.io/history": history}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Nodes().Patch(t.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	ask(exitOK, "expected back within 14s")
	args[len(args)-1] = "no-such-node"
	ask(exitFault)
}

// In the agent's pod the host is asked, for its own node only.
func TestPlanOfANodeInNoGroup(t *testing.T) {
	for group, want := range map[string]int{"": exitFault, "workers": exitOK} {
		if code := printPlan(io.Discard, "n", wire.Foresight{Group: group}); code != want {
			t.Errorf("group %q: exit code %d, want %d", group, code, want)
		}
	}
}

func TestPlanAsksItsHost(t *testing.T) {
	client := kubernetes.NewForConfigOrDie(server.Config)
	const name = "plan-own"
	t.Setenv("NODE_NAME", name)
	for _, n := range []string{name, name + "-other"} {
		if _, err := client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	root := t.TempDir()
	bustest.Start(t, root).Serve(t, bustest.Login1, bustest.Service{Methods: map[string]any{
		"ListInhibitors": func() ([]bustest.Inhibitor, *dbus.Error) {
			return []bustest.Inhibitor{{What: "shutdown", Who: "kubelet", Mode: "delay"}}, nil
		},
	}})
	file := filepath.Join(root, "config.yaml")
	write(t, file, "apiVersion: kubebaton.io/v1alpha1\nkind: RebootConfiguration\ndrain: {mode: never}\n")
	for n, want := range map[string]bool{name: true, name + "-other": false} {
		var out, errs bytes.Buffer
		code := run(t.Context(), []string{"plan", "--config", file, "--kubeconfig", kubeconfig(t, root, server.Config), "--node-name", n, "--host-root", root}, &out, &errs)
		if got := strings.Contains(out.String(), "shutdownGracePeriod"); code != exitOK || got != want {
			t.Errorf("%s: exit code %d, the host was asked %v, want %v:\n%s%s", n, code, got, want, &out, &errs)
		}
	}
	var held, none bytes.Buffer // no bus: a drain would not begin
	asked := []string{"plan", "--config", file, "--kubeconfig", kubeconfig(t, root, server.Config), "--node-name", name, "--host-root", t.TempDir()}
	if code := run(t.Context(), asked, &held, &none); code != exitFault || !strings.Contains(held.String(), "no drain begins now: ") {
		t.Errorf("without a bus: exit code %d:\n%s%s", code, &held, &none)
	}
	var out, errs bytes.Buffer // NODE_NAME is set where no host is mounted
	args := []string{"plan", "--config", file, "--kubeconfig", kubeconfig(t, root, server.Config), "--node-name", name, "--host-root", filepath.Join(root, "none")}
	if code := run(t.Context(), args, &out, &errs); code != exitOK || !strings.Contains(errs.String(), "no host is mounted at") {
		t.Errorf("without a host: exit code %d:\n%s%s", code, &out, &errs)
	}
}
