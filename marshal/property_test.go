package marshal

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"
)

var seed = flag.Uint64("seed", 0, "replay the random cluster of this seed only")

// cluster is what the API server holds, and two marshals that see it late.
type cluster struct {
	t       *testing.T
	rnd     *rand.Rand
	now     time.Time
	groups  []Group
	nodes   []Node
	want    map[string]bool // node name: still has to reboot
	dead    map[string]bool // node name: does not come back
	joined  int
	renamed int
	slots   []Slot
	most    map[string]int // group: the highest limit that it has had
	rv      int
	trials  map[string]Trial
	absent  map[string]time.Time
	paused  map[string]string
	down    map[string]time.Time // node name: it was cordoned for the present reboot
	boots   []boot
	views   [2]View
	memory  [2]*runner // only observe and missed are used
	before  [2][]Slot
	log     []string
}

// boot is one reboot that ended well: what was installed by the first of its times was booted.
type boot struct{ asked, back time.Time }

func newCluster(t *testing.T, seed uint64) *cluster {
	c := &cluster{
		t: t, rnd: rand.New(rand.NewPCG(seed, 1)), now: zero, want: map[string]bool{}, dead: map[string]bool{}, most: map[string]int{},
		paused: map[string]string{}, down: map[string]time.Time{},
	}
	for g := range 1 + c.rnd.IntN(3) {
		name := strconv.Itoa(g)
		grp := Group{
			Name: "g" + name, MaxUnavailable: 1 + c.rnd.IntN(3), MaxFailed: c.rnd.IntN(3), RebootTimeout: 10 * time.Minute,
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
			c.join(fmt.Sprintf("n%d-%d", g, n), name, n)
		}
	}
	c.limits()
	for k := range c.memory {
		c.memory[k] = newRunner()
		c.look(k)
	}
	return c
}

// join adds a node that wants a reboot to a group.
func (c *cluster) join(name, group string, i int) {
	c.nodes = append(c.nodes, idle(name, func(x *Node) { x.Labels = map[string]string{"g": group, "z": string("abc"[i%3])} }))
	c.want[name] = true
}

// limits notes what the limits are now: while they change, the bound is the larger one.
func (c *cluster) limits() {
	for _, g := range c.groups {
		c.most[g.Name] = max(c.most[g.Name], c.limit(g))
	}
}

// limit is that of a group, by its own account: a node on hold that has nothing to do with a slot does not count.
func (c *cluster) limit(g Group) int {
	total := 0
	for i := range c.nodes {
		if n := &c.nodes[i]; g.Match(n.Labels) && !c.spared(n) {
			total++
		}
	}
	return g.Limit(total)
}

func (c *cluster) spared(n *Node) bool { return n.Hold != "" && !n.active() && !c.named(n) }

