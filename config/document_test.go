package config

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	documentPath = "../docs/configuration.md"
	begin        = "<!-- fields: generated from package config, go test ./config -update -->\n"
	end          = "<!-- end of fields -->\n"
)

func TestDocumentationIsInStep(t *testing.T) {
	data, err := os.ReadFile(documentPath)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := bytes.Cut(data, []byte(begin))
	_, after, closed := bytes.Cut(rest, []byte(end))
	if !ok || !closed {
		t.Fatalf("%s has no lines %q and %q", documentPath, begin, end)
	}
	want := string(before) + begin + table() + end + string(after)
	if updating() {
		if err := os.WriteFile(documentPath, []byte(want), 0o644); err != nil { //nolint:gosec // documentation
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(data)); diff != "" {
		t.Errorf("%s is behind: run go test ./config -update (-want +got):\n%s", documentPath, diff)
	}
}

var update = flag.Bool("update", false, "write the documentation anew")

func updating() bool { return *update }

func table() string {
	var b strings.Builder
	b.WriteString("\n| field | type | default | bounds | what it does |\n|---|---|---|---|---|\n")
	for _, f := range Document() {
		if f.About == "" {
			continue
		}
		value := f.Default
		switch {
		case f.Required:
			value = "**required**"
		case f.Default != "" && f.Default != "none" && !strings.Contains(f.Default, " ") || f.Path == "sentinels.files":
			value = "`" + strings.ReplaceAll(f.Default, ", ", "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", f.Path, f.Type, value, f.Bounds, f.About)
	}
	return b.String() + "\n"
}

// Every example in the documentation is a good file.
func TestDocumentedExamplesParse(t *testing.T) {
	data, err := os.ReadFile(documentPath)
	if err != nil {
		t.Fatal(err)
	}
	examples := 0
	for _, part := range strings.Split(string(data), "```yaml\n")[1:] {
		example, _, _ := strings.Cut(part, "```")
		if !strings.HasPrefix(example, "apiVersion: "+APIVersion) {
			continue
		}
		examples++
		if _, err := Parse([]byte(example)); err != nil {
			t.Errorf("example %d: %v", examples, err)
		}
	}
	if examples == 0 {
		t.Error("no examples found")
	}
}

func TestEveryFieldIsDocumented(t *testing.T) {
	for _, f := range Document() {
		element := f.Path == "" || strings.HasSuffix(f.Path, "[]") ||
			strings.HasPrefix(f.Path, "groups[].nodeSelectors[].") || strings.HasPrefix(f.Path, "groups[].drain.")
		if (f.About == "") != element {
			t.Errorf("%q: about %q", f.Path, f.About)
		}
		if !element && f.kind != object && (f.Default == "") != f.Required {
			t.Errorf("%q: default %q, required %v", f.Path, f.Default, f.Required)
		}
	}
}
