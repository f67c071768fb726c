package e2e

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/observe"
)

// marshalLeaseDeleted: for the agents that is an API server that has gone back in time.
func marshalLeaseDeleted(p *play) {
	draining, release := p.draining(n1)
	p.bring(n2, observe.Waiting)
	p.must(p.client.CoordinationV1().Leases(batonSpace).Delete(p.ctx, "marshal", metav1.DeleteOptions{}))
	deleted := time.Now()
	release()
	p.home(n1)
	next := p.then(draining, in(n2, observe.Draining))
	p.note("the next node was cordoned %.0f s after the Lease was deleted", next.Time.Sub(deleted).Seconds())
	p.home(n2)
}

// controlPlaneAway: with n1 everything that runs on the only control-plane node is away, for half a minute.
func controlPlaneAway(p *play) {
	p.pin("slow", n1, 3*time.Second)
	draining := p.bring(n1, observe.Draining)
	p.bring(n2, observe.Waiting)
	p.wentDown(n1, nil)
	for _, u := range []cluster.Unit{cluster.APIServer, cluster.Etcd} {
		p.must(p.c.Kill(p.ctx, u))
	}
	p.pause(30 * time.Second)
	for _, u := range []cluster.Unit{cluster.Etcd, cluster.APIServer} {
		p.must(p.c.Run(u))
	}
	started := time.Now()
	p.must(p.c.WaitAPI(p.ctx))
	ready := time.Since(started)
	home := p.then(draining, in(n1, observe.Idle))
	next := p.then(draining, in(n2, observe.Draining))
	p.note("started again, the control plane was ready after %.1f s, %s at home after %.1f s, the next node cordoned after %.1f s",
		ready.Seconds(), n1, home.Time.Sub(started).Seconds(), next.Time.Sub(started).Seconds())
	p.home(n1, n2)
}

// backupAge is how old the backup is at least: a process that knows nothing of before tells who is down by kubelets that are silent for
// 15 s, and so long does no restore take in earnest.
const backupAge = 20 * time.Second

// etcdRestored: the cluster is set back to a time at which nobody held a slot, while n1 is down. n2 would be next, and its agent
// has never had to do with a marshal.
func etcdRestored(p *play) {
	began := time.Now()
	saved, err := p.c.Backup(p.ctx)
	p.must(err)
	p.slowStop(n1, time.Minute)
	p.bring(n1, observe.Rebooting)
	p.goingDown(n1)
	p.must(p.c.Power(p.ctx, n1, cluster.Off))
	for i := range 200 { // a backup is older than what a start writes
		p.must(p.annotate(p.ctx, n2, "e2e.kubebaton.io/version", fmt.Sprint(i)))
	}
	p.pause(time.Until(began.Add(backupAge)))
	p.must(p.c.Restore(p.ctx, saved))
	p.must(p.observeAnew(p.ctx))
	restored := time.Now()
	p.must(p.c.Signal(n2, agentProgram, unix.SIGKILL)) // the next one knows nothing of before the restore
	p.raise(n2)
	p.says("restored")
	p.says("budget", n1)
	p.note("%s is known to be away %.0f s after the restore", n1, time.Since(restored).Seconds())
	p.not(moment{}, goes(n2))
	p.must(p.c.Power(p.ctx, n1, cluster.On))
	p.power[n1]++
	p.home(n2)
}

// namespaceDeleted: somebody removes Baton while n1 reboots, n3 drains and n2 waits, and installs it anew.
func namespaceDeleted(p *play) {
	draining, release := p.draining(n3)
	p.slowStop(n1, 5*time.Second)
	rebooting := p.bring(n1, observe.Rebooting)
	waiting := p.bring(n2, observe.Waiting)
	p.until("the taint on "+n2, func() (bool, error) { left, err := p.marks(n2); return slices.Contains(left, pendingTaint), err })
	p.goingDown(n1)
	spaces, leases := p.client.CoreV1().Namespaces(), p.client.CoordinationV1().Leases(batonSpace)
	p.must(spaces.Delete(p.ctx, batonSpace, metav1.DeleteOptions{}))
	p.schedulable(p.then(draining, in(n3, observe.Idle)))
	p.then(draining, freed(draining))
	p.then(waiting, in(n2, observe.Idle))
	for _, node := range []string{n2, n3} {
		if left, err := p.marks(node); err != nil || len(left) > 0 {
			p.failf("Baton is gone and has left %q on %s: %w", left, node, err)
		}
	}
	back := p.then(rebooting, rebooted(rebooting))
	p.never(p.then(back, ready(n1, true)), 5*time.Second, lost(rebooting)) // nobody is there to bring it home
	if _, err := spaces.Get(p.ctx, batonSpace, metav1.GetOptions{}); err != nil {
		p.failf("the held slot did not keep the namespace: %w", err)
	}
	p.not(draining, goes(n2))
	release()
	p.robbed = n1
	_, err := leases.Patch(p.ctx, rebooting.record.Slot, types.JSONPatchType, []byte(`[{"op":"remove","path":"/metadata/finalizers"}]`), metav1.PatchOptions{})
	p.must(err)
	p.until("the namespace to be gone", func() (bool, error) {
		_, err := spaces.Get(p.ctx, batonSpace, metav1.GetOptions{})
		return apierrors.IsNotFound(err), err
	})
	if out, err := p.c.Command(p.ctx, "kubectl", "apply", "-k", p.Apply).CombinedOutput(); err != nil {
		p.failf("installing Baton anew: %w\n%s", err, out)
	}
	p.inForce = "" // it is the one of deploy/base, which permits no more reboots to a node that has seen scenarios
	p.until("the agents to run", func() (bool, error) { err := p.agentsRun(p.ctx); return err == nil, err })
	p.must(p.configure(p.ctx, settings{maxUnavailable: p.limit}))
	p.because(p.then(back, in(n1, observe.Verifying)), "rebooted")
	p.home(n1, n2, n3)
}

// marks are what a Node has of Baton's: the record, the phase, taints.
func (p *play) marks(node string) (found []string, err error) {
	n, err := p.client.CoreV1().Nodes().Get(p.ctx, node, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if n.Annotations[recordKey] != "" {
		found = append(found, recordKey)
	}
	if n.Labels[phaseKey] != "" {
		found = append(found, phaseKey)
	}
	for _, t := range n.Spec.Taints {
		if strings.HasPrefix(t.Key, "kubebaton.io/") {
			found = append(found, t.Key)
		}
	}
	return found, nil
}
