package marshal

import (
	"cmp"
	"slices"
)

// Kind is what a housekeeping [Action] does to a slot.
type Kind int

// The kinds of action.
const (
	Create   Kind = iota + 1 // make slot Index of Group
	Delete                   // remove an empty slot that the group has no use for
	Expire                   // clear a nomination that nobody took in time
	Withdraw                 // clear a nomination whose node does not bid any more
	SetHold                  // write the brake, or take it off
)

func (k Kind) String() string {
	return [...]string{
		Create: "create", Delete: "delete", Expire: "expire", Withdraw: "withdraw", SetHold: "hold",
	}[k]
}

// Action is one write. Slot is the version that it was decided on.
type Action struct {
	Kind  Kind
	Slot  Slot   // for Create only Name and Group are set
	Index int    // Create
	Hold  string // SetHold
}

// Housekeep returns what is to be written besides nominations, at most one action a slot.
func Housekeep(v View) []Action { return look(v).housekeep() }

func (s *survey) housekeep() []Action {
	var todo []Action
	exists := make(map[string]bool, len(s.Slots))
	for i := range s.Slots {
		exists[s.Slots[i].Name] = true
		if a, ok := s.tend(&s.Slots[i]); ok {
			todo = append(todo, a)
		}
	}
	for _, q := range s.squads {
		for i := range q.limit {
			name := SlotName(q.Name, i)
			if !exists[name] && len(q.members) > 0 {
				todo = append(todo, Action{Kind: Create, Slot: Slot{Name: name, Group: q.Name}, Index: i})
			}
		}
	}
	return todo
}

// tend returns what one slot needs.
func (s *survey) tend(l *Slot) (Action, bool) {
	q := s.group[l.Group]
	if l.nominated() {
		if s.expired(l) {
			return Action{Kind: Expire, Slot: *l}, true
		}
		if s.withdrawn(l) {
			return Action{Kind: Withdraw, Slot: *l}, true
		}
	}
	if l.empty() && !l.Deleting && len(s.Groups) > 0 && (q == nil || q.surplus(l)) {
		return Action{Kind: Delete, Slot: *l}, true
	}
	want := ""
	switch {
	case l.empty():
	case q != nil:
		want = q.brake()
	default: // people renamed the group: its nodes are in another one now
		want = pauseOf(s.Paused, l.Group)
		if home := s.home[cmp.Or(l.HolderUID, l.Nominee)]; home != nil {
			want = cmp.Or(want, home.brake())
		}
	}
	if l.Hold != want {
		return Action{Kind: SetHold, Slot: *l, Hold: want}, true
	}
	return Action{}, false
}

// expired also takes a nomination for expired that claims to last longer than any is given: its author's clock was wrong.
func (s *survey) expired(l *Slot) bool {
	return !l.BidUntil.After(s.Now) || l.BidUntil.Sub(s.Now) > 2*s.NominationTimeout
}

// withdrawn also takes a nomination back whose node belongs to another group by now: groups were drawn anew, or its labels were.
func (s *survey) withdrawn(l *Slot) bool {
	n := s.byUID[l.Nominee]
	if home := s.home[l.Nominee]; len(s.Groups) > 0 && (home == nil || home.Name != l.Group) {
		return true
	}
	return n == nil || n.Phase != phaseWaiting || !n.Bids || n.Cycle != l.BidCycle || n.Attempt != l.BidAttempt ||
		n.Deleting || n.Hold != "" || n.Survived
}

func (q *squad) surplus(l *Slot) bool {
	i, ok := slotIndex(q.Name, l.Name)
	return !ok || i >= q.limit || len(q.members) == 0
}

// Gone returns the held slots whose holder's Node is not there, or is there again with another UID and another boot ID.
// One that was registered again on the same boot is not gone: its own agent sees the slot, and frees it.
func Gone(v View) []Slot {
	nodes := make(map[string]*Node, len(v.Nodes))
	for i := range v.Nodes {
		nodes[v.Nodes[i].Name] = &v.Nodes[i]
	}
	var out []Slot
	for i := range v.Slots {
		l := &v.Slots[i]
		if l.Holder != "" && holderGone(l, nodes[l.Holder]) {
			out = append(out, *l)
		}
	}
	return out
}

// holderGone decides on one slot and the Node of its holder's name, nil when there is none.
func holderGone(l *Slot, n *Node) bool {
	if n == nil {
		return true
	}
	return l.HolderUID != "" && n.UID != l.HolderUID && l.BootID != "" && n.BootID != "" && n.BootID != l.BootID
}

// heir returns the name of the node whose agent should lead next, "" when nobody stands: of those that wait the one
// whose turn comes last, because it will lead longest; else one that is in Backoff or has Failed.
func heir(v View) string {
	s := look(v)
	var best *Node
	for i := range v.Nodes {
		n := &v.Nodes[i]
		if s.stands(n) == 0 {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(s.stands(n), s.stands(best)), s.order(n, best)) > 0 {
			best = n
		}
	}
	if best == nil {
		return ""
	}
	return best.Name
}

// stands ranks the nodes whose agents stand for election, by how long they will wait; 0 is one that does not, is not well, or is
// the marshal's own.
func (s *survey) stands(n *Node) int {
	switch {
	case n.Name == s.Self || n.UID == "" || !n.Ready || n.Deleting || n.Foreign:
		return 0
	case n.Phase == phaseWaiting && s.slotOf[n.UID] == nil:
		return 3
	case n.Phase == phaseWaiting && s.slotOf[n.UID].Holder == "":
		return 2
	case n.Phase == phaseBackoff, n.Phase == phaseFailed:
		return 1
	}
	return 0
}

// sorted is for output that people and tests compare.
func sorted(slots []Slot) []Slot {
	slices.SortFunc(slots, func(a, b Slot) int { return cmp.Compare(a.Name, b.Name) })
	return slots
}
