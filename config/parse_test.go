package config

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

const header = "apiVersion: kubebaton.io/v1alpha1\nkind: RebootConfiguration\n"

const full = header + `
sentinels:
  files: [/run/reboot-required, /var/run/other]
  recheckInterval: 2m
gateInterval: 1m30s
pendingTaint: false
windows:
- {cron: "0 22 * * 5", duration: 8h, timeZone: Europe/Berlin}
- {cron: "@daily", duration: 90m}
blackouts:
- {from: 2026-12-20, to: "2027-01-03", timeZone: America/New_York, reason: year end}
maxUnavailable: 20%
maxFailed: 2
rebootTimeout: 20m
groups:
- name: gpu
  nodeSelector:
    matchLabels: {pool: gpu}
    matchExpressions: [{key: zone, operator: In, values: [a, b]}]
  maxUnavailable: 1
  maxFailed: 0
  rebootTimeout: 1h
  soak: 0s
  after: [rest]
  topologyKey: topology.kubernetes.io/zone
  canary: {nodes: 2}
  drain: {mode: never, rules: [{namespaces: [ci], do: delete}]}
- name: rest
  nodeSelectors: [{matchLabels: {pool: gpu}}, {matchExpressions: [{key: pool, operator: DoesNotExist}]}]
  canary: {}
drain:
  mode: auto
  timeout: 5m
  gracePeriod: 30s
  volumeTimeout: 0s
  minPodAge: 2m
  unmanagedPods: wait
  localVolumes: ride-through
  emptyDir: block
  jobs: wait
  jobTimeout: 3m
  annotatedPods: evict
  rules:
  - {namespaces: [ci, lab], podSelector: {matchLabels: {kind: build}}, do: wait}
  - {podSelector: {matchExpressions: [{key: db, operator: Exists}]}, do: block}
  - {namespaces: [lab], minPodAge: 10s, unmanagedPods: delete, localVolumes: wait, emptyDir: evict, jobs: block, jobTimeout: 0s, annotatedPods: ride-through}
  loadBalancers: {exclude: true, wait: 20s}
hooks: {timeout: 2m}
verify: {timeout: 10m, soak: 1m}
backoff: {initial: 30s, max: 10m}
deletedGrace: 1m
nominationTimeout: 10s
maxReboots24h: 3
`

func fullConfig() *Config {
	minutes := func(n int) Duration { return Duration(n) * Duration(time.Minute) }
	young, never := Duration(10*time.Second), Duration(0)
	drain := Drain{
		Mode: Auto, Timeout: minutes(5), GracePeriod: Duration(30 * time.Second), MinPodAge: minutes(2),
		UnmanagedPods: Wait, LocalVolumes: RideThrough, EmptyDir: Block, Jobs: Wait, JobTimeout: minutes(3), AnnotatedPods: Evict,
		Rules: []DrainRule{
			{Namespaces: []string{"ci", "lab"}, PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"kind": "build"}}, Do: Wait},
			{PodSelector: metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "db", Operator: "Exists"}}}, Do: Block},
			{
				Namespaces: []string{"lab"}, MinPodAge: &young, UnmanagedPods: Delete, LocalVolumes: Wait, EmptyDir: Evict, Jobs: Block,
				JobTimeout: &never, AnnotatedPods: RideThrough,
			},
		},
		LoadBalancers: LoadBalancers{Exclude: true, Wait: Duration(20 * time.Second)},
	}
	gpu := drain
	gpu.Mode, gpu.Rules = Never, []DrainRule{{Namespaces: []string{"ci"}, Do: Delete}}
	return &Config{
		APIVersion: APIVersion, Kind: Kind,
		Sentinels:    Sentinels{Files: []string{"/run/reboot-required", "/var/run/other"}, RecheckInterval: minutes(2)},
		GateInterval: Duration(90 * time.Second),
		Windows: []Window{
			{Cron: "0 22 * * 5", Duration: minutes(480), TimeZone: "Europe/Berlin"},
			{Cron: "@daily", Duration: minutes(90), TimeZone: "UTC"},
		},
		Blackouts:      []Blackout{{From: "2026-12-20", To: "2027-01-03", TimeZone: "America/New_York", Reason: "year end"}},
		MaxUnavailable: Amount{20, true}, MaxFailed: 2, RebootTimeout: minutes(20),
		Groups: []Group{
			{
				Name: "gpu",
				NodeSelector: metav1.LabelSelector{
					MatchLabels:      map[string]string{"pool": "gpu"},
					MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "zone", Operator: "In", Values: []string{"a", "b"}}},
				},
				MaxUnavailable: Amount{Value: 1}, MaxFailed: 0, RebootTimeout: minutes(60), Soak: 0, After: []string{"rest"},
				TopologyKey: "topology.kubernetes.io/zone", Canary: Canary{2, minutes(30)}, Drain: gpu,
			},
			{
				Name: "rest", MaxUnavailable: Amount{20, true}, MaxFailed: 2, RebootTimeout: minutes(20), Soak: minutes(1), Canary: Canary{1, minutes(30)}, Drain: drain,
				NodeSelectors: []metav1.LabelSelector{
					{MatchLabels: map[string]string{"pool": "gpu"}},
					{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "pool", Operator: "DoesNotExist"}}},
				},
			},
		},
		Drain: drain, Hooks: Hooks{minutes(2)}, Verify: Verify{minutes(10), minutes(1)}, Backoff: Backoff{Duration(30 * time.Second), minutes(10)},
		DeletedGrace: minutes(1), NominationTimeout: Duration(10 * time.Second), MaxReboots24h: 3,
	}
}

