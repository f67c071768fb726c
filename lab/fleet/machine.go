package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"kubebaton.io/baton/host"
	"kubebaton.io/baton/kube"
	"kubebaton.io/baton/wire"
)

// machine is a simulated host with its kubelet, and the real agent on it. It is a [wire.Host].
type machine struct {
	*fleet
	times
	name   string
	number int    // of the node
	asleep bool   // it has no agent
	token  string // of the agent's pod; a reboot does not change it

	mu      sync.Mutex
	boot    string
	wants   bool   // there is a sentinel
	going   bool   // a reboot was accepted
	off     bool   // the host is down
	gone    bool   // it left the cluster
	boots   int    // reboots it came back from
	changed func() // tells the agent that the sentinel may have changed
	process *process

	acts sync.Mutex // of the agent that acts on this host
}

// ownPod begins the name of the pod of a DaemonSet that every node has beside the agent's.
const ownPod = "kube-proxy-"

// process is one life of an agent.
type process struct {
	agent *wire.Agent
	line  *line
	stop  context.CancelFunc
	done  chan struct{}
}

// join makes the node, its pods and its token.
func (m *machine) join(ctx context.Context) error {
	m.boot = bootID()
	client := m.client()
	err := m.make(ctx, "the Node", func() error {
		_, err := client.CoreV1().Nodes().Create(ctx, newNode(m.number, m.name, m.boot), metav1.CreateOptions{})
		return err
	})
	if err == nil {
		err = m.make(ctx, "its Lease", func() error {
			_, err := client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Create(ctx, newLease(m.name, m.Lease), metav1.CreateOptions{})
			return err
		})
	}
	if err != nil || m.asleep {
		return err
	}
	pods := []*corev1.Pod{newPod("kube-system", ownPod+m.name, m.name, "DaemonSet"), newPod(namespace, account+"-"+m.name, m.name, "DaemonSet")}
	for j := range m.Pods {
		pods = append(pods, newPod(workloads, fmt.Sprintf("app-%s-%d", m.name, j), m.name, "ReplicaSet"))
	}
	for _, p := range pods {
		if err := m.run(ctx, p); err != nil {
			return err
		}
	}
	return m.make(ctx, "the agent's token", func() error { return m.getToken(ctx) })
}

// make creates something, as patiently as a kubelet: a server that has just been started may be slow.
func (m *machine) make(ctx context.Context, what string, create func() error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := create()
		var answered apierrors.APIStatus
		switch {
		case err == nil, apierrors.IsAlreadyExists(err):
			return nil
		case errors.As(err, &answered) && !apierrors.IsTooManyRequests(err) && !apierrors.IsTimeout(err) && !apierrors.IsServerTimeout(err), ctx.Err() != nil:
			return fmt.Errorf("making %s of %q: %w", what, m.name, err)
		}
		m.log.Warn("a kubelet tries again", "node", m.name, "making", what, "err", err)
		pause(ctx, time.Second)
	}
}

// run creates a pod that runs.
func (m *machine) run(ctx context.Context, p *corev1.Pod) error {
	pods := m.client().CoreV1().Pods(p.Namespace)
	err := m.make(ctx, "a pod", func() error {
		_, err := pods.Create(ctx, p, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return err
	}
	m.started(ctx, p.Namespace, p.Name)
	return nil
}

// getToken is what a kubelet does for the volume of the agent's token.
func (m *machine) getToken(ctx context.Context) error {
	pod, err := m.client().CoreV1().Pods(namespace).Get(ctx, account+"-"+m.name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	day := int64(24 * 60 * 60)
	t, err := m.client().CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{
			ExpirationSeconds: &day,
			BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
		},
	}, metav1.CreateOptions{})
	if err == nil {
		m.token = t.Status.Token
	}
	return err
}

// config is the agent's way to the API server, with a connection of its own.
func (m *machine) config(l *line) (*rest.Config, error) {
	cfg := rest.AnonymousClientConfig(m.server.Config)
	cfg.BearerToken = m.token
	if err := kube.Tune(cfg, "baton-agent/fleet"); err != nil {
		return nil, err
	}
	l.dial, cfg.Dial = cfg.Dial, l.Dial
	return cfg, nil
}

// start starts the agent.
func (m *machine) start(ctx context.Context) error {
	l := newLine(nil)
	cfg, err := m.config(l)
	if err != nil {
		return err
	}
	a, err := wire.New(wire.Config{
		API: cfg, Node: m.name, Pod: account + "-" + m.name, Namespace: namespace,
		Registry: prometheus.NewRegistry(), Log: m.log.With("node", m.name),
		Host: func([]string, time.Duration) (wire.Host, error) { return m, nil },
	})
	if err != nil {
		return fmt.Errorf("making the agent of %q: %w", m.name, err)
	}
	if _, err := a.Configure(m.settings); err != nil {
		return fmt.Errorf("configuring the agent of %q: %w", m.name, err)
	}
	ctx, stop := context.WithCancel(ctx)
	p := &process{agent: a, line: l, stop: stop, done: make(chan struct{})}
	m.mu.Lock()
	m.process = p
	m.mu.Unlock()
	go func() {
		defer close(p.done)
		defer l.Cut()
		if err := a.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			m.log.Error("an agent has ended", "node", m.name, "err", err)
		}
	}()
	return nil
}

