package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"kubebaton.io/baton/lab/audit"
	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/observe"
	"kubebaton.io/baton/lab/report"
)

// Options of a run.
type Options struct {
	Cluster    string    // name, see cluster.Options
	Kubernetes string    // version, see cluster.Options
	Image      string    // docker-archive of the agent
	Deploy     string    // kustomize directory that is applied unchanged
	Out        string    // file that gets the report as JSON; "" none
	Keep       bool      // leave the cluster running
	Stdout     io.Writer // progress, table and summary
	Width      int       // of the terminal that Stdout is, whereon the table is drawn in place; 0: it is none
}

const (
	nodes    = 3
	limit    = 1 // nodes down at once, by deploy/base
	patience = 10 * time.Minute
)

// demo is one run.
type demo struct {
	Options

	cluster  *cluster.Cluster
	observer *observe.Observer
	began    time.Time
	report   Report
}

// Run does all of it and removes the cluster again, also when ctx ends. The error names every goal that was missed.
func Run(ctx context.Context, o Options) (err error) {
	d := &demo{Options: o, began: time.Now()}
	for _, path := range []string{o.Image, o.Deploy} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("looking for what is to be shown (make image writes the image): %w", err)
		}
	}
	d.say("Starting %d real nodes; on a fresh machine their parts are built first, which takes 6 to 10 minutes once.", nodes)
	d.cluster, err = cluster.Start(ctx, cluster.Options{Name: o.Cluster, Nodes: nodes, Kubernetes: o.Kubernetes, Progress: o.Stdout})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.leave(ctx)) }()
	err = d.show(ctx)
	if len(d.report.Nodes) == 0 || ctx.Err() != nil {
		return err // it ended before there was anything to tell, or nobody wants to know
	}
	if err != nil {
		d.report.Error = err.Error()
	}
	d.report.judge()
	d.report.summarize(o.Stdout)
	if o.Out != "" {
		err = errors.Join(err, report.Write(o.Out, d.report))
	}
	return errors.Join(err, d.report.verdict())
}

func (d *demo) leave(ctx context.Context) error {
	if d.Keep {
		d.say("The cluster stays: `lab --cluster %s down` removes it.", d.cluster.Name)
		return d.cluster.Release()
	}
	return d.cluster.Stop(ctx)
}

// say tells what happens, with the time since the beginning.
func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.Stdout, "%6.1f s  %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
}

func (d *demo) show(ctx context.Context) error {
	if err := d.prepare(ctx); err != nil {
		return err
	}
	config, err := d.cluster.RestConfig()
	if err != nil {
		return err
	}
	d.observer, err = observe.Start(ctx, config)
	if err != nil {
		return err
	}
	defer d.observer.Stop()
	if err := d.observer.WatchPods(ctx, d.cluster.Client(), namespace); err != nil {
		return err
	}
	from, err := d.rollout(ctx)
	if ctx.Err() != nil || from.IsZero() {
		return err
	}
	// A rollout that did not end well is measured all the same: that is when the figures matter.
	if err := errors.Join(err, d.collect(ctx, from, time.Now())); err != nil {
		return err
	}
	d.say("The same by hand, in the same order, on the same cluster, with the same workload spread anew:")
	if err := d.respread(ctx); err != nil {
		return err
	}
	return d.byHand(ctx, config)
}

// prepare installs Baton and the workload, and changes Baton's configuration while it runs.
func (d *demo) prepare(ctx context.Context) error {
	d.say("Applying %s unchanged.", d.Deploy)
	if err := d.cluster.Install(ctx, d.Image, d.Deploy); err != nil {
		return err
	}
	d.say("The agents are ready. Starting blue (Deployment, %d replicas) and green (a pod without a controller).", replicas)
	if err := d.startWorkload(ctx); err != nil {
		return err
	}
	d.say("Setting drain.unmanagedPods: ride-through in ConfigMap %s; by default a node with such a pod would wait.", configName)
	took, err := d.configure(ctx)
	if err != nil {
		return err
	}
	d.report.ConfigTakenUp = seconds(took)
	d.say("All agents took it up after %.1f s, none was restarted.", took.Seconds())
	return nil
}

// rollout raises the sentinel on all nodes and shows what becomes of it. It returns when that was.
func (d *demo) rollout(ctx context.Context) (time.Time, error) {
	names, err := d.cluster.Nodes()
	if err != nil {
		return time.Time{}, err
	}
	before := d.observer.Nodes()
	for _, name := range names {
		d.report.Nodes = append(d.report.Nodes, NodeReport{Node: name, OldBootID: before[name].BootID})
	}
	if d.report.Green, err = d.green(ctx); err != nil {
		return time.Time{}, err
	}
	d.say("Raising the sentinel on all nodes: /run/reboot-required, as an update leaves it. No node may be lost, at most %d down.", limit)
	from, mark := time.Now(), d.observer.Mark()
	for _, name := range names {
		if err := d.cluster.RaiseSentinel(name); err != nil {
			return from, err
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not all nodes are done after %v", patience))
	defer cancel()
	return from, d.watch(ctx, mark, before)
}

// collect measures the rollout from outside, once it is over.
func (d *demo) collect(ctx context.Context, from, to time.Time) error {
	power, err := d.cluster.PowerLog()
	if err != nil {
		return err
	}
	agents, err := observe.Agents(d.cluster, from, to)
	if err != nil {
		return err
	}
	evictions, err := audit.Evictions(d.cluster.AuditLog(), from, to)
	if err != nil {
		return err
	}
	r := &d.report
	r.fromLog(d.observer.Log().After(from), from)
	r.fromPower(power, from, to)
	r.Evictions = evicted(evictions, d.observer.Pods(), func(c audit.Caller) bool { return c.User == observe.AgentUser })
	for _, a := range agents {
		r.Agents = append(r.Agents, a)
	}
	slices.SortFunc(r.Agents, func(a, b observe.Agent) int { return slices.Compare([]string{a.Node, a.Pod}, []string{b.Node, b.Pod}) })
	for i := range r.Nodes {
		n := &r.Nodes[i]
		if n.AgentMemory, err = observe.AgentMemory(ctx, d.cluster, n.Node); err != nil {
			return err
		}
	}
	return d.collectWorkload(ctx)
}

// collectWorkload sees how blue and green came through.
func (d *demo) collectWorkload(ctx context.Context) error {
	green, err := d.green(ctx)
	if err != nil {
		return err
	}
	d.report.Green.NewUID, d.report.Green.NewRestarts = green.UID, green.Restarts
	return d.waitBlue(ctx)
}

// evicted counts the evictions that were granted, by the controller of the pod: of a pod of another namespace by its name.
func evicted(evictions []audit.Eviction, pods []observe.Pod, by func(audit.Caller) bool) map[string]int {
	owners := map[string]string{}
	for _, p := range pods {
		owners[p.Name] = p.Owner
	}
	counts := map[string]int{}
	for _, e := range evictions {
		if e.Code != 201 || !by(e.Caller) {
			continue
		}
		owner := e.Namespace + "/" + e.Pod
		if e.Namespace == namespace {
			owner = owners[e.Pod]
		}
		counts[owner]++
	}
	return counts
}
