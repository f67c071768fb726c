package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cgroupRoots are the mounted hierarchies of control groups: the one of version 2, or those of version 1 (with the one of
// version 2 beside them on a hybrid host).
func cgroupRoots() ([]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var roots []string
	for line := range strings.Lines(string(data)) {
		before, after, ok := strings.Cut(line, " - ")
		f := strings.Fields(before)
		if !ok || len(f) < 5 || !strings.HasPrefix(after, "cgroup") || !strings.HasPrefix(f[4], "/sys/fs/cgroup") {
			continue
		}
		if !slices.Contains(roots, f[4]) {
			roots = append(roots, f[4])
		}
	}
	if len(roots) == 0 {
		return nil, errors.New("no control groups are mounted at /sys/fs/cgroup")
	}
	return roots, nil
}

// groups are the cluster's directories, one in each hierarchy.
func (c *Cluster) groups() ([]string, error) {
	roots, err := cgroupRoots()
	for i := range roots {
		roots[i] = filepath.Join(roots[i], "baton-lab", c.id())
	}
	return roots, err
}

// makeControlGroups makes the cluster's groups; those of the nodes below them are made by each node's power supply. In
// version 2 a controller works in a group only when every group above hands it down.
func (c *Cluster) makeControlGroups() error {
	groups, err := c.groups()
	if err != nil {
		return err
	}
	for _, dir := range groups {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for _, d := range []string{filepath.Dir(filepath.Dir(dir)), filepath.Dir(dir), dir} {
			if err := handDown(d); err != nil {
				return err
			}
		}
	}
	return nil
}

func handDown(dir string) error {
	controllers, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // version 1
	}
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "cgroup.subtree_control")
	on, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for _, controller := range strings.Fields(string(controllers)) {
		if slices.Contains(strings.Fields(string(on)), controller) {
			continue
		}
		err := os.WriteFile(file, []byte("+"+controller), 0)
		if errors.Is(err, syscall.EBUSY) {
			return fmt.Errorf("control group %s holds processes, so it cannot hand %q down: in a container, move them into a group below before the lab starts: %w",
				dir, controller, err)
		}
		// cpu, memory and pids are what a kubelet cannot do without.
		if err != nil && slices.Contains([]string{"cpu", "memory", "pids"}, controller) {
			return fmt.Errorf("handing down controller %q in %s: %w", controller, dir, err)
		}
	}
	return nil
}

// groupProcesses are the processes inside the nodes.
func (c *Cluster) groupProcesses() ([]int, error) {
	groups, err := c.groups()
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, group := range groups {
		err := filepath.WalkDir(group, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.Name() != "cgroup.procs" {
				return gone(err)
			}
			data, err := os.ReadFile(path)
			for _, field := range strings.Fields(string(data)) {
				if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
					pids = append(pids, pid)
				}
			}
			return gone(err)
		})
		if err != nil {
			return nil, err
		}
	}
	return pids, nil
}

// gone forgives that a control group ended while it was looked at.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.EOPNOTSUPP) {
		return nil
	}
	return err
}

func (c *Cluster) removeControlGroups(ctx context.Context) error {
	groups, err := c.groups()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return until(ctx, "the control groups to be empty", 10*time.Millisecond, func() (bool, error) {
		var faults []error
		for _, group := range groups {
			faults = append(faults, removeGroup(group))
			// The directory above is shared with other clusters: it goes with the last one.
			_ = syscall.Rmdir(filepath.Dir(group))
		}
		err := errors.Join(faults...)
		return err == nil, err
	})
}

func removeGroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return gone(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeGroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := gone(syscall.Rmdir(dir)); err != nil {
		return fmt.Errorf("removing control group %s: %w", dir, err)
	}
	return nil
}
