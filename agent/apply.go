package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// apply carries out one effect.
func (a *Agent) apply(ctx context.Context, o Observation, e Effect) error {
	parent := ctx
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	switch e := e.(type) {
	case WriteNode:
		if e.Move != nil {
			a.hooks.stop() // none begins while its phase is being left
		}
		return a.store(ctx, o, e)
	case TakeSlot:
		return a.slot(e.Slot.Name)(a.Slots.Take(ctx, e.Slot, o.Node.UID, e.Claim))
	case RenewSlot:
		return a.slot(e.Slot.Name)(a.Slots.Renew(ctx, e.Slot, e.Claim))
	case FreeSlot:
		return a.slot(e.Slot.Name)(a.Slots.Free(ctx, e.Slot))
	case DeclineSlot:
		return a.slot(e.Slot.Name)(a.Slots.Decline(ctx, e.Slot))
	case AskGates:
		a.askGates(ctx, o)
	case AskHost:
		a.askHost(ctx)
	case StartDrain:
		a.startDrain(parent, e.Settings)
	case RunHooks:
		a.startHooks(parent, o, e.Run)
	case ClearHooks:
		a.clearHooks(ctx)
	case AwaitPods:
		a.awaitPods(parent, e.Keys)
	case Resign:
		if err := a.Marshal.Resign(ctx); err != nil {
			return fmt.Errorf("resigning as marshal: %w", err)
		}
	case Reboot:
		return a.reboot(ctx, e)
	}
	return nil
}

// store is the one place that writes the Node, and tells of it.
func (a *Agent) store(ctx context.Context, o Observation, e WriteNode) error {
	text, phase, taint, shield, exclude := "", "", false, false, false
	if e.Record != nil {
		e.Record.Version, e.Record.Instance = RecordVersion, o.Instance
		t, err := e.Record.encode()
		if err != nil {
			return err
		}
		text, phase, taint = t, strings.ToLower(string(e.Record.Phase)), e.Record.Survived == "" && e.Record.Settings.PendingTaint
		shield, exclude = e.Record.Phase.down(), e.Record.Settings.Exclude
	}
	c := NodeChange{
		Record: &text, Phase: &phase, Taint: &taint, Shield: &shield, Exclude: exclude, Unschedulable: e.Cordon,
		ClearRequest: e.ClearRequest, ClearAcknowledge: e.ClearAcknowledge,
	}
	if e.History != nil {
		h, err := e.History.encode()
		if err != nil {
			return err
		}
		c.History = &h
	}
	asked := time.Now()
	n, err := a.Node.Patch(ctx, o.Node, c)
	if err != nil {
		return fmt.Errorf("writing the Node: %w", err)
	}
	a.update(func(w *world) {
		if w.answeredNode(n) && n.ResourceVersion != o.Node.ResourceVersion { // else there was nothing to be written
			w.read = asked
		}
	})
	a.tell(ctx, o, e, n)
	return nil
}

// tell is the one place where a transition becomes a log line, a metric and an Event.
func (a *Agent) tell(ctx context.Context, o Observation, e WriteNode, n Node) {
	t := e.Move
	if t == nil && e.Record != nil && o.Record != nil && e.Record.HookRun > o.Record.HookRun { // it will be tried again
		a.event(event{node: n, warning: true, reason: "RebootHookFailed", message: e.Record.Message})
		return
	}
	if t == nil {
		if e.Record != nil && e.Record.Phase == Waiting && o.Record != nil && e.Record.Message != o.Record.Message && e.Record.Message != "" {
			a.Log.Info("waits", "reasons", e.Record.Reasons, "message", e.Record.Message)
			a.event(event{node: n, reason: "RebootWaiting", message: e.Record.Message})
		}
		return
	}
	a.update(func(w *world) { w.moves++ })
	level := slog.LevelInfo
	if t.warns() {
		level = slog.LevelWarn
	}
	a.Log.Log(ctx, level, "transition", "from", t.From, "to", t.To, "reason", t.Reason, "message", t.Message)
	a.metrics.transitions.WithLabelValues(string(t.From), string(t.To), string(t.Reason)).Inc()
	if t.To == Verifying && t.Reason == ReasonRebooted {
		return // the kubelet writes an Event for each new boot ID, and the next one of ours follows soon
	}
	reason := "Reboot" + string(t.To)
	if t.To == Idle {
		reason = "RebootFinished"
	}
	a.event(event{node: n, warning: t.warns(), reason: reason, message: fmt.Sprintf("%s: %s", t.Reason, t.Message)})
}

