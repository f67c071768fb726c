package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kubebaton.io/baton/internal/badline"
	"kubebaton.io/baton/kube"
)

// TestTraffic drives a whole agent over lines and API servers that misbehave, and looks at what it sends.
func TestTraffic(t *testing.T) {
	t.Parallel()
	for name, trace := range map[string]func(*testing.T){
		"a start is two watches, that of the slots first":                                      twoWatches,
		"a connection that died without a word is given up within 10 s, and nothing is missed": deadConnection,
		"after a black hole the agent goes on":                                                 blackHole,
		"a watch that is cut begins anew, and nothing is missed":                               cutWatch,
		"Retry-After is honoured by writes, reads, watches and evictions":                      retryAfter,
		"a write that fails is tried again after growing delays":                               failingWrites,
		"a watch that fails is tried again after growing delays":                               failingWatch,
		"each process watches its Node once, also the one that drains it":                      fewWatches,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			trace(t)
		})
	}
}

// fewWatches looks at a reboot that nothing disturbs. For the volumes of the node that it drains, an agent goes by the watch that it has, and
// for its pods by that of the preflight.
func fewWatches(t *testing.T) {
	s := newSite(t, "few", 1, 1)
	m := s.hosts[0]
	s.pod(m.name, "web")
	m.sentinel()
	drains := m.start()
	s.accepted(m)
	s.once(s.end(), m)
	ofPods := func(r *badline.Request) bool { return r.Watch && r.Path == "/api/v1/pods" }
	for _, tc := range []struct {
		what    string
		process *process
		pods    int
	}{{"the one that drains", drains, 1}, {"the one that comes home", m.agents[0], 0}} { // where no pod was ready before
		own, pods := len(sent(tc.process.line, ownNode, time.Time{})), len(sent(tc.process.line, ofPods, time.Time{}))
		if own != 1 || pods != tc.pods {
			t.Errorf("%s opens %d watches of its Node and %d of its pods", tc.what, own, pods)
		}
	}
	evictions := sent(drains.line, func(r *badline.Request) bool { return kindOf(r) == "an eviction" }, time.Time{})
	if len(evictions) == 0 {
		t.Fatal("nothing was evicted")
	}
	lists := func(r *badline.Request) bool { return !r.Watch && r.Path == "/api/v1/pods" }
	if n := len(sent(drains.line, lists, evictions[0].At)); n > 0 {
		t.Errorf("it lists its pods %d times although its watch shows that those it has evicted have ended", n)
	}
}

// silence is for how long an agent that has nothing to do says nothing, before a test believes that.
const silence = time.Second

// idle makes a site of one node whose agent has nothing to do: it watches, and knows what is to be known.
func idle(t *testing.T, name string) (*site, *machine, *badline.Line) {
	t.Helper()
	s := newSite(t, name, 1, 1)
	p := s.hosts[0].start()
	s.until("the agent has nothing to do", func() bool {
		rs := p.line.Requests()
		return strings.Contains(p.says(), "no reboot is wanted") && slices.ContainsFunc(rs, ownNode) && slices.ContainsFunc(rs, ownSlots) &&
			time.Since(rs[len(rs)-1].At) > silence
	})
	return s, s.hosts[0], p.line
}

// sent returns the requests that match, from a time on.
func sent(l *badline.Line, match func(*badline.Request) bool, from time.Time) (out []*badline.Request) {
	for _, r := range l.Requests() {
		if match(r) && !r.At.Before(from) {
			out = append(out, r)
		}
	}
	return out
}

// ownNode is an agent's watch of its Node, ownSlots that of its slots.
func ownNode(r *badline.Request) bool {
	return r.Watch && strings.HasPrefix(r.Query.Get("fieldSelector"), "metadata.name=") && r.Path == "/api/v1/nodes"
}

func ownSlots(r *badline.Request) bool {
	return r.Watch && strings.HasPrefix(r.Query.Get("labelSelector"), "kubebaton.io/node=")
}

func watches(r *badline.Request) bool { return ownNode(r) || ownSlots(r) }

// delays are the times between requests.
func delays(rs []*badline.Request) (out []time.Duration) {
	for i := 1; i < len(rs); i++ {
		out = append(out, rs[i].At.Sub(rs[i-1].At).Round(time.Millisecond))
	}
	return out
}

// request asks for a reboot by an annotation, which only the watch of the Node tells the agent.
func (s *site) request(m *machine) {
	s.Helper()
	s.annotate(m.name, "kubebaton.io/request", "test")
}

