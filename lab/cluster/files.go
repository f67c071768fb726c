package cluster

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"kubebaton.io/baton/lab/build"
)

//go:embed files
var files embed.FS

// file is an embedded file with its NAMES in capitals filled in.
func file(name string, fill ...string) (string, error) {
	data, err := files.ReadFile("files/" + name)
	return strings.NewReplacer(fill...).Replace(string(data)), err
}

// writeNodeFiles fills the node's own layer above the shared root file system.
func (c *Cluster) writeNodeFiles(node string, n int, upper string) error {
	fill := []string{"NODE_NAME", node, "NODE_IP", nodeIP(n), "PAUSE_IMAGE", build.PauseImage, "MAX_PODS", strconv.Itoa(c.MaxPods)}
	for name, to := range map[string]struct {
		path string
		mode os.FileMode
	}{
		"containerd.toml":    {"etc/containerd/config.toml", 0o644},
		"kubelet.yaml":       {"etc/kubernetes/kubelet.yaml", 0o644},
		"lab-node":           {"usr/local/sbin/lab-node", 0o755},
		"lab-node.service":   {"etc/systemd/system/lab-node.service", 0o644},
		"containerd.service": {"etc/systemd/system/containerd.service", 0o644},
		"kubelet.service":    {"etc/systemd/system/kubelet.service", 0o644},
	} {
		text, err := file(name, fill...)
		if err != nil {
			return err
		}
		if err := writeBelow(upper, to.path, text, to.mode); err != nil {
			return err
		}
	}
	id, err := machineID()
	if err != nil {
		return err
	}
	for path, text := range map[string]string{
		"etc/hostname":          node + "\n",
		"etc/hosts":             fmt.Sprintf("127.0.0.1 localhost\n%s %s\n", nodeIP(n), node),
		"etc/machine-id":        id,
		"etc/resolv.conf":       "",
		"etc/cni/net.d/.keep":   "",
		"opt/cni/bin/.keep":     "",
		"opt/kubernetes/.keep":  "",
		"opt/containerd/.keep":  "",
		"etc/fstab":             "",
		"var/lib/kubelet/.keep": "",
	} {
		if err := writeBelow(upper, path, text, 0o644); err != nil {
			return err
		}
	}
	if err := c.linkUnits(upper); err != nil {
		return err
	}
	a, err := c.authority()
	if err != nil {
		return err
	}
	// Nodes authenticate as kubelets do, so that the Node authorizer and NodeRestriction hold here as elsewhere.
	return a.kubeconfig(filepath.Join(upper, "etc/kubernetes/kubelet.kubeconfig"), identity{"system:node:" + node, []string{"system:nodes"}})
}

// linkUnits enables the node's units, and masks what only costs a boot or shutdown time here.
func (c *Cluster) linkUnits(upper string) error {
	system := filepath.Join(upper, "etc/systemd/system")
	wants := filepath.Join(system, "multi-user.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	for _, unit := range []string{"lab-node.service", "containerd.service", "kubelet.service"} {
		if err := os.Symlink("/etc/systemd/system/"+unit, filepath.Join(wants, unit)); err != nil {
			return err
		}
	}
	if err := os.Symlink("/usr/lib/systemd/system/multi-user.target", filepath.Join(system, "default.target")); err != nil {
		return err
	}
	for _, unit := range []string{
		"console-getty.service", "getty.target", "systemd-journal-flush.service", "systemd-update-utmp.service",
		"systemd-networkd.service", "systemd-timesyncd.service", "systemd-random-seed.service",
		"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer",
	} {
		if err := os.Symlink("/dev/null", filepath.Join(system, unit)); err != nil {
			return err
		}
	}
	return nil
}

func writeBelow(root, path, text string, mode os.FileMode) error {
	to := filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, []byte(text), mode)
}
