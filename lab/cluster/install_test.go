package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOverlay(t *testing.T) {
	dir, deploy := t.TempDir(), t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(deploy, link); err != nil {
		t.Fatal(err)
	}
	if err := Overlay(dir, link, "maxUnavailable: 2"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "kustomization.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "        kind: RebootConfiguration\n        maxUnavailable: 2\n") {
		t.Errorf("the line is not in the configuration: %s", text)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	base := strings.TrimSuffix(strings.TrimPrefix(first, "resources: ["), "]")
	got, err := filepath.EvalSymlinks(filepath.Join(dir, base))
	want, wantErr := filepath.EvalSymlinks(deploy)
	if err != nil || wantErr != nil || got != want {
		t.Errorf("%q leads to %q (%v), want %q", first, got, err, want)
	}
}
