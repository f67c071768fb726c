package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"kubebaton.io/baton/agent"
)

// Keys that only these tests use.
const (
	labelSite   = "trace/site"  // on a Node: whose it is
	labelGroup  = "trace/group" // on a Node: what the configuration selects by
	powerPrefix = "power-"      // of the ConfigMap in which a host says how it is
	limitName   = "limit"       // of the ConfigMap that says how many nodes may be down
	endName     = "end"         // of the object after which nothing comes
)

// What the ConfigMap of a host says.
const (
	hostUp    = "up"
	hostGoing = "going" // it has accepted a reboot, or has lost its power
)

// judge watches a site at the API server itself, and asks nobody else. Nodes, Leases and ConfigMaps are in one etcd, so
// their resourceVersions are one clock: sorted by them, three watches are one history, in the order in which it happened.
// Hosts say in ConfigMaps when they go down and come up, which gives that its place in the history.
type judge struct {
	t     *testing.T
	site  string
	limit int

	mu     sync.Mutex
	log    []entry
	nodes  map[string]*corev1.Node          // as last seen
	slots  map[string]*coordinationv1.Lease // as last seen
	people map[uint64]string                // what a person did, by the version that it made
	seen   map[types.UID]uint64             // the last version of each object
	ended  map[string]bool                  // by kind
	news   chan struct{}
}

// entry is one event.
type entry struct {
	at   uint64
	kind watch.EventType
	of   metav1.Object
}

func newJudge(t *testing.T, api kubernetes.Interface, site string, limit int) *judge {
	t.Helper()
	j := &judge{
		t: t, site: site, limit: limit, nodes: map[string]*corev1.Node{}, slots: map[string]*coordinationv1.Lease{},
		people: map[uint64]string{}, seen: map[types.UID]uint64{}, ended: map[string]bool{}, news: make(chan struct{}, 1),
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the history of %s:\n%s", site, strings.Join(j.history().lines, "\n"))
		}
	})
	mine := func(o *metav1.ListOptions) { o.LabelSelector = labelSite + "=" + site }
	j.follow("nodes", api.CoreV1().RESTClient(), metav1.NamespaceAll, &corev1.Node{}, mine)
	j.follow("leases", api.CoordinationV1().RESTClient(), site, &coordinationv1.Lease{}, func(*metav1.ListOptions) {})
	j.follow("configmaps", api.CoreV1().RESTClient(), site, &corev1.ConfigMap{}, func(*metav1.ListOptions) {})
	return j
}

// follow watches one kind until the test ends, also after the API server was away.
func (j *judge) follow(resource string, api rest.Interface, namespace string, kind runtime.Object, narrow func(*metav1.ListOptions)) {
	j.t.Helper()
	e := &eye{judge: j, open: make(chan struct{})}
	r := cache.NewReflectorWithOptions(cache.NewFilteredListWatchFromClient(api, resource, namespace, narrow), kind, e, cache.ReflectorOptions{
		Backoff: &wait.Backoff{Duration: 50 * time.Millisecond, Jitter: 0.1, Steps: 1},
	})
	go r.RunWithContext(j.t.Context())
	select {
	case <-e.open:
	case <-time.After(patience):
		j.t.Fatalf("the judge does not see the %s", resource)
	}
}

// eye is where a reflector puts what it is told: every version of every object, one after another.
type eye struct {
	*judge
	open chan struct{} // closed by the first list
	once sync.Once
}

func (e *eye) Add(obj any) error    { return e.told(watch.Added, obj) }
func (e *eye) Update(obj any) error { return e.told(watch.Modified, obj) }
func (e *eye) Delete(obj any) error { return e.told(watch.Deleted, obj) }
func (e *eye) Resync() error        { return nil }

func (e *eye) Replace(objs []any, _ string) error {
	for _, o := range objs {
		if err := e.told(watch.Added, o); err != nil {
			return err
		}
	}
	e.once.Do(func() { close(e.open) })
	return nil
}

func (e *eye) told(kind watch.EventType, obj any) error {
	o, ok := obj.(metav1.Object)
	if !ok {
		return fmt.Errorf("the judge is told of a %T", obj)
	}
	e.see(kind, o)
	return nil
}

func (j *judge) see(kind watch.EventType, o metav1.Object) {
	j.mu.Lock()
	defer j.mu.Unlock()
	at, err := strconv.ParseUint(o.GetResourceVersion(), 10, 64)
	if err != nil {
		j.t.Errorf("a version of %s: %v", o.GetName(), err)
	}
	if j.seen[o.GetUID()] >= at && kind != watch.Deleted {
		return // what a list shows again
	}
	j.seen[o.GetUID()] = at
	if strings.HasSuffix(o.GetName(), endName) {
		j.ended[fmt.Sprintf("%T", o)] = true
	} else {
		j.log = append(j.log, entry{at, kind, o})
	}
	switch o := o.(type) {
	case *corev1.Node:
		if j.nodes[o.Name] = o; kind == watch.Deleted {
			delete(j.nodes, o.Name)
		}
	case *coordinationv1.Lease:
		if j.slots[o.Name] = o; kind == watch.Deleted {
			delete(j.slots, o.Name)
		}
	}
	select {
	case j.news <- struct{}{}:
	default:
	}
}