// end ends the agent and waits until it has ended: with SIGTERM, or at once, without a farewell to anybody.
func (m *machine) end(kill bool) {
	m.mu.Lock()
	p := m.process
	m.process = nil
	m.mu.Unlock()
	if p == nil {
		return
	}
	if kill {
		p.line.Cut()
	}
	p.stop()
	<-p.done
}

// agent is the one that runs, nil when none does.
func (m *machine) agent() *wire.Agent {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.process == nil {
		return nil
	}
	return m.process.agent
}

// raise makes the host want a reboot.
func (m *machine) raise() {
	m.mu.Lock()
	m.wants = true
	changed := m.changed
	m.mu.Unlock()
	if changed != nil {
		changed()
	}
}

// reboot takes the host down and up again.
func (m *machine) reboot(ctx context.Context) {
	up := time.NewTimer(m.times.boot)
	defer up.Stop()
	pause(ctx, stopping)
	m.end(false)
	m.power(false)
	dead := time.NewTimer(graceMonitor)
	defer dead.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-dead.C:
			m.report(ctx, "", false)
			if m.lost {
				return
			}
		case <-up.C:
			if m.lost {
				continue
			}
			m.arrive(ctx)
			return
		}
	}
}

func (m *machine) power(on bool) {
	m.mu.Lock()
	m.off = !on
	m.mu.Unlock()
	m.judge.power(m.name, on)
}

// arrive is the end of a boot: the kubelet reports, and the agent starts.
func (m *machine) arrive(ctx context.Context) {
	m.mu.Lock()
	m.boot, m.wants, m.going = bootID(), false, false
	m.boots++
	boot, gone := m.boot, m.gone
	m.mu.Unlock()
	if gone {
		return
	}
	m.started(ctx, "kube-system", ownPod+m.name)
	m.report(ctx, boot, true)
	m.power(true)
	if err := m.start(ctx); err != nil {
		m.log.Error("starting an agent after a boot", "err", err)
	}
}

// report is what the kubelet, or the node controller in its place, writes into the Node's status.
func (m *machine) report(ctx context.Context, boot string, is bool) {
	status := map[string]any{"conditions": []corev1.NodeCondition{ready(is)}}
	if boot != "" {
		status["nodeInfo"] = map[string]string{"bootID": boot}
	}
	m.patch(ctx, status, func(body []byte) error {
		_, err := m.client().CoreV1().Nodes().Patch(ctx, m.name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status")
		return err
	})
}

// started is what the kubelet writes into the status of a pod that runs, for the first time or after a boot.
func (m *machine) started(ctx context.Context, ns, name string) { m.pod(ctx, ns, name, running()) }

// pod writes the status of a pod.
func (m *machine) pod(ctx context.Context, ns, name string, status corev1.PodStatus) {
	m.patch(ctx, status, func(body []byte) error {
		_, err := m.client().CoreV1().Pods(ns).Patch(ctx, name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status")
		return err
	})
}

// patch sends a status until it is taken.
func (m *machine) patch(ctx context.Context, status any, send func(body []byte) error) {
	body, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		m.log.Error("encoding a status", "err", err)
		return
	}
	for ctx.Err() == nil {
		if err = send(body); err == nil || apierrors.IsNotFound(err) {
			return
		}
		m.log.Warn("a kubelet reports", "node", m.name, "err", err)
		pause(ctx, time.Second)
	}
}

func (m *machine) client() kubernetes.Interface { return m.kubelets.client(m.number) }

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// BootID is as the kubelet reports it.
func (m *machine) BootID() (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.boot, nil
}

// Sentinel is one of a security update.
func (m *machine) Sentinel(context.Context) (host.Sentinel, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.wants {
		return host.Sentinel{}, nil
	}
	return host.Sentinel{
		Source: "/run/reboot-required", Reason: "*** System restart required ***: linux-image-6.1.0-32-cloud-amd64",
		Fingerprint: "6.1.0-32",
	}, nil
}

// Watch tells of a sentinel that is raised.
func (m *machine) Watch(ctx context.Context, changed func()) error {
	m.mu.Lock()
	m.changed = changed
	m.mu.Unlock()
	changed()
	<-ctx.Done()
	return nil
}

// Shutdown is under way once a reboot was accepted.
func (m *machine) Shutdown(context.Context) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.going {
		return "logind is preparing for a shutdown", nil
	}
	return "", nil
}

// Inhibitors are none.
func (m *machine) Inhibitors(context.Context) ([]string, error) { return nil, nil }

// OtherRebooters are none.
func (m *machine) OtherRebooters(context.Context) ([]string, error) { return nil, nil }

// KubeletEndsPods is off, as by default.
func (m *machine) KubeletEndsPods(context.Context) (bool, error) { return false, nil }

// Reboot is accepted.
func (m *machine) Reboot(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.going {
		return host.ErrInProgress
	}
	m.going = true
	m.work.Go(func() { m.reboot(m.life) })
	return nil
}

// Lock lets one agent act.
func (m *machine) Lock() (func(), error) {
	if !m.acts.TryLock() {
		return nil, host.ErrLocked
	}
	return sync.OnceFunc(m.acts.Unlock), nil
}
