package kube

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// DeadConnection is the longest time after which a connection without an answer is given up: the HTTP/2 ping that is
// sent after idle seconds without a frame, and the wait for its reply.
const DeadConnection = 10 * time.Second

const (
	pingIdleSeconds = "5"
	pingWaitSeconds = "5"
)

// Config returns the in-cluster configuration, or that of a kubeconfig file when one is named.
// It sets the HTTP/2 health checks, which client-go reads from the environment; values already set there win.
func Config(kubeconfig, userAgent string) (*rest.Config, error) {
	for name, value := range map[string]string{
		"HTTP2_READ_IDLE_TIMEOUT_SECONDS": pingIdleSeconds,
		"HTTP2_PING_TIMEOUT_SECONDS":      pingWaitSeconds,
	} {
		if _, set := os.LookupEnv(name); set {
			continue
		}
		if err := os.Setenv(name, value); err != nil {
			return nil, fmt.Errorf("setting %s: %w", name, err)
		}
	}
	var cfg *rest.Config
	var err error
	if kubeconfig == "" {
		cfg, err = rest.InClusterConfig()
	} else {
		cfg, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return nil, fmt.Errorf("configuring the API client: %w", err)
	}
	cfg.UserAgent = userAgent
	cfg.QPS = -1
	return cfg, nil
}

// Client returns a clientset that speaks protobuf.
func Client(cfg *rest.Config) (kubernetes.Interface, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.ContentType = "application/vnd.kubernetes.protobuf"
	cfg.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("creating the API client: %w", err)
	}
	return c, nil
}

// RouteLogs sends client-go's own log lines to l. Call it once, before the first client.
func RouteLogs(l *slog.Logger) { klog.SetLogger(logr.FromSlogHandler(l.Handler())) }
