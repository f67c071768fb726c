package agent

import "time"

// How long an answer may be used before it is asked for again.
const (
	// lastCheckAge bounds the time between what the last check read and the reboot call, and between the gates and
	// the take of a slot.
	lastCheckAge = 5 * time.Second
	// heartbeat is how often a holder writes renewTime, for people and metrics: nothing is decided by it.
	heartbeat = time.Minute
	// acceptedGrace is how long an accepted reboot may show nothing before the host's word counts as proof that it
	// does not come.
	acceptedGrace = 10 * time.Second
)

// Observation is everything that [Step] knows.
type Observation struct {
	Now      time.Time
	Instance string // of this process; a new one after each write of unknown outcome
	FreshID  string // an id that was never used, for a cycle that begins
	Boot     string // the host's boot ID, now

	Node      Node
	Exists    bool // the Node is there
	Record    *Record
	RecordErr error // the record is there and cannot be read
	History   History
	Slots     []Slot // that name this node

	Sentinel      Sentinel
	SentinelKnown bool

	Due      Due
	Settings *Settings // nil: there is no valid configuration
	Group    string    // of this node by the configuration; "" none
	Rules    string    // of the drains of the record's group
	// GroupGone tells that the configuration has the group of the record no more.
	GroupGone bool

	Window   Window
	Skew     time.Duration // own clock minus the API server's, as last seen
	Gates    Gates
	Shutdown Shutdown
	Drain    DrainView
	Emptied  time.Time // when the drain found the node empty
	Pods     PodsReady
	Hooks    HookView
	Call     Call
	Leading  bool
	Leaving  bool // Baton is being removed: no process goes on where this one stops
}

// Due are the record's stored times as this process waits for them: bounded by what they can be at most when they were
// first seen, and on the monotonic clock from then on, so that no step of the host's clock moves them. Zero: not stored.
type Due struct {
	Deadline time.Time // Draining, Verifying: give up
	Until    time.Time // Backoff, Waiting: no bid before; Verifying, Failed: no hook before
	Soaked   time.Time // Verifying: long enough healthy
	Slow     time.Time // Rebooting: the reboot should have come
}

func (o Observation) passed(t time.Time) bool { return !o.Now.Before(t) }

// Window is what the schedule says about now.
type Window struct {
	Open bool
	Why  string    // what is in the way
	Next time.Time // when that may change; zero: never
}

// Gates are the answers of the gates that have to be asked, all of one time.
type Gates struct {
	At     time.Time // zero: never asked
	Until  time.Time // to be asked again then
	Closed []Closed
	Ready  []string // keys of the pods that were Ready
	// Preflight tells that what would hold a drain up was looked for, too: Warnings.
	Preflight bool
	Warnings  []string
}

// Closed is a gate that says no.
type Closed struct {
	Reason  Reason
	Message string
	// Unknown: the gate could not be asked. That keeps a node from going down, and undoes nothing.
	Unknown bool
	// Advised: somebody else keeps the node from its turn, and will know by himself when that is over. The bid stands.
	Advised bool
}

// maxSkew is how far the own clock may be from the API server's: deadlines that others set are compared with it.
const maxSkew = time.Minute

// closed returns every gate that says no, those first that are seen without asking.
func (o Observation) closed() []Closed {
	var c []Closed
	if o.Node.Hold != "" {
		c = append(c, Closed{Reason: ReasonHold, Message: o.Node.Hold})
	}
	if o.Group == "" {
		c = append(c, Closed{Reason: ReasonGroup, Message: "no group of the configuration selects this node"})
	}
	if o.Node.Removal != "" {
		c = append(c, Closed{Reason: ReasonRemoval, Message: "another controller removes the node: " + o.Node.Removal})
	}
	if o.Skew.Abs() > maxSkew {
		c = append(c, Closed{Reason: ReasonClock, Message: "the clock is " + o.Skew.Round(time.Second).String() + " off the API server's"})
	}
	if !o.Window.Open {
		c = append(c, Closed{Reason: ReasonWindow, Message: o.Window.Why})
	}
	if !o.SentinelKnown {
		c = append(c, Closed{Reason: ReasonSentinelUnknown, Message: "the sentinels cannot be read", Unknown: true})
	}
	if o.Settings != nil && o.History.reboots(o.Now) >= o.Settings.MaxReboots24h {
		c = append(c, Closed{Reason: ReasonRebootLimit, Message: "the node was rebooted too often in the last 24 hours"})
	}
	return append(c, o.Gates.Closed...)
}

