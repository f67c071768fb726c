package marshal

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// named bounds how many nodes a message names.
const named = 5

// squad is one group as it stands.
type squad struct {
	Group
	members     []*Node
	limit       int
	slots       []*Slot             // by index
	unavailable map[string]struct{} // by Node name; "uid:" and the UID for a nominee that has no Node
	taken       int                 // slots held or nominated, and active records whose slot is not theirs
	failed      []string            // Failed, sentinel survived, or not back in time; by name
	paused      string              // "" is not paused
	halted      string              // "" is not halted
	busy        []string            // nodes on their way: nominated, or with a slot and not stuck; by name
	zones       map[string]string   // their zones, and one node of each
	trial       Trial

	settled bool
	trying  string // what its bids wait for that comes by itself; "" nothing
	noms    []Nomination
	says    []Verdict
}

// brake is the hold that belongs on the group's slots, "" for none.
func (q *squad) brake() string { return cmp.Or(q.paused, q.halted) }

// survey is a View put in order.
type survey struct {
	View
	squads []*squad
	byName map[string]*Node
	byUID  map[string]*Node
	slotOf map[string]*Slot // Node UID to the slot that it holds or else is nominated for
	holds  map[string]*Slot // Node name to the slot that it holds, under whatever UID
	group  map[string]*squad
	home   map[string]*squad // Node UID to its group
	stays  string            // a node that is away with its pods; "" none
}

func look(v View) *survey {
	s := &survey{
		View: v, byName: make(map[string]*Node, len(v.Nodes)), byUID: make(map[string]*Node, len(v.Nodes)),
		slotOf: map[string]*Slot{}, holds: map[string]*Slot{}, group: map[string]*squad{}, home: make(map[string]*squad, len(v.Nodes)),
	}
	for _, g := range v.Groups {
		q := &squad{Group: g, unavailable: map[string]struct{}{}, zones: map[string]string{}, trial: v.Trials[g.Name]}
		q.paused = pauseOf(v.Paused, g.Name)
		s.squads = append(s.squads, q)
		s.group[g.Name] = q
	}
	for i := range v.Nodes {
		n := &v.Nodes[i]
		s.byName[n.Name], s.byUID[n.UID] = n, n
	}
	s.addSlots()
	s.addNodes()
	for _, q := range s.squads {
		slices.Sort(q.failed)
		if len(q.failed) > q.MaxFailed {
			q.halted = reasonHalted + ": " + list(q.failed)
		}
	}
	return s
}

// pauseOf returns the hold of a paused group, "" when it is not paused.
func pauseOf(paused map[string]string, group string) string {
	if why := (State{Paused: paused}).Pause(group); why != "" {
		return reasonPaused + ": " + why
	}
	return ""
}

// addSlots counts what is held and nominated. A nomination counts until it is cleared, expired or not: the agent's clock
// decides whether it may still be taken.
func (s *survey) addSlots() {
	for i := range s.Slots {
		l := &s.Slots[i]
		switch {
		case l.Holder != "":
			s.holds[l.Holder] = l
			s.slotOf[cmp.Or(l.HolderUID, l.Nominee)] = l
		case l.Nominee != "" && s.slotOf[l.Nominee] == nil:
			s.slotOf[l.Nominee] = l
		}
		if q := s.group[l.Group]; q != nil {
			q.slots = append(q.slots, l)
		}
		switch {
		case l.Holder != "":
			s.takes(s.group[l.Group], l.Holder, s.byName[l.Holder])
		case l.Nominee != "":
			who, n := "uid:"+l.Nominee, s.byUID[l.Nominee]
			if n != nil {
				who = n.Name
			}
			s.takes(s.group[l.Group], who, n)
		}
	}
	for _, q := range s.squads {
		slices.SortFunc(q.slots, func(a, b *Slot) int {
			i, _ := slotIndex(q.Name, a.Name)
			j, _ := slotIndex(q.Name, b.Name)
			return cmp.Or(cmp.Compare(i, j), cmp.Compare(a.Name, b.Name))
		})
	}
}

