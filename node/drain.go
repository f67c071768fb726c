package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"kubebaton.io/baton/kube"
)

// DefaultConcurrency is how many evictions are in flight at most.
const DefaultConcurrency = 50

// requestTimeout bounds one request that nobody else bounds: an eviction waits in the server for up to 10 s on a
// contended budget, and for its admission webhooks.
const requestTimeout = 40 * time.Second

// DrainSettings are the rules of a drain, and what its caller knows.
type DrainSettings struct {
	Policy
	Timeout time.Duration // from Begun; ends Run with context.DeadlineExceeded; 0: only the caller's context ends it
	Grace   time.Duration // the longest grace period that a pod is given; 0: its own
	Wait    time.Duration // from Begun to the first eviction: load balancers take their time to leave a node
	Volumes time.Duration // how long the volumes of pods that have ended are awaited; 0: not at all

	Begun     time.Time       // of the drain, which an earlier process may have begun; zero: now
	Downtimes []time.Duration // of earlier reboots of this node
}

// DrainView is where a drain stands.
type DrainView struct {
	Running, Empty     bool
	Stays              bool   // pods are left on the node because it is expected back soon
	Evicted, Remaining int    // evictions accepted by this run; pods still in the way
	Reason             string // what holds it up: a reason of a plan, pdb, eviction, load-balancer, volume; "" nothing does
	Message            string // at most 470 bytes, names the pods in the way
	Summary            string // when it is empty: what was done
}

// DrainerConfig is what a [Drainer] needs; Clientset and Node are required.
type DrainerConfig struct {
	Clientset kube.Interface // best one from [OwnNodeConfig]
	// Cluster has the agent's own rights, for what is not the node's, and for its pods where Clientset is forbidden to read them; nil:
	// there is only Clientset.
	Cluster kube.Interface
	// Follow is the Client of our own Node, whose Watch goes on, for the volumes that the Node names; nil: a drain that awaits volumes
	// watches the Node by itself.
	Follow *Client
	Node   string // our own Node's name
	Self   string // name of the agent's own pod: that it runs is no news to it
	// EndsPods tells whether the kubelet ends every pod when the host shuts down; nil: it does not.
	EndsPods func(context.Context) (bool, error)
	// OthersDown names the other nodes that may be down now; nil: none.
	OthersDown  func(context.Context) ([]string, error)
	Concurrency int                   // evictions in flight; 0: DefaultConcurrency
	Metrics     prometheus.Registerer // nil: not registered
	Log         *slog.Logger          // nil: nobody is told
}

// Drainer plans and performs the drain of one node: our own.
type Drainer struct {
	as          *identity
	cluster     kube.Interface
	follow      *Client
	node, self  string
	concurrency int
	endsPods    func(context.Context) (bool, error)
	othersDown  func(context.Context) ([]string, error)
	metrics     *metrics
	log         *slog.Logger
	volumes     volumes
	budgeted    budgets
	kept        atomic.Pointer[stream] // of the last preflight, for the drain that may follow; nil: there is none
}

// NewDrainer checks cfg and names all its faults.
func NewDrainer(cfg DrainerConfig) (*Drainer, error) {
	var faults []error
	if cfg.Clientset == nil {
		faults = append(faults, errors.New("no clientset"))
	}
	if cfg.Node == "" {
		faults = append(faults, errors.New("no node name"))
	}
	if cfg.Follow != nil && cfg.Follow.name != cfg.Node {
		faults = append(faults, fmt.Errorf("it is to follow node %q", cfg.Follow.name))
	}
	if cfg.Concurrency < 0 {
		faults = append(faults, fmt.Errorf("concurrency %d is negative", cfg.Concurrency))
	}
	if cfg.Concurrency == 0 {
		cfg.Concurrency = DefaultConcurrency
	}
	m, err := newMetrics(cfg.Metrics)
	if err := errors.Join(append(faults, err)...); err != nil {
		return nil, fmt.Errorf("configuring the drain: %w", err)
	}
	return &Drainer{
		as: &identity{node: cfg.Clientset, agent: cfg.Cluster, log: logger(cfg.Log)}, cluster: cmp.Or(cfg.Cluster, cfg.Clientset),
		follow: cfg.Follow, node: cfg.Node, self: cfg.Self, concurrency: cfg.Concurrency, endsPods: cfg.EndsPods,
		othersDown: cfg.OthersDown, metrics: m, log: logger(cfg.Log),
	}, nil
}

// Plan says what a drain would do with each of the node's pods now.
func (d *Drainer) Plan(ctx context.Context, s DrainSettings) (DrainPlan, error) {
	pods, err := d.list(ctx)
	if err != nil {
		return DrainPlan{}, err
	}
	f, held := d.facts(ctx, pods, s)
	return Plan(pods, s.Policy, f).heldBy(held), nil
}

