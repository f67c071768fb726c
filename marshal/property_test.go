package marshal

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"
)

var seed = flag.Uint64("seed", 0, "replay the random cluster of this seed only")

// cluster is what the API server holds, and two marshals that see it late.
type cluster struct {
	t      *testing.T
	rnd    *rand.Rand
	now    time.Time
	groups []Group
	nodes  []Node
	want   map[string]bool // node name: still has to reboot
	slots  []Slot
	rv     int
	trials map[string]Trial
	views  [2]View
	memory [2]*runner // only observe and missed are used
	before [2][]Slot
	log    []string
}

func newCluster(t *testing.T, seed uint64) *cluster {
	c := &cluster{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), now: zero, want: map[string]bool{}}
	for g := range 1 + c.rnd.IntN(3) {
		name := strconv.Itoa(g)
		grp := Group{
			Name: "g" + name, MaxUnavailable: 1 + c.rnd.IntN(3), MaxFailed: c.rnd.IntN(3), RebootTimeout: time.Hour,
			Match: func(l map[string]string) bool { return l["g"] == name },
		}
		if c.rnd.IntN(3) == 0 {
			grp.MaxUnavailablePercent = 10 + c.rnd.IntN(60)
		}
		if c.rnd.IntN(3) == 0 {
			grp.TopologyKey = "z"
		}
		if c.rnd.IntN(3) == 0 {
			grp.Canaries, grp.CanarySoak = 1+c.rnd.IntN(2), time.Minute
		}
		for before := range g {
			if c.rnd.IntN(3) == 0 {
				grp.After = append(grp.After, "g"+strconv.Itoa(before))
			}
		}
		c.groups = append(c.groups, grp)
		for n := range 1 + c.rnd.IntN(9) {
			node := idle(fmt.Sprintf("n%d-%d", g, n), func(x *Node) { x.Labels = map[string]string{"g": name, "z": string("abc"[n%3])} })
			c.nodes = append(c.nodes, node)
			c.want[node.Name] = true
		}
	}
	for k := range c.memory {
		c.memory[k] = newRunner()
		c.look(k)
	}
	return c
}

func newRunner() *runner {
	r := &runner{log: discard}
	r.prepare()
	return r
}

func (c *cluster) chance(percent int) bool { return c.rnd.IntN(100) < percent }

func (c *cluster) note(format string, args ...any) {
	c.log = append(c.log, fmt.Sprintf(format, args...))
}

// look brings marshal k's view up to date, as a whole.
func (c *cluster) look(k int) { c.lookNodes(k); c.lookSlots(k) }

func (c *cluster) lookNodes(k int) { c.views[k].Nodes = slices.Clone(c.nodes) }
func (c *cluster) lookSlots(k int) { c.views[k].Slots = slices.Clone(c.slots) }

// cas is the API server: a write takes hold only on the version that it was decided on.
func (c *cluster) cas(s Slot, change func(*Slot)) bool {
	for i := range c.slots {
		if l := &c.slots[i]; l.Name == s.Name && l.ResourceVersion == s.ResourceVersion {
			change(l)
			c.rv++
			l.ResourceVersion = strconv.Itoa(c.rv)
			c.check()
			return true
		}
	}
	return false
}

// check holds at each effect: no group has more holders than its limit.
func (c *cluster) check() {
	for _, g := range c.groups {
		total, holders := 0, map[string]int{}
		for _, n := range c.nodes {
			if g.Match(n.Labels) {
				total++
			}
		}
		for _, s := range c.slots {
			if s.Group == g.Name && s.Holder != "" {
				holders[s.Holder]++
			}
		}
		for name, n := range holders {
			if n > 1 {
				c.fail("%s holds %d slots", name, n)
			}
		}
		if len(holders) > g.Limit(total) {
			c.fail("group %s: %d holders, limit %d", g.Name, len(holders), g.Limit(total))
		}
	}
}

