package chaos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"

	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/evidence"
	"kubebaton.io/baton/lab/gateway"
	"kubebaton.io/baton/lab/observe"
	"kubebaton.io/baton/lab/report"
)

// Options of a run.
type Options struct {
	Cluster  string        // name
	Image    string        // docker-archive of the agent
	Apply    string        // kustomize directory, applied unchanged
	Nodes    int           // to begin with
	Seed     uint64        // of the plan
	Length   time.Duration // of the faults; start and end come on top
	Keep     bool          // leave the cluster running
	Reuse    bool          // use, and leave, the cluster that runs already, with the agent installed
	Out      string        // file for all figures as JSON, "" none
	Evidence string        // directory for what a failed run leaves; "" NAME.chaos beside the cluster's directory, which outlives it
	Stdout   io.Writer
	Progress io.Writer // of the cluster's start
}

// extraNodes is how many nodes more than at the beginning there may be.
const extraNodes = 1

func (o Options) check() error {
	var faults []error
	if o.Nodes < 3 || o.Nodes > 9 {
		faults = append(faults, fmt.Errorf("nodes %d: want 3 to 9: one that is down, one that is next, one for the pods", o.Nodes))
	}
	if o.Length < time.Minute || o.Length > 24*time.Hour {
		faults = append(faults, fmt.Errorf("length %s: want one minute to a day", o.Length))
	}
	for _, path := range []string{o.Image, o.Apply} {
		if _, err := os.Stat(path); err != nil && !o.Reuse {
			faults = append(faults, fmt.Errorf("looking for what is to be tried (make image writes the image): %w", err))
		}
	}
	return errors.Join(faults...)
}

// run is one run.
type run struct {
	Options
	plan     Plan
	cluster  *cluster.Cluster
	client   kubernetes.Interface
	observer *observe.Observer
	logs     *evidence.Logs
	first    []string // the nodes of the beginning
	began    time.Time
	settings *settings
	guards   guards
	devices  devices

	mu       sync.Mutex
	gateways map[string]*gateway.Gateway
	green    green
	struck   []Strike
	byHand   []handReboot
}

// Run does all of it and removes the cluster again, also when ctx ends. The error names every goal that was missed.
func Run(ctx context.Context, o Options) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	zerolog.SetGlobalLevel(zerolog.Disabled) // some toxics log past the logger that they are given
	r := &run{Options: o, plan: NewPlan(o.Seed, o.Length), gateways: map[string]*gateway.Gateway{}, began: time.Now()}
	if err := r.open(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.leave(context.WithoutCancel(ctx))) }()
	if err := r.prepare(ctx); err != nil {
		return fmt.Errorf("before the first fault: %w", err)
	}
	defer r.observer.Stop()
	defer r.closeGateways()
	keeping, stop := context.WithCancel(ctx)
	defer stop()
	go r.keepLogs(keeping)
	go r.keepDevices(keeping)
	r.say("%d nodes and their agents run. Seed %d: %d faults in %s, at most %v unavailable.", len(r.first), r.Seed, len(r.plan.Faults), r.Length, r.plan.MaxUnavailable)
	start := time.Now()
	r.suffer(ctx, start)
	if err := context.Cause(ctx); err != nil {
		return err
	}
	converged, left := r.converge(ctx)
	report := r.judge(ctx, start, converged, left)
	report.print(o.Stdout)
	if o.Out != "" {
		err = report.write(o.Out)
	}
	if report.verdict() != nil {
		err = errors.Join(err, r.keepEvidence(ctx, report))
	}
	return errors.Join(err, report.verdict())
}

func (r *run) open(ctx context.Context) (err error) {
	if r.Reuse {
		r.cluster, err = cluster.Open(r.Cluster, "")
		return err
	}
	r.cluster, err = cluster.Start(ctx, cluster.Options{Name: r.Cluster, Nodes: r.Nodes, Progress: r.Progress})
	return err
}

func (r *run) leave(ctx context.Context) error {
	if r.Keep || r.Reuse {
		r.say("The cluster stays: `lab --cluster %s down` removes it.", r.cluster.Name)
		return r.cluster.Release()
	}
	return r.cluster.Stop(ctx)
}

// prepare leads the nodes' pods through the gateways, and only then starts what uses them.
func (r *run) prepare(ctx context.Context) (err error) {
	r.client = r.cluster.Client()
	if r.first, err = r.cluster.Nodes(); err != nil {
		return err
	}
	r.Nodes = len(r.first) // of a cluster that is used again
	if r.logs, err = evidence.NewLogs(r.cluster); err != nil {
		return err
	}
	if r.Evidence == "" {
		if err := os.RemoveAll(r.evidence()); err != nil {
			return err
		}
	}
	opening, openingCtx := errgroup.WithContext(ctx)
	for _, node := range r.first {
		opening.Go(func() error { return r.openGateway(openingCtx, ctx, node) })
	}
	if err := opening.Wait(); err != nil {
		return err
	}
	if !r.Reuse {
		if err := r.cluster.Install(ctx, r.Image, r.Apply); err != nil {
			return err
		}
	}
	if err := r.startWorkload(ctx); err != nil {
		return err
	}
	if r.observer, err = observe.StartBehind(ctx, r.cluster); err != nil {
		return err
	}
	r.settings = &settings{client: r.client}
	if err := r.settings.put(ctx, valid(r.plan.maxUnavailable(0), 0)); err != nil {
		return err
	}
	return r.waysLead(ctx)
}

// keepLogs keeps what agents log before the kubelets remove it.
func (r *run) keepLogs(ctx context.Context) {
	for pause(ctx, time.Second) {
		if err := r.logs.Keep(); err != nil && ctx.Err() == nil {
			r.say("%v", err)
		}
	}
}

// openGateway opens a node's gateway, which lives as long as life.
func (r *run) openGateway(ctx, life context.Context, node string) error {
	g, err := gateway.Open(ctx, life, r.cluster, node)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gateways[node] = g
	return nil
}

func (r *run) closeGateways() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.gateways {
		g.Close()
	}
}

// waysLead waits until every node's agent uses its gateway: without that, faults of the network would be none.
func (r *run) waysLead(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return until(ctx, "the agents to connect through the gateways", func() (bool, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for node, g := range r.gateways {
			if g.Connections() == 0 {
				return false, fmt.Errorf("that of %s does not", node)
			}
		}
		return true, nil
	})
}

// say tells what happens, with the time since the beginning.
func (r *run) say(format string, args ...any) {
	fmt.Fprintf(r.Stdout, "%7.1f s  %s\n", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

// evidence is the directory of what a failed run leaves. The cluster's own directories go with it.
func (r *run) evidence() string {
	return cmp.Or(r.Evidence, strings.TrimSuffix(r.cluster.Logs(), ".logs")+".chaos")
}

func (r *run) keepEvidence(ctx context.Context, found *Report) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	dir := r.evidence()
	what := evidence.Case{
		Cluster: r.cluster, Observer: r.observer, From: found.Started, Logs: r.logs,
		Text: fmt.Sprintf("seed %d, length %s\n%s\n%s", r.Seed, r.Length, strings.Join(found.Violations, "\n"), found.Left),
	}
	err := errors.Join(what.Keep(ctx, dir), report.Write(filepath.Join(dir, "report.json"), found))
	r.say("The evidence is in %s.", dir)
	return err
}

// until asks again and again what no watch tells, until the answer is yes or the context ends; err says what is missing.
func until(ctx context.Context, what string, ok func() (bool, error)) error {
	return cluster.Until(ctx, what, 100*time.Millisecond, ok)
}
