package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"

	"kubebaton.io/baton/config"
	"kubebaton.io/baton/kube"
	"kubebaton.io/baton/lab/report"
)

// Options of a run.
type Options struct {
	Nodes   int
	Agents  int    // how many of the nodes have an agent; the others are there to be watched. 0: all
	Max     string // of nodes down at once: a number, or per cent
	Seed    uint64
	Drain   Span          // until a node's pods have ended
	Boot    Span          // from the accepted reboot to the kubelet's report
	Pods    int           // of a node, that a drain evicts
	Raise   time.Duration // over which the sentinels are raised; 0: all at once
	Lease   time.Duration // between two renewals of a node's Lease; a kubelet's is 10 s
	Idle    time.Duration // how long the agents at rest are measured, and before that the API server without them
	Timeout time.Duration // of the rollout
	Churn   bool
	Binary  string // the agent's program, to be the marshal; "": one of the agents in this process is it
	Deploy  string // directory of the manifests
	Log     string // file for the agents' logs; "": none
	Audit   string // file for the audit log; "": it is removed
	Out     string // file for the report; "": none
	Stdout  io.Writer
}

// How nodes come and go in a run with churn.
const (
	killEvery    = 10 * time.Second // the marshal
	restartAfter = 2 * time.Second  // a kill, by the kubelet
	churnEvery   = 5 * time.Second  // one node leaves, another one joins
	lostPart     = 0.01             // of the nodes never come back
)

// churnGroups is for groups of several kinds. Hosts that never come back are borne, so that the others go on. No group comes after
// another: where nodes join all the time it never would.
// A marshal that lives for 8 s sees no Node gone for the 30 s of the default, and zones wait for a host that never comes back for as
// long as rebootTimeout.
const churnGroups = `
- {name: control, nodeSelector: {matchLabels: {` + poolLabel + `: control}}, maxUnavailable: 1, maxFailed: %[1]d}
- {name: edge, nodeSelector: {matchLabels: {` + poolLabel + `: edge}}, maxUnavailable: %[2]s, maxFailed: %[1]d, canary: {nodes: 1, soak: 1m}}
- {name: general, maxUnavailable: %[2]s, maxFailed: %[1]d, topologyKey: ` + corev1.LabelTopologyZone + `}
deletedGrace: 5s
rebootTimeout: 2m`

// groupOf is the group of a node of that pool.
func (o Options) groupOf(pool string) string {
	if !o.Churn {
		return "general"
	}
	return pool
}

// limitOf is how many of the n nodes of a group may be down.
func (o Options) limitOf(group string, n int) int {
	if group == "control" {
		return 1
	}
	l, _ := limit(o.Max, n) // was checked with the options
	return l
}

// parallel is how many nodes are made at once.
const parallel = 32

// fleet is one run.
type fleet struct {
	Options
	server       *server
	kubelets     *kubelets
	judge        *judge
	log          *slog.Logger
	settings     *config.Config
	settingsText string
	marshal      int // process ID, 0 for none

	life context.Context //nolint:containedctx // of everything that is simulated: hosts outlive the calls that change them
	work sync.WaitGroup

	mu       sync.Mutex
	machines map[string]*machine
	all      []*machine // in the order they joined, also those that left

	killed, vacant, left atomic.Int64 // marshals, moments without one, nodes
}

// Run measures one rollout. Its error names the goals that were missed.
func Run(ctx context.Context, o Options) error {
	r, err := run(ctx, o)
	if r == nil || r.Rollout.Seconds == 0 {
		return err // there is nothing to tell
	}
	if err != nil {
		r.Error = err.Error()
	}
	r.judge()
	r.print(o.Stdout)
	if o.Out != "" {
		err = errors.Join(err, report.Write(o.Out, r))
	}
	return errors.Join(err, report.Missed(r.missed()))
}

