package marshal

import (
	"strconv"
	"strings"
	"time"
)

// Phases of a record. Only these matter here; "" is Idle.
const (
	phaseWaiting   = "Waiting"
	phaseDraining  = "Draining"
	phaseRebooting = "Rebooting"
	phaseVerifying = "Verifying"
	phaseBackoff   = "Backoff"
	phaseFailed    = "Failed"
)

// defaultRebootTimeout is that of a group which states none: systemd forces a reboot whose orderly way takes 30 minutes,
// and a server may need another 15 to start.
const defaultRebootTimeout = 45 * time.Minute

// Node is what the marshal keeps of a Node.
type Node struct {
	Name, UID, BootID              string
	Ready, Unschedulable, Deleting bool
	Labels                         map[string]string
	Foreign                        bool // runs no agent: virtual-kubelet, Fargate, Windows. Not counted
	Phase, Cycle                   string
	Attempt                        int
	Bids                           bool          // its record wants a slot now: Waiting with every gate open
	Pending                        time.Time     // since when its sentinel asks
	Wished                         time.Time     // since when its sentinel is the present one; zero: since Pending
	Slot                           string        // the slot that its record names
	Survived                       bool          // its sentinel is the same after a proven reboot
	Warned                         bool          // its agent expects the drain to be difficult
	Stays                          bool          // it is away, or about to be, with pods that a drain would have moved
	Hold                           string        // a person's reason to leave it alone, "" none
	Acknowledged                   bool          // a person acknowledges its failure, and its agent has not taken that up yet
	Reason                         string        // its record's first reason for waiting
	Proven                         time.Time     // the end of its last reboot that ended well; zero for none
	Took                           time.Duration // how long it was taken down for that; 0 not known
	Tried                          time.Time     // the wish that it was rebooted for; zero not known
}

// wish is since when the node wants what it wants.
func (n *Node) wish() time.Time {
	if n.Wished.IsZero() {
		return n.Pending
	}
	return n.Wished
}

// bid tells whether this is what the node bids for.
func (n *Node) bid(cycle string, attempt int) bool { return n.Cycle == cycle && n.Attempt == attempt }

// active tells whether the record says that the node is down, or may be.
func (n *Node) active() bool {
	switch n.Phase {
	case phaseDraining, phaseRebooting, phaseVerifying, phaseFailed:
		return true
	}
	return false
}

// away tells whether the node has left and is not back: it counts against the group's RebootTimeout.
func (n *Node) away() bool { return n.Phase == phaseRebooting || n.active() && !n.Ready }

// Slot is one slot Lease. Its fields are those of the package that stores slots, name by name.
type Slot struct {
	Name, ResourceVersion, Group string
	Nominee                      string // UID of the nominated Node; stays while the slot is held
	BidCycle                     string // the bid that was nominated
	BidAttempt                   int
	BidUntil                     time.Time
	Holder, HolderUID            string // Node name and UID
	Cycle                        string
	Attempt                      int
	BootID, Cordon, Instance     string
	Hold                         string // the marshal's brake
	Release                      string // an operator's ask
	Deleting                     bool
	Renewed                      time.Time
}

func (s *Slot) empty() bool     { return s.Holder == "" && s.Nominee == "" }
func (s *Slot) nominated() bool { return s.Holder == "" && s.Nominee != "" }

// SlotName is the name of slot i of a group, counted from 0.
func SlotName(group string, i int) string { return "slot-" + group + "-" + strconv.Itoa(i) }

// slotIndex returns the number of a group's slot by its name; ok is false when the name is not one of that group.
func slotIndex(group, name string) (i int, ok bool) {
	digits, ok := strings.CutPrefix(name, "slot-"+group+"-")
	if !ok {
		return 0, false
	}
	i, err := strconv.Atoi(digits)
	return i, err == nil && i >= 0 && SlotName(group, i) == name
}

// Group is a set of nodes that share slots and policy. A node belongs to the first one that matches it.
type Group struct {
	Name                  string
	Match                 func(labels map[string]string) bool // nil matches every node
	MaxUnavailable        int                                 // used when the per cent is 0
	MaxUnavailablePercent int                                 // of the group's nodes, rounded down
	MaxFailed             int                                 // more failed nodes than this halt the group
	RebootTimeout         time.Duration                       // 0 means 45 minutes
	After                 []string                            // groups whose nodes go first
	TopologyKey           string                              // label of the zones that go one after the other; "" for none
	Canaries              int                                 // how many nodes try a wish first; 0 for none
	CanarySoak            time.Duration                       // from the last canary's return until the others may go
}

// Trial is what is remembered of a group's canaries, across marshals: an annotation of the Lease `marshal`.
type Trial struct {
	Covered time.Time `json:"covered,omitzero"` // the wishes up to then were tried
	Started time.Time `json:"started,omitzero"` // of the trial that is on; zero for none
}

// Limit returns how many of that many nodes may be unavailable, which is the number of slots: never less than 1, and
// never more than there are nodes.
func (g Group) Limit(nodes int) int {
	n := g.MaxUnavailable
	if g.MaxUnavailablePercent > 0 {
		n = nodes * g.MaxUnavailablePercent / 100
	}
	return max(1, min(n, nodes))
}

func (g Group) rebootTimeout() time.Duration {
	if g.RebootTimeout <= 0 {
		return defaultRebootTimeout
	}
	return g.RebootTimeout
}

// View is everything that the marshal's decisions depend on.
type View struct {
	Now    time.Time // the API server's, by which agents judge a nomination
	Own    time.Time // of this process, whose clock never jumps: Unsure, Penalty and Away go by it
	Self   string    // name of the marshal's own Node: last in its group, because it has to resign to go
	Groups []Group   // first match wins; empty means that there is no valid configuration: nothing is nominated or deleted
	Nodes  []Node
	Slots  []Slot
	Paused map[string]string    // group to reason; "" stands for all groups
	Trials map[string]Trial     // by group, as the Lease `marshal` has them
	Absent map[string]time.Time // cycle: a marshal saw its node away since, by the API server's time; as the Lease `marshal` has them

	// Unsure: until then it is not known who is down, because the API server was restored from a backup; zero: it is known.
	Unsure time.Time

	NominationTimeout time.Duration
	DeletedGrace      time.Duration
	Penalty           map[string]time.Time // Node UID: its bids are passed over until then
	Away              map[string]time.Time // Node UID: this marshal has seen it away since then
}

// Nomination invites one bid to take one slot.
type Nomination struct {
	Slot, Node, UID, Cycle string
	Attempt                int
	Until                  time.Time
}

// Verdict says why a waiting node waits, by what the marshal knows. Reason "" means that it was nominated just now.
type Verdict struct{ Node, UID, Group, Reason, Message string }
