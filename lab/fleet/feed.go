package fleet

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"kubebaton.io/baton/kube"
)

// feed passes on each event of a watch and keeps nothing.
type feed[T any] struct {
	put func(T)
	del func(name string) // nil: nobody is told
}

// follow calls put with each object and each new version of it, and del with the name of each that is deleted, until ctx ends.
func follow[T, L runtime.Object](ctx context.Context, list kube.ListFunc[L], watch kube.WatchFunc, expected T, f feed[T], onError func(error)) {
	_ = kube.Reflect(ctx, list, watch, kube.Selection{}, expected, f, onError) // ends with ctx only
}

func (f feed[T]) Add(obj any) error { return f.Update(obj) }

func (f feed[T]) Update(obj any) error {
	o, ok := obj.(T)
	if !ok {
		return fmt.Errorf("a watch brought a %T", obj)
	}
	f.put(o)
	return nil
}

func (f feed[T]) Delete(obj any) error {
	key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
	if err != nil {
		return fmt.Errorf("keying what was deleted: %w", err)
	}
	if f.del != nil {
		f.del(key)
	}
	return nil
}

func (f feed[T]) Replace(objs []any, _ string) error {
	for _, obj := range objs {
		if err := f.Update(obj); err != nil {
			return err
		}
	}
	return nil
}

func (f feed[T]) Resync() error { return nil }
