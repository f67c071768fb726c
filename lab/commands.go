package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kubebaton.io/baton/lab/audit"
	"kubebaton.io/baton/lab/build"
	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/image"
)

func up(ctx context.Context, l lab, args []string) error {
	o := cluster.Options{Name: l.name, Progress: l.stderr}
	workersOnly := false
	flags := l.flags("up", func(f *flag.FlagSet) {
		f.IntVar(&o.Nodes, "nodes", 3, "how many nodes")
		f.IntVar(&o.ControlPlane, "control-plane", 0, "how many of them are labelled and tainted as control plane")
		f.BoolVar(&workersOnly, "workers-only", false, "no node is labelled as control plane (the default)")
		f.StringVar(&o.Kubernetes, "kubernetes", "", "version; default $K8S, else "+build.DefaultKubernetes)
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	if workersOnly && o.ControlPlane > 0 {
		return errors.New("--workers-only contradicts --control-plane")
	}
	c, err := cluster.Start(ctx, o)
	if err != nil {
		return err
	}
	return errors.Join(printStatus(ctx, l, c), c.Release())
}

func down(ctx context.Context, l lab, _ []string) error { return cluster.Remove(ctx, l.name, "") }

func status(ctx context.Context, l lab, _ []string) error {
	c, err := l.open()
	if err != nil {
		return err
	}
	return printStatus(ctx, l, c)
}

func printStatus(ctx context.Context, l lab, c *cluster.Cluster) error {
	names, err := c.Nodes()
	if err != nil {
		return err
	}
	log, err := c.PowerLog()
	if err != nil {
		return err
	}
	list, err := c.Client().CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(l.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tPOWER\tSINCE\tBOOTS\tREADY\tSCHEDULABLE\tBOOT ID")
	for _, name := range names {
		power, since, boots := "off", time.Time{}, 0
		for _, e := range log {
			if e.Node != name {
				continue
			}
			power, since = "off", e.Time
			if e.On {
				power, boots = "on", boots+1
			}
		}
		ready, schedulable, bootID := "no Node", "", ""
		if i := slices.IndexFunc(list.Items, func(n corev1.Node) bool { return n.Name == name }); i >= 0 {
			n := list.Items[i]
			bootID, schedulable = n.Status.NodeInfo.BootID, "yes"
			if n.Spec.Unschedulable {
				schedulable = "no"
			}
			for _, cond := range n.Status.Conditions {
				if cond.Type == corev1.NodeReady {
					ready = string(cond.Status)
				}
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", name, power, since.Format(time.TimeOnly), boots, ready, schedulable, bootID)
	}
	return w.Flush()
}

func kubectl(ctx context.Context, l lab, args []string) error {
	c, err := l.open()
	if err != nil {
		return err
	}
	return l.attach(c.Command(ctx, "kubectl", after(args)...))
}

func execute(ctx context.Context, l lab, args []string) error {
	if len(args) < 2 {
		return errors.New("exec: want NODE -- CMD…")
	}
	c, err := l.open()
	if err != nil {
		return err
	}
	cmd, err := c.NodeCommand(ctx, args[0], after(args[1:])...)
	if err != nil {
		return err
	}
	return l.attach(cmd)
}

func (l lab) attach(cmd *exec.Cmd) error {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, l.stdout, l.stderr
	return cmd.Run()
}

func load(ctx context.Context, l lab, args []string) error {
	if len(args) == 0 {
		return errors.New("load: want IMAGE.tar [NODE…]")
	}
	c, err := l.open()
	if err != nil {
		return err
	}
	return c.Load(ctx, args[0], args[1:]...)
}

func install(ctx context.Context, l lab, args []string) error {
	var tar, dir string
	flags := l.flags("install", func(f *flag.FlagSet) {
		f.StringVar(&tar, "image", "../dist/image.tar", "docker-archive image that is loaded into all nodes")
		f.StringVar(&dir, "apply", "../deploy/base", "kustomize directory that is applied")
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	c, err := l.open()
	if err != nil {
		return err
	}
	return c.Install(ctx, tar, dir)
}

func sentinel(_ context.Context, l lab, args []string) error {
	c, err := l.open()
	if err != nil {
		return err
	}
	for _, node := range args {
		if err := c.RaiseSentinel(node); err != nil {
			return err
		}
	}
	return nil
}

func power(ctx context.Context, l lab, args []string) error {
	if len(args) != 2 {
		return errors.New("power: want NODE on|off|cycle")
	}
	c, err := l.open()
	if err != nil {
		return err
	}
	return c.Power(ctx, args[0], cluster.Power(args[1]))
}

func node(ctx context.Context, l lab, args []string) error {
	c, err := l.open()
	if err != nil {
		return err
	}
	switch {
	case len(args) == 1 && args[0] == "add":
		name, err := c.AddNode(ctx)
		fmt.Fprintln(l.stdout, name)
		return err
	case len(args) == 2 && args[0] == "remove":
		return c.RemoveNode(ctx, args[1])
	}
	return errors.New("node: want add, or remove NODE")
}

func countAudit(_ context.Context, l lab, args []string) error {
	by, since := "pod", time.Duration(0)
	flags := l.flags("audit", func(f *flag.FlagSet) {
		f.StringVar(&by, "by", by, "pod: only requests of pods, counted per pod; user: all")
		f.DurationVar(&since, "since", 0, "only requests of this last while; 0: all")
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	c, err := l.open()
	if err != nil {
		return err
	}
	var from time.Time
	if since > 0 {
		from = time.Now().Add(-since)
	}
	counts, err := audit.CountFile(c.AuditLog(), from, time.Time{})
	if err != nil {
		return err
	}
	return counts.Print(l.stdout, by == "pod")
}

func writeImage(_ context.Context, l lab, args []string) error {
	var out, binary string
	i := image.Image{}
	flags := l.flags("image", func(f *flag.FlagSet) {
		f.StringVar(&out, "out", "", "docker-archive file to write")
		f.StringVar(&i.Name, "name", "", "reference with tag")
		f.StringVar(&i.Arch, "arch", runtime.GOARCH, "architecture")
		f.StringVar(&binary, "binary", "", "static binary; becomes /baton-agent and the entrypoint")
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	if out == "" || binary == "" {
		return errors.New("image: want --out and --binary")
	}
	i.User, i.Entrypoint = "0", []string{"/baton-agent"}
	i.Files = []image.File{{Path: "/baton-agent", From: binary, Mode: 0o755}}
	return i.WriteFile(out)
}

func buildParts(ctx context.Context, l lab, args []string) error {
	tier, config := "nodes", build.Config{Progress: l.stderr}
	flags := l.flags("build", func(f *flag.FlagSet) {
		f.StringVar(&tier, "tier", tier, "api: etcd and kube-apiserver, no root; nodes: everything")
		f.StringVar(&config.Kubernetes, "kubernetes", "", "version; default $K8S, else "+build.DefaultKubernetes)
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	cache, err := build.New(config)
	if err != nil {
		return err
	}
	switch tier {
	case "api":
		dir, err := cache.API(ctx)
		fmt.Fprintln(l.stdout, dir)
		return err
	case "nodes":
		_, err := cache.Nodes(ctx)
		return err
	}
	return fmt.Errorf("tier %q: want api or nodes", tier)
}
