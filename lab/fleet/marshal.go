package fleet

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// marshalNode is the node of the agent that is a process of its own.
const marshalNode = "fleet-marshal"

// memoryTarget is that of the DaemonSet.
const memoryTarget = "GOMEMLIMIT=208MiB"

// startMarshal starts the shipped program on a host that wants a reboot and has no bus to ask for it, and returns its process
// ID once it is the marshal. stop ends it.
func (f *fleet) startMarshal(ctx context.Context, dir string) (pid int, stop func(), err error) {
	m := &machine{fleet: f, name: marshalNode, number: f.Nodes}
	if err := m.join(ctx); err != nil {
		return 0, nil, err
	}
	root := filepath.Join(dir, "host")
	for path, text := range map[string]string{
		filepath.Join(root, "proc/sys/kernel/random/boot_id"): m.boot + "\n",
		filepath.Join(root, "run/reboot-required"):            "",
		filepath.Join(dir, "config.yaml"):                     f.settingsText,
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return 0, nil, fmt.Errorf("making the marshal's host: %w", err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return 0, nil, fmt.Errorf("making the marshal's host: %w", err)
		}
	}
	kubeconfig := filepath.Join(dir, "marshal.kubeconfig")
	c := clientcmdapi.NewConfig()
	c.Clusters["a"] = &clientcmdapi.Cluster{Server: f.server.Config.Host, CertificateAuthorityData: f.server.Config.CAData}
	c.AuthInfos["a"] = &clientcmdapi.AuthInfo{Token: m.token}
	c.Contexts["a"] = &clientcmdapi.Context{Cluster: "a", AuthInfo: "a"}
	c.CurrentContext = "a"
	if err := clientcmd.WriteToFile(*c, kubeconfig); err != nil {
		return 0, nil, fmt.Errorf("writing the marshal's kubeconfig: %w", err)
	}
	log, err := os.Create(filepath.Join(dir, "marshal.log"))
	if err != nil {
		return 0, nil, fmt.Errorf("making the marshal's log: %w", err)
	}
	cmd := exec.CommandContext(ctx, f.Binary, "--kubeconfig="+kubeconfig, "--node-name="+marshalNode, "--namespace="+namespace, //nolint:gosec // the agent
		"--host-root="+root, "--config="+filepath.Join(dir, "config.yaml"), "--listen=127.0.0.1:0")
	cmd.Env = append(os.Environ(), memoryTarget)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return 0, nil, fmt.Errorf("starting the marshal: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
		_ = log.Close()
	}()
	stop = func() {
		_ = cmd.Process.Kill()
		<-ended
	}
	return cmd.Process.Pid, stop, f.awaitMarshal(ctx, ended)
}

func (f *fleet) awaitMarshal(ctx context.Context, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute) // it reads every Node first
	defer cancel()
	for {
		l, err := f.kubelets.client(0).CoordinationV1().Leases(namespace).Get(ctx, "marshal", metav1.GetOptions{})
		if err == nil && l.Spec.HolderIdentity != nil && *l.Spec.HolderIdentity == marshalNode {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the marshal: %w (last: %w)", ctx.Err(), err)
		case <-ended:
			return fmt.Errorf("the marshal has ended: %w", os.ErrProcessDone)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
