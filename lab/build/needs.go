package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

const freeBytes = 5 << 30

// need checks what every tier needs and names every lack at once, with its fix.
func (c *Cache) need() error { return errors.Join(c.lacks()...) }

func (c *Cache) lacks() []error {
	var lacks []error
	if _, err := exec.LookPath("go"); err != nil {
		lacks = append(lacks, errors.New("no Go command: install Go 1.26 or newer from https://go.dev/dl and put it into PATH"))
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return append(lacks, fmt.Errorf("no cache directory (set BATON_LAB to one that can be written): %w", err))
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(c.dir, &fs); err != nil {
		return append(lacks, fmt.Errorf("asking for free space in %s: %w", c.dir, err))
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < freeBytes {
		lacks = append(lacks, fmt.Errorf("only %.1f GB free at %s, 5 GB are needed: make room, or set BATON_LAB to a directory elsewhere",
			float64(free)/1e9, c.dir))
	}
	return lacks
}

// needNodes checks what real nodes need. Packages are installed when that is allowed, everything else is said.
func (c *Cache) needNodes(ctx context.Context) error {
	lacks := c.lacks()
	root := os.Geteuid() == 0
	if !root {
		lacks = append(lacks, errors.New("real nodes need root: run again with sudo -E (the control plane alone does not: lab build --tier=api)"))
	}
	for _, fs := range []string{"overlay", "tmpfs"} {
		if known, err := os.ReadFile("/proc/filesystems"); err == nil && !strings.Contains(string(known), "\t"+fs+"\n") &&
			run(ctx, "", nil, "modprobe", fs) != nil {
			lacks = append(lacks, fmt.Errorf("this kernel has no %s file system: load the module", fs))
		}
	}
	missing := missingPackages()
	if len(missing) == 0 {
		return errors.Join(lacks...)
	}
	fix := "apt-get update && apt-get install --no-install-recommends " + strings.Join(missing, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return errors.Join(append(lacks, fmt.Errorf("missing here: %s (no apt-get to install them; on Debian: %s)", strings.Join(missing, ", "), fix))...)
	}
	if len(lacks) > 0 || !root {
		return errors.Join(append(lacks, fmt.Errorf("missing packages: %s", fix))...)
	}
	return c.step("packages "+strings.Join(missing, " "), func() error {
		env := []string{"DEBIAN_FRONTEND=noninteractive"}
		if err := run(ctx, "", env, "apt-get", "update", "-q"); err != nil {
			return err
		}
		return run(ctx, "", env, append([]string{"apt-get", "install", "-y", "-q", "--no-install-recommends"}, missing...)...)
	})
}

func missingPackages() []string {
	var missing []string
	for _, p := range []struct{ command, pkg string }{
		{"systemd-nspawn", "systemd-container"},
		{"debootstrap", "debootstrap"},
		{"ip", "iproute2"},
		{"nsenter", "util-linux"},
	} {
		if _, err := exec.LookPath(p.command); err != nil {
			missing = append(missing, p.pkg)
		}
	}
	return missing
}
