package observe

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"kubebaton.io/baton/lab/audit"
	"kubebaton.io/baton/lab/cluster"
)

// AgentUser is the service account of the agents.
const AgentUser = "system:serviceaccount:" + Namespace + ":baton-agent"

// Memory of a process, in bytes.
type Memory struct {
	RSS  int64 `json:"rss"`  // VmRSS: what is resident, the sum of the next two
	Anon int64 `json:"anon"` // RssAnon: its own
	File int64 `json:"file"` // RssFile: of the binary and other files; shared with the page cache
}

// AgentMemory is that of the agent's process on a node, read inside the node.
func AgentMemory(ctx context.Context, c *cluster.Cluster, node string) (Memory, error) {
	const script = `for p in $(grep -lx baton-agent /proc/[0-9]*/comm); do cat ${p%comm}status; done`
	out, err := c.Exec(ctx, node, "sh", "-c", script)
	if err != nil {
		return Memory{}, fmt.Errorf("reading the agent's memory on node %q: %w", node, err)
	}
	m, err := parseMemory(out)
	if err != nil {
		return m, fmt.Errorf("reading the agent's memory on node %q: %w", node, err)
	}
	return m, nil
}

func parseMemory(status string) (Memory, error) {
	var m Memory
	found := 0
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		to := map[string]*int64{"VmRSS": &m.RSS, "RssAnon": &m.Anon, "RssFile": &m.File}[key]
		if to == nil {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return m, fmt.Errorf("reading %q: %w", strings.TrimSpace(line), err)
		}
		*to = kib << 10
		found++
	}
	if found != 3 {
		return m, fmt.Errorf("want one agent, there are %d", found/3)
	}
	return m, nil
}

// Agent is an agent's pod and its requests, counted by the API server.
type Agent struct {
	Node  string         `json:"node"`
	Pod   string         `json:"pod"`
	Total int            `json:"total"`
	Verbs map[string]int `json:"verbs"` // "get nodes", "create pods/eviction"
}

// Agents counts the agents' requests that the API server received from from on and before to, by pod.
func Agents(c *cluster.Cluster, from, to time.Time) (map[string]Agent, error) {
	counts, err := audit.CountFile(c.AuditLog(), from, to)
	if err != nil {
		return nil, err
	}
	agents := map[string]Agent{}
	for caller, requests := range counts {
		if caller.User != AgentUser {
			continue
		}
		a := Agent{Node: caller.Node, Pod: caller.Pod, Verbs: map[string]int{}}
		for r, n := range requests {
			what := r.Verb + " " + r.Resource
			if r.Subresource != "" {
				what += "/" + r.Subresource
			}
			a.Verbs[what] += n
			a.Total += n
		}
		agents[caller.Pod] = a
	}
	return agents, nil
}

// BothOff are the times at which more than limit machines were off at once, by the power supplies' own log, from from on.
// A machine that is off now and was never switched on again counts.
func BothOff(log []cluster.PowerEvent, from time.Time, limit int) []string {
	var found []string
	off := map[string]bool{}
	for _, e := range log {
		if e.On {
			delete(off, e.Node)
			continue
		}
		off[e.Node] = true
		if len(off) > limit && !e.Time.Before(from) {
			found = append(found, fmt.Sprintf("%s %d machines are off at once", e.Time.Format("15:04:05.000"), len(off)))
		}
	}
	return found
}
