package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/observe"
)

// zones: n1 and n3 are in one zone, n2 and n4 in another, and two nodes may be down at once.
func zones(p *play) {
	zone := map[string]string{n1: "a", n2: "b", n3: "a", n4: "b"}
	for node, z := range zone {
		p.label(node, corev1.LabelTopologyZone, z)
	}
	p.raise(p.nodes...)
	p.home(p.nodes...)
	together := 0
	downs := p.obs.Log().After(p.began).Downs()
	for i, a := range downs {
		for _, b := range downs[:i] {
			switch {
			case b.Until.Before(a.From):
			case zone[a.Node] != zone[b.Node]:
				p.failf("%s and %s of two zones were down together", b.Node, a.Node)
			default:
				together++
			}
		}
	}
	if together == 0 {
		p.must(errors.New("no two nodes of a zone were down together"))
	}
}

// canary: three nodes may be down at once, and one goes first.
func canary(p *play) {
	p.raise(p.nodes...)
	p.home(p.nodes...)
	downs := p.obs.Log().After(p.began).Downs()
	first, second := downs[0], downs[1]
	after := second.From.Sub(first.Until)
	p.note("%s went first; the others followed %.1f s after it was back", first.Node, after.Seconds())
	if after < canarySoak || after > canarySoak+15*time.Second {
		p.failf("the others went %s after the canary was back, want %s or a little more", after, canarySoak)
	}
	if n, names, _ := p.obs.Log().After(second.From).MaxDown(); n != 3 {
		p.failf("%d of the others were down at most, %v; want 3", n, names)
	}
}

// lostDevice: n1 comes back from its reboot without a device that it had, and n2 waits, though a second slot is free.
func lostDevice(p *play) moment {
	p.device(n1, "1")
	rebooting := p.bring(n1, observe.Rebooting)
	p.device(n1, nil)
	failed := p.then(rebooting, in(n1, observe.Failed))
	p.because(failed, "not-ready", device)
	p.raise(n2)
	p.says("halted", n1)
	p.never(failed, 3*time.Second, goes(n2))
	p.not(failed, lost(failed))
	return failed
}

func haltedUntilHealthy(p *play) {
	lostDevice(p)
	p.device(n1, "1")
	p.home(n1, n2)
}

func haltedUntilAcknowledged(p *play) {
	lostDevice(p)
	p.must(p.annotate(p.ctx, n1, acknowledgeKey, "it is to be replaced next week"))
	p.home(n1, n2)
}

// haltedUntilDeleted: n2 goes at once, to the second slot. That of n1 is freed while somebody waits: n3 does.
func haltedUntilDeleted(p *play) {
	failed := lostDevice(p)
	p.power[n1]++
	p.must(p.client.CoreV1().Nodes().Delete(p.ctx, n1, metav1.DeleteOptions{}))
	p.home(n2)
	p.must(p.annotate(p.ctx, n3, holdKey, "e2e"))
	p.raise(n3)
	p.then(failed, freed(failed))
	p.must(p.annotate(p.ctx, n3, holdKey, nil))
	p.home(n3)
}

// haltedWhileAway: n3 does not come back, for longer than rebootTimeout. n2 is on hold until then, or it would go.
func haltedWhileAway(p *play) {
	p.must(p.annotate(p.ctx, n2, holdKey, "e2e"))
	p.slowStop(n3, time.Minute)
	rebooting := p.bring(n3, observe.Rebooting)
	p.goingDown(n3)
	p.must(p.c.Power(p.ctx, n3, cluster.Off))
	p.raise(n2)
	p.until("the brake on the slot", func() (bool, error) {
		slot, err := p.client.CoordinationV1().Leases(batonSpace).Get(p.ctx, rebooting.record.Slot, metav1.GetOptions{})
		return err == nil && strings.Contains(slot.Annotations[holdKey], n3), err
	})
	p.must(p.annotate(p.ctx, n2, holdKey, nil))
	p.says("halted", n3)
	p.never(rebooting, 5*time.Second, goes(n2))
	p.not(rebooting, lost(rebooting))
	p.must(p.c.Power(p.ctx, n3, cluster.On))
	p.home(n3, n2)
}

