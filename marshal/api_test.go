package marshal_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"kubebaton.io/baton/kube"
	"kubebaton.io/baton/lock"
	"kubebaton.io/baton/marshal"
)

// site is a namespace and a group of Nodes of one test on the real API server. The group has a name of its own, because
// Nodes belong to all tests, and an active record that names a slot of a group counts in it wherever its Node is.
type site struct {
	t     *testing.T
	name  string
	admin kube.Interface
	group marshal.Group
	log   *slog.Logger
}

func newSite(t *testing.T, name string, limit int) *site {
	t.Helper()
	s := &site{t: t, name: name, admin: client(t, nil), log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	s.group = marshal.Group{Name: name, MaxUnavailable: limit, Match: func(l map[string]string) bool { return l["site"] == name }}
	if _, err := s.admin.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return s
}

func client(t *testing.T, wrap func(http.RoundTripper) http.RoundTripper) kube.Interface {
	t.Helper()
	cfg := rest.CopyConfig(api)
	if wrap != nil {
		cfg.Wrap(wrap)
	}
	c, err := kube.Client(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *site) node(i int) string { return fmt.Sprintf("%s-%d", s.name, i) }

// register makes Node i, Ready, as a kubelet does, and lets it bid since so many minutes. It returns the UID.
func (s *site) register(i int, boot string, minutes int) string {
	s.t.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: s.node(i), Labels: map[string]string{"site": s.name}}}
	if minutes > 0 {
		n.Annotations = map[string]string{"kubebaton.io/reboot": record("Waiting", i, minutes, "")}
	}
	nodes := s.admin.CoreV1().Nodes()
	n, err := nodes.Create(s.t.Context(), n, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	n.Status.NodeInfo.BootID = boot
	if n, err = nodes.UpdateStatus(s.t.Context(), n, metav1.UpdateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	return string(n.UID)
}

func record(phase string, i, minutes int, slot string) string {
	return fmt.Sprintf(`{"version":1,"cycle":"c%d","attempt":1,"phase":%q,"pendingSince":%q,"bids":%v,"slot":%q}`,
		i, phase, time.Now().Add(-time.Duration(minutes)*time.Minute).UTC().Format(time.RFC3339), phase == "Waiting", slot)
}

// write puts a record on Node i, "" takes it off.
func (s *site) write(i int, rec string) {
	s.t.Helper()
	value := "null"
	if rec != "" {
		value = fmt.Sprintf("%q", rec)
	}
	patch := fmt.Sprintf(`{"metadata":{"annotations":{"kubebaton.io/reboot":%s}}}`, value)
	if _, err := s.admin.CoreV1().Nodes().Patch(s.t.Context(), s.node(i), types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) deleteNode(i int) {
	s.t.Helper()
	if err := s.admin.CoreV1().Nodes().Delete(s.t.Context(), s.node(i), metav1.DeleteOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) slots(node int) *lock.Slots {
	s.t.Helper()
	l, err := lock.New(lock.Config{Clientset: s.admin, Namespace: s.name, Node: s.node(node)})
	if err != nil {
		s.t.Fatal(err)
	}
	return l
}

func (s *site) list() []lock.Slot {
	s.t.Helper()
	list, err := s.slots(0).List(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return list
}

// agent is node i's marshal in a process of its own: own connections, and a watch that tells of the inheritance.
type agent struct {
	*marshal.Marshal
	site *site
	stop func()
}

func (s *site) agent(i int, wrap func(http.RoundTripper) http.RoundTripper, change func(*marshal.Config)) *agent {
	s.t.Helper()
	cs := client(s.t, wrap)
	l, err := lock.New(lock.Config{Clientset: cs, Namespace: s.name, Node: s.node(i)})
	if err != nil {
		s.t.Fatal(err)
	}
	c := marshal.Config{
		Clientset: cs, Namespace: s.name, Self: s.node(i), Slots: door{l}, Log: s.log.With("agent", s.node(i)),
		Groups: func() []marshal.Group { return []marshal.Group{s.group} },
	}
	if change != nil {
		change(&c)
	}
	m, err := marshal.New(c)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.Run(ctx) })
	wg.Go(func() {
		_ = l.Watch(ctx, func(_ []lock.Slot, heir bool) {
			if heir {
				m.Inherit()
			}
		})
	})
	a := &agent{Marshal: m, site: s, stop: func() { cancel(); wg.Wait() }}
	s.t.Cleanup(a.stop)
	return a
}

// within waits until ok and returns how long that took.
func (s *site) within(limit time.Duration, what string, ok func() bool) time.Duration {
	s.t.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > limit {
			s.t.Fatalf("not within %v: %s; slots %+v", limit, what, s.list())
		}
		pause(5 * time.Millisecond)
	}
	return time.Since(begin)
}

func pause(d time.Duration) { <-time.After(d) }

func nominees(list []lock.Slot) []string {
	var out []string
	for _, s := range list {
		if s.Holder == "" && s.Nominee != "" {
			out = append(out, s.Nominee)
		}
	}
	slices.Sort(out)
	return out
}

func sortedUIDs(uids ...string) []string { slices.Sort(uids); return uids }

// take makes node i take the first slot that names it.
func (s *site) take(i int, uid, boot string) lock.Slot {
	s.t.Helper()
	var out lock.Slot
	l := s.slots(i)
	s.within(10*time.Second, "slot for "+s.node(i), func() bool {
		named, err := l.Named(s.t.Context())
		if err != nil || len(named) == 0 {
			return false
		}
		out, err = l.Take(s.t.Context(), named[0], uid, lock.Claim{Cycle: fmt.Sprint("c", i), Attempt: 1, BootID: boot})
		return err == nil
	})
	s.write(i, record("Draining", i, 1, out.Name))
	return out
}

// quick makes an election that a test can wait for.
func quick(c *marshal.Config) {
	c.LeaseDuration, c.RenewDeadline, c.RetryPeriod, c.LookInterval = 3*time.Second, 2*time.Second, 300*time.Millisecond, time.Second
}

// cable is a connection that can be pulled out.
type cable struct {
	http.RoundTripper
	cut *atomic.Bool
}

func (c cable) RoundTrip(r *http.Request) (*http.Response, error) {
	if c.cut.Load() {
		return nil, errors.New("the cable is cut")
	}
	return c.RoundTripper.RoundTrip(r)
}

func TestFailOver(t *testing.T) {
	t.Parallel()
	t.Run("when the marshal is cut off another takes over, and no nomination is lost or doubled", func(t *testing.T) {
		s := newSite(t, "failover", 2)
		var uids []string
		for i := range 6 {
			uids = append(uids, s.register(i, fmt.Sprint("boot-", i), 10-i))
		}
		var cut atomic.Bool
		first := s.agent(5, func(rt http.RoundTripper) http.RoundTripper { return cable{rt, &cut} }, quick)
		first.Stand(true)
		s.within(20*time.Second, "two nominations", func() bool { return len(nominees(s.list())) == 2 })
		before := s.list()
		others := []*agent{s.agent(3, nil, quick), s.agent(4, nil, quick)}
		for _, a := range others {
			a.Stand(true)
		}
		pause(300 * time.Millisecond)
		cut.Store(true)
		leads := func() bool { return others[0].Leading() || others[1].Leading() }
		t.Logf("taken over after %v, with a lease of 3 s and a look each second", s.within(20*time.Second, "another marshal", leads))
		if got := nominees(before); !slices.Equal(got, sortedUIDs(uids[0], uids[1])) {
			t.Fatalf("nominated %v, want the two oldest", got)
		}
		s.take(0, uids[0], "boot-0")
		held := s.take(1, uids[1], "boot-1")
		s.write(1, "")
		if _, err := s.slots(1).Free(t.Context(), held); err != nil {
			t.Fatal(err)
		}
		s.within(10*time.Second, "the new marshal nominates the next", func() bool { return slices.Equal(nominees(s.list()), []string{uids[2]}) })
		if n := len(s.list()); n != 2 {
			t.Errorf("%d slots, want 2", n)
		}
		if others[0].Leading() && others[1].Leading() {
			t.Error("both others lead")
		}
	})
}

func TestResign(t *testing.T) {
	t.Parallel()
	t.Run("the heir leads and nominates in well under a second", func(t *testing.T) {
		s := newSite(t, "resign", 1)
		uids := []string{s.register(0, "b0", 9), s.register(1, "b1", 5), s.register(2, "b2", 1)}
		a := s.agent(0, nil, nil)
		a.Stand(true)
		// The marshal's own node is the oldest and comes last, so node 1 is nominated and node 2 will inherit.
		s.within(20*time.Second, "the first nomination", func() bool { return slices.Equal(nominees(s.list()), []string{uids[1]}) })
		var looks atomic.Int64
		b := s.agent(2, counting(&looks), nil)
		b.Stand(true)
		s.within(5*time.Second, "the other has looked", func() bool { return looks.Load() > 0 })
		pause(100 * time.Millisecond)
		sl := s.take(1, uids[1], "b1")
		begin := time.Now()
		if err := a.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		released := time.Since(begin)
		s.within(2*time.Second, "the heir leads", b.Leading)
		leading := time.Since(begin)
		s.write(1, "")
		if _, err := s.slots(1).Free(t.Context(), sl); err != nil {
			t.Fatal(err)
		}
		free := time.Now()
		s.within(5*time.Second, "the heir's first nomination", func() bool { return slices.Equal(nominees(s.list()), []string{uids[0]}) })
		t.Logf("resigned and released in %v, heir leads after %v, nominated %v after the slot was freed", released, leading, time.Since(free))
		if leading > time.Second {
			t.Errorf("the hand-over took %v", leading)
		}
		if a.Leading() {
			t.Error("the old marshal still leads")
		}
		st, err := b.Look(t.Context())
		if err != nil || st.Holder != s.node(2) || st.Heir != "" {
			t.Errorf("Lease: %+v, %v", st, err)
		}
	})
}

func TestLooks(t *testing.T) {
	t.Parallel()
	t.Run("an agent that waits with many others looks less often, and by the Lease it knows of them", func(t *testing.T) {
		const n = 40
		s := newSite(t, "looks", 1)
		for i := range n {
			s.register(i, fmt.Sprint("boot-", i), n-i)
		}
		standing := func() int { // with those of other tests, whose Nodes are in the same cluster
			l, err := s.admin.CoordinationV1().Leases(s.name).Get(t.Context(), "marshal", metav1.GetOptions{})
			if err != nil {
				return 0
			}
			of, _ := strconv.Atoi(l.Annotations["kubebaton.io/standing"])
			return of
		}
		s.agent(0, nil, quick).Stand(true)
		s.within(20*time.Second, "the others are counted", func() bool { return standing() >= n-1 })
		var looks atomic.Int64
		a := s.agent(1, counting(&looks), quick)
		a.Stand(true)
		s.within(10*time.Second, "the other has looked", func() bool { return looks.Load() > 0 })
		pause(6 * time.Second)
		if got := looks.Load(); got > 4 {
			t.Errorf("%d looks in 6 s, want one in 3.9 s; alone it is one a second", got)
		}
		for i := 2; i < n; i++ {
			s.write(i, "")
		}
		s.within(20*time.Second, "those that have gone are counted no more", func() bool { of := standing(); return 0 < of && of < n-1 })
	})
}

// counting counts the requests for the Lease `marshal` by its name.
func counting(looks *atomic.Int64) func(http.RoundTripper) http.RoundTripper {
	return func(rt http.RoundTripper) http.RoundTripper {
		return counter{rt, looks, func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/leases/marshal") }}
	}
}

// counter counts the requests that it is asked to.
type counter struct {
	http.RoundTripper
	count  *atomic.Int64
	counts func(*http.Request) bool
}

func (c counter) RoundTrip(r *http.Request) (*http.Response, error) {
	if c.counts(r) {
		c.count.Add(1)
	}
	return c.RoundTripper.RoundTrip(r)
}

func TestGhostSlot(t *testing.T) {
	t.Parallel()
	const grace = time.Second
	short := func(c *marshal.Config) { c.Times = func() (_, deleted time.Duration) { return 0, grace } }
	// ready starts a marshal on node 1 and makes node 0 a holder.
	ready := func(t *testing.T, name string, wrap func(http.RoundTripper) http.RoundTripper) (*site, lock.Slot) {
		s := newSite(t, name, 1)
		uid := s.register(0, "boot-a", 9)
		s.register(1, "boot-x", 1)
		s.agent(1, wrap, short).Stand(true)
		return s, s.take(0, uid, "boot-a")
	}
	freed := func(s *site) func() bool { return func() bool { return s.list()[0].Holder == "" } }

	t.Run("the slot of a deleted Node is freed after the grace period, and the next one goes", func(t *testing.T) {
		t.Parallel()
		s, _ := ready(t, "ghost", nil)
		pause(grace + 500*time.Millisecond)
		if freed(s)() {
			t.Fatal("freed while its Node is there")
		}
		s.deleteNode(0)
		took := s.within(grace+5*time.Second, "the slot is freed", freed(s))
		t.Logf("freed %v after the Node was deleted, with a grace of %v", took, grace)
		if took < grace {
			t.Error("too early")
		}
		s.within(5*time.Second, "the next nomination", func() bool { return len(nominees(s.list())) == 1 })
	})
	t.Run("a Node registered again on the same boot keeps the slot, after another boot it loses it", func(t *testing.T) {
		t.Parallel()
		s, sl := ready(t, "again", nil)
		s.deleteNode(0)
		s.register(0, "boot-a", 0)
		pause(grace + 2*time.Second)
		if freed(s)() {
			t.Fatal("freed though the host has not rebooted")
		}
		s.deleteNode(0)
		s.register(0, "boot-b", 0)
		s.within(grace+5*time.Second, "the slot of "+sl.Holder+" is freed", freed(s))
	})
	for name, jump := range map[string]time.Duration{"forward": time.Hour, "back": -time.Hour} {
		t.Run("a jump of the API server's clock "+name+" changes nothing of the grace period", func(t *testing.T) {
			t.Parallel()
			var skew atomic.Int64
			s := newSite(t, "jump-"+name, 1)
			uid := s.register(0, "boot-a", 9)
			s.register(1, "boot-x", 1)
			s.agent(1, nil, func(c *marshal.Config) {
				short(c)
				c.Now = func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
			}).Stand(true)
			s.take(0, uid, "boot-a")
			s.deleteNode(0)
			deleted := time.Now()
			pause(grace / 2) // seen to be gone
			skew.Store(int64(jump))
			s.write(1, record("Waiting", 1, 2, "")) // something to look at
			s.within(grace+5*time.Second, "the slot is freed", freed(s))
			if took := time.Since(deleted); took < grace {
				t.Errorf("freed after %s, the grace period is %s", took, grace)
			}
		})
	}
	t.Run("a Node that comes back within the grace period keeps the slot though the marshal's watch has frozen", func(t *testing.T) {
		t.Parallel()
		var ice frost
		s, _ := ready(t, "frozen", ice.wrap)
		s.deleteNode(0)
		pause(grace / 2) // seen to be gone
		ice.frozen.Store(true)
		s.register(0, "boot-a", 0)
		pause(grace + 2*time.Second)
		if freed(s)() {
			t.Fatal("freed on a view that was wrong")
		}
	})
}

// frost holds back what the watches of Nodes bring.
type frost struct{ frozen atomic.Bool }

func (f *frost) wrap(rt http.RoundTripper) http.RoundTripper {
	return roundTrip(func(r *http.Request) (*http.Response, error) {
		resp, err := rt.RoundTrip(r)
		if err == nil && strings.HasSuffix(r.URL.Path, "/nodes") && r.URL.Query().Get("watch") != "" {
			resp.Body = &frozenBody{ReadCloser: resp.Body, f: f, closed: make(chan struct{})}
		}
		return resp, err
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

type frozenBody struct {
	io.ReadCloser
	f      *frost
	once   sync.Once
	closed chan struct{}
}

func (b *frozenBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.f.frozen.Load() {
		<-b.closed
		return 0, io.EOF
	}
	return n, err
}

func (b *frozenBody) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.ReadCloser.Close()
}

func TestBrake(t *testing.T) {
	t.Parallel()
	t.Run("a pause reaches a holder and a nominee at once, survives renewals, and its end lifts the hold", func(t *testing.T) {
		s := newSite(t, "brake", 2)
		uids := []string{s.register(0, "b0", 9), s.register(1, "b1", 5), s.register(2, "b2", 1)}
		reg := prometheus.NewRegistry()
		a := s.agent(2, nil, func(c *marshal.Config) { c.RetryPeriod, c.Registerer = 200*time.Millisecond, reg })
		a.Stand(true)
		s.take(0, uids[0], "b0")
		s.within(5*time.Second, "node 1 is nominated", func() bool { return slices.Contains(nominees(s.list()), uids[1]) })
		s.annotate(`"kubebaton.io/pause.brake":"storm"`)
		holds := func(want string, n int) func() bool {
			return func() bool {
				got := 0
				for _, l := range s.list() {
					if l.Hold == want {
						got++
					}
				}
				return got == n
			}
		}
		took := s.within(5*time.Second, "both slots are on hold", holds("paused: storm", 2))
		t.Logf("two slots on hold %v after the pause", took)
		s.within(time.Second, "the metric shows the pause", func() bool { return gauge(t, reg, "baton_group_paused") == 1 })
		pause(time.Second) // some renewals
		st, err := a.Look(t.Context())
		if err != nil || st.Paused["brake"] != "storm" || st.Holder != s.node(2) {
			t.Errorf("the Lease says %+v, %v", st, err)
		}
		s.annotate(`"kubebaton.io/pause.brake":null`)
		s.within(5*time.Second, "no slot is on hold", holds("", 2))
		s.write(0, record("Failed", 0, 9, "slot-brake-0"))
		s.within(5*time.Second, "a failed node halts the group", holds("halted: "+s.node(0), 2))
		s.within(time.Second, "the metric shows the halt", func() bool { return gauge(t, reg, "baton_group_halted") == 1 })
		if err := a.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		if all, err := reg.Gather(); err != nil || len(all) != 0 {
			t.Errorf("after resigning it still shows %v, %v", all, err)
		}
	})
}

func (s *site) annotate(kv string) {
	s.t.Helper()
	patch := []byte(`{"metadata":{"annotations":{` + kv + `}}}`)
	if _, err := s.admin.CoordinationV1().Leases(s.name).Patch(s.t.Context(), "marshal", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		s.t.Fatal(err)
	}
}

func gauge(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return -1
}

// waits tells whether the metrics show nodes that wait for this reason.
func waits(t *testing.T, reg *prometheus.Registry, reason string) bool {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "reason" && l.GetValue() == reason {
					return true
				}
			}
		}
	}
	return false
}

// A marshal that has just started may have to do with an API server that was restored from a backup: it calls nodes Ready that
// are down.
func TestSilentKubelets(t *testing.T) {
	t.Parallel()
	s := newSite(t, "silent", 2)
	s.register(0, "b0", 0)
	uid := s.register(1, "b1", 5)
	leases := s.admin.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	holder, seconds := s.node(0), int32(40)
	beat := func(ago time.Duration) *coordinationv1.Lease {
		at := metav1.NewMicroTime(time.Now().Add(-ago))
		return &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: holder},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &at},
		}
	}
	l, err := leases.Create(t.Context(), beat(time.Minute), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	s.agent(1, nil, func(c *marshal.Config) { c.Registerer = reg }).Stand(true)
	s.within(10*time.Second, "a reason", func() bool { return waits(t, reg, "restored") })
	pause(time.Second)
	if got := nominees(s.list()); len(got) > 0 {
		t.Fatalf("%v is nominated while a node is silent that the API server calls Ready", got)
	}
	l.Spec = beat(0).Spec
	if _, err := leases.Update(t.Context(), l, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	took := s.within(10*time.Second, "a nomination", func() bool { return slices.Equal(nominees(s.list()), []string{uid}) })
	t.Logf("nominated %v after the kubelet was heard", took)
}

func TestOrder(t *testing.T) {
	t.Parallel()
	t.Run("a nomination that nobody takes goes to the next, and the bid that was passed over waits", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, "untaken", 1)
		uids := []string{s.register(0, "b0", 9), s.register(1, "b1", 5), s.register(2, "b2", 1)}
		s.agent(2, nil, func(c *marshal.Config) {
			c.Times = func() (nomination, _ time.Duration) { return 400 * time.Millisecond, 0 }
		}).Stand(true)
		for i, uid := range uids {
			took := s.within(10*time.Second, "nomination of "+s.node(i), func() bool { return slices.Equal(nominees(s.list()), []string{uid}) })
			t.Logf("%s nominated after %v", s.node(i), took)
		}
	})
	t.Run("a canary goes alone, and the next marshal remembers it", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, "canary", 2)
		uids := []string{s.register(0, "b0", 9), s.register(1, "b1", 8), s.register(2, "b2", 7), s.register(3, "b3", 6)}
		tries := func(c *marshal.Config) {
			quick(c)
			c.Groups = func() []marshal.Group {
				g := s.group
				g.Canaries, g.CanarySoak = 1, 3*time.Second
				return []marshal.Group{g}
			}
		}
		first := s.agent(3, nil, tries)
		first.Stand(true)
		sl := s.take(0, uids[0], "b0")
		pause(500 * time.Millisecond)
		if got := nominees(s.list()); len(got) > 0 {
			t.Fatalf("%v is nominated beside the canary", got)
		}
		if err := first.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.agent(2, nil, tries).Stand(true)
		back := time.Now()
		history := fmt.Sprintf(`{"cycles":[{"at":%q,"result":"rebooted","took":1000000,"wishedSince":%q}]}`,
			back.UTC().Format(time.RFC3339Nano), back.Add(-9*time.Minute).UTC().Format(time.RFC3339Nano))
		patch := fmt.Sprintf(`{"metadata":{"annotations":{"kubebaton.io/reboot":null,"kubebaton.io/history":%q}}}`, history)
		if _, err := s.admin.CoreV1().Nodes().Patch(t.Context(), s.node(0), types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.slots(0).Free(t.Context(), sl); err != nil {
			t.Fatal(err)
		}
		s.within(15*time.Second, "the others", func() bool { return len(nominees(s.list())) == 2 })
		if took := time.Since(back); took < 3*time.Second {
			t.Errorf("the others went after %s", took)
		}
	})
	t.Run("the next marshal goes on counting how long a node has been away", func(t *testing.T) {
		t.Parallel()
		const timeout = 4 * time.Second
		s := newSite(t, "away", 2)
		s.group.RebootTimeout = timeout
		uids := []string{s.register(0, "b0", 9), s.register(1, "b1", 0), s.register(2, "b2", 8), s.register(3, "b3", 7)}
		first := s.agent(3, nil, quick)
		first.Stand(true)
		sl := s.take(0, uids[0], "b0")
		s.write(0, record("Rebooting", 0, 9, sl.Name))
		left := time.Now()
		pause(timeout - time.Second)
		if err := first.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.agent(2, nil, quick).Stand(true)
		s.within(15*time.Second, "the halt", func() bool {
			return slices.ContainsFunc(s.list(), func(l lock.Slot) bool { return l.Hold == "halted: "+s.node(0) })
		})
		if took := time.Since(left); took < timeout-time.Second || took > 2*timeout-time.Second {
			t.Errorf("halted after %s, the node may be away for %s", took, timeout)
		}
	})
	t.Run("slots follow the configuration, and a held one stays", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, "resize", 3)
		uids := []string{s.register(0, "b0", 9), s.register(1, "b1", 0), s.register(2, "b2", 0), s.register(3, "b3", 0)}
		var limit atomic.Int64
		limit.Store(3)
		a := s.agent(1, nil, func(c *marshal.Config) {
			c.Groups = func() []marshal.Group {
				g := s.group
				g.MaxUnavailable = int(limit.Load())
				return []marshal.Group{g}
			}
		})
		a.Stand(true)
		held := s.take(0, uids[0], "b0")
		names := func() (out []string) {
			for _, l := range s.list() {
				out = append(out, l.Name)
			}
			return out
		}
		s.within(5*time.Second, "three slots", func() bool { return len(names()) == 3 })
		limit.Store(1)
		a.Reconfigured()
		left := slices.Compact([]string{marshal.SlotName("resize", 0), held.Name}) // it may have been nominated for any of the three
		s.within(5*time.Second, "only the first and the held slot are left", func() bool { return slices.Equal(names(), left) })
		limit.Store(2)
		a.Reconfigured()
		s.within(5*time.Second, "two slots", func() bool { return len(names()) == 2 })
	})
}
