package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"kubebaton.io/baton/internal/badline"
)

// The whole agent against a real API server, on a host that has a boot ID and nothing else: no bus, no configuration.
func TestServe(t *testing.T) {
	line, err := badline.Open(t.Context(), server.Config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(line.Close)
	client, err := kubernetes.NewForConfig(server.Config)
	if err != nil {
		t.Fatal(err)
	}
	name := "serve-" + strings.ToLower(rand.Text()[:6])
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := client.CoreV1().Nodes().Create(t.Context(), n, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	root, conf := filepath.Join(dir, "host"), filepath.Join(dir, "config")
	write(t, filepath.Join(root, "proc/sys/kernel/random/boot_id"), "f577aa83-e624-4f85-8dc0-3e87bcc67ad8\n")
	for _, d := range []string{filepath.Join(root, "run"), conf} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	address := freePort(t)
	cfg := line.Config()
	cfg.BearerToken = "never-to-be-seen" //nolint:gosec // it opens nothing
	var said bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- serve(ctx, options{
			configFile: filepath.Join(conf, "config.yaml"), kubeconfig: kubeconfig(t, dir, cfg), nodeName: name, namespace: "default",
			hostRoot: root, address: address,
		}, slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug})))
	}()
	get := func(path string) (int, string) { return fetch(t, "http://"+address+path) }

	eventually(t, "without a configuration it runs and says why it is not ready", func() bool {
		code, body := get("/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "no valid configuration")
	})
	if code, _ := get("/healthz"); code != http.StatusOK {
		t.Errorf("/healthz answers %d to an agent that only waits for its configuration", code)
	}
	head := "apiVersion: kubebaton.io/v1alpha1\nkind: RebootConfiguration\n"
	write(t, filepath.Join(conf, "config.yaml"), head)
	eventually(t, "a configuration that comes later makes it ready", func() bool {
		code, body := get("/readyz")
		return code == http.StatusOK && strings.Contains(body, "no reboot is wanted")
	})
	line.Rule(func(*badline.Request) badline.Fate { return badline.Answer(http.StatusServiceUnavailable, 0) })
	write(t, filepath.Join(conf, "config.yaml"), head+"maxUnavailable: none\n")
	eventually(t, "a broken one is refused with a metric, and the old one stays in force", func() bool {
		_, metrics := get("/metrics")
		ready, _ := get("/readyz")
		return strings.Contains(metrics, "baton_config_valid 0") && ready == http.StatusOK
	})
	line.Rule(nil)
	eventually(t, "the refusal is told by an Event, as soon as the API server is there", func() bool {
		return told(t, client, name, "ConfigurationRefused", "maxUnavailable")
	})
	write(t, filepath.Join(root, "run/reboot-required"), "")
	eventually(t, "a gate that cannot be asked keeps the node waiting, and is named", func() bool {
		n, err := client.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
		record := ""
		if err == nil {
			record = n.Annotations["kubebaton.io/reboot"]
		}
		_, says := get("/readyz") // it may not have heard yet what it has written
		return strings.Contains(says, "phase: Waiting") && strings.Contains(record, `"phase":"Waiting"`) && strings.Contains(record, `"bids":false`) && strings.Contains(record, "inhibitor")
	})
	line.Refuse()
	eventually(t, "an API server that is away is trouble, and no reason to be killed", func() bool {
		_, body := get("/readyz")
		code, _ := get("/healthz")
		return strings.Contains(body, "phase: Waiting") && code == http.StatusOK
	})
	cancel()
	if err := <-done; err != nil {
		t.Errorf("a stop ends with %v", err)
	}
	if log := said.String(); strings.Contains(log, cfg.BearerToken) || !strings.Contains(log, "configuration in force") {
		t.Errorf("the log tells the token, or nothing:\n%s", log)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func kubeconfig(t *testing.T, dir string, cfg *rest.Config) string {
	t.Helper()
	c := clientcmdapi.NewConfig()
	c.Clusters["a"] = &clientcmdapi.Cluster{Server: cfg.Host, CertificateAuthorityData: cfg.CAData}
	c.AuthInfos["a"] = &clientcmdapi.AuthInfo{ClientCertificateData: cfg.CertData, ClientKeyData: cfg.KeyData, Token: cfg.BearerToken}
	c.Contexts["a"] = &clientcmdapi.Context{Cluster: "a", AuthInfo: "a"}
	c.CurrentContext = "a"
	path := filepath.Join(dir, "kubeconfig")
	if err := clientcmd.WriteToFile(*c, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func fetch(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

// told tells whether an Event on a Node says so.
func told(t *testing.T, c kubernetes.Interface, node, reason, text string) bool {
	t.Helper()
	l, err := c.EventsV1().Events("default").List(t.Context(), metav1.ListOptions{FieldSelector: "regarding.name=" + node})
	if err != nil {
		return false
	}
	return slices.ContainsFunc(l.Items, func(e eventsv1.Event) bool { return e.Reason == reason && strings.Contains(e.Note, text) })
}

// eventually asks until what is true, and fails the test when it does not become so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		if is() {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("not so after 30 s: %s", what)
		case <-tick.C:
		}
	}
}