// twoWatches: what they bring first is as good as a read by quorum, and the Node is not to be older than the slots.
func twoWatches(t *testing.T) {
	_, _, line := idle(t, "start")
	rs := line.Requests()
	if len(rs) != 2 || !ownSlots(rs[0]) || !ownNode(rs[1]) {
		for _, r := range rs {
			t.Errorf("%s %s?%s", r.Method, r.Path, r.Query.Encode())
		}
	}
}

func deadConnection(t *testing.T) {
	s, m, line := idle(t, "dead")
	line.Sever()
	dead := time.Now()
	s.request(m)
	s.until("both watches are open again", func() bool { return len(sent(line, ownNode, dead)) > 0 && len(sent(line, ownSlots, dead)) > 0 })
	given := line.GivenUp()
	if len(given) == 0 {
		t.Fatal("the dead connection was not given up")
	}
	last := given[len(given)-1]
	again := sent(line, watches, dead)[0].At.Sub(last)
	t.Logf("the dead connection was given up after %s, and the next one in use %s after that", last.Sub(dead), again)
	if last.Sub(dead) > kube.DeadConnection+time.Second {
		t.Errorf("it was given up after %s", last.Sub(dead))
	}
	if again > 5*time.Second { // the delay before a watch is opened again, and a slow machine
		t.Errorf("a watch was open again %s after that", again)
	}
	s.accepted(m)
	s.once(s.end(), m)
}

func blackHole(t *testing.T) {
	s, m, line := idle(t, "hole")
	line.BlackHole()
	s.request(m)
	hole := time.Now()
	s.until("the connection was given up, and the next one cannot be made", func() bool { return time.Since(hole) > kube.DeadConnection+2*time.Second })
	line.Heal()
	healed := time.Now()
	s.until("it knows of the wish", func() bool { return s.record(m.name).Phase != "" })
	t.Logf("it acted %s after the black hole", time.Since(healed))
	s.accepted(m)
	s.once(s.end(), m)
}

func cutWatch(t *testing.T) {
	s, m, line := idle(t, "cut")
	line.Freeze(watches)
	s.request(m)
	frozen := time.Now()
	s.until("the Node has changed", func() bool { return s.judge.node(m.name).Annotations["kubebaton.io/request"] != "" })
	if says := m.agents[0].says(); !strings.Contains(says, "no reboot is wanted") {
		t.Errorf("with a frozen watch it says %q", says)
	}
	if n := line.Cut(watches); n != 2 {
		t.Errorf("%d watches were open", n)
	}
	cut := time.Now()
	s.until("the watches are open again", func() bool { return len(sent(line, ownNode, frozen)) > 0 && len(sent(line, ownSlots, frozen)) > 0 })
	line.Thaw()
	s.until("it knows of the wish", func() bool { return s.record(m.name).Phase != "" })
	t.Logf("a watch was open again %s after it was cut", sent(line, watches, frozen)[0].At.Sub(cut))
	s.accepted(m)
	s.once(s.end(), m)
}

// kindOf names a request for this test; "" is one that it does not look at.
func kindOf(r *badline.Request) string {
	switch {
	case r.Watch && r.Path == "/api/v1/nodes":
		return "a watch"
	case r.Method == http.MethodPatch:
		return "a write of the Node"
	case r.Method == http.MethodPut && strings.Contains(r.Path, "/leases/slot-"):
		return "a write of a slot"
	case r.Method == http.MethodGet && !r.Watch && strings.HasSuffix(r.Path, "/leases"):
		return "a read of a slot" // and of the brake
	case !strings.HasSuffix(r.Path, "/eviction"):
		return ""
	case r.Query.Get("dryRun") == metav1.DryRunAll:
		return "a trial of an eviction"
	}
	return "an eviction"
}

func retryAfter(t *testing.T) {
	const after = 2 * time.Second
	s := newSite(t, "busy", 1, 1)
	m := s.hosts[0]
	s.pod(m.name, "web")
	refused := map[string]time.Time{}
	var mu sync.Mutex
	m.wire = rule(func(r *badline.Request) badline.Fate {
		kind := kindOf(r)
		mu.Lock()
		defer mu.Unlock()
		at, again := refused[kind]
		switch {
		case kind == "":
			return badline.Pass()
		case !again:
			refused[kind] = time.Now()
			return badline.Answer(http.StatusTooManyRequests, after)
		case time.Since(at) < after:
			t.Errorf("%s was sent again %s after a 429 with Retry-After %s", kind, time.Since(at), after)
		}
		return badline.Pass()
	})
	m.sentinel()
	m.start()
	s.accepted(m)
	s.once(s.end(), m)
	mu.Lock()
	defer mu.Unlock()
	if len(refused) != 6 {
		t.Errorf("refused were only %v", refused)
	}
}