// event is one Event that waits to be sent.
type event struct {
	node            Node
	warning         bool
	reason, message string
}

// event queues e. What people are told never holds up the cycle: when the API server takes none, it is dropped.
func (a *Agent) event(e event) {
	select {
	case a.events <- e:
	default:
		a.metrics.errors.WithLabelValues("queueing an Event").Inc()
	}
}

func (a *Agent) sendEvents(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-a.events:
			a.sendEvent(ctx, e)
		}
	}
}

func (a *Agent) sendEvent(ctx context.Context, e event) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := a.Node.Event(ctx, e.node, e.warning, e.reason, e.message); err != nil && ctx.Err() == nil {
		a.Log.Warn("an Event was not written", "reason", e.reason, "err", err)
		a.metrics.errors.WithLabelValues("writing an Event").Inc()
	}
}

// slot takes the reply of a write to a slot.
func (a *Agent) slot(name string) func(Slot, error) error {
	return func(s Slot, err error) error {
		if err != nil {
			return fmt.Errorf("writing slot %s: %w", name, err)
		}
		a.update(func(w *world) { w.answeredSlot(s) })
		return nil
	}
}

// askHost asks for a shutdown that is coming.
func (a *Agent) askHost(ctx context.Context) {
	coming, err := a.Host.Shutdown(ctx)
	a.update(func(w *world) { w.shutdown = Shutdown{At: time.Now(), Coming: coming, Err: err} })
}

// askGates asks the gates that have to be asked, in this order: people, the host, the pods. A host that is
// slow to fail with one question is not asked the others: each waits as long again, and there would be no time left for the pods.
func (a *Agent) askGates(ctx context.Context, o Observation) {
	var g Gates
	add := func(r Reason, advised bool, message string, err error) {
		switch {
		case err != nil:
			g.Closed = append(g.Closed, Closed{Reason: r, Message: "cannot be asked: " + err.Error(), Unknown: true, Advised: advised})
		case message != "":
			g.Closed = append(g.Closed, Closed{Reason: r, Message: message, Advised: advised})
		}
	}
	early := o.Record == nil || o.Record.Phase == Waiting || o.Record.Phase == Backoff
	_, offered := o.nominated()
	if last := o.Record != nil && o.Record.Phase == Rebooting; !offered && !last { // on what is offered the marshal lays the brake itself
		paused, err := a.Marshal.Paused(ctx, o.Group)
		add(ReasonAPI, false, "", err)
		add(ReasonPaused, true, paused, nil)
	}
	hung := false
	ask := func(r Reason, question func(context.Context) (string, error)) {
		if hung {
			return
		}
		began := time.Now()
		message, err := question(ctx)
		add(r, false, message, err)
		hung = err != nil && time.Since(began) > hostPatience
	}
	ask(ReasonInhibitor, joined(a.Host.Inhibitors))
	ask(ReasonOtherRebooter, joined(a.Host.OtherRebooters))
	if early {
		ask(ReasonOtherRebooter, a.Host.Shutdown)
		pods, err := a.Pods.Look(ctx, o.drain(), offered)
		add(ReasonAPI, false, "", err)
		add(Reason(pods.Reason), false, pods.Message, nil)
		g.Ready, g.Warnings, g.Preflight = pods.Ready, pods.Warnings, offered
	}
	if o.Settings == nil {
		g.Closed = append(g.Closed, Closed{Reason: ReasonConfig, Message: "there is no valid configuration", Unknown: true})
	}
	g.At = time.Now()
	g.Until = g.At.Add(a.gateDelay(o, g))
	a.update(func(w *world) { w.gates = g })
	o.Gates = g
	a.metrics.gates(o.closed())
}

// hostPatience is how slowly a question to the host may fail before the others are left out.
const hostPatience = time.Second

