package fleet

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
)

// sight is what of a Node the judge looks at.
type sight struct {
	first, boot string // boot ID at first sight, and now
	group       string
	cordoned    bool
	cycle       bool // there is a record of a cycle
}

// judge watches the Nodes and the slots. It knows nothing of how agents do it.
type judge struct {
	told Options // what the fleet was told to keep to

	mu       sync.Mutex
	nodes    map[string]sight
	off      map[string]bool // hosts that are down
	waits    map[string]bool // nodes that are to be rebooted
	done     map[string]time.Time
	holders  map[string]string // by slot
	freed    map[string]time.Time
	taken    map[string]time.Time // by node: when the slot was freed that it has taken
	cordons  map[string]time.Time // by node, until its slot is known
	handOver []time.Duration
	down     map[string]bool
	most     int            // down at once
	members  map[string]int // nodes, by group
	allowed  map[string]int // by group, the largest limit so far: a node that leaves does not bring another one up
	events   int
	faults   []string
	all      chan struct{} // closed when nobody waits any more
}

const maxFaults = 20

func newJudge(told Options) *judge {
	return &judge{
		told: told, members: map[string]int{}, allowed: map[string]int{}, nodes: map[string]sight{}, off: map[string]bool{}, waits: map[string]bool{}, done: map[string]time.Time{},
		holders: map[string]string{}, freed: map[string]time.Time{}, taken: map[string]time.Time{}, cordons: map[string]time.Time{},
		down: map[string]bool{}, all: make(chan struct{}),
	}
}

// expect makes the judge wait for a node's reboot; forget ends that, when the node is gone or is not to come back.
func (j *judge) expect(names ...string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, n := range names {
		j.waits[n] = true
	}
}

func (j *judge) forget(name string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.waits, name)
	j.ends()
}

func (j *judge) ends() {
	if len(j.waits) > 0 {
		return
	}
	select {
	case <-j.all:
	default:
		close(j.all)
	}
}

// left says how many are still waited for, and names a few of them.
func (j *judge) left() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	names := slices.Sorted(maps.Keys(j.waits))
	return fmt.Sprintf("%d of %d: %s …", len(names), len(names)+len(j.done), strings.Join(names[:min(3, len(names))], " "))
}

// power is told when a host goes down and when it is back.
func (j *judge) power(name string, on bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if on {
		delete(j.off, name)
	} else {
		j.off[name] = true
	}
	j.weigh(name)
}

// weigh looks whether the node is down, and whether too many are.
func (j *judge) weigh(name string) {
	n, exists := j.nodes[name]
	was := j.down[name]
	if !exists || !n.cordoned && !j.off[name] {
		delete(j.down, name)
		return
	}
	j.down[name] = true
	j.most = max(j.most, len(j.down))
	together := 0
	for other := range j.down {
		if j.nodes[other].group == n.group {
			together++
		}
	}
	if !was && together > j.allowed[n.group] && len(j.faults) < maxFaults {
		j.faults = append(j.faults, fmt.Sprintf("%s: %s goes down, %d of the %d nodes of group %s are, the limit is %d",
			time.Now().Format(time.TimeOnly), name, together, j.members[n.group], n.group, j.allowed[n.group]))
	}
}

func (j *judge) node(n *corev1.Node, now time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events++
	was, known := j.nodes[n.Name]
	is := sight{first: was.first, boot: n.Status.NodeInfo.BootID, cordoned: n.Spec.Unschedulable, group: j.told.groupOf(n.Labels[poolLabel])}
	_, is.cycle = n.Annotations["kubebaton.io/reboot"]
	if !known {
		is.first = is.boot
		j.members[is.group]++
		j.allowed[is.group] = max(j.allowed[is.group], j.told.limitOf(is.group, j.members[is.group]))
	}
	j.nodes[n.Name] = is
	if is.cordoned && !was.cordoned {
		j.cordoned(n.Name, now)
	}
	j.weigh(n.Name)
	if j.waits[n.Name] && is.boot != is.first && !is.cordoned && !is.cycle {
		delete(j.waits, n.Name)
		j.done[n.Name] = now
		j.ends()
	}
}

// deleted is told of a Node that is no more.
func (j *judge) deleted(name string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events++
	if n, known := j.nodes[name]; known {
		j.members[n.group]--
	}
	delete(j.nodes, name)
	j.weigh(name)
}

// cordoned makes a hand-over of a cordon and the freeing of the slot that its node has taken before.
func (j *judge) cordoned(name string, now time.Time) {
	if freed, ok := j.taken[name]; ok {
		delete(j.taken, name)
		j.handOver = append(j.handOver, now.Sub(freed))
		return
	}
	j.cordons[name] = now
}

func (j *judge) slot(l *coordinationv1.Lease, now time.Time) {
	if !strings.HasPrefix(l.Name, "slot-") {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events++
	holder := ""
	if l.Spec.HolderIdentity != nil {
		holder = *l.Spec.HolderIdentity
	}
	was := j.holders[l.Name]
	j.holders[l.Name] = holder
	switch {
	case was == holder:
	case holder == "":
		j.freed[l.Name] = now
		delete(j.cordons, was)
	default:
		freed, ok := j.freed[l.Name]
		if !ok {
			return // the first holder: nobody hands over to it
		}
		delete(j.freed, l.Name)
		if at, seen := j.cordons[holder]; seen {
			delete(j.cordons, holder)
			j.handOver = append(j.handOver, at.Sub(freed))
			return
		}
		j.taken[holder] = freed
	}
}
