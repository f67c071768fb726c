package config

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"reflect"
	"strings"
	"time"
	"unicode"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"kubebaton.io/baton/window"
)

// maxGroupName leaves room for what Lease names and labels put around a group's name.
const maxGroupName = 40

// validate looks at what a field alone cannot tell. It says nothing of fields that were
// found faulty before.
func (k *checker) validate(c *Config) {
	k.validateFiles(c.Sentinels.Files)
	k.validateSchedule(c)
	k.validateGroups(c.Groups)
	if c.Backoff.Max < c.Backoff.Initial && !k.faulty("backoff.initial") {
		k.add("backoff.max", c.Backoff.Max.String(), "must not be less than backoff.initial, "+c.Backoff.Initial.String())
	}
	if c.Verify.Soak >= c.Verify.Timeout && !k.faulty("verify.timeout") {
		k.add("verify.soak", c.Verify.Soak.String(), "must be less than verify.timeout, "+c.Verify.Timeout.String())
	}
	k.validateTimes("drain", c.Drain)
	k.validateRules("drain", c.Drain, c.Drain.Rules)
	for i, g := range c.Groups {
		k.validateGroupDrain(fmt.Sprintf("groups[%d].drain", i), g.Drain, c.Drain)
		if at := fmt.Sprintf("groups[%d].soak", i); g.Soak >= c.Verify.Timeout && !k.faulty("verify.timeout") && !k.faulty("verify.soak") {
			k.add(at, g.Soak.String(), "must be less than verify.timeout, "+c.Verify.Timeout.String())
		}
	}
}

// validateGroupDrain looks at what is the group's own.
func (k *checker) validateGroupDrain(at string, d, all Drain) {
	if reflect.DeepEqual(d, all) {
		return
	}
	rules := d.Rules
	if reflect.DeepEqual(d.Rules, all.Rules) {
		rules = nil
		if d.Timeout == all.Timeout {
			d.Rules = nil
		}
	}
	if d.Timeout == all.Timeout && d.MinPodAge == all.MinPodAge {
		d.MinPodAge = 0
	}
	if d.Timeout == all.Timeout && d.JobTimeout == all.JobTimeout {
		d.JobTimeout = 0
	}
	if d.Timeout == all.Timeout && d.LoadBalancers == all.LoadBalancers {
		d.LoadBalancers.Wait = 0
	}
	if d.GracePeriod == all.GracePeriod {
		d.GracePeriod = 0
	}
	k.validateTimes(at, d)
	k.validateRules(at, d, rules)
}

// validateTimes looks at a drain's durations, and at those of its rules.
func (k *checker) validateTimes(at string, d Drain) {
	shorter := func(field string, v Duration) {
		if v >= d.Timeout && v > 0 && !k.faulty(at+".timeout") {
			k.add(at+"."+field, v.String(), "must be less than "+at+".timeout, "+d.Timeout.String())
		}
	}
	shorter("minPodAge", d.MinPodAge)
	shorter("jobTimeout", d.JobTimeout)
	shorter("loadBalancers.wait", d.LoadBalancers.Wait)
	if d.GracePeriod > 0 && d.GracePeriod < Duration(time.Second) {
		k.add(at+".gracePeriod", d.GracePeriod.String(), "must be 0s, which leaves each pod its own, or at least 1s")
	}
	var none Duration
	for i, r := range d.Rules {
		shorter(fmt.Sprintf("rules[%d].minPodAge", i), *cmp.Or(r.MinPodAge, &none))
		shorter(fmt.Sprintf("rules[%d].jobTimeout", i), *cmp.Or(r.JobTimeout, &none))
	}
}

func (k *checker) validateRules(at string, d Drain, rules []DrainRule) {
	for i, r := range rules {
		rule := fmt.Sprintf("%s.rules[%d]", at, i)
		selector, err := metav1.LabelSelectorAsSelector(&r.PodSelector)
		switch {
		case err != nil:
			k.addWhole(rule+".podSelector", "must be a valid label selector: "+err.Error())
		case selector.Empty() && len(r.Namespaces) == 0 && !k.faultyWithin(rule):
			k.addWhole(rule, "must name namespaces, or labels in podSelector: it would match every pod")
		}
		if jobs := d.Under(r).Jobs; r.JobTimeout != nil && *r.JobTimeout > 0 && jobs != Wait && !k.faultyWithin(at+".jobs") {
			k.add(rule+".jobTimeout", r.JobTimeout.String(), "counts only under jobs: wait, and for this rule it is "+jobs)
		}
		for j, ns := range r.Namespaces {
			if len(validation.IsDNS1123Label(ns)) > 0 {
				k.add(fmt.Sprintf("%s.namespaces[%d]", rule, j), ns, "must be the name of a namespace")
			}
		}
	}
}

