package chaos

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"time"

	"kubebaton.io/baton/lab/observe"
)

// Moment of a node's cycle: its phase, and what lies between two of them.
type Moment string

// The moments, in the order in which a cycle without trouble comes to them.
const (
	Anytime   Moment = ""         // in a plan: not aimed
	Ordering  Moment = "ordering" // in a plan: of the node whose agent is the marshal
	Idle      Moment = "idle"
	Waiting   Moment = "waiting"
	Taken     Moment = "taken" // a slot is held, the node is not cordoned yet
	Draining  Moment = "draining"
	Rebooting Moment = "rebooting"
	Asked     Moment = "asked"   // the host was asked for the reboot, and still runs
	Off       Moment = "off"     // the machine is, for whatever reason
	Booting   Moment = "booting" // in the reboot, the agent not yet back
	Verifying Moment = "verifying"
	Backoff   Moment = "backoff"
	Failed    Moment = "failed"
	Gone      Moment = "gone" // there is no such Node
)

func moments() []Moment {
	return []Moment{Idle, Waiting, Taken, Draining, Rebooting, Asked, Off, Booting, Verifying, Backoff, Failed, Gone}
}

// momentIs looks no further than it has to.
func (r *run) momentIs(node string, m Moment) bool {
	n, exists := r.observer.Nodes()[node]
	switch m {
	case Ordering:
		return r.observer.Marshal() == node
	case Asked, Booting:
		if n.Phase != observe.Rebooting {
			return false
		}
	case Off, Anytime:
	case Idle, Waiting, Taken, Draining, Rebooting, Verifying, Backoff, Failed, Gone:
		return phaseMoment(n, exists, r.holds(node)) == m
	}
	return r.moment(node) == m
}

func phaseMoment(n observe.Node, exists, holds bool) Moment {
	switch {
	case !exists:
		return Gone
	case n.Phase == observe.Idle:
		return Idle
	case n.Phase == observe.Waiting && holds:
		return Taken
	}
	return Moment(n.Phase)
}

func (r *run) holds(node string) bool {
	for _, s := range r.observer.Slots() {
		if s.Holder == node {
			return true
		}
	}
	return false
}

// moment is that of a node right now, as far as can be seen from outside.
func (r *run) moment(node string) Moment {
	if node == "" {
		return Anytime
	}
	n, exists := r.observer.Nodes()[node]
	m := phaseMoment(n, exists, r.holds(node))
	on, since := r.power(node)
	switch {
	case !on:
		return Off
	case m != Rebooting:
		return m
	}
	var record struct {
		Cycle string
		Since time.Time
	}
	if json.Unmarshal([]byte(n.Record), &record) != nil {
		return m
	}
	switch {
	case since.After(record.Since):
		return Booting
	case r.asked(node, record.Cycle):
		return Asked
	}
	return m
}

// power tells whether a node's machine is on, and since when it is as it is.
func (r *run) power(node string) (on bool, since time.Time) {
	log, err := r.cluster.PowerLog()
	if err != nil {
		return true, time.Time{}
	}
	for _, e := range slices.Backward(log) {
		if e.Node == node {
			return e.On, e.Time
		}
	}
	return false, time.Time{}
}

// asked tells whether the node's agent says, in its log, that it asked for the reboot of this cycle. It is good enough to aim
// by; nothing is judged by it.
func (r *run) asked(node, cycle string) bool {
	disk, err := r.cluster.Disk(node)
	if err != nil {
		return false
	}
	files, err := filepath.Glob(filepath.Join(disk, "var/log/pods", observe.Namespace+"_*", "agent", "*.log"))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(files, func(file string) bool {
		for line := range bytes.Lines(tail(file)) {
			if bytes.Contains(line, []byte("asks the host to reboot")) && bytes.Contains(line, []byte(cycle)) {
				return true
			}
		}
		return false
	})
}

// tail returns the last few lines of a file.
func tail(path string) []byte {
	const much = 2048
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	text := make([]byte, min(much, info.Size()))
	n, err := f.ReadAt(text, info.Size()-int64(len(text)))
	if err != nil {
		return nil
	}
	return text[:n]
}
