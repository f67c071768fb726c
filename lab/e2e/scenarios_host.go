package e2e

import (
	"time"

	"kubebaton.io/baton/lab/observe"
)

func inhibitorBefore(p *play) {
	stop := p.inhibit(n1)
	p.raise(n1)
	waiting := p.then(moment{}, waits(n1, "inhibitor"))
	p.because(waiting, "inhibitor", inhibitorWho, inhibitorWhy)
	p.never(moment{}, 13*time.Second, goes(n1)) // longer than a gateInterval: the gate is asked again meanwhile
	stop()
	p.home(n1)
}

func inhibitorInDraining(p *play) {
	draining, release := p.draining(n2)
	stop := p.inhibit(n2)
	undone := p.then(draining, waits(n2, "inhibitor"))
	p.because(undone, "inhibitor", inhibitorWho)
	p.schedulable(undone)
	if undone.record.Attempt != draining.record.Attempt {
		p.failf("the attempt was counted: it was %d, it is %d", draining.record.Attempt, undone.record.Attempt)
	}
	p.then(undone, freed(draining))
	p.stay()
	release()
	stop()
	p.home(n2)
}

// hostRefuses: every gate is open, and the reboot is refused all the same. It is the bus that refuses: the logind of systemd
// 252 never refuses root a reboot for a lock that root holds, whatever the flags say.
func hostRefuses(p *play) {
	allow := p.denyReboots(n3)
	rebooting := p.bring(n3, observe.Rebooting)
	refused := p.then(rebooting, is{n3 + " gives up", func(e observe.Event) bool {
		return e.Node != nil && e.Node.Name == n3 && e.Node.Phase != observe.Rebooting
	}})
	if refused.Node.Phase != observe.Backoff {
		p.failf("the refused reboot led to %s, want Backoff", refused.Node.Phase)
	}
	p.because(refused, "refused", "AccessDenied")
	p.schedulable(refused)
	p.then(refused, freed(rebooting))
	p.stay()
	allow()
	p.home(n3)
}

// sentinelSurvives: the update asks for a reboot again after every boot. n3 wants one too, so that there is somebody who
// orders, and a slot to be given to the wrong one.
func sentinelSurvives(p *play) {
	p.atBoot(n2, `echo linux-image-amd64 >/run/reboot-required.pkgs; echo "*** System restart required ***" >/run/reboot-required`)
	p.must(p.c.RaiseSentinel(n2, "linux-image-amd64"))
	verifying := p.phase(n2, observe.Verifying)
	survived := p.then(verifying, waits(n2, "sentinel-survived"))
	p.schedulable(survived)
	p.then(survived, freed(verifying))
	p.raise(n3)
	p.never(survived, 15*time.Second, goes(n2)) // longer than a gateInterval and a backoff
	p.must(p.dropSentinel(n2))
	p.home(n2, n3)
}

func rebootInWaiting(p *play) {
	p.must(p.annotate(p.ctx, n4, holdKey, "e2e"))
	p.raise(n4)
	waiting := p.then(moment{}, waits(n4, "hold"))
	p.reboot(n4)
	p.then(waiting, is{n4 + " notices the reboot", func(e observe.Event) bool {
		if !observe.InPhase(n4, observe.Waiting)(e) {
			return false
		}
		r, err := recordOf(e)
		return err == nil && r.BootID != waiting.record.BootID
	}})
	p.home(n4) // the boot emptied /run: nothing wants a reboot any more
	p.not(moment{}, goes(n4))
}

func rebootInDraining(p *play) {
	draining, _ := p.draining(n1)
	p.reboot(n1)
	p.because(p.then(draining, in(n1, observe.Verifying)), "other-reboot")
	p.home(n1)
}
