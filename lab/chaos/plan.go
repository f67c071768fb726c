package chaos

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Kind of a fault.
type Kind string

// The kinds: processes that are killed, power, the agents' way to the API server, configuration, nodes, people.
const (
	KillAgent      Kind = "kill agent"
	StallAgent     Kind = "agent stalled"
	KillKubelet    Kind = "kill kubelet"
	KillContainerd Kind = "kill containerd"
	KillBus        Kind = "kill dbus-daemon"
	KillLogind     Kind = "kill logind"
	KillAPIServer  Kind = "kill API server"
	KillEtcd       Kind = "kill etcd"
	PowerCut       Kind = "power cut"
	HandReboot     Kind = "reboot by hand"
	Inhibit        Kind = "inhibitor"
	DropSentinel   Kind = "sentinel removed"
	LoseDevice     Kind = "device lost"
	Latency        Kind = "latency"
	SlowLink       Kind = "slow link"
	Resets         Kind = "resets"
	BlackHole      Kind = "black hole"
	LostReplies    Kind = "lost replies"
	Refusal        Kind = "connections refused"
	Partition      Kind = "node partitioned"
	ClockJump      Kind = "clock jump"
	Configure      Kind = "configuration changed"
	Misconfigure   Kind = "configuration broken"
	Update         Kind = "DaemonSet update"
	AddNode        Kind = "node added"
	RemoveNode     Kind = "node removed"
	DeleteNode     Kind = "Node deleted"
	Cordon         Kind = "cordon"
	Uncordon       Kind = "uncordon"
	Hold           Kind = "hold"
	Pause          Kind = "pause"
	Release        Kind = "release"
	Acknowledge    Kind = "acknowledge"
	DeleteSlot     Kind = "slot deleted"
	CloseBudget    Kind = "budget closed"
)

// Fault is one line of a plan.
type Fault struct {
	Seq  int           `json:"seq"`
	At   time.Duration `json:"at"` // since the beginning; an aimed one strikes as soon as a node is in that moment
	Kind Kind          `json:"kind"`
	Aim  Moment        `json:"aim,omitempty"`
	Node int           `json:"node"`          // which one, counted round those that there are, when no node is in the moment
	For  time.Duration `json:"for,omitempty"` // until it is taken back; 0: nothing to take back
	Size int           `json:"size"`          // how hard, from 0 to 99: what it means depends on the kind
}

// Plan is what is going to happen: all of it follows from the seed.
type Plan struct {
	Seed           uint64        `json:"seed"`
	Length         time.Duration `json:"length"`
	MaxUnavailable []int         `json:"maxUnavailable"` // of the configurations, one for each epoch
	Faults         []Fault       `json:"faults"`
}

// epoch is how long maxUnavailable stays as it is: so long that the smaller one is surely in force for a while.
const epoch = 7 * time.Minute

// pace is the mean time between two faults: some of them find nothing to strike, and ten in 90 s have to strike.
const pace = 5500 * time.Millisecond

// card says how often a kind comes, at which moments, and for how long.
type card struct {
	kind        Kind
	count       int // in the deck
	aims        []Moment
	least, most time.Duration
}

