package marshal

// Labels and annotations that the marshal reads or writes itself. Those of the slots are lock's.
const (
	leaseName = "marshal" // the Lease of the election, made by whoever leads first

	recordKey      = "kubebaton.io/reboot"      // annotation on a Node: its agent's record
	historyKey     = "kubebaton.io/history"     // annotation on a Node: its agent's history
	phaseKey       = "kubebaton.io/phase"       // label on a Node: the record's phase in lower case
	holdKey        = "kubebaton.io/hold"        // annotation on a Node, by people: leave this node alone
	acknowledgeKey = "kubebaton.io/acknowledge" // annotation on a Node, by people: its failure is known
	pauseKey       = "kubebaton.io/pause"       // annotation on Lease marshal, by people; with .<group> for one group
	trialKey       = "kubebaton.io/canary"      // annotation on Lease marshal, with .<group>: its Trial
	awayKey        = "kubebaton.io/away"        // annotation on Lease marshal, with .<group>: which cycles' nodes are away, since when
	waitingKey     = "kubebaton.io/waiting"     // annotation on Lease marshal, with .<group>: who waits for what, for people
	standingKey    = "kubebaton.io/standing"    // annotation on Lease marshal: how many agents stand for election besides its holder
)

// Reasons, a part of the closed set that records, Events, metrics and the command share.
const (
	reasonSlot     = "slot"              // every slot is taken, or this node is nominated, or passed over for now
	reasonBudget   = "budget"            // too many nodes of the group are unavailable
	reasonPaused   = "paused"            // a person paused the group or all of them
	reasonHalted   = "halted"            // too many nodes of the group failed
	reasonHold     = "hold"              // a person holds this node
	reasonGroup    = "group"             // no group selects this node
	reasonNotReady = "not-ready"         // the Node is not Ready, or is being deleted
	reasonSurvived = "sentinel-survived" // the reboot did not satisfy its sentinel
	reasonRecord   = "record"            // the record cannot be read
	reasonRestored = "restored"          // the API server was restored from a backup just now
	reasonAfter    = "after"             // nodes of other groups go first
	reasonZone     = "zone"              // the nodes of another zone go first
	reasonCanary   = "canary"            // a canary goes first, or has to prove itself
)

const noReason = "no reason given" // stands for the value of an annotation that is present and empty
