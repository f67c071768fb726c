package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The mutants are run on demand only. That each still finds its place is known with every change of the code.
func TestPlaces(t *testing.T) {
	names := map[string]bool{}
	for _, m := range mutants() {
		if names[m.name] {
			t.Errorf("%s: a name that another has", m.name)
		}
		names[m.name] = true
		code, err := os.ReadFile(filepath.Join("..", "..", m.file))
		if err != nil {
			t.Error(err)
			continue
		}
		if n := strings.Count(string(code), m.old); n != 1 {
			t.Errorf("%s: %s holds the piece %d times, not once: %q", m.name, m.file, n, m.old)
		}
	}
}
