package agent

import (
	"context"
	"errors"
	"time"
)

// What a call to the API server or to the host can end with, as far as the cycle branches on it. Every other error is
// a refusal that took no effect.
var (
	// ErrConflict: the object is not the one that the write was decided on. Read again, decide again.
	ErrConflict = errors.New("the object has changed")
	// ErrGone: there is no such object.
	ErrGone = errors.New("no such object")
	// ErrUnknown: the call may or may not have taken effect: no answer came.
	ErrUnknown = errors.New("outcome unknown")
	// ErrInhibited: a program on the host blocks shutdown.
	ErrInhibited = errors.New("blocked by an inhibitor")
	// ErrInProgress: the host is shutting down already.
	ErrInProgress = errors.New("a shutdown is in progress already")
)

// Node is this agent's own Node object as far as the cycle looks at it.
type Node struct {
	Name, UID, ResourceVersion string
	BootID                     string // status.nodeInfo.bootID: what the kubelet last reported
	Ready                      bool   // condition Ready is True
	Unschedulable              bool   // spec.unschedulable
	Deleting                   bool   // metadata.deletionTimestamp is set
	Labels                     map[string]string
	Allocatable                map[string]int64
	Taints                     string   // spec.taints as JSON; a write of the atomic list starts from it
	Tainted                    bool     // Baton's own taint is there
	Phase                      string   // label kubebaton.io/phase
	Record                     string   // annotation kubebaton.io/reboot
	History                    string   // annotation kubebaton.io/history
	Hold, Request, Acknowledge string   // what people wrote; never empty when the annotation is there
	Shields                    string   // annotation kubebaton.io/shields: how this agent keeps other controllers from removing the node
	Bare                       []string // how else it could
	Removal                    string   // what says that another controller removes the node; "" nothing
}

// NodeChange is one PATCH of the Node; nil leaves a thing as it is, "" removes it.
type NodeChange struct {
	Record, History, Phase         *string
	Unschedulable, Taint           *bool
	ClearRequest, ClearAcknowledge bool
	Shield                         *bool // true keeps other controllers from removing the node; false no more
	Exclude                        bool  // with Shield: keeps load balancers from sending to it, too
}

// NodeStore is the API server's side of the Node.
type NodeStore interface {
	// Get reads the Node by a quorum read; ErrGone when there is none.
	Get(ctx context.Context) (Node, error)
	// Patch writes change if the Node is still the one that from was read from: ErrConflict otherwise.
	Patch(ctx context.Context, from Node, change NodeChange) (Node, error)
	// Watch calls back with every new state until ctx ends, at first with one that is not older than a quorum read.
	Watch(ctx context.Context, changed func(n Node, exists bool)) error
	// Event tells people what happened, where they look at the Node.
	Event(ctx context.Context, n Node, warning bool, reason, message string) error
}

// Slot is a slot Lease. Holding it is the permission to take one node down.
type Slot struct {
	Name, ResourceVersion, Group string
	Nominee                      string // UID of the Node that may take it, and of the one that holds it
	BidCycle                     string // the bid that was nominated
	BidAttempt                   int
	BidUntil                     time.Time // the nomination is void after this
	Holder, HolderUID            string    // Node name and UID
	Cycle                        string
	Attempt                      int
	BootID, Cordon, Instance     string
	Hold                         string // the marshal's brake
	Release                      string // an operator asks for the slot
	Deleting                     bool
	Renewed                      time.Time // the holder's last write, by the API server's clock
}

// Claim is what a holder writes on its slot: enough to rebuild a lost record.
type Claim struct {
	Cycle                    string
	Attempt                  int
	BootID, Cordon, Instance string
}

// SlotStore is the API server's side of the slots. All writes are compare-and-swap on s.ResourceVersion.
type SlotStore interface {
	Get(ctx context.Context, name string) (Slot, error)
	// Check reads a slot and why people paused its group, "" when they did not, as of one moment by a quorum read.
	Check(ctx context.Context, name string) (s Slot, paused string, err error)
	// Named returns the slots that name this node as nominee or as holder, under whatever UID, by a quorum read.
	Named(ctx context.Context) ([]Slot, error)
	Take(ctx context.Context, s Slot, uid string, c Claim) (Slot, error)
	Renew(ctx context.Context, s Slot, c Claim) (Slot, error)
	Free(ctx context.Context, s Slot) (Slot, error)
	Decline(ctx context.Context, s Slot) (Slot, error)
	// Watch calls back with what Named would return until ctx ends, at first with what is not older. heir tells that the marshal
	// asks this node to stand for election.
	Watch(ctx context.Context, changed func(slots []Slot, heir bool)) error
}