// Shutdown is what the host said about a shutdown that is coming.
type Shutdown struct {
	At     time.Time
	Coming string // what is coming; "" nothing, proven
	Err    error  // it could not be asked, which counts as coming
}

// PodsReady is the watch for the pods that were Ready before.
type PodsReady struct {
	Running bool
	Known   bool
	Missing []string
}

// Call is what this process knows of the reboot that it asked for.
type Call struct {
	At      time.Time // zero: not called
	Cycle   string
	Attempt int
	// Refused is empty for an accepted call, and for one without an answer.
	Refused Reason
	Message string
}

func (o Observation) fresh(at time.Time, age time.Duration) bool {
	return !at.IsZero() && o.Now.Sub(at) < age && !o.Now.Before(at)
}

// beats tells whether the heartbeat on s is young enough. It is a time of the API server's clock, which both the writer and
// this process know to about a second, so it may lie a little ahead.
func (o Observation) beats(s Slot) bool {
	return o.Now.Add(-o.Skew).Sub(s.Renewed).Abs() < heartbeat
}

// nextBeat is when that changes, by the own clock.
func (o Observation) nextBeat(s Slot) time.Time { return s.Renewed.Add(o.Skew + heartbeat) }

// held returns the slot that this node holds: by name and UID.
func (o Observation) held() (Slot, bool) {
	var found Slot
	ok := false
	for _, s := range o.Slots {
		if s.Holder != o.Node.Name || s.HolderUID != o.Node.UID {
			continue
		}
		if !ok || (o.Record != nil && s.Name == o.Record.Slot) {
			found, ok = s, true
		}
	}
	return found, ok
}

// astray returns a slot that names this node and that no cycle of this Node can use: a second one, or one held by an
// earlier Node of the same name.
func (o Observation) astray() (Slot, bool) {
	held, ok := o.held()
	for _, s := range o.Slots {
		if s.Holder == o.Node.Name && (s.HolderUID != o.Node.UID || ok && s.Name != held.Name) {
			return s, true
		}
	}
	return Slot{}, false
}

// nominated returns the slot that the marshal offers for the current bid.
func (o Observation) nominated() (Slot, bool) {
	for _, s := range o.Slots {
		if s.Holder == "" && s.Nominee == o.Node.UID && !s.Deleting && s.Hold == "" &&
			o.Record != nil && s.BidCycle == o.Record.Cycle && s.BidAttempt == o.Record.Attempt && o.open(s) {
			return s, true
		}
	}
	return Slot{}, false
}

// open tells whether a nomination is not over, by the API server's clock, which the marshal went by.
func (o Observation) open(s Slot) bool { return o.Now.Add(-o.Skew).Before(s.BidUntil) }

// unwanted returns a nomination that is not for the current bid.
func (o Observation) unwanted() (Slot, bool) {
	n, ok := o.nominated()
	for _, s := range o.Slots {
		if s.Holder == "" && s.Nominee == o.Node.UID && (!ok || s.Name != n.Name) && o.open(s) {
			return s, true
		}
	}
	return Slot{}, false
}

// drain says which rules hold for the drain, or would hold for one.
func (o Observation) drain() DrainSettings {
	s := DrainSettings{Group: o.Group, Downtimes: o.History.downtimes()}
	if r := o.Record; r != nil && r.Phase == Draining {
		s.Group, s.Timeout, s.Begun = r.Group, r.Settings.DrainTimeout, r.Cordoned
	}
	return s
}

// wish is what of the observation wants a reboot: the host's sentinel, or a person's request.
func (o Observation) wish() Sentinel {
	switch {
	case o.Sentinel.Source != "":
		return o.Sentinel
	case o.Node.Request != "":
		return Sentinel{Source: "request", Reason: o.Node.Request, Fingerprint: "request: " + o.Node.Request}
	}
	return Sentinel{}
}

// wishGone tells that nothing wants a reboot any more, which is known only when the host could be asked.
func (o Observation) wishGone() bool { return o.SentinelKnown && o.wish().Source == "" }
