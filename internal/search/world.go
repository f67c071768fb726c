package search

import "kubebaton.io/baton/agent"

// The largest world. What a configuration does not use stays zero.
const (
	maxNodes    = 3
	maxSlots    = 2
	maxMarshals = 2
	maxLetters  = 2
	perHost     = 2 // agent processes; the second runs only while rule 3 is switched off
)

// world is one state. It is a plain value without padding and pointers: equal states are equal bytes. What is large (a
// record, a history, a Lease) stands in a table of the model, and here is its number.
type world struct {
	nodes    [maxNodes]node
	hosts    [maxNodes]host
	slots    [maxSlots]slot
	agents   [maxNodes][perHost]process
	marshals [maxMarshals]marshalView
	letters  [maxLetters]letter
	paused   bool
	left     [faultKinds]uint8 // how often each fault may still happen
}

// node is a Node object as the API server has it, or as somebody saw it.
type node struct {
	record   recordID
	history  historyID
	exists   bool
	cordoned bool
	ready    bool
	hold     bool  // a person's annotation
	acked    bool  // a person's annotation
	uid      uint8 // counts the Nodes of this name
	boot     uint8 // as the kubelet last reported it
	instance uint8 // who wrote the record
}

// host is a machine. Its last two fields are ghosts: the search knows them, Baton does not.
type host struct {
	boot     uint8
	down     bool  // it accepted a reboot and is on its way
	mute     bool  // it cannot be asked what is coming
	scrapped bool  // there is no such machine any more
	sentinel uint8 // fingerprint of what wants a reboot; 0 nothing
	updates  uint8 // fingerprints used up
	cycles   uint8 // names of cycles used up
	cordonBy owner // who laid the cordon that is on the Node
	left     uint8 // the boot on which the node was cordoned to go, plus one; 0: it was not
}

type owner uint8

const (
	nobody owner = iota
	baton
	person
)

// Instances are told apart only as far as it matters: 0 is a process that is no more, or an identity that was given up;
// p+1 is process p of the host as it is now.
func instanceOf(p int) uint8 { return uint8(p) + 1 }

// slot is a Lease, or as somebody saw it.
type slot struct {
	lease    leaseID // 0: there is none
	instance uint8   // who wrote the claim
	seen     version // of what somebody saw; unseen in the world itself
}

// version is all that matters of a resourceVersion: whether what was seen is still what is there.
type version uint8

const (
	unseen version = iota
	current
	old     // somebody wrote it since
	another // it was deleted since; what is there by that name is another object
)

// process is an agent process. Usually its watches are up to date, and it sees the world as it is. While one stands still
// the process sees what it saw last.
type process struct {
	alive     bool
	at        stage
	call      answer
	misled    bool // rule 5 is switched off, and it is told another boot ID
	leaving   bool // Baton is being removed
	oldNode   bool // it sees node instead of the Node
	oldSlots  bool // it sees slots instead of the slots
	nodeSeen  version
	uncordons bool // a ghost: a person uncordoned the Node since the last check read it
	node      node
	slots     [maxSlots]slot
}

// stage is how far a process is on the only way that takes more than one step.
type stage uint8

const (
	deciding stage = iota
	checking       // the last check has read the Node
	calling        // the last check has passed
)

// answer is what the host said to the call of this process.
type answer uint8

const (
	uncalled answer = iota
	accepted
	refused
)

// marshalView is what one marshal sees while a watch of it stands still.
type marshalView struct {
	oldNodes, oldSlots bool
	nodes              [maxNodes]node
	slots              [maxSlots]slot
}

func (v *marshalView) upToDate() bool { return !v.oldNodes && !v.oldSlots }

// letter is a write whose sender has given it up and that may still arrive.
type letter struct {
	change   changeID  // of a Node
	lease    leaseID   // that was sent
	verb     writeVerb // nothing: no letter
	of       uint8     // the Node or the slot
	uid      uint8     // of the Node that it was decided on
	instance uint8     // the writer
	seen     version   // of the object that it was decided on
	boot     uint8     // of the sender's host; a ghost
}

type writeVerb uint8

const (
	nothing writeVerb = iota
	patchNode
	putLease
	deleteLease
	createLease
)

