package wire

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"kubebaton.io/baton/agent"
	"kubebaton.io/baton/config"
	"kubebaton.io/baton/kube"
	"kubebaton.io/baton/lock"
	"kubebaton.io/baton/marshal"
	"kubebaton.io/baton/node"
)

// Config is what an [Agent] needs; all but Pod and Hooks is required.
type Config struct {
	API       *rest.Config // best one from [kube.Config]
	Node      string       // name of the own Node
	Pod       string       // name of the agent's own pod, for whose readiness it does not wait
	Namespace string       // of the slots and of Lease marshal
	// Host opens the machine beneath, with the sentinels that are looked for; no files and 0 are its defaults.
	Host     func(files []string, reread time.Duration) (Host, error)
	Hooks    Hooks // nil: none are run
	Registry prometheus.Registerer
	Log      *slog.Logger
}

// Agent is an agent with all its parts. Until it is configured it begins no reboot.
type Agent struct {
	Config
	client  *node.Client
	agent   *agent.Agent
	marshal *marshal.Marshal
	host    *hostSeam
	config  atomic.Pointer[config.Config]
}

// New makes the parts and joins them.
func New(c Config) (*Agent, error) {
	if c.API == nil || c.Host == nil {
		return nil, errors.New("wire: Config.API and Config.Host are required")
	}
	a := &Agent{Config: c}
	api, err := kube.Shared(c.API)
	if err != nil {
		return nil, err
	}
	a.API = api
	clock := &kube.Clock{}
	clock.Observe(a.API)
	serverNow := func() time.Time { return time.Now().Add(-clock.Skew()) }
	client, err := kube.Client(a.API)
	if err != nil {
		return nil, err
	}
	if a.client, err = node.New(node.Config{
		Clientset: client, Name: c.Node, Log: c.Log, Restored: func() { a.marshal.Restored() },
	}); err != nil {
		return nil, err
	}
	slots, err := lock.New(lock.Config{
		Clientset: client, Namespace: c.Namespace, Node: c.Node, Registerer: c.Registry, Log: c.Log, Now: serverNow,
	})
	if err != nil {
		return nil, err
	}
	h, err := c.Host(nil, 0)
	if err != nil {
		return nil, err
	}
	a.host = newHostSeam(h)
	a.marshal, err = marshal.New(marshal.Config{
		Clientset: client, Namespace: c.Namespace, Self: c.Node, Groups: func() []marshal.Group { return groups(a.config.Load()) },
		Slots: orderSeam{slots}, Registerer: c.Registry, Log: c.Log, Now: serverNow, Times: a.times,
	})
	if err != nil {
		return nil, err
	}
	drainer, err := a.drainer(client, slots)
	if err != nil {
		return nil, err
	}
	var hooks agent.Hooks
	if c.Hooks != nil {
		hooks = hookSeam{c.Hooks}
	}
	a.agent, err = agent.New(agent.Config{
		Node: nodeSeam{a.client}, Slots: slotSeam{slots}, Host: a.host, Marshal: marshalSeam{a.marshal}, Clock: clock,
		Pods:  podSeam{drainer, func(group string) node.DrainSettings { return drainRules(a.config.Load(), group) }},
		Hooks: hooks, Home: homeSeam{client, c.Namespace}, Log: c.Log, Registerer: c.Registry,
	})
	return a, err
}

// Run runs the cycle, and the marshal when this agent is elected, until ctx ends.
func (a *Agent) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.agent.Run(ctx) })
	g.Go(func() error { return a.marshal.Run(ctx) })
	return g.Wait()
}

// Status says what the agent is doing.
func (a *Agent) Status() agent.Status { return a.agent.Status() }

// Leading tells whether this agent is the marshal.
func (a *Agent) Leading() bool { return a.marshal.Leading() }

// Alive is nil while the agent's loop turns.
func (a *Agent) Alive() error { return a.agent.Alive() }

// Configured tells whether a configuration is in force.
func (a *Agent) Configured() bool { return a.config.Load() != nil }

// Configure puts c in force and tells whether it differs from the one before. After an error, that one stays. Calls must
// not overlap.
func (a *Agent) Configure(c *config.Config) (changed bool, err error) {
	was := a.config.Load()
	if reflect.DeepEqual(was, c) {
		return false, nil
	}
	sched, err := c.Schedule()
	if err != nil {
		return false, err
	}
	h, err := a.Host(c.Sentinels.Files, time.Duration(c.Sentinels.RecheckInterval))
	if err != nil {
		return false, err
	}
	a.config.Store(c)
	if was == nil || !slices.Equal(was.Sentinels.Files, c.Sentinels.Files) || was.Sentinels.RecheckInterval != c.Sentinels.RecheckInterval {
		a.host.look(h)
	}
	a.agent.SetPolicy(policy(c, scheduleSeam{sched}))
	a.marshal.Reconfigured()
	return true, nil
}

// Tell writes an Event on the own Node.
func (a *Agent) Tell(ctx context.Context, warning bool, reason, message string) error {
	seam := nodeSeam{a.client}
	n, err := seam.Get(ctx)
	if err != nil {
		return err
	}
	return seam.Event(ctx, n, warning, reason, message)
}

// drainer acts as the node itself where the cluster admits that.
func (a *Agent) drainer(plain kube.Interface, slots *lock.Slots) (*node.Drainer, error) {
	own, err := kube.Client(node.OwnNodeConfig(a.API, a.Node))
	if err != nil {
		return nil, err
	}
	return node.NewDrainer(node.DrainerConfig{
		Clientset: own, Cluster: plain, Follow: a.client, Node: a.Node, Self: a.Pod, EndsPods: a.host.KubeletEndsPods,
		OthersDown: func(ctx context.Context) ([]string, error) { return holders(ctx, slots, a.Node) }, Metrics: a.Registry, Log: a.Log,
	})
}

// holders are the other nodes that hold a slot, of whatever group, and the slots that are offered to others.
func holders(ctx context.Context, slots *lock.Slots, own string) ([]string, error) {
	all, err := slots.List(ctx)
	if err != nil {
		return nil, err
	}
	ours, err := slots.Named(ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(s lock.Slot) bool {
		return slices.ContainsFunc(ours, func(o lock.Slot) bool { return o.Name == s.Name })
	})
	var names []string
	for _, s := range all {
		switch {
		case s.Holder == "" && s.Nominee != "":
			names = append(names, "the node to which "+s.Name+" is offered")
		case s.Holder != "" && s.Holder != own:
			names = append(names, s.Holder)
		}
	}
	return names, nil
}