// takes counts a slot of the group that is held or nominated, by a node that may be missing. The group is nil when there is none of
// that name any more: then it counts in the node's own, which may be the same under another name.
func (s *survey) takes(q *squad, who string, n *Node) {
	if q == nil && n != nil {
		q = s.match(n)
	}
	if q == nil {
		return
	}
	q.unavailable[who] = struct{}{}
	q.taken++
	if n != nil && s.stuck(q, n) {
		return
	}
	q.busy = append(q.busy, who)
	if n != nil && q.TopologyKey != "" {
		q.zones[n.Labels[q.TopologyKey]] = n.Name
	}
}

// addNodes puts every node in its group and counts those that are unavailable. A node on hold that has nothing to do
// with a slot is left out of both sides, but not where one at most may be missing: there a node that is not Ready is the one.
func (s *survey) addNodes() {
	counted := map[*squad]int{}
	missing := map[*squad][]string{} // on hold and not Ready
	for i := range s.Nodes {
		n := &s.Nodes[i]
		s.lost(n)
		if q := s.counts(n); n.Stays && n.active() && (n.Phase != phaseVerifying || !n.Ready) && (q == nil || !s.stuck(q, n)) {
			s.stays = cmp.Or(s.stays, n.Name)
		}
		home := s.match(n)
		if home != nil && !n.Foreign {
			s.home[n.UID] = home
			home.members = append(home.members, n)
			switch {
			case n.Hold == "" || n.active() || s.slotOf[n.UID] != nil:
				counted[home]++
				if !n.Ready || n.Unschedulable || n.active() || s.slotOf[n.UID] != nil {
					home.unavailable[n.Name] = struct{}{}
				}
			case !n.Ready:
				missing[home] = append(missing[home], n.Name)
			}
		}
		if q := s.counts(n); q != nil && s.failed(q, n) {
			q.failed = append(q.failed, n.Name)
		}
	}
	for _, q := range s.squads {
		q.limit = q.Limit(counted[q])
		if !q.onlyOne() {
			continue
		}
		for _, name := range missing[q] {
			q.unavailable[name] = struct{}{}
		}
	}
}

// counts returns the group that the node's failure counts in, nil for none: that of its slot, because its labels may have changed
// in its cycle, else the one that selects it.
func (s *survey) counts(n *Node) *squad {
	if l := s.slotOf[n.UID]; l != nil && s.group[l.Group] != nil {
		return s.group[l.Group]
	}
	return s.match(n)
}

func (s *survey) match(n *Node) *squad {
	for _, q := range s.squads {
		if q.Match == nil || q.Match(n.Labels) {
			return q
		}
	}
	return nil
}

// lost counts an active record that names a slot which is missing or another's: its node may be down all the same.
func (s *survey) lost(n *Node) {
	if !n.active() || n.Slot == "" {
		return
	}
	if l := s.slotOf[n.UID]; l != nil && l.Holder != "" {
		return
	}
	var of *squad
	for _, q := range s.squads {
		if _, ok := slotIndex(q.Name, n.Slot); ok {
			of = q
		}
	}
	s.takes(of, n.Name, n)
}

// failed tells whether the node counts against what its group bears. An acknowledgement holds for the present failure: the agent
// takes it off when it fails anew.
func (s *survey) failed(q *squad, n *Node) bool {
	switch {
	case n.Acknowledged:
		return false
	case n.Phase == phaseFailed, n.Phase == phaseWaiting && n.Survived:
		return true
	case q.canary(n) && !n.Ready && !n.active() && s.slotOf[n.UID] == nil && s.Now.Before(n.Proven.Add(q.CanarySoak)): // it was well for a moment only
		return true
	}
	since, ok := s.Away[n.UID]
	return ok && n.away() && s.Own.Sub(since) > q.rebootTimeout()
}

// stuck tells whether nobody waits any more for a node that was taken down: it failed, which halts its group or is borne by it,
// or people know that it is away.
func (s *survey) stuck(q *squad, n *Node) bool {
	return s.failed(q, n) || n.Acknowledged && (n.Phase == phaseFailed || n.away())
}

// Nominate returns whom to invite now: the oldest bids for the free slots of each group, as far as its limit goes.
func Nominate(v View) []Nomination {
	noms, _ := look(v).decide()
	return noms
}

