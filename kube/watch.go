package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/resourceversion"
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
type Selection struct {
	Labels, Fields string
	// Quorum makes the first answer as new as a quorum read that began after the watch, on a server without streamed lists, too:
	// that one would answer from its cache, however old, and reads its store instead. For few objects.
	Quorum bool
}

// Watch calls apply with all the selected objects, keyed by namespace/name, once at the beginning and whenever one of them
// changes. The map is Watch's own: apply reads it before it returns and does not keep it. Watch returns when ctx ends; what goes
// wrong on the way is retried, and told to onError; [ErrRestored] is, too.
func Watch[T, L runtime.Object](ctx context.Context, list ListFunc[L], watchf WatchFunc, sel Selection, expected T,
	apply func(map[string]T), onError func(error),
) error {
	return Reflect(ctx, list, watchf, sel, expected, &sink[T]{apply: apply, items: map[string]T{}}, onError)
}

// Reflect is Watch into a store of the caller's own.
func Reflect[T, L runtime.Object](ctx context.Context, list ListFunc[L], watchf WatchFunc, sel Selection, expected T,
	store cache.ReflectorStore, onError func(error),
) error {
	store = &counter{ReflectorStore: store, onError: onError}
	var line line
	narrow := func(o metav1.ListOptions) metav1.ListOptions {
		o.LabelSelector, o.FieldSelector = sel.Labels, sel.Fields
		return o
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			line.listed()
			if sel.Quorum && o.ResourceVersion == "0" {
				o.ResourceVersion, o.Limit = "", 0
			}
			l, err := list(ctx, narrow(o))
			if err != nil {
				onError(fmt.Errorf("listing: %w", err))
			}
			return l, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			if err := line.opens(o); err != nil {
				return nil, err
			}
			w, err := watchf(ctx, narrow(o))
			if err != nil {
				onError(fmt.Errorf("watching: %w", err))
			}
			return w, err
		},
	}
	r := cache.NewReflectorWithOptions(lw, expected, store, cache.ReflectorOptions{
		MinWatchTimeout: WatchTimeout,
		Backoff:         &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 7, Cap: 10 * time.Second},
	})
	r.RunWithContext(ctx)
	return ctx.Err()
}

// ErrRestored is told once when the API server's counter of versions was set back: it was restored from a backup.
var ErrRestored = errors.New("the API server has gone back in time: was it restored from a backup?")

// counter is a store that follows the counter of versions.
type counter struct {
	cache.ReflectorStore
	latest  string
	onError func(error)
}

// UpdateResourceVersion is told every version that the watch comes to, by bookmarks too.
func (c *counter) UpdateResourceVersion(version string) { c.latest = version }

// Transformer is the store's own, by which a reflector trims what the first list brings, one by one: a list of large objects is
// never in memory as a whole.
func (c *counter) Transformer() cache.TransformFunc {
	if t, ok := c.ReflectorStore.(cache.TransformingStore); ok {
		return t.Transformer()
	}
	return nil
}

// Replace takes a list. A reflector asks for one that is not older than what it knows. It takes an older one only after it was
// told that there is no such version yet.
func (c *counter) Replace(objs []any, version string) error {
	if n, err := resourceversion.CompareResourceVersion(version, c.latest); err == nil && n < 0 {
		c.onError(fmt.Errorf("listing: %w: it was at version %s and is at %s", ErrRestored, c.latest, version))
	}
	c.latest = version
	return c.ReflectorStore.Replace(objs, version)
}

// line remembers when the open watch was to end.
type line struct{ until time.Time }

func (l *line) listed() { l.until = time.Time{} }

// opens is asked before each watch. One that was cut before its time may have been cut by an API server that has been
// restored from a backup since, where the last version seen lies in the future: resumed there, it would show nothing until
// the versions have caught up, for hours perhaps. A list finds out, and costs no more than the watch that it replaces.
func (l *line) opens(o metav1.ListOptions) error {
	initial := o.SendInitialEvents != nil && *o.SendInitialEvents
	if cut := time.Now().Before(l.until); cut && !initial {
		l.listed()
		return io.EOF // at which a reflector lists again, and logs nothing
	}
	if o.TimeoutSeconds != nil {
		l.until = time.Now().Add(time.Duration(*o.TimeoutSeconds)*time.Second - clockSlack)
	}
	return nil
}

// clockSlack is how much sooner than asked for a watch may end and count as ended by its own time.
const clockSlack = 5 * time.Second

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
