// Package house_test keeps the walls of the house: which package may know which.
package house_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "kubebaton.io/baton/"

// pkg is what `go list -json` says of a package, as far as it is used.
type pkg struct {
	ImportPath string
	Imports    []string // direct, without tests
	Deps       []string // all, without tests
}

// ours returns the packages of this module by their path within it.
func ours(t *testing.T) map[string]pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,Deps", "./...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("listing the packages: %v", err)
	}
	pkgs := map[string]pkg{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs[strings.TrimPrefix(p.ImportPath, module)] = p
	}
}

func within(path string, trees []string) bool {
	return slices.ContainsFunc(trees, func(tree string) bool {
		return path == strings.TrimSuffix(tree, "/") || strings.HasPrefix(path, strings.TrimSuffix(tree, "/")+"/")
	})
}

// rules say what a package may know, directly or through others. A package that is not listed may know everything.
var rules = []struct {
	pkg  string
	own  []string // packages of this module
	not  []string // trees outside of it that it must not know
	only []string // if set: the only trees outside of it and of the standard library that it may know
}{
	// The cycle decides on observations: it has never heard of an API server or a bus.
	{pkg: "agent", not: []string{"k8s.io", "sigs.k8s.io", "github.com/godbus", "github.com/coreos", "github.com/fsnotify"}},
	{pkg: "window", only: []string{"github.com/robfig/cron"}},
	{pkg: "config", own: []string{"window"}, not: []string{"k8s.io/client-go", "github.com/godbus", "github.com/coreos"}},
	{pkg: "host", not: []string{"k8s.io", "sigs.k8s.io"}},
	{pkg: "lock", own: []string{"kube"}, not: []string{"github.com/godbus", "github.com/coreos"}},
	{pkg: "node", own: []string{"kube"}, not: []string{"github.com/godbus", "github.com/coreos"}},
	{pkg: "marshal", own: []string{"kube"}, not: []string{"github.com/godbus", "github.com/coreos"}},
	{pkg: "kube", not: []string{"github.com/godbus", "github.com/coreos"}},
}

func TestPackagesKnowOnlyWhatTheyMay(t *testing.T) {
	pkgs := ours(t)
	for _, r := range rules {
		t.Run(r.pkg, func(t *testing.T) {
			p, ok := pkgs[r.pkg]
			if !ok {
				t.Fatal("there is no such package")
			}
			for _, d := range p.Deps {
				own, isOwn := strings.CutPrefix(d, module)
				outside := !isOwn && strings.Contains(strings.SplitN(d, "/", 2)[0], ".")
				switch {
				case isOwn && !within(own, append(r.own, r.pkg)):
					t.Errorf("it knows %s", own)
				case outside && within(d, r.not):
					t.Errorf("it knows %s", d)
				case outside && r.only != nil && !within(d, r.only):
					t.Errorf("it knows %s", d)
				}
			}
		})
	}
}

func TestWhatIsShippedHasNoTestsAndStartsNoProgram(t *testing.T) {
	for path, p := range ours(t) {
		if strings.HasPrefix(path, "internal/") {
			continue // helpers of the tests
		}
		for _, d := range p.Imports {
			switch {
			case d == "os/exec":
				t.Errorf("%s starts programs: hosts are asked over the bus", path)
			case within(d, []string{"testing", "sigs.k8s.io/controller-runtime", "github.com/google/go-cmp", module + "internal"}):
				t.Errorf("%s imports %s, which is for tests", path, d)
			}
		}
	}
}

func TestOnlyCommandsAreKnownToNobody(t *testing.T) {
	for path, p := range ours(t) {
		for _, d := range p.Deps {
			if strings.HasPrefix(d, module+"cmd/") && !strings.HasPrefix(path, "cmd/") {
				t.Errorf("%s knows %s", path, d)
			}
		}
	}
}

// What joins the parts is for those who run whole agents: no part may reach another one through it.
func TestOnlyCommandsKnowTheWiring(t *testing.T) {
	for path, p := range ours(t) {
		if !strings.HasPrefix(path, "cmd/") && slices.Contains(p.Deps, module+"wire") {
			t.Errorf("%s knows it", path)
		}
	}
}