func TestParse(t *testing.T) {
	drain := func(f func(*Drain)) Drain { d := Default().Drain; f(&d); return d }
	change := func(f func(*Config)) *Config { c := Default(); c.Groups = nil; f(c); c.fill(); return c }
	tests := map[string]struct {
		file string
		want *Config
	}{
		"a file that says nothing is the default":     {header, Default()},
		"null is the same as nothing":                 {header + "groups:\ndrain:\nmaxFailed:\nsentinels: {files: null}\nwindows: null\n", Default()},
		"every field is taken":                        {full, fullConfig()},
		"JSON is YAML":                                {`{"apiVersion":"kubebaton.io/v1alpha1","kind":"RebootConfiguration"}`, Default()},
		"comments and a document start are no matter": {"# a\n---\n# b\n" + header + "...\n", Default()},
		"an empty list of groups is the default one":  {header + "groups: []\n", Default()},
		"one field leaves its neighbours alone":       {header + "drain: {unmanagedPods: delete}\n", change(func(c *Config) { c.Drain.UnmanagedPods = Delete })},
		"a group says of its drain what is different": {
			header + "drain: {mode: auto, jobs: wait, jobTimeout: 5m, loadBalancers: {exclude: true, wait: 9s}, rules: [{namespaces: [a, b], do: wait}]}\n" +
				"groups:\n- {name: a, drain: {jobTimeout: 0s, loadBalancers: {wait: 1s}, rules: [{podSelector: {matchLabels: {x: z}}, do: block}]}}\n",
			change(func(c *Config) {
				c.Drain = drain(func(d *Drain) {
					d.Mode, d.Jobs, d.JobTimeout, d.LoadBalancers = Auto, Wait, Duration(5*time.Minute), LoadBalancers{true, Duration(9 * time.Second)}
					d.Rules = []DrainRule{{Namespaces: []string{"a", "b"}, Do: Wait}}
				})
				own := c.Drain
				own.JobTimeout, own.LoadBalancers.Wait = 0, Duration(time.Second)
				own.Rules = []DrainRule{{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"x": "z"}}, Do: Block}}
				c.Groups = []Group{{Name: "a", Drain: own}}
			}),
		},
		"a rule says of the policy what is different": {
			header + "drain: {rules: [{namespaces: [a], jobs: wait, jobTimeout: 5m, do: null}, {namespaces: [b], minPodAge: 0s}]}\ngroups: [{name: a, drain: {timeout: 10m}}]\n",
			change(func(c *Config) {
				limit, none := Duration(5*time.Minute), Duration(0)
				c.Drain = drain(func(d *Drain) {
					d.Rules = []DrainRule{{Namespaces: []string{"a"}, Jobs: Wait, JobTimeout: &limit}, {Namespaces: []string{"b"}, MinPodAge: &none}}
				})
				own := c.Drain
				own.Timeout = Duration(10 * time.Minute)
				c.Groups = []Group{{Name: "a", Drain: own}}
			}),
		},
		"the default group has the top level's settings": {header + "maxFailed: 4\nmaxUnavailable: 3\nrebootTimeout: 2h\n", change(func(c *Config) {
			c.MaxFailed, c.MaxUnavailable, c.RebootTimeout = 4, Amount{Value: 3}, Duration(2*time.Hour)
		})},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Parse([]byte(tt.file))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Parse (-want +got):\n%s", diff)
			}
			roundTrip(t, got)
		})
	}
}

