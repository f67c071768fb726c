package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kubebaton.io/baton/lab/build"
)

// Every process of a cluster carries these two in its environment, so that it is found again whatever became of its parent.
const (
	envCluster = "BATON_LAB_CLUSTER" // the cluster's directory
	envUnit    = "BATON_LAB_UNIT"    // what the process is
)

// spawn starts a process that outlives this program, inside the cluster's network, with its output in the log of the unit.
func (c *Cluster) spawn(unit string, env []string, argv ...string) error {
	log, err := os.OpenFile(filepath.Join(c.Logs(), unit+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // it outlives this program; clean ends it
	cmd.Dir = c.dir
	cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", envCluster + "=" + c.dir, envUnit + "=" + unit}, env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.inNetwork(cmd.Start); err != nil {
		return fmt.Errorf("starting %s: %w", unit, err)
	}
	go func() { _ = cmd.Wait() }() // reaps it if it ends while this program lives; its log says why
	return nil
}

// processes are the cluster's own ones: PID to unit. The processes inside the nodes are not among them.
func (c *Cluster) processes() (map[int]string, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	found := map[int]string{}
	for _, dir := range dirs {
		env, err := os.ReadFile(dir + "/environ")
		if err != nil || len(env) == 0 {
			continue // ended, a zombie, or a thread of the kernel
		}
		vars := bytes.Split(env, []byte{0})
		mine, unit := false, ""
		for _, v := range vars {
			mine = mine || string(v) == envCluster+"="+c.dir
			if u, ok := strings.CutPrefix(string(v), envUnit+"="); ok {
				unit = u
			}
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); mine && err == nil && pid != os.Getpid() {
			found[pid] = unit
		}
	}
	return found, nil
}

// ended tells whether a process has let go of all that it had. Its environment is gone before its sockets are, which its last
// thread closes.
func ended(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true // and waited for
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	return err != nil || len(threads) <= 1 && bytes.HasPrefix(rest, []byte("Z"))
}

// killAll ends every process of the cluster. Machines die with their power supply.
func (c *Cluster) killAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return until(ctx, "the cluster's processes to end", 10*time.Millisecond, func() (bool, error) {
		found, err := c.processes()
		if err != nil {
			return true, err
		}
		inside, err := c.groupProcesses()
		if err != nil {
			return true, err
		}
		for _, pid := range inside {
			found[pid] = "in a node"
		}
		for pid := range found {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return true, fmt.Errorf("killing process %d: %w", pid, err)
			}
		}
		return len(found) == 0, nil
	})
}

// clean removes everything that a cluster of this name owns, but for its logs. It needs nothing but the name.
func (c *Cluster) clean(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx) // an interrupted program cleans up as well; every step is bounded
	if err := c.killAll(ctx); err != nil {
		return err
	}
	if err := c.forgetMachines(); err != nil {
		return err
	}
	if err := errors.Join(build.UnmountBelow(c.dir), c.removeControlGroups(ctx)); err != nil {
		return err
	}
	return os.RemoveAll(c.dir)
}

// forgetMachines removes what systemd-nspawn keeps under /run about machines that were killed.
func (c *Cluster) forgetMachines() error {
	const run = "/run/systemd/nspawn"
	leftovers, err := filepath.Glob(filepath.Join(run, "*", c.machine("*")))
	if err != nil {
		return err
	}
	disks, err := filepath.Glob(c.path("nodes", "*", "root"))
	if err != nil {
		return err
	}
	for _, disk := range disks {
		var st unix.Stat_t
		if err := unix.Stat(disk, &st); err != nil {
			return fmt.Errorf("looking at the disk %s: %w", disk, err)
		}
		leftovers = append(leftovers, filepath.Join(run, "locks", fmt.Sprintf("inode-%d:%d", st.Dev, st.Ino)))
	}
	for _, path := range leftovers {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	for _, dir := range []string{"locks", "propagate", "unix-export", "."} {
		_ = unix.Rmdir(filepath.Join(run, dir)) // only when nobody else uses it
	}
	return nil
}
