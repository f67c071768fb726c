package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Versions that the lab is made of unless told otherwise.
const (
	DefaultKubernetes = "1.37.2"
	DefaultContainerd = "2.4.2"
	cniPlugins        = "1.9.1"
	debian            = "bookworm"
)

// Config of a cache.
type Config struct {
	Dir        string    // "": $BATON_LAB, else baton-lab in the user's cache directory
	Kubernetes string    // version without v; "": $K8S, else DefaultKubernetes
	Containerd string    // version without v; "": DefaultContainerd
	Progress   io.Writer // one line a part that has to be made; nil: none
}

// Cache makes parts and keeps them.
type Cache struct {
	dir        string
	kubernetes string
	containerd string
	progress   io.Writer
}

// Parts are the directories that a cluster of nodes is made from.
type Parts struct {
	Kubernetes string // etcd, kube-apiserver, …, kubelet, kubectl
	Containerd string // containerd, its shim, ctr
	Programs   string // the lab's own programs, one executable each
	RootFS     string // Debian with systemd, logind and D-Bus
	Images     string // docker-archive files of the images that every node has
	Store      string // a containerd root that holds those images, unpacked
}

// New checks the configuration; it makes nothing yet.
func New(c Config) (*Cache, error) {
	var faults []error
	if c.Dir == "" {
		c.Dir = os.Getenv("BATON_LAB")
	}
	if c.Dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			faults = append(faults, fmt.Errorf("finding a cache directory (BATON_LAB names one): %w", err))
		}
		c.Dir = filepath.Join(base, "baton-lab")
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		faults = append(faults, err)
	}
	if c.Kubernetes == "" {
		c.Kubernetes = os.Getenv("K8S")
	}
	kubernetes, err := version("Kubernetes", c.Kubernetes, DefaultKubernetes)
	faults = append(faults, err)
	containerd, err := version("containerd", c.Containerd, DefaultContainerd)
	faults = append(faults, err)
	if c.Progress == nil {
		c.Progress = io.Discard
	}
	return &Cache{dir: dir, kubernetes: kubernetes, containerd: containerd, progress: c.Progress}, errors.Join(faults...)
}

func version(of, given, otherwise string) (string, error) {
	v := strings.TrimPrefix(given, "v")
	if v == "" {
		return otherwise, nil
	}
	if !regexp.MustCompile(`^[12]\.[0-9]+\.[0-9]+(-[0-9a-z.]+)?$`).MatchString(v) {
		return "", fmt.Errorf("%s version %q: want the form %s", of, given, otherwise)
	}
	return v, nil
}

// Dir is where the cache lives; clusters keep their state in it too.
func (c *Cache) Dir() string { return c.dir }

// KubernetesVersion without v.
func (c *Cache) KubernetesVersion() string { return c.kubernetes }

// API makes what an API server needs, without root: the directory holds etcd and kube-apiserver, as KUBEBUILDER_ASSETS
// wants it.
func (c *Cache) API(ctx context.Context) (string, error) {
	if err := c.need(); err != nil {
		return "", err
	}
	return c.controlPlane(ctx)
}

// Nodes makes everything that a cluster of nodes needs.
func (c *Cache) Nodes(ctx context.Context) (Parts, error) {
	if err := c.needNodes(ctx); err != nil {
		return Parts{}, err
	}
	var p Parts
	for _, part := range []struct {
		into *string
		make func(context.Context) (string, error)
	}{
		{&p.Kubernetes, c.kubernetesNode},
		{&p.Containerd, c.containerdBinaries},
		{&p.Programs, c.programs},
		{&p.RootFS, c.rootFS},
		{&p.Images, func(ctx context.Context) (string, error) { return c.images(ctx, p) }},
		{&p.Store, func(ctx context.Context) (string, error) { return c.store(ctx, p) }},
	} {
		var err error
		if *part.into, err = part.make(ctx); err != nil {
			return Parts{}, err
		}
	}
	return p, nil
}

// part returns the directory name of the cache, made by fill when it is not there.
func (c *Cache) part(ctx context.Context, name string, fill func(ctx context.Context, dir string) error) (string, error) {
	place := filepath.Join(c.dir, name)
	if exists(place) {
		return place, nil
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(place) {
		return place, nil
	}
	if err := c.sweep(); err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(c.dir, "making-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(temp, 0o755); err != nil {
		return "", err
	}
	if err := fill(ctx, temp); err != nil {
		return "", errors.Join(fmt.Errorf("making %s: %w", name, err), removeTree(temp))
	}
	return place, os.Rename(temp, place)
}

// step tells about one piece of work: a line at once, one every 15 s, and its length at the end.
func (c *Cache) step(what string, work func() error) error {
	start, done := time.Now(), make(chan error, 1)
	fmt.Fprintf(c.progress, "%-46s …\n", what)
	go func() { done <- work() }()
	tick := time.NewTicker(15 * time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			if err == nil {
				fmt.Fprintf(c.progress, "%-46s %.1f s\n", what, time.Since(start).Seconds())
			}
			return err
		case <-tick.C:
			fmt.Fprintf(c.progress, "%-46s … %.0f s\n", what, time.Since(start).Seconds())
		}
	}
}

func (c *Cache) lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the cache directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(c.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for said := false; ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking %s: %w", f.Name(), err)
		}
		if !said {
			said = true
			fmt.Fprintln(c.progress, "another build is running in this cache: waiting for it")
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// sweep removes what interrupted builds left.
func (c *Cache) sweep() error {
	left, err := filepath.Glob(filepath.Join(c.dir, "making-*"))
	if err != nil {
		return err
	}
	for _, dir := range left {
		if err := removeTree(dir); err != nil {
			return fmt.Errorf("removing what an interrupted build left: %w", err)
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// removeTree removes a directory in which something may still be mounted.
func removeTree(dir string) error {
	if err := UnmountBelow(dir); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// UnmountBelow detaches every mount at or below dir, the deepest first.
func UnmountBelow(dir string) error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	lines := strings.Split(string(data), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		f := strings.Fields(lines[i])
		if len(f) < 5 || (f[4] != dir && !strings.HasPrefix(f[4], dir+"/")) {
			continue
		}
		if err := unix.Unmount(f[4], unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmounting %s: %w", f[4], err)
		}
	}
	return nil
}

// run runs a command and puts the end of its output into the error.
func run(ctx context.Context, dir string, env []string, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		const tail = 3000
		return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out[max(0, len(out)-tail):])
	}
	return nil
}

func arch() string { return runtime.GOARCH }
