package main

import (
	"context"
	"flag"
	"os"

	"golang.org/x/sys/unix"

	"kubebaton.io/baton/lab/build"
	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/demo"
)

func runDemo(ctx context.Context, l lab, args []string) error {
	o := demo.Options{Cluster: l.name, Stdout: l.stdout}
	if o.Cluster == cluster.DefaultName {
		o.Cluster = "demo" // it begins with a new cluster and ends with none: not the one that somebody works with
	}
	flags := l.flags("demo", func(f *flag.FlagSet) {
		f.StringVar(&o.Image, "image", "../dist/image.tar", "docker-archive of the agent")
		f.StringVar(&o.Deploy, "apply", "../deploy/base", "kustomize directory that is applied")
		f.StringVar(&o.Kubernetes, "kubernetes", "", "version; default $K8S, else "+build.DefaultKubernetes)
		f.StringVar(&o.Out, "out", "", "file for all figures, as JSON")
		f.BoolVar(&o.Keep, "keep", false, "leave the cluster running")
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	if size, err := unix.IoctlGetWinsize(int(os.Stdout.Fd()), unix.TIOCGWINSZ); err == nil {
		o.Width = int(size.Col) // 0 where nobody knows: not drawn
	}
	return demo.Run(ctx, o)
}
