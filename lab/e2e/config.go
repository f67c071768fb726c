package e2e

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// settings of Baton that scenarios need to differ.
type settings struct {
	maxUnavailable                    int
	drainTimeout, verifyTimeout, soak time.Duration
	rebootTimeout, hooksTimeout       time.Duration
	workers                           string // all nodes are one group of this name, which has this besides
	drain                             string // of the drain, besides
}

// deletedGrace is short here so that the scenario is; it is 30 s by default.
const deletedGrace = 10 * time.Second

// backoffMax is how long a veto lasts. It is 1 h by default.
const backoffMax = 10 * time.Second

func (s settings) text() string {
	groups := ""
	if s.workers != "" {
		groups = "groups: [{name: workers, " + s.workers + "}]\n"
	}
	drain := ""
	if s.drain != "" {
		drain = ", " + s.drain
	}
	return fmt.Sprintf(`apiVersion: kubebaton.io/v1alpha1
kind: RebootConfiguration
maxUnavailable: %d
rebootTimeout: %s
gateInterval: 10s
deletedGrace: %s
nominationTimeout: 10s
maxReboots24h: 100
hooks: {timeout: %s}
drain: {timeout: %s%s}
verify: {timeout: %s, soak: %s}
backoff: {initial: 2s, max: %s}
%s`, max(1, s.maxUnavailable), cmp.Or(s.rebootTimeout, 5*time.Minute), deletedGrace, cmp.Or(s.hooksTimeout, 5*time.Minute), cmp.Or(s.drainTimeout, 2*time.Minute), drain,
		cmp.Or(s.verifyTimeout, 2*time.Minute), s.soak, backoffMax, groups)
}

// configure puts settings in force and returns when every agent has said that they are.
func (w *world) configure(ctx context.Context, s settings) error {
	text := s.text()
	if text == w.inForce {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	w.inForce = ""
	began := time.Now()
	m, err := w.client.CoreV1().ConfigMaps(batonSpace).Get(ctx, configName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if m.Data[configKey] == text {
		w.inForce = text // of an earlier run in this cluster; all agents started or settled since
		return nil
	}
	if err := w.put(ctx, text); err != nil {
		return err
	}
	pods, err := w.client.CoreV1().Pods(batonSpace).List(ctx, metav1.ListOptions{LabelSelector: agentLabel})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range pods.Items {
		g.Go(func() error { return w.takenUp(ctx, p.Name, began) })
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("putting the configuration in force: %w", err)
	}
	w.inForce = text
	return nil
}

// put writes the configuration, right or wrong.
func (w *world) put(ctx context.Context, text string) error {
	change, err := json.Marshal(map[string]any{"data": map[string]string{configKey: text}})
	if err != nil {
		return err
	}
	_, err = w.client.CoreV1().ConfigMaps(batonSpace).Patch(ctx, configName, types.MergePatchType, change, metav1.PatchOptions{})
	return err
}

// touch makes a kubelet look at a pod's ConfigMaps now. By itself it does within a minute or so.
func (w *world) touch(ctx context.Context, pod string) error {
	text := fmt.Sprintf(`{"metadata":{"annotations":{"e2e.kubebaton.io/touched":%q}}}`, time.Now().Format(time.RFC3339Nano))
	_, err := w.client.CoreV1().Pods(batonSpace).Patch(ctx, pod, types.MergePatchType, []byte(text), metav1.PatchOptions{})
	return err
}

// takenUp waits until an agent logs that a configuration newer than began is in force.
func (w *world) takenUp(ctx context.Context, pod string, began time.Time) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	said := make(chan error, 1)
	go func() { said <- w.saysInForce(ctx, pod, began) }()
	touch := time.NewTicker(2 * time.Second) // the kubelet's own watch of the ConfigMap may be behind the first time
	defer touch.Stop()
	for {
		if err := w.touch(ctx, pod); err != nil {
			return err
		}
		select {
		case err := <-said:
			return err
		case <-touch.C:
		}
	}
}

// saysInForce follows the log of an agent. A kubelet may end that at any time: then it is followed anew.
func (w *world) saysInForce(ctx context.Context, pod string, began time.Time) error {
	since := metav1.NewTime(began.Truncate(time.Second))
	options := &corev1.PodLogOptions{Container: "agent", Follow: true, SinceTime: &since}
	return until(ctx, "agent "+pod+" to say that the configuration is in force", func() (bool, error) {
		log, err := w.client.CoreV1().Pods(batonSpace).GetLogs(pod, options).Stream(ctx)
		if err != nil {
			return false, err
		}
		defer func() { _ = log.Close() }()
		lines := bufio.NewScanner(log)
		for lines.Scan() {
			var line struct {
				Time time.Time
				Msg  string
			}
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "configuration in force" && line.Time.After(began) {
				return true, nil
			}
		}
		return false, lines.Err()
	})
}
