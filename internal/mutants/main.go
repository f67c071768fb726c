// Command mutants shows that the tests of Baton's promises can fail. Each mutant breaks one promise by replacing one
// piece of the code, by an overlay, so that no file is touched; the test that is named with it must fail then. One
// mutant changes nothing and must survive. A piece that is not there exactly once is an error: a mutant that has gone
// stale proves nothing.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// patience is how long a test may take.
const patience = "5m"

// mutant is one promise broken.
type mutant struct {
	name     string // what the mutant does
	file     string // from the module's root
	old, new string // old stands in file exactly once
	test     string // -run of the test that kills it
	pkg      string // the package of that test, from the module's root; "" is that of file
	survives bool   // it must not be killed
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	fs := flag.NewFlagSet("mutants", flag.ContinueOnError)
	only := fs.String("only", "", "run the mutants whose name matches this `regexp`")
	if err := fs.Parse(args); err != nil {
		return fmt.Errorf("parsing the flags: %w", err)
	}
	match, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("--only: %w", err)
	}
	root, err := filepath.Abs(".")
	if err != nil {
		return fmt.Errorf("finding the module: %w", err)
	}
	passed, failed := 0, 0
	sound := map[string]error{} // what comes of a test while nothing is broken
	for _, m := range mutants() {
		if !match.MatchString(m.name) {
			continue
		}
		start := time.Now()
		key := m.tests() + " " + m.test
		if _, known := sound[key]; !known {
			sound[key] = m.passes(ctx)
		}
		verdict, err := "", sound[key]
		if err == nil {
			verdict, err = m.judge(ctx, root)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed++
			verdict = "ERROR: " + err.Error()
		} else {
			passed++
		}
		fmt.Fprintf(out, "%-9s %5.1fs  %s (%s: %s)\n", verdict, time.Since(start).Seconds(), m.name, m.tests(), m.test)
	}
	fmt.Fprintf(out, "%d passed, %d failed\n", passed, failed)
	if failed > 0 || passed == 0 {
		return errors.New("a mutant was not judged as it should be")
	}
	return nil
}

// tests is the package of the test.
func (m mutant) tests() string { return cmp.Or(m.pkg, filepath.Dir(m.file)) }

// passes runs the mutant's test over the code as it is: a test that fails anyway kills nothing.
func (m mutant) passes(ctx context.Context) error {
	if text, err := exec.CommandContext(ctx, "go", "test", "-timeout="+patience, "-run", m.test, "./"+m.tests()).CombinedOutput(); err != nil { //nolint:gosec // from the list
		return fmt.Errorf("%s fails while nothing is broken: %w\n%s", m.test, err, text)
	}
	return nil
}

// judge runs the mutant's test over the mutated file.
func (m mutant) judge(ctx context.Context, root string) (string, error) {
	path := filepath.Join(root, m.file)
	code, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("reading the code: %w", err)
	}
	if n := strings.Count(string(code), m.old); n != 1 {
		return "", fmt.Errorf("%s holds the piece %d times, not once: %q", m.file, n, m.old)
	}
	dir, err := os.MkdirTemp("", "mutant")
	if err != nil {
		return "", fmt.Errorf("making room: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	mutated, overlay := filepath.Join(dir, "mutated.go"), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {path: mutated}})
	if err != nil {
		return "", fmt.Errorf("writing the overlay: %w", err)
	}
	err = errors.Join(
		os.WriteFile(mutated, []byte(strings.Replace(string(code), m.old, m.new, 1)), 0o600),
		os.WriteFile(overlay, replace, 0o600))
	if err != nil {
		return "", fmt.Errorf("writing the mutant: %w", err)
	}
	vet := exec.CommandContext(ctx, "go", "vet", "-overlay", overlay, "./"+filepath.Dir(m.file))
	if text, err := vet.CombinedOutput(); err != nil {
		return "", fmt.Errorf("the mutant does not compile: %s", text)
	}
	text, err := exec.CommandContext(ctx, "go", "test", "-count=1", "-failfast", "-timeout="+patience, "-overlay", overlay, "-run", m.test, "./"+m.tests()).CombinedOutput()
	var exit *exec.ExitError
	switch {
	case strings.Contains(string(text), "panic: test timed out"): // a slow machine proves nothing
		return "", fmt.Errorf("%s took longer than %s", m.test, patience)
	case strings.Contains(string(text), "no tests to run"):
		return "", fmt.Errorf("there is no test %s", m.test)
	case err == nil && m.survives:
		return "survived", nil
	case err == nil:
		return "", errors.New("survived")
	case !errors.As(err, &exit):
		return "", fmt.Errorf("running the test: %w", err)
	case m.survives:
		return "", errors.New("killed, and it changes nothing")
	case !strings.Contains(string(text), "--- FAIL: "):
		return "", fmt.Errorf("no test has failed, and the run has: %s", text)
	}
	return "killed", nil
}