func (k *checker) add(path, value, fix string) {
	if !k.faulty(path) {
		k.fault(path, show(value), fix)
	}
}

// addWhole is add for what has no value to show.
func (k *checker) addWhole(path, fix string) {
	if !k.faulty(path) {
		k.fault(path, "", fix)
	}
}

func (k *checker) validateFiles(files []string) {
	seen := map[string]int{}
	for i, f := range files {
		at := fmt.Sprintf("sentinels.files[%d]", i)
		file := f
		if below, ok := strings.CutPrefix(f, "/var/run/"); ok {
			file = "/run/" + below // which is what the agent reads
		}
		switch first, again := seen[file]; {
		case !path.IsAbs(f) || f == "/":
			k.add(at, f, "must be an absolute path of a file on the host, such as /run/reboot-required")
		case strings.TrimSpace(f) != f || strings.ContainsFunc(f, func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) }):
			k.add(at, f, "must have printable characters only, and no space at its end")
		case path.Clean(f) != f:
			k.add(at, f, "must be written as "+path.Clean(f))
		case again:
			k.add(at, f, fmt.Sprintf("must not be named twice: it is sentinels.files[%d] too", first))
		default:
			seen[file] = i
		}
	}
}

// validateSchedule passes on what package window finds.
func (k *checker) validateSchedule(c *Config) {
	_, err := c.Schedule()
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return
	}
	for _, err := range joined.Unwrap() {
		var f *window.Fault
		if errors.As(err, &f) {
			k.add(f.Path, f.Value, f.Fix)
		}
	}
}

func (k *checker) validateGroups(groups []Group) {
	seen := map[string]int{}
	every := -1 // the first group that selects every node
	for i, g := range groups {
		at := fmt.Sprintf("groups[%d]", i)
		if len(validation.IsDNS1123Label(g.Name)) > 0 {
			k.add(at+".name", g.Name, "must be a DNS label: lower-case letters, digits and -, a letter or digit at both ends")
		} else if first, again := seen[g.Name]; again {
			k.add(at+".name", g.Name, fmt.Sprintf("must be unique: groups[%d] has it too", first))
		} else {
			seen[g.Name] = i
		}
		all, ok := k.validateSelectors(at, g)
		switch {
		case !ok:
		case every >= 0:
			k.addWhole(at, fmt.Sprintf("would never get a node: groups[%d] selects every node and comes first", every))
		case all && !k.faultyWithin(at+".nodeSelector"):
			every = i
		}
		if len(g.TopologyKey) > 0 && len(validation.IsQualifiedName(g.TopologyKey)) > 0 {
			k.add(at+".topologyKey", g.TopologyKey, "must be the name of a label, such as topology.kubernetes.io/zone")
		}
	}
	k.validateAfter(groups, seen)
}

// validateSelectors tells whether the group selects every node, and whether its selectors can be read.
func (k *checker) validateSelectors(at string, g Group) (all, ok bool) {
	ok = true
	if len(g.NodeSelectors) > 0 && (len(g.NodeSelector.MatchLabels) > 0 || len(g.NodeSelector.MatchExpressions) > 0) {
		k.addWhole(at+".nodeSelectors", "must not be given beside nodeSelector: put that one into the list")
	}
	for i, s := range g.selectors() {
		path := at + ".nodeSelector"
		if len(g.NodeSelectors) > 0 {
			path = fmt.Sprintf("%s.nodeSelectors[%d]", at, i)
		}
		selector, err := metav1.LabelSelectorAsSelector(&s)
		if err != nil {
			k.addWhole(path, "must be a valid label selector: "+err.Error())
			ok = false
			continue
		}
		all = all || selector.Empty()
	}
	return all, ok
}

// validateAfter wants names of groups that do not, by whatever way, come after themselves.
func (k *checker) validateAfter(groups []Group, index map[string]int) {
	for i, g := range groups {
		for j, name := range g.After {
			if _, ok := index[name]; !ok {
				k.add(fmt.Sprintf("groups[%d].after[%d]", i, j), name, "must be the name of another group")
			}
		}
		if follows(groups, index, i, i, map[int]bool{}) {
			k.addWhole(fmt.Sprintf("groups[%d].after", i), "must not lead back to "+g.Name)
		}
	}
}

// follows tells whether group i comes after group end.
func follows(groups []Group, index map[string]int, i, end int, seen map[int]bool) bool {
	for _, name := range groups[i].After {
		next, ok := index[name]
		if !ok || seen[next] {
			continue
		}
		seen[next] = true
		if next == end || follows(groups, index, next, end, seen) {
			return true
		}
	}
	return false
}

// faultyWithin reports whether something was said of path or of what it holds.
func (k *checker) faultyWithin(path string) bool {
	for _, f := range k.faults {
		if strings.HasPrefix(f.Path, path) {
			return true
		}
	}
	return k.faulty(path)
}