func failingWrites(t *testing.T) {
	s, m, line := idle(t, "failing")
	const failures = 6
	began, n := time.Now(), 0
	writes := func(r *badline.Request) bool { return r.Method == http.MethodPatch }
	line.Rule(func(r *badline.Request) badline.Fate {
		if writes(r) && n < failures {
			n++
			return badline.Answer(http.StatusInternalServerError, 0)
		}
		return badline.Pass()
	})
	m.sentinel()
	s.until("it was written", func() bool { return s.record(m.name).Phase != "" })
	s.grow(delays(sent(line, writes, began)[:failures+1]), 100*time.Millisecond<<(failures-1))
	s.accepted(m)
	s.once(s.end(), m)
}

func failingWatch(t *testing.T) {
	s, m, line := idle(t, "deaf")
	const failures = 4
	began, n := time.Now(), 0
	reads := func(r *badline.Request) bool { // a watch, and the list that is tried when a watch is refused
		return r.Path == "/api/v1/nodes" && strings.HasPrefix(r.Query.Get("fieldSelector"), "metadata.name=")
	}
	line.Rule(func(r *badline.Request) badline.Fate {
		if ownNode(r) {
			n++
		}
		if reads(r) && n <= failures {
			return badline.Answer(http.StatusInternalServerError, 0)
		}
		return badline.Pass()
	})
	line.Cut(ownNode)
	s.request(m)
	s.until("it has tried often enough", func() bool { return len(sent(line, ownNode, began)) > failures })
	s.grow(delays(sent(line, ownNode, began)[:failures+1]), 200*time.Millisecond<<(failures-1))
	s.accepted(m)
	s.once(s.end(), m)
}

// grow wants delays to have grown to what they must be at the end.
func (s *site) grow(ds []time.Duration, last time.Duration) {
	s.Helper()
	s.Logf("tried again after %s", fmt.Sprint(ds))
	if ds[len(ds)-1] < last {
		s.Errorf("the last delay is below %s: %s", last, ds)
	}
}

// awake waits until the judge sees everything again. The second host's Node is no longer on hold.
func (s *site) awake() {
	s.Helper()
	s.note("awake", nil)
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "awake"}}
	if _, err := s.api.CoordinationV1().Leases(s.name).Create(s.Context(), l, metav1.CreateOptions{}); err != nil {
		s.Fatal(err)
	}
	s.until("the judge is awake", func() bool {
		n := s.judge.node(s.hosts[1].name)
		return s.judge.slot("awake") != nil && n.Annotations["kubebaton.io/hold"] == ""
	})
}

// TestRestart takes the API server down under agents that reach it without a line between, and brings it up again on the
// same data: their watches resume from versions that the new one may not know. It runs when no other test does.
func TestRestart(t *testing.T) {
	t.Run("an API server that was restarted finds its agents where it left them", func(t *testing.T) {
		s := newSite(t, "restart", 2, 1)
		m, orders := s.hosts[0], s.hosts[1]
		s.annotate(orders.name, "kubebaton.io/hold", "it is to order")
		orders.sentinel()
		orders.run(server.Config)
		s.until("there is a marshal", func() bool { return s.judge.holder("marshal") == orders.name })
		m.lazy = true
		m.sentinel()
		m.run(server.Config)
		s.accepted(m)
		down := time.Now()
		server.Down()
		t.Logf("the API server was down after %s", time.Since(down))
		m.agents[0].stop()
		p := m.run(server.Config)
		s.until("an agent that has started meanwhile says what it waits for, and is alive", func() bool {
			code, _ := fetch(t, "http://"+p.address+"/healthz")
			return code == http.StatusOK && strings.Contains(p.says(), "connection refused")
		})
		up := time.Now()
		if err := server.Up(); err != nil {
			t.Fatal(err)
		}
		t.Logf("the API server was up again after %s", time.Since(up))
		up = time.Now()
		s.annotate(orders.name, "kubebaton.io/hold", "")
		s.awake()
		s.until("the watch of the other's Node goes on", func() bool { return s.record(orders.name).Bids })
		t.Logf("the watch of a Node went on %s after that", time.Since(up))
		s.until("the marshal goes on", func() bool { return orders.agents[0].waiting("slot", 1) })
		s.until("the holder's agent has read its Node", func() bool { return strings.Contains(p.says(), "logind is preparing for a shutdown") })
		if holder := s.judge.holder(s.slot(0)); holder != m.name {
			t.Errorf("the slot is held by %q", holder)
		}
		m.lazy = false
		s.accepted(orders)
		s.once(s.end(), m, orders)
	})
}
