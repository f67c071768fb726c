// Command lab runs a real Kubernetes cluster on one machine: see README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"kubebaton.io/baton/lab/cluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode()) // of the command that was run; it has said why
	default:
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

// lab is one call of the command.
type lab struct {
	stdout, stderr io.Writer
	name           string // of the cluster
}

type command struct {
	use, help string
	run       func(context.Context, lab, []string) error
}

func commands() []command {
	return []command{
		{"up [--nodes N] [--control-plane N | --workers-only]", "start a cluster, in place of the one that is there", up},
		{"down", "stop the cluster and remove all that it owns", down},
		{"status", "nodes, with their machines' power", status},
		{"kubectl -- ARGS…", "kubectl as administrator, inside the cluster's network", kubectl},
		{"exec NODE -- CMD…", "run a command inside a node", execute},
		{"load IMAGE.tar [NODE…]", "import an image into the nodes", load},
		{"install [--image TAR] [--apply DIR]", "load the agent's image, apply deploy/base unchanged, wait for it", install},
		{"sentinel NODE…", "make nodes want a reboot", sentinel},
		{"power NODE on|off|cycle", "switch a node's machine; off and cycle cut it", power},
		{"node add | node remove NODE", "add a node; remove one for good", node},
		{"demo [--out FILE] [--keep]", "a rollout of reboots over three nodes, watched, measured, and compared with one by hand", runDemo},
		{"bench [--idle DURATION] [--out FILE] [--keep | --reuse]", "hand-over, detection, requests and memory of the agents, sizes: figures with goals", runBench},
		{"bench-drain [--pods N,…] [--only REGEX] [--out FILE]", "drains of the same pods by Baton and by kubectl's library: time, requests, budgets, webhooks", runBenchDrain},
		{"spread [--nodes N] [--replicas N] [--out FILE]", "evictions a pod in a rollout over six nodes, with the taint on waiting nodes and without it", runSpread},
		{"fleet [--nodes N] [--max M] [--churn] [--seed N] [--out FILE]", "a rollout over N simulated nodes with real agents and a real API server: time and cost", runFleet},
		{"audit [--by pod|user] [--since DURATION]", "API requests counted from the audit log", countAudit},
		{"image --out TAR --name NAME --binary FILE [--arch ARCH]", "write an image of a static binary", writeImage},
		{"e2e [--short] [--only REGEX] [--keep | --reuse] [--out FILE]", "scenarios on four real nodes: what must hold when things go wrong", endToEnd},
		{"chaos [--seed N] [--minutes M] [--nodes N] [--keep | --reuse] [--out FILE]", "faults at every moment of every cycle, by a seeded plan, and a judge who looks on", runChaos},
		{"build [--tier api|nodes]", "make the parts only; api needs no root and prints KUBEBUILDER_ASSETS", buildParts},
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	l := lab{stdout: stdout, stderr: stderr}
	flags := l.flags("lab", func(f *flag.FlagSet) {
		f.StringVar(&l.name, "cluster", cluster.DefaultName, "name of the cluster; clusters of other names do not meet")
	})
	flags.Usage = func() { l.usage() }
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		l.usage()
		return flag.ErrHelp
	}
	for _, c := range commands() {
		if word := firstWord(c.use); word == flags.Arg(0) {
			return c.run(ctx, l, flags.Args()[1:])
		}
	}
	l.usage()
	return fmt.Errorf("no command %q", flags.Arg(0))
}

func (l lab) flags(name string, define func(*flag.FlagSet)) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(l.stderr)
	define(f)
	return f
}

func (l lab) usage() {
	fmt.Fprintf(l.stderr, "A real Kubernetes cluster on one machine.\n\n  lab [--cluster NAME] COMMAND\n\n")
	for _, c := range commands() {
		fmt.Fprintf(l.stderr, "  %-58s %s\n", c.use, c.help)
	}
	fmt.Fprint(l.stderr, "\nEnvironment: BATON_LAB cache directory, K8S version of Kubernetes, BATON_LAB_MIRROR Debian mirror.\n")
}

func (l lab) open() (*cluster.Cluster, error) { return cluster.Open(l.name, "") }

func firstWord(s string) string {
	var word string
	_, _ = fmt.Sscan(s, &word)
	return word
}

// after drops a leading "--", which separates the lab's arguments from those of a command.
func after(args []string) []string {
	if len(args) > 0 && args[0] == "--" {
		return args[1:]
	}
	return args
}
