package agent

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// The stages at which hooks of the host run.
const (
	PreDrain   = "pre-drain"   // the node is cordoned, nothing is evicted yet
	PreReboot  = "pre-reboot"  // the node is empty, the last check comes after them
	PostReboot = "post-reboot" // the node is Ready on its new boot, and still cordoned
)

// HookSucceeded is the one result of a hook that lets a cycle go on.
const HookSucceeded = "success"

// HookRun names a run of the hooks. The zero value is none.
type HookRun struct {
	Stage, Cycle string
	Attempt      int
}

func (r HookRun) key() string {
	if r == (HookRun{}) {
		return ""
	}
	return r.Stage + "/" + r.Cycle + "/" + strconv.Itoa(r.Attempt)
}

// HookView is what this process knows of the hooks. What was run, and how it ended, is known by the host: a process that
// knows nothing asks for the same run again and is told.
type HookView struct {
	None    bool // this agent has no way to run hooks, and runs none
	Left    bool // the host may have hooks of a run that is over
	Run     HookRun
	Running bool
	Done    bool   // all of the run have succeeded, or Failed says which has not
	Failed  string // "": none
	Trouble string // why the host could not be asked when it was last tried; "" when it could
}

// hookRun is the run of hooks that the cycle stands at; the zero value when it stands at none.
func (o Observation) hookRun() HookRun {
	r := o.Record
	if r == nil {
		return HookRun{}
	}
	run := HookRun{Cycle: r.Cycle, Attempt: r.HookRun}
	switch {
	case r.Phase == Draining && !o.Drain.Empty:
		run.Stage = PreDrain
	case r.Phase == Draining:
		run.Stage = PreReboot
	case (r.Phase == Verifying || r.Phase == Failed) && r.NewBootID == o.Boot:
		run.Stage = PostReboot
	default:
		return HookRun{}
	}
	return run
}

// hooksLeft tells whether hooks are to be cleared away. Before a reboot that is not worth the time: it ends them.
func (o Observation) hooksLeft() bool {
	goes := o.Record != nil && o.Record.Phase == Rebooting
	return o.Hooks.Left && !o.Hooks.None && !goes && o.hookRun() == (HookRun{})
}

// runHooks decides until the hooks that the cycle stands at have ended. failed says which of them has failed, and how.
func (o Observation) runHooks(wakes ...time.Time) (d Decision, ended bool, failed string) {
	h, run := o.Hooks, o.hookRun()
	switch {
	case h.None:
		return Decision{}, true, ""
	case h.Run == run && h.Done:
		return Decision{}, true, h.Failed
	case h.Run == run && h.Running:
		why := "runs the " + run.Stage + " hooks"
		if h.Trouble != "" {
			why += ": " + h.Trouble
		}
		return wait(why, wakes...), false, ""
	}
	return do(RunHooks{Run: run}), false, ""
}

// hooksLate says why hooks that have not succeeded are not waited for any longer.
func (o Observation) hooksLate(setting string, d time.Duration) string {
	text := fmt.Sprintf("the %s hooks have not succeeded within %s, %s", o.hookRun().Stage, setting, d)
	if why := cmp.Or(o.Hooks.Failed, o.Hooks.Trouble); why != "" {
		text += ": " + why
	}
	return text
}

// postHooks decides until the post-reboot hooks have succeeded. One that fails is tried again, all of them with it, later
// each time.
func (o Observation) postHooks(wakes ...time.Time) (d Decision, succeeded bool) {
	r := o.Record
	if !r.Until.IsZero() && !o.passed(o.Due.Until) {
		return wait(r.Message, append(wakes, o.Due.Until)...), false
	}
	d, ended, failed := o.runHooks(wakes...)
	switch {
	case !ended:
		return d, false
	case failed == "":
		return Decision{}, true
	}
	n := r.clone()
	delay := n.delay()
	n.HookRun++
	n.Until = o.Now.Add(delay)
	n.because(ReasonHook, fmt.Sprintf("%s; next try in %s", failed, delay))
	return do(WriteNode{Record: n}), false
}

// startHooks runs hooks in the background. What they come to wakes the loop.
func (a *Agent) startHooks(ctx context.Context, o Observation, run HookRun) {
	a.update(func(w *world) {
		trouble := ""
		if w.hooks.Run == run {
			trouble = w.hooks.Trouble
		}
		w.hooks = HookView{Run: run, Running: true, Left: w.hooks.Left, Trouble: trouble}
	})
	s := HookSettings{
		Node: o.Node.Name, Cycle: run.Cycle, Attempt: run.Attempt, Reason: o.Record.Sentinel.Reason, Timeout: o.Record.Settings.HookTimeout,
	}
	a.hooks.start(ctx, func(ctx context.Context) {
		out, err := a.Hooks.Run(ctx, run.Stage, s)
		a.jobEnded(ctx, &a.hooks, runningHooks, err)
		if err == nil && ctx.Err() == nil {
			a.hooksEnded(run, out)
		}
		a.change(func(w *world) {
			h := &w.hooks
			h.Running, h.Left = false, h.Left || err != nil || len(out.Hooks) > 0
			switch {
			case ctx.Err() != nil: // it goes on without this process
			case err != nil:
				h.Trouble = bounded(err.Error())
			default:
				h.Done, h.Failed, h.Trouble = true, out.failed(run.Stage), ""
			}
		})
	})
}

const runningHooks = "running hooks"

// hooksEnded tells of each hook, in the log and the metrics.
func (a *Agent) hooksEnded(run HookRun, out HookOutcome) {
	for _, h := range out.Hooks {
		log := a.Log.Info
		if h.Result != HookSucceeded {
			log = a.Log.Warn
		}
		log("a hook has ended", "stage", run.Stage, "hook", h.Name, "attempt", run.Attempt, "result", h.Result, "took", h.Took, "message", h.Message)
		a.metrics.hookRuns.WithLabelValues(run.Stage, h.Result).Inc()
		a.metrics.hookSeconds.WithLabelValues(run.Stage).Observe(h.Took.Seconds())
	}
}

// failed names the hook that failed, if one has, and how.
func (o HookOutcome) failed(stage string) string {
	i := slices.IndexFunc(o.Hooks, func(h HookResult) bool { return h.Result != HookSucceeded })
	if i < 0 {
		return ""
	}
	return fmt.Sprintf("%s hook %s: %s", stage, o.Hooks[i].Name, o.Hooks[i].Message)
}

// clearHooks stops what runs are over have left. It is tried once: the next run does the same before it begins, and systemd
// ends what runs for too long.
func (a *Agent) clearHooks(ctx context.Context) {
	if err := a.Hooks.Clear(ctx); err != nil {
		a.Log.Warn("hooks of a run that is over may be left", "err", err)
		a.metrics.errors.WithLabelValues("clearing hooks").Inc()
	}
	a.update(func(w *world) { w.hooks = HookView{} })
}
