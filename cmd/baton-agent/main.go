// Command baton-agent reboots the node that it runs on when its host asks for it: one node of a group after another.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	_ "time/tzdata" // windows name time zones, and the image holds no zone files.

	_ "golang.org/x/crypto/x509roots/fallback" // and no certificates.

	"kubebaton.io/baton/config"
	"kubebaton.io/baton/kube"
)

// version is stamped by the build; a build without a stamp says what the module knows.
var version string

// Exit codes.
const (
	exitOK    = 0
	exitFault = 1 // check-config: the file has faults; or the agent could not be built
	exitUsage = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main with everything that a test may want to replace.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		switch args[0] {
		case "check-config":
			return checkConfig(args[1:], stdout, stderr)
		case "plan":
			return plan(ctx, args[1:], stdout, stderr)
		}
	}
	o, err := parseFlags(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage
	case o.version:
		fmt.Fprintln(stdout, "baton-agent", buildVersion())
		return exitOK
	}
	log := o.logger(stderr)
	kube.RouteLogs(log)
	if err := serve(ctx, o, log); err != nil {
		log.Error("ends", "err", err)
		return exitFault
	}
	return exitOK
}

// checkConfig is `baton-agent check-config FILE`.
func checkConfig(args []string, stdout, stderr io.Writer) int {
	if len(args) != 1 || strings.HasPrefix(args[0], "-") {
		fmt.Fprintln(stderr, "usage: baton-agent check-config FILE\n\nNames all faults of a configuration file; exit code 1 when there is one.")
		return exitUsage
	}
	c, err := config.Load(args[0])
	if err != nil {
		var faults config.Faults
		if !errors.As(err, &faults) {
			fmt.Fprintln(stderr, err)
			return exitFault
		}
		for _, f := range faults {
			fmt.Fprintf(stderr, "%s: %s\n", args[0], f)
		}
		return exitFault
	}
	names := make([]string, 0, len(c.Groups))
	for _, g := range c.Groups {
		names = append(names, fmt.Sprintf("%s (maxUnavailable %s)", g.Name, g.MaxUnavailable))
	}
	fmt.Fprintf(stdout, "%s: valid; groups: %v; windows: %d\n", args[0], names, len(c.Windows))
	return exitOK
}

// options are the flags.
type options struct {
	configFile, kubeconfig        string
	nodeName, podName, namespace  string
	hostRoot, busAddress, address string
	logFormat                     string
	logLevel                      slog.Level
	version                       bool
}

const usage = `baton-agent reboots the node that it runs on when its host asks for it.

It runs as a DaemonSet. When a sentinel such as /run/reboot-required appears on its host, it asks for a slot of its
node's group (a Lease in its own namespace), drains and reboots its node with the slot in hand, proves by the new boot
ID that it came back, uncordons the node, and frees the slot. At most maxUnavailable nodes of a group are down at once.

What it is doing stands in the annotation kubebaton.io/reboot and the label kubebaton.io/phase of its Node, in the
Node's Events, in its metrics, and at /readyz.

Usage:
  baton-agent [flags]
  baton-agent check-config FILE    names all faults of a configuration file; exit code 1 when there is one
  baton-agent plan [flags]         says what a drain of a node would do with each of its pods; see plan --help

Flags:
`

func parseFlags(args []string, stderr io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("baton-agent", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.configFile, "config", "/etc/baton-config/config.yaml",
		"configuration `file`; a changed one is taken up, a broken one is refused and the old one stays in force")
	fs.StringVar(&o.nodeName, "node-name", os.Getenv("NODE_NAME"), "`name` of the Node object of this host (default $NODE_NAME)")
	fs.StringVar(&o.podName, "pod-name", os.Getenv("POD_NAME"), "`name` of the agent's own pod, for whose readiness it does not wait (default $POD_NAME)")
	fs.StringVar(&o.namespace, "namespace", "baton-system", "`namespace` of the slot Leases and of Lease marshal; the admission policies of deploy/base know this one only")
	fs.StringVar(&o.hostRoot, "host-root", "/host", "`directory` beneath which the host's paths are mounted")
	fs.StringVar(&o.busAddress, "bus-address", "",
		"D-Bus `address` of the host's system bus (default unix:path=HOST-ROOT/run/dbus/system_bus_socket)")
	fs.StringVar(&o.address, "listen", ":8080", "`address` of /metrics, /healthz and /readyz")
	fs.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig `file`, for an agent outside the cluster (default the pod's own token)")
	fs.StringVar(&o.logFormat, "log-format", "json", "json or text")
	fs.TextVar(&o.logLevel, "log-level", slog.LevelInfo, "debug, info, warn or error")
	fs.BoolVar(&o.version, "version", false, "print the version and exit")
	fs.Usage = func() {
		fmt.Fprint(stderr, usage)
		fs.PrintDefaults()
	}
	if err := fs.Parse(args); err != nil {
		return o, fmt.Errorf("parsing the flags: %w", err)
	}
	var faults []error
	if fs.NArg() > 0 {
		faults = append(faults, fmt.Errorf("unexpected argument %q: see --help", fs.Arg(0)))
	}
	if o.logFormat != "json" && o.logFormat != "text" {
		faults = append(faults, fmt.Errorf("--log-format %q: must be json or text", o.logFormat))
	}
	if o.nodeName == "" && !o.version {
		faults = append(faults, errors.New("--node-name is empty: set it, or NODE_NAME from the downward API (spec.nodeName)"))
	}
	err := errors.Join(faults...)
	if err != nil {
		fmt.Fprintln(stderr, err)
	}
	return o, err
}

func (o options) logger(w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: o.logLevel}
	var h slog.Handler = slog.NewJSONHandler(w, opts)
	if o.logFormat == "text" {
		h = slog.NewTextHandler(w, opts)
	}
	return slog.New(h).With("node", o.nodeName)
}

func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v += " " + s.Value
		}
	}
	return v + " " + info.GoVersion
}
