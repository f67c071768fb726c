package e2e

import (
	"os"
	"strings"
	"testing"
)

func TestEveryScenarioIsInTheDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range scenarios() {
		row := "\n| " + s.name
		if s.short {
			row += " *"
		}
		if strings.Count(string(text), row+" |") != 1 {
			t.Errorf("docs/reliability.md has no row, or several, for %q, short %t", s.name, s.short)
		}
	}
}