// roundTrip checks that a Config written out is the same when read again.
func roundTrip(t *testing.T, c *Config) {
	t.Helper()
	written, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(written)
	if err != nil {
		t.Fatalf("parsing what was written: %v\n%s", err, written)
	}
	if diff := cmp.Diff(c, again); diff != "" {
		t.Errorf("written and read again (-first +second):\n%s", diff)
	}
}

func TestParseNamesEveryFault(t *testing.T) {
	tests := map[string]struct {
		file string
		want []string
	}{
		"an empty file": {"", []string{
			"apiVersion: must be set to kubebaton.io/v1alpha1",
			"kind: must be set to RebootConfiguration",
		}},
		"another version and kind": {"apiVersion: v1\nkind: ConfigMap\n", []string{
			`apiVersion: "v1": must be kubebaton.io/v1alpha1`,
			`kind: "ConfigMap": must be RebootConfiguration`,
		}},
		"not YAML":         {"a: [", []string{"must be YAML with each field once: yaml: line 1: did not find expected node content"}},
		"not an object":    {"- a", []string{"a list: must hold fields"}},
		"two documents":    {header + "---\n" + header, []string{"must be one YAML document, found 2: remove the line ---"}},
		"after an end":     {header + "...\nmaxFailed: 1\n", []string{"must be one YAML document, found 2: remove the line ---"}},
		"a field twice":    {header + "maxFailed: 1\nmaxFailed: 2\n", []string{`must be YAML with each field once: line 4: key "maxFailed" already set in map`}},
		"the case matters": {header + "maxfailed: 1\n", []string{"maxfailed: unknown field: there are apiVersion, kind, sentinels, gateInterval, pendingTaint, windows, blackouts, maxUnavailable, maxFailed, rebootTimeout, groups, drain, hooks, verify, backoff, deletedGrace, nominationTimeout, maxReboots24h"}},
		"many at once, each with its path": {header + `
sentinels: {files: [run/reboot, /run//x, /run/a, /run/a, 7, /, /var/run/a, "/run/a\u200b", "/run/b "]}
gateInterval: 5
pendingTaint: "yes"
drain: {timeout: 0s, unmanagedPods: evict, timout: 1m}
verify: {timeout: 1m, soak: 1m}
backoff: {initial: 1h, max: 1m}
maxFailed: -1
maxUnavailable: 0
maxReboots24h: "2"
groups:
- {name: a, maxUnavailable: "0%", rebootTimeout: 25h}
- {name: B_c, nodeSelector: {matchLabels: {pool: 1}}}
- {name: a}
- {nodeSelector: {matchExpressions: [{key: x, operator: In}, {key: x, operator: is}]}}
- {name: ` + strings.Repeat("x", 41) + `, nodeSelector: all}
- seven
windows:
- {cron: "0 22 * *", duration: 10s, timeZone: Mars/Olympus}
- {duration: 1h}
blackouts: [{from: 2026-12-20, to: 2026-12-19}, {from: 20.12.2026, to: soon}]
`, []string{
			`sentinels.files[4]: 7: must be a string: put it in quotes`,
			`gateInterval: 5: must be a duration with a unit, such as "90s", "15m" or "1h30m"`,
			`pendingTaint: "yes": must be true or false, without quotes`,
			`windows[0].duration: "10s": must be from 1m to 744h`,
			`windows[1].cron: must be set`,
			`maxUnavailable: 0: must be at least 1 or 1%`,
			`maxFailed: -1: must be from 0 to 1000`,
			`groups[0].maxUnavailable: "0%": must be at least 1 or 1%`,
			`groups[0].rebootTimeout: "25h": must be from 1m to 24h`,
			`groups[1].nodeSelector.matchLabels[pool]: 1: must be a string: put it in quotes`,
			`groups[3].name: must be set`,
			`groups[3].nodeSelector.matchExpressions[1].operator: "is": must be In or NotIn or Exists or DoesNotExist`,
			`groups[4].name: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx": must have at most 40 characters`,
			`groups[4].nodeSelector: "all": must hold fields`,
			`groups[5]: "seven": must hold fields`,
			`drain.timeout: "0s": must be from 1s to 24h`,
			`drain.unmanagedPods: "evict": must be block or wait or ride-through or delete`,
			`drain.timout: unknown field: there are mode, timeout, gracePeriod, volumeTimeout, minPodAge, unmanagedPods, localVolumes, emptyDir, jobs, jobTimeout, annotatedPods, rules, loadBalancers`,
			`maxReboots24h: "2": must be a whole number, 1 to 100`,
			`sentinels.files[0]: "run/reboot": must be an absolute path of a file on the host, such as /run/reboot-required`,
			`sentinels.files[1]: "/run//x": must be written as /run/x`,
			`sentinels.files[3]: "/run/a": must not be named twice: it is sentinels.files[2] too`,
			`sentinels.files[5]: "/": must be an absolute path of a file on the host, such as /run/reboot-required`,
			`sentinels.files[6]: "/var/run/a": must not be named twice: it is sentinels.files[2] too`,
			`sentinels.files[7]: "/run/a\u200b": must have printable characters only, and no space at its end`,
			`sentinels.files[8]: "/run/b ": must have printable characters only, and no space at its end`,
			`windows[0].cron: "0 22 * *": must be five cron fields (minute, hour, day of month, month, day of week 0-6) or a descriptor such as @daily: expected exactly 5 fields, found 4: [0 22 * *]`,
			`windows[0].timeZone: "Mars/Olympus": must be an IANA time zone such as Europe/Berlin or UTC: unknown time zone Mars/Olympus`,
			`blackouts[0].to: "2026-12-19": must not be before from, 2026-12-20`,
			`blackouts[1].from: "20.12.2026": must be a date such as 2026-12-20`,
			`blackouts[1].to: "soon": must be a date such as 2026-12-20`,
			`groups[1].name: "B_c": must be a DNS label: lower-case letters, digits and -, a letter or digit at both ends`,
			`groups[1]: would never get a node: groups[0] selects every node and comes first`,
			`groups[2].name: "a": must be unique: groups[0] has it too`,
			`groups[2]: would never get a node: groups[0] selects every node and comes first`,
			`groups[3].nodeSelector: must be a valid label selector: values: Invalid value: null: for 'in', 'notin' operators, values set can't be empty`,
			`groups[4]: would never get a node: groups[0] selects every node and comes first`,
			`backoff.max: "1m": must not be less than backoff.initial, 1h`,
			`verify.soak: "1m": must be less than verify.timeout, 1m`,
		}},
		"amounts": {header + "groups: [{name: a, nodeSelector: {matchLabels: {a: b}}, maxUnavailable: 101%}, {name: b, maxUnavailable: \"5\"}]\nmaxUnavailable: 1001\n", []string{
			`maxUnavailable: 1001: must be a number from 1 to 1000 or per cent from "1%" to "100%"`,
			`groups[0].maxUnavailable: "101%": must be a number from 1 to 1000 or per cent from "1%" to "100%"`,
			`groups[1].maxUnavailable: "5": must be per cent, such as "20%", or a number without quotes`,
		}},
		"groups after each other": {header + `groups:
- {name: a, nodeSelector: {matchLabels: {a: ""}}, after: [b, b], topologyKey: "a zone"}
- {name: b, nodeSelectors: [{matchLabels: {b: ""}}, {matchExpressions: [{key: x, operator: In}]}], after: [c, nobody]}
- {name: c, nodeSelector: {matchLabels: {c: ""}}, after: [a], canary: {nodes: 0, soak: 1s}}
- {name: d, nodeSelector: {matchLabels: {d: ""}}, nodeSelectors: [{matchLabels: {e: ""}}], after: [a, d], soak: 15m}
`, []string{
			`groups[2].canary.nodes: 0: must be from 1 to 1000`,
			`groups[2].canary.soak: "1s": must be from 1m to 168h`,
			`groups[0].topologyKey: "a zone": must be the name of a label, such as topology.kubernetes.io/zone`,
			`groups[1].nodeSelectors[1]: must be a valid label selector: values: Invalid value: null: for 'in', 'notin' operators, values set can't be empty`,
			`groups[3].nodeSelectors: must not be given beside nodeSelector: put that one into the list`,
			`groups[0].after: must not lead back to a`,
			`groups[1].after[1]: "nobody": must be the name of another group`,
			`groups[1].after: must not lead back to b`,
			`groups[2].after: must not lead back to c`,
			`groups[3].after: must not lead back to d`,
			`groups[3].soak: "15m": must be less than verify.timeout, 15m`,
		}},
		"a drain": {header + `drain:
  timeout: 5m
  gracePeriod: 500ms
  minPodAge: 5m
  jobTimeout: 6m
  rules: [{do: wait}, {namespaces: [A], do: sleep}, {podSelector: {matchExpressions: [{key: x, operator: In}]}, do: block}, {namespaces: [a]}]
groups:
- {name: a, nodeSelector: {matchLabels: {a: ""}}, drain: {mode: sometimes, jobs: ride-through}}
- {name: b, nodeSelector: {matchLabels: {b: ""}}, drain: {loadBalancers: {wait: 5m}, rules: [{podSelector: {}, do: evict}]}}
- {name: c, drain: {timeout: 1m, minPodAge: 10s, gracePeriod: 1ns, jobTimeout: 1m, loadBalancers: {exclude: 1}}}
`, []string{
			`groups[0].drain.mode: "sometimes": must be always or auto or never`,
			`groups[0].drain.jobs: "ride-through": must be evict or wait or block`,
			`groups[2].drain.loadBalancers.exclude: 1: must be true or false, without quotes`,
			`drain.rules[1].do: "sleep": must be evict or wait or ride-through or block or delete`,
			`drain.rules[3].do: must be set to evict, wait, ride-through, block, delete; or, in its place, any of minPodAge, unmanagedPods, localVolumes, emptyDir, jobs, jobTimeout, annotatedPods`,
			`drain.minPodAge: "5m": must be less than drain.timeout, 5m`,
			`drain.jobTimeout: "6m": must be less than drain.timeout, 5m`,
			`drain.gracePeriod: "500ms": must be 0s, which leaves each pod its own, or at least 1s`,
			`drain.rules[0]: must name namespaces, or labels in podSelector: it would match every pod`,
			`drain.rules[1].namespaces[0]: "A": must be the name of a namespace`,
			`drain.rules[2].podSelector: must be a valid label selector: values: Invalid value: null: for 'in', 'notin' operators, values set can't be empty`,
			`groups[1].drain.loadBalancers.wait: "5m": must be less than groups[1].drain.timeout, 5m`,
			`groups[1].drain.rules[0]: must name namespaces, or labels in podSelector: it would match every pod`,
			`groups[2].drain.jobTimeout: "1m": must be less than groups[2].drain.timeout, 1m`,
			`groups[2].drain.gracePeriod: "1ns": must be 0s, which leaves each pod its own, or at least 1s`,
		}},
		"a rule": {header + `drain:
  timeout: 10m
  rules:
  - {namespaces: [a], do: wait, jobs: wait, minPodAge: 1m}
  - {namespaces: [a], do: sleep, emptyDir: delete}
  - {namespaces: [A], mode: never}
  - {namespaces: [a], do: null, jobs: null}
  - {namespaces: [a], jobs: ride-through, unmanagedPods: evict, annotatedPods: ignore, localVolumes: move, jobTimeout: 25h}
  - {namespaces: [a], minPodAge: 9m, jobTimeout: 10m}
  - {jobs: wait, jobTimeout: 9m59s}
  - {namespaces: [a], jobTimeout: 5m}
  - {namespaces: [a], jobs: block, jobTimeout: 5m}
groups:
- {name: a, nodeSelector: {matchLabels: {a: ""}}, drain: {mode: never}}
- {name: b, nodeSelector: {matchLabels: {b: ""}}, drain: {timeout: 9m}}
- {name: c, drain: {timeout: 5m, rules: [{namespaces: [a], jobs: wait, jobTimeout: 5m}, {namespaces: [b], do: block, minPodAge: 5m}, {emptyDir: wait}]}}
`, []string{
			`groups[2].drain.rules[1].do: "block": must not be given beside minPodAge: it decides alone, leave it out or them`,
			`drain.rules[0].do: "wait": must not be given beside minPodAge, jobs: it decides alone, leave it out or them`,
			`drain.rules[1].do: "sleep": must be evict or wait or ride-through or block or delete`,
			`drain.rules[1].emptyDir: "delete": must be evict or wait or ride-through or block`,
			`drain.rules[1].do: "sleep": must not be given beside emptyDir: it decides alone, leave it out or them`,
			`drain.rules[2].mode: unknown field: there are namespaces, podSelector, do, minPodAge, unmanagedPods, localVolumes, emptyDir, jobs, jobTimeout, annotatedPods`,
			`drain.rules[2].do: must be set to evict, wait, ride-through, block, delete; or, in its place, any of minPodAge, unmanagedPods, localVolumes, emptyDir, jobs, jobTimeout, annotatedPods`,
			`drain.rules[3].do: must be set to evict, wait, ride-through, block, delete; or, in its place, any of minPodAge, unmanagedPods, localVolumes, emptyDir, jobs, jobTimeout, annotatedPods`,
			`drain.rules[4].unmanagedPods: "evict": must be block or wait or ride-through or delete`,
			`drain.rules[4].localVolumes: "move": must be evict or wait or ride-through or block`,
			`drain.rules[4].jobs: "ride-through": must be evict or wait or block`,
			`drain.rules[4].jobTimeout: "25h": must be from 0s to 24h`,
			`drain.rules[4].annotatedPods: "ignore": must be evict or wait or ride-through or block`,
			`drain.rules[5].jobTimeout: "10m": must be less than drain.timeout, 10m`,
			`drain.rules[2].namespaces[0]: "A": must be the name of a namespace`,
			`drain.rules[6]: must name namespaces, or labels in podSelector: it would match every pod`,
			`drain.rules[7].jobTimeout: "5m": counts only under jobs: wait, and for this rule it is evict`,
			`drain.rules[8].jobTimeout: "5m": counts only under jobs: wait, and for this rule it is block`,
			`groups[1].drain.rules[5].minPodAge: "9m": must be less than groups[1].drain.timeout, 9m`,
			`groups[1].drain.rules[5].jobTimeout: "10m": must be less than groups[1].drain.timeout, 9m`,
			`groups[1].drain.rules[6].jobTimeout: "9m59s": must be less than groups[1].drain.timeout, 9m`,
			`groups[2].drain.rules[0].jobTimeout: "5m": must be less than groups[2].drain.timeout, 5m`,
			`groups[2].drain.rules[1].minPodAge: "5m": must be less than groups[2].drain.timeout, 5m`,
			`groups[2].drain.rules[2]: must name namespaces, or labels in podSelector: it would match every pod`,
		}},
		"no sentinel at all": {header + "sentinels: {files: []}\n", []string{`sentinels.files: 0 elements: must have 1 to 32 elements`}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := Parse([]byte(tt.file))
			var faults Faults
			if c != nil || !errors.As(err, &faults) {
				t.Fatalf("Parse = %v, %v, want faults", c, err)
			}
			var got []string
			for _, f := range faults {
				got = append(got, f.Error())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}

// What the peers of docs/reliability.md get wrong, by its number there.
func TestPeer14_WhateverStandsInTheFileItIsRefusedAtOnceAndEndsNothing(t *testing.T) {
	for name, selector := range map[string]string{
		"a label without a value":        "{matchLabels: [pool]}",
		"a label with a blank":           `{matchLabels: {"po ol": gpu}}`,
		"a selector of one word":         "pool",
		"an operator that is none":       "{matchExpressions: [{key: pool, operator: '='}]}",
		"a value that is no label value": `{matchLabels: {pool: "-"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			c, err := Parse([]byte(header + "groups: [{name: a, nodeSelector: " + selector + "}]\n"))
			var faults Faults
			if c != nil || !errors.As(err, &faults) || !strings.Contains(err.Error(), "groups[0].nodeSelector") {
				t.Errorf("got %v, %v", c, err)
			}
		})
	}
	t.Run("a file that was cut off, or in which a byte has changed, is taken or refused", func(t *testing.T) {
		refused := 0
		try := func(file []byte) {
			t.Helper()
			var faults Faults
			switch c, err := Parse(file); {
			case err != nil && (c != nil || !errors.As(err, &faults)):
				t.Errorf("got %v, %v for %q", c, err, file)
			case err != nil:
				refused++
			}
		}
		for i := range len(full) {
			try([]byte(full[:i]))
			for _, b := range []byte("\x00:{") {
				changed := []byte(full)
				changed[i] = b
				try(changed)
			}
		}
		if refused < len(full) {
			t.Errorf("only %d were refused", refused)
		}
	})
}

func TestEveryFieldHoldsItsBounds(t *testing.T) {
	for _, f := range schema() {
		if f.kind != duration && f.kind != integer || strings.Contains(f.Path, "[]") {
			continue
		}
		t.Run(f.Path, func(t *testing.T) {
			write := func(n int64) string {
				tree := map[string]any{}
				err := yaml.Unmarshal([]byte(header+"verify: {soak: 0s, timeout: 24h}\nbackoff: {initial: 1s, max: 24h}\ndrain: {timeout: 24h}\n"), &tree)
				if err != nil {
					t.Fatal(err)
				}
				inner, path := tree, strings.Split(f.Path, ".")
				for _, parent := range path[:len(path)-1] {
					next, ok := inner[parent].(map[string]any)
					if !ok {
						next = map[string]any{}
						inner[parent] = next
					}
					inner = next
				}
				name := path[len(path)-1]
				inner[name] = n
				if f.kind == duration {
					inner[name] = Duration(n).String()
				}
				data, err := yaml.Marshal(tree)
				if err != nil {
					t.Fatal(err)
				}
				return string(data)
			}
			for n, good := range map[int64]bool{f.low - 1: false, f.low: true, f.high: true, f.high + 1: false} {
				if (f.Path == "verify.soak" || f.Path == "drain.minPodAge" || f.Path == "drain.jobTimeout") && n == f.high {
					continue // as long as the longest timeout: refused for that
				}
				_, err := Parse([]byte(write(n)))
				var faults Faults
				if bad := errors.As(err, &faults); bad == good || bad && faults[0].Path != f.Path {
					t.Errorf("%s: %d: %v, want good: %v", f.Path, n, err, good)
				}
			}
		})
	}
}

// The schema and the types say the same fields.
func TestSchemaMatchesTypes(t *testing.T) {
	want := map[string]bool{"": true}
	var walk func(path string, of reflect.Type)
	walk = func(path string, of reflect.Type) {
		want[path] = true
		switch {
		case of == reflect.TypeFor[Amount](), of == reflect.TypeFor[Duration]():
		case of.Kind() == reflect.Struct:
			for f := range of.Fields() {
				name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				walk(join(path, name), f.Type)
			}
		case of.Kind() == reflect.Slice:
			walk(path+"[]", of.Elem())
		}
	}
	walk("", reflect.TypeFor[Config]())
	var got []string
	for _, f := range schema() {
		got = append(got, f.Path)
	}
	slices.Sort(got)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), got); diff != "" {
		t.Errorf("schema (-types +schema):\n%s", diff)
	}
}

func TestDefaultIsWithinBounds(t *testing.T) {
	roundTrip(t, Default())
	if _, err := Default().Schedule(); err != nil {
		t.Error(err)
	}
}

func TestGroups(t *testing.T) {
	c, err := Parse([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		labels map[string]string
		want   string
	}{
		"the first that matches": {map[string]string{"pool": "gpu", "zone": "b"}, "gpu"},
		"the rest":               {map[string]string{"pool": "gpu", "zone": "c"}, "rest"},
		"no labels":              {nil, "rest"},
	} {
		t.Run(name, func(t *testing.T) {
			if g, ok := c.GroupOf(tt.labels); !ok || g.Name != tt.want {
				t.Errorf("GroupOf = %q, %v, want %q", g.Name, ok, tt.want)
			}
		})
	}
	t.Run("without groups there are two: the control plane, by whatever label it has, and all others", func(t *testing.T) {
		c := Default()
		for label, want := range map[string]string{
			"node-role.kubernetes.io/control-plane": "control-plane", "node-role.kubernetes.io/master": "control-plane",
			"node-role.kubernetes.io/etcd": "control-plane", "node-role.kubernetes.io/worker": "workers",
		} {
			if g, ok := c.GroupOf(map[string]string{label: "true"}); !ok || g.Name != want {
				t.Errorf("%s is in %q, %v", label, g.Name, ok)
			}
		}
		c, err := Parse([]byte(header + "maxUnavailable: 20%\n"))
		if err != nil || c.Groups[0].MaxUnavailable != (Amount{Value: 1}) || c.Groups[1].MaxUnavailable != (Amount{20, true}) {
			t.Errorf("the control plane goes one at a time whatever maxUnavailable is: %+v, %v", c.Groups, err)
		}
		if !slices.Equal(c.Groups[0].After, []string{"workers"}) {
			t.Error("the control plane goes after the workers")
		}
	})
	t.Run("a node may be in none", func(t *testing.T) {
		c.Groups = c.Groups[:1]
		if g, ok := c.GroupOf(nil); ok {
			t.Errorf("GroupOf = %q", g.Name)
		}
	})
}

func TestDurationIsWrittenShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Second: "1s", 10 * time.Second: "10s", 15 * time.Minute: "15m", time.Hour: "1h", 10 * time.Hour: "10h",
		90 * time.Minute: "1h30m", 20 * time.Minute: "20m", time.Hour + time.Second: "1h0m1s", 1500 * time.Millisecond: "1.5s",
	} {
		data, err := json.Marshal(Duration(d))
		if err != nil || string(data) != `"`+want+`"` {
			t.Errorf("%v is written %s, %v, want %q", d, data, err, want)
		}
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	if c, err := Load(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Load of a missing file = %v, %v", c, err)
	}
	write(t, path, full)
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fullConfig(), got); diff != "" {
		t.Errorf("Load (-want +got):\n%s", diff)
	}
	write(t, path, header+"maxFailed: -1\n")
	var faults Faults
	if c, err := Load(path); !errors.As(err, &faults) || !strings.Contains(err.Error(), path) {
		t.Errorf("Load = %v, %v, want faults with the path", c, err)
	}
	write(t, path, header+"#"+strings.Repeat("x", maxSize))
	if c, err := Load(path); !errors.As(err, &faults) {
		t.Errorf("Load of a huge file = %v, %v", c, err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", header, full, header + "---\n", "null", "{}", "a: &a [*a]", header + "maxUnavailable: 1e1\n",
		header + "windows: [{cron: 'TZ=UTC', duration: 1h}, {cron: '*/7 1-5 ? * mon', duration: 1m}]\n",
		header + "groups: [{name: a, nodeSelector: {matchLabels: {}, matchExpressions: []}}]\n",
		header + "groups: [{name: a, nodeSelector: {matchExpressions: [{key: a, operator: Exists, values: []}]}}]\n",
		header + "windows: []\nblackouts: []\ngroups: []\n",
		header + "blackouts: [{from: 0001-01-01, to: 9999-12-31}]\n",
		header + "drain: {rules: [{namespaces: [a], jobTimeout: 0s, jobs: wait}, {podSelector: {matchLabels: {}}, do: null, minPodAge: 1ns}]}\n",
		header + "<<: {maxFailed: 1}\n", "? [a]\n: b\n", header + "sentinels: {files: ['/a\\x00b', /b]}\nverify: {soak: 1ns}\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(data)
		var faults Faults
		switch {
		case err == nil:
			roundTrip(t, c)
		case c != nil || !errors.As(err, &faults) || len(faults) == 0:
			t.Errorf("Parse = %v, %v", c, err)
		}
	})
}
