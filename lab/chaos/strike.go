package chaos

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"
)

// patience is how long an aimed fault waits for its moment before it strikes all the same.
const patience = 20 * time.Second

// Strike is a fault that struck, or did not.
type Strike struct {
	Fault
	Struck time.Time `json:"struck"`
	Where  string    `json:"where"` // node, or what else it hit
	Hit    Moment    `json:"hit"`   // what the node's moment really was
	Result string    `json:"result,omitempty"`
	Missed bool      `json:"missed,omitempty"` // nothing was done: Result says why
}

// blow does what a fault says, to a node. What it returns takes that back, nil: there is nothing to take back. An error says why
// nothing was done.
type blow func(ctx context.Context, f Fault, node string) (result string, undo func(context.Context) error, err error)

// suffer carries the plan out. When it returns every fault has been taken back.
func (r *run) suffer(ctx context.Context, start time.Time) {
	running, stop := context.WithDeadlineCause(ctx, start.Add(r.Length), errors.New("the time is over"))
	defer stop()
	var all sync.WaitGroup
	all.Go(func() { r.raise(running) })
	all.Go(func() { r.tell(running, start) })
	for _, f := range r.plan.Faults {
		if !pause(running, time.Until(start.Add(f.At))) {
			break
		}
		all.Go(func() { r.strike(ctx, running, f) })
	}
	all.Wait()
}

// strike waits for the fault's moment, strikes, waits for its end and takes it back, for which it has more time than the run.
func (r *run) strike(ctx, running context.Context, f Fault) {
	s := Strike{Fault: f}
	node, leave, ok := r.target(running, f)
	if !ok {
		return
	}
	s.Where = node
	if leave == nil {
		s.Struck, s.Hit, s.Missed, s.Result = time.Now(), r.moment(node), true, "another fault is under way there"
		r.record(s)
		return
	}
	defer leave()
	before := r.moment(node)
	result, undo, err := r.blows()[f.Kind](ctx, f, node)
	s.Struck, s.Hit, s.Result = time.Now(), r.moment(node), result
	if s.Hit == Off || s.Hit == Gone { // by the fault itself
		s.Hit = before
	}
	if err != nil {
		s.Missed, s.Result = true, err.Error()
	}
	r.record(s)
	if undo == nil {
		return
	}
	pause(running, f.For)
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := undo(limited); err != nil && ctx.Err() == nil {
		r.say("%3d %s on %s could not be taken back: %v", f.Seq, f.Kind, node, err)
	}
}

func (r *run) record(s Strike) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.struck = append(r.struck, s)
	what := "hit"
	if s.Missed {
		what = "missed"
	}
	r.say("%3d %-22s %-3s aimed at %-9s %-6s %-9s %s", s.Seq, s.Kind, s.Where, cmp.Or(string(s.Aim), "-"), what, s.Hit, s.Result)
}

// target is the first node that is in the moment aimed at, and where no other fault of the kind is under way; when patience
// ends any node, the plan's one first, as for a fault that is not aimed. leave ends what it begins there; nil: there is another
// fault everywhere.
func (r *run) target(running context.Context, f Fault) (node string, leave func(), ok bool) {
	limited, cancel := context.WithTimeout(running, patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for running.Err() == nil {
		last := limited.Err() != nil
		nodes := r.candidates(f.Kind)
		for i := range nodes {
			node := nodes[(f.Node+i)%len(nodes)]
			if f.Aim != Anytime && !last && !r.momentIs(node, f.Aim) {
				continue
			}
			if leave, free := r.guards.enter(f.Kind, node); free {
				return node, leave, true
			}
		}
		if last {
			return nodes[f.Node%len(nodes)], nil, true
		}
		select {
		case <-limited.Done():
		case <-r.observer.Changed():
		case <-tick.C:
		}
	}
	return "", nil, false
}

// candidates are the nodes that a fault may strike: those of the beginning, but for the end of one that was added.
func (r *run) candidates(k Kind) []string {
	if k != RemoveNode {
		return r.first
	}
	if extra := r.extra(); len(extra) > 0 {
		return extra
	}
	return []string{""}
}

// extra are the nodes that were added.
func (r *run) extra() []string {
	all, err := r.cluster.Nodes()
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(all, func(n string) bool { return slices.Contains(r.first, n) })
}

// pause waits for d; it tells whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(max(0, d))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// guards keep faults apart that would undo each other or make no sense together.
type guards struct {
	mu   sync.Mutex
	busy map[string]bool
}

// enter returns how to leave again; free is false when somebody else is there.
func (g *guards) enter(k Kind, node string) (leave func(), free bool) {
	key := string(k)
	switch k {
	case PowerCut, HandReboot, DeleteNode, Partition:
		key = "machine " + node
	case AddNode, RemoveNode:
		key = "extra nodes"
	case KillAPIServer, KillEtcd:
		key = "control plane"
	case Latency, SlowLink, Resets, BlackHole, LostReplies, Refusal, ClockJump:
		key = "way of " + node
	case Cordon, Hold, StallAgent, LoseDevice:
		key += node
	case Inhibit, DropSentinel, CloseBudget, KillAgent, KillKubelet, KillContainerd, KillBus, KillLogind, Configure, Misconfigure, Update, Uncordon, Pause, Release, Acknowledge, DeleteSlot:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.busy[key] {
		return nil, false
	}
	if g.busy == nil {
		g.busy = map[string]bool{}
	}
	g.busy[key] = true
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.busy, key)
	}, true
}

// tell prints how things stand, every half minute, and each violation of which it has not told yet. The report judges anew: an
// event that comes late may clear what looked like one.
func (r *run) tell(running context.Context, start time.Time) {
	told := map[string]bool{}
	for pause(running, 30*time.Second) {
		for _, v := range r.violations(start) {
			if !told[v] {
				told[v] = true
				r.say("VIOLATION %s", v)
			}
		}
		var stand []string
		for name, n := range r.observer.Nodes() {
			stand = append(stand, name+" "+cmp.Or(n.Phase, "idle"))
		}
		slices.Sort(stand)
		hit, missed := r.counts()
		c := countCycles(r.observer.Log().After(start))
		r.say("--- %d faults, %d missed; cycles: %d rebooted, %d gave up, %d undone, %d failed; %s",
			hit, missed, c.Rebooted, c.GaveUp, c.Undone, c.Failed, strings.Join(stand, ", "))
	}
}

func (r *run) counts() (hit, missed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.struck {
		if s.Missed {
			missed++
		} else {
			hit++
		}
	}
	return hit, missed
}