// person notes that what made o was done by a person.
func (j *judge) person(o metav1.Object, did string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	at, err := strconv.ParseUint(o.GetResourceVersion(), 10, 64)
	if err != nil {
		j.t.Fatal(err)
	}
	j.people[at] = did
}

// node is a Node as last seen; nil when there is none.
func (j *judge) node(name string) *corev1.Node {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.nodes[name]
}

// holder is who holds a slot, as last seen; "" nobody.
func (j *judge) holder(slot string) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return holderOf(j.slots[slot])
}

// slot is a slot's Lease as last seen; nil when there is none.
func (j *judge) slot(name string) *coordinationv1.Lease {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.slots[name]
}

func holderOf(l *coordinationv1.Lease) string {
	if l == nil || l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

// settled tells whether nothing is under way: no record, no trace of one, and no slot held or nominated.
func (j *judge) settled() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, n := range j.nodes {
		_, phase := n.Labels["kubebaton.io/phase"]
		tainted := slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == "kubebaton.io/reboot-pending" })
		if n.Annotations["kubebaton.io/reboot"] != "" || phase || tainted {
			return false
		}
	}
	for name, l := range j.slots {
		if strings.HasPrefix(name, "slot-") && (holderOf(l) != "" || l.Labels["kubebaton.io/nominee"] != "") {
			return false
		}
	}
	return true
}

// complete tells whether everything up to the end objects has been seen.
func (j *judge) complete() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.ended) == 3
}

// verdict plays the history again, checks it at every step, and returns it.
func (j *judge) verdict() *history {
	h := j.history()
	for _, f := range h.faults {
		j.t.Error(f)
	}
	return h
}

func (j *judge) history() *history {
	j.mu.Lock()
	defer j.mu.Unlock()
	slices.SortFunc(j.log, func(a, b entry) int { return cmp.Compare(a.at, b.at) })
	h := &history{limit: j.limit, hosts: map[string]*past{}, holders: map[string]string{}}
	for _, e := range j.log {
		h.at, h.person = e.at, j.people[e.at]
		switch o := e.of.(type) {
		case *corev1.Node:
			h.node(e.kind, o)
		case *coordinationv1.Lease:
			h.lease(e.kind, o)
		case *corev1.ConfigMap:
			h.configMap(o)
		}
		h.check()
	}
	return h
}

// history is what happened to a site.
type history struct {
	limit   int
	hosts   map[string]*past  // by node
	holders map[string]string // by slot
	faults  []string
	lines   []string

	at     uint64
	person string // what a person did at this step
	most   int    // nodes that were down at once
}

// past is what happened to a node and its host.
type past struct {
	unschedulable bool
	cordon        string // whose cordon there is: "", "baton" or "person"
	cordons       int    // laid by Baton
	going         bool   // the host goes down, or is down
	away          bool   // and it is not known to be back
	boot          string // the host's
	boots         int
	record        agent.Record // as last written, zero when there is none
	rebooted      []string     // cycles whose reboot was called done
}

func (p *past) down() bool { return p.cordon == agent.CordonBaton || p.away }

func (h *history) host(name string) *past {
	if h.hosts[name] == nil {
		h.hosts[name] = &past{}
	}
	return h.hosts[name]
}

func (h *history) linef(format string, args ...any) {
	h.lines = append(h.lines, fmt.Sprintf("%6d ", h.at)+fmt.Sprintf(format, args...))
}

func (h *history) faultf(format string, args ...any) {
	f := fmt.Sprintf("at %d: ", h.at) + fmt.Sprintf(format, args...)
	h.faults = append(h.faults, f)
	h.lines = append(h.lines, "!!! "+f)
}

func (h *history) node(kind watch.EventType, n *corev1.Node) {
	p := h.host(n.Name)
	if kind == watch.Deleted {
		p.unschedulable, p.cordon, p.record = false, "", agent.Record{}
		h.linef("%s deleted", n.Name)
		return
	}
	before := p.record
	p.record = agent.Record{}
	_ = json.Unmarshal([]byte(n.Annotations["kubebaton.io/reboot"]), &p.record) // rubbish is no record
	ready := ready(n)
	if ready && !p.going && n.Status.NodeInfo.BootID == p.boot {
		p.away = false
	}
	h.linef("%s ready=%t boot=%.8s unschedulable=%t %s/%d %v bids=%t %s %s", n.Name, ready, n.Status.NodeInfo.BootID,
		n.Spec.Unschedulable, p.record.Phase, p.record.Attempt, p.record.Reasons, p.record.Bids, p.record.Message, h.person)
	h.cordon(n, p)
	h.done(n, p, before)
}

