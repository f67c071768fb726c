package fleet

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kubebaton.io/baton/internal/apitest"
	"kubebaton.io/baton/lab/audit"
)

func TestSpan(t *testing.T) {
	var s Span
	for _, text := range []string{"5s±2s", "5s+-2s"} {
		if err := s.Set(text); err != nil || s != (Span{5 * time.Second, 2 * time.Second}) || s.String() != "5s±2s" {
			t.Errorf("%q is read as %v, %v", text, s, err)
		}
	}
	if err := s.Set("20s"); err != nil || s != (Span{Mean: 20 * time.Second}) {
		t.Errorf("a duration without a spread is read as %v, %v", s, err)
	}
	for _, text := range []string{"", "5", "5s±x", "5s±6s", "5s±-1s"} {
		if err := s.Set(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestDrawn(t *testing.T) {
	drain, boot := Span{5 * time.Second, 2 * time.Second}, Span{20 * time.Second, 5 * time.Second}
	seen, lost := map[times]bool{}, 0
	for i := range 10_000 {
		d := drawn(1, i, drain, boot, 0.01)
		if d != drawn(1, i, drain, boot, 0.01) {
			t.Fatal("the same seed draws another time")
		}
		if d == drawn(2, i, drain, boot, 0.01) {
			t.Fatal("another seed draws the same time")
		}
		if d.drain < 3*time.Second || d.drain > 7*time.Second || d.boot < 15*time.Second || d.boot > 25*time.Second {
			t.Errorf("node %d: %v", i, d)
		}
		if d.lost {
			lost++
		}
		seen[d] = true
	}
	if len(seen) < 9_990 || lost < 50 || lost > 150 {
		t.Errorf("%d different times, %d lost of 10,000", len(seen), lost)
	}
}

func TestFloor(t *testing.T) {
	cycles := []times{{drain: time.Second, boot: 9 * time.Second}, {drain: 2 * time.Second, boot: 8 * time.Second}, {boot: time.Hour, lost: true}}
	if f := floor(cycles, 2); f != 10*time.Second {
		t.Errorf("the floor of two cycles of 10 s on 2 slots is %v", f)
	}
}

func TestLimit(t *testing.T) {
	for _, c := range []struct {
		of   string
		n, l int
	}{{"10%", 1000, 100}, {"10%", 1009, 100}, {"10%", 9, 1}, {"3", 1000, 3}} {
		if l, err := limit(c.of, c.n); err != nil || l != c.l {
			t.Errorf("%s of %d is %d, %v, want %d", c.of, c.n, l, err, c.l)
		}
	}
	for _, of := range []string{"", "0", "-1", "x%"} {
		if _, err := limit(of, 10); err == nil {
			t.Errorf("%q is a limit", of)
		}
	}
}

func TestPercentile(t *testing.T) {
	var values []time.Duration
	for i := range 100 {
		values = append(values, time.Duration(i+1))
	}
	for p, want := range map[float64]time.Duration{50: 50, 99: 99, 100: 100, 1: 1} {
		if got := percentile(values, p); got != want {
			t.Errorf("p%v is %d, want %d", p, got, want)
		}
	}
	if percentile(nil, 50) != 0 {
		t.Error("nothing has a percentile")
	}
}

func TestANodeHasTheSizeOfARealOne(t *testing.T) {
	for _, i := range []int{0, 4999} {
		if n := newNode(i, "node-00000", bootID()).Size(); n < nodeIsAtLeast {
			t.Errorf("node %d has %d bytes, want at least %d", i, n, nodeIsAtLeast)
		}
	}
}

func TestJudge(t *testing.T) {
	at := time.Unix(0, 0)
	node := func(name, boot string, cordoned, cycle bool) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		n.Status.NodeInfo.BootID, n.Spec.Unschedulable = boot, cordoned
		if cycle {
			n.Annotations = map[string]string{"kubebaton.io/reboot": "{}"}
		}
		return n
	}
	slot := func(holder string) *coordinationv1.Lease {
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "slot-workers-0"}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder}}
	}
	t.Run("two nodes down are one too many for a limit of one", func(t *testing.T) {
		j := newJudge(Options{Max: "1"})
		j.node(node("a", "1", true, true), at)
		j.node(node("b", "1", false, false), at)
		if len(j.faults) != 0 || j.most != 1 {
			t.Errorf("one is down: %v", j.faults)
		}
		j.node(node("b", "1", true, true), at)
		if len(j.faults) != 1 || j.most != 2 {
			t.Errorf("two are down: %v", j.faults)
		}
	})
	t.Run("nodes of two groups may be down together, each group within its limit", func(t *testing.T) {
		j := newJudge(Options{Max: "1", Churn: true})
		of := func(pool, name string) *corev1.Node {
			n := node(name, "1", true, true)
			n.Labels = map[string]string{poolLabel: pool}
			return n
		}
		j.node(of("edge", "a"), at)
		j.node(of("control", "b"), at)
		if len(j.faults) != 0 || j.most != 2 {
			t.Errorf("one of each is down: %v", j.faults)
		}
		j.node(of("control", "c"), at)
		if len(j.faults) != 1 {
			t.Errorf("two of one are down: %v", j.faults)
		}
	})
	t.Run("a host that is off is down, cordoned or not, until it is back", func(t *testing.T) {
		j := newJudge(Options{Max: "1"})
		j.node(node("a", "1", true, true), at)
		j.power("a", false)
		j.node(node("a", "1", false, true), at)
		if !j.down["a"] {
			t.Error("it is off and not down")
		}
		j.power("a", true)
		if j.down["a"] {
			t.Error("it is back and down")
		}
	})
	t.Run("a node that has left is not down", func(t *testing.T) {
		j := newJudge(Options{Max: "1"})
		j.node(node("a", "1", true, true), at)
		j.deleted("a")
		if len(j.down) != 0 {
			t.Errorf("down: %v", j.down)
		}
	})
	t.Run("a rollout ends when all nodes are back on another boot, without record and cordon", func(t *testing.T) {
		j := newJudge(Options{Max: "1"})
		j.expect("a")
		for _, n := range []*corev1.Node{node("a", "1", false, false), node("a", "2", true, true), node("a", "2", false, true)} {
			j.node(n, at)
			select {
			case <-j.all:
				t.Fatalf("it ends with %+v", j.nodes["a"])
			default:
			}
		}
		j.node(node("a", "2", false, false), at)
		<-j.all
	})
	t.Run("a hand-over is from the freed slot to the next cordon, whichever watch is first", func(t *testing.T) {
		for _, cordonFirst := range []bool{false, true} {
			j := newJudge(Options{Max: "1"})
			j.node(node("a", "1", false, true), at)
			j.slot(slot("z"), at)
			j.slot(slot(""), at.Add(time.Second))
			steps := []func(){func() { j.slot(slot("a"), at.Add(2*time.Second)) }, func() { j.node(node("a", "1", true, true), at.Add(3*time.Second)) }}
			if cordonFirst {
				slices.Reverse(steps)
			}
			for _, step := range steps {
				step()
			}
			if !slices.Equal(j.handOver, []time.Duration{2 * time.Second}) {
				t.Errorf("hand-overs %v, want 2 s", j.handOver)
			}
		}
	})
}

