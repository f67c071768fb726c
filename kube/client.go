package kube

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	eventsv1 "k8s.io/client-go/kubernetes/typed/events/v1"
	policyv1 "k8s.io/client-go/kubernetes/typed/policy/v1"
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

// Config returns the in-cluster configuration, or that of a kubeconfig file when one is named, as Tune makes it.
func Config(kubeconfig, userAgent string) (*rest.Config, error) {
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
	return cfg, Tune(cfg, userAgent)
}

// Tune gives cfg the settings that this package's guarantees rest on. It sets the HTTP/2 health checks, which client-go
// reads from the environment; values already set there win.
func Tune(cfg *rest.Config, userAgent string) error {
	for name, value := range map[string]string{
		"HTTP2_READ_IDLE_TIMEOUT_SECONDS": pingIdleSeconds,
		"HTTP2_PING_TIMEOUT_SECONDS":      pingWaitSeconds,
	} {
		if _, set := os.LookupEnv(name); set {
			continue
		}
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("setting %s: %w", name, err)
		}
	}
	cfg.UserAgent = userAgent
	cfg.QPS = -1
	cfg.Dial = dial
	return nil
}

// Shared returns a copy of cfg with a connection of its own, which all clients share that are made of it, or of its copies for another
// user. A client certificate is part of a connection: cfg that has one, or may come to one, is returned as it is.
func Shared(cfg *rest.Config) (*rest.Config, error) {
	out := rest.CopyConfig(cfg)
	t := cfg.TLSClientConfig
	if t.CertFile != "" || len(t.CertData) > 0 || cfg.ExecProvider != nil || cfg.AuthProvider != nil || cfg.Transport != nil {
		return out, nil
	}
	conn, err := rest.TransportFor(rest.AnonymousClientConfig(cfg))
	if err != nil {
		return nil, fmt.Errorf("configuring the connection to the API server: %w", err)
	}
	server, _, err := rest.DefaultServerUrlFor(cfg) // for a host without a scheme it goes by the settings of TLS
	if err != nil {
		return nil, fmt.Errorf("configuring the connection to the API server: %w", err)
	}
	out.Host, out.Transport, out.TLSClientConfig, out.Dial = server.String(), conn, rest.TLSClientConfig{}, nil
	return out, nil
}

// Interface is the part of the API that Baton uses. kubernetes.Interface has it too; but whoever links that links every
// method of every API group, which is a fifth of the program.
type Interface interface {
	CoreV1() corev1.CoreV1Interface
	CoordinationV1() coordinationv1.CoordinationV1Interface
	EventsV1() eventsv1.EventsV1Interface
	PolicyV1() policyv1.PolicyV1Interface
}

type client struct {
	core         *corev1.CoreV1Client
	coordination *coordinationv1.CoordinationV1Client
	events       *eventsv1.EventsV1Client
	policy       *policyv1.PolicyV1Client
}

func (c client) CoreV1() corev1.CoreV1Interface                         { return c.core }
func (c client) CoordinationV1() coordinationv1.CoordinationV1Interface { return c.coordination }
func (c client) EventsV1() eventsv1.EventsV1Interface                   { return c.events }
func (c client) PolicyV1() policyv1.PolicyV1Interface                   { return c.policy }

// Client returns a client that speaks protobuf. All its groups share one connection.
func Client(cfg *rest.Config) (Interface, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.ContentType = "application/vnd.kubernetes.protobuf"
	cfg.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	h, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("creating the API client: %w", err)
	}
	var c client
	var errs [4]error
	c.core, errs[0] = corev1.NewForConfigAndClient(cfg, h)
	c.coordination, errs[1] = coordinationv1.NewForConfigAndClient(cfg, h)
	c.events, errs[2] = eventsv1.NewForConfigAndClient(cfg, h)
	c.policy, errs[3] = policyv1.NewForConfigAndClient(cfg, h)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("creating the API client: %w", err)
	}
	return c, nil
}

// RouteLogs sends client-go's own log lines to l. Call it once, before the first client.
func RouteLogs(l *slog.Logger) { klog.SetLogger(logr.FromSlogHandler(l.Handler())) }
