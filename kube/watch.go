package kube

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// WatchTimeout is the shortest time for which a watch asks: with client-go's default of 5 to 10 minutes an idle agent
// would renew each of its watches eight times an hour.
const WatchTimeout = time.Hour

// ListFunc is the List of a typed client, for example of Leases(namespace).
type ListFunc[L runtime.Object] func(ctx context.Context, opts metav1.ListOptions) (L, error)

// WatchFunc is the Watch of the same client.
type WatchFunc func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error)

// Selection narrows what is watched; both selectors are in the API's own syntax, empty selects everything.
type Selection struct{ Labels, Fields string }

// Watch calls apply with all the selected objects, keyed by namespace/name, whenever one of them changes, and once at
// the beginning. The map is Watch's own: apply reads it before it returns and does not keep it. Watch returns when ctx
// ends; what goes wrong on the way is retried, and told to onError.
func Watch[T, L runtime.Object](ctx context.Context, list ListFunc[L], watchf WatchFunc, sel Selection, expected T,
	apply func(map[string]T), onError func(error),
) error {
	s := &sink[T]{apply: apply, items: map[string]T{}}
	narrow := func(o metav1.ListOptions) metav1.ListOptions {
		o.LabelSelector, o.FieldSelector = sel.Labels, sel.Fields
		return o
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			l, err := list(ctx, narrow(o))
			if err != nil {
				onError(fmt.Errorf("listing: %w", err))
			}
			return l, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			w, err := watchf(ctx, narrow(o))
			if err != nil {
				onError(fmt.Errorf("watching: %w", err))
			}
			return w, err
		},
	}
	r := cache.NewReflectorWithOptions(lw, expected, s, cache.ReflectorOptions{
		MinWatchTimeout: WatchTimeout,
		Backoff:         &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 7, Cap: 10 * time.Second},
	})
	r.RunWithContext(ctx)
	return ctx.Err()
}

// sink is the reflector's store: it keeps the objects and tells of every change.
type sink[T runtime.Object] struct {
	items map[string]T
	apply func(map[string]T)
}

func (s *sink[T]) Add(obj any) error    { return s.set(obj) }
func (s *sink[T]) Update(obj any) error { return s.set(obj) }
func (s *sink[T]) Resync() error        { return nil }

func (s *sink[T]) set(obj any) error {
	k, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
	if err != nil {
		return fmt.Errorf("keying a watched object: %w", err)
	}
	o, ok := obj.(T)
	if !ok {
		return fmt.Errorf("a watch of %T brought a %T", o, obj)
	}
	s.items[k] = o
	s.apply(s.items)
	return nil
}

func (s *sink[T]) Delete(obj any) error {
	k, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
	if err != nil {
		return fmt.Errorf("keying a deleted object: %w", err)
	}
	delete(s.items, k)
	s.apply(s.items)
	return nil
}

func (s *sink[T]) Replace(objs []any, _ string) error {
	items := make(map[string]T, len(objs))
	for _, obj := range objs {
		k, err := cache.MetaNamespaceKeyFunc(obj)
		if err != nil {
			return fmt.Errorf("keying a listed object: %w", err)
		}
		o, ok := obj.(T)
		if !ok {
			return fmt.Errorf("a list of %T brought a %T", o, obj)
		}
		items[k] = o
	}
	s.items = items
	s.apply(s.items)
	return nil
}
