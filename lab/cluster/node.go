package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kubebaton.io/baton/lab/build"
)

// machine is the name of a node's machine on the host.
func (c *Cluster) machine(node string) string { return "baton-" + c.id() + "-" + node }

// Nodes are the names of the nodes that exist, on or off, in the order they were added.
func (c *Cluster) Nodes() ([]string, error) {
	entries, err := os.ReadDir(c.path("nodes"))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.SortFunc(names, func(a, b string) int {
		x, _ := number(a)
		y, _ := number(b)
		return x - y
	})
	return names, nil
}

func number(node string) (int, error) {
	n, err := strconv.Atoi(strings.TrimPrefix(node, "n"))
	if err != nil || n < 1 || n > maxNodes || node != "n"+strconv.Itoa(n) {
		return 0, fmt.Errorf("node %q: nodes are called n1, n2, …", node)
	}
	return n, nil
}

// known fails for a node that does not exist.
func (c *Cluster) known(node string) error {
	nodes, err := c.Nodes()
	if err == nil && !slices.Contains(nodes, node) {
		err = fmt.Errorf("no node %q: there are %s", node, strings.Join(nodes, ", "))
	}
	return err
}

// prepareNode makes the next node's disk: the shared root file system below, its own layer above.
func (c *Cluster) prepareNode(ctx context.Context) (string, error) {
	n := c.Next
	node := "n" + strconv.Itoa(n)
	if _, err := number(node); err != nil {
		return "", err
	}
	c.Next++
	if err := c.save(); err != nil {
		return "", err
	}
	dir := func(name string) string { return c.path("nodes", node, name) }
	for _, d := range []string{"upper", "work", "root", "kubelet"} {
		if err := os.MkdirAll(dir(d), 0o755); err != nil {
			return "", err
		}
	}
	if err := build.LinkTree(c.Parts.Store, dir("containerd")); err != nil {
		return "", fmt.Errorf("giving node %q its images: %w", node, err)
	}
	if err := c.writeNodeFiles(node, n, dir("upper")); err != nil {
		return "", fmt.Errorf("writing the files of node %q: %w", node, err)
	}
	layers := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", c.Parts.RootFS, dir("upper"), dir("work"))
	if err := unix.Mount("overlay", dir("root"), "overlay", 0, layers); err != nil {
		return "", fmt.Errorf("mounting the disk of node %q: %w", node, err)
	}
	return node, c.routePods(ctx, n)
}

// switchOn starts the node's power supply, and with it the machine.
func (c *Cluster) switchOn(node string) error {
	groups, err := c.groups()
	if err != nil {
		return err
	}
	argv := []string{filepath.Join(c.Parts.Programs, "power"), "--node", node, "--log", c.path("power.jsonl")}
	for _, g := range groups {
		argv = append(argv, "--cgroup", filepath.Join(g, node))
	}
	argv = append(argv, "--", "systemd-nspawn",
		"--directory="+c.path("nodes", node, "root"),
		"--machine="+c.machine(node), "--hostname="+node,
		"--boot", "--register=no", "--keep-unit", "--console=read-only", "--capability=all",
		"--resolv-conf=off", "--timezone=off", "--link-journal=no",
		"--network-bridge="+bridge,
		"--bind="+c.path("nodes", node, "containerd")+":/var/lib/containerd",
		"--bind="+c.path("nodes", node, "kubelet")+":/var/lib/kubelet",
		"--bind-ro="+c.Parts.Kubernetes+":/opt/kubernetes",
		"--bind-ro="+c.Parts.Containerd+":/opt/containerd",
	)
	env := []string{"SYSTEMD_SECCOMP=0", "SYSTEMD_NSPAWN_API_VFS_WRITABLE=yes"}
	return c.spawn(node, env, argv...)
}

// supply is the PID of the node's power supply, 0 when the node is off.
func (c *Cluster) supply(node string) (int, error) {
	found, err := c.processes()
	if err != nil {
		return 0, err
	}
	for pid, unit := range found {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err == nil && unit == node && filepath.Base(exe) == "power" {
			return pid, nil
		}
	}
	return 0, nil
}

