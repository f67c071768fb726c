package e2e

import (
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kubebaton.io/baton/lab/audit"
	"kubebaton.io/baton/lab/observe"
)

// The nodes. Who is first has nothing to do with their names.
const n1, n2, n3, n4 = "n1", "n2", "n3", "n4"

// canarySoak is the shortest there may be.
const canarySoak = time.Minute

// scenarios are all there are, in the order they run: those with the same settings stand together.
func scenarios() []scenario { return slices.Concat(cycles(), groups(), drains()) }

// cycles are what may happen on the way of a node.
func cycles() []scenario {
	usual := settings{}
	return []scenario{
		{"all nodes reboot, one after another", true, usual, rollout(1)},
		{"the control plane goes last, also when it is one node", false, usual, controlPlaneLast},
		{"a node that is not Ready keeps the others from their turn, and is named", false, usual, budgetNames},

		{"an agent killed in Draining goes on where it was", false, usual, killedInDraining},
		{"an agent killed in Rebooting reboots its node once", false, usual, killedInRebooting},
		{"an agent killed while its host goes down asks no second time", true, usual, killedWhileGoingDown},
		{"a second agent on a node stands by", false, usual, secondAgent},

		{"a cordon from before stays through a reboot", true, usual, cordonKept},
		{"an uncordon in Draining is a veto", false, usual, uncordonIsAVeto},
		{"a record spoiled in Draining stops everything, and is rebuilt from the slot", false, usual, unreadableInDraining},
		{"a record spoiled in Rebooting stops everything, and is rebuilt from the slot", false, usual, unreadableInRebooting},
		{"a held slot survives its deletion", false, usual, slotDeleted},
		{"the slot of a deleted node is freed", false, usual, nodeDeleted},
		{"hooks of the host run once each, and one that fails is named", false, usual, hooksRun},
		{"a hook that takes too long is stopped and named, and its node goes without it", false, settings{hooksTimeout: hookPatience}, hookTakesTooLong},
		{"a node registered anew in Rebooting keeps its slot until its host is asked", false, usual, registeredAnew},
		{"the policy refuses the token of one node on another", true, usual, tokenOfAnother},

		{"an inhibitor keeps a node waiting and is named", false, usual, inhibitorBefore},
		{"an inhibitor that appears in Draining gives the slot back", false, usual, inhibitorInDraining},
		{"a reboot that the host refuses is given up", false, usual, hostRefuses},
		{"a sentinel that survives the reboot brings no second one", false, usual, sentinelSurvives},
		{"a reboot by hand in Waiting is noticed", false, usual, rebootInWaiting},
		{"a reboot by hand in Draining ends the cycle", false, usual, rebootInDraining},

		{"a node that starts without its pod network comes home when it has it", false, usual, startsWithoutNetwork},
		{"an agent that starts without the API server brings its node home when it is there", false, usual, startsWithoutAPI},
		{"a node that starts without a bus comes home, and waits for it with its next wish", false, usual, startsWithoutBus},
		{"a node that starts without a valid configuration comes home, and waits for one with its next wish", false, usual, startsWithoutConfiguration},
		{"a node that comes back with a clock hours off comes home, and waits for it with its next wish", false, usual, clockOff},

		{"half a minute without a control plane costs half a minute", false, usual, controlPlaneAway},
		{"the Lease of the marshal may be deleted", false, usual, marshalLeaseDeleted},
		{"an API server restored from a backup does not forget who is down", false, usual, etcdRestored},
	}
}

// groups are about settings, and about who goes when.
func groups() []scenario {
	two, halting := settings{maxUnavailable: 2}, settings{maxUnavailable: 2, verifyTimeout: 10 * time.Second}
	zoned := settings{maxUnavailable: 2, workers: "topologyKey: topology.kubernetes.io/zone"}
	canaried := settings{maxUnavailable: 3, workers: "canary: {nodes: 1, soak: " + canarySoak.String() + "}"}
	failing := settings{drainTimeout: 8 * time.Second}
	return []scenario{
		{"an agent killed in Verifying brings its node home", false, settings{soak: 4 * time.Second}, killedInVerifying},
		{"all nodes reboot, two at a time", false, two, rollout(2)},
		{"a limit that changes in mid-rollout is kept, and no held slot is lost", false, two, limitChanges},
		{"the namespace may be deleted in mid-cycle, and Baton installed anew", false, two, namespaceDeleted},
		{"two nodes of one zone go together, nodes of two zones never", true, zoned, zones},
		{"a canary goes first, and the others when it has been well for a while", false, canaried, canary},
		{"a failed node halts its group until it is healthy", true, halting, haltedUntilHealthy},
		{"a failed node halts its group until people accept it as it is", false, halting, haltedUntilAcknowledged},
		{"a failed node halts its group until it is deleted", false, halting, haltedUntilDeleted},
		{"a node that does not come back halts its group", false, settings{maxUnavailable: 2, rebootTimeout: time.Minute}, haltedWhileAway},
		{"a budget that allows nothing lets the next node go", true, failing, budgetBlocks},
		{"a cordon from before stays through a failed drain", false, failing, cordonKeptInBackoff},
	}
}

