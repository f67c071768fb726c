package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"kubebaton.io/baton/lab/chaos"
	"kubebaton.io/baton/lab/cluster"
)

func runChaos(ctx context.Context, l lab, args []string) error {
	o := chaos.Options{Cluster: l.name, Stdout: l.stdout, Progress: l.stderr}
	if o.Cluster == cluster.DefaultName {
		o.Cluster = "chaos" // it begins with a new cluster and ends with none: not the one that somebody works with
	}
	minutes := 30.0
	flags := l.flags("chaos", func(f *flag.FlagSet) {
		f.Uint64Var(&o.Seed, "seed", 0, "of the plan: the same seed and minutes make the same plan; 0: one is chosen, and printed")
		f.Float64Var(&minutes, "minutes", minutes, "how long faults strike; start and end come on top")
		f.IntVar(&o.Nodes, "nodes", 4, "how many nodes to begin with")
		f.StringVar(&o.Out, "out", "", "file for all figures, as JSON")
		f.StringVar(&o.Evidence, "evidence", "", "directory for what a failed run leaves; default: NAME.chaos beside the cluster's directory")
		f.StringVar(&o.Image, "image", "../dist/image.tar", "docker-archive of the agent")
		f.StringVar(&o.Apply, "apply", "../deploy/base", "kustomize directory that is applied")
		f.BoolVar(&o.Keep, "keep", false, "leave the cluster running")
		f.BoolVar(&o.Reuse, "reuse", false, "use the cluster that an earlier run kept, and leave it running")
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("chaos: %q is not a flag", flags.Arg(0))
	}
	o.Length = time.Duration(minutes * float64(time.Minute))
	if o.Seed == 0 {
		o.Seed = uint64(time.Now().UnixMilli()) //nolint:gosec // it is positive for a while
	}
	return chaos.Run(ctx, o)
}
