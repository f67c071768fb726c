package house_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
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

// Every Event that the code writes is in the table for operators, and no other.
func TestTheEventsAreDocumented(t *testing.T) {
	literal := regexp.MustCompile(`"((?:Reboot|Configuration)[A-Z]\w+)"`)
	phase := regexp.MustCompile(`\sPhase += "(\w+)"`)
	code := slices.Concat(said(t, "agent/*.go", literal, ""), said(t, "cmd/baton-agent/*.go", literal, ""), said(t, "agent/phase.go", phase, "Reboot"))
	code = slices.DeleteFunc(code, func(reason string) bool { return reason == "RebootIdle" }) // is told as RebootFinished
	table := said(t, "docs/operations.md", regexp.MustCompile("(?m)^\\| `((?:Reboot|Configuration)[A-Z]\\w+)` \\|"), "")
	slices.Sort(code)
	slices.Sort(table)
	if diff := cmp.Diff(slices.Compact(code), table); diff != "" {
		t.Errorf("docs/operations.md does not name the Events as they are (-code +table):\n%s", diff)
	}
}

// The values of labels that are words of the code are documented.
func TestTheValuesOfLabelsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	verb := regexp.MustCompile(`metrics\.count\("([^"]+)"`)
	doing := regexp.MustCompile(`(?:\.failed\(|errors\.WithLabelValues\(|\b(?:readingAPI|readingSentinels|evicting|awaitingPods|runningHooks) += )"([^"]+)"`)
	verbs, doings := said(t, "lock/*.go", verb, ""), said(t, "agent/*.go", doing, "")
	if len(verbs) < 10 || len(doings) < 10 {
		t.Errorf("the code is read no more: verbs %q, doings %q", verbs, doings)
	}
	for _, value := range slices.Concat(verbs, doings) {
		if !strings.Contains(string(text), "`"+value+"`") {
			t.Errorf("docs/metrics.md does not know %q", value)
		}
	}
}

// said returns what is found in the files of a pattern, tests left out, with a prefix.
func said(t *testing.T, pattern string, what *regexp.Regexp, prefix string) (all []string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d files, %v", pattern, len(files), err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range what.FindAllStringSubmatch(string(text), -1) {
			all = append(all, prefix+m[1])
		}
	}
	return all
}

func orSkip(err error) error {
	if err != nil {
		return err
	}
	return filepath.SkipDir
}
