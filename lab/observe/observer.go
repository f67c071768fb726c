package observe

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	watchtools "k8s.io/client-go/tools/watch"
)

// What Baton writes, as its documentation of annotations has it. Said here again: what is judged does not lend its own words.
const (
	Namespace = "baton-system"

	labelPhase       = "kubebaton.io/phase"
	labelNominee     = "kubebaton.io/nominee"
	taintPending     = "kubebaton.io/reboot-pending"
	annotationRecord = "kubebaton.io/reboot"
	annotationHold   = "kubebaton.io/hold"
	marshalLease     = "marshal"
	annotationPast   = "kubebaton.io/history"
	labelGroup       = "kubebaton.io/group"
)

// AnnotationBy is what people of the lab write on a Node in the same write as a cordon or its end, a new value each time:
// so that a version of the Node says that it was them.
const AnnotationBy = "lab.kubebaton.io/by"

// Phases as the label has them. Idle is the absence of the label.
const (
	Idle      = ""
	Waiting   = "waiting"
	Draining  = "draining"
	Rebooting = "rebooting"
	Verifying = "verifying"
	Backoff   = "backoff"
	Failed    = "failed"
)

// Node is what a version of a Node says.
type Node struct {
	Name, UID, BootID            string
	Ready, Unschedulable, Exists bool
	Hold                         bool   // people's hold is on
	Tainted                      bool   // pods are to go elsewhere: it waits for its reboot
	Phase                        string // one of the phases
	Record, History              string // annotations, JSON
	By                           string // see AnnotationBy
}

// Slot is what a version of a slot Lease says.
type Slot struct {
	Name, Group, Holder string // Holder: name of a node, "" none
	Nominee             string // UID of a Node, "" none
	Exists, Deleting    bool
}

// Event is one version of one object; exactly one of Node and Slot is set.
type Event struct {
	Seq      int       // in the order of arrival, from 0; Seq+1 is the mark to wait from for what comes after
	Time     time.Time // of arrival
	Revision uint64    // in this order the versions took effect
	Node     *Node
	Slot     *Slot
}

// Observer has watches of its own.
type Observer struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu      sync.Mutex
	events  []Event // in the order of arrival
	nodes   map[string]Node
	slots   map[string]Slot
	pods    map[string]Pod // by UID
	marshal string
	faults  []string
	changed chan struct{} // closed at the next event
}

func newObserver(cancel context.CancelFunc) *Observer {
	return &Observer{cancel: cancel, nodes: map[string]Node{}, slots: map[string]Slot{}, pods: map[string]Pod{}, changed: make(chan struct{})}
}

// Start returns when the observer has seen every Node and slot that there is. It observes until ctx ends or Stop.
func Start(ctx context.Context, config *rest.Config) (*Observer, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("starting the observer: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	o := newObserver(cancel)
	if err := errors.Join(o.watchNodes(ctx, client), o.watchSlots(ctx, client)); err != nil {
		o.Stop()
		return nil, fmt.Errorf("starting the observer: %w", err)
	}
	return o, nil
}

// Stop ends the watches. What was seen can still be asked for.
func (o *Observer) Stop() {
	o.cancel()
	o.done.Wait()
}

func (o *Observer) watchNodes(ctx context.Context, client kubernetes.Interface) error {
	nodes := client.CoreV1().Nodes()
	list, err := nodes.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range list.Items {
		o.add(nodeEvent(&list.Items[i], true))
	}
	return o.follow(ctx, "Nodes", list.ResourceVersion, watcher(nodes.Watch))
}

func (o *Observer) watchSlots(ctx context.Context, client kubernetes.Interface) error {
	leases := client.CoordinationV1().Leases(Namespace)
	list, err := leases.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range list.Items {
		o.add(slotEvent(&list.Items[i], true))
	}
	return o.follow(ctx, "Leases", list.ResourceVersion, watcher(leases.Watch))
}

// watcher is a Watch method of a client.
type watcher func(context.Context, metav1.ListOptions) (watch.Interface, error)

// WatchWithContext is what a RetryWatcher calls.
func (w watcher) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	return w(ctx, options)
}

func (o *Observer) follow(ctx context.Context, what, from string, watch watcher) error {
	retry, err := watchtools.NewRetryWatcherWithContext(ctx, from, watch)
	if err != nil {
		return fmt.Errorf("watching %s: %w", what, err)
	}
	o.done.Go(func() {
		for e := range retry.ResultChan() {
			if err := o.take(e); err != nil {
				o.fault(fmt.Sprintf("the watch of %s lost something: %v", what, err))
			}
		}
		if ctx.Err() == nil {
			o.fault("the watch of " + what + " ended")
		}
	})
	return nil
}

func (o *Observer) take(e watch.Event) error {
	if e.Type == watch.Bookmark {
		return nil
	}
	return o.takeVersion(e.Object, e.Type != watch.Deleted)
}

