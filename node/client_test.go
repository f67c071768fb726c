package node

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
)

// What a real API server does after a restore is shown in package kube, and on real nodes. Here are the versions alone.
func TestGetTellsOfARestore(t *testing.T) {
	clientset := fake.NewClientset()
	told := 0
	c, err := New(Config{Clientset: clientset, Name: "n", Restored: func() { told++ }})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name         string
		uid, version string
		tells        bool
	}{
		{"the first version", "u", "20", false},
		{"the same one", "u", "20", false},
		{"a later one", "u", "31", false},
		{"an earlier one", "u", "7", true},
		{"the same one again", "u", "7", false},
		{"a later one, still before what was known", "u", "9", false},
		{"an earlier one of another Node of the name", "v", "8", false},
		{"a version that is no number", "v", "x", false},
	} {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: types.UID(step.uid), ResourceVersion: step.version}}
		nodes := corev1.SchemeGroupVersion.WithResource("nodes")
		_ = clientset.Tracker().Delete(nodes, "", "n")
		if err := clientset.Tracker().Add(n); err != nil {
			t.Fatal(err)
		}
		before := told
		if _, err := c.Get(t.Context()); err != nil {
			t.Fatal(err)
		}
		if tells := told > before; tells != step.tells {
			t.Errorf("%s: tells %t, want %t", step.name, tells, step.tells)
		}
	}
}
