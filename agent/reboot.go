package agent

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// reboot is the last check and, when that passes, the call.
func (a *Agent) reboot(ctx context.Context, e Reboot) error {
	o, passed, err := a.lastCheck(ctx, e)
	if err != nil {
		return fmt.Errorf("last check: %w", err)
	}
	if passed {
		a.call(ctx, o)
	}
	return nil
}

// nodeAge is how old what was read of the Node may be when the last check begins: it has to have ended within lastCheckAge.
const nodeAge = lastCheckAge / 2

// readNode reads the Node by quorum, unless it was read just now and no watch has contradicted since, and returns when it was
// asked for. The write by which the cycle comes to its last check has read it.
func (a *Agent) readNode(ctx context.Context) (time.Time, error) {
	a.mu.Lock()
	read, sure := a.world.read, a.world.sure()
	a.mu.Unlock()
	if sure && time.Since(read) < nodeAge {
		return read, nil
	}
	read = time.Now()
	n, err := a.Node.Get(ctx)
	if err != nil {
		return read, err
	}
	a.update(func(w *world) {
		if w.answeredNode(n) {
			w.read = read
		}
	})
	return read, nil
}

// lastCheck reads everything again that the decision rests on, the Node first, the slot last, and decides again on it: only the
// same decision, young enough, leads to the call.
func (a *Agent) lastCheck(ctx context.Context, e Reboot) (o Observation, passed bool, err error) {
	began, err := a.readNode(ctx)
	if err != nil {
		return o, false, fmt.Errorf("reading the Node: %w", err)
	}
	boot, err := a.Host.BootID()
	if err != nil {
		return o, false, fmt.Errorf("reading the boot ID: %w", err)
	}
	a.update(func(w *world) { w.boot = boot })
	a.askGates(ctx, a.observe())
	a.askHost(ctx)
	s, paused, err := a.Slots.Check(ctx, e.Slot)
	if err != nil {
		return o, false, fmt.Errorf("reading slot %s and the brake: %w", e.Slot, err)
	}
	contradicted := false
	a.update(func(w *world) {
		w.answeredSlot(s)
		contradicted = w.stale
		if paused != "" {
			w.gates.Closed = append(w.gates.Closed, Closed{Reason: ReasonPaused, Message: paused, Advised: true})
		}
	})
	o = a.observe()
	again, same := Step(o).Do.(Reboot)
	if !same || again != e || contradicted || time.Since(began) >= lastCheckAge { // later, and Step would want gates asked that were asked too long ago
		a.Log.Debug("the last check did not pass: decides again", "took", time.Since(began))
		return o, false, nil
	}
	return o, true, nil
}

// call asks the host to reboot, and keeps what it answers.
func (a *Agent) call(ctx context.Context, o Observation) {
	call := Call{At: time.Now(), Cycle: o.Record.Cycle, Attempt: o.Record.Attempt}
	a.update(func(w *world) { w.call = call })
	a.Log.Info("asks the host to reboot", "slot", o.Record.Slot, "boot", o.Boot, "cycle", o.Record.Cycle, "attempt", o.Record.Attempt)
	err := a.Host.Reboot(ctx)
	a.update(func(w *world) { w.shutdown = Shutdown{} }) // what it said before the call proves nothing any more
	switch {
	case err == nil:
		a.Log.Info("the host accepted the reboot")
		return
	case errors.Is(err, ErrInProgress), errors.Is(err, ErrUnknown):
		a.Log.Warn("the host may be going down", "err", err)
		return
	case errors.Is(err, ErrInhibited):
		call.Refused = ReasonInhibitor
	default:
		call.Refused = ReasonRefused
	}
	call.Message = bounded(err.Error())
	a.update(func(w *world) { w.call = call })
	a.Log.Warn("the host refused the reboot", "err", err)
}
