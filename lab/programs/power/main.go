// Command power is the power supply of one lab node: it runs the node's machine, boots it again after each reboot and logs
// every power-off and boot with its time, which is the lab's independent truth of which node is down.
//
//	power --node n1 --log power.jsonl --cgroup DIR [--cgroup DIR…] -- systemd-nspawn …
//
// SIGUSR1 cuts the power and boots again; SIGTERM cuts the power and ends. A machine that powers itself off stays off.
// Nothing of a machine is left when the next one boots in its control groups.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// rebooted is systemd-nspawn's exit code, under --keep-unit, of a machine that asked to be booted again.
const rebooted = 133

// stillborn is its exit code when it could not start the machine, as when the mounts of the one before are still busy. That is tried again.
const (
	stillborn = 1
	atOnce    = time.Second // such an end comes sooner
	births    = 5
	between   = 200 * time.Millisecond
)

type list []string

func (l *list) String() string     { return fmt.Sprint(*l) }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func main() {
	if len(os.Args) > 2 && os.Args[1] == "join" {
		fail(join(os.Args[2:]))
	}
	var s supply
	flag.StringVar(&s.node, "node", "", "name of the node")
	flag.StringVar(&s.log, "log", "", "file that the events are appended to, one JSON object a line")
	flag.Var(&s.cgroups, "cgroup", "directory of a control group that the machine runs in; emptied before each boot")
	flag.Parse()
	s.argv = flag.Args()
	fail(s.run())
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "power:", err)
		os.Exit(1)
	}
}

// join enters control groups and becomes the machine: `power join DIR… -- argv`.
func join(args []string) error {
	for i, a := range args {
		if a == "--" {
			path, err := exec.LookPath(args[i+1])
			if err != nil {
				return err
			}
			return syscall.Exec(path, args[i+1:], os.Environ())
		}
		if err := os.WriteFile(filepath.Join(a, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
			return fmt.Errorf("joining a control group: %w", err)
		}
	}
	return errors.New("join: no command after --")
}

type supply struct {
	node, log string
	cgroups   list
	argv      []string
}

func (s *supply) run() error {
	// The machine dies with the thread that started it (PDEATHSIG), so that thread has to be this one.
	runtime.LockOSThread()
	sig := make(chan os.Signal, 4)
	signal.Notify(sig, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1)
	for tries := 1; ; tries++ {
		began := time.Now()
		code, again, err := s.boot(sig)
		switch {
		case err != nil:
			return err
		case again:
			tries = 0
		case code == stillborn && time.Since(began) < atOnce && tries < births:
			<-time.After(between)
		default:
			return nil
		}
		fmt.Fprintf(os.Stderr, "== %s: exit %d, booting again\n", s.node, code)
	}
}

func (s *supply) boot(sig <-chan os.Signal) (code int, again bool, err error) {
	for _, dir := range s.cgroups {
		if err := s.prepare(dir); err != nil {
			return 0, false, err
		}
	}
	argv := append([]string{"join"}, s.cgroups...)
	cmd := exec.Command("/proc/self/exe", append(append(argv, "--"), s.argv...)...) //nolint:noctx // signals end it, see below
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.record("on", nil); err != nil {
		return 0, false, err
	}
	if err := cmd.Start(); err != nil {
		return 0, false, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	cut, cycle := false, false
	for {
		select {
		case got := <-sig:
			cut, cycle = true, got == syscall.SIGUSR1
			// Killing systemd-nspawn leaves its machine running; what is in the machine's groups is the machine.
			s.cut()
			if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return 0, false, err
			}
		case <-ended: //nolint:errcheck // how it ended is told elsewhere.
			code := cmd.ProcessState.ExitCode()
			if cut {
				code = -1 // whatever it still said
			}
			return code, cycle || code == rebooted, s.record("off", &code)
		}
	}
}

func (s *supply) record(event string, exit *int) error {
	f, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	line, err := json.Marshal(struct {
		Time  int64  `json:"time"` // nanoseconds since the epoch
		Node  string `json:"node"`
		Event string `json:"event"`
		Exit  *int   `json:"exit,omitempty"`
	}{time.Now().UnixNano(), s.node, event, exit})
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}

// prepare makes a control group, or empties it: as with real power nothing of the last boot is left. A version 1 cpuset
// admits nobody until its CPUs and memory nodes are set.
func (s *supply) prepare(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
		if err := inherit(dir, f); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		s.cut()
		err := removeBelow(dir)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		<-time.After(5 * time.Millisecond)
	}
}

// cut kills everything in the machine's control groups.
func (s *supply) cut() {
	for _, group := range s.cgroups {
		// What ends while it is looked at is what is wanted: errors do not matter, the groups' removal shows what is left.
		_ = filepath.WalkDir(group, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Name() == "cgroup.procs" {
				kill(path)
			}
			return nil
		})
	}
}

func kill(procs string) {
	data, err := os.ReadFile(procs)
	if err != nil {
		return
	}
	for _, field := range strings.Fields(string(data)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

func inherit(dir, file string) error {
	if _, err := os.Stat(filepath.Join(dir, "cgroup.controllers")); err == nil {
		return nil // version 2 inherits by itself
	}
	own, err := os.ReadFile(filepath.Join(dir, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || len(own) > 1 {
		return err
	}
	if err := inherit(filepath.Dir(dir), file); err != nil {
		return err
	}
	above, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, file), above, 0)
}

func removeBelow(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		sub := filepath.Join(dir, e.Name())
		if err := removeBelow(sub); err != nil {
			return err
		}
		if err := syscall.Rmdir(sub); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing control group %s: %w", sub, err)
		}
	}
	return nil
}
