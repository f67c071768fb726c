package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"text/tabwriter"
	"time"

	"kubebaton.io/baton/config"
	"kubebaton.io/baton/host"
	"kubebaton.io/baton/kube"
	"kubebaton.io/baton/node"
	"kubebaton.io/baton/wire"
)

const planUsage = `baton-agent plan says what a drain of a node would do with each of its pods if it began now, and what would hold it up.
It changes nothing; whether an eviction would be admitted is asked by a dry run. Under drain.mode auto it goes by the downtimes
in the history of the node. Whether the kubelet ends pods when the host shuts down is asked of the host in the agent's pod; anywhere
else it is taken to leave them alone.

  kubectl -n baton-system exec POD -- /baton-agent plan                          in the agent's pod, for its node
  baton-agent plan --node-name NODE --kubeconfig ~/.kube/config --config FILE    anywhere

It looks at the pods. Windows, pauses and the other gates are in the node's record, and who goes next is the marshal's to say.

Exit code 0: the pods let a drain begin. 1: one of them does not, the node is in no group, or the plan could not be made.

Flags:
`

// planTime is how long a plan may take.
const planTime = time.Minute

// plan is `baton-agent plan`.
func plan(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("baton-agent plan", flag.ContinueOnError)
	flags.SetOutput(stderr)
	here := os.Getenv("NODE_NAME")
	var o planOptions
	flags.StringVar(&o.configFile, "config", "/etc/baton-config/config.yaml", "configuration `file` whose rules hold")
	flags.StringVar(&o.nodeName, "node-name", here, "`name` of the Node (default $NODE_NAME)")
	flags.StringVar(&o.namespace, "namespace", "baton-system", "`namespace` of the slot Leases")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig `file` (default the pod's own token)")
	flags.StringVar(&o.host.Root, "host-root", "/host", "`directory` beneath which the paths of the host of $NODE_NAME are mounted")
	flags.StringVar(&o.host.BusAddress, "bus-address", "", "D-Bus `address` of its system bus (default unix:path=HOST-ROOT/run/dbus/system_bus_socket)")
	flags.Usage = func() {
		fmt.Fprint(stderr, planUsage)
		flags.PrintDefaults()
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage
	}
	var faults []error
	if flags.NArg() > 0 {
		faults = append(faults, fmt.Errorf("unexpected argument %q: see --help", flags.Arg(0)))
	}
	if o.nodeName == "" {
		faults = append(faults, errors.New("--node-name is empty: set it, or NODE_NAME"))
	}
	if err := errors.Join(faults...); err != nil {
		fmt.Fprintln(stderr, err)
		return exitUsage
	}
	ctx, cancel := context.WithTimeout(ctx, planTime)
	defer cancel()
	o.own = o.nodeName == here
	f, err := o.foresee(ctx, stderr)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitFault
	}
	return printPlan(stdout, o.nodeName, f)
}

// planOptions are the flags of a plan.
type planOptions struct {
	configFile, kubeconfig, nodeName, namespace string
	host                                        host.Config
	own                                         bool // the Node is this host's
}

func (o planOptions) foresee(ctx context.Context, stderr io.Writer) (wire.Foresight, error) {
	c, err := config.Load(o.configFile)
	if err != nil {
		return wire.Foresight{}, err
	}
	api, err := kube.Config(o.kubeconfig, "baton-agent/"+buildVersion())
	if err != nil {
		return wire.Foresight{}, err
	}
	var endsPods func(context.Context) (bool, error)
	if o.own && o.host.BusAddress == "" && absent(o.host.Root) {
		fmt.Fprintf(stderr, "no host is mounted at %s: whether the kubelet ends pods when the host shuts down is not asked\n", o.host.Root)
		o.own = false
	}
	if o.own {
		h, err := host.New(o.host)
		if err != nil {
			return wire.Foresight{}, err
		}
		endsPods = h.KubeletEndsPods
	}
	return wire.Foresee(ctx, api, o.nodeName, o.namespace, c, endsPods)
}

func absent(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// printPlan says everything, those pods first that keep the drain from beginning, and returns the exit code.
func printPlan(w io.Writer, name string, f wire.Foresight) int {
	code := exitOK
	fmt.Fprintf(w, "node %s, group %s\n", name, cmp.Or(f.Group, "none: it waits with reason group"))
	if f.Group == "" {
		code = exitFault
	}
	if f.Plan.Mode != "" {
		fmt.Fprintf(w, "mode: %s\n", f.Plan.Mode)
	}
	if f.Plan.Held != "" {
		fmt.Fprintf(w, "no drain begins now: %s\n", f.Plan.Held)
		code = exitFault
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "\nDECISION\tPOD\tCONTROLLER\tREASON\tUSERS FEEL\tWHY")
	for _, d := range []string{node.DecisionBlock, node.DecisionWait, node.DecisionEvict, node.DecisionRideThrough, node.DecisionIgnore} {
		for _, p := range f.Plan.Pods {
			if p.Decision != d {
				continue
			}
			fmt.Fprintf(tw, "%s\t%s/%s\t%s\t%s\t%s\t%s\n", d, p.Namespace, p.Name, cmp.Or(p.Owner, "-"), p.Reason, cmp.Or(p.Impact, "-"), p.Message)
			if d == node.DecisionBlock {
				code = exitFault
			}
		}
	}
	_ = tw.Flush() // as with every other line: nobody to tell
	for _, warning := range f.Warnings {
		fmt.Fprintf(w, "\nwarning: %s: %s\n", warning.Reason, warning.Message)
	}
	return code
}
