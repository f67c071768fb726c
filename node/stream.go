package node

import (
	"context"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// keptFor is how long the watch of a preflight awaits its drain. Meanwhile the slot is taken, and the node cordoned.
const keptFor = time.Minute

// stream is a watch of the node's pods that goes on in the background.
type stream struct {
	snapshots chan []*corev1.Pod // all pods, at once and after each change; what nobody has taken gives way to the next
	first     chan []*corev1.Pod // the first of them, for a preflight
	stop      context.CancelFunc
	stopping  <-chan struct{}
	unused    *time.Timer   // stops it; whoever stops this, the drain or the first error, has it
	ended     chan struct{} // closed when it has
	err       error         // by which it has
}

// open begins a stream, which goes on until ctx ends or it is stopped. One to keep is [Drainer.kept] until then.
func (d *Drainer) open(ctx context.Context, keep bool) *stream {
	ctx, stop := context.WithCancel(ctx)
	s := &stream{
		snapshots: make(chan []*corev1.Pod, 1), first: make(chan []*corev1.Pod, 1), stop: stop, stopping: ctx.Done(),
		unused: time.AfterFunc(keptFor, stop), ended: make(chan struct{}),
	}
	if !keep {
		s.unused.Stop()
	} else if before := d.kept.Swap(s); before != nil {
		before.drop()
	}
	go func() {
		defer close(s.ended)
		s.err = d.watch(ctx, func(found map[string]*corev1.Pod) {
			pods := slices.Collect(maps.Values(found))
			select {
			case <-s.snapshots:
			default:
			}
			s.snapshots <- pods // there is room: this is the only sender
			if keep {
				keep = false
				s.first <- pods
			}
		}, s.drop)
		d.kept.CompareAndSwap(s, nil)
	}()
	return s
}

// drop stops a stream that no drain has: also at its first error, as one that begins anew may show its drain an old state first.
func (s *stream) drop() {
	if s.unused.Stop() {
		s.stop()
	}
}

// takeOver returns the stream that a preflight has left, or another.
func (d *Drainer) takeOver(ctx context.Context) *stream {
	if s := d.kept.Swap(nil); s != nil && s.unused.Stop() {
		return s
	}
	return d.open(ctx, false)
}

// lookAhead reads the pods by a watch that is kept for the drain that is to follow, which need not open one then. Where it is in trouble,
// or slow, a list says what there is to say. One that is open already is never gone by, as it may lag: what a watch shows first is as new
// as a quorum read.
func (d *Drainer) lookAhead(ctx context.Context) ([]*corev1.Pod, error) {
	s := d.open(context.WithoutCancel(ctx), true)
	select {
	case pods := <-s.first:
		return pods, nil
	case <-s.stopping:
	case <-time.After(preflightTime):
	case <-ctx.Done():
	}
	s.drop()
	return d.list(ctx)
}
