package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/util/wait"

	"kubebaton.io/baton/config"
	"kubebaton.io/baton/host"
	"kubebaton.io/baton/kube"
	"kubebaton.io/baton/wire"
)

// daemon is the running agent with what the program adds to it.
type daemon struct {
	options
	log   *slog.Logger
	reg   *prometheus.Registry
	agent *wire.Agent
	valid prometheus.Gauge
}

// serve builds the agent and runs it until ctx ends. It returns an error only for what a restart with the same flags
// would meet again.
func serve(ctx context.Context, o options, log *slog.Logger) error {
	log.Info("starts", "version", buildVersion())
	d := &daemon{options: o, log: log, reg: prometheus.NewRegistry()}
	d.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	d.valid = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "baton_config_valid", Help: "1 when the configuration file as it is now is the one in force, 0 when it is refused.",
	})
	d.reg.MustRegister(d.valid)
	if err := d.build(); err != nil {
		return err
	}
	if c, err := config.Load(o.configFile); err == nil { // else the watch says what is wrong with it
		d.configured(ctx, c, nil)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.http(ctx) })
	g.Go(func() error { return d.agent.Run(ctx) })
	g.Go(func() error { return d.trim(ctx) })
	g.Go(func() error {
		config.Watch(ctx, filepath.Dir(o.configFile), filepath.Base(o.configFile), func(c *config.Config, err error) { d.configured(ctx, c, err) })
		return nil
	})
	err := g.Wait()
	log.Info("stopped: the next start goes on from here")
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// build makes the agent.
func (d *daemon) build() error {
	cfg, err := kube.Config(d.kubeconfig, "baton-agent/"+buildVersion())
	if err != nil {
		return err
	}
	hooks, err := host.New(host.Config{Root: d.hostRoot, BusAddress: d.busAddress, Log: d.log})
	if err != nil {
		return err
	}
	d.agent, err = wire.New(wire.Config{
		Hooks: hooks,
		API:   cfg, Node: d.nodeName, Pod: d.podName, Namespace: d.namespace, Registry: d.reg, Log: d.log,
		Host: func(files []string, reread time.Duration) (wire.Host, error) {
			return host.New(host.Config{Root: d.hostRoot, BusAddress: d.busAddress, Log: d.log, Files: files, Reread: reread})
		},
	})
	return err
}

// eventTimeout bounds the wait for an Event to be written.
const eventTimeout = 10 * time.Second

// configured takes up a new configuration, or tells why the old one stays in force.
func (d *daemon) configured(ctx context.Context, c *config.Config, err error) {
	was, changed := d.agent.Configured(), false
	if err == nil {
		changed, err = d.agent.Configure(c)
	}
	if err != nil {
		d.refused(ctx, err)
		return
	}
	d.valid.Set(1)
	if !changed {
		return
	}
	d.log.Info("configuration in force", "file", d.configFile, "groups", len(c.Groups))
	if was {
		d.tell(ctx, false, "ConfigurationTakenUp", "a changed configuration is in force")
	}
}

func (d *daemon) refused(ctx context.Context, err error) {
	d.valid.Set(0)
	stays := "the one before stays in force"
	if !d.agent.Configured() {
		stays = "there is none in force: no reboot is begun"
	}
	d.log.Error("configuration refused", "now", stays, "file", d.configFile, "err", err)
	d.tell(ctx, true, "ConfigurationRefused", fmt.Sprintf("%s: %v", stays, err))
}

// tell writes an Event on the Node. An agent that has just started with its node may have no network yet. The log has said it
// already: an API server that is away for longer costs nothing but this.
func (d *daemon) tell(ctx context.Context, warning bool, reason, message string) {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	var err error
	if wait.PollUntilContextCancel(ctx, time.Second, true, func(ctx context.Context) (bool, error) {
		err = d.agent.Tell(ctx, warning, reason, message)
		return err == nil, nil
	}) != nil {
		d.log.Warn("an Event was not written", "reason", reason, "err", err)
	}
}
