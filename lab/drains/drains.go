package drains

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"

	"k8s.io/client-go/kubernetes"

	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/report"
)

// Options of a run.
type Options struct {
	Cluster    string         // name, see cluster.Options
	Kubernetes string         // version, see cluster.Options
	Out        string         // file that gets the report as JSON; "" none
	Pods       []int          // the sizes of the node that are drained
	Rounds     int            // of each tool at each size
	Only       *regexp.Regexp // what is measured: budget, webhook, limited, pods N
	Keep       bool           // leave the cluster running
	Reuse      bool           // use, and leave, the cluster that an earlier run kept
	Stdout     io.Writer      // progress and figures
}

const (
	maxPods   = 250             // the node's; a kubelet's default is 110
	daemons   = 10              // room for the pods of the lab itself
	nodeName  = "n1"            // which is drained
	drainTime = 3 * time.Minute // by when a drain must be over

	limitedPods = 50 // that are drained with the limits of kubectl's command
)

func (o Options) check() error {
	var faults []error
	if o.Rounds < 1 {
		faults = append(faults, fmt.Errorf("rounds %d: want at least 1", o.Rounds))
	}
	if len(o.Pods) == 0 {
		faults = append(faults, errors.New("no number of pods"))
	}
	for _, n := range o.Pods {
		if n < 1 || n > maxPods-daemons {
			faults = append(faults, fmt.Errorf("pods %d: want 1 to %d", n, maxPods-daemons))
		}
	}
	return errors.Join(faults...)
}

// bench is one run.
type bench struct {
	Options

	cluster *cluster.Cluster
	client  kubernetes.Interface // this program's own
	watch   *podWatch
	began   time.Time
	report  Report
}

// Run does all of it and removes the cluster again, also when ctx ends. The error names every goal that was missed.
func Run(ctx context.Context, o Options) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	b := &bench{Options: o, began: time.Now()}
	b.report.Started, b.report.MaxPods = b.began.UTC(), maxPods
	if err := b.open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.leave(context.WithoutCancel(ctx))) }()
	load := report.WatchLoad(ctx)
	err = b.measure(ctx)
	if err != nil {
		b.report.Error = err.Error()
	}
	b.report.Load, b.report.Seconds = load(), time.Since(b.began).Seconds()
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
	b.say("Starting a real node for %d pods.", maxPods)
	b.cluster, err = cluster.Start(ctx, cluster.Options{Name: b.Cluster, Nodes: 1, MaxPods: maxPods, Kubernetes: b.Kubernetes, Progress: b.Stdout})
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

// phase is one thing that is measured.
type phase struct {
	name string
	run  func(context.Context) error
}

func (b *bench) measure(ctx context.Context) (err error) {
	b.client, b.report.Kubernetes = b.cluster.Client(), b.cluster.Kubernetes
	config, err := b.cluster.RestConfig()
	if err != nil {
		return err
	}
	if err := b.prepare(ctx); err != nil {
		return fmt.Errorf("preparing: %w", err)
	}
	if b.watch, err = watchPods(ctx, b.client); err != nil {
		return err
	}
	defer b.watch.stop()
	phases := []phase{
		{"budget", func(ctx context.Context) error { return b.budgets(ctx, config) }},
		{"webhook", func(ctx context.Context) error { return b.webhooks(ctx, config) }},
		{"limited", func(ctx context.Context) error { return b.race(ctx, config, commandLimits(), limitedPods, atOnce(), 1) }},
	}
	for _, n := range b.Pods {
		race := func(e ends) phase {
			return phase{fmt.Sprintf("pods %d %s", n, e.name), func(ctx context.Context) error {
				return b.race(ctx, config, agentLimits(), n, e, b.Rounds)
			}}
		}
		phases = append(phases, race(atOnce()))
		if n >= manyPods {
			phases = append(phases, race(oneByOne()))
		}
	}
	for _, p := range phases {
		if !b.Only.MatchString(p.name) {
			continue
		}
		if err := p.run(ctx); err != nil {
			return fmt.Errorf("measuring %q: %w", p.name, err)
		}
	}
	return nil
}