func TestSplit(t *testing.T) {
	agent, marshal := audit.Caller{Node: "node-00001"}, audit.Caller{Node: marshalNode}
	agents, orders := split(audit.Counts{
		agent: {
			{Verb: "create", Resource: "pods", Subresource: "eviction", Code: 429}: 2,
			{Verb: "patch", Resource: "nodes", Code: 409}:                          1,
			{Verb: "get", Resource: "nodes", Code: 429}:                            1,
			{Verb: "get", Resource: "nodes", Code: 200}:                            3,
		},
		marshal: {{Verb: "update", Resource: "leases", Code: 200}: 5},
	})
	if agents.Total != 7 || agents.Conflicts != 1 || agents.Throttled != 1 || agents.By["get nodes"] != 4 || agents.By["create pods/eviction"] != 2 {
		t.Errorf("agents: %+v", agents)
	}
	if orders.Total != 5 || orders.By["update leases"] != 5 {
		t.Errorf("marshal: %+v", orders)
	}
	if got := agents.busiest(); !slices.Equal(got, []string{"get nodes", "create pods/eviction", "patch nodes"}) {
		t.Errorf("busiest: %v", got)
	}
}

func TestProcesses(t *testing.T) {
	comm, fields, ok := parseStat("42 (a (b) c) S 7 42 42 0 -1 4194304 1 2 3 4 250 50 0 0 20 0 1 0 100 200 300\n")
	if !ok || comm != "a (b) c" || fields[1] != "7" || fields[11] != "250" || fields[12] != "50" {
		t.Errorf("read as %q, %v, %v", comm, fields, ok)
	}
	if rss, peak := memory(os.Getpid()); rss <= 0 || peak < rss {
		t.Errorf("this process has %d bytes, at most %d", rss, peak)
	}
	if s := sumOf([]byte("# TYPE a counter\na{x=\"1\"} 2\na{x=\"2\"} 3.5\nab 9\n"), "a"); s != 5.5 {
		t.Errorf("the sum is %v", s)
	}
}