func ready(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// cordon checks who lays a cordon, and who takes it off.
func (h *history) cordon(n *corev1.Node, p *past) {
	is := n.Spec.Unschedulable
	switch {
	case is == p.unschedulable:
	case is && h.person != "":
		p.cordon = "person"
	case is:
		p.cordon = agent.CordonBaton
		p.cordons++
		if p.record.Cordon != agent.CordonBaton {
			h.faultf("%s was cordoned, and its record does not say by whom", n.Name)
		}
	case h.person == "" && p.cordon != agent.CordonBaton:
		h.faultf("%s lost the cordon of a person", n.Name)
		p.cordon = ""
	default:
		p.cordon = ""
	}
	p.unschedulable = is
}

// done checks that a reboot that is called done is one, and is called so once.
func (h *history) done(n *corev1.Node, p *past, before agent.Record) {
	var past agent.History
	_ = json.Unmarshal([]byte(n.Annotations["kubebaton.io/history"]), &past) // "" is none
	for _, e := range past.Cycles {
		if !e.Rebooted || slices.Contains(p.rebooted, e.Cycle) {
			continue
		}
		p.rebooted = append(p.rebooted, e.Cycle)
		if before.BootID == "" || before.BootID == p.boot {
			h.faultf("%s calls its reboot done, and is on boot %q, where it was before: %q", n.Name, p.boot, before.BootID)
		}
		if len(p.rebooted) > p.boots-1 {
			h.faultf("%s calls %d reboots done, and was rebooted %d times", n.Name, len(p.rebooted), p.boots-1)
		}
	}
}

func (h *history) lease(kind watch.EventType, l *coordinationv1.Lease) {
	before, after := h.holders[l.Name], holderOf(l)
	if kind == watch.Deleted {
		// The write that frees a Lease that is being deleted removes it, and the event shows what was before.
		if before != "" && l.DeletionTimestamp == nil {
			h.faultf("%s vanished while %s held it", l.Name, before)
		}
		after = ""
	}
	if !strings.HasPrefix(l.Name, "slot-") {
		return
	}
	h.linef("%s %s holder=%q nominee=%q hold=%q %s", l.Name, kind, after, l.Annotations["kubebaton.io/nominee-node"],
		l.Annotations["kubebaton.io/hold"], h.person)
	if before != "" && after != "" && before != after {
		h.faultf("%s went from %s to %s", l.Name, before, after)
	}
	h.holders[l.Name] = after
}

func (h *history) configMap(m *corev1.ConfigMap) {
	if m.Name == limitName {
		limit, err := strconv.Atoi(m.Data[limitName])
		if err != nil {
			h.faultf("no limit: %v", err)
		}
		h.limit = limit
		h.linef("at most %d may be down", limit)
		return
	}
	name, ok := strings.CutPrefix(m.Name, powerPrefix)
	if !ok {
		return
	}
	p := h.host(name)
	h.linef("host of %s: %s %.8s", name, m.Data["is"], m.Data["boot"])
	switch m.Data["is"] {
	case hostGoing:
		if r := p.record; !p.going && (r.Phase != agent.Rebooting || r.BootID != p.boot) {
			h.faultf("the host of %s goes down from boot %q, and its record is %s on boot %q", name, p.boot, cmp.Or(r.Phase, "none"), r.BootID)
		}
		p.going, p.away = true, true
	case hostUp:
		p.going = false
		p.boot = m.Data["boot"]
		p.boots++
	}
}

// check is what must hold at every moment.
func (h *history) check() {
	var down []string
	for name, p := range h.hosts {
		if p.down() {
			down = append(down, name)
			if !slices.Contains(slices.Collect(maps.Values(h.holders)), name) {
				h.faultf("%s is down without a slot", name)
			}
		}
	}
	slices.Sort(down)
	h.most = max(h.most, len(down))
	if len(down) > h.limit {
		h.faultf("%d nodes are down, at most %d may be: %v", len(down), h.limit, down)
	}
}

// TestJudge shows that the judge sees a host that goes when it must not.
func TestJudge(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		record agent.Record
		want   string // a part of the fault, "" none
	}{
		{"in Rebooting, by a record of the boot that ends", agent.Record{Phase: agent.Rebooting, BootID: "a"}, ""},
		{"in Rebooting, by a record of another boot", agent.Record{Phase: agent.Rebooting, BootID: "z"}, `from boot "a", and its record is Rebooting on boot "z"`},
		{"in Draining", agent.Record{Phase: agent.Draining, BootID: "a"}, `from boot "a", and its record is Draining`},
		{"without a record", agent.Record{}, `from boot "a", and its record is none`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := &history{limit: 1, hosts: map[string]*past{"n": {boot: "a", record: tt.record}}, holders: map[string]string{}}
			h.configMap(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: powerPrefix + "n"}, Data: map[string]string{"is": hostGoing}})
			if got := strings.Join(h.faults, "\n"); !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
				t.Errorf("the faults are %q, want %q", got, tt.want)
			}
		})
	}
}
