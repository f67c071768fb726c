package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kubebaton.io/baton/lab/observe"
)

// uncordonIsAVeto: a person uncordons n1 in the middle of its drain. It does not ask again before backoff.max.
func uncordonIsAVeto(p *play) {
	draining, release := p.draining(n1)
	_, err := p.setCordon(p.ctx, n1, false)
	p.must(err)
	undone := p.then(draining, waits(n1, "uncordoned"))
	p.schedulable(undone)
	p.then(undone, freed(draining))
	release()
	p.never(undone, backoffMax-time.Second, goes(n1))
	p.stay()
	p.home(n1)
}

// rubbish is what somebody writes over the record.
const rubbish = `{"version": 1, "phase": "Drain`

// unreadableInDraining: with the record goes what is known of the drain, so nothing is touched until people take it away.
func unreadableInDraining(p *play) {
	draining, release := p.draining(n1)
	p.bring(n2, observe.Waiting)
	p.must(p.annotate(p.ctx, n1, recordKey, rubbish))
	release() // from here on an eviction would succeed
	p.never(draining, 5*time.Second, lost(draining))
	p.not(draining, goes(n2))
	p.told(n1, "RebootRecordUnreadable")
	p.must(p.annotate(p.ctx, n1, recordKey, nil))
	p.because(p.then(draining, in(n1, observe.Backoff)), "record-lost")
	p.home(n1, n2)
}

// unreadableInRebooting: n1 comes back and cannot read what it went for.
func unreadableInRebooting(p *play) {
	p.slowStop(n1, 3*time.Second)
	rebooting := p.bring(n1, observe.Rebooting)
	p.goingDown(n1)
	p.must(p.annotate(p.ctx, n1, recordKey, rubbish))
	p.raise(n2)
	back := p.then(rebooting, rebooted(rebooting))
	p.told(n1, "RebootRecordUnreadable")
	p.never(back, 3*time.Second, lost(rebooting))
	p.not(rebooting, goes(n2))
	p.must(p.annotate(p.ctx, n1, recordKey, nil))
	p.because(p.then(back, in(n1, observe.Verifying)), "rebooted")
	p.home(n1, n2)
}

// rebooted is a Node of which the kubelet says that it is on another boot.
func rebooted(m moment) is {
	return is{m.Node.Name + " is on another boot", func(e observe.Event) bool {
		return e.Node != nil && e.Node.Name == m.Node.Name && e.Node.BootID != m.Node.BootID
	}}
}

// told waits for an Event about a node, of this scenario, that has these words.
func (p *play) told(node, reason string, words ...string) {
	silent := func(note string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(note, w) })
	}
	p.until(fmt.Sprintf("an Event %s about %s", reason, node), func() (bool, error) {
		list, err := p.client.EventsV1().Events("default").List(p.ctx, metav1.ListOptions{FieldSelector: "reason=" + reason})
		if err != nil {
			return false, err
		}
		for _, e := range list.Items {
			if e.Regarding.Name == node && !e.EventTime.Time.Before(p.began) && !silent(e.Note) {
				return true, nil
			}
		}
		return false, nil
	})
}

// killedWhileGoingDown: systemd stops the host's units for longer than an agent waits for a reboot that it asked for, and the
// agent that asked is not there any more.
func killedWhileGoingDown(p *play) {
	p.slowStop(n1, time.Minute)
	rebooting := p.bring(n1, observe.Rebooting)
	p.bring(n2, observe.Waiting)
	p.goingDown(n1)
	old, err := p.c.Process(n1, agentProgram)
	p.must(err)
	p.kill(rebooting)
	p.until("another agent on "+n1, func() (bool, error) {
		pid, err := p.c.Process(n1, agentProgram)
		return err == nil && pid != old, err
	})
	again := time.Now()
	p.wentDown(n1, nil)
	p.note("the next agent was there for %.0f s before the host went down", time.Since(again).Seconds())
	p.not(rebooting, lost(rebooting))
	p.not(rebooting, goes(n2))
	p.home(n1, n2)
	if n := p.logged(n1, "asks the host to reboot"); n != 1 {
		p.failf("the host was asked to reboot %d times, want once", n)
	}
}

// logged is how many lines with these words the agents of a node have logged since the scenario began.
func (p *play) logged(node, words string) int {
	p.must(p.logs.Keep())
	lines, err := p.logs.Since(node, p.began)
	p.must(err)
	n := 0
	for _, l := range lines {
		if strings.Contains(l, words) {
			n++
		}
	}
	return n
}

// secondAgent: the pod of n2's agent is deleted by force, and the next one starts while the first cannot be ended: its container's
// keeper hangs.
func secondAgent(p *play) {
	draining, release := p.draining(n2)
	first, err := p.c.Process(n2, agentProgram)
	p.must(err)
	keeper := p.parent(first)
	p.must(unix.Kill(keeper, unix.SIGSTOP))
	p.later(func(context.Context) error {
		_ = unix.Kill(keeper, unix.SIGCONT) // as a rule it is gone
		return nil
	})
	now := int64(0)
	p.must(p.client.CoreV1().Pods(batonSpace).Delete(p.ctx, p.agentOf(n2).Name, metav1.DeleteOptions{GracePeriodSeconds: &now}))
	p.until("the second agent to stand by", func() (bool, error) { return p.logged(n2, "another agent acts on this host") > 0, nil })
	pids, err := p.c.Processes(n2, agentProgram)
	if err != nil || !slices.Contains(pids, first) || len(pids) != 2 {
		p.failf("the agents of %s are the processes %v, want %d and another one: %w", n2, pids, first, err)
	}
	acts := is{"the second agent acts", func(e observe.Event) bool {
		return e.Node != nil && e.Node.Name == n2 && e.Node.Record != draining.Node.Record
	}}
	p.never(draining, 3*time.Second, acts)
	p.must(unix.Kill(keeper, unix.SIGCONT))
	p.then(draining, acts)
	release()
	p.home(n2)
}

// parent is the process that started another one.
func (p *play) parent(pid int) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	p.must(err)
	parent := 0
	_, after, _ := strings.Cut(string(status), "PPid:")
	_, err = fmt.Sscan(after, &parent)
	p.must(err)
	return parent
}

// registeredAnew: the host of n1 cannot be asked whether a reboot is coming, so n1 stays in Rebooting; there its Node is deleted
// and registered anew.
func registeredAnew(p *play) {
	draining, release := p.draining(n1)
	p.bring(n2, observe.Waiting)
	mend := p.cutBus(n1)
	release()
	rebooting := p.then(draining, in(n1, observe.Rebooting))
	p.must(p.client.CoreV1().Nodes().Delete(p.ctx, n1, metav1.DeleteOptions{}))
	p.exec(n1, "systemctl", "restart", "kubelet")
	anew := p.then(rebooting, is{n1 + " is registered anew", func(e observe.Event) bool {
		return e.Node != nil && e.Node.Name == n1 && e.Node.Exists && e.Node.UID != rebooting.Node.UID
	}})
	p.never(anew, deletedGrace+3*time.Second, freed(draining)) // it is the same boot: the host may be going down
	p.not(rebooting, goes(n2))
	mended := time.Now()
	mend()
	free := p.then(anew, freed(draining)).Time.Sub(mended)
	p.home(n1)
	p.note("%s was free %.0f s after the host could be asked, and %s at home after %.0f s", draining.record.Slot, free.Seconds(), n1, time.Since(mended).Seconds())
	p.home(n2)
}
