package build

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"kubebaton.io/baton/lab/image"
)

// Registry is the name under which the lab's own images go. Nothing is ever pulled from it.
const Registry = "lab.kubebaton.io"

// ProxyImage is kube-proxy of this Kubernetes version.
func (c *Cache) ProxyImage() string { return Registry + "/kube-proxy:v" + c.kubernetes }

// Images that every node has from its first boot on.
const (
	PauseImage = Registry + "/pause:1"
	AppImage   = Registry + "/app:1" // test workload: serves until SIGTERM, see programs/app
	CNIImage   = Registry + "/cni:1"
)

// images writes the docker-archive files of the images that every node has.
func (c *Cache) images(ctx context.Context, p Parts) (string, error) {
	cni, err := c.cniBinaries(ctx)
	if err != nil {
		return "", err
	}
	key := keyOf(p.Programs, p.Kubernetes, p.RootFS, cni)
	return c.part(ctx, "images-"+key, func(_ context.Context, dir string) error {
		proxy := []image.File{{Path: "/kube-proxy", From: filepath.Join(p.Kubernetes, "kube-proxy"), Mode: 0o755}}
		nft, err := withLibraries(p.RootFS, "/usr/sbin/nft")
		if err != nil {
			return fmt.Errorf("collecting nft for the image of kube-proxy: %w", err)
		}
		installer := []image.File{program(p, "cni")}
		for _, plugin := range []string{"bridge", "host-local", "loopback"} {
			installer = append(installer, image.File{Path: "/plugins/" + plugin, From: filepath.Join(cni, plugin), Mode: 0o755})
		}
		for file, i := range map[string]image.Image{
			"pause":      {Name: PauseImage, Entrypoint: []string{"/pause"}, Files: []image.File{program(p, "pause")}},
			"app":        {Name: AppImage, Entrypoint: []string{"/app"}, Files: []image.File{program(p, "app")}},
			"cni":        {Name: CNIImage, Entrypoint: []string{"/cni"}, Files: installer},
			"kube-proxy": {Name: c.ProxyImage(), Entrypoint: []string{"/kube-proxy"}, Files: append(proxy, nft...)},
		} {
			i.Arch = arch()
			if err := i.WriteFile(filepath.Join(dir, file+".tar")); err != nil {
				return err
			}
		}
		return nil
	})
}

func program(p Parts, name string) image.File {
	return image.File{Path: "/" + name, From: filepath.Join(p.Programs, name), Mode: 0o755}
}

// withLibraries is a program of the root file system with every shared library that it loads.
func withLibraries(root, program string) ([]image.File, error) {
	var files []image.File
	todo := []string{program}
	for seen := map[string]bool{}; len(todo) > 0; todo = todo[1:] {
		if seen[todo[0]] {
			continue
		}
		seen[todo[0]] = true
		from, err := filepath.EvalSymlinks(filepath.Join(root, todo[0]))
		if err != nil {
			return nil, err
		}
		files = append(files, image.File{Path: todo[0], From: from, Mode: 0o755})
		needed, err := libraries(root, from)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", todo[0], err)
		}
		todo = append(todo, needed...)
	}
	return files, nil
}

func libraries(root, binary string) ([]string, error) {
	f, err := elf.Open(binary)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	names, err := f.ImportedLibraries()
	if err != nil {
		return nil, err
	}
	var paths []string
	if s := f.Section(".interp"); s != nil {
		interpreter, err := s.Data()
		if err != nil {
			return nil, err
		}
		paths = append(paths, string(interpreter[:len(interpreter)-1]))
	}
	for _, name := range names {
		found, err := filepath.Glob(filepath.Join(root, "lib", "*-linux-gnu", name))
		if err != nil || len(found) == 0 {
			return nil, errors.Join(err, fmt.Errorf("no library %s", name))
		}
		path, err := filepath.Rel(root, found[0])
		if err != nil {
			return nil, err
		}
		if path = "/" + path; !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	return paths, nil
}

// store imports the images into a containerd root, so that a new node has them without unpacking anything.
func (c *Cache) store(ctx context.Context, p Parts) (string, error) {
	return c.part(ctx, "store-"+keyOf(p.Images, p.Containerd), func(ctx context.Context, dir string) error {
		return c.step("images, unpacked", func() error { return fillStore(ctx, p, dir) })
	})
}

func fillStore(ctx context.Context, p Parts, dir string) (err error) {
	state, err := os.MkdirTemp("", "baton-lab-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeTree(state)) }()
	socket := filepath.Join(state, "s")
	config := fmt.Sprintf(`version = 3
root = %q
state = %q
disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"]
[plugins."io.containerd.server.v1.grpc"]
  address = %q
[grpc]
  address = %q
`, dir, filepath.Join(state, "state"), socket, socket)
	if err := os.WriteFile(filepath.Join(state, "config.toml"), []byte(config), 0o600); err != nil {
		return err
	}
	daemon, stop := context.WithCancel(ctx)
	defer stop()
	cmd := exec.CommandContext(daemon, filepath.Join(p.Containerd, "containerd"), "--config", filepath.Join(state, "config.toml"))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	log, err := os.Create(filepath.Join(state, "log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	err = importAll(ctx, p, socket)
	stop()
	_ = cmd.Wait() // it was told to stop; what counts is what the imports said
	if err != nil {
		said, readErr := os.ReadFile(log.Name())
		return errors.Join(err, readErr, fmt.Errorf("containerd said:\n%s", said))
	}
	return nil
}

func importAll(ctx context.Context, p Parts, socket string) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !exists(socket) && time.Now().Before(deadline); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	tars, err := filepath.Glob(filepath.Join(p.Images, "*.tar"))
	if err != nil {
		return err
	}
	for _, tar := range tars {
		if err := run(ctx, "", nil, filepath.Join(p.Containerd, "ctr"), "--address", socket, "-n", "k8s.io", "images", "import", tar); err != nil {
			return err
		}
	}
	return nil
}

// LinkTree makes dst a copy of a containerd root: what containerd never rewrites (blobs, unpacked layers) as hard links, its
// databases as copies.
func LinkTree(src, dst string) error {
	return filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		to := filepath.Join(dst, rel)
		switch {
		case d.IsDir():
			if err := os.MkdirAll(to, info.Mode().Perm()); err != nil {
				return err
			}
			return os.Chmod(to, info.Mode().Perm())
		case filepath.Ext(path) == ".db":
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(to, data, info.Mode().Perm())
		default:
			return os.Link(path, to)
		}
	})
}

func keyOf(dirs ...string) string {
	sum := sha256.New()
	for _, d := range dirs {
		fmt.Fprintln(sum, filepath.Base(d))
	}
	return hex.EncodeToString(sum.Sum(nil))[:12]
}
