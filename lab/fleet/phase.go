package fleet

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"k8s.io/client-go/kubernetes"

	"kubebaton.io/baton/lab/audit"
)

// Load is what a process has used in a phase: processors, as a mean, and memory at its end.
type Load struct {
	Cores float64 `json:"cores"`
	RSS   int64   `json:"rss"`
	Peak  int64   `json:"peak"` // since its start
}

// Phase is a part of the run.
type Phase struct {
	From     time.Time `json:"from"`
	Seconds  float64   `json:"seconds"`
	API      Load      `json:"apiServer"`
	Etcd     Load      `json:"etcd"`
	Marshal  Load      `json:"marshal,omitzero"` // the one that is a process
	Fleet    Load      `json:"fleet"`            // this process: agents, kubelets, judge
	Kubelets int64     `json:"kubelets"`         // their requests
	Agents   Requests  `json:"agents"`           // theirs
	Orders   Requests  `json:"marshalRequests"`  // of the marshal that is a process
}

// Requests by verb and resource, and by the answer where that was a refusal.
type Requests struct {
	Total     int            `json:"total"`
	By        map[string]int `json:"by"`
	Conflicts int            `json:"conflicts"` // 409
	Throttled int            `json:"throttled"` // 429 to anything but an eviction
	Refused   map[string]int `json:"refused,omitempty"`
}

func (f *fleet) phase(work func()) Phase {
	p := Phase{From: time.Now(), Kubelets: -f.kubelets.asked.Load()}
	processes := map[int]*Load{f.server.api: &p.API, f.server.etcd: &p.Etcd, os.Getpid(): &p.Fleet}
	if f.marshal != 0 {
		processes[f.marshal] = &p.Marshal
	}
	used := map[int]time.Duration{}
	for pid := range processes {
		used[pid] = cpu(pid)
	}
	work()
	p.Seconds = time.Since(p.From).Seconds()
	p.Kubelets += f.kubelets.asked.Load()
	for pid, l := range processes {
		l.Cores = (cpu(pid) - used[pid]).Seconds() / p.Seconds
		l.RSS, l.Peak = memory(pid)
	}
	return p
}

// count adds to each phase what the API server has logged of it.
func (f *fleet) count(ctx context.Context, r *Report) error {
	for _, p := range []*Phase{&r.Start, &r.Idle, &r.Rollout} {
		until := p.From.Add(time.Duration(p.Seconds * float64(time.Second)))
		counts, err := audit.CountFile(f.server.audit, p.From, until)
		if err != nil {
			return err
		}
		p.Agents, p.Orders = split(counts)
	}
	watches, err := audit.Watching(f.server.audit, r.Idle.From.Add(time.Duration(r.Idle.Seconds*float64(time.Second))))
	if err != nil {
		return err
	}
	for _, w := range watches {
		if w.Timeout > 0 {
			r.IdlePerHour += time.Hour.Seconds() / w.Timeout.Seconds() / float64(len(f.awake()))
		}
	}
	r.Watches = len(watches)
	r.Rejected, err = f.server.metric(ctx, f.kubelets.client(0).(*kubernetes.Clientset).RESTClient(), "apiserver_flowcontrol_rejected_requests_total")
	return err
}

// split tells the requests of the marshal that is a process from those of all other agents.
func split(counts audit.Counts) (agents, marshal Requests) {
	agents, marshal = Requests{By: map[string]int{}, Refused: map[string]int{}}, Requests{By: map[string]int{}, Refused: map[string]int{}}
	for caller, by := range counts {
		to := &agents
		if caller.Node == marshalNode {
			to = &marshal
		}
		for r, n := range by {
			what := r.Verb + " " + r.Resource
			if r.Subresource != "" {
				what += "/" + r.Subresource
			}
			to.Total += n
			to.By[what] += n
			switch {
			case r.Code == 409:
				to.Conflicts += n
			case r.Code == 429 && r.Subresource != "eviction":
				to.Throttled += n
			}
			if r.Code >= 400 {
				to.Refused[fmt.Sprintf("%s: %d", what, r.Code)] += n
			}
		}
	}
	return agents, marshal
}

// conclude takes over what was seen in the rollout.
func (f *fleet) conclude(r *Report) {
	f.mu.Lock()
	var cycles []times
	for _, m := range f.all {
		m.mu.Lock()
		if m.boots > 0 {
			cycles = append(cycles, m.times)
		}
		if m.off && m.lost {
			r.Lost++
		}
		m.mu.Unlock()
	}
	f.mu.Unlock()
	r.Reboots = len(cycles)
	r.Floor = floor(cycles, r.Slots).Seconds()
	r.Efficiency = r.Floor / r.Rollout.Seconds
	r.Killed, r.Vacant, r.Left = f.killed.Load(), f.vacant.Load(), f.left.Load()
	j := f.judge
	j.mu.Lock()
	defer j.mu.Unlock()
	sorted := slices.Sorted(slices.Values(j.handOver))
	r.HandOver = HandOver{
		Count: len(sorted), P50: percentile(sorted, 50).Seconds(), P99: percentile(sorted, 99).Seconds(), Max: percentile(sorted, 100).Seconds(),
	}
	r.MostDown, r.Events, r.Faults = j.most, j.events, slices.Clone(j.faults)
	r.Heap = heap()
}

// busiest are the kinds of requests, the most frequent first.
func (q Requests) busiest() []string {
	return slices.SortedFunc(maps.Keys(q.By), func(a, b string) int {
		return cmp.Or(q.By[b]-q.By[a], cmp.Compare(a, b))
	})
}
