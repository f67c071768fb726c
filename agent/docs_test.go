package agent

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/cycle.md anew, and records that are not in testdata yet")

const cycleDoc = "../docs/cycle.md"

// The picture and the table of the cycle are drawn from the table that the agent runs on.
func TestTheCycleIsDrawnAsItIs(t *testing.T) {
	want := drawCycle()
	if *update {
		if err := os.WriteFile(cycleDoc, []byte(want), 0o644); err != nil { //nolint:gosec // a document.
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(cycleDoc)
	if err != nil {
		t.Fatalf("%v: go test ./agent -run Drawn -update writes it", err)
	}
	if diff := cmp.Diff(string(got), want); diff != "" {
		t.Errorf("docs/cycle.md is not the cycle as it is (go test ./agent -run Drawn -update):\n%s", diff)
	}
}

// Every phase can be entered and left, and every reason of the table is one of the closed set.
func TestTheTableIsWhole(t *testing.T) {
	in, out := map[Phase]bool{}, map[Phase]bool{}
	for m, reasons := range moves() {
		out[m.From], in[m.To] = true, true
		if len(reasons) == 0 {
			t.Errorf("%s to %s has no reason", m.From, m.To)
		}
		for _, r := range reasons {
			if meanings()[r] == "" {
				t.Errorf("reason %q of %s to %s has no meaning", r, m.From, m.To)
			}
		}
	}
	for _, p := range phases() {
		if !in[p] || !out[p] {
			t.Errorf("phase %s: entered %v, left %v", p, in[p], out[p])
		}
	}
}

const operationsDoc = "../docs/operations.md"

// Whoever reads a reason finds in one row, and only in one, what it means and what is to be done.
func TestEveryReasonHasItsRowInTheTableForOperators(t *testing.T) {
	text, err := os.ReadFile(operationsDoc)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "\n## Why does nothing happen?\n")
	section, _, closed := strings.Cut(rest, "\n## ")
	if !ok || !closed {
		t.Fatalf("%s has no section that tells why nothing happens", operationsDoc)
	}
	word := regexp.MustCompile("`([^`]+)`")
	rows := map[Reason]int{}
	for line := range strings.Lines(section) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		if len(cells) != 3 || slices.Contains(cells, "") {
			t.Errorf("not a reason, what it means and what to do: %s", line)
		}
		for _, w := range word.FindAllStringSubmatch(cells[0], -1) {
			rows[Reason(w[1])]++
		}
	}
	for r := range meanings() {
		if rows[r] != 1 {
			t.Errorf("reason %q has %d rows", r, rows[r])
		}
	}
	for r := range rows {
		if !r.Known() {
			t.Errorf("%q is no reason", r)
		}
	}
}

func phases() []Phase {
	return []Phase{Idle, Waiting, Draining, Rebooting, Verifying, Backoff, Failed}
}

func drawCycle() string {
	var b strings.Builder
	b.WriteString(`# The cycle of a node

Drawn from the table in ` + "`agent/phase.go`" + ` by ` + "`go test ./agent -run Drawn -update`" + `; a test keeps it in step.

` + "```mermaid\nstateDiagram-v2\n    [*] --> Idle\n")
	type edge struct {
		move
		reasons []Reason
	}
	var edges []edge
	for m, r := range moves() {
		edges = append(edges, edge{m, r})
	}
	order := phases()
	slices.SortFunc(edges, func(a, b edge) int {
		if d := slices.Index(order, a.From) - slices.Index(order, b.From); d != 0 {
			return d
		}
		return slices.Index(order, a.To) - slices.Index(order, b.To)
	})
	for _, e := range edges {
		fmt.Fprintf(&b, "    %s --> %s\n", e.From, e.To)
	}
	b.WriteString("```\n\n| from | to | because of |\n|---|---|---|\n")
	for _, e := range edges {
		words := make([]string, len(e.reasons))
		for i, r := range e.reasons {
			words[i] = "`" + string(r) + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", e.From, e.To, strings.Join(words, ", "))
	}
	b.WriteString("\n## Reasons\n\nThe same word stands in the record, the Event, the log and the metric. Every transition has its Event, but for the one into Verifying\nafter a reboot that Baton asked for: there the kubelet writes `Rebooted`, with the boot ID.\n\n| reason | meaning |\n|---|---|\n")
	reasons := make([]Reason, 0, len(meanings()))
	for r := range meanings() {
		reasons = append(reasons, r)
	}
	slices.Sort(reasons)
	for _, r := range reasons {
		fmt.Fprintf(&b, "| `%s` | %s |\n", r, meanings()[r])
	}
	return b.String()
}
