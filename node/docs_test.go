package node

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

var update = flag.Bool("update", false, "write the plans in docs/drain.md anew")

const (
	plansPath  = "../docs/drain.md"
	plansBegin = "<!-- plans: generated from the tests of package node, go test ./node -run Documented -update -->\n"
	plansEnd   = "<!-- end of plans -->\n"
)

// The plans that the documentation shows are those that TestPlan holds the code to.
func TestThePlansAreDocumentedAsTheyAre(t *testing.T) {
	data, err := os.ReadFile(plansPath)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := bytes.Cut(data, []byte(plansBegin))
	_, after, closed := bytes.Cut(rest, []byte(plansEnd))
	if !ok || !closed {
		t.Fatalf("%s has no lines %q and %q", plansPath, plansBegin, plansEnd)
	}
	var b strings.Builder
	all := chapters()
	for _, chapter := range slices.SortedFunc(maps.Keys(all), cmp.Compare) {
		fmt.Fprintf(&b, "\n### %s\n\n| case | decision | reason | users feel | message |\n|---|---|---|---|---|\n", chapter[2:])
		for _, c := range all[chapter] {
			p := Plan([]*corev1.Pod{c.pod}, c.policy, c.facts).Pods[0]
			fmt.Fprintf(&b, "| %s | %s | `%s` | %s | %s |\n", c.name, p.Decision, p.Reason, p.Impact, p.Message)
		}
	}
	want := string(before) + plansBegin + b.String() + "\n" + plansEnd + string(after)
	if *update {
		if err := os.WriteFile(plansPath, []byte(want), 0o644); err != nil { //nolint:gosec // documentation
			t.Fatal(err)
		}
		return
	}
	if diff := gocmp.Diff(want, string(data)); diff != "" {
		t.Errorf("%s is behind: go test ./node -run Documented -update (-want +got):\n%s", plansPath, diff)
	}
}