// nodeChanged makes every other view of the Node old, and what is on its way to it void.
func (w *world) nodeChanged(n int, r *rules) {
	for p := range w.agents[n] {
		if a := &w.agents[n][p]; a.oldNode && a.nodeSeen == current {
			a.nodeSeen = old
		}
	}
	w.void(r, true, n, old)
}

// slotChanged does the same for a slot. gone: the Lease itself is no more.
func (w *world) slotChanged(k int, gone bool, r *rules) {
	now := old
	if gone {
		now = another
	}
	for n := range w.agents {
		for p := range w.agents[n] {
			w.agents[n][p].slots[k].age(now)
		}
	}
	for m := range w.marshals {
		w.marshals[m].slots[k].age(now)
	}
	w.void(r, false, k, now)
}

// age makes what was seen older, unless it is nothing or as old already.
func (s *slot) age(now version) {
	if s.seen != unseen {
		s.seen = max(s.seen, now)
	}
}

// void marks letters as decided on something that is no more; as long as rule 1 holds they cannot do anything then.
func (w *world) void(r *rules, toNode bool, of int, now version) {
	for i := maxLetters - 1; i >= 0; i-- {
		l := &w.letters[i]
		switch {
		case l.verb == nothing || (l.verb == patchNode) != toNode || int(l.of) != of:
		case !r.blind:
			w.discard(i)
		default:
			l.seen = max(l.seen, now)
		}
	}
}

// discard takes a letter out. Those that are left stand first, so that equal worlds are equal.
func (w *world) discard(i int) {
	copy(w.letters[i:], w.letters[i+1:])
	w.letters[maxLetters-1] = letter{}
}

func (w *world) send(l letter) bool {
	for i := range w.letters {
		if w.letters[i].verb == nothing {
			w.letters[i] = l
			return true
		}
	}
	return false
}

// retire makes an instance one of the past, wherever it is written.
func (w *world) retire(n, p int, m *model) {
	is := instanceOf(p)
	give := func(i *uint8) {
		if *i == is {
			*i = 0
		}
	}
	mine := func(s *slot) {
		if m.holder(s.lease) == n {
			give(&s.instance)
		}
	}
	give(&w.nodes[n].instance)
	for k := range w.slots {
		mine(&w.slots[k])
	}
	for q := range w.agents[n] {
		give(&w.agents[n][q].node.instance)
	}
	for o := range w.agents {
		for q := range w.agents[o] {
			for k := range w.agents[o][q].slots {
				mine(&w.agents[o][q].slots[k])
			}
		}
	}
	for i := range w.marshals {
		for k := range w.marshals[i].slots {
			mine(&w.marshals[i].slots[k])
		}
	}
	for i := range w.letters {
		l := &w.letters[i]
		if l.verb == patchNode && int(l.of) == n || l.verb == putLease && m.holder(l.lease) == n {
			give(&l.instance)
		}
	}
}

// refresh is a quorum read of everything by a process.
func (a *process) refresh() {
	a.oldNode, a.oldSlots, a.nodeSeen, a.node = false, false, unseen, node{}
	a.slots = [maxSlots]slot{}
}

// seenBy returns what a process sees.
func (w *world) seenBy(n, p int) (nd node, seen version, slots [maxSlots]slot) {
	a := &w.agents[n][p]
	nd, seen, slots = w.nodes[n], current, w.nowSlots()
	if a.oldNode {
		nd, seen = a.node, a.nodeSeen
	}
	if a.oldSlots {
		slots = a.slots
	}
	return nd, seen, slots
}

// nowSlots are the slots as a reader sees them now.
func (w *world) nowSlots() [maxSlots]slot {
	s := w.slots
	for k := range s {
		s[k].seen = current
	}
	return s
}

// busy tells that a process of the host is between its last check and the call, which takes seconds.
func (w *world) busy(n int) bool {
	for p := range w.agents[n] {
		if w.agents[n][p].at != deciding {
			return true
		}
	}
	return false
}

// active tells whether a record says that its node is down.
func active(p agent.Phase) bool {
	switch p {
	case agent.Draining, agent.Rebooting, agent.Verifying, agent.Failed:
		return true
	case agent.Idle, agent.Waiting, agent.Backoff:
	}
	return false
}