func (c *cluster) fail(format string, args ...any) {
	c.t.Helper()
	for _, l := range c.log[max(0, len(c.log)-60):] {
		c.t.Log(l)
	}
	c.t.Fatalf(format, args...)
}

// marshal lets marshal k make one pass on what it sees.
func (c *cluster) marshal(k int, fresh bool) {
	r := c.memory[k]
	v := c.views[k]
	v.Now, v.Own, v.Groups, v.NominationTimeout, v.Self = c.now, c.now, c.groups, 30*time.Second, c.nodes[k%len(c.nodes)].Name
	v.Trials = c.trials
	v.Penalty = map[string]time.Time{}
	r.observe(&v, c.before[k])
	for _, a := range Housekeep(v) {
		c.note("%s marshal %d: %s %s %s%s", c.now.Format("15:04:05"), k, a.Kind, a.Slot.Name, a.Slot.Nominee, a.Hold)
		switch a.Kind {
		case Create:
			if !slices.ContainsFunc(c.slots, func(s Slot) bool { return s.Name == a.Slot.Name }) {
				c.rv++
				c.slots = append(c.slots, Slot{Name: a.Slot.Name, Group: a.Slot.Group, ResourceVersion: strconv.Itoa(c.rv)})
			}
		case Delete:
			if c.cas(a.Slot, func(l *Slot) { l.Deleting = true }) {
				c.slots = slices.DeleteFunc(c.slots, func(s Slot) bool { return s.Deleting && s.Holder == "" })
			}
		case Expire, Withdraw:
			if c.cas(a.Slot, func(l *Slot) { l.Nominee, l.BidCycle = "", "" }) && a.Kind == Expire && a.Slot.Hold == "" {
				r.missed(c.now, &a.Slot)
			}
		case SetHold:
			c.cas(a.Slot, func(l *Slot) { l.Hold = a.Hold })
		}
	}
	if fresh {
		c.look(k)
		v.Nodes, v.Slots = c.views[k].Nodes, c.views[k].Slots
	}
	v.Penalty = r.memory.penalty()
	room := c.room()
	noms := Nominate(v)
	if fresh {
		c.ordered(v, noms)
	}
	if fresh || c.chance(80) {
		c.trials = Trials(v)
	}
	for _, n := range noms {
		i := slices.IndexFunc(v.Slots, func(s Slot) bool { return s.Name == n.Slot })
		ok := c.cas(v.Slots[i], func(l *Slot) { l.Nominee, l.BidCycle, l.BidAttempt, l.BidUntil = n.UID, n.Cycle, n.Attempt, n.Until })
		c.note("%s marshal %d: nominate %s for %s: %v", c.now.Format("15:04:05"), k, n.Node, n.Slot, ok)
		if fresh && !ok {
			c.fail("a fresh view lost a compare-and-swap")
		}
	}
	if fresh {
		c.budget(room)
	}
	c.before[k] = slices.Clone(v.Slots)
}

// down counts who is unavailable in a group, each once, by its own account.
func (c *cluster) down(g Group) map[string]bool {
	out := map[string]bool{}
	for _, n := range c.nodes {
		if !g.Match(n.Labels) {
			continue
		}
		if !n.Ready || n.Unschedulable {
			out[n.UID] = true
		}
		for _, s := range c.slots {
			if s.Nominee == n.UID {
				out[n.UID] = true
			}
		}
	}
	return out
}

func (c *cluster) room() map[string]int {
	room := map[string]int{}
	for _, g := range c.groups {
		room[g.Name] = len(c.down(g))
	}
	return room
}

// budget: a marshal that sees everything never makes a group more unavailable than its limit, nor worse than it was.
func (c *cluster) budget(before map[string]int) {
	for _, g := range c.groups {
		total := 0
		for _, n := range c.nodes {
			if g.Match(n.Labels) {
				total++
			}
		}
		if got := len(c.down(g)); got > max(g.Limit(total), before[g.Name]) {
			c.fail("group %s: %d unavailable or nominated, limit %d, before %d", g.Name, got, g.Limit(total), before[g.Name])
		}
	}
}