func run(ctx context.Context, o Options) (r *Report, err error) {
	dir, err := os.MkdirTemp("", "fleet")
	if err != nil {
		return nil, fmt.Errorf("making a directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	f := &fleet{Options: o, machines: map[string]*machine{}, judge: newJudge(o)}
	if err := f.configure(); err != nil {
		return nil, err
	}
	closeLog, err := f.openLog()
	if err != nil {
		return nil, err
	}
	defer closeLog()
	if f.server, err = startServer(ctx, dir, o.Audit, o.Deploy); err != nil {
		return nil, err
	}
	defer f.server.Close()
	if f.kubelets, err = newKubelets(f.server.Config); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	f.life = ctx
	defer f.work.Wait()
	defer cancel()
	r = f.newReport()
	return r, f.measure(ctx, dir, r)
}

// configure makes the agents' configuration.
func (f *fleet) configure() error {
	groups := fmt.Sprintf("[{name: general, maxUnavailable: %s}]", f.Max)
	if f.Churn {
		groups = fmt.Sprintf(churnGroups, f.Nodes, f.Max)
	}
	f.settingsText = "apiVersion: kubebaton.io/v1alpha1\nkind: RebootConfiguration\ngroups: " + groups + "\n"
	var err error
	if f.settings, err = config.Parse([]byte(f.settingsText)); err != nil {
		return fmt.Errorf("making the agents' configuration: %w", err)
	}
	return nil
}

func (f *fleet) openLog() (closed func(), err error) {
	f.log = slog.New(slog.DiscardHandler)
	closed = func() {}
	if f.Log != "" {
		file, err := os.Create(f.Log)
		if err != nil {
			return nil, fmt.Errorf("making the log: %w", err)
		}
		f.log, closed = slog.New(slog.NewTextHandler(file, nil)), func() { _ = file.Close() }
	}
	kube.RouteLogs(f.log)
	crlog.SetLogger(logr.FromSlogHandler(f.log.Handler())) // of what starts the API server
	return closed, nil
}

func (f *fleet) say(format string, args ...any) {
	fmt.Fprintf(f.Stdout, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// measure is the run: nodes, then agents, then a rollout.
func (f *fleet) measure(ctx context.Context, dir string, r *Report) error {
	begun := time.Now()
	for _, ns := range []string{workloads} {
		_, err := f.kubelets.client(0).CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("creating namespace %q: %w", ns, err)
		}
	}
	f.watch()
	f.say("Making %d nodes of %.1f KB.", f.Nodes, float64(r.NodeBytes)/1e3)
	if err := f.populate(ctx); err != nil {
		return err
	}
	f.say("The API server alone with %d kubelets, for %v; then the same with Baton's policies.", f.Nodes, f.Idle)
	r.Bare = f.phase(func() { pause(ctx, f.Idle) })
	if err := apply(ctx, f.server.Config, f.Deploy, policies()...); err != nil {
		return err
	}
	pause(ctx, 5*time.Second)
	r.Quiet = f.phase(func() { pause(ctx, f.Idle) })
	before := heap()
	f.say("Starting the agents.")
	var err error
	r.Start = f.phase(func() { err = f.startAgents(ctx) })
	if err != nil {
		return err
	}
	r.AgentHeap = (heap() - before) / int64(len(f.awake()))
	f.say("They are ready after %.1f s. At rest for %v.", r.Start.Seconds, f.Idle)
	pause(ctx, 5*time.Second)
	r.Idle = f.phase(func() { pause(ctx, f.Idle) })
	if f.Binary != "" && !f.Churn { // the marshal is killed again and again: whichever agent it is
		pid, stop, err := f.startMarshal(ctx, dir)
		if stop != nil {
			defer stop()
		}
		if err != nil {
			return err
		}
		f.marshal = pid
	}
	r.Rollout = f.phase(func() { err = f.rollout(ctx) })
	f.conclude(r)
	r.Seconds = time.Since(begun).Seconds()
	return errors.Join(err, f.count(ctx, r))
}

// watch lets the judge and the kubelets see.
func (f *fleet) watch() {
	client := f.kubelets.client(0)
	warn := func(what string) func(error) {
		return func(err error) {
			if f.life.Err() == nil {
				f.log.Warn("watching", "what", what, "err", err)
			}
		}
	}
	nodes, slots, pods := client.CoreV1().Nodes(), client.CoordinationV1().Leases(namespace), f.kubelets.client(1).CoreV1().Pods(workloads)
	ends := &endings{ctx: f.life, fleet: f, begun: map[types.UID]bool{}, ended: map[string]int{}}
	f.work.Go(func() {
		follow(f.life, nodes.List, nodes.Watch, &corev1.Node{},
			feed[*corev1.Node]{func(n *corev1.Node) { f.judge.node(n, time.Now()) }, f.judge.deleted}, warn("nodes"))
	})
	f.work.Go(func() {
		follow(f.life, slots.List, slots.Watch, &coordinationv1.Lease{},
			feed[*coordinationv1.Lease]{func(l *coordinationv1.Lease) { f.judge.slot(l, time.Now()) }, nil}, warn("slots"))
	})
	f.work.Go(func() {
		follow(f.life, pods.List, pods.Watch, &corev1.Pod{}, feed[*corev1.Pod]{ends.pod, nil}, warn("pods"))
	})
}

// add makes the machine of a node that joins.
func (f *fleet) add(ctx context.Context, i int) (*machine, error) {
	lost := 0.0
	if f.Churn {
		lost = lostPart
	}
	m := &machine{fleet: f, times: drawn(f.Seed, i, f.Drain, f.Boot, lost), name: fmt.Sprintf("node-%05d", i), number: i, asleep: f.Agents > 0 && i >= f.Agents}
	if err := m.join(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.machines[m.name] = m
	f.all = append(f.all, m)
	f.mu.Unlock()
	return m, nil
}

func (f *fleet) machine(name string) *machine {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.machines[name]
}

// present are the machines of the nodes there are now.
func (f *fleet) present() []*machine {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.all), func(m *machine) bool { return f.machines[m.name] == nil })
}

// awake are the present ones that have an agent.
func (f *fleet) awake() []*machine {
	return slices.DeleteFunc(f.present(), func(m *machine) bool { return m.asleep })
}

func (f *fleet) populate(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i := range f.Nodes {
		g.Go(func() error {
			_, err := f.add(ctx, i)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, m := range f.present() { // not before: they would be in the way of those that are still to be made
		f.work.Go(func() { m.beat(f.life) })
	}
	return nil
}

// startAgents starts them and returns when all are ready.
func (f *fleet) startAgents(ctx context.Context) error {
	g, group := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, m := range f.awake() {
		g.Go(func() error {
			if err := m.start(ctx); err != nil { // it lives longer than this group
				return err
			}
			return m.ready(group)
		})
	}
	return g.Wait()
}

// ready waits until the agent says that it is.
func (m *machine) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		s := m.agent().Status()
		if s.Ready {
			return nil
		}
		pause(ctx, 20*time.Millisecond)
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("waiting for the agent of %q: %w: %v", m.name, err, s.NotYet)
		}
	}
}

// rollout raises the sentinels and waits until all nodes are back.
func (f *fleet) rollout(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, f.Timeout)
	defer cancel()
	machines := f.awake()
	for _, m := range machines {
		if !m.lost {
			f.judge.expect(m.name)
		}
	}
	f.say("The rollout begins.")
	var churn sync.WaitGroup
	if f.Churn {
		churn.Go(func() { f.churn(ctx) })
	}
	defer churn.Wait()
	defer cancel()
	for _, m := range machines {
		m.raise()
		if f.Raise > 0 {
			pause(ctx, f.Raise/time.Duration(len(machines)))
		}
	}
	tell := time.NewTicker(30 * time.Second)
	defer tell.Stop()
	for {
		select {
		case <-f.judge.all:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("waiting for the rollout: %w: still to come: %s", ctx.Err(), f.judge.left())
		case <-tell.C:
			f.say("Still to come: %s.", f.judge.left())
		}
	}
}

// heap is what this process has in use after a collection, with the stacks of its goroutines.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(min(m.HeapInuse+m.StackInuse, math.MaxInt64))
}