// decide returns the nominations, and the reason of everybody who waits.
func (s *survey) decide() ([]Nomination, []Verdict) {
	var noms []Nomination
	var says []Verdict
	for i := range s.Nodes {
		if n := &s.Nodes[i]; n.Phase == phaseWaiting && s.home[n.UID] == nil {
			says = append(says, Verdict{Node: n.Name, UID: n.UID, Reason: reasonGroup, Message: "no group selects this node"})
		}
	}
	for _, q := range s.squads {
		s.settle(q)
	}
	for _, q := range s.squads {
		noms, says = append(noms, q.noms...), append(says, q.says...)
	}
	return noms, says
}

// settle decides on a group, after those that it comes after.
func (s *survey) settle(q *squad) {
	if q.settled {
		return
	}
	q.settled = true
	first := "" // who goes before this group
	for _, name := range q.After {
		if p := s.group[name]; p != nil {
			s.settle(p)
			first = cmp.Or(first, p.keepsOthers())
		}
	}
	var bids []*Node
	for _, n := range q.members {
		if n.Phase != phaseWaiting {
			continue
		}
		switch reason, message := s.shut(q, n); {
		case reason != "":
			q.say(n, reason, message)
		case first != "":
			q.trying = first // and so do those that come after this one
			q.say(n, reasonAfter, first)
		default:
			bids = append(bids, n)
		}
	}
	s.call(q, s.canaries(q, bids))
}

// keepsOthers says why the groups after this one have to wait, "" when they need not.
func (q *squad) keepsOthers() string {
	switch {
	case q.halted != "":
		return q.Name + " is " + q.halted
	case len(q.busy) > 0:
		return q.Name + " goes first: " + list(q.busy)
	case q.trying != "":
		return q.Name + " goes first: " + q.trying
	}
	return ""
}

// call nominates from the bids, in their order, as far as zones, budget and slots go.
func (s *survey) call(q *squad, bids []*Node) {
	slices.SortFunc(bids, s.turn(q))
	free := q.free()
	full, short := "", "" // made once: they choose from hundreds to thousands
	for _, n := range bids {
		_, counted := q.unavailable[n.Name]
		switch ahead, other := q.otherZone(n); {
		case other:
			q.say(n, reasonZone, fmt.Sprintf("zone %q goes first: %s", ahead, q.zones[ahead]))
		case counted && q.onlyOne() && q.deadBeside(n) != "":
			q.say(n, reasonBudget, fmt.Sprintf("1 of %d may be unavailable: %s", len(q.members), q.deadBeside(n)))
		case !counted && len(q.unavailable) >= q.limit && q.others() > 0:
			if full == "" {
				full = fmt.Sprintf("%d of %d may be unavailable: %s", q.limit, len(q.members), q.away())
			}
			q.say(n, reasonBudget, full)
		case q.taken >= q.limit || len(free) == 0 || !counted && len(q.unavailable) >= q.limit:
			if short == "" {
				short = q.short()
			}
			q.say(n, reasonSlot, short)
		default:
			s.takes(q, n.Name, n)
			q.noms = append(q.noms, Nomination{
				Slot: free[0].Name, Node: n.Name, UID: n.UID, Cycle: n.Cycle, Attempt: n.Attempt,
				Until: s.Now.Add(s.NominationTimeout),
			})
			free = free[1:]
			q.say(n, "", "")
		}
	}
}

// short says why there is no slot for a bid that could go. One that is not there yet, or still has to be tidied up, keeps the
// groups after this one waiting, as a bid with a slot would; not one that hangs in its deletion, which may be for ever.
func (q *squad) short() string {
	switch {
	case len(q.busy) > 0:
		return "every slot is taken: " + list(slices.Sorted(slices.Values(q.busy)))
	case q.taken >= q.limit:
		return "every slot is taken"
	}
	lost, hangs := 0, "" // of the slots up to the limit: those that nobody frees, and one of them
	for _, l := range q.slots {
		if i, ok := slotIndex(q.Name, l.Name); ok && i < q.limit && (l.Deleting || !l.empty()) {
			lost++
			if l.empty() {
				hangs = cmp.Or(hangs, l.Name)
			}
		}
	}
	if lost == q.limit {
		return hangs + " is being deleted, and a finalizer that is not Baton's keeps it"
	}
	q.trying = "its slots are not there yet"
	return q.trying
}

