package evidence

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kubebaton.io/baton/lab/audit"
	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/observe"
)

// Case is something that went wrong.
type Case struct {
	Cluster  *cluster.Cluster
	Observer *observe.Observer
	From     time.Time // what was before does not matter
	Logs     *Logs     // of the agents
	Text     string    // what went wrong
}

const timeFormat = "15:04:05.000"

// Keep writes the case into a directory of its own, in place of what is there.
func (c Case) Keep(ctx context.Context, dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	faults := []error{c.Logs.Keep()}
	for name, write := range map[string]func(context.Context, io.Writer) error{
		"reason.txt": func(_ context.Context, out io.Writer) error {
			_, err := fmt.Fprintln(out, c.Text)
			return err
		},
		"order.txt":   c.writeOrder,
		"power.txt":   c.writePower,
		"events.txt":  c.writeEvents,
		"objects.txt": c.kubectl("get", "nodes,leases.coordination.k8s.io", "-n", observe.Namespace, "-o", "yaml"),
		"pods.txt":    c.kubectl("get", "pods,poddisruptionbudgets", "-A", "-o", "wide"),
	} {
		faults = append(faults, writeFile(ctx, filepath.Join(dir, name), write))
	}
	nodes, err := c.Logs.Nodes()
	faults = append(faults, err)
	for _, node := range nodes {
		faults = append(faults, writeFile(ctx, filepath.Join(dir, "agent-"+node+".log"), func(_ context.Context, out io.Writer) error {
			return c.writeLogs(node, out)
		}))
	}
	return errors.Join(faults...)
}

func writeFile(ctx context.Context, path string, write func(context.Context, io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := write(ctx, f); err != nil {
		fmt.Fprintf(f, "incomplete: %v\n", err)
	}
	return f.Close()
}

// writeOrder tells, in the order in which it took effect, how Nodes and slots changed.
func (c Case) writeOrder(_ context.Context, out io.Writer) error {
	last := map[string]string{}
	for _, e := range c.Observer.Log().After(c.From).Events {
		var who, what string
		if n := e.Node; n != nil {
			who = n.Name
			what = fmt.Sprintf("exists %t, phase %q, unschedulable %t, ready %t, hold %t, boot %s\n\t%s", n.Exists, n.Phase, n.Unschedulable, n.Ready, n.Hold, n.BootID, n.Record)
		} else {
			who = e.Slot.Name
			what = fmt.Sprintf("exists %t, holder %q, nominee %q, deleting %t", e.Slot.Exists, e.Slot.Holder, e.Slot.Nominee, e.Slot.Deleting)
		}
		if last[who] == what {
			continue
		}
		last[who] = what
		if _, err := fmt.Fprintf(out, "%s %d %s: %s\n", e.Time.UTC().Format(timeFormat), e.Revision, who, what); err != nil {
			return err
		}
	}
	return nil
}

func (c Case) writePower(_ context.Context, out io.Writer) error {
	log, err := c.Cluster.PowerLog()
	for _, e := range log {
		if !e.Time.Before(c.From) {
			fmt.Fprintf(out, "%s %s on %t exit %d\n", e.Time.UTC().Format(timeFormat), e.Node, e.On, e.Exit)
		}
	}
	evictions, auditErr := audit.Evictions(c.Cluster.AuditLog(), c.From, time.Time{})
	for _, e := range evictions {
		fmt.Fprintf(out, "%s %s asks to evict %s/%s: %d\n", e.Time.UTC().Format(timeFormat), e.Caller.Node, e.Namespace, e.Pod, e.Code)
	}
	return errors.Join(err, auditErr)
}

func (c Case) writeEvents(ctx context.Context, out io.Writer) error {
	list, err := c.Cluster.Client().EventsV1().Events("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var lines []string
	for _, e := range list.Items {
		at := e.EventTime.Time
		if at.IsZero() {
			at = e.CreationTimestamp.Time
		}
		if !at.Before(c.From.Truncate(time.Second)) {
			lines = append(lines, fmt.Sprintf("%s %s %s %s/%s: %s", at.UTC().Format(timeFormat), e.Type, e.Reason, e.Regarding.Kind, e.Regarding.Name, e.Note))
		}
	}
	slices.Sort(lines)
	for _, line := range lines {
		fmt.Fprintln(out, line)
	}
	return nil
}

func (c Case) kubectl(args ...string) func(context.Context, io.Writer) error {
	return func(ctx context.Context, out io.Writer) error {
		cmd := c.Cluster.Command(ctx, "kubectl", args...)
		cmd.Stdout, cmd.Stderr = out, out
		return cmd.Run()
	}
}

// writeLogs writes what the node's agents logged, in the order of time.
func (c Case) writeLogs(node string, out io.Writer) error {
	lines, err := c.Logs.Since(node, c.From)
	for _, line := range lines {
		fmt.Fprintln(out, line)
	}
	return err
}
