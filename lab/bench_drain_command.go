package main

import (
	"context"
	"flag"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"kubebaton.io/baton/lab/build"
	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/drains"
)

func runBenchDrain(ctx context.Context, l lab, args []string) error {
	o := drains.Options{Cluster: l.name, Stdout: l.stdout, Pods: []int{1, 50, 200}, Only: regexp.MustCompile("")}
	if o.Cluster == cluster.DefaultName {
		o.Cluster = "drains" // it begins with a new cluster and ends with none: not the one that somebody works with
	}
	flags := l.flags("bench-drain", func(f *flag.FlagSet) {
		f.StringVar(&o.Kubernetes, "kubernetes", "", "version; default $K8S, else "+build.DefaultKubernetes)
		f.StringVar(&o.Out, "out", "", "file for all figures, as JSON")
		f.IntVar(&o.Rounds, "rounds", 3, "how often each tool drains each number of pods")
		f.BoolVar(&o.Keep, "keep", false, "leave the cluster running")
		f.BoolVar(&o.Reuse, "reuse", false, "use the cluster that an earlier run kept, and leave it running")
		f.Func("pods", "how many pods are drained, by commas (default 1,50,200)", func(s string) (err error) {
			o.Pods, err = numbers(s)
			return err
		})
		f.Func("only", "regular expression of what is measured: budget, webhook, limited, pods N", func(s string) (err error) {
			o.Only, err = regexp.Compile(s)
			return err
		})
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("bench-drain: %q is not a flag", flags.Arg(0))
	}
	return drains.Run(ctx, o)
}

func numbers(s string) ([]int, error) {
	var out []int
	for word := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(word)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}