// leader is the PID, on the host, of the node's systemd; 0 when the node is off or not yet that far.
func (c *Cluster) leader(node string) (int, error) {
	pid, err := c.supply(node)
	if pid == 0 || err != nil {
		return 0, err
	}
	for _, nspawn := range children(pid) {
		for _, child := range children(nspawn) {
			comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", child))
			if err == nil && strings.TrimSpace(string(comm)) == "systemd" {
				return child, nil
			}
		}
	}
	return 0, nil
}

func children(pid int) []int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil // ended
	}
	var pids []int
	for _, f := range strings.Fields(string(data)) {
		if p, err := strconv.Atoi(f); err == nil {
			pids = append(pids, p)
		}
	}
	return pids
}

// ErrOff is the answer of a node that is switched off, or not yet booted far enough.
var ErrOff = errors.New("the node is off")

// NodeCommand is a command that will run inside a node.
func (c *Cluster) NodeCommand(ctx context.Context, node string, argv ...string) (*exec.Cmd, error) {
	if err := c.known(node); err != nil {
		return nil, err
	}
	pid, err := c.leader(node)
	if err != nil {
		return nil, err
	}
	if pid == 0 {
		return nil, fmt.Errorf("entering node %q: %w", node, ErrOff)
	}
	enter := []string{"--target", strconv.Itoa(pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, argv...)...)
	cmd.Env = []string{"PATH=/opt/containerd:/opt/kubernetes:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=" + os.Getenv("TERM")}
	return cmd, nil
}

