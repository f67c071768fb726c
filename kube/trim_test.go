package kube

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// trimming is a store that wants its objects without their data.
type trimming struct {
	cache.ReflectorStore
	replaced chan []any
}

func (s trimming) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		if m, ok := obj.(*corev1.ConfigMap); ok {
			m.Data = nil
		}
		return obj, nil
	}
}

func (s trimming) Replace(objs []any, _ string) error { s.replaced <- objs; return nil }

// A thousand Nodes are hundreds of megabytes before they are trimmed.
func TestReflectTrimsWhatTheFirstListBrings(t *testing.T) {
	configMaps := someConfigMaps(t)
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "large"}, Data: map[string]string{"much": "data"}}
	if _, err := configMaps.Create(t.Context(), m, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := trimming{replaced: make(chan []any, 1)}
	go func() {
		_ = Reflect(ctx, configMaps.List, configMaps.Watch, Selection{Fields: "metadata.name=large"}, &corev1.ConfigMap{}, s, func(err error) { t.Log(err) })
	}()
	objs := <-s.replaced
	if len(objs) != 1 {
		t.Fatalf("%d objects", len(objs))
	}
	if got, ok := objs[0].(*corev1.ConfigMap); !ok || got.Data != nil {
		t.Errorf("not trimmed: %+v", objs[0])
	}
}