// Sentinel says that the host wants a reboot. The zero value says that it does not.
type Sentinel struct {
	Source      string    // where it was found, for example a path
	Reason      string    // for people
	Fingerprint string    // equal for equal wishes, also across a reboot
	Since       time.Time // zero: not known
}

// Host is the machine beneath the agent.
type Host interface {
	BootID() (string, error)
	Sentinel(ctx context.Context) (Sentinel, error)
	// Watch calls back when a sentinel may have changed until ctx ends.
	Watch(ctx context.Context, changed func()) error
	// Shutdown returns what shutdown is under way or planned. "" means proven that there is none.
	Shutdown(ctx context.Context) (string, error)
	Inhibitors(ctx context.Context) ([]string, error)
	OtherRebooters(ctx context.Context) ([]string, error)
	// Reboot asks for a reboot. nil: accepted, which is all it says.
	Reboot(ctx context.Context) error
	// Lock makes this process the one agent of the host. It fails when there is another.
	Lock() (release func(), err error)
}

// DrainSettings say which rules hold for a drain, and what the cycle knows of it.
type DrainSettings struct {
	Group     string // whose rules are those of the configuration that is in force when they are needed
	Timeout   time.Duration
	Begun     time.Time       // zero: not yet
	Downtimes []time.Duration // of earlier reboots of this node
}

// Outlook is what a drain would meet if it began now.
type Outlook struct {
	Reason, Message string   // why the node may not even ask for a slot; "" when it may
	Ready           []string // stable keys of the DaemonSet and mirror pods that are Ready now
	Warnings        []string // what would hold the drain up; asked for with a preflight
}

// DrainView is how far a drain has come.
type DrainView struct {
	Running, Empty     bool
	Stays              bool // pods are left on the node that a drain would else have moved
	Evicted, Remaining int
	Reason, Message    string // why it is not empty yet
	Summary            string // when it is empty: what was done
}

// Pods are the pods of this node.
type Pods interface {
	// Look looks ahead; with preflight also for what would hold a drain up.
	Look(ctx context.Context, s DrainSettings, preflight bool) (Outlook, error)
	// Drain evicts until the node is empty, then returns nil; or until ctx ends.
	Drain(ctx context.Context, s DrainSettings, progress func(DrainView)) error
	// AwaitReady calls back with those of want that are not Ready, at the beginning and at every change.
	AwaitReady(ctx context.Context, want []string, missing func([]string)) error
}

// HookSettings say which run of the hooks it is, and what they are told.
type HookSettings struct {
	Node, Cycle string
	Attempt     int
	Reason      string        // what wants the reboot, for people
	Timeout     time.Duration // of each hook
}

// HookResult is how one hook ended.
type HookResult struct {
	Name    string
	Result  string // one word; HookSucceeded is the only good one
	Message string // the same in a line, with what the hook said
	Took    time.Duration
}

// HookOutcome is how the hooks of a stage ended. One that has failed is the last.
type HookOutcome struct{ Hooks []HookResult }

// Hooks are programs on the host that people want run at some stages of a reboot.
type Hooks interface {
	// Run runs the hooks of a stage and returns when all have succeeded, or one has not; no hooks is a success. What was
	// run for the same stage, cycle and attempt before, by whatever process, is not run again: it answers as it did.
	Run(ctx context.Context, stage string, s HookSettings) (HookOutcome, error)
	// Clear stops hooks that still run, and forgets how the others ended.
	Clear(ctx context.Context) error
}

// Marshal is this node's part in the election of the one who orders.
type Marshal interface {
	// Stand says whether this node may be elected now. It returns at once.
	Stand(want bool)
	// Summon tells that the marshal named this node its heir: it stands at once.
	Summon()
	Leading() bool
	// Resign hands over and returns when this node leads no more.
	Resign(ctx context.Context) error
	// Paused returns why people paused the group, "" when they did not, by a quorum read.
	Paused(ctx context.Context, group string) (string, error)
}

// Home is where the agent was installed.
type Home interface {
	// Removed tells whether it is being removed for good: no other process will go on where this one stops.
	Removed(ctx context.Context) (bool, error)
}

// Schedule says when reboots are allowed.
type Schedule interface {
	// Open tells whether t is within a window; why names the window or the blackout that is in the way.
	Open(t time.Time) (open bool, why string)
	// Change is when the answer changes next; false: not soon.
	Change(t time.Time) (time.Time, bool)
}

// Clock tells how far this host's clock is from the API server's, as last seen. Zero when nothing was seen.
type Clock interface{ Skew() time.Duration }
