package drains

import (
	"context"
	"fmt"
	"io"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/kubectl/pkg/drain"

	"kubebaton.io/baton/kube"
	"kubebaton.io/baton/node"
)

// tool drains a cordoned node.
type tool struct {
	name      string
	userAgent string
	warm      func(ctx context.Context, node string) error // opens its connection
	drain     func(ctx context.Context, node string) error
}

// limits are a client's own.
type limits struct {
	name  string
	qps   float32 // -1: none
	burst int
}

// An agent has no limits, see package kube. The command kubectl has those of client-go.
func agentLimits() limits   { return limits{"none", -1, 0} }
func commandLimits() limits { return limits{"5 a second", rest.DefaultQPS, rest.DefaultBurst} }

const (
	baton   = "baton"
	kubectl = "kubectl"
)

// tools are Baton's drain and kubectl's with the same configuration: the cluster's, within limits, and in protobuf, which an
// agent speaks and kubectl could.
func tools(config *rest.Config, l limits) ([]tool, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = l.qps, l.burst
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	b, err := batonTool(config)
	if err != nil {
		return nil, err
	}
	k, err := kubectlTool(config)
	return []tool{b, k}, err
}

func batonTool(config *rest.Config) (tool, error) {
	config = rest.CopyConfig(config)
	config.UserAgent = "bench-drain-" + baton
	client, err := kube.Client(config)
	if err != nil {
		return tool{}, err
	}
	return tool{
		name: baton, userAgent: config.UserAgent,
		warm: func(ctx context.Context, node string) error {
			_, err := client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
			return err
		},
		drain: func(ctx context.Context, name string) error {
			d, err := node.NewDrainer(node.DrainerConfig{Clientset: client, Node: name})
			if err != nil {
				return err
			}
			return d.Run(ctx, node.DrainSettings{Timeout: drainTime, Volumes: time.Minute}, func(node.DrainView) {})
		},
	}, nil
}

// kubectlTool is set as `kubectl drain NODE --ignore-daemonsets` is.
func kubectlTool(config *rest.Config) (tool, error) {
	config = rest.CopyConfig(config)
	config.UserAgent = "bench-drain-" + kubectl
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return tool{}, fmt.Errorf("creating kubectl's client: %w", err)
	}
	return tool{
		name: kubectl, userAgent: config.UserAgent,
		warm: func(ctx context.Context, node string) error {
			_, err := client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
			return err
		},
		drain: func(ctx context.Context, name string) error {
			return drain.RunNodeDrain(&drain.Helper{
				Ctx: ctx, Client: client, Out: io.Discard, ErrOut: io.Discard,
				GracePeriodSeconds: -1, IgnoreAllDaemonSets: true, Timeout: drainTime,
				ChunkSize: 500, EvictErrorRetryDelay: 5 * time.Second,
			}, name)
		},
	}, nil
}
