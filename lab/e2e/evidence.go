package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kubebaton.io/baton/lab/audit"
)

// keepEvidence writes what there is to see of a scenario that failed into a directory of its own.
func (w *world) keepEvidence(ctx context.Context, r Result) error {
	if err := os.RemoveAll(r.Files); err != nil {
		return err
	}
	if err := os.MkdirAll(r.Files, 0o755); err != nil {
		return err
	}
	var faults []error
	for name, write := range map[string]func(context.Context, io.Writer) error{
		"reason.txt": func(_ context.Context, out io.Writer) error {
			_, err := fmt.Fprintf(out, "%s\n%s\n", r.Name, r.Reason)
			return err
		},
		"order.txt":   w.writeOrder,
		"power.txt":   w.writePower,
		"events.txt":  w.writeEvents,
		"objects.txt": w.writeObjects,
		"pods.txt":    w.writePods,
	} {
		faults = append(faults, writeFile(ctx, filepath.Join(r.Files, name), write))
	}
	for _, node := range w.nodes {
		faults = append(faults, writeFile(ctx, filepath.Join(r.Files, "agent-"+node+".log"), func(ctx context.Context, out io.Writer) error {
			return w.writeLogs(ctx, node, out)
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
func (w *world) writeOrder(_ context.Context, out io.Writer) error {
	last := map[string]string{}
	for _, e := range w.obs.Log().After(w.began).Events {
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

func (w *world) writePower(_ context.Context, out io.Writer) error {
	log, err := w.c.PowerLog()
	for _, e := range log {
		if !e.Time.Before(w.began) {
			fmt.Fprintf(out, "%s %s on %t exit %d\n", e.Time.UTC().Format(timeFormat), e.Node, e.On, e.Exit)
		}
	}
	evictions, auditErr := audit.Evictions(w.c.AuditLog(), w.began, time.Time{})
	for _, e := range evictions {
		fmt.Fprintf(out, "%s %s asks to evict %s/%s: %d\n", e.Time.UTC().Format(timeFormat), e.Caller.Node, e.Namespace, e.Pod, e.Code)
	}
	return errors.Join(err, auditErr)
}

func (w *world) writeEvents(ctx context.Context, out io.Writer) error {
	list, err := w.client.EventsV1().Events("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, e := range list.Items {
		at := e.EventTime.Time
		if at.IsZero() {
			at = e.CreationTimestamp.Time
		}
		if !at.Before(w.began.Truncate(time.Second)) {
			fmt.Fprintf(out, "%s %s %s %s/%s: %s\n", at.UTC().Format(timeFormat), e.Type, e.Reason, e.Regarding.Kind, e.Regarding.Name, e.Note)
		}
	}
	return nil
}

// writeObjects prints Nodes and Leases in full.
func (w *world) writeObjects(ctx context.Context, out io.Writer) error {
	cmd := w.c.Command(ctx, "kubectl", "get", "nodes,leases.coordination.k8s.io", "-n", batonSpace, "-o", "yaml")
	cmd.Stdout, cmd.Stderr = out, out
	return cmd.Run()
}

func (w *world) writePods(ctx context.Context, out io.Writer) error {
	cmd := w.c.Command(ctx, "kubectl", "get", "pods,poddisruptionbudgets", "-A", "-o", "wide")
	cmd.Stdout, cmd.Stderr = out, out
	return cmd.Run()
}

// writeLogs collects what the node's agents logged since the scenario began, those that were killed or went with their node
// included: from the node's disk, and where that is not to be had, from the API.
func (w *world) writeLogs(ctx context.Context, node string, out io.Writer) error {
	dir, err := w.c.File(node, "/var/log/pods")
	if err != nil {
		return errors.Join(err, w.writeAPILogs(ctx, node, out))
	}
	files, err := filepath.Glob(filepath.Join(dir, batonSpace+"_*", "agent", "*.log"))
	if err != nil {
		return err
	}
	var lines []string
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		scan := bufio.NewScanner(f)
		scan.Buffer(nil, 1<<20)
		for scan.Scan() {
			stamp, _, _ := strings.Cut(scan.Text(), " ")
			if at, err := time.Parse(time.RFC3339Nano, stamp); err == nil && !at.Before(w.began) {
				lines = append(lines, scan.Text())
			}
		}
		if err := errors.Join(scan.Err(), f.Close()); err != nil {
			return err
		}
	}
	slices.Sort(lines)
	_, err = fmt.Fprintln(out, strings.Join(lines, "\n"))
	return err
}

func (w *world) writeAPILogs(ctx context.Context, node string, out io.Writer) error {
	pods := w.client.CoreV1().Pods(batonSpace)
	list, err := pods.List(ctx, metav1.ListOptions{LabelSelector: agentLabel, FieldSelector: "spec.nodeName=" + node})
	if err != nil {
		return err
	}
	since := metav1.NewTime(w.began.Truncate(time.Second))
	var faults []error
	for _, p := range list.Items {
		for _, previous := range []bool{true, false} {
			text, err := pods.GetLogs(p.Name, &corev1.PodLogOptions{Container: "agent", Previous: previous, SinceTime: &since}).DoRaw(ctx)
			faults = append(faults, err)
			fmt.Fprintf(out, "%s previous %t\n%s\n", p.Name, previous, text)
		}
	}
	return errors.Join(faults...)
}