// takeVersion adds a version of an object: the last one there was when it does not exist any more.
func (o *Observer) takeVersion(object runtime.Object, exists bool) error {
	switch object := object.(type) {
	case *corev1.Node:
		o.add(nodeEvent(object, exists))
	case *coordinationv1.Lease:
		o.add(slotEvent(object, exists))
	case *corev1.Pod:
		o.addPod(object)
	default:
		return fmt.Errorf("neither a Node nor a Lease nor a Pod but a %T: %v", object, object)
	}
	return nil
}

func (o *Observer) add(e Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if e.Slot != nil && e.Slot.Group == "" { // a Lease that is no slot
		if e.Slot.Name == marshalLease {
			o.marshal = e.Slot.Holder
		}
		return
	}
	e.Time, e.Seq = time.Now(), len(o.events)
	o.events = append(o.events, e)
	switch {
	case e.Node != nil && e.Node.Exists:
		o.nodes[e.Node.Name] = *e.Node
	case e.Node != nil:
		delete(o.nodes, e.Node.Name)
	case e.Slot.Exists:
		o.slots[e.Slot.Name] = *e.Slot
	default:
		delete(o.slots, e.Slot.Name)
	}
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *Observer) fault(what string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.faults = append(o.faults, what)
}

func nodeEvent(n *corev1.Node, exists bool) Event {
	_, hold := n.Annotations[annotationHold]
	return Event{Revision: revision(n), Node: &Node{
		Name: n.Name, UID: string(n.UID), BootID: n.Status.NodeInfo.BootID,
		Ready: slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		}),
		Unschedulable: n.Spec.Unschedulable, Exists: exists, Hold: hold,
		Tainted: slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == taintPending }),
		Phase:   n.Labels[labelPhase], Record: n.Annotations[annotationRecord], History: n.Annotations[annotationPast],
		By: n.Annotations[AnnotationBy],
	}}
}

func slotEvent(l *coordinationv1.Lease, exists bool) Event {
	s := &Slot{
		Name: l.Name, Group: l.Labels[labelGroup], Nominee: l.Labels[labelNominee],
		Exists: exists, Deleting: l.DeletionTimestamp != nil,
	}
	if l.Spec.HolderIdentity != nil {
		s.Holder = *l.Spec.HolderIdentity
	}
	return Event{Revision: revision(l), Slot: s}
}

func revision(o interface {
	runtime.Object
	metav1.Object
},
) uint64 {
	n, err := strconv.ParseUint(o.GetResourceVersion(), 10, 64)
	if err != nil {
		return 0 // sorts first; no API server with etcd does this
	}
	return n
}

// Events is what was seen so far, in the order of arrival.
func (o *Observer) Events() []Event {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.events)
}

// Log is what was seen so far, in the order in which it took effect, ready to be judged.
func (o *Observer) Log() Log {
	o.mu.Lock()
	defer o.mu.Unlock()
	log := Log{Events: slices.Clone(o.events), Faults: slices.Clone(o.faults)}
	slices.SortStableFunc(log.Events, byRevision)
	return log
}

// Mark is the number of events so far, to wait from.
func (o *Observer) Mark() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.events)
}

// Changed is closed when something comes that was not there when it was called.
func (o *Observer) Changed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changed
}

// Nodes are the last known versions of the Nodes that exist, by name.
func (o *Observer) Nodes() map[string]Node {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.nodes)
}

// Slots are the last known versions of the slots that exist, by name.
func (o *Observer) Slots() map[string]Slot {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.slots)
}

// Marshal is the node whose agent orders the queue, "" none, or one that left no word.
func (o *Observer) Marshal() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.marshal
}

// WaitAfter returns the first event from mark on (see Mark; 0 is the beginning) that matches. what names it in the error.
func (o *Observer) WaitAfter(ctx context.Context, mark int, what string, match func(Event) bool) (Event, error) {
	for {
		o.mu.Lock()
		fresh, changed := o.events[mark:], o.changed
		o.mu.Unlock()
		if i := slices.IndexFunc(fresh, match); i >= 0 {
			return fresh[i], nil
		}
		mark += len(fresh)
		select {
		case <-ctx.Done():
			return Event{}, fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		case <-changed:
		}
	}
}

// Wait returns when the last known versions of the Nodes satisfy ok.
func (o *Observer) Wait(ctx context.Context, what string, ok func(map[string]Node) bool) error {
	for {
		o.mu.Lock()
		changed := o.changed
		o.mu.Unlock()
		if ok(o.Nodes()) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		case <-changed:
		}
	}
}

// InPhase matches events of a node that exists and is in the phase.
func InPhase(node, phase string) func(Event) bool {
	return func(e Event) bool {
		return e.Node != nil && e.Node.Exists && e.Node.Name == node && e.Node.Phase == phase
	}
}
