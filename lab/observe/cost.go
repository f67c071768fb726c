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

// Memory of a process, in bytes. A page that a program unmaps leaves its RSS but not the machine's memory: what the kernel
// charges to the control group is said beside it. That is with the page cache of files that the group was the first to read,
// so without most of the program, which containerd wrote.
type Memory struct {
	RSS     int64 `json:"rss"`     // VmRSS: what is resident, the sum of the next two
	Anon    int64 `json:"anon"`    // RssAnon: its own
	File    int64 `json:"file"`    // RssFile: of the binary and other files; shared with the page cache
	Peak    int64 `json:"peak"`    // VmHWM: the largest RSS since the process started
	Group   int64 `json:"group"`   // memory.current, or usage_in_bytes, of its container's control group; 0: cannot be read
	Working int64 `json:"working"` // Group without inactive_file: what `kubectl top` says
}

// AgentMemory is that of the agent's process on a node, read inside the node.
func AgentMemory(ctx context.Context, c *cluster.Cluster, node string) (Memory, error) {
	const script = `for p in $(grep -lx baton-agent /proc/[0-9]*/comm); do
	p=${p%/comm}
	cat $p/status
	group=$(sed -n 's/^[0-9]*:memory://p' $p/cgroup)
	if [ -n "$group" ]; then group=/sys/fs/cgroup/memory$group; else group=/sys/fs/cgroup$(sed -n 's/^0:://p' $p/cgroup); fi
	cat $group/memory.usage_in_bytes $group/memory.current 2>/dev/null | sed 's/^/Group: /'
	sed -n 's/^inactive_file /Inactive: /p' $group/memory.stat 2>/dev/null
done; true`
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
	var inactive int64
	to := map[string]*int64{"VmRSS": &m.RSS, "RssAnon": &m.Anon, "RssFile": &m.File, "VmHWM": &m.Peak, "Group": &m.Group, "Inactive": &inactive}
	found := 0
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		if to[key] == nil {
			continue
		}
		value, kib := strings.CutSuffix(strings.TrimSpace(value), " kB")
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return m, fmt.Errorf("reading %q: %w", strings.TrimSpace(line), err)
		}
		if kib {
			n <<= 10
		}
		*to[key] = n
		if key == "VmRSS" {
			found++
		}
	}
	if found != 1 || m.Anon+m.File == 0 {
		return m, fmt.Errorf("want one agent, there are %d", found)
	}
	m.Working = max(0, m.Group-inactive)
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