// budgetNames: n4 is not Ready, for a reason of its own.
func budgetNames(p *play) {
	mend := p.cutNetwork(n4)
	sick := p.then(moment{}, ready(n4, false))
	p.raise(n1)
	p.says("budget", n4)
	p.never(sick, 3*time.Second, goes(n1))
	mend()
	well := p.then(sick, ready(n4, true))
	p.note("n1 cordoned %.1f s after n4 was Ready again", p.then(well, in(n1, observe.Draining)).Time.Sub(well.Time).Seconds())
	p.home(n1)
}

// controlPlaneLast: n1 is the only node of the control plane, and asks while a worker is down.
func controlPlaneLast(p *play) {
	p.label(n1, "node-role.kubernetes.io/control-plane", "")
	p.bring(n2, observe.Draining)
	p.bring(n1, observe.Waiting)
	p.raise(n3)
	p.home(n1, n2, n3)
	downs := p.obs.Log().After(p.began).Downs()
	if last := downs[len(downs)-1]; last.Node != n1 {
		p.failf("%s went after the control plane", last.Node)
	}
}

// limitChanges: maxUnavailable goes from 2 to 1 and back while nodes are down.
func limitChanges(p *play) {
	for _, n := range p.nodes {
		p.pin("slow-"+n, n, 5*time.Second)
	}
	p.raise(p.nodes...)
	first := p.then(moment{}, down())
	second := p.then(first, down(first))
	p.must(p.configure(p.ctx, settings{maxUnavailable: 1}))
	from := time.Now()
	third := p.then(second, down(first, second))
	to := time.Now()
	p.must(p.configure(p.ctx, settings{maxUnavailable: 2}))
	p.home(p.nodes...)
	for _, v := range p.obs.Log().After(p.began).ViolationsUnder(func(at time.Time) int {
		if at.After(from) && at.Before(to) {
			return 1
		}
		return 2
	}) {
		p.must(errors.New(v))
	}
	p.note("the third node went %.1f s after the second, at most one at a time", third.Time.Sub(second.Time).Seconds())
}

// down is a node that is taken down, besides those that were.
func down(before ...moment) is {
	return is{"one more node is down", func(e observe.Event) bool {
		known := func(m moment) bool { return m.Node.Name == e.Node.Name }
		return e.Node != nil && e.Node.Phase == observe.Draining && !slices.ContainsFunc(before, known)
	}}
}

// ready is a node that is Ready, or is not.
func ready(node string, yes bool) is {
	what := node + " is Ready"
	if !yes {
		what = node + " is not Ready"
	}
	return is{what, func(e observe.Event) bool {
		return e.Node != nil && e.Node.Name == node && e.Node.Exists && e.Node.Ready == yes
	}}
}

// label puts a label on a Node until the scenario is over.
func (p *play) label(node, key, value string) {
	set := func(ctx context.Context, value any) error {
		return p.patchNode(ctx, p.client, node, map[string]any{"metadata": map[string]any{"labels": map[string]any{key: value}}})
	}
	p.later(func(ctx context.Context) error { return set(ctx, nil) })
	p.must(set(p.ctx, value))
}

// device is an extended resource.
const device = "e2e.kubebaton.io/device"

// device makes a Node show that it has a device, or nil, as the plugin of such a device would; until the scenario is over.
func (p *play) device(node string, amount any) {
	set := func(ctx context.Context, amount any) error {
		text, err := json.Marshal(map[string]any{"status": map[string]any{"capacity": map[string]any{device: amount}, "allocatable": map[string]any{device: amount}}})
		if err != nil {
			return err
		}
		_, err = p.client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, text, metav1.PatchOptions{}, "status")
		return forgiven(err)
	}
	p.later(func(ctx context.Context) error { return set(ctx, nil) })
	p.must(set(p.ctx, amount))
}

// says waits until the marshal says that nodes wait for this reason, with these words.
func (p *play) says(reason string, words ...string) {
	p.until("the marshal to say "+reason, func() (bool, error) {
		lease, err := p.client.CoordinationV1().Leases(batonSpace).Get(p.ctx, "marshal", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		for key, text := range lease.Annotations {
			if !strings.HasPrefix(key, waitingKey) || !strings.Contains(text, " for "+reason) {
				continue
			}
			if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) }) {
				return true, nil
			}
		}
		return false, fmt.Errorf("it says %v", lease.Annotations)
	})
}
