package observe

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/mvccpb"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
)

// stored is an object as the API server keeps it.
func stored(t *testing.T, version schema.GroupVersion, o runtime.Object) *mvccpb.KeyValue {
	t.Helper()
	value, err := runtime.Encode(scheme.Codecs.EncoderForVersion(protobuf.NewSerializer(scheme.Scheme, scheme.Scheme), version), o)
	if err != nil {
		t.Fatal(err)
	}
	return &mvccpb.KeyValue{Key: []byte("key"), Value: value}
}

func TestTakeStored(t *testing.T) {
	o := newObserver(func() {})
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "u1", Labels: map[string]string{labelPhase: Draining}, Annotations: map[string]string{AnnotationBy: "fault 1"}},
		Spec:       corev1.NodeSpec{Unschedulable: true},
	}
	holder := "n1"
	slot := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "slot-workers-0", Labels: map[string]string{labelGroup: "workers"}}}
	marshal := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: marshalLease}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder}}
	for i, v := range []struct {
		version schema.GroupVersion
		object  runtime.Object
		exists  bool
	}{
		{corev1.SchemeGroupVersion, node, true},
		{coordinationv1.SchemeGroupVersion, slot, true},
		{coordinationv1.SchemeGroupVersion, marshal, true},
		{corev1.SchemeGroupVersion, node, false},
	} {
		if err := o.takeStored(stored(t, v.version, v.object), int64(i+1), v.exists); err != nil {
			t.Fatal(err)
		}
	}

	t.Run("every version of a Node and of a slot is seen, with the revision that it was stored with", func(t *testing.T) {
		var got []Event
		for _, e := range o.Events() {
			e.Time = time.Time{}
			got = append(got, e)
		}
		n := Node{Name: "n1", UID: "u1", Unschedulable: true, Exists: true, Phase: Draining, By: "fault 1"}
		gone := n
		gone.Exists = false
		want := []Event{
			{Seq: 0, Revision: 1, Node: &n},
			{Seq: 1, Revision: 2, Slot: &Slot{Name: "slot-workers-0", Group: "workers", Exists: true}},
			{Seq: 2, Revision: 4, Node: &gone},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("who orders is known", func(t *testing.T) {
		if o.Marshal() != "n1" {
			t.Errorf("the marshal is %q", o.Marshal())
		}
	})
	t.Run("what cannot be read is an error", func(t *testing.T) {
		for name, kv := range map[string]*mvccpb.KeyValue{"nothing": nil, "rubbish": {Value: []byte("rubbish")}, "a Secret": stored(t, corev1.SchemeGroupVersion, &corev1.Secret{})} {
			if err := o.takeStored(kv, 9, true); err == nil {
				t.Errorf("%s: no error", name)
			}
		}
	})
}

func TestPods(t *testing.T) {
	yes := true
	owned := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "1", ResourceVersion: "5", OwnerReferences: []metav1.OwnerReference{
		{Kind: "ReplicaSet", Name: "blue", UID: "r", Controller: &yes},
	}}}
	alone := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "b", UID: "2", ResourceVersion: "6"}, Spec: corev1.PodSpec{NodeName: "n2"}}
	o := newObserver(func() {})
	bound := owned.DeepCopy()
	bound.ResourceVersion, bound.Spec.NodeName = "7", "n1"
	later := bound.DeepCopy()
	later.ResourceVersion = "8"
	for _, p := range []*corev1.Pod{owned, alone, bound, later} {
		if err := o.takeVersion(p, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.takeVersion(later, false); err != nil {
		t.Fatal(err)
	}
	got := o.Pods()
	for i := range got {
		got[i].Bound = time.Time{}
	}
	want := []Pod{{Name: "b", Owner: "Pod/b/2", Node: "n2", Revision: 6}, {Name: "a", Owner: "ReplicaSet/blue/r", Node: "n1", Revision: 7}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
