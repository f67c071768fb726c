package lock

import "sync"

// own are the slots that a node holds, or may yet come to hold by a write that is on its way, be it an earlier process's.
type own struct {
	mu    sync.Mutex
	names map[string]bool // nil: not known
	took  bool            // Take was called: what a watch shows first may be older than that
}

// only tells whether it is known that no other slot than that one is this node's or can become so.
func (o *own) only(name string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.took = true
	return o.names != nil && (len(o.names) == 0 || len(o.names) == 1 && o.names[name])
}

// are says which they are; nil is not known.
func (o *own) are(names map[string]bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.names = names
}

// first takes what a watch shows first, which is as new as a quorum read: an earlier process of this node is dead by then, and a
// Take of it that is still on its way was decided on a slot that names this node, at the version shown here or at one that is gone.
func (o *own) first(slots []Slot) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.took {
		return
	}
	o.names = map[string]bool{}
	for _, s := range slots {
		o.names[s.Name] = true
	}
}

// without leaves out a slot that a write has emptied just now: no earlier one can take hold any more.
func (o *own) without(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.names, name)
}
