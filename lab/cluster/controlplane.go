package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// auditPolicy logs who asked for what, and the answer's code, once a request: no bodies. A watch is logged when it starts and
// when it ends.
const auditPolicy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- level: Metadata\n"

// AuditLog of the API server, one JSON event a line.
func (c *Cluster) AuditLog() string { return c.path("audit.log") }

// Unit is a process of the control plane that can be killed, and run again with the same arguments and data.
type Unit string

// The units.
const (
	Etcd       Unit = "etcd"
	APIServer  Unit = "kube-apiserver"
	Controller Unit = "kube-controller-manager"
	Scheduler  Unit = "kube-scheduler"
)

// Run starts a unit that does not run. It does not wait until it serves.
func (c *Cluster) Run(u Unit) error {
	argv, err := c.arguments(u)
	if err != nil {
		return err
	}
	return c.spawn(string(u), nil, append([]string{c.binary(string(u))}, argv...)...)
}

// Kill ends a unit at once and without a farewell, and returns when it has ended, its sockets too. Nobody starts it again but Run.
func (c *Cluster) Kill(ctx context.Context, u Unit) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	killed := map[int]bool{}
	return until(ctx, string(u)+" to end", time.Millisecond, func() (bool, error) {
		found, err := c.processes()
		if err != nil {
			return true, err
		}
		for pid, unit := range found {
			if unit != string(u) {
				continue
			}
			killed[pid] = true
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return true, fmt.Errorf("killing %s: %w", u, err)
			}
		}
		for pid := range killed {
			if !ended(pid) {
				return false, nil
			}
		}
		return true, nil
	})
}

func (c *Cluster) arguments(u Unit) ([]string, error) {
	switch u {
	case Etcd:
		return []string{
			"--data-dir", c.path("etcd"), "--unsafe-no-fsync", "--log-level=warn",
			"--listen-client-urls", EtcdURL, "--advertise-client-urls", EtcdURL,
			"--listen-peer-urls", "http://127.0.0.1:2380",
		}, nil
	case APIServer:
		return []string{
			"--etcd-servers=" + EtcdURL,
			"--secure-port=" + apiPort,
			"--advertise-address=" + Gateway,
			"--cert-dir=" + c.path("pki"),
			"--tls-cert-file=" + c.path("pki/apiserver.crt"), "--tls-private-key-file=" + c.path("pki/apiserver.key"),
			"--client-ca-file=" + c.path("pki/ca.crt"),
			"--service-account-key-file=" + c.path("pki/tokens.pub"), "--service-account-signing-key-file=" + c.path("pki/tokens.key"),
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-cluster-ip-range=" + serviceNet,
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged",
			"--kubelet-preferred-address-types=InternalIP",
			"--audit-policy-file=" + c.path("audit.yaml"), "--audit-log-path=" + c.AuditLog(), "--audit-log-maxsize=8000",
		}, nil
	case Controller:
		return []string{
			"--kubeconfig=" + c.path("controller-manager.kubeconfig"),
			"--use-service-account-credentials",
			"--service-account-private-key-file=" + c.path("pki/tokens.key"), "--root-ca-file=" + c.path("pki/ca.crt"),
			"--kube-api-qps=500", "--kube-api-burst=1000", // by default its start takes 6 s, for the tokens of its controllers alone
			"--leader-elect=false", "--secure-port=0",
		}, nil
	case Scheduler:
		return []string{"--kubeconfig=" + c.path("scheduler.kubeconfig"), "--leader-elect=false", "--secure-port=0"}, nil
	}
	return nil, fmt.Errorf("no unit %q: there are %s, %s, %s and %s", u, Etcd, APIServer, Controller, Scheduler)
}

func (c *Cluster) startAPI() error {
	if err := os.WriteFile(c.path("audit.yaml"), []byte(auditPolicy), 0o644); err != nil {
		return err
	}
	if err := c.Run(Etcd); err != nil {
		return err
	}
	return c.Run(APIServer)
}

func (c *Cluster) startControllers() error {
	return errors.Join(c.Run(Controller), c.Run(Scheduler))
}

// Backup copies all that the cluster knows, and returns where to. etcd is stopped for that, for a moment.
func (c *Cluster) Backup(ctx context.Context) (string, error) {
	to := c.path("etcd-" + time.Now().Format("150405.000"))
	if err := c.Kill(ctx, Etcd); err != nil {
		return "", err
	}
	err := os.CopyFS(to, os.DirFS(c.path("etcd")))
	if err != nil {
		err = fmt.Errorf("copying what etcd holds: %w", err)
	}
	if err := errors.Join(err, c.Run(Etcd)); err != nil {
		return "", err
	}
	return to, c.WaitAPI(ctx)
}

// Restore sets the cluster back to a Backup. The rest of the control plane and the kubelets are started anew, as the manual of
// Kubernetes says: what they know is of a time that is not any more. Nobody tells the pods.
func (c *Cluster) Restore(ctx context.Context, backup string) error {
	units := []Unit{Scheduler, Controller, APIServer, Etcd}
	for _, u := range units {
		if err := c.Kill(ctx, u); err != nil {
			return err
		}
	}
	if err := errors.Join(os.RemoveAll(c.path("etcd")), os.Rename(backup, c.path("etcd"))); err != nil {
		return fmt.Errorf("putting back what etcd held: %w", err)
	}
	for _, u := range slices.Backward(units) {
		if err := c.Run(u); err != nil {
			return err
		}
	}
	if err := c.WaitAPI(ctx); err != nil {
		return err
	}
	nodes, err := c.Nodes()
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if _, err := c.Exec(ctx, n, "systemctl", "restart", "kubelet"); err != nil && !errors.Is(err, ErrOff) {
			return err
		}
	}
	return nil
}

// WaitAPI returns when the API server says that it is ready.
func (c *Cluster) WaitAPI(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	return until(ctx, "the API server", 50*time.Millisecond, func() (bool, error) {
		_, err := c.client.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err == nil, err
	})
}

func (c *Cluster) binary(name string) string { return filepath.Join(c.Parts.Kubernetes, name) }

// Command is a program of the host that will run inside the cluster's network with the administrator's kubeconfig. "kubectl"
// is the one of the cluster's version.
func (c *Cluster) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	if name == "kubectl" {
		name = c.binary(name)
	}
	enter := append([]string{"--net=" + c.netnsPath(), "--", name}, args...)
	cmd := exec.CommandContext(ctx, "nsenter", enter...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig())
	return cmd
}