// Exec runs a command inside a node and returns what it printed. The error holds its standard error.
func (c *Cluster) Exec(ctx context.Context, node string, argv ...string) (string, error) {
	cmd, err := c.NodeCommand(ctx, node, argv...)
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("running %q in node %q: %w: %s", strings.Join(argv, " "), node, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Load imports docker-archive images from files into nodes; no nodes means all that are on.
func (c *Cluster) Load(ctx context.Context, file string, nodes ...string) error {
	if len(nodes) == 0 {
		all, err := c.Nodes()
		if err != nil {
			return err
		}
		for _, n := range all {
			if pid, err := c.leader(n); err == nil && pid != 0 {
				nodes = append(nodes, n)
			}
		}
	}
	for _, node := range nodes {
		if err := c.loadOne(ctx, file, node); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) loadOne(ctx context.Context, file, node string) error {
	image, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("loading an image: %w", err)
	}
	defer func() { _ = image.Close() }()
	cmd, err := c.NodeCommand(ctx, node, "ctr", "-n", "k8s.io", "images", "import", "-")
	if err != nil {
		return err
	}
	cmd.Stdin = image
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("loading %s into node %q: %w: %s", file, node, err, out)
	}
	return nil
}

// File is the path, on the host, of a path inside a node that is on. Symbolic links inside the node are not followed right.
func (c *Cluster) File(node, path string) (string, error) {
	pid, err := c.leader(node)
	if err != nil {
		return "", err
	}
	if pid == 0 {
		return "", fmt.Errorf("finding %s in node %q: %w", path, node, ErrOff)
	}
	return filepath.Join(fmt.Sprintf("/proc/%d/root", pid), path), nil
}

// Disk is the directory, on the host, of what a node has written to its disk: above the root file system that the nodes
// share. It is there while the node is off too. What is mounted in the node, such as /run and /var/lib/kubelet, is not in it.
func (c *Cluster) Disk(node string) (string, error) {
	return c.path("nodes", node, "upper"), c.known(node)
}

// Process is the PID, on the host, of a program that runs in a node, by the name of its executable file.
func (c *Cluster) Process(node, program string) (int, error) {
	pids, err := c.Processes(node, program)
	if err == nil && len(pids) == 0 {
		err = fmt.Errorf("no %s runs in node %q", program, node)
	}
	if err != nil {
		return 0, err
	}
	return pids[0], nil
}

// Processes are the PIDs, on the host, of all processes of a program that run in a node.
func (c *Cluster) Processes(node, program string) ([]int, error) {
	leader, err := c.leader(node)
	if err != nil {
		return nil, err
	}
	if leader == 0 {
		return nil, fmt.Errorf("looking for %s in node %q: %w", program, node, ErrOff)
	}
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, dir := range all {
		exe, err := os.Readlink(filepath.Join(dir, "exe"))
		if err != nil || filepath.Base(exe) != program {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && descends(pid, leader) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func descends(pid, from int) bool {
	for pid > 1 {
		if pid == from {
			return true
		}
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return false
		}
		_, rest, _ := strings.Cut(string(stat), ") ") // the name may hold anything but is the last in parentheses here
		var state string
		if _, err := fmt.Sscan(rest, &state, &pid); err != nil {
			return false
		}
	}
	return false
}

// Signal sends a signal to a program that runs in a node, by the name of its executable file.
func (c *Cluster) Signal(node, program string, signal unix.Signal) error {
	pid, err := c.Process(node, program)
	if err != nil {
		return err
	}
	if err := unix.Kill(pid, signal); err != nil {
		return fmt.Errorf("sending %s to %s in node %q: %w", signal, program, node, err)
	}
	return nil
}

// RaiseSentinel makes a node want a reboot, as an update on Debian does. Without packages it is a kernel that was never
// asked for before: the same sentinel soon after a reboot would be the one that survived it.
func (c *Cluster) RaiseSentinel(node string, packages ...string) error {
	if len(packages) == 0 {
		packages = []string{fmt.Sprintf("linux-image-6.1.0-%d-amd64", time.Now().UnixMilli())}
	}
	for _, f := range []struct{ name, text string }{
		{"reboot-required.pkgs", strings.Join(packages, "\n") + "\n"},
		{"reboot-required", "*** System restart required ***\n"},
	} {
		path, err := c.File(node, "/run/"+f.name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(f.text), 0o644); err != nil {
			return fmt.Errorf("raising the sentinel of node %q: %w", node, err)
		}
	}
	return nil
}

// Power is what can be done to a node's power supply.
type Power string

// On boots a node that is off, Off cuts the power, Cycle cuts it and boots again.
const (
	On    Power = "on"
	Off   Power = "off"
	Cycle Power = "cycle"
)

// Power switches a node. It returns when the machine is cut; it does not wait for a boot.
func (c *Cluster) Power(ctx context.Context, node string, p Power) error {
	if err := c.known(node); err != nil {
		return err
	}
	pid, err := c.supply(node)
	if err != nil {
		return err
	}
	switch {
	case p == On && pid != 0, p == Off && pid == 0:
		return nil
	case p == On, p == Cycle && pid == 0:
		return c.switchOn(node)
	case p == Off:
		return c.cut(ctx, node, pid, unix.SIGTERM)
	case p == Cycle:
		return c.cut(ctx, node, pid, unix.SIGUSR1)
	}
	return fmt.Errorf("power %q: want on, off or cycle", p)
}

// cut signals a power supply and waits until the power log shows that the machine is off.
func (c *Cluster) cut(ctx context.Context, node string, supply int, signal unix.Signal) error {
	before, err := c.cuts(node)
	if err != nil {
		return err
	}
	if err := unix.Kill(supply, signal); err != nil {
		return fmt.Errorf("cutting the power of node %q: %w", node, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return until(ctx, "node "+node+" to be off", 5*time.Millisecond, func() (bool, error) {
		now, err := c.cuts(node)
		return now > before, err
	})
}

func (c *Cluster) cuts(node string) (int, error) {
	log, err := c.PowerLog()
	n := 0
	for _, e := range log {
		if e.Node == node && !e.On {
			n++
		}
	}
	return n, err
}

// PowerEvent is one switching of a node's machine.
type PowerEvent struct {
	Time time.Time
	Node string
	On   bool
	Exit int // of the machine, when switched off: 133 reboot, 0 power-off, -1 cut
}

// PowerLog is the truth of which node was off when, in the order of time.
func (c *Cluster) PowerLog() ([]PowerEvent, error) {
	data, err := os.ReadFile(c.path("power.jsonl"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var events []PowerEvent
	for line := range bytes.Lines(data) {
		var e struct {
			Time        int64
			Node, Event string
			Exit        int
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("reading the power log: %w", err)
		}
		events = append(events, PowerEvent{Time: time.Unix(0, e.Time), Node: e.Node, On: e.Event == "on", Exit: e.Exit})
	}
	slices.SortStableFunc(events, func(a, b PowerEvent) int { return a.Time.Compare(b.Time) })
	return events, nil
}

func machineID() (string, error) {
	id := make([]byte, 16)
	_, err := rand.Read(id)
	return hex.EncodeToString(id) + "\n", err
}
