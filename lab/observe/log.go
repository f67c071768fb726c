package observe

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Log is a sequence of events in the order in which they took effect.
type Log struct {
	Events []Event
	Faults []string // of the observer itself
}

func byRevision(a, b Event) int { return cmp.Compare(a.Revision, b.Revision) }

// After is the part of the log that begins with what each object was like at t: so much arrived before t as matters.
func (l Log) After(t time.Time) Log {
	before := map[string]Event{}
	var after []Event
	for _, e := range l.Events {
		if e.Time.Before(t) {
			before[e.object()] = e
			continue
		}
		after = append(after, e)
	}
	cut := Log{Faults: l.Faults}
	for _, e := range before {
		cut.Events = append(cut.Events, e)
	}
	cut.Events = append(cut.Events, after...)
	slices.SortStableFunc(cut.Events, byRevision)
	return cut
}

func (e Event) object() string {
	if e.Node != nil {
		return "node/" + e.Node.Name
	}
	return "slot/" + e.Slot.Name
}

// Down is one time that Baton took a node down. Until is zero while it lasts.
type Down struct {
	Node        string
	From, Until time.Time
	OldBootID   string
	NewBootID   string // the same as OldBootID: the cycle was given up before a reboot; "": still down
	NodeDeleted bool   // it ended by that
}

// taken are the phases in which a node is Baton's to take down.
func taken(phase string) bool {
	return phase == Draining || phase == Rebooting || phase == Verifying || phase == Failed
}

// referee sees the events in their order.
type referee struct {
	all, down []*Down // ever, and now
	last      map[string]*Node
	cordons   cordons
}

// see takes the next version of a Node. It returns the Down that begins with it, nil for none, and whether people lost a cordon.
func (r *referee) see(at time.Time, n *Node) (begins *Down, lost bool) {
	was := r.last[n.Name]
	lost = r.cordons.enter(was, n)
	r.last[n.Name] = n
	i := slices.IndexFunc(r.down, func(d *Down) bool { return d.Node == n.Name })
	switch {
	case i < 0 && n.Exists && n.Unschedulable && taken(n.Phase):
		begins = &Down{Node: n.Name, From: at, OldBootID: n.BootID}
		if was != nil {
			begins.OldBootID = was.BootID
		}
		r.all, r.down = append(r.all, begins), append(r.down, begins)
	case i >= 0 && r.ends(r.down[i], was, n):
		d := r.down[i]
		d.Until, d.NewBootID, d.NodeDeleted = at, n.BootID, !n.Exists
		r.down = slices.Delete(r.down, i, i+1)
	}
	return begins, lost
}

// ends says whether a node that is down is up again in this version. After a reboot it has to be Ready too, unless people
// accepted it as it is, which is how a node leaves Failed without becoming well.
func (r *referee) ends(d *Down, was, n *Node) bool {
	switch {
	case !n.Exists:
		return true
	case taken(n.Phase):
		return false
	case was.Phase != Failed && n.BootID != d.OldBootID && !n.Ready:
		return false
	}
	return !n.Unschedulable || r.cordons[n.Name] == people
}

// judge goes through the log and calls after for every event, with the Down that begins with it and whether people lost a
// cordon by it.
func (l Log) judge(after func(r *referee, e Event, begins *Down, lost bool)) []*Down {
	r := &referee{last: map[string]*Node{}, cordons: cordons{}}
	for _, e := range l.Events {
		var begins *Down
		lost := false
		if e.Node != nil {
			begins, lost = r.see(e.Time, e.Node)
		}
		after(r, e, begins, lost)
	}
	return r.all
}

// Downs are the times that Baton took a node down, in their order.
func (l Log) Downs() []Down {
	var downs []Down
	for _, d := range l.judge(func(*referee, Event, *Down, bool) {}) {
		downs = append(downs, *d)
	}
	return downs
}

// CordonedByPeople are the nodes that are cordoned at the end of the log, and not by Baton.
func (l Log) CordonedByPeople() []string {
	var names []string
	l.judge(func(r *referee, _ Event, _ *Down, _ bool) {
		names = names[:0]
		for name, own := range r.cordons {
			if own == people {
				names = append(names, name)
			}
		}
	})
	slices.Sort(names)
	return names
}

// MaxDown is the largest number of nodes that were down at once, with their names and when it came to that first.
func (l Log) MaxDown() (int, []string, time.Time) {
	var most []string
	var when time.Time
	l.judge(func(r *referee, e Event, _ *Down, _ bool) {
		if len(r.down) > len(most) {
			most, when = names(r.down), e.Time
		}
	})
	return len(most), most, when
}

func names(down []*Down) []string {
	var names []string
	for _, d := range down {
		names = append(names, d.Node)
	}
	return names
}

