package marshal

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"k8s.io/apimachinery/pkg/runtime"
	k8stesting "k8s.io/client-go/testing"

	"kubebaton.io/baton/kube"
)

var discard = slog.New(slog.DiscardHandler)

// polls is an API server that counts. The fake does not check resourceVersions, so no test here lets two agents write
// at the same time.
type polls struct {
	*fake.Clientset
	requests atomic.Int64
}

func newPolls() *polls {
	p := &polls{Clientset: fake.NewClientset()}
	p.PrependReactor("*", "*", func(k8stesting.Action) (bool, runtime.Object, error) {
		p.requests.Add(1)
		return false, nil, nil
	})
	return p
}

func (p *polls) elector(t *testing.T, name string, lead func(context.Context), heir func() string) *Elector {
	t.Helper()
	if lead == nil {
		lead = func(ctx context.Context) { <-ctx.Done() }
	}
	e, err := NewElector(ElectionConfig{Leases: p.CoordinationV1().Leases("baton-system"), Identity: name, Lead: lead, Heir: heir, Log: discard})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (p *polls) lease(t *testing.T) *coordinationv1.Lease {
	t.Helper()
	l, err := p.Tracker().Get(coordinationv1.SchemeGroupVersion.WithResource("leases"), "baton-system", leaseName)
	if err != nil {
		t.Fatal(err)
	}
	return l.(*coordinationv1.Lease)
}

// holder puts a Lease there, held by somebody who renewed it some time ago, and says how many stand besides, if anything.
func (p *polls) holder(t *testing.T, name string, ago time.Duration, standing ...string) {
	t.Helper()
	lasts := int32(15)
	renewed := metav1.NewMicroTime(time.Now().Add(-ago))
	l := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: leaseName, Namespace: "baton-system"},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: &lasts, RenewTime: &renewed},
	}
	for _, n := range standing {
		metav1.SetMetaDataAnnotation(&l.ObjectMeta, standingKey, n)
	}
	leases := coordinationv1.SchemeGroupVersion.WithResource("leases")
	err := p.Tracker().Update(leases, l, "baton-system") // at once: nobody may find it gone
	if apierrors.IsNotFound(err) {
		err = p.Tracker().Add(l)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// renewing keeps the Lease of a living holder fresh until the test ends.
func (p *polls) renewing(ctx context.Context, t *testing.T, name string, standing ...string) {
	for ctx.Err() == nil {
		p.holder(t, name, 0, standing...)
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
		}
	}
}

func start(t *testing.T, e *Elector) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = e.Run(ctx)
	}()
	return func() { cancel(); <-done }
}

