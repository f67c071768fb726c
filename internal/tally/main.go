// Command tally reads `go test -json` from standard input, shows what failed and what was skipped, then how much the tests
// did that say so by an attribute, and ends with one line that counts the tests. It fails when anything failed or was
// skipped, or when nothing ran: a test that is skipped proves nothing, and nobody reads the line that says so.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		os.Exit(1)
	}
}

// event is a line of `go doc test2json`, as far as it is used.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Key     string // of an attribute
	Value   string
	Elapsed float64 // seconds
}

// tally is what one run came to.
type tally struct {
	out                     io.Writer
	passed, failed, skipped int
	text                    map[string][]string // output of what has not ended yet, by package and test
	figures                 []string            // attributes that tests gave themselves: how much they did
	failing                 map[string]bool     // packages of which a test failed
}

var errNotClean = errors.New("tests failed, were skipped, or there were none")

func run(in io.Reader, out io.Writer) error {
	t := &tally{out: out, text: map[string][]string{}, failing: map[string]bool{}}
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			t.line(line)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	t.unfinished()
	for _, f := range t.figures {
		fmt.Fprintln(out, f)
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped)
	if t.failed > 0 || t.skipped > 0 || t.passed == 0 {
		return errNotClean
	}
	return nil
}

func (t *tally) line(line string) {
	var e event
	if json.Unmarshal([]byte(line), &e) != nil || e.Action == "" {
		fmt.Fprint(t.out, line) // of the go command itself
		return
	}
	key := e.Package + "/" + e.Test
	switch e.Action {
	case "start", "run", "pause", "cont", "bench":
	case "output":
		t.text[key] = append(t.text[key], e.Output)
	case "attr":
		t.figures = append(t.figures, fmt.Sprintf("%s of %s: %s", e.Key, e.Test, e.Value))
	case "build-output":
		fmt.Fprint(t.out, e.Output)
	case "build-fail":
	case "pass", "fail", "skip":
		t.end(e, key)
	}
}

// end counts a test, or closes a package. A package fails by itself when it does not build, panics or its TestMain gives
// up: then no test says why.
func (t *tally) end(e event, key string) {
	text := strings.Join(t.text[key], "")
	delete(t.text, key)
	switch {
	case e.Test != "" && e.Action == "pass":
		t.passed++
	case e.Test != "" && e.Action == "skip":
		t.skipped++
		fmt.Fprintf(t.out, "SKIPPED %s\n%s", key, text)
	case e.Test != "":
		t.failed++
		t.failing[e.Package] = true
		fmt.Fprintf(t.out, "FAILED %s\n%s", key, text)
	case e.Action == "fail":
		if !t.failing[e.Package] {
			t.failed++
		}
		fmt.Fprintf(t.out, "%sFAIL %s %.1fs\n", text, e.Package, e.Elapsed)
	case e.Action == "pass":
		fmt.Fprintf(t.out, "ok   %s %.1fs\n", e.Package, e.Elapsed)
	}
}

// unfinished counts what began and never ended: the test binary or the go command was killed.
func (t *tally) unfinished() {
	var keys []string
	for key := range t.text {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		t.failed++
		fmt.Fprintf(t.out, "NEVER ENDED %s\n%s", strings.TrimSuffix(key, "/"), strings.Join(t.text[key], ""))
	}
}
