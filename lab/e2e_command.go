package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"regexp"

	"kubebaton.io/baton/lab/e2e"
)

func endToEnd(ctx context.Context, l lab, args []string) error {
	o := e2e.Options{Cluster: l.name, Stdout: l.stdout, Progress: l.stderr}
	var only string
	flags := l.flags("e2e", func(f *flag.FlagSet) {
		f.BoolVar(&o.Short, "short", false, "the most important scenarios only, for CI")
		f.StringVar(&only, "only", "", "regular expression: scenarios whose name matches")
		f.StringVar(&o.Out, "out", "", "file for the results as JSON")
		f.StringVar(&o.Evidence, "evidence", "", "directory for what failed scenarios leave; default: NAME.e2e beside the cluster's directory")
		f.StringVar(&o.Image, "image", "../dist/image.tar", "docker-archive image of the agent")
		f.StringVar(&o.Apply, "apply", "../deploy/base", "kustomize directory that is applied")
		f.BoolVar(&o.Keep, "keep", false, "leave the cluster running")
		f.BoolVar(&o.Reuse, "reuse", false, "use the cluster that runs, with the agent installed, and leave it running")
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("e2e: %q is not a flag", flags.Arg(0))
	}
	if only != "" {
		re, err := regexp.Compile(only)
		if err != nil {
			return errors.Join(errors.New("e2e: --only"), err)
		}
		o.Only = re
	}
	return e2e.Run(ctx, o)
}
