package agent

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// RecordVersion is written into every record. It is raised when what a field means changes, not when one is added. A
// record of a newer version is left alone.
const RecordVersion = 1

// Whose cordon it is, as the record and the slot say it.
const (
	CordonNone    = ""        // there is none that the cycle knows of
	CordonBaton   = "baton"   // laid by this cycle: it undoes it
	CordonForeign = "foreign" // was there before: it stays
)

// Record is the durable state of one cycle: the annotation kubebaton.io/reboot on the node's own Node.
// Times are UTC, in whole milliseconds.
type Record struct {
	Version  int       `json:"version"`
	Instance string    `json:"instance"` // the agent process that wrote it
	Cycle    string    `json:"cycle"`
	Attempt  int       `json:"attempt"` // from 1; with Cycle it names the bid
	Phase    Phase     `json:"phase"`
	Since    time.Time `json:"since"`        // the phase was entered
	Pending  time.Time `json:"pendingSince"` // the host has wanted a reboot since
	// Wished is when the sentinel was last seen to have another fingerprint than before; zero: it is the one of Pending.
	Wished   time.Time `json:"wishedSince,omitzero"`
	Bids     bool      `json:"bids"` // wants a slot now
	Reasons  []Reason  `json:"reasons,omitempty"`
	Message  string    `json:"message,omitempty"`
	Sentinel struct {
		Source      string `json:"source"`
		Reason      string `json:"reason,omitempty"`
		Fingerprint string `json:"fingerprint"`
	} `json:"sentinel"`
	Request   string    `json:"request,omitempty"`   // the request annotation that this cycle serves
	BootID    string    `json:"bootID"`              // of the boot on which the cycle stands; from Draining on: before the reboot
	NewBootID string    `json:"newBootID,omitempty"` // Verifying, Failed: of the boot that is looked at
	Cordon    string    `json:"cordon,omitempty"`
	Slot      string    `json:"slot,omitempty"`
	Group     string    `json:"group,omitempty"`
	Yield     bool      `json:"yield,omitempty"`    // a slot that is still held is to be freed, not used
	Deadline  time.Time `json:"deadline,omitzero"`  // Draining, Verifying: give up then
	Healthy   time.Time `json:"healthy,omitzero"`   // Verifying with a soak: healthy since
	Until     time.Time `json:"until,omitzero"`     // Backoff, or Waiting after a veto: no bid before; Verifying, Failed: no hook before
	Backoffs  int       `json:"backoffs,omitempty"` // consecutive, they make the delay grow
	HookRun   int       `json:"hookRun,omitempty"`  // the run of hooks in this cycle, from 1: one that failed is over, the next has another number
	Survived  string    `json:"survived,omitempty"` // fingerprint of the sentinel that survived a reboot
	Warnings  []string  `json:"warnings,omitempty"` // what would hold the drain up: other nodes go first
	Cordoned  time.Time `json:"cordoned,omitzero"`  // Draining was entered
	Down      time.Time `json:"down,omitzero"`      // Rebooting was entered
	Stays     bool      `json:"stays,omitempty"`    // Rebooting: pods are on the node that a drain would have moved; nobody else goes meanwhile
	Evicted   int       `json:"evicted,omitempty"`  // pods, in the drain that emptied the node, as far as one process has seen it
	// What the node was like before, to compare with after the reboot.
	Pods        []string         `json:"pods,omitempty"`
	Allocatable map[string]int64 `json:"allocatable,omitempty"`
	// What the cycle needs to be finished without a configuration.
	Settings Settings `json:"settings"`

	rest fields // of a newer agent
}

// Settings are the durations and rules of a cycle, fixed when it begins to take the node down.
type Settings struct {
	GateInterval   time.Duration `json:"gateInterval"`
	DrainTimeout   time.Duration `json:"drainTimeout"`
	RebootTimeout  time.Duration `json:"rebootTimeout"`
	VerifyTimeout  time.Duration `json:"verifyTimeout"`
	Soak           time.Duration `json:"soak,omitempty"`
	HookTimeout    time.Duration `json:"hookTimeout,omitempty"` // 0, of an earlier version: the host's default
	BackoffInitial time.Duration `json:"backoffInitial"`
	BackoffMax     time.Duration `json:"backoffMax"`
	MaxReboots24h  int           `json:"maxReboots24h"`
	PendingTaint   bool          `json:"pendingTaint,omitempty"`
	Exclude        bool          `json:"exclude,omitempty"` // load balancers are kept from sending to a node that is down

	rest fields // of a newer agent
}

// parseRecord reads the annotation. "" is no record: Idle. A record whose meaning is not known is an error: whoever wrote
// it knew something that this code does not.
func parseRecord(text string) (*Record, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // no record is a state of its own: Idle.
	}
	var r Record
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return nil, fmt.Errorf("reading the record: %w", err)
	}
	if r.Version > RecordVersion {
		return nil, fmt.Errorf("reading the record: version %d: written by a newer version of the agent", r.Version)
	}
	known := []Phase{Waiting, Draining, Rebooting, Verifying, Backoff, Failed}
	if r.Version < 1 || r.Cycle == "" || r.BootID == "" || !slices.Contains(known, r.Phase) {
		return nil, fmt.Errorf("reading the record: version %d, cycle %q, boot ID %q, phase %q do not make a record",
			r.Version, r.Cycle, r.BootID, r.Phase)
	}
	return &r, nil
}

