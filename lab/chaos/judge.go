package chaos

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/observe"
)

// rebooted is the exit code, in the power log, of a machine that asked to be booted again.
const rebooted = 133

// facts are what is judged.
type facts struct {
	log   observe.Log
	power []cluster.PowerEvent // since the first fault
	hand  []handReboot
	limit func(time.Time) int // nodes that may be taken down at once
}

// violations are the breaches of what Baton promises, whatever befell it.
func (f facts) violations() []string {
	return slices.Concat(f.log.ViolationsUnder(f.limit), f.badReboots(), f.badClaims(), f.badFrees(), f.strangers())
}

// badReboots holds the machines to their own log: how many rebooted at once, and that each of them was down by Baton, in
// Rebooting, with a record of the boot that ended.
func (f facts) badReboots() []string {
	var found []string
	off := map[string]bool{}
	downs := f.log.Downs()
	for _, e := range f.power {
		if e.On {
			delete(off, e.Node)
			continue
		}
		if e.Exit == 0 {
			found = append(found, fmt.Sprintf("%s %s switched itself off", stamp(e.Time), e.Node))
		}
		if e.Exit != rebooted || f.byHand(e) {
			continue
		}
		off[e.Node] = true
		if n := len(off); n > f.limit(e.Time) {
			found = append(found, fmt.Sprintf("%s %d machines reboot at once, %s the last of them; at most %d may", stamp(e.Time), n, e.Node, f.limit(e.Time)))
		}
		if !slices.ContainsFunc(downs, func(d observe.Down) bool { return d.Node == e.Node && during(d, e.Time) }) {
			found = append(found, fmt.Sprintf("%s %s rebooted while it was not down by Baton", stamp(e.Time), e.Node))
		} else if is := f.notRebooting(e.Node, e.Time); is != "" {
			found = append(found, fmt.Sprintf("%s %s rebooted and was %s", stamp(e.Time), e.Node, is))
		}
	}
	return found
}

// outage is how much later than it took effect a version may be seen at most: an etcd that was killed is run again within 4 s,
// and tells what it had taken before only then.
const outage = 10 * time.Second

// notRebooting says what a node was when its machine ended a boot; "" when that was Rebooting, with a record of this boot. A
// version that comes later may still be one from before: its record names this boot, and that of a later cycle another one.
func (f facts) notRebooting(node string, at time.Time) string {
	last := observe.Node{}
	for _, e := range f.log.Events {
		switch {
		case e.Node == nil || e.Node.Name != node || e.Time.After(at.Add(outage)):
		case e.Time.After(at):
			if e.Node.Exists && reboots(*e.Node, last.BootID) {
				return ""
			}
		case e.Node.Exists:
			last = *e.Node
		case e.Time.Before(at.Add(-late)): // else the host had been asked before the Node was deleted
			last = observe.Node{}
		}
	}
	if reboots(last, last.BootID) {
		return ""
	}
	return fmt.Sprintf("%q on boot %q, with the record %q", last.Phase, last.BootID, last.Record)
}

// reboots tells whether a node is on its way down from that boot.
func reboots(n observe.Node, boot string) bool {
	var record struct{ BootID string }
	return n.Phase == observe.Rebooting && json.Unmarshal([]byte(n.Record), &record) == nil && record.BootID == boot
}

// byHand tells whether a machine went down because a person had asked it to.
func (f facts) byHand(e cluster.PowerEvent) bool {
	const long = 30 * time.Second // a shutdown takes less than a second, on a machine that has nothing else to do
	return slices.ContainsFunc(f.hand, func(h handReboot) bool {
		return h.node == e.Node && !e.Time.Before(h.at) && e.Time.Before(h.at.Add(long))
	})
}

// late is how much later than it was the observer may see something: an etcd that was killed tells nobody until the observer
// has connected again.
const late = 2 * time.Second

// during tells whether a Down had begun at that time and was not over. A host that was asked goes, also when its Node was deleted
// meanwhile.
func during(d observe.Down, at time.Time) bool {
	until := d.Until
	if d.NodeDeleted {
		until = until.Add(late)
	}
	return d.From.Before(at.Add(late)) && (d.Until.IsZero() || until.After(at))
}

func stamp(t time.Time) string { return t.Format("15:04:05.000") }

// entry is what is read of a finished cycle in the history.
type entry struct {
	Cycle    string
	Rebooted bool
}

func historyOf(n *observe.Node) []entry {
	var h struct{ Cycles []entry }
	if json.Unmarshal([]byte(n.History), &h) != nil {
		return nil
	}
	return h.Cycles
}

