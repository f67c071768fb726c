package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"

	"kubebaton.io/baton/agent"
	"kubebaton.io/baton/config"
	"kubebaton.io/baton/host"
	"kubebaton.io/baton/kube"
	"kubebaton.io/baton/lock"
	"kubebaton.io/baton/marshal"
	"kubebaton.io/baton/node"
)

// daemon is the running agent with everything that the configuration reaches.
type daemon struct {
	options
	log     *slog.Logger
	reg     *prometheus.Registry
	client  *node.Client
	agent   *agent.Agent
	marshal *marshal.Marshal
	host    *hostSeam
	config  atomic.Pointer[config.Config]
	valid   prometheus.Gauge
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
	g.Go(func() error { return d.marshal.Run(ctx) })
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

// build makes the parts and joins them.
func (d *daemon) build() error {
	cfg, err := kube.Config(d.kubeconfig, "baton-agent/"+buildVersion())
	if err != nil {
		return err
	}
	clock := &kube.Clock{}
	clock.Observe(cfg)
	serverNow := func() time.Time { return time.Now().Add(-clock.Skew()) }
	client, err := kube.Client(cfg)
	if err != nil {
		return err
	}
	if d.client, err = node.New(node.Config{Clientset: client, Name: d.nodeName, Log: d.log}); err != nil {
		return err
	}
	slots, err := lock.New(lock.Config{Clientset: client, Namespace: d.namespace, Node: d.nodeName, Registerer: d.reg, Log: d.log, Now: serverNow})
	if err != nil {
		return err
	}
	h, err := host.New(host.Config{Root: d.hostRoot, BusAddress: d.busAddress, Log: d.log})
	if err != nil {
		return err
	}
	d.host = newHostSeam(h)
	d.marshal, err = marshal.New(marshal.Config{
		Clientset: client, Namespace: d.namespace, Self: d.nodeName, Groups: d.groups, Slots: orderSeam{slots},
		Registerer: d.reg, Log: d.log, Now: serverNow, Times: d.times,
	})
	if err != nil {
		return err
	}
	d.agent, err = agent.New(agent.Config{
		Node: nodeSeam{d.client}, Slots: slotSeam{slots}, Host: d.host, Marshal: marshalSeam{d.marshal}, Clock: clock,
		Pods: newPodSeam(func(ctx context.Context) (*node.Drainer, error) { return d.drainer(ctx, cfg, client) }, d.drainRules),
		Home: homeSeam{client, d.namespace}, Log: d.log, Registerer: d.reg,
	})
	return err
}

// eventTimeout bounds the wait for an Event to be written.
const eventTimeout = 10 * time.Second

// drainer makes the client for pods and evictions: it acts as the agent's own node where the cluster admits that, so
// that the agent's token can touch no other node's pods.
func (d *daemon) drainer(ctx context.Context, cfg *rest.Config, plain kube.Interface) (*node.Drainer, error) {
	own, err := kube.Client(node.OwnNodeConfig(cfg, d.nodeName))
	if err != nil {
		return nil, err
	}
	switch err := node.CanImpersonate(ctx, own, d.nodeName); {
	case apierrors.IsForbidden(err):
		d.log.Warn("pods are read and evicted with the agent's own rights: the cluster does not admit constrained impersonation", "err", err)
		own = plain
	case err != nil:
		return nil, err
	}
	return node.NewDrainer(node.DrainerConfig{
		Clientset: own, Cluster: plain, Node: d.nodeName, Self: d.podName, EndsPods: d.host.KubeletEndsPods, Metrics: d.reg, Log: d.log,
	})
}

// times are the marshal's durations in the configuration; 0 before there is one.
func (d *daemon) times() (nomination, grace time.Duration) {
	if c := d.config.Load(); c != nil {
		return time.Duration(c.NominationTimeout), time.Duration(c.DeletedGrace)
	}
	return 0, 0
}

// groups is the configuration as the marshal reads it.
func (d *daemon) groups() []marshal.Group {
	c := d.config.Load()
	if c == nil {
		return nil
	}
	out := make([]marshal.Group, len(c.Groups))
	for i, g := range c.Groups {
		out[i] = marshal.Group{
			Name: g.Name, Match: g.Match(), MaxFailed: g.MaxFailed, RebootTimeout: time.Duration(g.RebootTimeout),
			After: g.After, TopologyKey: g.TopologyKey, Canaries: g.Canary.Nodes, CanarySoak: time.Duration(g.Canary.Soak),
		}
		if g.MaxUnavailable.Percent {
			out[i].MaxUnavailablePercent = g.MaxUnavailable.Value
		} else {
			out[i].MaxUnavailable = g.MaxUnavailable.Value
		}
	}
	return out
}

// drainRules are the rules of a group's drain in the configuration; those of no group are the top level's.
func (d *daemon) drainRules(group string) node.DrainSettings {
	c := d.config.Load()
	if c == nil {
		return node.DrainSettings{}
	}
	drain := c.Drain
	if i := slices.IndexFunc(c.Groups, func(g config.Group) bool { return g.Name == group }); i >= 0 {
		drain = c.Groups[i].Drain
	}
	return drainSettings(drain)
}

func drainSettings(d config.Drain) node.DrainSettings {
	unmanaged := d.UnmanagedPods
	if unmanaged == config.Delete {
		unmanaged = node.DoEvict
	}
	s := node.DrainSettings{
		Policy: node.Policy{
			Mode: d.Mode, Unmanaged: unmanaged, LocalVolumes: d.LocalVolumes, EmptyDir: d.EmptyDir, Jobs: d.Jobs,
			JobsFor: time.Duration(d.JobTimeout), Annotated: d.AnnotatedPods, MinAge: time.Duration(d.MinPodAge),
		},
		Timeout: time.Duration(d.Timeout), Grace: time.Duration(d.GracePeriod), Wait: time.Duration(d.LoadBalancers.Wait),
		Volumes: time.Duration(d.VolumeTimeout),
	}
	for _, r := range d.Rules {
		rule := node.Rule{Namespaces: r.Namespaces, Do: r.Do}
		if selector, err := metav1.LabelSelectorAsSelector(&r.PodSelector); err == nil { // Parse has seen to it
			rule.Match = func(l map[string]string) bool { return selector.Matches(labels.Set(l)) }
		}
		s.Rules = append(s.Rules, rule)
	}
	return s
}

// configured takes up a new configuration, or tells why the old one stays in force.
func (d *daemon) configured(ctx context.Context, c *config.Config, err error) {
	if err != nil {
		d.refused(ctx, err)
		return
	}
	if reflect.DeepEqual(d.config.Load(), c) {
		d.valid.Set(1)
		return
	}
	sched, err := c.Schedule()
	if err != nil {
		d.refused(ctx, err)
		return
	}
	h, err := host.New(host.Config{
		Root: d.hostRoot, BusAddress: d.busAddress, Log: d.log, Files: c.Sentinels.Files, Reread: time.Duration(c.Sentinels.RecheckInterval),
	})
	if err != nil {
		d.refused(ctx, err)
		return
	}
	was := d.config.Swap(c)
	if was == nil || !slices.Equal(was.Sentinels.Files, c.Sentinels.Files) || was.Sentinels.RecheckInterval != c.Sentinels.RecheckInterval {
		d.host.look(h)
	}
	d.valid.Set(1)
	d.agent.SetPolicy(policy(c, scheduleSeam{sched}))
	d.marshal.Reconfigured()
	d.log.Info("configuration in force", "file", d.configFile, "groups", len(c.Groups))
	if was != nil {
		d.tell(ctx, false, "ConfigurationTakenUp", "a changed configuration is in force")
	}
}

func (d *daemon) refused(ctx context.Context, err error) {
	d.valid.Set(0)
	stays := "the one before stays in force"
	if d.config.Load() == nil {
		stays = "there is none in force: no reboot is begun"
	}
	d.log.Error("configuration refused", "now", stays, "file", d.configFile, "err", err)
	d.tell(ctx, true, "ConfigurationRefused", fmt.Sprintf("%s: %v", stays, err))
}

// tell writes an Event on the Node. The log has said it already: an API server that is away costs nothing but this.
func (d *daemon) tell(ctx context.Context, warning bool, reason, message string) {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	seam := nodeSeam{d.client}
	n, err := seam.Get(ctx)
	if err == nil {
		err = seam.Event(ctx, n, warning, reason, message)
	}
	if err != nil {
		d.log.Warn("an Event was not written", "reason", reason, "err", err)
	}
}

// policy is the configuration as the cycle reads it.
func policy(c *config.Config, s agent.Schedule) agent.Policy {
	return agent.Policy{Schedule: s, Of: func(l map[string]string) (string, agent.Settings) {
		g, in := c.GroupOf(l)
		if !in {
			g.RebootTimeout, g.Soak, g.Drain = c.RebootTimeout, c.Verify.Soak, c.Drain
		}
		return g.Name, agent.Settings{
			GateInterval: time.Duration(c.GateInterval), DrainTimeout: time.Duration(g.Drain.Timeout),
			RebootTimeout: time.Duration(g.RebootTimeout), VerifyTimeout: time.Duration(c.Verify.Timeout), Soak: time.Duration(g.Soak),
			BackoffInitial: time.Duration(c.Backoff.Initial), BackoffMax: time.Duration(c.Backoff.Max),
			MaxReboots24h: c.MaxReboots24h, PendingTaint: c.PendingTaint, Exclude: g.Drain.LoadBalancers.Exclude,
		}
	}}
}
