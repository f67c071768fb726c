package cluster

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"k8s.io/client-go/kubernetes"

	"kubebaton.io/baton/lab/build"
)

// DefaultName of a cluster.
const DefaultName = "lab"

const (
	defaultMaxPods = 110
	mostPods       = 253 // addresses of a node's pod network
)

// Options of a new cluster.
type Options struct {
	Name         string    // "": DefaultName; short, lower case
	Nodes        int       // how many nodes, named n1, n2, …
	ControlPlane int       // how many of them, from n1 on, are labelled and tainted as control plane; 0: workers only
	MaxPods      int       // how many pods a node takes; 0: 110, as a kubelet does by default
	Cache        string    // see build.Config.Dir
	Kubernetes   string    // see build.Config.Kubernetes
	Progress     io.Writer // what is being done, a line each; nil: nothing is told
}

// Cluster that runs.
type Cluster struct {
	state

	dir      string
	progress io.Writer
	lock     *os.File // held by the program that started the cluster
	client   kubernetes.Interface
}

// state is what other programs need to use the cluster: cluster.json.
type state struct {
	Name       string
	Kubernetes string
	Proxy      string // image of kube-proxy
	Parts      build.Parts
	MaxPods    int // of every node
	Next       int // number of the next node
}

// Start makes a cluster, in place of one of this name that an earlier program left, and returns when its nodes are Ready. It
// refuses when a living program still holds the cluster. What is missing on the machine is made or named. A start that does
// not succeed leaves only its logs.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	cache, err := build.New(build.Config{Dir: o.Cache, Kubernetes: o.Kubernetes, Progress: o.Progress})
	if err = errors.Join(err, o.check()); err != nil {
		return nil, err
	}
	parts, err := cache.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: place(cache, o.Name), progress: o.Progress, state: state{
		Name: o.name(), Kubernetes: cache.KubernetesVersion(), Proxy: cache.ProxyImage(), Parts: parts,
		MaxPods: cmp.Or(o.MaxPods, defaultMaxPods), Next: 1,
	}}
	if err := c.hold(ctx); err != nil {
		return nil, err
	}
	if err := errors.Join(c.clean(ctx), os.RemoveAll(c.Logs()), raiseLimits()); err != nil {
		return nil, errors.Join(fmt.Errorf("making room for the cluster: %w", err), c.release())
	}
	if err := c.start(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("starting cluster %q (logs in %s): %w", c.Name, c.Logs(), err), c.clean(ctx), c.release())
	}
	return c, nil
}

func (o Options) name() string {
	if o.Name == "" {
		return DefaultName
	}
	return o.Name
}