// Outlook is what a drain would meet if it began now.
type Outlook struct {
	Reason, Message string    // why the node may not be drained; "" when it may
	Ready           []string  // as of readyPods, without the agent's own pod
	Warnings        []Warning // asked for with a preflight
}

// Look reads the pods once and says all that there is to say before a bid. With preflight it also looks for what would hold
// the drain up; what cannot be asked is no warning. Then the watch that it has read them by stays open for a while, for [Drainer.Run].
func (d *Drainer) Look(ctx context.Context, s DrainSettings, preflight bool) (Outlook, error) {
	read, facts := d.list, d.known
	if preflight {
		read, facts = d.lookAhead, d.facts // the mode of a drain blocks none, and is worth asking for only when there is to be one
	}
	pods, err := read(ctx)
	if err != nil {
		return Outlook{}, err
	}
	f, _ := facts(ctx, pods, s) // as in Plan
	plan := Plan(pods, s.Policy, f)
	var o Outlook
	o.Reason, o.Message = blocked(plan.Pods)
	if i := slices.IndexFunc(pods, kured); i >= 0 {
		o.Reason, o.Message = ReasonOtherRebooter, pods[i].Namespace+"/"+pods[i].Name+" reboots this node too"
	}
	if preflight && o.Reason == "" {
		if o.Warnings, err = d.preflight(ctx, pods, plan.Pods); err != nil {
			d.log.Debug("preflight", "err", err)
		}
	}
	own := func(p *corev1.Pod) bool { return p.Name == d.self }
	o.Ready = readyPods(slices.DeleteFunc(slices.Clone(pods), own)) // a drain may have the same
	return o, nil
}

// kured tells the pod of the best known other rebooter: its DaemonSet carries one of these labels in all its installers.
func kured(p *corev1.Pod) bool {
	return p.Labels["name"] == "kured" || p.Labels["app.kubernetes.io/name"] == "kured"
}

func blocked(plans []PodPlan) (reason, message string) {
	plans = slices.DeleteFunc(slices.Clone(plans), func(p PodPlan) bool { return p.Decision != DecisionBlock })
	if len(plans) == 0 {
		return "", ""
	}
	names := make([]string, len(plans))
	for i, p := range plans {
		names[i] = p.Namespace + "/" + p.Name
	}
	return plans[0].Reason, cut(list(names)+": "+plans[0].Message, maxMessage)
}

// Run evicts what the plan says and returns nil when nothing is in the way any more: when every pod that is not ignored
// and does not ride through has ended, and its volumes are off the node or have been awaited for long enough. It gives up on
// no pod; ctx or the timeout of s ends it, with the context's error. When the pods may not be read, or the host cannot be asked
// whether they outlive its reboot, it returns that error before it evicts what might have stayed: it is meant to be called again.
// progress is called, from this goroutine, whenever something has changed.
func (d *Drainer) Run(ctx context.Context, s DrainSettings, progress func(DrainView)) error {
	if now := time.Now(); s.Begun.IsZero() || s.Begun.After(now) {
		s.Begun = now
	}
	if s.Timeout > 0 {
		var done context.CancelFunc
		ctx, done = context.WithDeadline(ctx, s.Begun.Add(s.Timeout))
		defer done()
	}
	ctx, end := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer end(nil)

	pods := d.takeOver(ctx)
	context.AfterFunc(ctx, pods.stop)
	watching.Go(func() { <-pods.ended; end(pods.err) })
	vols := awaiting{settings: s, node: d.follow}
	if vols.node == nil && s.Volumes > 0 {
		own, err := New(Config{Clientset: d.cluster, Name: d.node, Log: d.log})
		if err != nil {
			return err
		}
		vols.node = own
		watching.Go(func() { _ = own.Watch(ctx, func(View, bool) {}) }) // from now on, so that nothing has to be asked for at the end
	}
	err := d.run(ctx, effects{
		snapshots: pods.snapshots,
		facts:     func(ctx context.Context, pods []*corev1.Pod) (Facts, error) { return d.facts(ctx, pods, s) },
		volumes:   d.bound,
		budgets:   d.lately,
		evict:     func(ctx context.Context, p PodPlan) error { return d.evict(ctx, p, s.Grace) },
		confirm:   d.list,
		detached: func(ctx context.Context, left []*corev1.Pod, waiting func(string)) (string, bool) {
			return vols.wait(ctx, d, left, waiting)
		},
		progress: progress,
	}, newRota(s, d.concurrency))
	if err != nil && errors.Is(err, ctx.Err()) {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("draining node %q: %w", d.node, err)
	}
	return nil
}