func TestElector(t *testing.T) {
	in := func(name string, f func(t *testing.T, p *polls)) {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { f(t, newPolls()) }) })
	}
	in("an agent that is not asked to stand sends nothing", func(t *testing.T, p *polls) {
		defer start(t, p.elector(t, "a", nil, nil))()
		sleep(time.Hour)
		if n := p.requests.Load(); n != 0 {
			t.Errorf("%d requests in an hour", n)
		}
	})
	in("the first that stands leads at once", func(t *testing.T, p *polls) {
		e := p.elector(t, "a", nil, nil)
		defer start(t, e)()
		e.Stand(true)
		synctest.Wait()
		if !e.Leading() {
			t.Error("does not lead")
		}
	})
	in("while another lives it looks once a minute", func(t *testing.T, p *polls) {
		ctx, cancel := context.WithCancel(t.Context())
		go p.renewing(ctx, t, "z")
		synctest.Wait()
		e := p.elector(t, "a", nil, nil)
		stop := start(t, e)
		e.Stand(true)
		sleep(time.Hour)
		if n := p.requests.Load(); n < 45 || n > 80 {
			t.Errorf("%d requests in an hour, want about 60", n)
		}
		if e.Leading() {
			t.Error("two lead")
		}
		stop()
		cancel()
	})
	in("where many stand each looks less often, and again once a minute when few are left", func(t *testing.T, p *polls) {
		e := p.elector(t, "a", nil, nil)
		stop := start(t, e)
		ctx, cancel := context.WithCancel(t.Context())
		go p.renewing(ctx, t, "z", "1000")
		synctest.Wait()
		e.Stand(true)
		sleep(5 * time.Hour)
		if n := p.requests.Swap(0); n < 45 || n > 80 {
			t.Errorf("%d requests in five hours beside a thousand, want about 60", n)
		}
		cancel()
		ctx, cancel = context.WithCancel(t.Context())
		go p.renewing(ctx, t, "z", "2")
		sleep(8 * time.Minute) // it learns of it at its next look
		p.requests.Store(0)
		sleep(time.Hour)
		if n := p.requests.Load(); n < 45 || n > 80 {
			t.Errorf("%d requests in an hour beside two, want about 60", n)
		}
		stop()
		cancel()
	})
	in("many miss a marshal sooner than one does, for a fraction of the looks", func(t *testing.T, p *polls) {
		const n = 100
		var leading atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		go p.renewing(ctx, t, "z", fmt.Sprint(n))
		synctest.Wait()
		for i := range n {
			e := p.elector(t, fmt.Sprint("n", i), func(ctx context.Context) { leading.Add(1); <-ctx.Done() }, nil)
			defer start(t, e)()
			e.Stand(true)
		}
		sleep(10 * time.Minute)
		p.requests.Store(0)
		sleep(time.Hour)
		if got := p.requests.Load(); got < n*10 || got > n*15 {
			t.Errorf("%d requests of %d agents in an hour, want 12 of each", got, n)
		}
		cancel()
		begin := time.Now()
		for leading.Load() == 0 && time.Since(begin) < 5*time.Minute {
			sleep(100 * time.Millisecond)
		}
		if took := time.Since(begin); took > 55*time.Second { // it is silent for 15 s, looked at after some, and observed for 15 to 20
			t.Errorf("nobody led for %v", took)
		}
	})
	in("also when all of them read the Lease for the brake, which counts as a look", func(t *testing.T, p *polls) {
		var leading atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		go p.renewing(ctx, t, "z", "60")
		synctest.Wait()
		braking, end := context.WithCancel(t.Context())
		defer end()
		for i := range 60 {
			e := p.elector(t, fmt.Sprint("n", i), func(ctx context.Context) { leading.Add(1); <-ctx.Done() }, nil)
			defer start(t, e)()
			e.Stand(true)
			go func() {
				for {
					select {
					case <-braking.Done():
						return
					case <-time.After(108*time.Second + time.Duration(i)*400*time.Millisecond):
						_, _ = e.Look(braking)
					}
				}
			}()
		}
		sleep(time.Hour)
		cancel()
		begin := time.Now()
		for leading.Load() == 0 && time.Since(begin) < 5*time.Minute {
			sleep(100 * time.Millisecond)
		}
		if took := time.Since(begin); took > 90*time.Second {
			t.Errorf("nobody led for %v", took)
		}
	})
	in("reads for the brake count as looks where many stand too", func(t *testing.T, p *polls) {
		ctx, cancel := context.WithCancel(t.Context())
		go p.renewing(ctx, t, "z", "1000")
		synctest.Wait()
		e := p.elector(t, "a", nil, nil)
		stop := start(t, e)
		e.Stand(true)
		const reads = 40
		for range reads {
			sleep(2 * time.Minute)
			if _, err := e.Look(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n := p.requests.Load(); n > reads+1 {
			t.Errorf("%d requests, want its own %d and the first look", n, reads)
		}
		stop()
		cancel()
	})
	in("whoever leads does not repeat how many an earlier marshal counted", func(t *testing.T, p *polls) {
		p.holder(t, "z", time.Hour, "1000")
		e := p.elector(t, "a", nil, nil)
		defer start(t, e)()
		e.Stand(true)
		sleep(30 * time.Second)
		if n, ok := p.lease(t).Annotations[standingKey]; !e.Leading() || ok {
			t.Errorf("leading %v, standing %q before it has counted", e.Leading(), n)
		}
		e.Annotate(map[string]string{standingKey: "3"})
		sleep(5 * time.Second)
		if n := p.lease(t).Annotations[standingKey]; n != "3" {
			t.Errorf("standing %q, want 3", n)
		}
	})
	in("annotations come with the renewals, without a request of their own, stay after the release, and go when they are to", func(t *testing.T, p *polls) {
		e := p.elector(t, "a", nil, nil)
		stop := start(t, e)
		e.Stand(true)
		sleep(time.Minute)
		before := p.requests.Load()
		sleep(time.Hour)
		usual := p.requests.Load() - before
		for i := range 60 {
			e.Annotate(map[string]string{"kubebaton.io/canary.x": "{}", "kubebaton.io/waiting.x": fmt.Sprintf("%d for slot", i)})
			sleep(time.Minute)
		}
		if n := p.requests.Load() - before - usual; n > usual+20 {
			t.Errorf("%d requests in an hour, without annotations %d", n, usual)
		}
		e.Annotate(map[string]string{"kubebaton.io/canary.x": "{}", "kubebaton.io/waiting.x": ""})
		stop()
		sleep(time.Second)
		l, err := p.CoordinationV1().Leases("baton-system").Get(t.Context(), leaseName, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if l.Annotations["kubebaton.io/canary.x"] != "{}" || len(l.Annotations) != 1 || *l.Spec.HolderIdentity != "" {
			t.Errorf("annotations %v, holder %q", l.Annotations, *l.Spec.HolderIdentity)
		}
	})
	in("an agent that has just read the Lease does not read it again to begin to wait", func(t *testing.T, p *polls) {
		p.holder(t, "z", 0)
		e := p.elector(t, "a", nil, nil)
		defer start(t, e)()
		if _, err := e.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
		was := p.requests.Load()
		e.Stand(true)
		sleep(10 * time.Second)
		if n := p.requests.Load() - was; n != 0 {
			t.Errorf("%d requests", n)
		}
		p.holder(t, "z", 0)
		sleep(2 * time.Minute)
		if n := p.requests.Load() - was; n == 0 {
			t.Error("it never looks again")
		}
	})
	in("a Lease that goes back in time, or is gone, tells that the API server was restored", func(t *testing.T, p *polls) {
		e := p.elector(t, "a", nil, nil)
		leases := coordinationv1.SchemeGroupVersion.WithResource("leases")
		for _, c := range []struct {
			version string // "" is: deleted
			back    bool
		}{{"20", false}, {"21", false}, {"21", false}, {"7", true}, {"8", false}, {"", true}, {"", false}, {"30", false}} {
			_ = p.Tracker().Delete(leases, "baton-system", leaseName)
			if c.version != "" {
				l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: leaseName, Namespace: "baton-system", ResourceVersion: c.version}}
				if err := p.Tracker().Add(l); err != nil {
					t.Fatal(err)
				}
			}
			sleep(time.Minute)
			before := e.Restored()
			if _, err := e.Look(t.Context()); err != nil {
				t.Fatal(err)
			}
			if back := e.Restored() != before; back != c.back {
				t.Errorf("version %q: restored %v, want %v", c.version, back, c.back)
			}
		}
	})
	in("a restore that showed elsewhere counts, for an agent that has never read the Lease", func(t *testing.T, p *polls) {
		e := p.elector(t, "a", nil, nil)
		if !e.Restored().IsZero() {
			t.Errorf("restored %v before anything was seen", e.Restored())
		}
		e.goneBack()
		if at := e.Restored(); !at.Equal(time.Now()) {
			t.Errorf("restored %v, want now, %v", at, time.Now())
		}
	})
	in("an answer that was overtaken by a later one tells nothing of the kind", func(t *testing.T, p *polls) {
		e := p.elector(t, "a", nil, nil)
		early, gone, late := e.asks(), e.asks(), e.asks()
		late(State{version: "20"})
		early(State{version: "10"})
		gone(State{})
		if s := e.Seen(); !e.Restored().IsZero() || s.version != "20" {
			t.Errorf("restored %v, last seen %q", e.Restored(), s.version)
		}
		e.asks()(State{version: "10"})
		if s := e.Seen(); e.Restored().IsZero() || s.version != "10" {
			t.Errorf("asked for afterwards: restored %v, last seen %q", e.Restored(), s.version)
		}
	})
	in("the Lease of a silent holder is taken over within two minutes", func(t *testing.T, p *polls) {
		p.holder(t, "z", 0)
		e := p.elector(t, "a", nil, nil)
		defer start(t, e)()
		e.Stand(true)
		begin := time.Now()
		for !e.Leading() && time.Since(begin) < 5*time.Minute {
			sleep(100 * time.Millisecond)
		}
		if took := time.Since(begin); took < 15*time.Second || took > 2*time.Minute {
			t.Errorf("took %v, want between the lease's 15 s and 2 min", took)
		}
	})
	in("a silent holder whose clock is an hour ahead is taken over too", func(t *testing.T, p *polls) {
		p.holder(t, "z", -time.Hour, "1000")
		e := p.elector(t, "a", nil, nil)
		defer start(t, e)()
		e.Stand(true)
		sleep(4 * time.Minute)
		if !e.Leading() {
			t.Error("does not lead after 4 minutes")
		}
	})
	in("a candidate that sees the holder renew stops polling", func(t *testing.T, p *polls) {
		p.holder(t, "z", time.Minute) // looks dead
		e := p.elector(t, "a", nil, nil)
		stop := start(t, e)
		e.Stand(true)
		synctest.Wait()
		p.requests.Store(0)
		ctx, cancel := context.WithCancel(t.Context())
		go p.renewing(ctx, t, "z") // and is not
		sleep(29 * time.Second)
		if n := p.requests.Load(); n > 1 {
			t.Errorf("%d requests after it was seen alive, want 1", n)
		}
		stop()
		cancel()
	})
	in("an agent that reads the Lease for the brake does not look besides, and stands as soon as it reads that it is free", func(t *testing.T, p *polls) {
		p.holder(t, "z", 0)
		e := p.elector(t, "a", nil, nil)
		defer start(t, e)()
		e.Stand(true)
		synctest.Wait()
		read := func() {
			if _, err := e.Look(t.Context()); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		const reads = 12
		for _, ago := range []time.Duration{30 * time.Second, 0} {
			most := int64(reads)
			if ago > 0 {
				most *= 3 // by a clock that is slow the holder may be dead
			}
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				for ctx.Err() == nil {
					p.holder(t, "z", ago)
					select {
					case <-time.After(2 * time.Second):
					case <-ctx.Done():
					}
				}
			}()
			sleep(20 * time.Second)
			read()
			p.requests.Store(0)
			for range reads {
				sleep(25 * time.Second)
				read()
			}
			cancel()
			sleep(2 * time.Second)
			if n := p.requests.Load(); n > most || e.Leading() {
				t.Errorf("renewed %v ago: %d requests, want its own %d, at most %d; leads %v", ago, n, reads, most, e.Leading())
			}
		}
		p.holder(t, "", 0)
		read()
		if !e.Leading() {
			t.Error("does not lead though it has read that nobody does")
		}
	})
	in("when 300 are told to stand at once, one leads and each sends a handful of requests", func(t *testing.T, p *polls) {
		var leading atomic.Int64
		lead := func(ctx context.Context) { leading.Add(1); <-ctx.Done() }
		const n = 300
		var stops []func()
		for i := range n {
			e := p.elector(t, fmt.Sprint("n", i), lead, nil)
			stops = append(stops, start(t, e))
			e.Stand(true)
		}
		sleep(20 * time.Second)
		if got := leading.Load(); got != 1 {
			t.Errorf("%d lead", got)
		}
		if got := p.requests.Load(); got > 4*n {
			t.Errorf("%d requests of %d agents in 20 s", got, n)
		}
		for _, s := range stops[1:] {
			s()
		}
		stops[0]()
	})
	in("when Resign returns the Lease is released with the heir on it", func(t *testing.T, p *polls) {
		e := p.elector(t, "a", nil, func() string { return "b" })
		defer start(t, e)()
		e.Stand(true)
		synctest.Wait()
		if err := e.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		if l := p.lease(t); *l.Spec.HolderIdentity != "" || l.Labels[kube.LabelNode] != kube.NodeLabel("b") {
			t.Errorf("holder %q, heir %q", *l.Spec.HolderIdentity, l.Labels[kube.LabelNode])
		}
		if e.Leading() {
			t.Error("still leads")
		}
		sleep(time.Hour)
		if l := p.lease(t); *l.Spec.HolderIdentity != "" {
			t.Error("it stood again without being asked")
		}
	})
	in("the work has ended before the Lease is released, also when the agent stops", func(t *testing.T, p *polls) {
		e := p.elector(t, "a", func(ctx context.Context) {
			<-ctx.Done()
			sleep(time.Second) // a write on its way
			if h := p.lease(t).Spec.HolderIdentity; h == nil || *h != "a" {
				t.Errorf("released to %v while at work", h)
			}
		}, func() string { return "c" })
		stop := start(t, e)
		e.Stand(true)
		synctest.Wait()
		stop()
		if l := p.lease(t); *l.Spec.HolderIdentity != "" || l.Labels[kube.LabelNode] != kube.NodeLabel("c") {
			t.Errorf("holder %q, heir %q", *l.Spec.HolderIdentity, l.Labels[kube.LabelNode])
		}
	})
	in("the heir leads at once and takes its name off the Lease", func(t *testing.T, p *polls) {
		a, b := p.elector(t, "a", nil, func() string { return "b" }), p.elector(t, "b", nil, nil)
		defer start(t, a)()
		defer start(t, b)()
		a.Stand(true)
		synctest.Wait()
		b.Stand(true)
		sleep(5 * time.Second)
		if err := a.Resign(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.Inherit()
		synctest.Wait()
		l := p.lease(t)
		if named := l.Labels[kube.LabelNode]; !b.Leading() || named != kube.NoNode {
			t.Errorf("leading %v, labels %v", b.Leading(), l.Labels)
		}
	})
	in("an agent that does not stand inherits nothing", func(t *testing.T, p *polls) {
		e := p.elector(t, "a", nil, nil)
		defer start(t, e)()
		e.Inherit()
		sleep(time.Minute)
		if p.requests.Load() != 0 {
			t.Error("it sent something")
		}
	})
	in("Stand(false) releases like Resign", func(t *testing.T, p *polls) {
		e := p.elector(t, "a", nil, nil)
		defer start(t, e)()
		e.Stand(true)
		synctest.Wait()
		e.Stand(false)
		synctest.Wait()
		if h := p.lease(t).Spec.HolderIdentity; e.Leading() || *h != "" {
			t.Errorf("leading %v, holder %q", e.Leading(), *h)
		}
	})
	in("Resign of one that does not lead returns at once", func(t *testing.T, p *polls) {
		e := p.elector(t, "a", nil, nil)
		defer start(t, e)()
		if err := e.Resign(t.Context()); err != nil || p.requests.Load() != 0 {
			t.Errorf("%v, %d requests", err, p.requests.Load())
		}
	})
	in("a leader that is cut off stops working before its lease has run out", func(t *testing.T, p *polls) {
		var cut atomic.Bool
		p.PrependReactor("*", "*", func(k8stesting.Action) (bool, runtime.Object, error) {
			if cut.Load() {
				return true, nil, context.DeadlineExceeded
			}
			return false, nil, nil
		})
		e := p.elector(t, "a", nil, nil)
		defer start(t, e)()
		e.Stand(true)
		sleep(time.Minute)
		cut.Store(true)
		sleep(14 * time.Second)
		if e.Leading() {
			t.Error("it still leads 14 s later")
		}
		cut.Store(false)
		sleep(time.Minute)
		if !e.Leading() {
			t.Error("it does not lead again though it still stands")
		}
	})
}

func TestLookInterval(t *testing.T) {
	for _, c := range []struct {
		standing string
		want     time.Duration
	}{
		{"", time.Minute},
		{"0", time.Minute},
		{"1", time.Minute},
		{"10", time.Minute},
		{"20", 2 * time.Minute},
		{"25", 150 * time.Second},
		{"50", 5 * time.Minute},
		{"5000", 5 * time.Minute},
		{"9000000000000000000", 5 * time.Minute},
		{"many", time.Minute},
		{"99999999999999999999999999", time.Minute},
		{"-1", time.Minute},
	} {
		t.Run(fmt.Sprintf("%q stand, each looks every %v", c.standing, c.want), func(t *testing.T) {
			e := newPolls().elector(t, "a", nil, nil)
			s := stateOf(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{standingKey: c.standing}}})
			s.Renewed = time.Now()
			if got := e.interval(s); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
	t.Run("a holder whose clock is ahead is looked at each minute", func(t *testing.T) {
		if got := newPolls().elector(t, "a", nil, nil).interval(State{standing: 1000, Renewed: time.Now().Add(time.Minute)}); got != time.Minute {
			t.Errorf("got %v", got)
		}
	})
}

func TestElectionLock(t *testing.T) {
	t.Run("it does not release a Lease that another has taken over", func(t *testing.T) {
		p := newPolls()
		p.holder(t, "z", 0)
		l := &election{
			leases: p.CoordinationV1().Leases("baton-system"), identity: "a", timeout: time.Second,
			asks: func() func(State) State { return func(s State) State { return s } }, lost: func() {},
		}
		if _, _, err := l.Get(t.Context()); err != nil {
			t.Fatal(err)
		}
		err := l.Update(t.Context(), resourcelock.LeaderElectionRecord{})
		if h := p.lease(t).Spec.HolderIdentity; err == nil || *h != "z" {
			t.Errorf("got %v, holder %q", err, *h)
		}
	})
	t.Run("pauses are read by presence", func(t *testing.T) {
		got := pauses(map[string]string{"kubebaton.io/pause": "", "kubebaton.io/pause.workers": "storm", "other": "x"})
		if v, ok := got[""]; !ok || v != "" || got["workers"] != "storm" || len(got) != 2 {
			t.Errorf("got %v", got)
		}
		for group, want := range map[string]string{"workers": "storm", "others": "", "": ""} {
			if why := Pause(map[string]string{"kubebaton.io/pause.workers": "storm", "other": "x"}, group); why != want {
				t.Errorf("group %q is paused for %q, want %q", group, why, want)
			}
			if Pause(map[string]string{"kubebaton.io/pause": ""}, group) == "" || Pause(map[string]string{"kubebaton.io/pause." + group: ""}, group) == "" {
				t.Errorf("group %q: a pause without a reason is none", group)
			}
		}
	})
}

// sleep lets the bubble's clock run.
func sleep(d time.Duration) { <-time.After(d) }
