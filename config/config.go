package config

import (
	"cmp"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"kubebaton.io/baton/window"
)

// What a file must call itself.
const (
	APIVersion = "kubebaton.io/v1alpha1"
	Kind       = "RebootConfiguration"
)

// What a drain does with a pod. Delete is Evict where nobody re-creates the pod.
const (
	Evict       = "evict"
	Wait        = "wait"
	RideThrough = "ride-through"
	Block       = "block"
	Delete      = "delete"
)

// Values of drain.mode.
const (
	Always = "always"
	Auto   = "auto"
	Never  = "never"
)

// Config is the whole file. Bounds, defaults and meaning of each field are said once, in
// schema and Default, from which docs/configuration.md is generated.
type Config struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`

	Sentinels    Sentinels `json:"sentinels"`
	GateInterval Duration  `json:"gateInterval"` // how often a waiting node asks its gates again, jittered
	PendingTaint bool      `json:"pendingTaint"` // a waiting node is tainted PreferNoSchedule

	Windows   []Window   `json:"windows,omitempty"`   // none: always open
	Blackouts []Blackout `json:"blackouts,omitempty"` // win over windows

	MaxUnavailable Amount   `json:"maxUnavailable"` // default of groups[].maxUnavailable
	MaxFailed      int      `json:"maxFailed"`      // default of groups[].maxFailed
	RebootTimeout  Duration `json:"rebootTimeout"`  // default of groups[].rebootTimeout
	Groups         []Group  `json:"groups"`         // never empty; the first that matches a node has it

	Drain             Drain    `json:"drain"` // default of groups[].drain, field by field
	Hooks             Hooks    `json:"hooks"`
	Verify            Verify   `json:"verify"`
	Backoff           Backoff  `json:"backoff"`
	DeletedGrace      Duration `json:"deletedGrace"`      // how long a holder's Node must be seen gone
	NominationTimeout Duration `json:"nominationTimeout"` // how long a nomination stays good
	MaxReboots24h     int      `json:"maxReboots24h"`     // proven reboots a node in 24 hours
}

// Sentinels says where to look for a host's wish to be rebooted.
type Sentinels struct {
	Files           []string `json:"files"`           // absolute paths on the host
	RecheckInterval Duration `json:"recheckInterval"` // re-read beside inotify
}

// Window is a recurring time in which nodes may be taken down; see package window.
type Window struct {
	Cron     string   `json:"cron"`
	Duration Duration `json:"duration"` // elapsed time from each start
	TimeZone string   `json:"timeZone"` // IANA name
}

// Blackout is a range of dates on which no node is taken down.
type Blackout struct {
	From     string `json:"from"` // 2026-12-20, included
	To       string `json:"to"`   // included
	TimeZone string `json:"timeZone"`
	Reason   string `json:"reason,omitempty"` // for people
}

// Group is a set of nodes that share slots. Its name is part of the names of its Leases.
type Group struct {
	Name           string                 `json:"name"`
	NodeSelector   metav1.LabelSelector   `json:"nodeSelector"`            // empty: every node
	NodeSelectors  []metav1.LabelSelector `json:"nodeSelectors,omitempty"` // instead of NodeSelector: any of them
	MaxUnavailable Amount                 `json:"maxUnavailable"`
	MaxFailed      int                    `json:"maxFailed"`
	RebootTimeout  Duration               `json:"rebootTimeout"`
	Soak           Duration               `json:"soak"`
	After          []string               `json:"after,omitempty"`       // names of groups whose nodes go first
	TopologyKey    string                 `json:"topologyKey,omitempty"` // "": zones play no part
	Canary         Canary                 `json:"canary,omitzero"`
	Drain          Drain                  `json:"drain"`
}

// Canary is how a group tries a wish for a reboot on few nodes first. The zero value is: not at all.
type Canary struct {
	Nodes int      `json:"nodes"`
	Soak  Duration `json:"soak"`
}

// Drain says how a node is emptied. Everything that says what becomes of pods holds Evict, Wait, RideThrough or Block.
type Drain struct {
	Mode          string        `json:"mode"`          // Always, Auto or Never
	Timeout       Duration      `json:"timeout"`       // then Backoff
	GracePeriod   Duration      `json:"gracePeriod"`   // the longest that a pod is given; 0: its own
	VolumeTimeout Duration      `json:"volumeTimeout"` // how long volumes of evicted pods are awaited; 0: not at all
	MinPodAge     Duration      `json:"minPodAge"`     // younger pods are awaited until then
	UnmanagedPods string        `json:"unmanagedPods"` // Delete in place of Evict
	LocalVolumes  string        `json:"localVolumes"`
	EmptyDir      string        `json:"emptyDir"`
	Jobs          string        `json:"jobs"`       // not RideThrough
	JobTimeout    Duration      `json:"jobTimeout"` // under Wait: then they are evicted; 0: never
	AnnotatedPods string        `json:"annotatedPods"`
	Rules         []DrainRule   `json:"rules,omitempty"` // before all of these
	LoadBalancers LoadBalancers `json:"loadBalancers"`
}

// DrainRule is for pods by namespace and labels. It has either Do or any of the others, of which what is not said is as the drain
// says.
type DrainRule struct {
	Namespaces    []string             `json:"namespaces,omitempty"` // none: every
	PodSelector   metav1.LabelSelector `json:"podSelector"`          // empty: every pod
	Do            string               `json:"do,omitempty"`         // or Delete
	MinPodAge     *Duration            `json:"minPodAge,omitempty"`
	UnmanagedPods string               `json:"unmanagedPods,omitempty"`
	LocalVolumes  string               `json:"localVolumes,omitempty"`
	EmptyDir      string               `json:"emptyDir,omitempty"`
	Jobs          string               `json:"jobs,omitempty"`
	JobTimeout    *Duration            `json:"jobTimeout,omitempty"`
	AnnotatedPods string               `json:"annotatedPods,omitempty"`
}

// Under is the drain of the pods of one of its rules.
func (d Drain) Under(r DrainRule) Drain {
	d.MinPodAge = *cmp.Or(r.MinPodAge, &d.MinPodAge)
	d.UnmanagedPods = cmp.Or(r.UnmanagedPods, d.UnmanagedPods)
	d.LocalVolumes = cmp.Or(r.LocalVolumes, d.LocalVolumes)
	d.EmptyDir = cmp.Or(r.EmptyDir, d.EmptyDir)
	d.Jobs = cmp.Or(r.Jobs, d.Jobs)
	d.JobTimeout = *cmp.Or(r.JobTimeout, &d.JobTimeout)
	d.AnnotatedPods = cmp.Or(r.AnnotatedPods, d.AnnotatedPods)
	return d
}

// LoadBalancers says how the load balancers of a cloud are kept from sending to a node that is emptied.
type LoadBalancers struct {
	Exclude bool     `json:"exclude"` // by the label node.kubernetes.io/exclude-from-external-load-balancers
	Wait    Duration `json:"wait"`    // before the first eviction
}

// Hooks are the programs that the hosts have in /etc/baton/hooks.d.
type Hooks struct {
	Timeout Duration `json:"timeout"` // of each
}

// Verify says when a rebooted node is back.
type Verify struct {
	Timeout Duration `json:"timeout"` // from the changed boot ID to all well, soak included; then Failed
	Soak    Duration `json:"soak"`    // how long all must stay well; 0: not at all
}

// Backoff is the delay after a failed attempt; it doubles from Initial to Max.
type Backoff struct {
	Initial Duration `json:"initial"`
	Max     Duration `json:"max"`
}

// Match is the group's selection, ready to be asked about a node's labels. It is good for a Config that came
// from Parse or Default; elsewhere a broken selector selects nothing.
func (g Group) Match() func(nodeLabels map[string]string) bool {
	var either []labels.Selector
	for _, s := range g.selectors() {
		if selector, err := metav1.LabelSelectorAsSelector(&s); err == nil {
			either = append(either, selector)
		}
	}
	return func(nodeLabels map[string]string) bool {
		return slices.ContainsFunc(either, func(s labels.Selector) bool { return s.Matches(labels.Set(nodeLabels)) })
	}
}

// selectors are all, of which any may match.
func (g Group) selectors() []metav1.LabelSelector {
	if len(g.NodeSelectors) > 0 {
		return g.NodeSelectors
	}
	return []metav1.LabelSelector{g.NodeSelector}
}

// GroupOf is the first group whose selector matches a node's labels. False: the node is in
// none and is never taken down.
func (c *Config) GroupOf(nodeLabels map[string]string) (Group, bool) {
	i := slices.IndexFunc(c.Groups, func(g Group) bool { return g.Match()(nodeLabels) })
	if i < 0 {
		return Group{}, false
	}
	return c.Groups[i], true
}

// Schedule is what the windows and blackouts come to. There is no error for a Config that
// came from Parse or Default.
func (c *Config) Schedule() (*window.Schedule, error) {
	var w window.Config
	for _, from := range c.Windows {
		w.Windows = append(w.Windows, window.Window{
			Cron: from.Cron, Duration: time.Duration(from.Duration), TimeZone: from.TimeZone,
		})
	}
	for _, from := range c.Blackouts {
		w.Blackouts = append(w.Blackouts, window.Blackout(from))
	}
	return window.New(w)
}
