package evidence

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/observe"
)

// Logs are those of all agents that ever ran, by node. A kubelet removes the files with their pods: here they stay as hard
// links, in a directory on the file system of the cluster.
type Logs struct {
	cluster *cluster.Cluster
	dir     string
}

// NewLogs begins a collection, in place of an earlier one. It goes with the cluster's own logs.
func NewLogs(c *cluster.Cluster) (*Logs, error) {
	dir := filepath.Join(c.Logs(), "agents")
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return nil, fmt.Errorf("keeping the agents' logs: %w", err)
	}
	return &Logs{c, dir}, nil
}

// Keep links what came since it was called last.
func (l *Logs) Keep() error {
	nodes, err := l.cluster.Nodes()
	if err != nil {
		return err
	}
	var faults []error
	for _, node := range nodes {
		disk, err := l.cluster.Disk(node)
		if err != nil {
			continue // removed meanwhile
		}
		found, err := filepath.Glob(filepath.Join(disk, "var/log/pods", observe.Namespace+"_*", "agent", "*.log"))
		faults = append(faults, err)
		for _, file := range found {
			faults = append(faults, l.link(node, file))
		}
	}
	return errors.Join(faults...)
}

func (l *Logs) link(node, file string) error {
	pod := filepath.Base(filepath.Dir(filepath.Dir(file)))
	to := filepath.Join(l.dir, node, pod+"_"+filepath.Base(file))
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := os.Link(file, to); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keeping a log: %w", err)
	}
	return nil
}

// Nodes are those of which there are logs.
func (l *Logs) Nodes() ([]string, error) {
	entries, err := os.ReadDir(l.dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// Since are the lines that the agents of a node wrote from from on, in the order of time, each with the runtime's stamp.
func (l *Logs) Since(node string, from time.Time) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(l.dir, node, "*.log"))
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		scan := bufio.NewScanner(f)
		scan.Buffer(nil, 1<<20)
		for scan.Scan() {
			stamp, _, _ := strings.Cut(scan.Text(), " ")
			if at, err := time.Parse(time.RFC3339Nano, stamp); err == nil && !at.Before(from) {
				lines = append(lines, scan.Text())
			}
		}
		if err := errors.Join(scan.Err(), f.Close()); err != nil {
			return nil, err
		}
	}
	slices.Sort(lines)
	return lines, nil
}
