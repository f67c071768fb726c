// Command cni installs the pod network on its node as network DaemonSets do: the plugin binaries first, the configuration
// last, each by rename. What is there already and equal is left alone, and stays on the node's disk, so that a node that
// boots again has its network before this pod runs. Then it waits for SIGTERM.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

const conflist = `{"cniVersion":"1.0.0","name":"lab","plugins":[{"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true,"hairpinMode":true,
"ipam":{"type":"host-local","dataDir":"/run/cni-ipam","ranges":[[{"subnet":"10.200.%s.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := install("/plugins", "/host/bin", "/host/net.d", os.Getenv("HOST_IP")); err != nil {
		fmt.Fprintln(os.Stderr, "installing the pod network:", err)
		os.Exit(1)
	}
	<-ctx.Done()
}

func install(plugins, bin, conf, ip string) error {
	i := strings.LastIndex(ip, ".")
	if i < 0 {
		return fmt.Errorf("HOST_IP %q is no IPv4 address", ip)
	}
	files, err := os.ReadDir(plugins)
	if err != nil {
		return err
	}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(plugins, f.Name()))
		if err != nil {
			return err
		}
		if err := place(filepath.Join(bin, f.Name()), data, 0o755); err != nil {
			return err
		}
	}
	return place(filepath.Join(conf, "10-lab.conflist"), fmt.Appendf(nil, conflist, ip[i+1:]), 0o644)
}

func place(path string, data []byte, mode fs.FileMode) error {
	old, err := os.ReadFile(path)
	if err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(path+".new", data, mode); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
