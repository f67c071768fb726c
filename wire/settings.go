package wire

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"kubebaton.io/baton/agent"
	"kubebaton.io/baton/config"
	"kubebaton.io/baton/marshal"
	"kubebaton.io/baton/node"
)

// times are the marshal's durations in the configuration; 0 before there is one.
func (a *Agent) times() (nomination, grace time.Duration) {
	if c := a.config.Load(); c != nil {
		return time.Duration(c.NominationTimeout), time.Duration(c.DeletedGrace)
	}
	return 0, 0
}

// groups is the configuration as the marshal reads it; nil while there is none.
func groups(c *config.Config) []marshal.Group {
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
func drainRules(c *config.Config, group string) node.DrainSettings {
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
	s := node.DrainSettings{
		Policy:  podPolicy(d),
		Timeout: time.Duration(d.Timeout), Grace: time.Duration(d.GracePeriod), Wait: time.Duration(d.LoadBalancers.Wait),
		Volumes: time.Duration(d.VolumeTimeout),
	}
	for _, r := range d.Rules {
		rule := node.Rule{Namespaces: r.Namespaces, Policy: podPolicy(d.Under(r))}
		rule.Policy.Do = r.Do
		selector, err := metav1.LabelSelectorAsSelector(&r.PodSelector)
		if err != nil { // Parse has seen to it that there is none
			selector = labels.Nothing()
		}
		rule.Match = func(l map[string]string) bool { return selector.Matches(labels.Set(l)) }
		s.Rules = append(s.Rules, rule)
	}
	return s
}

// podPolicy is a drain without its rules.
func podPolicy(d config.Drain) node.Policy {
	return node.Policy{
		Mode: d.Mode, Unmanaged: d.UnmanagedPods, LocalVolumes: d.LocalVolumes, EmptyDir: d.EmptyDir, Jobs: d.Jobs,
		JobsFor: time.Duration(d.JobTimeout), Annotated: d.AnnotatedPods, MinAge: time.Duration(d.MinPodAge),
	}
}

// policy is the configuration as the cycle reads it.
func policy(c *config.Config, s agent.Schedule) agent.Policy {
	rules := map[string]string{}
	for _, g := range c.Groups {
		rules[g.Name] = fmt.Sprintf("%+v", g.Drain)
	}
	return agent.Policy{Schedule: s, Rules: func(group string) string { return rules[group] }, Of: func(l map[string]string) (string, agent.Settings) {
		g, in := c.GroupOf(l)
		if !in {
			g.RebootTimeout, g.Soak, g.Drain = c.RebootTimeout, c.Verify.Soak, c.Drain
		}
		return g.Name, agent.Settings{
			GateInterval: time.Duration(c.GateInterval), DrainTimeout: time.Duration(g.Drain.Timeout),
			RebootTimeout: time.Duration(g.RebootTimeout), VerifyTimeout: time.Duration(c.Verify.Timeout), Soak: time.Duration(g.Soak),
			HookTimeout: time.Duration(c.Hooks.Timeout), BackoffInitial: time.Duration(c.Backoff.Initial), BackoffMax: time.Duration(c.Backoff.Max),
			MaxReboots24h: c.MaxReboots24h, PendingTaint: c.PendingTaint, Exclude: g.Drain.LoadBalancers.Exclude,
		}
	}}
}
