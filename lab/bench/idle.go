package bench

import (
	"archive/tar"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kubebaton.io/baton/lab/audit"
	"kubebaton.io/baton/lab/observe"
	"kubebaton.io/baton/lab/report"
)

// Idle is what agents without anything to do asked of the API server.
type Idle struct {
	Seconds float64     `json:"seconds"`
	Agents  []IdleAgent `json:"agents"`
	Load    report.Load `json:"load"`
}

// IdleAgent is one of them.
type IdleAgent struct {
	observe.Agent

	Watches []string `json:"watches"` // that go on, with the time after which each is asked for anew
	PerHour float64  `json:"perHour"` // see perHour
}

// Sample is the memory of the agents at one moment.
type Sample struct {
	When string                    `json:"when"`
	By   map[string]observe.Memory `json:"byNode"`
	Load report.Load               `json:"load"`
}

// Size of what is shipped, in bytes.
type Size struct {
	Binary   int64 `json:"binary"`
	Stripped bool  `json:"stripped"`
	Image    int64 `json:"image"` // sum of its layers, uncompressed
}

// Moments at which memory is looked at.
const (
	beforeAll  = "before the rollouts"
	cycleEnds  = "as the last cycle ends" // of agents that run since the reboot in it, the last for some seconds only
	afterCycle = "after a cycle"
	whileIdle  = "idle"
)

func (b *bench) startMemory(ctx context.Context) error {
	b.say("Letting the agents come to rest for %v.", firstRest)
	return errors.Join(pause(ctx, firstRest), b.sample(ctx, beforeAll))
}

func (b *bench) cycleMemory(ctx context.Context) error {
	if err := b.sample(ctx, cycleEnds); err != nil {
		return err
	}
	return errors.Join(pause(ctx, firstRest), b.sample(ctx, afterCycle))
}

func (b *bench) sample(ctx context.Context, when string) error {
	load := report.LoadNow()
	s := Sample{When: when, By: map[string]observe.Memory{}, Load: report.Load{Least: load, Largest: load}}
	largest := int64(0)
	for _, n := range b.nodes {
		m, err := observe.AgentMemory(ctx, b.cluster, n)
		if err != nil {
			return err
		}
		s.By[n], largest = m, max(largest, m.RSS)
	}
	b.report.Memory = append(b.report.Memory, s)
	b.say("Memory %s: at most %s.", when, mib(largest))
	return nil
}

// idle comes last: nothing but time passes in it.
func (b *bench) idle(ctx context.Context) error {
	if err := pause(ctx, firstRest); err != nil {
		return err
	}
	before, err := b.agents(ctx)
	if err != nil {
		return err
	}
	load, from := report.WatchLoad(ctx), time.Now()
	b.say("Counting the requests of idle agents for %v.", b.Idle)
	for end := from.Add(b.Idle); time.Now().Before(end); {
		if err := pause(ctx, min(time.Minute, time.Until(end))); err != nil {
			return err
		}
		if err := b.sayRequests(from); err != nil {
			return err
		}
	}
	to := time.Now()
	after, err := b.agents(ctx)
	if err != nil {
		return err
	}
	if !maps.Equal(before, after) {
		return fmt.Errorf("an agent was started anew while it was to be idle: containers before %v, after %v", before, after)
	}
	if err := b.count(from, to, slices.Sorted(maps.Keys(after)), load()); err != nil {
		return err
	}
	return b.sample(ctx, whileIdle)
}

func (b *bench) sayRequests(from time.Time) error {
	now := time.Now()
	agents, err := observe.Agents(b.cluster, from, now)
	if err != nil {
		return err
	}
	said := "none"
	if len(agents) > 0 {
		said = ""
	}
	for _, pod := range slices.Sorted(maps.Keys(agents)) {
		said += fmt.Sprintf(" %s %d", agents[pod].Node, agents[pod].Total)
	}
	b.say("%.0f of %.0f minutes; requests so far: %s", now.Sub(from).Minutes(), b.Idle.Minutes(), strings.TrimSpace(said))
	return nil
}

// agents are the agents' pods, with node and running container.
func (b *bench) agents(ctx context.Context) (map[string]string, error) {
	pods, err := b.client.CoreV1().Pods(observe.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=agent"})
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, p := range pods.Items {
		for _, s := range p.Status.ContainerStatuses {
			found[p.Name] = p.Spec.NodeName + " " + s.ContainerID
		}
	}
	return found, enough("agents", len(found), nodeCount)
}

func (b *bench) count(from, to time.Time, pods []string, load report.Load) error {
	agents, err := observe.Agents(b.cluster, from, to)
	if err != nil {
		return err
	}
	watches, err := audit.Watching(b.cluster.AuditLog(), to)
	if err != nil {
		return err
	}
	idle := &Idle{Seconds: to.Sub(from).Seconds(), Load: load}
	for _, pod := range pods {
		a := IdleAgent{Agent: agents[pod]}
		a.Pod = pod
		var own []audit.Watch
		for _, w := range watches {
			if w.Caller.Pod == pod {
				own, a.Node = append(own, w), w.Caller.Node
				a.Watches = append(a.Watches, fmt.Sprintf("%s %v", w.Resource, w.Timeout))
			}
		}
		if len(own) == 0 {
			return fmt.Errorf("%s watches nothing: it is not idle but blind", pod)
		}
		a.PerHour = perHour(a.Agent, own, to.Sub(from))
		idle.Agents = append(idle.Agents, a)
	}
	b.report.Idle = idle
	return nil
}

// serverTimeout is after how long the API server ends a watch that does not say how long it wants: 30 to 60 minutes.
const serverTimeout = 30 * time.Minute

// perHour is what an agent will ask in an hour. A watch lasts longer than the time that is counted here, so the watches that go
// on are reckoned by their own time; or by what was seen, if that is more.
func perHour(a observe.Agent, watches []audit.Watch, counted time.Duration) float64 {
	seen := 0
	for what, n := range a.Verbs {
		if strings.HasPrefix(what, "watch ") {
			seen += n
		}
	}
	renewed := 0.0
	for _, w := range watches {
		timeout := w.Timeout
		if timeout == 0 {
			timeout = serverTimeout
		}
		renewed += time.Hour.Hours() / timeout.Hours()
	}
	return float64(a.Total-seen)/counted.Hours() + max(float64(seen)/counted.Hours(), renewed)
}

func (b *bench) sizes(context.Context) error {
	info, err := os.Stat(b.Binary)
	if err != nil {
		return err
	}
	program, err := elf.Open(b.Binary)
	if err != nil {
		return fmt.Errorf("reading %s: %w", b.Binary, err)
	}
	defer func() { _ = program.Close() }()
	s := &Size{Binary: info.Size(), Stripped: program.Section(".symtab") == nil && program.Section(".debug_info") == nil}
	if s.Image, err = imageSize(b.Image); err != nil {
		return fmt.Errorf("reading %s: %w", b.Image, err)
	}
	b.report.Size = s
	return nil
}

// imageSize is the sum of the layers of a docker-archive.
func imageSize(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	sum := int64(0)
	for archive := tar.NewReader(f); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return sum, nil
		}
		if err != nil {
			return 0, err
		}
		if strings.HasSuffix(h.Name, ".tar") {
			sum += h.Size
		}
	}
}
