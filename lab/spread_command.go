package main

import (
	"context"
	"flag"
	"fmt"

	"kubebaton.io/baton/lab/build"
	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/spread"
)

func runSpread(ctx context.Context, l lab, args []string) error {
	o := spread.Options{Cluster: l.name, Stdout: l.stdout}
	if o.Cluster == cluster.DefaultName {
		o.Cluster = "spread" // it begins with a new cluster and ends with none: not the one that somebody works with
	}
	flags := l.flags("spread", func(f *flag.FlagSet) {
		f.StringVar(&o.Image, "image", "../dist/image.tar", "docker-archive of the agent")
		f.StringVar(&o.Deploy, "apply", "../deploy/base", "kustomize directory that is applied, with pendingTaint on and off")
		f.StringVar(&o.Kubernetes, "kubernetes", "", "version; default $K8S, else "+build.DefaultKubernetes)
		f.StringVar(&o.Out, "out", "", "file for all figures, as JSON")
		f.IntVar(&o.Nodes, "nodes", 6, "nodes of the cluster")
		f.IntVar(&o.Replicas, "replicas", 30, "pods whose evictions are counted")
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("spread: %q is not a flag", flags.Arg(0))
	}
	return spread.Run(ctx, o)
}