// otherZone is a zone that nodes are down in and that is not the node's own: the first by name. It may be one of several, when a
// marshal that saw too little has nominated.
func (q *squad) otherZone(n *Node) (zone string, ok bool) {
	own := n.Labels[q.TopologyKey]
	for z := range q.zones {
		if z != own && (!ok || z < zone) {
			zone, ok = z, true
		}
	}
	return zone, ok
}

func (q *squad) say(n *Node, reason, message string) {
	q.says = append(q.says, Verdict{n.Name, n.UID, q.Name, reason, message})
}

// onlyOne tells whether one node of the group at most may be missing.
func (q *squad) onlyOne() bool { return q.Limit(len(q.members)) == 1 }

// deadBeside is a node of the group, other than n, that is not Ready; "" none. Where one at most may be missing it is the one, also
// when n is unavailable already, as with a cordon: a cordoned node still serves what runs on it.
func (q *squad) deadBeside(n *Node) string {
	for _, m := range q.members {
		if m != n && !m.Ready {
			return m.Name
		}
	}
	return ""
}

// others counts who is unavailable without being on its way.
func (q *squad) others() int { return len(q.unavailable) - len(q.busy) }

// shut returns why a waiting node is no candidate, "" when it is one.
func (s *survey) shut(q *squad, n *Node) (reason, message string) {
	switch {
	case n.Hold != "":
		return reasonHold, n.Hold
	case n.Survived:
		return reasonSurvived, "the sentinel is the same after the reboot"
	case !n.Ready || n.Deleting:
		return reasonNotReady, ""
	case s.holds[n.Name] != nil:
		return reasonSlot, s.holds[n.Name].Name + " is held in its name"
	case s.slotOf[n.UID] != nil:
		return reasonSlot, "invited to " + s.slotOf[n.UID].Name
	case q.paused != "":
		return reasonPaused, q.paused
	case s.Own.Before(s.Unsure):
		return reasonRestored, "the API server was restored from a backup, or may have been: who is down shows until " + s.Unsure.UTC().Format(time.RFC3339)
	case q.halted != "":
		return reasonHalted, q.halted
	case s.stays != "":
		return reasonBudget, s.stays + " is away with its pods, which disruption budgets do not know yet"
	case !n.Bids || n.Cycle == "" || n.UID == "":
		return cmp.Or(n.Reason, reasonRecord), ""
	case s.Own.Before(s.Penalty[n.UID]):
		return reasonSlot, "did not take its nomination; passed over until " + s.Penalty[n.UID].UTC().Format(time.RFC3339)
	}
	return "", ""
}

// turn sorts the bids of a group.
func (s *survey) turn(q *squad) func(a, b *Node) int {
	return func(a, b *Node) int { return cmp.Or(q.rank(a, b), s.order(a, b)) }
}

// order sorts candidates: the oldest bid first, but the marshal's own node a day later, then by name.
func (s *survey) order(a, b *Node) int {
	turn := func(n *Node) time.Time {
		if n.Name == s.Self {
			return n.Pending.Add(ownWaits)
		}
		return n.Pending
	}
	return cmp.Or(turn(a).Compare(turn(b)), cmp.Compare(a.Name, b.Name))
}

// ownWaits is how much younger the wish of a node may be that still goes before the marshal's own. Without an end, nodes that join
// again and again would keep it waiting for ever.
const ownWaits = 24 * time.Hour

// rank comes before order: canaries first, nodes that are expected to be difficult last, zones by name.
func (q *squad) rank(a, b *Node) int {
	last := func(yes bool) int {
		if yes {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(last(q.covered(a)), last(q.covered(b))), cmp.Compare(last(a.Warned), last(b.Warned)),
		cmp.Compare(a.Labels[q.TopologyKey], b.Labels[q.TopologyKey]))
}

// free returns the slots that can be nominated, surplus ones left out.
func (q *squad) free() []*Slot {
	var free []*Slot
	for _, l := range q.slots {
		if i, ok := slotIndex(q.Name, l.Name); ok && i < q.limit && l.empty() && !l.Deleting && l.Hold == "" {
			free = append(free, l)
		}
	}
	return free
}

// away names those that are unavailable.
func (q *squad) away() string { return list(slices.Sorted(maps.Keys(q.unavailable))) }

// list names the first few of many.
func list(names []string) string {
	if len(names) <= named {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:named], ", "), len(names)-named)
}
