package house_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every line of the table of what the peers get wrong has a test that is named after its number, and names it.
func TestEveryFaultOfThePeersHasItsTest(t *testing.T) {
	text, err := os.ReadFile("docs/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(`(?m)^\| (\d+) \|.*$`)
	named := regexp.MustCompile("`(TestPeer(\\d+)_\\w+)`")
	missing := map[string]string{} // test to the number of its line
	lines := map[string]bool{}
	for _, r := range row.FindAllStringSubmatch(string(text), -1) {
		lines[r[1]] = true
		tests := named.FindAllStringSubmatch(r[0], -1)
		if len(tests) == 0 {
			t.Errorf("line %s names no test", r[1])
		}
		for _, n := range tests {
			if n[2] != r[1] {
				t.Errorf("line %s names %s", r[1], n[1])
			}
			missing[n[1]] = r[1]
		}
	}
	if len(lines) != 14 {
		t.Errorf("%d lines, want 14", len(lines))
	}
	declared := regexp.MustCompile(`(?m)^func (TestPeer\d+_\w+)\(`)
	err = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		code, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, f := range declared.FindAllStringSubmatch(string(code), -1) {
			if _, ok := missing[f[1]]; !ok {
				t.Errorf("%s: docs/reliability.md does not name %s", path, f[1])
			}
			delete(missing, f[1])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for test, line := range missing {
		t.Errorf("line %s names %s, which is nowhere", line, test)
	}
}
