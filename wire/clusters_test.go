package wire

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"kubebaton.io/baton/config"
	"kubebaton.io/baton/marshal"
)

var update = flag.Bool("update", false, "write testdata/clusters.golden anew")

// In clusters as they are made by their installers and providers, a file that names no groups puts every node where its
// operators expect it, and counts those only that have a host to reboot.
func TestTheDefaultGroupsOfRealClusters(t *testing.T) {
	groups := groups(config.Default())
	files, err := filepath.Glob("testdata/clusters/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var list corev1.NodeList
		if err := yaml.UnmarshalStrict(data, &list); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		fmt.Fprintf(&b, "%s\n", strings.TrimSuffix(filepath.Base(file), ".yaml"))
		size := map[string]int{}
		for i := range list.Items {
			b.WriteString(describe(&list.Items[i], groups, size))
		}
		for _, g := range groups {
			if n := size[g.Name]; n > 0 {
				fmt.Fprintf(&b, "  %s: %d of %d at a time\n", g.Name, g.Limit(n), n)
			}
		}
	}
	const golden = "testdata/clusters.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Error(diff)
	}
}

// describe says of a node its group, whether it counts, and what other than a cordon keeps pods from it.
func describe(n *corev1.Node, groups []marshal.Group, size map[string]int) string {
	m := marshal.NodeOf(n)
	group := "no group"
	for _, g := range groups {
		if g.Match(n.Labels) {
			group = g.Name
			break
		}
	}
	counts := "counts"
	switch {
	case m.Foreign:
		counts = "does not count: no agent runs there"
	case !m.Ready:
		counts += ", unavailable"
		fallthrough
	default:
		size[group]++
	}
	var taints []string
	for _, t := range n.Spec.Taints {
		taints = append(taints, t.ToString())
	}
	return strings.TrimRight(fmt.Sprintf("  %-52s %-14s %-36s %s", n.Name, group, counts, strings.Join(taints, " ")), " ") + "\n"
}