// badClaims are the proven reboots in the Nodes' histories that were none: the boot ID is the old one, or the machine was never
// switched on.
func (f facts) badClaims() []string {
	var found []string
	last := map[string]*observe.Node{}
	downs := f.log.Downs()
	for _, e := range f.log.Events {
		n := e.Node
		if n == nil {
			continue
		}
		was := last[n.Name]
		last[n.Name] = n
		if was == nil || was.History == n.History || !n.Exists || was.UID != n.UID {
			continue
		}
		before := historyOf(was)
		for _, c := range historyOf(n) {
			if !c.Rebooted || slices.Contains(before, c) {
				continue
			}
			i := slices.IndexFunc(downs, func(d observe.Down) bool {
				return d.Node == n.Name && !d.From.After(e.Time) && (d.Until.IsZero() || !d.Until.Before(e.Time))
			})
			switch {
			case i < 0:
				found = append(found, fmt.Sprintf("%s %s says that cycle %s rebooted it, and it was not down", stamp(e.Time), n.Name, c.Cycle))
			case downs[i].OldBootID == n.BootID || !f.switchedOn(n.Name, downs[i].From, e.Time):
				found = append(found, fmt.Sprintf("%s %s says that cycle %s rebooted it, and it did not reboot", stamp(e.Time), n.Name, c.Cycle))
			}
		}
	}
	return found
}

func (f facts) switchedOn(node string, from, to time.Time) bool {
	return slices.ContainsFunc(f.power, func(e cluster.PowerEvent) bool {
		return e.On && e.Node == node && e.Time.After(from.Add(-late)) && e.Time.Before(to)
	})
}

// badFrees are the slots of deleted Nodes that were freed before the grace period was over.
func (f facts) badFrees() []string {
	var found []string
	deleted, holder := map[string]time.Time{}, map[string]string{}
	for _, e := range f.log.Events {
		switch {
		case e.Node != nil && !e.Node.Exists:
			deleted[e.Node.Name] = e.Time
		case e.Node != nil:
			delete(deleted, e.Node.Name)
		default:
			was := holder[e.Slot.Name]
			holder[e.Slot.Name] = e.Slot.Holder
			if at, gone := deleted[was]; gone && was != e.Slot.Holder && e.Time.Sub(at) < deletedGrace-late {
				found = append(found, fmt.Sprintf("%s %s of %s was freed %.1f s after its Node was deleted; want at least %s",
					stamp(e.Time), e.Slot.Name, was, e.Time.Sub(at).Seconds(), deletedGrace))
			}
		}
	}
	return found
}

// strangers are changes of a cordon that neither came with a change of the record, as Baton's do, nor from the people here.
func (f facts) strangers() []string {
	var found []string
	last := map[string]*observe.Node{}
	for _, e := range f.log.Events {
		n := e.Node
		if n == nil {
			continue
		}
		was := last[n.Name]
		last[n.Name] = n
		if was != nil && was.Exists && n.Exists && was.UID == n.UID && was.Unschedulable != n.Unschedulable && was.Record == n.Record && was.By == n.By {
			found = append(found, fmt.Sprintf("%s somebody unknown set unschedulable of %s to %t", stamp(e.Time), n.Name, n.Unschedulable))
		}
	}
	return found
}

// Cycles that came to an end.
type Cycles struct {
	Rebooted int `json:"rebooted"` // proven
	GaveUp   int `json:"gaveUp"`   // went to Backoff
	Undone   int `json:"undone"`   // went back to Waiting, the node untouched
	Failed   int `json:"failed"`
}

func countCycles(log observe.Log) Cycles {
	var c Cycles
	last := map[string]*observe.Node{}
	for _, e := range log.Events {
		n := e.Node
		if n == nil {
			continue
		}
		was := last[n.Name]
		last[n.Name] = n
		if was == nil || !n.Exists {
			continue
		}
		switch {
		case (was.Phase == observe.Verifying || was.Phase == observe.Failed) && (n.Phase == observe.Idle || n.Phase == observe.Waiting):
			c.Rebooted++
		case was.Phase != observe.Backoff && n.Phase == observe.Backoff:
			c.GaveUp++
		case (was.Phase == observe.Draining || was.Phase == observe.Rebooting) && n.Phase == observe.Waiting:
			c.Undone++
		case was.Phase != observe.Failed && n.Phase == observe.Failed:
			c.Failed++
		}
	}
	return c
}

// quietest is the longest time in which no node's phase changed.
func quietest(log observe.Log, from, to time.Time) time.Duration {
	phase := map[string]string{}
	longest, since := time.Duration(0), from
	for _, e := range log.Events {
		n := e.Node
		if n == nil || n.Phase == phase[n.Name] {
			continue
		}
		phase[n.Name] = n.Phase
		if e.Time.After(from) && e.Time.Before(to) {
			longest, since = max(longest, e.Time.Sub(since)), e.Time
		}
	}
	return max(longest, to.Sub(since))
}