func (o Options) check() error {
	var faults []error
	if !regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$`).MatchString(o.name()) {
		faults = append(faults, fmt.Errorf("cluster name %q: want at most 20 of a-z, 0-9 and -", o.Name))
	}
	if o.Nodes < 0 || o.Nodes > maxNodes {
		faults = append(faults, fmt.Errorf("nodes %d: want 0 to %d", o.Nodes, maxNodes))
	}
	if o.ControlPlane < 0 || o.ControlPlane > o.Nodes {
		faults = append(faults, fmt.Errorf("control plane nodes %d: want 0 to the number of nodes, %d", o.ControlPlane, o.Nodes))
	}
	if o.MaxPods < 0 || o.MaxPods > mostPods {
		faults = append(faults, fmt.Errorf("pods %d on a node: want at most %d, 0 for %d", o.MaxPods, mostPods, defaultMaxPods))
	}
	return errors.Join(faults...)
}

// Open finds a cluster that another program started. name "" is DefaultName, cache as in Options.
func Open(name, cache string) (*Cluster, error) {
	found, err := build.New(build.Config{Dir: cache})
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: place(found, name), progress: io.Discard}
	data, err := os.ReadFile(c.path("cluster.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no cluster %q is up: lab up starts one", filepath.Base(c.dir))
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &c.state); err != nil {
		return nil, fmt.Errorf("reading the state of cluster %q: %w", filepath.Base(c.dir), err)
	}
	return c, c.connect()
}

// Remove stops and removes the cluster of this name, or whatever is left of it.
func Remove(ctx context.Context, name, cache string) error {
	found, err := build.New(build.Config{Dir: cache})
	if err != nil {
		return err
	}
	o := Options{Name: name}
	c := &Cluster{dir: place(found, name), progress: io.Discard, state: state{Name: o.name()}}
	if err := errors.Join(o.check(), c.hold(ctx)); err != nil {
		return err
	}
	return c.Stop(ctx)
}

// Stop stops the cluster and removes everything that it owns.
func (c *Cluster) Stop(ctx context.Context) error {
	return errors.Join(c.clean(ctx), os.RemoveAll(c.Logs()), c.release())
}

// Release lets the cluster run on without this program.
func (c *Cluster) Release() error { return c.release() }

func place(cache *build.Cache, name string) string {
	return filepath.Join(cache.Dir(), "clusters", Options{Name: name}.name())
}

func (c *Cluster) path(elem ...string) string {
	return filepath.Join(append([]string{c.dir}, elem...)...)
}

// id names the cluster on this machine: its name, and its directory in short, since two caches may know the same name.
func (c *Cluster) id() string {
	sum := sha256.Sum256([]byte(c.dir))
	return filepath.Base(c.dir) + "-" + hex.EncodeToString(sum[:3])
}

// Logs is the directory of the logs of the control plane, and of each node's console.
func (c *Cluster) Logs() string { return c.dir + ".logs" }

// hold makes this program the one that may start and stop the cluster. It waits a little for a program that is just ending.
func (c *Cluster) hold(ctx context.Context) error {
	if c.lock != nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(c.dir), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(c.dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if err := until(ctx, "its lock", 50*time.Millisecond, func() (bool, error) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		return err == nil, err
	}); err != nil {
		return errors.Join(fmt.Errorf("cluster %q belongs to a program that still runs: end it, or give another name: %w", filepath.Base(c.dir), err), f.Close())
	}
	c.lock = f
	return nil
}

func (c *Cluster) release() error {
	if c.lock == nil {
		return nil
	}
	err := c.lock.Close()
	c.lock = nil
	return err
}

func (c *Cluster) save() error {
	data, err := json.MarshalIndent(c.state, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.path("cluster.json.new"), data, 0o644); err != nil {
		return err
	}
	return os.Rename(c.path("cluster.json.new"), c.path("cluster.json"))
}

func (c *Cluster) start(ctx context.Context, o Options) error {
	began := time.Now()
	if err := os.MkdirAll(c.path("nodes"), 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll(c.Logs(), 0o755); err != nil {
		return err
	}
	if err := errors.Join(c.makeCredentials(), c.makeNetwork(ctx), c.makeControlGroups(), c.save()); err != nil {
		return err
	}
	if err := c.startAPI(); err != nil {
		return err
	}
	if err := c.connect(); err != nil {
		return err
	}
	var nodes []string
	for range o.Nodes {
		name, err := c.prepareNode(ctx)
		if err != nil {
			return err
		}
		nodes = append(nodes, name)
	}
	if err := c.WaitAPI(ctx); err != nil {
		return err
	}
	c.tell("API server ready", began)
	if err := c.startControllers(); err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.installAddons(groupCtx) })
	for _, node := range nodes {
		group.Go(func() error { return c.switchOn(node) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := c.markControlPlane(ctx, nodes[:o.ControlPlane]); err != nil {
		return err
	}
	if err := c.waitReady(ctx, nodes); err != nil {
		return err
	}
	c.tell(fmt.Sprintf("%d nodes Ready", len(nodes)), began)
	if err := c.waitAddons(ctx, len(nodes)); err != nil {
		return err
	}
	c.tell("kube-proxy and pod network ready", began)
	return nil
}

func (c *Cluster) tell(what string, since time.Time) {
	fmt.Fprintf(c.progress, "%-46s %.1f s\n", what, time.Since(since).Seconds())
}

// until asks again and again, until ok, an error or the end of the context. what names the wait.
func until(ctx context.Context, what string, every time.Duration, ok func() (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last error
	for {
		done, err := ok()
		if done {
			return err
		}
		last = err
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx)), last)
		case <-tick.C:
		}
	}
}

// Until asks again and again until ok says that it is so, or ctx ends: then its error says what was waited for, and what ok said
// last. What ok says besides yes is dropped.
func Until(ctx context.Context, what string, every time.Duration, ok func() (bool, error)) error {
	return until(ctx, what, every, func() (bool, error) {
		done, err := ok()
		if done {
			err = nil
		}
		return done, err
	})
}