// evict asks once. The client's own retries are off: they would sleep, unseen, through what the server wants told.
func (d *Drainer) evict(ctx context.Context, p PodPlan, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	uid := types.UID(p.UID)
	e := &policyv1.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name},
		DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}},
	}
	if own := p.grace; grace > 0 && own > grace {
		seconds := int64((grace + time.Second - 1) / time.Second) // up: 0 would end it by force
		e.DeleteOptions.GracePeriodSeconds = &seconds
	}
	return d.post(e).Do(ctx).Error()
}

// post is the request for an eviction. What comes of a refusal is decided here and not by the client.
func (d *Drainer) post(e *policyv1.Eviction) *rest.Request {
	return d.as.client().PolicyV1().RESTClient().Post().AbsPath("/api/v1").Namespace(e.Namespace).
		Resource("pods").Name(e.Name).SubResource("eviction").
		MaxRetries(0).Body(e)
}

// effects are what a run acts through.
type effects struct {
	snapshots <-chan []*corev1.Pod // all pods of the node, after each change
	facts     func(context.Context, []*corev1.Pod) (Facts, error)
	volumes   func(context.Context, []*corev1.Pod) (bound, unread map[string]string)       // of facts, for pods that are new
	budgets   func(context.Context, []*corev1.Pod) ([]policyv1.PodDisruptionBudget, error) // of the pods, at the beginning
	evict     func(context.Context, PodPlan) error
	confirm   func(context.Context) ([]*corev1.Pod, error) // what a snapshot shows, asked for
	// detached waits until the volumes of others than these pods are off the node; waited tells that it took time.
	detached func(ctx context.Context, left []*corev1.Pod, waiting func(string)) (still string, waited bool)
	progress func(DrainView)
}

// reply is the answer to the eviction of the pod with that UID.
type reply struct {
	uid string
	err error
}

// run is the loop: it waits for a snapshot, a reply or the time, and lets st decide.
func (d *Drainer) run(ctx context.Context, e effects, st *rota) error {
	replies := make(chan reply)
	var evicting sync.WaitGroup
	defer evicting.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var told DrainView
	var last []*corev1.Pod
	look := func() error {
		first := !st.seen
		f, err := e.know(ctx, st, last)
		if err != nil {
			return err
		}
		st.observe(last, f, time.Now())
		if !first || !st.evicts() {
			return nil
		}
		if budgets, err := e.budgets(ctx, last); err != nil {
			d.log.Debug("looking at the disruption budgets: every controller begins with one eviction", "err", err)
		} else {
			st.learn(budgets)
		}
		return nil
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case last = <-e.snapshots:
			if err := look(); err != nil {
				return err
			}
		case r := <-replies:
			a := classify(r.err)
			d.metrics.evictions.WithLabelValues(a.result).Inc()
			st.answered(r.uid, a, time.Now())
		case <-timer.C:
			if len(st.facts.Unread) > 0 { // nothing else may bring news
				if err := look(); err != nil {
					return err
				}
			}
		}
		if st.confirmDue(time.Now()) {
			if err := d.settle(ctx, e, st, last); err != nil {
				return err
			}
		}
		for _, p := range st.start(time.Now()) {
			evicting.Go(func() {
				select {
				case replies <- reply{p.UID, e.evict(ctx, p)}:
				case <-ctx.Done():
				}
			})
		}
		now := time.Now()
		if v := st.view(now); st.seen && v != told { // a drain that fails before its first look has not begun
			told = v
			e.progress(v)
		}
		if told.Empty {
			return nil
		}
		timer.Reset(st.wake(now))
	}
}

// know asks for everything at the first look, and later only about pods that are new.
func (e effects) know(ctx context.Context, st *rota, pods []*corev1.Pod) (Facts, error) {
	if !st.seen {
		return e.facts(ctx, pods)
	}
	f := st.facts
	f.Bound, f.Unread = e.volumes(ctx, pods)
	return f, nil
}

// settle makes sure that the node is as empty as the watch shows, and waits for the volumes of the pods that have gone. What was seen
// is believed where the run's own evictions have proven it; else, and once more when the wait took time, as a pod may have come, the API
// server is asked. Its error is that of ctx, or of the host that cannot be asked.
func (d *Drainer) settle(ctx context.Context, e effects, st *rota, seen []*corev1.Pod) error {
	ask := e.confirm
	if st.proven(time.Now()) && !st.looksAgain() {
		ask = func(context.Context) ([]*corev1.Pod, error) { return seen, nil }
	}
	for again := true; again; ask = e.confirm {
		pods, err := ask(ctx)
		switch {
		case err != nil:
			d.log.Warn("confirming that the node is empty", "node", d.node, "error", err)
		case st.looksAgain():
			f, err := e.facts(ctx, pods)
			if err != nil {
				return err
			}
			st.lastLook(pods, f, time.Now())
		}
		if !st.confirmed(pods, err, time.Now()) {
			return nil
		}
		st.left, again = e.detached(ctx, pods, func(still string) { e.progress(st.detaching(still)) })
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}