// drains are about what becomes of pods.
func drains() []scenario {
	usual := settings{}
	return []scenario{
		{"a pod without a controller keeps its node waiting, and no other", false, usual, greenBlocks},
		{"a StatefulSet's pod with a local volume comes back with its node", false, usual, localVolume},
		{"two pods under one budget go one after the other", false, usual, pairUnderOneBudget},
		{"each pod goes the way that the plan had told", false, settings{drain: planned}, asPlanned},
		{"under wait the end of a pod without a controller is awaited", false, settings{drain: "unmanagedPods: wait"}, greenIsAwaited},
		{"under ride-through it comes back with its node, the same", false, settings{drain: "unmanagedPods: ride-through"}, greenRidesThrough},
		{"under delete it is gone", false, settings{drain: "unmanagedPods: delete"}, greenIsDeleted},
		{"a pod that a finalizer keeps is named with it", false, settings{drainTimeout: 45 * time.Second, drain: "gracePeriod: 1s"}, finalizerHolds},
		{
			"load balancers leave a node before its pods do", false,
			settings{drain: "loadBalancers: {exclude: true, wait: " + balancersTime.String() + "}"},
			balancersLeave,
		},
		{
			"a quick reboot leaves pods where they are, and a node that was slow is drained", false,
			settings{drain: "mode: auto, unmanagedPods: ride-through"},
			quickReboots,
		},
	}
}

// rollout: every node wants a reboot, and gets one.
func rollout(atOnce int) func(*play) {
	return func(p *play) {
		p.raise(p.nodes...)
		p.home(p.nodes...)
		log := p.obs.Log().After(p.began)
		if n, names, _ := log.MaxDown(); n != atOnce {
			p.failf("%d nodes were down at most, %v; want %d", n, names, atOnce)
		}
		for _, d := range log.Downs() {
			p.note("%s was down for %.1f s", d.Node, d.Until.Sub(d.From).Seconds())
		}
		evictions, err := audit.Evictions(p.c.AuditLog(), p.began, time.Time{})
		p.must(err)
		for _, e := range evictions {
			if e.Code < 300 {
				return
			}
		}
		p.must(errors.New("no pod was evicted"))
	}
}

// kill kills the node's agent, and proves that it was in that phase when it died.
func (p *play) kill(m moment) {
	p.must(p.logs.Keep())
	p.must(p.c.Signal(m.Node.Name, agentProgram, unix.SIGKILL))
	after := time.Since(m.Time)
	n, err := p.client.CoreV1().Nodes().Get(p.ctx, m.Node.Name, metav1.GetOptions{})
	p.must(err)
	if n.Labels[phaseKey] != m.Node.Phase {
		p.failf("the agent of %s was killed too late: the phase was %q by then", n.Name, n.Labels[phaseKey])
	}
	p.note("killed %.1f ms after the watch showed %s", float64(after.Microseconds())/1000, m.Node.Phase)
}

func killedInDraining(p *play) {
	p.pin("slow", n1, 5*time.Second)
	draining := p.bring(n1, observe.Draining)
	p.kill(draining)
	p.sameCycle(draining, p.then(draining, in(n1, observe.Rebooting)))
	p.home(n1)
}

func killedInRebooting(p *play) {
	rebooting := p.bring(n2, observe.Rebooting)
	p.kill(rebooting)
	p.sameCycle(rebooting, p.then(rebooting, in(n2, observe.Verifying)))
	p.home(n2)
}

func killedInVerifying(p *play) {
	p.kill(p.bring(n3, observe.Verifying))
	p.home(n3)
}

func cordonKept(p *play) {
	p.cordon(n4)
	if r := p.bring(n4, observe.Draining).record; r.Cordon != "foreign" {
		p.failf("the record says that the cordon is %q, want foreign", r.Cordon)
	}
	p.home(n4)
}

func cordonKeptInBackoff(p *play) {
	p.stuck(n4)
	p.cordon(n4)
	backoff := p.bring(n4, observe.Backoff)
	p.because(backoff, "pdb")
	p.must(p.dropSentinel(n4))
	if idle := p.then(backoff, in(n4, observe.Idle)); !idle.Node.Unschedulable {
		p.must(errors.New("the cordon from before was lost"))
	}
}

// budgetBlocks: n1 is first and cannot be drained, n2 waits for the same slot.
func budgetBlocks(p *play) {
	pod, release := p.stuck(n1)
	draining := p.bring(n1, observe.Draining)
	p.raise(n2)
	backoff := p.then(draining, in(n1, observe.Backoff))
	p.because(backoff, "pdb", pod.Name, "disruption budget "+space+"/stuck needs")
	p.schedulable(backoff)
	free := p.then(backoff, freed(draining))
	next := p.then(free, in(n2, observe.Draining))
	p.note("gave up after %.1f s, slot freed after %.0f ms more, the next node cordoned after %.0f ms more", backoff.Time.Sub(draining.Time).Seconds(),
		free.Time.Sub(backoff.Time).Seconds()*1000, next.Time.Sub(free.Time).Seconds()*1000)
	p.home(n2)
	now, err := p.client.CoreV1().Pods(space).Get(p.ctx, pod.Name, metav1.GetOptions{})
	p.must(err)
	if now.UID != pod.UID || now.DeletionTimestamp != nil {
		p.must(errors.New("the pod that the budget protects was evicted"))
	}
	release()
	p.home(n1)
}
