package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
)

func debianPackages() []string {
	return []string{
		"systemd", "systemd-sysv", "dbus", "libpam-systemd", // a host that can be asked to reboot
		"iproute2", "util-linux", "procps", "ca-certificates",
		"iptables", "nftables", "conntrack", // the bridge plugin and kube-proxy
		"runc",
	}
}

// rootFS makes the root file system that all nodes share, each with a layer of its own above it.
// BATON_LAB_MIRROR names another Debian mirror.
func (c *Cache) rootFS(ctx context.Context) (string, error) {
	packages := strings.Join(debianPackages(), ",")
	sum := sha256.Sum256([]byte(packages))
	name := "debian-" + debian + "-" + hex.EncodeToString(sum[:4]) + "-" + arch()
	return c.part(ctx, name, func(ctx context.Context, dir string) error {
		return c.step("Debian "+debian+" root file system", func() error {
			argv := []string{"debootstrap", "--variant=minbase", "--include=" + packages, debian, dir}
			if mirror := os.Getenv("BATON_LAB_MIRROR"); mirror != "" {
				argv = append(argv, mirror)
			}
			if err := run(ctx, "", nil, argv...); err != nil {
				return err
			}
			for _, leftover := range []string{"var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man"} {
				if err := os.RemoveAll(filepath.Join(dir, leftover)); err != nil {
					return err
				}
			}
			return nil
		})
	})
}
