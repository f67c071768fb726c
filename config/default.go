package config

import (
	"cmp"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	controlPlane    = "control-plane"
	workers         = "workers"
	defaultTimeZone = "UTC"

	defaultCanaryNodes = 1
	defaultCanarySoak  = Duration(30 * time.Minute)
)

// defaultGroups are those of a file that names none: the control plane one at a time and last, and all others.
func defaultGroups(c *Config) []Group {
	role := func(name string) metav1.LabelSelector {
		return metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: "node-role.kubernetes.io/" + name, Operator: metav1.LabelSelectorOpExists},
		}}
	}
	return []Group{
		{
			Name: controlPlane, NodeSelectors: []metav1.LabelSelector{role("control-plane"), role("master"), role("etcd")},
			MaxUnavailable: Amount{Value: 1}, MaxFailed: c.MaxFailed, Soak: c.Verify.Soak, After: []string{workers}, Drain: c.Drain,
		},
		{Name: workers, MaxFailed: c.MaxFailed, Soak: c.Verify.Soak, Drain: c.Drain},
	}
}

// Default is the configuration of a file that says nothing. It is the one place where
// defaults stand.
func Default() *Config {
	c := &Config{
		APIVersion:     APIVersion,
		Kind:           Kind,
		Sentinels:      Sentinels{RecheckInterval: Duration(10 * time.Minute)}, // Files: see fill
		GateInterval:   Duration(5 * time.Minute),
		PendingTaint:   true,
		MaxUnavailable: Amount{Value: 1},
		MaxFailed:      0,
		// systemd forces a reboot whose orderly way takes 30 minutes, and a server may need another 15 to start.
		RebootTimeout: Duration(45 * time.Minute),
		Drain: Drain{
			Mode: Always, Timeout: Duration(15 * time.Minute), VolumeTimeout: Duration(time.Minute),
			UnmanagedPods: Block, LocalVolumes: Evict, EmptyDir: Evict, Jobs: Evict, AnnotatedPods: Block,
		},
		Hooks:             Hooks{Timeout: Duration(5 * time.Minute)},
		Verify:            Verify{Timeout: Duration(15 * time.Minute), Soak: 0},
		Backoff:           Backoff{Initial: Duration(time.Minute), Max: Duration(time.Hour)},
		DeletedGrace:      Duration(30 * time.Second),
		NominationTimeout: Duration(30 * time.Second),
		MaxReboots24h:     2,
	}
	c.fill()
	return c
}

// fill gives the lists their defaults: what hangs on other fields or stands in elements.
func (c *Config) fill() {
	if c.Sentinels.Files == nil {
		c.Sentinels.Files = []string{"/run/reboot-required", "/run/reboot-needed"}
	}
	if len(c.Groups) == 0 {
		c.Groups = defaultGroups(c)
	}
	for i := range c.Groups {
		g := &c.Groups[i]
		if g.MaxUnavailable == (Amount{}) {
			g.MaxUnavailable = c.MaxUnavailable
		}
		if g.RebootTimeout == 0 {
			g.RebootTimeout = c.RebootTimeout
		}
		if g.Canary != (Canary{}) {
			g.Canary.Nodes = cmp.Or(g.Canary.Nodes, defaultCanaryNodes)
			g.Canary.Soak = cmp.Or(g.Canary.Soak, defaultCanarySoak)
		}
		tidy(&g.NodeSelector)
		for j := range g.NodeSelectors {
			tidy(&g.NodeSelectors[j])
		}
		if len(g.NodeSelectors) == 0 {
			g.NodeSelectors = nil
		}
		g.Drain.tidy()
	}
	c.Drain.tidy()
	if len(c.Windows) == 0 {
		c.Windows = nil
	}
	if len(c.Blackouts) == 0 {
		c.Blackouts = nil
	}
	for i := range c.Windows {
		if c.Windows[i].TimeZone == "" {
			c.Windows[i].TimeZone = defaultTimeZone
		}
	}
	for i := range c.Blackouts {
		if c.Blackouts[i].TimeZone == "" {
			c.Blackouts[i].TimeZone = defaultTimeZone
		}
	}
}

func (d *Drain) tidy() {
	if len(d.Rules) == 0 {
		d.Rules = nil
	}
	for i := range d.Rules {
		tidy(&d.Rules[i].PodSelector)
		if len(d.Rules[i].Namespaces) == 0 {
			d.Rules[i].Namespaces = nil
		}
	}
}

// tidy writes one and the same selector in one way: what is empty is not there.
func tidy(s *metav1.LabelSelector) {
	if len(s.MatchLabels) == 0 {
		s.MatchLabels = nil
	}
	if len(s.MatchExpressions) == 0 {
		s.MatchExpressions = nil
	}
	for i := range s.MatchExpressions {
		if len(s.MatchExpressions[i].Values) == 0 {
			s.MatchExpressions[i].Values = nil
		}
	}
}