// deck holds all that can happen. It is dealt to its end before it is shuffled again, so that a short run sees most of it.
func deck() []card {
	const s = time.Second
	life := []Moment{Waiting, Taken, Draining, Rebooting, Asked, Verifying, Backoff}
	down := []Moment{Draining, Rebooting, Asked, Booting, Verifying}
	up := []Moment{Waiting, Draining, Rebooting, Verifying}
	way := []Moment{Anytime, Ordering, Taken, Draining, Rebooting, Off, Verifying}
	return []card{
		{KillAgent, 5, append(life, Ordering, Ordering, Failed), 0, 0},
		{StallAgent, 2, append(life, Ordering), 3 * s, 20 * s},
		{KillKubelet, 1, up, 0, 0},
		{KillContainerd, 1, up, 0, 0},
		{KillBus, 1, []Moment{Taken, Draining, Rebooting, Verifying}, 0, 0},
		{KillLogind, 1, []Moment{Taken, Draining, Rebooting}, 0, 0},
		{KillAPIServer, 1, way, 0, 3 * s},
		{KillEtcd, 1, way, 0, 4 * s},
		{PowerCut, 4, append(life, Off, Booting, Failed), 0, 15 * s},
		{HandReboot, 1, []Moment{Waiting, Taken, Draining, Rebooting, Backoff}, 0, 0},
		{Inhibit, 1, []Moment{Waiting, Taken, Draining, Rebooting}, 5 * s, 15 * s},
		{DropSentinel, 1, []Moment{Waiting, Taken, Draining, Rebooting}, 0, 0},
		{LoseDevice, 2, []Moment{Draining, Rebooting, Off, Booting}, 30 * s, 45 * s}, // as long as the shorter verify.timeout, and more
		{Latency, 1, way, 5 * s, 20 * s},
		{SlowLink, 1, way, 5 * s, 15 * s},
		{Resets, 2, way, 2 * s, 8 * s},
		{BlackHole, 1, way, 4 * s, 20 * s},
		{LostReplies, 2, way, 4 * s, 15 * s},
		{Refusal, 1, way, 4 * s, 15 * s},
		{Partition, 1, []Moment{Anytime, Ordering, Taken, Draining, Rebooting, Booting, Verifying}, 4 * s, 15 * s},
		{ClockJump, 2, []Moment{Waiting, Taken, Draining, Rebooting, Verifying}, 6 * s, 20 * s},
		{Configure, 2, []Moment{Anytime, Draining, Rebooting, Verifying}, 0, 0},
		{Misconfigure, 1, []Moment{Anytime, Draining, Rebooting, Off}, 8 * s, 25 * s},
		{Update, 1, []Moment{Anytime, Draining, Rebooting, Verifying}, 0, 0},
		{AddNode, 2, []Moment{Anytime}, 0, 0}, // every second one becomes RemoveNode
		{DeleteNode, 2, []Moment{Taken, Draining, Rebooting, Off, Verifying}, 12 * s, 25 * s},
		{Cordon, 4, []Moment{Idle, Waiting, Taken, Backoff}, 10 * s, 35 * s},
		{Uncordon, 2, down, 0, 0},
		{Hold, 1, []Moment{Waiting, Taken, Draining, Rebooting, Verifying}, 4 * s, 12 * s},
		{Pause, 1, []Moment{Anytime, Draining, Rebooting}, 4 * s, 12 * s},
		{Release, 1, []Moment{Taken, Draining, Rebooting}, 0, 0},
		{Acknowledge, 1, []Moment{Waiting, Verifying, Backoff, Failed}, 0, 0},
		{DeleteSlot, 1, []Moment{Anytime, Taken, Draining, Rebooting}, 0, 0},
		{CloseBudget, 1, []Moment{Anytime, Draining}, 8 * s, 30 * s},
	}
}

// NewPlan makes the plan of a run: a function of its arguments and of nothing else.
func NewPlan(seed uint64, length time.Duration) Plan {
	draw := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // it has to be the same every time
	p := Plan{Seed: seed, Length: length}
	limit := 1 + draw.IntN(2)
	for at := time.Duration(0); at < length; at += epoch {
		p.MaxUnavailable = append(p.MaxUnavailable, limit)
		if at > 0 {
			p.Faults = append(p.Faults, Fault{At: at, Kind: Configure, Size: draw.IntN(100)})
		}
		limit = 3 - limit
	}
	var cards []card
	extra := false
	for at := between(draw, pace/2, pace); at < length; at += between(draw, pace/2, pace*3/2) {
		if len(cards) == 0 {
			cards = shuffled(draw)
		}
		c := cards[0]
		cards = cards[1:]
		f := Fault{
			At: at, Kind: c.kind, Aim: c.aims[draw.IntN(len(c.aims))], Node: draw.IntN(100),
			For: between(draw, c.least, c.most), Size: draw.IntN(100),
		}
		if f.Kind == AddNode {
			if extra {
				f.Kind = RemoveNode
			}
			extra = !extra
		}
		p.Faults = append(p.Faults, f)
	}
	slices.SortStableFunc(p.Faults, func(a, b Fault) int { return int(a.At - b.At) })
	for i := range p.Faults {
		p.Faults[i].Seq = i + 1
	}
	return p
}

func shuffled(draw *rand.Rand) []card {
	var cards []card
	for _, c := range deck() {
		for range c.count {
			cards = append(cards, c)
		}
	}
	draw.Shuffle(len(cards), func(i, j int) { cards[i], cards[j] = cards[j], cards[i] })
	return cards
}

// between draws a time of whole milliseconds; least when there is nothing to draw from.
func between(draw *rand.Rand, least, most time.Duration) time.Duration {
	if most <= least {
		return least
	}
	return least + time.Duration(draw.Int64N(int64(most-least))).Truncate(time.Millisecond)
}

// maxUnavailable is that of a configuration that comes at this time.
func (p Plan) maxUnavailable(at time.Duration) int {
	return p.MaxUnavailable[min(int(at/epoch), len(p.MaxUnavailable)-1)]
}
