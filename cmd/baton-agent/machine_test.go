package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"kubebaton.io/baton/internal/badline"
	"kubebaton.io/baton/internal/bustest"
)

// machine stands in for a host: hardware with a boot ID, a /run that a boot empties, a bus with logind and systemd, and a
// kubelet. What it does by itself it does while the test waits, in [site.until]: no goroutine of its own runs.
type machine struct {
	site *site
	name string // of its Node
	root string // of its file system
	ip   string // a loopback address of its own: no agent ever finds its port taken
	bus  *bustest.Bus

	lazy        bool // it has accepted a reboot and does not go down
	lazyPods    bool // its kubelet does not end pods
	lazyKubelet bool // its kubelet does not report after a boot
	forgets     int  // so many reboots it accepts, and none of them comes: set before an agent starts
	// wire is told of the line of every agent before that starts; nil is told nothing.
	wire func(*badline.Line)

	mu       sync.Mutex
	boot     string
	stopping bool // a reboot was accepted
	accepted int  // reboots, ever
	asked    int  // how many times logind was asked whether it prepares for a shutdown

	agents []*process
	starts int
}

func newMachine(s *site, name string) *machine {
	s.Helper()
	ip := make([]byte, 3)
	_, _ = rand.Read(ip) // never fails
	m := &machine{site: s, name: name, root: s.dir(), ip: net.IPv4(127, ip[0], ip[1], ip[2]|1).String()}
	m.bus = bustest.Start(s, m.root)
	s.Cleanup(m.halt)
	m.powerOn()
	return m
}

// sentinel lets the host want a reboot, and unsentinel lets it want none.
func (m *machine) sentinel() {
	m.site.Helper()
	write(m.site.T, filepath.Join(m.root, "run/reboot-required"), "a new kernel")
}

func (m *machine) unsentinel() {
	m.site.Helper()
	if err := os.Remove(filepath.Join(m.root, "run/reboot-required")); err != nil {
		m.site.Fatal(err)
	}
}

// reboots returns how many reboots the host has accepted.
func (m *machine) reboots() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.accepted
}

// questions returns how many times logind was asked whether it prepares for a shutdown.
func (m *machine) questions() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked
}

// tend does what the machine does by itself.
func (m *machine) tend() {
	m.site.Helper()
	m.mu.Lock()
	goes := m.stopping && !m.lazy
	m.mu.Unlock()
	if goes {
		m.reboot()
	}
	if !m.lazyPods {
		m.endPods()
	}
}

// reboot takes the host down, whoever asked for it, and starts it and its agent again.
func (m *machine) reboot() {
	m.site.Helper()
	agents := len(m.agents)
	m.say(hostGoing)
	m.halt()
	m.powerOn()
	for range min(1, agents) {
		m.start()
	}
}

// halt ends everything that runs on the host: agents are told with SIGTERM.
func (m *machine) halt() {
	for _, p := range m.agents {
		p.cancel()
	}
	for len(m.agents) > 0 {
		m.agents[0].stop()
	}
	m.bus.Stop()
}

// powerOn boots the host: a new boot ID, an empty /run, a new bus, and a kubelet that registers or reports.
func (m *machine) powerOn() {
	m.site.Helper()
	if err := os.RemoveAll(filepath.Join(m.root, "run")); err != nil {
		m.site.Fatal(err)
	}
	m.mu.Lock()
	m.boot, m.stopping = newBootID(), false
	m.mu.Unlock()
	write(m.site.T, filepath.Join(m.root, "proc/sys/kernel/random/boot_id"), m.boot+"\n")
	m.bus.Run(m.site)
	m.serve()
	m.say(hostUp)
	if !m.lazyKubelet {
		m.report(true)
	}
}

func newBootID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	h := hex.EncodeToString(b)
	return fmt.Sprintf("%s-%s-%s-%s-%s", h[:8], h[8:12], h[12:16], h[16:20], h[20:])
}

// serve puts logind and systemd on the bus.
func (m *machine) serve() {
	login := bustest.Login()
	login.Methods["RebootWithFlags"] = func(uint64) *dbus.Error {
		if m.forget() {
			return nil
		}
		m.say(hostGoing)
		m.mu.Lock()
		defer m.mu.Unlock()
		m.stopping = true
		m.accepted++
		return nil
	}
	login.Properties["PreparingForShutdown"] = func() any {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.asked++
		return m.stopping
	}
	m.bus.Serve(m.site, bustest.Login1, login)
	m.bus.Serve(m.site, bustest.Systemd1, bustest.Systemd())
}

// forget tells whether a reboot that is accepted never comes.
func (m *machine) forget() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	forgets := m.forgets > 0
	m.forgets = max(0, m.forgets-1)
	return forgets
}

// say gives the host's word its place in the history.
func (m *machine) say(is string) {
	m.mu.Lock()
	boot := m.boot
	m.mu.Unlock()
	if err := m.site.write(powerPrefix+m.name, map[string]string{"is": is, "boot": boot}); err != nil {
		m.site.Errorf("the host of %s says that it is %s: %v", m.name, is, err)
	}
}

