package drains

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// life is what a watch has shown of a pod, by the clock of this program.
type life struct {
	node   string
	ready  bool
	ending time.Time // its deletionTimestamp was there; zero: it was not
	gone   time.Time // zero: it is there
}

// podWatch remembers the lives of the workload's pods.
type podWatch struct {
	watch watch.Interface
	done  chan struct{} // closed when the watch has ended
	opens atomic.Int32  // how often it was begun or taken up

	mu      sync.Mutex
	lives   map[types.UID]life
	changed chan struct{} // closed at the next change
}

// errWatchEnded: it could not be taken up again where it had been cut.
var errWatchEnded = errors.New("the watch of the pods ended")

// watchPods watches from now on. A watch that is cut, as the API server does with readers that are too slow for it, is taken
// up where it ended: then what follows is shown late, but it is shown.
func watchPods(ctx context.Context, client kubernetes.Interface) (*podWatch, error) {
	pods := client.CoreV1().Pods(namespace)
	now, err := pods.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing the pods: %w", err)
	}
	p := &podWatch{done: make(chan struct{}), lives: map[types.UID]life{}, changed: make(chan struct{})}
	open := func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
		p.opens.Add(1)
		return pods.Watch(ctx, o)
	}
	w, err := watchtools.NewRetryWatcherWithContext(ctx, now.ResourceVersion, &cache.ListWatch{WatchFuncWithContext: open})
	if err != nil {
		return nil, fmt.Errorf("watching the pods: %w", err)
	}
	p.watch = w
	for i := range now.Items {
		p.see(watch.Added, &now.Items[i], time.Now())
	}
	go func() {
		defer close(p.done)
		for e := range w.ResultChan() {
			if pod, ok := e.Object.(*corev1.Pod); ok {
				p.see(e.Type, pod, time.Now())
			}
		}
	}()
	return p, nil
}

func (p *podWatch) stop() {
	p.watch.Stop()
	<-p.done
}

func (p *podWatch) see(kind watch.EventType, pod *corev1.Pod, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lives[pod.UID] = p.lives[pod.UID].next(kind, pod, now)
	close(p.changed)
	p.changed = make(chan struct{})
}

func (l life) next(kind watch.EventType, pod *corev1.Pod, now time.Time) life {
	l.node = pod.Spec.NodeName
	l.ready = slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
	if l.ending.IsZero() && (pod.DeletionTimestamp != nil || kind == watch.Deleted) {
		l.ending = now
	}
	if kind == watch.Deleted {
		l.gone = now
	}
	return l
}

// all returns the lives so far, and what is closed when there is more.
func (p *podWatch) all() ([]life, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.lives)), p.changed
}

// wait returns when the lives are as they should be.
func (p *podWatch) wait(ctx context.Context, what string, ok func([]life) bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, fillTime, fmt.Errorf("it took longer than %v", fillTime))
	defer cancel()
	for {
		lives, changed := p.all()
		if ok(lives) {
			return nil
		}
		select {
		case <-changed:
		case <-p.done:
			return fmt.Errorf("waiting for %s: %w", what, errWatchEnded)
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		}
	}
}

// ended are those of the lives that were on the node and have been ended since.
func ended(lives []life, node string, since time.Time) []life {
	return slices.DeleteFunc(slices.Clone(lives), func(l life) bool {
		return l.node != node || l.gone.IsZero() || l.ending.Before(since)
	})
}

// slowest is the longest time that one of the lives took to end.
func slowest(lives []life) time.Duration {
	most := time.Duration(0)
	for _, l := range lives {
		most = max(most, l.gone.Sub(l.ending))
	}
	return most
}