// ordered: what a marshal that sees everything nominates keeps to zones, canaries and the order of groups.
func (c *cluster) ordered(v View, noms []Nomination) {
	s := look(v)
	inFlight := map[string][]*Node{} // by group
	for _, n := range c.nodes {
		if l := s.slotOf[n.UID]; l != nil && n.Phase != phaseFailed {
			inFlight[l.Group] = append(inFlight[l.Group], s.byUID[n.UID])
		}
	}
	nominated := map[string][]*Node{}
	for _, n := range noms {
		q := s.home[n.UID]
		nominated[q.Name] = append(nominated[q.Name], s.byUID[n.UID])
	}
	for name, goes := range nominated {
		q := s.group[name]
		all := slices.Concat(inFlight[name], goes)
		for _, n := range goes {
			for _, o := range all {
				if q.TopologyKey != "" && o.Labels["z"] != n.Labels["z"] {
					c.fail("%s of zone %s goes beside %s of zone %s", n.Name, n.Labels["z"], o.Name, o.Labels["z"])
				}
			}
		}
		for _, before := range q.After {
			if len(inFlight[before]) > 0 || len(nominated[before]) > 0 {
				c.fail("%s goes though %s goes first", name, before)
			}
		}
		if q.TopologyKey == "" && q.Canaries == 0 {
			c.queued(v, s, q, goes)
		}
		if uncovered := slices.DeleteFunc(slices.Clone(all), q.covered); len(uncovered) > q.Canaries && q.Canaries > 0 {
			c.fail("%d nodes of %s try a wish, canaries are %d", len(uncovered), name, q.Canaries)
		}
	}
}

// queued: nobody is nominated before one who could have been: of nodes without warnings the oldest wish, then the name. One that is
// unavailable already counts no more by going, and may go at any time.
func (c *cluster) queued(v View, s *survey, q *squad, goes []*Node) {
	turn := func(n *Node) string {
		pending := n.Pending
		if n.Name == v.Self {
			pending = pending.Add(24 * time.Hour)
		}
		return fmt.Sprintf("%t %020d %s", n.Warned, pending.UnixNano(), n.Name)
	}
	for i := range c.nodes {
		o := &c.nodes[i]
		could := o.Phase == phaseWaiting && o.Bids && o.Ready && !o.Unschedulable && !o.Deleting && !o.Survived && o.Hold == "" &&
			s.slotOf[o.UID] == nil && s.holds[o.Name] == nil && !v.Own.Before(v.Penalty[o.UID]) && s.home[o.UID] == q
		for _, n := range goes {
			passed := could && !slices.ContainsFunc(goes, func(g *Node) bool { return g.UID == o.UID })
			if passed && !n.Unschedulable && n.Ready && turn(o) < turn(n) {
				c.fail("%s goes before %s", turn(n), turn(o))
			}
		}
	}
}

// agent lets node i's agent do one thing. It reads everything fresh.
func (c *cluster) agent(i int, wild bool) {
	n := &c.nodes[i]
	own := -1
	for k := range c.slots {
		if c.slots[k].Holder == n.Name {
			own = k
		}
	}
	switch n.Phase {
	case "":
		if c.want[n.Name] {
			n.Phase, n.Cycle, n.Attempt, n.Bids, n.Pending = phaseWaiting, "c-"+n.Name, 1, true, c.now
		}
	case phaseWaiting:
		n.Bids = !wild || !c.chance(5)
		c.take(n, own, wild)
	case phaseDraining:
		if own < 0 {
			c.fail("%s drains without a slot", n.Name)
		}
		n.Phase, n.Ready = phaseRebooting, !c.chance(50)
	case phaseRebooting:
		n.Phase, n.Ready, n.BootID = phaseVerifying, true, n.BootID+"+"
		if wild && c.chance(10) {
			n.Phase = phaseFailed
		}
	case phaseFailed:
		if !wild {
			n.Phase = phaseVerifying
		}
	case phaseVerifying:
		c.want[n.Name] = false
		n.Proven, n.Tried = c.now, n.Pending
		n.Phase, n.Slot, n.Bids, n.Cycle, n.Unschedulable = "", "", false, "", false
		if c.chance(50) { // the write on the slot may come later
			return
		}
		c.release(own)
	}
	if n.Phase == "" && own >= 0 {
		c.release(own)
	}
}

