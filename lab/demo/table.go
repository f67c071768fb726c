package demo

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"kubebaton.io/baton/lab/observe"
)

// row is a node in the table.
type row struct {
	node, phase, why, bootID string
	since                    time.Time
}

// rowOf reads the node and its record.
func rowOf(n observe.Node, at time.Time) row {
	var record struct {
		Since   time.Time
		Reasons []string
		Message string
	}
	r := row{node: n.Name, phase: cmp.Or(n.Phase, "idle"), bootID: n.BootID, since: at}
	if n.Record != "" && json.Unmarshal([]byte(n.Record), &record) == nil {
		r.since, r.why = record.Since, strings.Join(record.Reasons, ", ")
		if record.Message != "" {
			r.why = strings.TrimPrefix(r.why+": "+record.Message, ": ")
		}
	}
	return r
}

// watch shows the nodes until all are done: rebooted, back, schedulable and without a cycle. A Failed node ends it.
func (d *demo) watch(ctx context.Context, mark int, before map[string]observe.Node) error {
	rows := map[string]row{}
	for name, n := range before {
		rows[name] = rowOf(n, time.Now())
	}
	t := &table{demo: d, start: time.Now()}
	t.draw(rows)
	for {
		tick, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		e, err := d.observer.WaitAfter(tick, mark, "the nodes to be done", func(e observe.Event) bool { return e.Node != nil })
		cancel()
		if ctx.Err() != nil {
			return fmt.Errorf("watching the rollout: %w", context.Cause(ctx))
		}
		if err != nil {
			t.draw(rows) // nothing new: since grows
			continue
		}
		mark = e.Seq + 1
		old, fresh := rows[e.Node.Name], rowOf(*e.Node, e.Time)
		if fresh.phase == old.phase && fresh.phase == "idle" {
			fresh.since = old.since
		}
		rows[e.Node.Name] = fresh
		t.changed(old, fresh)
		t.draw(rows)
		if fresh.phase == observe.Failed {
			return errors.New(fresh.node + " failed: " + fresh.why)
		}
		if done(d.observer.Nodes(), before) {
			return nil
		}
	}
}

func done(nodes, before map[string]observe.Node) bool {
	for name, old := range before {
		n := nodes[name]
		if n.BootID == old.BootID || n.Phase != observe.Idle || n.Unschedulable || !n.Ready {
			return false
		}
	}
	return true
}

// table is drawn in place on a terminal; elsewhere every change is a line.
type table struct {
	*demo

	start time.Time
	drawn int // lines
}

const columns = "%-6s %-10s %8s  %-36s  %s"

func (t *table) changed(old, fresh row) {
	if t.Width > 0 || (old.phase == fresh.phase && old.why == fresh.why && old.bootID == fresh.bootID) {
		return
	}
	t.say("%-6s %-10s %s  %s", fresh.node, fresh.phase, fresh.bootID, fresh.why)
}

func (t *table) draw(rows map[string]row) {
	if t.Width == 0 {
		return
	}
	var b strings.Builder
	if t.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", t.drawn)
	}
	line := func(format string, args ...any) {
		fmt.Fprintf(&b, "\x1b[2K%s\n", shorten(fmt.Sprintf(format, args...), t.Width))
	}
	line("%6.1f s", time.Since(t.start).Seconds())
	line(columns, "NODE", "PHASE", "SINCE", "BOOT ID", "WHY")
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		r := rows[name]
		line(columns, r.node, r.phase, fmt.Sprintf("%.1f s", time.Since(r.since).Seconds()), r.bootID, r.why)
	}
	t.drawn = len(rows) + 2
	fmt.Fprint(t.Stdout, b.String())
}

// shorten cuts s to a line of n columns: one that wraps would not be drawn over.
func shorten(s string, n int) string {
	runes := []rune(s)
	if len(runes) <= n {
		return s
	}
	return string(runes[:n-1]) + "…"
}
