package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/kubectl/pkg/drain"

	"kubebaton.io/baton/lab/audit"
	"kubebaton.io/baton/lab/observe"
)

// byHand does the rollout as a person with a script would who loses no moment: nothing is waited for that need not be.
func (d *demo) byHand(ctx context.Context, config *rest.Config) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	helper := &drain.Helper{
		Ctx: ctx, Client: client, Out: io.Discard, ErrOut: io.Discard,
		GracePeriodSeconds: -1, IgnoreAllDaemonSets: true, DeleteEmptyDirData: true,
		EvictErrorRetryDelay: 200 * time.Millisecond, Timeout: 2 * time.Minute,
		PodSelector: "app!=green", // a pod without a controller: drain would refuse, or lose it
	}
	from := time.Now()
	for i := range d.report.Nodes {
		n := &d.report.Nodes[i]
		if err := d.handle(ctx, helper, n); err != nil {
			return fmt.Errorf("doing node %q by hand: %w", n.Node, err)
		}
		h := n.Hand
		d.say("%s  drained %v, Ready after %v, uncordoned %v, %v in all", n.Node, h.Drain, h.Reboot, h.Uncordon, h.Total)
	}
	evictions, err := audit.Evictions(d.cluster.AuditLog(), from, time.Time{})
	if err != nil {
		return err
	}
	d.report.HandTotal = seconds(time.Since(from))
	d.report.HandEvictions = evicted(evictions, d.observer.Pods(), func(c audit.Caller) bool { return c.User != observe.AgentUser })
	return d.unmoved(from)
}

// Hand is how long a node took by hand.
type Hand struct {
	Drain    seconds `json:"drain"` // with the cordon
	Reboot   seconds `json:"reboot"`
	Uncordon seconds `json:"uncordon"`
	Total    seconds `json:"total"`
}

func (d *demo) handle(ctx context.Context, helper *drain.Helper, n *NodeReport) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	start := time.Now()
	node, err := helper.Client.CoreV1().Nodes().Get(ctx, n.Node, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if err := drain.RunCordonOrUncordon(helper, node, true); err != nil {
		return err
	}
	if err := drain.RunNodeDrain(helper, n.Node); err != nil {
		return err
	}
	drained, old := time.Now(), node.Status.NodeInfo.BootID
	_, asked := d.cluster.Exec(ctx, n.Node, "busctl", "call", "org.freedesktop.login1", "/org/freedesktop/login1",
		"org.freedesktop.login1.Manager", "Reboot", "b", "false")
	// The call may end with the node: what it answered matters only if the node does not go.
	if err := d.observer.Wait(ctx, "a new boot of "+n.Node, func(nodes map[string]observe.Node) bool {
		return nodes[n.Node].BootID != old && nodes[n.Node].Ready
	}); err != nil {
		return errors.Join(err, asked)
	}
	ready := time.Now()
	if node, err = helper.Client.CoreV1().Nodes().Get(ctx, n.Node, metav1.GetOptions{}); err != nil {
		return err
	}
	if err := drain.RunCordonOrUncordon(helper, node, false); err != nil {
		return err
	}
	end := time.Now()
	n.Hand = &Hand{
		Drain: seconds(drained.Sub(start)), Reboot: seconds(ready.Sub(drained)),
		Uncordon: seconds(end.Sub(ready)), Total: seconds(end.Sub(start)),
	}
	return d.noSentinel(n.Node)
}

// noSentinel makes sure that Baton has nothing to do in what is done by hand.
func (d *demo) noSentinel(node string) error {
	path, err := d.cluster.File(node, "/run/reboot-required")
	if err != nil {
		return err
	}
	switch _, err := os.Lstat(path); {
	case err == nil:
		return fmt.Errorf("%s outlived the reboot", path)
	case !os.IsNotExist(err):
		return err
	}
	return nil
}

// unmoved fails when Baton moved while a person worked.
func (d *demo) unmoved(from time.Time) error {
	if downs := d.observer.Log().After(from).Downs(); len(downs) > 0 {
		return fmt.Errorf("baton took %s down during the rollout by hand", downs[0].Node)
	}
	return nil
}