func (c *cluster) release(own int) {
	if own >= 0 {
		s := c.slots[own]
		c.cas(s, func(l *Slot) { *l = Slot{Name: l.Name, Group: l.Group, Hold: l.Hold} })
	}
}

// take is the agent's compare-and-swap on a slot that names its present bid; it may also decline, or be dead for a while.
func (c *cluster) take(n *Node, own int, wild bool) {
	if own >= 0 {
		n.Phase, n.Bids, n.Unschedulable, n.Slot = phaseDraining, false, true, c.slots[own].Name
		return
	}
	for _, s := range c.slots {
		if s.Nominee != n.UID || s.Holder != "" || s.BidCycle != n.Cycle || s.BidAttempt != n.Attempt || !s.BidUntil.After(c.now) {
			continue
		}
		switch {
		case wild && c.chance(20):
			c.cas(s, func(l *Slot) { l.Nominee, l.BidCycle = "", "" })
		case wild && c.chance(20), s.Hold != "", !n.Bids:
		default:
			ok := c.cas(s, func(l *Slot) { l.Holder, l.HolderUID, l.BidCycle, l.BootID = n.Name, n.UID, "", n.BootID })
			c.note("%s agent %s takes %s: %v", c.now.Format("15:04:05"), n.Name, s.Name, ok)
		}
		return
	}
}

// disturb is what people and machines do meanwhile.
func (c *cluster) disturb() {
	n := &c.nodes[c.rnd.IntN(len(c.nodes))]
	switch c.rnd.IntN(6) {
	case 0:
		n.Ready = !n.Ready
	case 1:
		if n.Phase == "" || n.Phase == phaseWaiting {
			n.Unschedulable = !n.Unschedulable
		}
	case 2:
		if n.Phase == phaseWaiting {
			n.Attempt++
		}
	}
}

func (c *cluster) done() bool {
	for _, w := range c.want {
		if w {
			return false
		}
	}
	return true
}

func (c *cluster) run() {
	for range 400 { // wild: both marshals at work on old views, agents that decline, fail and stall
		c.now = c.now.Add(time.Duration(c.rnd.IntN(5000)) * time.Millisecond)
		switch c.rnd.IntN(8) {
		case 0, 1:
			c.marshal(c.rnd.IntN(2), false)
		case 2:
			c.lookNodes(c.rnd.IntN(2))
		case 3:
			c.lookSlots(c.rnd.IntN(2))
		case 4:
			c.disturb()
		default:
			c.agent(c.rnd.IntN(len(c.nodes)), true)
		}
	}
	for i := range c.nodes { // calm: everything heals, and one marshal sees it all
		c.nodes[i].Ready = true
		if p := c.nodes[i].Phase; p == "" || p == phaseWaiting {
			c.nodes[i].Unschedulable = false
		}
	}
	for range 600 {
		if c.done() {
			return
		}
		c.now = c.now.Add(20 * time.Second)
		c.look(0)
		c.marshal(0, true)
		for i := range c.nodes {
			c.agent(i, false)
		}
	}
	c.fail("after 600 calm rounds some nodes have not gone: %v; slots %+v; nodes %+v", c.want, c.slots, c.nodes)
}

func TestRandomClusters(t *testing.T) {
	if *seed != 0 {
		newCluster(t, *seed).run()
		return
	}
	base := uint64(time.Now().UnixNano())
	for i := range uint64(400) {
		s := base + i
		if !t.Run("", func(t *testing.T) {
			t.Logf("replay with -run TestRandomClusters -seed=%d", s)
			newCluster(t, s).run()
		}) {
			return
		}
	}
}