// report is the kubelet: it registers the Node, or reports the boot ID and whether the node is Ready.
func (m *machine) report(ready bool) {
	m.site.Helper()
	ctx, nodes := m.site.Context(), m.site.api.CoreV1().Nodes()
	n, err := nodes.Get(ctx, m.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		n, err = nodes.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{
			Name: m.name, Labels: map[string]string{labelSite: m.site.name, labelGroup: m.site.name},
		}}, metav1.CreateOptions{})
	}
	for err == nil {
		status := corev1.ConditionFalse
		if ready {
			status = corev1.ConditionTrue
		}
		n.Status.NodeInfo.BootID = m.boot
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}}
		if _, err = nodes.UpdateStatus(ctx, n, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			break
		}
		n, err = nodes.Get(ctx, m.name, metav1.GetOptions{})
	}
	if err != nil {
		m.site.Fatal(err)
	}
}

// endPods is the kubelet: what was evicted ends at once.
func (m *machine) endPods() {
	m.site.Helper()
	ctx, pods := m.site.Context(), m.site.api.CoreV1().Pods(m.site.name)
	if m.site.pods == 0 {
		return
	}
	list, err := pods.List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + m.name})
	if err != nil {
		m.site.Fatal(err)
	}
	now := int64(0)
	for i := range list.Items {
		if list.Items[i].DeletionTimestamp == nil {
			continue
		}
		if err := pods.Delete(ctx, list.Items[i].Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil && !apierrors.IsNotFound(err) {
			m.site.Fatal(err)
		}
		m.site.pods--
	}
}

// agentPorts is below what the kernel gives to connections.
const agentPorts = 20000

// process is one agent process.
type process struct {
	machine *machine
	line    *badline.Line
	address string
	cancel  context.CancelFunc
	done    chan error
}

// start starts an agent, on a line of its own to the API server.
func (m *machine) start() *process {
	m.site.Helper()
	line, err := badline.Open(m.site.Context(), server.Config)
	if err != nil {
		m.site.Fatal(err)
	}
	m.site.Cleanup(line.Close)
	if m.wire != nil {
		m.wire(line)
	}
	p := m.run(line.Config())
	p.line = line
	return p
}

// run starts an agent that reaches the API server as cfg says.
func (m *machine) run(cfg *rest.Config) *process {
	m.site.Helper()
	ctx, cancel := context.WithCancel(m.site.Context())
	m.starts++
	address := net.JoinHostPort(m.ip, strconv.Itoa(agentPorts+m.starts))
	p := &process{machine: m, address: address, cancel: cancel, done: make(chan error, 1)}
	log := slog.New(slog.NewTextHandler(m.site.Output(), nil)).With("node", m.name, "process", m.starts)
	o := options{
		configFile: m.site.conf, kubeconfig: kubeconfig(m.site.T, m.site.TempDir(), cfg), nodeName: m.name, namespace: m.site.name,
		hostRoot: m.root, address: p.address,
	}
	go func() { p.done <- serve(ctx, o, log) }()
	m.agents = append(m.agents, p)
	return p
}

// kill ends the agent as SIGKILL does: nothing that it had not sent leaves it any more.
func (p *process) kill() {
	p.machine.site.Helper()
	p.line.BlackHole() // it must not hear of anything before it ends
	p.cancel()
	p.line.Rule(func(*badline.Request) badline.Fate { return badline.Answer(http.StatusForbidden, 0) })
	p.line.Heal() // what it tries while it ends is refused at once, and does not arrive
	p.stop()
}

// stop ends the agent as SIGTERM does.
func (p *process) stop() {
	p.machine.site.Helper()
	p.cancel()
	select {
	case err := <-p.done:
		if err != nil {
			p.machine.site.Errorf("the agent of %s ends with %v", p.machine.name, err)
		}
	case <-time.After(patience):
		p.machine.site.Errorf("the agent of %s does not end", p.machine.name)
	}
	p.machine.agents = slices.DeleteFunc(p.machine.agents, func(o *process) bool { return o == p })
}

// says is what /readyz says.
func (p *process) says() string {
	p.machine.site.Helper()
	_, body := fetch(p.machine.site.T, "http://"+p.address+"/readyz")
	return body
}

// metrics is what /metrics says.
func (p *process) metrics() string {
	p.machine.site.Helper()
	_, body := fetch(p.machine.site.T, "http://"+p.address+"/metrics")
	return body
}

// waiting tells whether this agent is the marshal and says that so many nodes wait for that reason.
func (p *process) waiting(reason string, nodes int) bool {
	p.machine.site.Helper()
	return strings.Contains(p.metrics(), fmt.Sprintf("baton_group_waiting{group=%q,reason=%q} %d\n", p.machine.site.name, reason, nodes))
}
