package house_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every metric that the code names is documented, and no other.
func TestTheMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, name := range regexp.MustCompile("(?m)^\\| `(baton_[a-z0-9_]+)`").FindAllStringSubmatch(string(text), -1) {
		documented[name[1]] = false
	}
	literal := regexp.MustCompile(`"(baton_[a-z0-9_]*)"(?: ?\+ ?name)?`)
	group := regexp.MustCompile(`"((?:nodes|waiting|slots|halted|paused|oldest_waiting_seconds|estimated_seconds_left))"`)
	asked := regexp.MustCompile(`baton_[a-z0-9_]+`)
	for _, file := range []string{"prometheusrule.yaml", "dashboard.yaml"} {
		text, err := os.ReadFile(filepath.Join("deploy", "components", "alerts", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range asked.FindAllString(string(text), -1) {
			if _, ok := documented[name]; !ok {
				t.Errorf("%s asks for %s, which docs/metrics.md does not know", file, name)
			}
		}
	}
	err = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && (d.Name() == "lab" || d.Name() == ".git") {
			return orSkip(err)
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		code, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		names := literal.FindAllStringSubmatch(string(code), -1)
		if path == filepath.Join("marshal", "metrics.go") {
			for _, n := range group.FindAllStringSubmatch(string(code), -1) {
				names = append(names, []string{"", "baton_group_" + n[1]})
			}
		}
		for _, n := range names {
			if n[1] == "baton_group_" {
				continue
			}
			if _, ok := documented[n[1]]; !ok {
				t.Errorf("%s: docs/metrics.md does not know %s", path, n[1])
			}
			documented[n[1]] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, found := range documented {
		if !found {
			t.Errorf("docs/metrics.md documents %s, which no code names", name)
		}
	}
}

func orSkip(err error) error {
	if err != nil {
		return err
	}
	return filepath.SkipDir
}