func joined(question func(context.Context) ([]string, error)) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		all, err := question(ctx)
		return strings.Join(all, ", "), err
	}
}

// unknownLast is the longest time after which a gate that could not be asked is asked again.
const unknownLast = time.Minute

// gateDelay is the jittered time to the next asking: soon after a gate that could not be asked, and later each time that it still
// cannot, as all the others are asked with it.
func (a *Agent) gateDelay(o Observation, g Gates) time.Duration {
	unknown := func(c Closed) bool { return c.Unknown }
	d := lastCheckAge
	switch before := o.Gates; {
	case o.Settings != nil && !slices.ContainsFunc(g.Closed, unknown):
		d = o.Settings.GateInterval
	case slices.ContainsFunc(before.Closed, unknown):
		d = min(max(d, 2*before.Until.Sub(before.At)), unknownLast)
	}
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64())) //nolint:gosec // jitter is no secret.
}

// What the two jobs do, for the log.
const (
	evicting     = "draining"
	awaitingPods = "watching the node's own pods"
)

// startDrain evicts in the background; the views that it reports wake the loop.
func (a *Agent) startDrain(ctx context.Context, s DrainSettings) {
	a.update(func(w *world) { w.drain = DrainView{Running: true, Evicted: w.evicted, Message: w.drain.Message} })
	a.drain.start(ctx, func(ctx context.Context) {
		err := a.Pods.Drain(ctx, s, func(v DrainView) {
			v.Running = true
			v.Empty = false // said by the end of Drain, not by a view of it
			a.drain.delay = retryFirst
			a.change(func(w *world) {
				v.Evicted += w.evicted
				w.drain = v
			})
		})
		trouble := err
		if errors.Is(err, context.DeadlineExceeded) {
			trouble = nil // its time is over, which is for the cycle to say
		}
		a.jobEnded(ctx, &a.drain, evicting, trouble)
		a.change(func(w *world) {
			w.drain.Running, w.drain.Empty, w.emptied, w.evicted = false, err == nil && ctx.Err() == nil, time.Now(), w.drain.Evicted
			if trouble != nil {
				w.drain.Message = bounded(trouble.Error())
			}
		})
	})
}

// awaitPods watches for the pods that were Ready before.
func (a *Agent) awaitPods(ctx context.Context, want []string) {
	a.update(func(w *world) { w.pods = PodsReady{Running: true} })
	a.pods.start(ctx, func(ctx context.Context) {
		err := a.Pods.AwaitReady(ctx, want, func(missing []string) {
			a.pods.delay = retryFirst
			a.change(func(w *world) { w.pods = PodsReady{Running: true, Known: true, Missing: missing} })
		})
		if err == nil {
			err = errors.New("it ended")
		}
		a.jobEnded(ctx, &a.pods, awaitingPods, err)
		a.change(func(w *world) { w.pods.Running = false })
	})
}

// jobEnded waits before a job that failed may be started again, longer each time.
func (a *Agent) jobEnded(ctx context.Context, j *job, doing string, err error) {
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		a.update(func(w *world) { delete(w.trouble, doing) })
		return
	}
	a.failed(doing, err)
	a.pause(ctx, j.delay)
	j.delay = min(2*j.delay, retryLast)
}

// show publishes what is known for /readyz and as metrics.
func (a *Agent) show(o Observation, d Decision) {
	phase := Idle
	if o.Record != nil {
		phase = o.Record.Phase
	}
	a.update(func(w *world) { w.why = d.Why })
	a.metrics.phase(phase)
	wanted := o.wish().Source != ""
	a.metrics.wanted(wanted)
	if phase == Idle && !wanted && o.RecordErr == nil { // nobody asks any more
		a.metrics.gates(nil)
	}
	a.metrics.last(o.History)
	if o.RecordErr == nil {
		a.unreadable = ""
	} else if a.unreadable != o.Node.Record {
		a.unreadable = o.Node.Record
		a.Log.Error("the record cannot be read: nothing is touched", "reason", ReasonRecord, "err", o.RecordErr)
		a.metrics.gates([]Closed{{Reason: ReasonRecord}})
		a.event(event{node: o.Node, warning: true, reason: "RebootRecordUnreadable", message: bounded(o.RecordErr.Error())})
	}
}
