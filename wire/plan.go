package wire

import (
	"context"
	"fmt"

	"k8s.io/client-go/rest"

	"kubebaton.io/baton/agent"
	"kubebaton.io/baton/config"
	"kubebaton.io/baton/kube"
	"kubebaton.io/baton/lock"
	"kubebaton.io/baton/node"
)

// Foresight is what a drain of a node would do if it began now.
type Foresight struct {
	Group    string // of the node, by its labels; "" none
	Plan     node.DrainPlan
	Warnings []node.Warning // what would hold the drain up
}

// Foresee looks at the pods of a node by the rules of c, and changes nothing: evictions are only tried on. api may be an agent's
// or a person's; the slots are in namespace. endsPods tells whether the kubelet ends every pod when the host shuts down; nil: it is
// taken to leave them alone.
func Foresee(ctx context.Context, api *rest.Config, name, namespace string, c *config.Config, endsPods func(context.Context) (bool, error)) (Foresight, error) {
	plain, err := kube.Client(api)
	if err != nil {
		return Foresight{}, err
	}
	nodes, err := node.New(node.Config{Clientset: plain, Name: name})
	if err != nil {
		return Foresight{}, err
	}
	n, err := nodes.Get(ctx)
	if err != nil {
		return Foresight{}, err
	}
	g, _ := c.GroupOf(n.Labels)
	own, err := kube.Client(node.OwnNodeConfig(api, name))
	if err != nil {
		return Foresight{}, err
	}
	slots, err := lock.New(lock.Config{Clientset: plain, Namespace: namespace, Node: name})
	if err != nil {
		return Foresight{}, err
	}
	d, err := node.NewDrainer(node.DrainerConfig{
		Clientset: own, Cluster: plain, Node: name, EndsPods: endsPods,
		OthersDown: func(ctx context.Context) ([]string, error) { return holders(ctx, slots, name) },
	})
	if err != nil {
		return Foresight{}, err
	}
	f := Foresight{Group: g.Name}
	rules := drainRules(c, g.Name)
	rules.Downtimes = agent.Downtimes(n.History)
	if f.Plan, f.Warnings, err = d.Preflight(ctx, rules); err != nil {
		return f, fmt.Errorf("planning the drain of node %q: %w", name, err)
	}
	return f, nil
}
