package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"kubebaton.io/baton/lab/programs"
)

const kubernetesModule = "k8s.io/kubernetes"

// controlPlane and kubernetesNode are two parts, so that tier 1 compiles only what it needs. The second takes the first's
// binaries over as links.
func (c *Cache) controlPlane(ctx context.Context) (string, error) {
	return c.part(ctx, "api-v"+c.kubernetes+"-"+arch(), func(ctx context.Context, dir string) error {
		return c.kubernetesBinaries(ctx, dir, "etcd", "kube-apiserver")
	})
}

func (c *Cache) kubernetesNode(ctx context.Context) (string, error) {
	api, err := c.controlPlane(ctx)
	if err != nil {
		return "", err
	}
	return c.part(ctx, "kubernetes-v"+c.kubernetes+"-"+arch(), func(ctx context.Context, dir string) error {
		for _, name := range []string{"etcd", "kube-apiserver"} {
			if err := os.Link(filepath.Join(api, name), filepath.Join(dir, name)); err != nil {
				return err
			}
		}
		return c.kubernetesBinaries(ctx, dir, "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl")
	})
}

func (c *Cache) kubernetesBinaries(ctx context.Context, dir string, names ...string) error {
	mod, err := c.kubernetesMod(ctx)
	if err != nil {
		return err
	}
	const x = " -X k8s.io/component-base/version."
	ld := "-s -w" + x + "gitVersion=v" + c.kubernetes + x + "gitMajor=1" + x + "gitMinor=" + strings.Split(c.kubernetes, ".")[1]
	return c.goBinaries(ctx, mod, dir, ld, c.kubernetes, names, func(name string) string {
		if name == "etcd" {
			return "go.etcd.io/etcd/server/v3"
		}
		return kubernetesModule + "/cmd/" + name
	})
}

// kubernetesMod is a go.mod under which Kubernetes builds as a dependency: its staging modules, which its own go.mod finds
// beside itself, are replaced by their published versions. Everything else, etcd included, is of the version it asks for.
func (c *Cache) kubernetesMod(ctx context.Context) (string, error) {
	file, err := goMod(ctx, kubernetesModule, c.kubernetes)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "module lab\n\ngo %s\n\nrequire %s v%s\n", goVersion(file), kubernetesModule, c.kubernetes)
	staging := "v0." + strings.SplitN(c.kubernetes, ".", 2)[1]
	for _, m := range regexp.MustCompile(`(?m)^\s*(?:replace )?(k8s\.io/[a-z0-9-]+) => \./staging/`).FindAllStringSubmatch(file, -1) {
		fmt.Fprintf(&b, "replace %s => %s %s\n", m[1], m[1], staging)
	}
	return b.String(), nil
}

func (c *Cache) containerdBinaries(ctx context.Context) (string, error) {
	const module = "github.com/containerd/containerd/v2"
	return c.part(ctx, "containerd-v"+c.containerd+"-"+arch(), func(ctx context.Context, dir string) error {
		mod, err := plainMod(ctx, module, c.containerd)
		if err != nil {
			return err
		}
		names := []string{"containerd", "containerd-shim-runc-v2", "ctr"}
		ld := "-s -w -X " + module + "/version.Version=v" + c.containerd
		return c.goBinaries(ctx, mod, dir, ld, c.containerd, names, func(name string) string { return module + "/cmd/" + name })
	})
}

func (c *Cache) cniBinaries(ctx context.Context) (string, error) {
	const module = "github.com/containernetworking/plugins"
	return c.part(ctx, "cni-v"+cniPlugins+"-"+arch(), func(ctx context.Context, dir string) error {
		mod, err := plainMod(ctx, module, cniPlugins)
		if err != nil {
			return err
		}
		kinds := map[string]string{"bridge": "main", "loopback": "main", "host-local": "ipam"}
		names := []string{"bridge", "host-local", "loopback"}
		return c.goBinaries(ctx, mod, dir, "-s -w", cniPlugins, names, func(name string) string {
			return path.Join(module, "plugins", kinds[name], name)
		})
	})
}

// programs builds the lab's own programs from the sources that are embedded in the lab.
func (c *Cache) programs(ctx context.Context) (string, error) {
	sum := sha256.New()
	for _, name := range programs.Names() {
		data, err := fs.ReadFile(programs.Source, name+"/main.go")
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(data), data)
	}
	key := hex.EncodeToString(sum.Sum(nil))[:12]
	return c.part(ctx, "programs-"+key+"-"+arch(), func(ctx context.Context, dir string) error {
		source, err := os.MkdirTemp(c.dir, "making-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(source) }() // the next build sweeps what is left
		if err := os.CopyFS(source, programs.Source); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(source, "go.mod"), []byte("module programs\n\ngo 1.26\n"), 0o644); err != nil {
			return err
		}
		return c.step("the lab's own programs", func() error {
			return goBuild(ctx, source, dir+"/", "-s -w", "./...")
		})
	})
}

func (c *Cache) goBinaries(ctx context.Context, mod, dir, ldflags, version string, names []string, pkg func(string) string) error {
	module, err := os.MkdirTemp(c.dir, "making-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(module) }() // the next build sweeps what is left
	if err := os.WriteFile(filepath.Join(module, "go.mod"), []byte(mod), 0o644); err != nil {
		return err
	}
	for _, name := range names {
		err := c.step(name+" (module version "+version+")", func() error {
			return goBuild(ctx, module, filepath.Join(dir, name), ldflags, pkg(name))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func goBuild(ctx context.Context, dir, out, ldflags, pkg string) error {
	return run(ctx, dir, []string{"CGO_ENABLED=0", "GOFLAGS=-mod=mod -buildvcs=false", "GOWORK=off", "GOOS=linux"},
		"go", "build", "-trimpath", "-ldflags", ldflags, "-o", out, pkg)
}

func plainMod(ctx context.Context, module, version string) (string, error) {
	file, err := goMod(ctx, module, version)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("module lab\n\ngo %s\n\nrequire %s v%s\n", goVersion(file), module, version), nil
}

// goMod is the go.mod of a published module.
func goMod(ctx context.Context, module, version string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", module+"@v"+version)
	cmd.Dir, cmd.Env = os.TempDir(), append(os.Environ(), "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var answer struct{ GoMod, Error string }
	if jsonErr := json.Unmarshal(out, &answer); jsonErr != nil || answer.Error != "" {
		return "", fmt.Errorf("downloading %s v%s: %s%s (%w)", module, version, answer.Error, stderr.String(), err)
	}
	file, err := os.ReadFile(answer.GoMod)
	return string(file), err
}

func goVersion(file string) string {
	if m := regexp.MustCompile(`(?m)^go ([0-9.]+)`).FindStringSubmatch(file); m != nil {
		return m[1]
	}
	return "1.26.0"
}