func (r *Record) encode() (string, error) {
	for _, t := range []*time.Time{&r.Since, &r.Pending, &r.Wished, &r.Deadline, &r.Healthy, &r.Until, &r.Cordoned, &r.Down} {
		*t = t.UTC().Truncate(time.Millisecond)
	}
	b, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("encoding the record: %w", err)
	}
	return string(b), nil
}

// wished is since when the host wants what it wants now.
func (r *Record) wished() time.Time {
	if r.Wished.IsZero() {
		return r.Pending
	}
	return r.Wished
}

// clone returns a copy that may be changed.
func (r *Record) clone() *Record {
	c := *r
	c.Reasons, c.Pods, c.Warnings = slices.Clone(r.Reasons), slices.Clone(r.Pods), slices.Clone(r.Warnings)
	return &c
}

// The bounds of the history annotation.
const (
	historyEntries = 20
	historyBytes   = 4096
	historyWhole   = 4 // the last ones: of older ones nobody asks for the sentinel, nor how long the whole cycle took
)

// History is what outlives a cycle: the annotation kubebaton.io/history.
type History struct {
	// Ended is the last cycle that was ended on purpose: a slot that still names it has only to be freed.
	Ended  string  `json:"ended,omitempty"`
	Cycles []Entry `json:"cycles,omitempty"` // oldest first
}

// Entry is one finished cycle.
type Entry struct {
	Cycle    string        `json:"cycle"`
	At       time.Time     `json:"at"`
	Result   Reason        `json:"result"`
	Reason   string        `json:"reason,omitempty"`   // what wanted the reboot
	Downtime time.Duration `json:"downtime,omitempty"` // Rebooting to healthy, in nanoseconds
	Took     time.Duration `json:"took,omitempty"`     // Draining to healthy, in nanoseconds
	Evicted  int           `json:"evicted,omitempty"`  // pods
	Rebooted bool          `json:"rebooted,omitempty"` // proven by a new boot ID
	// Fingerprint of the sentinel that the reboot served: the same one soon after is the same one still.
	Fingerprint string `json:"fingerprint,omitempty"`
	// Wished is since when that sentinel was there; zero in what an earlier version wrote.
	Wished time.Time `json:"wishedSince,omitzero"`
}

// parseHistory never fails: a history that cannot be read is begun anew, nothing rests on it but limits.
func parseHistory(text string) History {
	var h History
	if json.Unmarshal([]byte(text), &h) != nil {
		return History{}
	}
	return h
}

func (h History) encode() (string, error) {
	h.Cycles = slices.Clone(h.Cycles)
	for i := range h.Cycles {
		e := &h.Cycles[i]
		e.At, e.Wished = e.At.Truncate(time.Millisecond), e.Wished.Truncate(time.Millisecond)
		if i < len(h.Cycles)-historyWhole {
			e.Fingerprint, e.Wished, e.Took = "", time.Time{}, 0
		}
	}
	for {
		if n := len(h.Cycles); n > historyEntries {
			h.Cycles = h.Cycles[n-historyEntries:]
		}
		b, err := json.Marshal(h)
		if err != nil {
			return "", fmt.Errorf("encoding the history: %w", err)
		}
		if len(b) <= historyBytes || len(h.Cycles) == 0 {
			return string(b), nil
		}
		h.Cycles = h.Cycles[1:]
	}
}

// with returns the history after e.
func (h History) with(e Entry) History {
	return History{Ended: e.Cycle, Cycles: append(slices.Clone(h.Cycles), e)}
}

// Downtimes are those of the proven reboots in a history.
func Downtimes(history string) []time.Duration { return parseHistory(history).downtimes() }

// downtimes are those of proven reboots. Of a node that was accepted as it is nobody knows how long it was away.
func (h History) downtimes() []time.Duration {
	var all []time.Duration
	for _, e := range h.Cycles {
		if e.Rebooted && e.Result != ReasonNotReady && e.Downtime > 0 {
			all = append(all, e.Downtime)
		}
	}
	return all
}

// reboots counts the proven reboots of the day before now. An entry from the future is of a clock that was wrong.
func (h History) reboots(now time.Time) int {
	n := 0
	for _, e := range h.Cycles {
		if e.today(now) {
			n++
		}
	}
	return n
}

func (e Entry) today(now time.Time) bool {
	return e.Rebooted && e.At.After(now.Add(-24*time.Hour)) && !e.At.After(now)
}

// sameWish is how soon after a reboot the same sentinel must come back to be the same wish still: a unit that makes it at
// every boot does so within minutes. Later it may well be the next update of the same package.
const sameWish = time.Hour

// served tells whether a proven reboot of a moment ago was for the sentinel with this fingerprint.
func (h History) served(fingerprint string, now time.Time) bool {
	return slices.ContainsFunc(h.Cycles, func(e Entry) bool {
		return e.today(now) && e.At.After(now.Add(-sameWish)) && e.Fingerprint == fingerprint && fingerprint != ""
	})
}
