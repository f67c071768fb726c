package e2e

import (
	"context"
	"time"

	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/gateway"
	"kubebaton.io/baton/lab/observe"
)

// startsWithoutNetwork: the pod network's configuration is gone after the boot, and its installer cannot put it there: no pod
// of n1 has a network, that of the agent neither.
func startsWithoutNetwork(p *play) {
	mend := p.mendingNetwork(n1)
	p.atBoot(n1, "mv "+networkConf+" "+networkOff+"; mkdir "+networkConf)
	rebooting := p.bring(n1, observe.Rebooting)
	p.raise(n2)
	back := p.then(rebooting, rebooted(rebooting))
	p.never(back, 5*time.Second, lost(rebooting))
	p.not(rebooting, goes(n2))
	mend()
	p.homeAfter(time.Now(), n1)
	p.home(n2)
}

// startsWithoutAPI: the kubelet of n1 reaches the API server after the boot, and no pod does.
func startsWithoutAPI(p *play) {
	const table = "table ip e2e"
	p.atBoot(n1, "nft add "+table+`; nft add chain ip e2e cut "{ type filter hook forward priority -300; }"; nft add rule ip e2e cut ip saddr `+cluster.Gateway+" drop")
	rebooting := p.bring(n1, observe.Rebooting)
	p.raise(n2)
	back := p.then(rebooting, rebooted(rebooting))
	p.until("the agent to say what it waits for", func() (bool, error) { return p.logged(n1, "waits and tries again") > 0, nil })
	p.never(back, 5*time.Second, lost(rebooting))
	p.not(rebooting, goes(n2))
	p.exec(n1, "nft", "delete", "table", "ip", "e2e")
	p.homeAfter(time.Now(), n1)
	p.home(n2)
}

// startsWithoutBus: the way home needs no bus. The next wish does.
func startsWithoutBus(p *play) {
	p.atBoot(n1, "mv "+busSocket+" "+busOff)
	mend := p.mendingBus(n1)
	p.bring(n1, observe.Rebooting)
	back := p.home(n1)
	p.raise(n1)
	waiting := p.then(back, waits(n1, "inhibitor"))
	p.because(waiting, "inhibitor", "cannot be asked")
	p.never(waiting, 3*time.Second, goes(n1))
	mend()
	p.home(n1)
}

// startsWithoutConfiguration: while n1 is away somebody breaks the configuration. The cycle ends by what its record has kept.
func startsWithoutConfiguration(p *play) {
	p.bring(n1, observe.Rebooting)
	p.later(func(ctx context.Context) error { return p.put(ctx, p.inForce) })
	p.must(p.put(p.ctx, "maxUnavailable: none of your business\n"))
	back := p.home(n1)
	p.told(n1, "ConfigurationRefused")
	p.raise(n1)
	p.never(back, 3*time.Second, in(n1, observe.Waiting))
	p.must(p.put(p.ctx, p.inForce))
	p.must(p.touch(p.ctx, p.agentOf(n1).Name))
	p.home(n1)
}

// homeAfter is home, with the time that it took.
func (p *play) homeAfter(mended time.Time, node string) {
	p.home(node)
	p.note("%s was home %.1f s after that was mended", node, time.Since(mended).Seconds())
}

// clockOff: n1 comes back with a clock that is three hours behind the API server's, and another time with one that is ahead. All
// nodes of the lab have one clock, so it is the API server's that is shown to its pods otherwise.
func clockOff(p *play) {
	way, err := gateway.Open(p.ctx, p.ctx, p.c, n1)
	p.must(err)
	p.later(way.Leave)
	from := moment{}
	for _, by := range []time.Duration{3 * time.Hour, -3 * time.Hour} {
		p.slowStop(n1, 3*time.Second)
		p.raise(n1)
		p.then(from, in(n1, observe.Rebooting))
		p.goingDown(n1) // before that the gate would hold it
		way.Shift(by)
		back := p.home(n1)
		p.raise(n1)
		waiting := p.then(back, waits(n1, "clock"))
		p.never(waiting, 3*time.Second, goes(n1))
		way.Shift(0)
		from = p.home(n1)
	}
}