// Violations are the breaches of what Baton promises while at most limit nodes may be down: more nodes down, a node down that
// holds no slot, a slot that goes from one holder to another without having been free, a node that holds two, a cordon of
// people that Baton takes off.
func (l Log) Violations(limit int) []string {
	return l.ViolationsUnder(func(time.Time) int { return limit })
}

// ViolationsUnder is Violations while the limit changes: a node may be taken down when no more than limit are down with it.
// Those that are down when it falls may come home.
func (l Log) ViolationsUnder(limit func(time.Time) int) []string {
	faults := slices.Clone(l.Faults)
	seen := map[string]bool{}
	violate := func(e Event, format string, args ...any) {
		if text := fmt.Sprintf(format, args...); !seen[text] {
			seen[text] = true
			faults = append(faults, e.Time.Format("15:04:05.000 ")+text)
		}
	}
	holders := map[string]string{}
	l.judge(func(r *referee, e Event, begins *Down, lost bool) {
		if lost {
			violate(e, "%s: Baton took off a cordon that people had laid", e.Node.Name)
		}
		if s := e.Slot; s != nil {
			if old := holders[s.Name]; s.Exists && s.Holder != "" && old != "" && s.Holder != old {
				violate(e, "%s went from %s to %s without having been free", s.Name, old, s.Holder)
			}
			holders[s.Name] = s.Holder
			if !s.Exists {
				delete(holders, s.Name)
			}
		}
		held := map[string]int{}
		for _, node := range holders {
			held[node]++
		}
		for _, d := range r.down {
			if held[d.Node] == 0 {
				violate(e, "%s is down and holds no slot", d.Node)
			}
		}
		for node, n := range held {
			if node != "" && n > 1 {
				violate(e, "%s holds %d slots", node, n)
			}
		}
		if most := limit(e.Time); begins != nil && len(r.down) > most {
			violate(e, "%d nodes are down, %s; at most %d may be", len(r.down), strings.Join(names(r.down), ", "), most)
		}
	})
	return faults
}

// Stay is a node's time in one phase. Until is zero while it lasts.
type Stay struct {
	Node, Phase string
	From, Until time.Time
}

// Took is the stay's length; 0 while it lasts.
func (s Stay) Took() time.Duration {
	if s.Until.IsZero() {
		return 0
	}
	return s.Until.Sub(s.From)
}

// Stays are the phases that nodes went through, in the order they were entered. Idle is not among them.
func (l Log) Stays() []Stay {
	var stays []Stay
	current := map[string]int{} // node to index in stays
	for _, e := range l.Events {
		n := e.Node
		if n == nil {
			continue
		}
		phase := n.Phase
		if !n.Exists {
			phase = Idle
		}
		i, in := current[n.Name]
		if in && stays[i].Phase == phase {
			continue
		}
		if in {
			stays[i].Until = e.Time
			delete(current, n.Name)
		}
		if phase != Idle {
			current[n.Name] = len(stays)
			stays = append(stays, Stay{Node: n.Name, Phase: phase, From: e.Time})
		}
	}
	return stays
}

// HandOver is a slot's way from a node that frees it to one that was Waiting for it and takes it next.
type HandOver struct {
	Slot, From, To                string
	Freed, Named, Taken, Cordoned time.Time // Cordoned: by the Node's version in which Baton took it down
}

// Took is from freed to cordoned.
func (h HandOver) Took() time.Duration { return h.Cordoned.Sub(h.Freed) }

// HandOvers are those that were finished, in their order.
func (l Log) HandOvers() []HandOver {
	var done []HandOver
	open, holders, phase := map[string]*HandOver{}, map[string]string{}, map[string]string{}
	named := map[string]string{} // nominee of a slot
	waited := map[string]bool{}  // slot and node that was Waiting when it was freed
	for _, e := range l.Events {
		if n := e.Node; n != nil {
			phase[n.Name] = n.Phase
			for slot, h := range open {
				if h.To == n.Name && n.Unschedulable && taken(n.Phase) {
					h.Cordoned = e.Time
					done = append(done, *h)
					delete(open, slot)
				}
			}
			continue
		}
		s, old := e.Slot, holders[e.Slot.Name]
		holders[s.Name] = s.Holder
		h := open[s.Name]
		switch {
		case old != "" && s.Holder == "":
			open[s.Name] = &HandOver{Slot: s.Name, From: old, Freed: e.Time}
			for node, p := range phase {
				waited[s.Name+" "+node] = p == Waiting && node != old
			}
		case h != nil && old == "" && s.Holder != "":
			h.To, h.Taken = s.Holder, e.Time
			if !waited[s.Name+" "+h.To] {
				delete(open, s.Name)
			}
		}
		if h = open[s.Name]; h != nil && s.Nominee != "" && s.Nominee != named[s.Name] && h.Named.IsZero() {
			h.Named = e.Time
		}
		named[s.Name] = s.Nominee
	}
	return done
}
