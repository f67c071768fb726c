package main

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"time"

	"kubebaton.io/baton/lab/bench"
	"kubebaton.io/baton/lab/build"
	"kubebaton.io/baton/lab/cluster"
)

func runBench(ctx context.Context, l lab, args []string) error {
	o := bench.Options{Cluster: l.name, Stdout: l.stdout}
	if o.Cluster == cluster.DefaultName {
		o.Cluster = "bench" // it begins with a new cluster and ends with none: not the one that somebody works with
	}
	flags := l.flags("bench", func(f *flag.FlagSet) {
		f.StringVar(&o.Image, "image", "../dist/image.tar", "docker-archive of the agent")
		f.StringVar(&o.Binary, "binary", "../dist/"+runtime.GOARCH+"/baton-agent", "the agent's binary")
		f.StringVar(&o.Deploy, "apply", "../deploy/base", "kustomize directory that is applied, with maxReboots24h raised")
		f.StringVar(&o.Kubernetes, "kubernetes", "", "version; default $K8S, else "+build.DefaultKubernetes)
		f.StringVar(&o.Out, "out", "", "file for all figures, as JSON")
		f.IntVar(&o.Rollouts, "rollouts", 4, "how often all nodes are rebooted; each gives two hand-overs")
		f.IntVar(&o.Raises, "raises", 30, "how often each node's sentinel is raised and cleared")
		f.DurationVar(&o.Idle, "idle", 20*time.Minute, "how long the requests of idle agents are counted; less is not judged")
		f.BoolVar(&o.Keep, "keep", false, "leave the cluster running")
		f.BoolVar(&o.Reuse, "reuse", false, "use the cluster that an earlier run kept, and leave it running")
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("bench: %q is not a flag", flags.Arg(0))
	}
	return bench.Run(ctx, o)
}