// named tells whether a slot names the node.
func (c *cluster) named(n *Node) bool {
	return slices.ContainsFunc(c.slots, func(s Slot) bool { return s.Nominee == n.UID })
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

// check holds at each effect: no node has two slots, of whatever group, and no group more holders than its limit.
func (c *cluster) check() {
	c.limits()
	all, of := map[string]int{}, map[string]int{}
	for _, s := range c.slots {
		if s.Holder != "" {
			all[s.Holder]++
			of[s.Group]++
		}
	}
	for name, n := range all {
		if n > 1 {
			c.fail("%s holds %d slots", name, n)
		}
	}
	for _, g := range c.groups {
		if of[g.Name] > c.most[g.Name] {
			c.fail("group %s: %d holders, limit %d", g.Name, of[g.Name], c.most[g.Name])
		}
	}
}

func (c *cluster) fail(format string, args ...any) {
	c.t.Helper()
	for _, l := range c.log[max(0, len(c.log)-60):] {
		c.t.Log(l)
	}
	for _, g := range c.groups {
		c.t.Logf("%+v", g)
	}
	for _, n := range c.nodes {
		c.t.Logf("%+v", n)
	}
	c.t.Logf("%+v", c.slots)
	c.t.Fatalf(format, args...)
}

// marshal lets marshal k make one pass on what it sees.
func (c *cluster) marshal(k int, fresh bool) {
	r := c.memory[k]
	v := c.views[k]
	v.Now, v.Own, v.Groups, v.NominationTimeout, v.Self = c.now, c.now, c.groups, 30*time.Second, c.nodes[k%len(c.nodes)].Name
	v.Trials, v.Absent, v.Paused = c.trials, c.absent, c.paused
	v.Penalty = map[string]time.Time{}
	r.observe(&v, c.before[k])
	for _, a := range Housekeep(v) {
		c.note("%s marshal %d: %s %s %s%s", c.now.Format("15:04:05"), k, a.Kind, a.Slot.Name, a.Slot.Nominee, a.Hold)
		switch a.Kind {
		case Create:
			if !c.chance(10) && !slices.ContainsFunc(c.slots, func(s Slot) bool { return s.Name == a.Slot.Name }) {
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
	for _, s := range Gone(v) { // and it reads the Node before it frees its slot
		if !slices.ContainsFunc(c.nodes, func(n Node) bool { return n.Name == s.Holder }) {
			c.cas(s, func(l *Slot) { *l = Slot{Name: l.Name, Group: l.Group, Hold: l.Hold} })
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
		s := look(v)
		c.trials, c.absent = s.trials(), map[string]time.Time{}
		for _, of := range s.absent() {
			maps.Copy(c.absent, of)
		}
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

// unavailable counts who is unavailable in a group, each once, by its own account.
func (c *cluster) unavailable(g Group) map[string]bool {
	out := map[string]bool{}
	total := 0
	for _, n := range c.nodes {
		if g.Match(n.Labels) {
			total++
		}
	}
	for i := range c.nodes {
		n := &c.nodes[i]
		switch {
		case !g.Match(n.Labels):
		case c.spared(n):
			if !n.Ready && g.Limit(total) == 1 {
				out[n.UID] = true
			}
		case !n.Ready || n.Unschedulable || c.named(n):
			out[n.UID] = true
		}
	}
	for _, s := range c.slots { // of nodes that another group selects by now, too
		if s.Group == g.Name && s.Nominee != "" {
			out[s.Nominee] = true
		}
	}
	return out
}

func (c *cluster) room() map[string]int {
	room := map[string]int{}
	for _, g := range c.groups {
		room[g.Name] = len(c.unavailable(g))
	}
	return room
}

// budget: a marshal that sees everything never makes a group more unavailable than its limit, nor worse than it was.
func (c *cluster) budget(before map[string]int) {
	for _, g := range c.groups {
		if got := len(c.unavailable(g)); got > max(c.limit(g), before[g.Name]) {
			c.fail("group %s: %d unavailable or nominated, limit %d, before %d", g.Name, got, c.limit(g), before[g.Name])
		}
	}
}

// stuck tells whether nobody waits for the node any more: it has failed, or been away for too long.
func (c *cluster) stuck(v View, n *Node) bool {
	since, ok := v.Away[n.UID]
	return n.Phase == phaseFailed || ok && n.away() && v.Own.Sub(since) > 10*time.Minute
}

// could tells whether the node could be nominated, as far as it is up to the node.
func (c *cluster) could(v View, n *Node) bool {
	return n.Phase == phaseWaiting && n.Bids && n.Ready && n.Hold == "" && !c.named(n) && !v.Own.Before(v.Penalty[n.UID])
}

// ordered: what a marshal that sees everything nominates keeps to zones, canaries and the order of groups.
func (c *cluster) ordered(v View, noms []Nomination) {
	s := look(v)
	inFlight := map[string][]*Node{} // by group
	for i := range c.nodes {
		n := &c.nodes[i]
		if l := s.slotOf[n.UID]; l != nil && !c.stuck(v, n) {
			inFlight[c.of(*l)] = append(inFlight[c.of(*l)], n)
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
			c.tried(q, n)
		}
		for _, before := range q.After {
			if len(inFlight[before]) > 0 || len(nominated[before]) > 0 {
				c.fail("%s goes though %s goes first", name, before)
			}
			c.nobodyLeft(v, s.group[before], name)
		}
		if q.Canaries == 0 {
			c.queued(v, s, q, inFlight[name], goes)
		}
		tries := slices.DeleteFunc(all, func(n *Node) bool { return s.home[n.UID] != q || q.covered(n) })
		another := slices.ContainsFunc(goes, func(n *Node) bool { return !q.covered(n) }) // not one that failed and has got well
		if another && len(tries) > q.Canaries && q.Canaries > 0 {
			c.fail("%d nodes of %s try a wish, canaries are %d", len(tries), name, q.Canaries)
		}
	}
}

// tried: a node that does not go as a canary has a wish that another node has booted, and proven for the whole soak.
func (c *cluster) tried(q *squad, n *Node) {
	if q.Canaries == 0 || !q.covered(n) {
		return
	}
	if !slices.ContainsFunc(c.boots, func(b boot) bool { return !b.asked.Before(n.wish()) && !c.now.Before(b.back.Add(q.CanarySoak)) }) {
		c.fail("%s goes for what it wants since %s, which nobody has tried", n.Name, n.wish().Format("15:04:05"))
	}
}

// nobodyLeft: a group goes only when nobody is left in the one before who bids and could go now.
func (c *cluster) nobodyLeft(v View, before *squad, goes string) {
	if before.paused != "" || before.Canaries > 0 { // a canary that could go is one among many
		return
	}
	for i := range c.nodes {
		n := &c.nodes[i]
		if !before.Match(n.Labels) || !c.could(v, n) {
			continue
		}
		others := c.unavailable(before.Group)
		delete(others, n.UID)
		if len(others) < c.limit(before.Group) {
			c.fail("%s goes though %s of %s could go now", goes, n.Name, before.Name)
		}
	}
}

// queued: nobody is nominated before one who could have been: of nodes without warnings those of the first zone, then the oldest
// wish, then the name. One that is unavailable already counts no more by going, and may go at any time.
func (c *cluster) queued(v View, s *survey, q *squad, inFlight, goes []*Node) {
	turn := func(n *Node) string {
		pending := n.Pending
		if n.Name == v.Self {
			pending = pending.Add(24 * time.Hour)
		}
		return fmt.Sprintf("%t %s %020d %s", n.Warned, n.Labels[q.TopologyKey], pending.UnixNano(), n.Name)
	}
	for i := range c.nodes {
		o := &c.nodes[i]
		if s.home[o.UID] != q || !c.could(v, o) || o.Unschedulable || slices.ContainsFunc(goes, func(g *Node) bool { return g.UID == o.UID }) {
			continue
		}
		other := func(f *Node) bool { return f.Labels[q.TopologyKey] != o.Labels[q.TopologyKey] }
		if slices.ContainsFunc(inFlight, other) || slices.ContainsFunc(goes, func(g *Node) bool { return other(g) && turn(g) < turn(o) }) {
			continue // another zone goes
		}
		for _, n := range goes {
			if !n.Unschedulable && n.Ready && turn(o) < turn(n) {
				c.fail("%s goes before %s", turn(n), turn(o))
			}
		}
	}
}

// agent lets node i's agent do one thing. It reads everything fresh.
func (c *cluster) agent(i int, wild bool) {
	n := &c.nodes[i]
	if c.dead[n.Name] {
		return
	}
	own := -1
	for k := range c.slots {
		if c.slots[k].Holder == n.Name {
			own = k
		}
	}
	switch n.Phase {
	case "":
		if c.want[n.Name] {
			c.joined++
			n.Phase, n.Cycle, n.Attempt, n.Bids, n.Pending = phaseWaiting, fmt.Sprint("c", c.joined, "-", n.Name), 1, true, c.now
			n.Wished, n.Warned = time.Time{}, c.chance(20)
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
		n.Proven, n.Took, n.Tried = c.now, c.now.Sub(c.down[n.Name]), n.wish()
		c.boots = append(c.boots, boot{c.down[n.Name], c.now})
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
		c.down[n.Name] = c.now
		return
	}
	for _, s := range c.slots {
		if s.Nominee != n.UID || s.Holder != "" || s.BidCycle != n.Cycle || s.BidAttempt != n.Attempt || !s.BidUntil.After(c.now) {
			continue
		}
		switch {
		case wild && !n.Warned && c.chance(10): // the preflight warns: it makes its bid anew
			n.Warned = true
			n.Attempt++
			c.cas(s, func(l *Slot) { l.Nominee, l.BidCycle = "", "" })
		case wild && c.chance(20):
			c.cas(s, func(l *Slot) { l.Nominee, l.BidCycle = "", "" })
		case wild && c.chance(20), s.Hold != "", !n.Bids, s.Group != c.home(n):
		default:
			ok := c.cas(s, func(l *Slot) { l.Holder, l.HolderUID, l.BidCycle, l.BootID = n.Name, n.UID, "", n.BootID })
			c.note("%s agent %s takes %s: %v", c.now.Format("15:04:05"), n.Name, s.Name, ok)
		}
		return
	}
}

// disturb is what people and machines do meanwhile.
func (c *cluster) disturb() {
	i := c.rnd.IntN(len(c.nodes))
	n := &c.nodes[i]
	g := c.groups[c.rnd.IntN(len(c.groups))]
	early := n.Phase == "" || n.Phase == phaseWaiting
	switch c.rnd.IntN(13) {
	case 0:
		n.Ready = !n.Ready && !c.dead[n.Name]
	case 1:
		if early {
			n.Unschedulable = !n.Unschedulable
		}
	case 2:
		if n.Phase == phaseWaiting {
			n.Attempt++
		}
	case 3:
		if n.Phase == phaseWaiting { // another update
			n.Wished = c.now
		}
	case 4:
		c.want[n.Name] = true // and one that comes after the reboot
	case 5:
		if n.Phase == phaseRebooting && c.deaths(n.Slot) {
			c.dead[n.Name], n.Ready = true, false
		}
	case 6:
		n.Hold = map[string]string{"": "a person's"}[n.Hold]
	case 7:
		if _, ok := c.paused[g.Name]; ok {
			delete(c.paused, g.Name)
		} else if c.chance(30) {
			c.paused[g.Name] = "storm"
		}
	case 8:
		if !c.dead[n.Name] && c.chance(30) { // labels are shared with what the marshals have seen
			n.Labels = map[string]string{"g": g.Name[1:], "z": n.Labels["z"]}
		}
	case 9:
		if c.chance(30) {
			c.joined++
			c.join(fmt.Sprint("j", c.joined), g.Name[1:], c.joined)
		}
	case 10:
		if len(c.nodes) > 1 && c.chance(30) {
			delete(c.want, n.Name)
			delete(c.dead, n.Name)
			c.nodes = slices.Delete(slices.Clone(c.nodes), i, i+1)
		}
	case 11:
		k := c.rnd.IntN(2)
		c.memory[k], c.before[k] = newRunner(), nil
	case 12:
		if c.chance(30) {
			c.rename(c.rnd.IntN(len(c.groups)))
		}
	}
	c.limits()
}

// rename gives a group another name in the configuration. A dead node of another group that holds a slot of it would be a failure of
// that one from then on, which may not bear it.
func (c *cluster) rename(i int) {
	was := c.groups[i].Name
	for k := range c.nodes {
		n := &c.nodes[k]
		if _, ok := slotIndex(was, n.Slot); ok && c.dead[n.Name] && c.home(n) != was {
			return
		}
	}
	c.groups = slices.Clone(c.groups)
	c.renamed++
	name := string("ghijkl"[c.renamed%6]) + was[1:]
	for k := range c.groups {
		after := slices.Clone(c.groups[k].After)
		if n := slices.Index(after, was); n >= 0 {
			after[n] = name
		}
		c.groups[k].After = after
	}
	c.groups[i].Name = name
	c.most[name] = max(c.most[name], c.most[was])
	c.note("%s is %s now", was, name)
}

// of returns the group that a slot counts in: its own, or, when that was renamed, its holder's.
func (c *cluster) of(s Slot) string {
	for _, g := range c.groups {
		if s.Group == g.Name {
			return g.Name
		}
	}
	for i := range c.nodes {
		if n := &c.nodes[i]; n.UID == cmp.Or(s.HolderUID, s.Nominee) {
			return c.home(n)
		}
	}
	return ""
}

// home is the name of the node's group.
func (c *cluster) home(n *Node) string {
	for _, g := range c.groups {
		if g.Match(n.Labels) {
			return g.Name
		}
	}
	return ""
}

// deaths tells whether the group of that slot bears one more node that does not come back.
func (c *cluster) deaths(slot string) bool {
	for _, g := range c.groups {
		if _, ok := slotIndex(g.Name, slot); ok {
			return len(c.buried(g)) < g.MaxFailed
		}
	}
	return false
}

// buried are the nodes that do not come back and that take something from the group: a slot, or its budget.
func (c *cluster) buried(g Group) map[string]bool {
	out := map[string]bool{}
	for _, n := range c.nodes {
		if _, ok := slotIndex(g.Name, n.Slot); c.dead[n.Name] && (ok || g.Match(n.Labels)) {
			out[n.Name] = true
		}
	}
	return out
}

// left are the nodes that have still to go, and can: as many others of their group as may be missing do not come back, or fewer.
func (c *cluster) left() []string {
	var out []string
	for _, n := range c.nodes {
		if !c.want[n.Name] || c.dead[n.Name] {
			continue
		}
		for _, g := range c.groups {
			if g.Match(n.Labels) && len(c.buried(g)) < c.limit(g) {
				out = append(out, n.Name)
			}
		}
	}
	return out
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
	for range 60 { // one marshal that sees it all, in a world that is as wild
		c.now = c.now.Add(time.Duration(c.rnd.IntN(20)) * time.Second)
		c.disturb()
		c.look(0)
		c.marshal(0, true)
		for i := range c.nodes {
			c.agent(i, true)
		}
	}
	clear(c.paused)
	for i := range c.nodes { // calm: everything heals but what is dead
		n := &c.nodes[i]
		n.Ready, n.Hold = !c.dead[n.Name], ""
		if n.Phase == "" || n.Phase == phaseWaiting {
			n.Unschedulable = false
		}
	}
	for range 600 {
		if len(c.left()) == 0 {
			return
		}
		c.now = c.now.Add(20 * time.Second)
		c.look(0)
		c.marshal(0, true)
		for i := range c.nodes {
			c.agent(i, false)
		}
	}
	c.fail("after 600 calm rounds some nodes have not gone: %v", c.left())
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
