package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"kubebaton.io/baton/lab/observe"
)

const (
	agentProgram = "baton-agent"
	agentLabel   = "app.kubernetes.io/component=agent"
	configName   = "baton-config"

	// deletedGrace is that of all configurations: what is judged by it must not flap.
	deletedGrace = 10 * time.Second
	// takeUp is how long it may take until the last agent follows a changed configuration: a kubelet brings it within a minute
	// and a half, to an agent that may be away for a while.
	takeUp = 3 * time.Minute
)

// valid is one of many configurations that agents follow. All durations are short, so that there is much to see.
func valid(maxUnavailable, size int) config {
	pick := func(n int, from ...string) string { return from[n%len(from)] }
	return config{maxUnavailable, fmt.Sprintf(`apiVersion: kubebaton.io/v1alpha1
kind: RebootConfiguration
maxUnavailable: %d
gateInterval: 10s
deletedGrace: %s
nominationTimeout: 10s
maxReboots24h: 100
rebootTimeout: %s
drain: {timeout: %s, unmanagedPods: %s}
verify: {timeout: %s, soak: %s}
backoff: {initial: %s, max: 10s}
`, maxUnavailable, deletedGrace, pick(size, "2m", "5m"), pick(size/2, "20s", "60s"), pick(size/4, "ride-through", "ride-through", "block"),
		pick(size/7, "15s", "2m"), pick(size/3, "0s", "1s", "3s"), pick(size/5, "1s", "3s"))}
}

// broken is a configuration that no agent may follow.
func broken(size int) string {
	const head = "apiVersion: kubebaton.io/v1alpha1\nkind: RebootConfiguration\n"
	all := []string{
		head + "maxUnavailable: 0\n", head + "maxUnavailable: 3\nsurprise: true\n", head + "drain: {timeout: forever}\n",
		"{{ not YAML", "", head + "maxUnavailable: 4\n---\n" + head,
	}
	return all[size%len(all)]
}

// config is a valid configuration.
type config struct {
	maxUnavailable int
	text           string
}

// settings is the agents' configuration.
type settings struct {
	client kubernetes.Interface

	mu     sync.Mutex
	now    config
	limits []limit
}

// limit is a maxUnavailable, and since when.
type limit struct {
	from time.Time
	n    int
}

// put makes a configuration the one that is in force from now on. After a failure either may be.
func (s *settings) put(ctx context.Context, c config) error {
	was := s.current()
	s.note(c)
	err := s.write(ctx, c.text)
	if err != nil {
		s.note(config{max(was.maxUnavailable, c.maxUnavailable), was.text})
	}
	return err
}

func (s *settings) note(c config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now, s.limits = c, append(s.limits, limit{time.Now(), c.maxUnavailable})
}

func (s *settings) current() config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// restore puts back what was in force before a broken one.
func (s *settings) restore(ctx context.Context) error { return s.write(ctx, s.current().text) }

// write changes the ConfigMap, and makes the kubelets look at it now: a changed pod makes them do that.
func (s *settings) write(ctx context.Context, text string) error {
	change, err := json.Marshal(map[string]any{"data": map[string]string{"config.yaml": text}})
	if err != nil {
		return err
	}
	if _, err := s.client.CoreV1().ConfigMaps(observe.Namespace).Patch(ctx, configName, types.MergePatchType, change, metav1.PatchOptions{}); err != nil {
		return err
	}
	pods, err := s.client.CoreV1().Pods(observe.Namespace).List(ctx, metav1.ListOptions{LabelSelector: agentLabel})
	if err != nil {
		return err
	}
	var faults []error
	for _, p := range pods.Items {
		touch := fmt.Sprintf(`{"metadata":{"annotations":{"lab.kubebaton.io/touched":%q}}}`, time.Now().Format(time.RFC3339Nano))
		_, err := s.client.CoreV1().Pods(observe.Namespace).Patch(ctx, p.Name, types.MergePatchType, []byte(touch), metav1.PatchOptions{})
		faults = append(faults, gone(err))
	}
	return errors.Join(faults...)
}

// limit is how many nodes may be taken down at once at a time: the largest number of all configurations that some agent may
// have followed then.
func (s *settings) limit(at time.Time) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return limitAt(s.limits, at)
}

func limitAt(limits []limit, at time.Time) int {
	most := 0
	for i, l := range limits {
		replaced := i+1 < len(limits) && limits[i+1].from.Add(takeUp).Before(at)
		if !l.from.After(at) && !replaced {
			most = max(most, l.n)
		}
	}
	return most
}

func (r *run) configure(ctx context.Context, f Fault, _ string) (string, func(context.Context) error, error) {
	c := valid(r.plan.maxUnavailable(f.At), f.Size)
	return fmt.Sprintf("maxUnavailable %d", c.maxUnavailable), nil, r.insist(ctx, func(ctx context.Context) error { return r.settings.put(ctx, c) })
}

func (r *run) misconfigure(ctx context.Context, f Fault, _ string) (string, func(context.Context) error, error) {
	restore := func(ctx context.Context) error { return r.insist(ctx, r.settings.restore) }
	return fmt.Sprintf("for %s", f.For), restore, r.insist(ctx, func(ctx context.Context) error { return r.settings.write(ctx, broken(f.Size)) })
}
