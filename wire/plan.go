package wire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
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
// or a person's; the slots are in namespace. The host is not asked: a kubelet is taken to leave the pods alone when it shuts down.
func Foresee(ctx context.Context, api *rest.Config, name, namespace string, c *config.Config) (Foresight, error) {
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
	pods, err := podClient(ctx, api, plain, name, slog.New(slog.DiscardHandler))
	if err != nil {
		return Foresight{}, err
	}
	slots, err := lock.New(lock.Config{Clientset: plain, Namespace: namespace, Node: name})
	if err != nil {
		return Foresight{}, err
	}
	d, err := node.NewDrainer(node.DrainerConfig{
		Clientset: pods, Cluster: plain, Node: name,
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

// podClient acts as the node itself where the cluster admits that, so that the agent's token can touch no other node's pods; else
// with the caller's own rights, if those suffice: an API server that has just started forbids everything for a moment.
func podClient(ctx context.Context, api *rest.Config, plain kube.Interface, name string, log *slog.Logger) (kube.Interface, error) {
	own, err := kube.Client(node.OwnNodeConfig(api, name))
	if err != nil {
		return nil, err
	}
	switch err := node.CanImpersonate(ctx, own, name); {
	case apierrors.IsForbidden(err):
		one := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", name).String(), Limit: 1}
		if _, plainErr := plain.CoreV1().Pods(metav1.NamespaceAll).List(ctx, one); plainErr != nil {
			return nil, errors.Join(err, fmt.Errorf("and with the caller's own rights: %w", plainErr))
		}
		log.Warn("pods are read and evicted with the agent's own rights: the cluster does not admit constrained impersonation", "err", err)
		return plain, nil
	case err != nil:
		return nil, err
	}
	return own, nil
}
