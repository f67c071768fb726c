package wire

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"kubebaton.io/baton/config"
	"kubebaton.io/baton/node"
)

func parsed(t *testing.T, drain string) *config.Config {
	t.Helper()
	c, err := config.Parse(fmt.Appendf(nil, "apiVersion: kubebaton.io/v1alpha1\nkind: RebootConfiguration\n%s\n", drain))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What a rule does not say is as the drain of its group says.
func TestRulesOfADrain(t *testing.T) {
	c := parsed(t, `
drain:
  timeout: 30m
  unmanagedPods: wait
  localVolumes: ride-through
  emptyDir: wait
  jobs: wait
  jobTimeout: 5m
  annotatedPods: evict
  minPodAge: 1m
  rules:
  - {namespaces: [ci], jobTimeout: 20m}
  - {namespaces: [scratch], unmanagedPods: delete, localVolumes: evict, emptyDir: block, jobs: evict, annotatedPods: wait}
  - {podSelector: {matchLabels: {slow: start}}, minPodAge: 10m, jobTimeout: 0s}
  - {podSelector: {matchLabels: {train: "yes"}}, do: wait}
groups:
- {name: a, drain: {mode: auto, jobs: block}}`)
	all := node.Policy{
		Mode: node.ModeAuto, Unmanaged: node.DoWait, LocalVolumes: node.DoRideThrough, EmptyDir: node.DoWait, Jobs: node.DoBlock,
		JobsFor: 5 * time.Minute, Annotated: node.DoEvict, MinAge: time.Minute,
	}
	ci, slow, train := all, all, all
	ci.JobsFor = 20 * time.Minute
	slow.JobsFor, slow.MinAge = 0, 10*time.Minute
	train.Do = node.DoWait
	scratch := node.Policy{
		Mode: node.ModeAuto, Unmanaged: node.DoDelete, LocalVolumes: node.DoEvict, EmptyDir: node.DoBlock, Jobs: node.DoEvict,
		JobsFor: 5 * time.Minute, Annotated: node.DoWait, MinAge: time.Minute,
	}
	want := all
	want.Rules = []node.Rule{{Namespaces: []string{"ci"}, Policy: ci}, {Namespaces: []string{"scratch"}, Policy: scratch}, {Policy: slow}, {Policy: train}}
	got := drainRules(c, "a").Policy
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(node.Rule{}, "Match")); diff != "" {
		t.Error(diff)
	}
	for i, labels := range []map[string]string{nil, nil, {"slow": "start"}, {"train": "yes"}} {
		if !got.Rules[i].Match(labels) || i > 1 && got.Rules[i].Match(nil) {
			t.Errorf("rule %d is for other pods", i)
		}
	}
}

// Other rules are another drain, and the same ones, read again, are not.
func TestDigestOfADrain(t *testing.T) {
	of := func(drain string) string {
		return policy(parsed(t, "drain: {timeout: 30m, "+drain+"}\ngroups: [{name: a}]"), nil).Rules("a")
	}
	seen := map[string]string{}
	for _, drain := range []string{
		"jobs: wait", "rules: []",
		"rules: [{namespaces: [ci], do: wait}]", "rules: [{namespaces: [cd], do: wait}]", "rules: [{namespaces: [ci], do: block}]",
		"rules: [{podSelector: {matchLabels: {ci: x}}, do: wait}]", "rules: [{podSelector: {matchLabels: {ci: z}}, do: wait}]",
		"rules: [{namespaces: [ci], jobs: wait}]", "rules: [{namespaces: [ci], jobs: block}]",
		"rules: [{namespaces: [ci], jobTimeout: 0s}]", "rules: [{namespaces: [ci], jobs: wait, jobTimeout: 1m}]", "rules: [{namespaces: [ci], jobs: wait, jobTimeout: 2m}]",
		"rules: [{namespaces: [ci], minPodAge: 0s}]", "rules: [{namespaces: [ci], minPodAge: 1m}]",
		"rules: [{namespaces: [ci], unmanagedPods: wait}]", "rules: [{namespaces: [ci], localVolumes: wait}]",
		"rules: [{namespaces: [ci], emptyDir: wait}]", "rules: [{namespaces: [ci], annotatedPods: wait}]",
	} {
		is := of(drain)
		if again := of(drain); again != is {
			t.Errorf("%s is another drain when it is read again: %s, %s", drain, is, again)
		}
		if other, ok := seen[is]; ok {
			t.Errorf("%s is the same as %s", drain, other)
		}
		seen[is] = drain
	}
}
