package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"k8s.io/client-go/kubernetes"

	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/observe"
	"kubebaton.io/baton/lab/report"
)

// Options of a run.
type Options struct {
	Cluster    string        // name, see cluster.Options
	Kubernetes string        // version, see cluster.Options
	Image      string        // docker-archive of the agent
	Deploy     string        // kustomize directory; only the configuration is changed, see overlay
	Binary     string        // the agent's, for its size
	Out        string        // file that gets the report as JSON; "" none
	Rollouts   int           // over all nodes
	Raises     int           // of each node's sentinel
	Idle       time.Duration // for which the requests of idle agents are counted
	Keep       bool          // leave the cluster running
	Reuse      bool          // use, and leave, the cluster that an earlier run kept
	Stdout     io.Writer     // progress and figures
}

const (
	nodeCount = 3
	limit     = 1                // nodes down at once, by deploy/base
	firstRest = 30 * time.Second // after a start, before an agent counts as idle
)

func (o Options) check() error {
	var faults []error
	if o.Rollouts < 1 || o.Rollouts > 40 {
		faults = append(faults, fmt.Errorf("rollouts %d: want 1 to 40", o.Rollouts)) // the configuration allows 100 reboots a day
	}
	if o.Raises < 1 {
		faults = append(faults, fmt.Errorf("raises %d: want at least 1", o.Raises))
	}
	if o.Idle < time.Minute {
		faults = append(faults, fmt.Errorf("idle %v: want at least 1m", o.Idle))
	}
	for _, path := range []string{o.Image, o.Deploy, o.Binary} {
		if _, err := os.Stat(path); err != nil {
			faults = append(faults, fmt.Errorf("looking for what is measured (make image writes it): %w", err))
		}
	}
	return errors.Join(faults...)
}

// bench is one run.
type bench struct {
	Options

	cluster  *cluster.Cluster
	client   kubernetes.Interface
	observer *observe.Observer
	nodes    []string
	began    time.Time
	report   Report
}

// Run does all of it and removes the cluster again, also when ctx ends. The error names every goal that was missed.
func Run(ctx context.Context, o Options) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	b := &bench{Options: o, began: time.Now()}
	b.report.Started = b.began.UTC()
	if err := b.open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.leave(context.WithoutCancel(ctx))) }()
	err = b.measure(ctx)
	if err != nil {
		b.report.Error = err.Error()
	}
	b.report.Seconds = time.Since(b.began).Seconds()
	b.report.judge()
	b.report.show(o.Stdout)
	if o.Out != "" {
		err = errors.Join(err, report.Write(o.Out, b.report))
	}
	return errors.Join(err, b.report.verdict())
}

func (b *bench) open(ctx context.Context) (err error) {
	if b.Reuse {
		b.cluster, err = cluster.Open(b.Cluster, "")
		return err
	}
	b.say("Starting %d real nodes.", nodeCount)
	b.cluster, err = cluster.Start(ctx, cluster.Options{Name: b.Cluster, Nodes: nodeCount, Kubernetes: b.Kubernetes, Progress: b.Stdout})
	return err
}

func (b *bench) leave(ctx context.Context) error {
	if b.Keep || b.Reuse {
		b.say("The cluster stays: `lab --cluster %s down` removes it.", b.cluster.Name)
		return b.cluster.Release()
	}
	return b.cluster.Stop(ctx)
}

// say tells what happens, with the time since the beginning and the load.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.Stdout, "%7.1f s  load %5.1f  %s\n", time.Since(b.began).Seconds(), report.LoadNow(), fmt.Sprintf(format, args...))
}

func (b *bench) measure(ctx context.Context) error {
	if err := b.prepare(ctx); err != nil {
		return fmt.Errorf("preparing: %w", err)
	}
	config, err := b.cluster.RestConfig()
	if err != nil {
		return err
	}
	if b.observer, err = observe.Start(ctx, config); err != nil {
		return err
	}
	defer b.observer.Stop()
	// What must be waited for comes last.
	for _, phase := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"size", b.sizes},
		{"memory after the start", b.startMemory},
		{"hand-over", b.handOvers},
		{"memory after a cycle", b.cycleMemory},
		{"detection", b.detections},
		{"idle", b.idle},
	} {
		if err := phase.run(ctx); err != nil {
			return fmt.Errorf("measuring %s: %w", phase.name, err)
		}
	}
	return nil
}

// prepare installs Baton and something for it to evict.
func (b *bench) prepare(ctx context.Context) (err error) {
	b.client = b.cluster.Client()
	if b.nodes, err = b.cluster.Nodes(); err != nil {
		return err
	}
	if len(b.nodes) != nodeCount {
		return fmt.Errorf("want %d nodes, there are %d", nodeCount, len(b.nodes))
	}
	b.report.Kubernetes = b.cluster.Kubernetes
	if b.Reuse {
		return nil
	}
	dir, err := os.MkdirTemp("", "baton-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// By default a node reboots at most twice in 24 hours, which would end the rounds.
	if err := cluster.Overlay(dir, b.Deploy, "maxReboots24h: 100"); err != nil {
		return err
	}
	if err := b.cluster.Install(ctx, b.Image, dir); err != nil {
		return err
	}
	if err := b.startWorkload(ctx); err != nil {
		return err
	}
	b.say("Agents and workload run.")
	return nil
}

// pause waits, and returns early only when ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// until asks again and again, for at most two minutes.
func until(ctx context.Context, what string, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("it took longer than two minutes"))
	defer cancel()
	return cluster.Until(ctx, what, 200*time.Millisecond, ok)
}
