package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kubebaton.io/baton/lab/observe"
	"kubebaton.io/baton/lab/report"
)

const (
	annotationHold = "kubebaton.io/hold"
	annotationYard = "lab.kubebaton.io/yardstick"
	noticeTime     = time.Minute // by when a sentinel must have been noticed at the latest
)

// Detection is how long a node's wish took to be seen in the API.
type Detection struct {
	Raised  report.Spread `json:"raised"`       // from before the file was written to the record says Waiting
	Cleared report.Spread `json:"cleared"`      // from before the file was removed to no record
	Yard    report.Spread `json:"inotifyPATCH"` // the same way gone by this program: inotify, one PATCH of the Node, a watch shows it
	Load    report.Load   `json:"load"`
}

// detections raises and clears sentinels while people hold the nodes, so that no reboot follows.
func (b *bench) detections(ctx context.Context) (err error) {
	load := report.WatchLoad(ctx)
	for _, n := range b.nodes {
		if err := b.annotate(ctx, n, annotationHold, "bench"); err != nil {
			return err
		}
		if err := b.observer.Wait(ctx, n+" to be held", func(nodes map[string]observe.Node) bool { return nodes[n].Hold }); err != nil {
			return err
		}
	}
	defer func() { err = errors.Join(err, b.letGo(context.WithoutCancel(ctx))) }()
	var raised, cleared, yard []time.Duration
	for i := range b.Raises {
		for _, n := range b.nodes {
			r, c, y, err := b.detect(ctx, n)
			if err != nil {
				return fmt.Errorf("sentinel %d of node %q: %w", i+1, n, err)
			}
			raised, cleared, yard = append(raised, r), append(cleared, c), append(yard, y)
		}
		if (i+1)%10 == 0 {
			b.say("Sentinel raised and cleared %d of %d times on each node: noticed after %v in the median.", i+1, b.Raises, report.SpreadOf(raised).Median)
		}
	}
	b.report.Detection = &Detection{report.SpreadOf(raised), report.SpreadOf(cleared), report.SpreadOf(yard), load()}
	return nil
}

func (b *bench) letGo(ctx context.Context) error {
	var faults []error
	for _, n := range b.nodes {
		faults = append(faults, b.annotate(ctx, n, annotationHold, nil), b.annotate(ctx, n, annotationYard, nil))
	}
	return errors.Join(faults...)
}

// detect raises and clears a node's sentinel once, then does the same for the yardstick.
func (b *bench) detect(ctx context.Context, node string) (raised, cleared, yard time.Duration, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, noticeTime, fmt.Errorf("nothing happened for %v", noticeTime))
	defer cancel()
	run, err := b.cluster.File(node, "/run") // found before the clock runs
	if err != nil {
		return 0, 0, 0, err
	}
	required, packages := filepath.Join(run, "reboot-required"), filepath.Join(run, "reboot-required.pkgs")
	raised, err = b.noticed(ctx, node, observe.Waiting, func() error {
		return errors.Join(
			os.WriteFile(packages, []byte("linux-image-amd64\n"), 0o644),
			os.WriteFile(required, []byte("*** System restart required ***\n"), 0o644))
	})
	if err != nil {
		return 0, 0, 0, errors.Join(err, os.Remove(required))
	}
	if err := rest(ctx); err != nil {
		return 0, 0, 0, errors.Join(err, os.Remove(required))
	}
	cleared, err = b.noticed(ctx, node, observe.Idle, func() error { return errors.Join(os.Remove(required), os.Remove(packages)) })
	if err != nil {
		return 0, 0, 0, err
	}
	if err := rest(ctx); err != nil {
		return 0, 0, 0, err
	}
	yard, err = b.yardstick(ctx, node, run)
	return raised, cleared, yard, err
}

// rest lets the agent finish what it does besides (an Event), and keeps the rounds from falling into step with anything.
func rest(ctx context.Context) error {
	return pause(ctx, 100*time.Millisecond+rand.N(200*time.Millisecond))
}

// noticed is the time from before do to the arrival of the first version of the Node in that phase.
func (b *bench) noticed(ctx context.Context, node, phase string, do func() error) (time.Duration, error) {
	mark, start := b.observer.Mark(), time.Now()
	if err := do(); err != nil {
		return 0, err
	}
	e, err := b.observer.WaitAfter(ctx, mark, fmt.Sprintf("%s to be in phase %q", node, phase), observe.InPhase(node, phase))
	return e.Time.Sub(start), err
}

// yardstick writes a file in the node, is told so by inotify, writes the Node with one PATCH and sees that in the watch.
func (b *bench) yardstick(ctx context.Context, node, run string) (time.Duration, error) {
	dir := filepath.Join(run, "bench")
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return 0, err
	}
	told, err := inotify(dir)
	if err != nil {
		return 0, fmt.Errorf("watching %s: %w", dir, err)
	}
	defer told.Close()
	deadline, _ := ctx.Deadline()
	if err := told.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	mark, start := b.observer.Mark(), time.Now()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		return 0, err
	}
	if _, err := told.Read(make([]byte, 4096)); err != nil {
		return 0, fmt.Errorf("waiting for inotify: %w", err)
	}
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, annotationYard, start.Format(time.RFC3339Nano))
	n, err := b.client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return 0, err
	}
	version, err := strconv.ParseUint(n.ResourceVersion, 10, 64)
	if err != nil {
		return 0, err
	}
	e, err := b.observer.WaitAfter(ctx, mark, "the yardstick's PATCH of "+node, func(e observe.Event) bool {
		return e.Node != nil && e.Node.Name == node && e.Revision >= version
	})
	return e.Time.Sub(start), err
}

// inotify tells, by something to read, that a file in the directory was written.
func inotify(dir string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CLOSE_WRITE); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// annotate sets an annotation of a Node; nil removes it.
func (b *bench) annotate(ctx context.Context, node, key string, value any) error {
	text := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:null}}}`, key)
	if value != nil {
		text = fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, key, value)
	}
	_, err := b.client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, text, metav1.PatchOptions{})
	return err
}
