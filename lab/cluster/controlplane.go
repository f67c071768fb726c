package cluster

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// auditPolicy logs who asked for what, and the answer's code, once a request: no bodies. A watch is logged when it starts and
// when it ends.
const auditPolicy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- level: Metadata\n"

// AuditLog of the API server, one JSON event a line.
func (c *Cluster) AuditLog() string { return c.path("audit.log") }

func (c *Cluster) startAPI() error {
	if err := os.WriteFile(c.path("audit.yaml"), []byte(auditPolicy), 0o644); err != nil {
		return err
	}
	const etcd = "http://127.0.0.1:2379"
	if err := c.spawn("etcd", nil, c.binary("etcd"),
		"--data-dir", c.path("etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls", etcd, "--advertise-client-urls", etcd,
		"--listen-peer-urls", "http://127.0.0.1:2380",
	); err != nil {
		return err
	}
	return c.spawn("kube-apiserver", nil, c.binary("kube-apiserver"),
		"--etcd-servers="+etcd,
		"--secure-port="+apiPort,
		"--advertise-address="+gateway,
		"--cert-dir="+c.path("pki"),
		"--tls-cert-file="+c.path("pki/apiserver.crt"), "--tls-private-key-file="+c.path("pki/apiserver.key"),
		"--client-ca-file="+c.path("pki/ca.crt"),
		"--service-account-key-file="+c.path("pki/tokens.pub"), "--service-account-signing-key-file="+c.path("pki/tokens.key"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-cluster-ip-range="+serviceNet,
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged",
		"--kubelet-preferred-address-types=InternalIP",
		"--audit-policy-file="+c.path("audit.yaml"), "--audit-log-path="+c.AuditLog(), "--audit-log-maxsize=8000",
	)
}

func (c *Cluster) startControllers() error {
	if err := c.spawn("kube-controller-manager", nil, c.binary("kube-controller-manager"),
		"--kubeconfig="+c.path("controller-manager.kubeconfig"),
		"--use-service-account-credentials",
		"--service-account-private-key-file="+c.path("pki/tokens.key"), "--root-ca-file="+c.path("pki/ca.crt"),
		"--kube-api-qps=500", "--kube-api-burst=1000", // by default its start takes 6 s, for the tokens of its controllers alone
		"--leader-elect=false", "--secure-port=0",
	); err != nil {
		return err
	}
	return c.spawn("kube-scheduler", nil, c.binary("kube-scheduler"),
		"--kubeconfig="+c.path("scheduler.kubeconfig"), "--leader-elect=false", "--secure-port=0")
}

func (c *Cluster) waitAPI(ctx context.Context) error {
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
