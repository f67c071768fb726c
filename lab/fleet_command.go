package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"kubebaton.io/baton/lab/build"
	"kubebaton.io/baton/lab/fleet"
)

func runFleet(ctx context.Context, l lab, args []string) error {
	o := fleet.Options{
		Stdout: l.stdout,
		Drain:  fleet.Span{Mean: 5 * time.Second, Spread: 2 * time.Second}, Boot: fleet.Span{Mean: 20 * time.Second, Spread: 5 * time.Second},
	}
	plot := ""
	flags := l.flags("fleet", func(f *flag.FlagSet) {
		f.StringVar(&plot, "plot", "", "draw the reports that are named as arguments into this SVG `file`, and run nothing")
		f.IntVar(&o.Nodes, "nodes", 1000, "how many nodes")
		f.IntVar(&o.Agents, "agents", 0, "how many of the nodes have an agent that runs; the marshal watches the others all the same. 0: all")
		f.StringVar(&o.Max, "max", "10%", "how many of them may be down at once: a number, or per cent")
		f.Uint64Var(&o.Seed, "seed", 1, "of the durations")
		f.Var(&o.Drain, "drain", "until the pods of a node have ended")
		f.Var(&o.Boot, "boot", "from an accepted reboot to the kubelet's report")
		f.IntVar(&o.Pods, "pods", 2, "of a node, that its drain evicts")
		f.DurationVar(&o.Raise, "raise", 30*time.Second, "over which the sentinels are raised, as timers of updates are spread; 0: all at once")
		f.DurationVar(&o.Lease, "lease", 10*time.Second, "between two renewals of a node's Lease; longer than a kubelet's where thousands would keep the machine busy")
		f.DurationVar(&o.Idle, "idle", 30*time.Second, "how long agents at rest are measured, and before it the API server without them")
		f.DurationVar(&o.Timeout, "timeout", 30*time.Minute, "of the rollout")
		f.BoolVar(&o.Churn, "churn", false, "kill the marshal every 10 s, let nodes leave and join, and 1 % never come back")
		f.StringVar(&o.Binary, "binary", "", "the agent's program, to be the marshal; without it, one of the agents in this process is")
		f.StringVar(&o.Deploy, "deploy", "../deploy/base", "directory with RBAC and policies")
		f.StringVar(&o.Log, "log", "", "file for the agents' logs")
		f.StringVar(&o.Audit, "audit", "", "file for the API server's audit log of the agents' requests")
		f.StringVar(&o.Out, "out", "", "file for all figures, as JSON")
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	if plot != "" {
		return fleet.Plot(plot, flags.Args())
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("fleet: %q is not a flag", flags.Arg(0))
	}
	if o.Nodes < 1 || o.Pods < 1 || o.Lease <= 0 {
		return errors.New("fleet: there is no fleet of no nodes or no pods, and a Lease is renewed after some time")
	}
	cache, err := build.New(build.Config{Progress: l.stderr})
	if err != nil {
		return err
	}
	assets, err := cache.API(ctx)
	if err != nil {
		return err
	}
	if err := os.Setenv("KUBEBUILDER_ASSETS", assets); err != nil {
		return fmt.Errorf("naming the API server's binaries: %w", err)
	}
	return fleet.Run(ctx, o)
}
