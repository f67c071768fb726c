package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"kubebaton.io/baton/lab/observe"
)

// judge holds what happened since the scenario began, its end included, to what must hold in every one.
func (w *world) judge() error {
	var faults []error
	log := w.obs.Log().After(w.began)
	for _, v := range log.Violations(w.limit) {
		if w.robbed == "" || !strings.HasSuffix(v, w.robbed+" is down and holds no slot") {
			faults = append(faults, errors.New(v))
		}
	}
	off, names, err := w.mostOff()
	if err != nil {
		faults = append(faults, err)
	}
	if off > w.limit {
		faults = append(faults, fmt.Errorf("by the power log %d nodes were off at once, %v; at most %d may be", off, names, w.limit))
	}
	return errors.Join(faults...)
}

// cordonsLost fails when a cordon that people laid was lost. It is asked before people take theirs back.
func (w *world) cordonsLost() error {
	for _, e := range w.obs.Log().After(w.began).Events {
		if n := e.Node; n != nil && n.Exists && !n.Unschedulable && w.foreign[n.Name] != 0 && e.Revision > w.foreign[n.Name] {
			return fmt.Errorf("the cordon that was on %s before was lost at %s", n.Name, e.Time.Format(timeFormat))
		}
	}
	return nil
}

const timeFormat = "15:04:05.000"

// mostOff is the largest number of machines that were off at once since the scenario began, with their names.
func (w *world) mostOff() (int, []string, error) {
	log, err := w.c.PowerLog()
	if err != nil {
		return 0, nil, err
	}
	off := map[string]bool{}
	var most []string
	for _, e := range log {
		if e.Time.Before(w.began) {
			continue
		}
		delete(off, e.Node)
		if !e.On {
			off[e.Node] = true
		}
		if len(off) > len(most) {
			most = most[:0]
			for n := range off {
				most = append(most, n)
			}
		}
	}
	return len(most), most, nil
}

// reboots is how many times each machine went off since the scenario began.
func (w *world) reboots() (map[string]int, error) {
	log, err := w.c.PowerLog()
	n := map[string]int{}
	for _, e := range log {
		if !e.On && !e.Time.Before(w.began) {
			n[e.Node]++
		}
	}
	return n, err
}

// switchedOff fails unless each machine was switched off this many times since the scenario began.
func (w *world) switchedOff(want map[string]int) error {
	got, err := w.reboots()
	if err != nil {
		return err
	}
	var faults []error
	for _, n := range w.nodes {
		if got[n] != want[n] {
			faults = append(faults, fmt.Errorf("%s was switched off %d times, want %d", n, got[n], want[n]))
		}
	}
	return errors.Join(faults...)
}

// record is what the scenarios read of the annotation.
type record struct {
	Cycle   string
	Attempt int
	Phase   string
	Reasons []string
	Message string
	BootID  string
	Cordon  string
	Slot    string
}

func recordOf(e observe.Event) (record, error) {
	var r record
	if err := json.Unmarshal([]byte(e.Node.Record), &r); err != nil {
		return r, fmt.Errorf("reading the record %q of %s: %w", e.Node.Record, e.Node.Name, err)
	}
	return r, nil
}