func TestDraw(t *testing.T) {
	r := Report{Nodes: 100, Reboots: 100, Rollout: Phase{Seconds: 100, Agents: Requests{Total: 3000}, Marshal: Load{Peak: 50 << 20}}}
	more := r
	more.Nodes, more.Rollout.Agents.Total = 1000, 4000
	svg := draw(charts([]Report{r, more})...)
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{">30<", ">40<", ">100<", ">1000<", ">50<", "NaN"} {
		if got := strings.Contains(svg, want); got != (want != "NaN") {
			t.Errorf("%s is there: %v", want, got)
		}
	}
	for top, want := range map[float64]float64{50: 10, 49: 10, 51: 20, 0: 1, 3: 1, 0.8: 0.2} {
		if got := niceStep(top); got != want {
			t.Errorf("an axis to %v has steps of %v, want %v", top, got, want)
		}
	}
}

// Twenty nodes with real agents against a real API server, with short boots.
func TestASmallFleetIsRebootedWithinItsLimit(t *testing.T) {
	if os.Getenv(apitest.AssetsVar) == "" {
		t.Fatalf("%s is not set: run `make test`", apitest.AssetsVar)
	}
	var said bytes.Buffer
	r, err := run(t.Context(), Options{
		Nodes: 20, Max: "25%", Seed: 1, Pods: 2, Lease: 10 * time.Second, Idle: 100 * time.Millisecond, Timeout: 2 * time.Minute,
		Drain: Span{200 * time.Millisecond, 100 * time.Millisecond}, Boot: Span{500 * time.Millisecond, 200 * time.Millisecond},
		Deploy: filepath.Join("..", "..", "deploy", "base"), Stdout: &said,
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, &said)
	}
	r.judge()
	if r.Reboots != 20 || len(r.Faults) > 0 || r.MostDown < 2 || r.MostDown > 5 || r.HandOver.Count < 10 {
		t.Errorf("%d reboots, at most %d down, %d hand-overs, faults %v", r.Reboots, r.MostDown, r.HandOver.Count, r.Faults)
	}
	if n := r.Rollout.Agents.By["create pods/eviction"]; n < 40 {
		t.Errorf("%d evictions of 40 pods", n)
	}
	if n := r.Rollout.Agents.By["list nodes"] + r.Start.Agents.By["list nodes"]; n != 0 {
		t.Errorf("agents listed nodes %d times", n)
	}
	r.print(&said)
	t.Log(said.String())
}
