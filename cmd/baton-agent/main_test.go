package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kubebaton.io/baton/internal/apitest"
	"kubebaton.io/baton/kube"
)

// Of all tests, set once by TestMain.
var (
	server   *apitest.Server
	hostsDir string // with the file systems of hosts
)

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	kube.RouteLogs(slog.New(slog.DiscardHandler))
	// Traces wait far more than they work, so more of them run at once than there are processors.
	if err := flag.Set("test.parallel", "16"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var err error
	if hostsDir, err = os.MkdirTemp("", "b"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(hostsDir) }()
	if server, err = apitest.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer server.Close()
	server.Config.QPS = -1
	return m.Run()
}

func TestTheCommandLine(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.yaml"), filepath.Join(dir, "bad.yaml")
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	head := "apiVersion: kubebaton.io/v1alpha1\nkind: RebootConfiguration\n"
	write(good, head+"maxUnavailable: 2\n")
	write(bad, head+"maxUnavailable: 0\ngateIntervall: 5m\n")
	for _, tt := range []struct {
		name     string
		args     []string
		code     int
		out, err []string
	}{
		{"help teaches", []string{"--help"}, exitOK, nil, []string{"check-config FILE", "slot", "-node-name", "/readyz"}},
		{"a version is known", []string{"--version"}, exitOK, []string{"baton-agent"}, nil},
		{"all faults of the flags at once", []string{"--log-format=xml", "--node-name=", "extra"}, exitUsage, nil, []string{"--log-format", "--node-name", "extra"}},
		{"an unknown flag is a fault", []string{"--nope"}, exitUsage, nil, []string{"nope"}},
		{"a valid configuration", []string{"check-config", good}, exitOK, []string{"valid", "workers (maxUnavailable 2)"}, nil},
		{"all faults of a configuration at once", []string{"check-config", bad}, exitFault, nil, []string{"maxUnavailable", "gateIntervall"}},
		{"a configuration that is not there", []string{"check-config", filepath.Join(dir, "none")}, exitFault, nil, []string{"none"}},
		{"plan teaches", []string{"plan", "--help"}, exitOK, nil, []string{"kubectl", "dry run", "-kubeconfig"}},
		{"all faults of plan at once", []string{"plan", "--node-name=", "extra"}, exitUsage, nil, []string{"--node-name", "extra"}},
		{"a plan without a configuration", []string{"plan", "--node-name=n", "--config", filepath.Join(dir, "none")}, exitFault, nil, []string{"none"}},
		{"check-config has no flags", []string{"check-config", "--help"}, exitUsage, nil, []string{"usage: baton-agent check-config FILE"}},
		{"check-config wants one file", []string{"check-config"}, exitUsage, nil, []string{"usage"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, err bytes.Buffer
			if code := run(t.Context(), tt.args, &out, &err); code != tt.code {
				t.Errorf("exit code %d, want %d; %s%s", code, tt.code, &out, &err)
			}
			for _, w := range tt.out {
				if !strings.Contains(out.String(), w) {
					t.Errorf("stdout lacks %q: %s", w, &out)
				}
			}
			for _, w := range tt.err {
				if !strings.Contains(err.String(), w) {
					t.Errorf("stderr lacks %q: %s", w, &err)
				}
			}
		})
	}
}

// A program that is moved when it is loaded has addresses in its read-only pages that are not in the file.
func TestPagesOfARelocatedProgramAreKept(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	head := make([]byte, 64) // of an ELF file of this machine's kind, without segments and sections
	if _, err := io.ReadFull(own, head); err != nil {
		t.Fatal(err)
	}
	clear(head[32:48])
	clear(head[56:64])
	for kind, want := range map[elf.Type]bool{elf.ET_EXEC: false, elf.ET_DYN: true} {
		binary.NativeEndian.PutUint16(head[16:], uint16(kind))
		file := filepath.Join(t.TempDir(), "program")
		if err := os.WriteFile(file, head, 0o600); err != nil {
			t.Fatal(err)
		}
		if moves, err := relocated(file); err != nil || moves != want {
			t.Errorf("%v: moved when it is loaded: %v, %v", kind, moves, err)
		}
	}
}

func TestGivingBackPagesOfTheProgramLeavesItRunning(t *testing.T) {
	if err := unmapProgram(); err != nil {
		t.Fatal(err)
	}
	if http.StatusText(http.StatusTeapot) == "" {
		t.Error("constants are gone")
	}
}
