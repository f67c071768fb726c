package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long after an event the sentinels are read: a sentinel and its package list are written one after
	// the other, and a demand seen between the two would change its fingerprint at once.
	settle = 20 * time.Millisecond
	// blindReread replaces a longer re-read interval while inotify is not to be had.
	blindReread = 30 * time.Second
)

// Watch calls changed once when it watches, so that nothing that came before is missed, and then whenever what
// [Host.Sentinel] returns has changed. It runs until ctx ends and then returns nil; it needs no sentinel and no directory
// to exist, and goes on by re-reading alone where inotify fails.
func (h *Host) Watch(ctx context.Context, changed func()) error {
	w := &watch{host: h}
	for _, s := range h.sources {
		for _, p := range s.paths() {
			w.paths = append(w.paths, h.under(p))
		}
	}
	defer w.close()
	w.arm(ctx)
	last := h.look(ctx)
	changed()

	reread := time.NewTimer(w.interval())
	defer reread.Stop()
	var settled <-chan time.Time // nil: no event is pending
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev, ok := <-w.events():
			if !w.note(ev, ok) || settled != nil {
				continue
			}
			settled = time.After(settle)
			continue
		case err, ok := <-w.errors(): // an overflow of the queue lost events: look at everything, soon
			if ok {
				h.log.WarnContext(ctx, "watching sentinels", "err", err)
			}
			w.stale = true
			settled = time.After(settle)
			continue
		case <-settled:
		case <-reread.C:
			w.stale = true // a mount laid over a watched directory makes no event
		}
		settled = nil
		w.arm(ctx)
		reread.Reset(w.interval())
		if now := h.look(ctx); ctx.Err() == nil && !now.equal(last) {
			last = now
			changed()
		}
	}
}

// sight is what one look at the sentinels saw.
type sight struct {
	Sentinel
	fault string
}

func (h *Host) look(ctx context.Context) sight {
	s, err := h.Sentinel(ctx)
	if err != nil {
		return sight{fault: err.Error()}
	}
	return sight{Sentinel: s}
}

func (s sight) equal(o sight) bool {
	return s.fault == o.fault && s.Fingerprint == o.Fingerprint && s.Reason == o.Reason && s.Since.Equal(o.Since)
}

// watch holds the inotify instance. It watches directories, as a file may not exist or be replaced.
type watch struct {
	host  *Host
	paths []string
	fs    *fsnotify.Watcher // nil: re-reading only
	stale bool              // directories on the way have changed: begin anew
	blind bool              // not every directory could be watched
}

func (w *watch) events() <-chan fsnotify.Event {
	if w.fs == nil {
		return nil
	}
	return w.fs.Events
}

func (w *watch) errors() <-chan error {
	if w.fs == nil {
		return nil
	}
	return w.fs.Errors
}

func (w *watch) close() {
	if w.fs != nil {
		_ = w.fs.Close() // watches hold nothing that could be lost
		w.fs = nil
	}
}

func (w *watch) interval() time.Duration {
	if w.blind {
		return min(w.host.reread, blindReread)
	}
	return w.host.reread
}

// note reports whether an event may be about a watched path: about itself, or about a directory on the way to it.
func (w *watch) note(ev fsnotify.Event, ok bool) bool {
	switch {
	case !ok: // the watcher has ended
		w.stale = true
		return true
	case slices.Contains(w.paths, ev.Name):
		return true
	case ev.Op == fsnotify.Chmod || ev.Op == fsnotify.Write:
		return false
	case slices.ContainsFunc(w.paths, func(p string) bool { return strings.HasPrefix(p, strings.TrimSuffix(ev.Name, "/")+"/") }):
		w.stale = true
		return true
	default:
		return false
	}
}

// arm makes the watched directories those that the paths need now.
func (w *watch) arm(ctx context.Context) {
	if w.stale {
		w.close()
		w.stale = false
	}
	err := w.tryArm()
	if err != nil && !w.blind {
		w.host.log.WarnContext(ctx, "inotify does not work here, sentinels are only re-read",
			"interval", min(w.host.reread, blindReread), "err", err)
	}
	w.blind = err != nil
}

func (w *watch) tryArm() error {
	if w.fs == nil {
		fresh, err := fsnotify.NewWatcher()
		if err != nil {
			return err
		}
		w.fs = fresh
	}
	var faults []error
	for _, p := range w.paths {
		faults = append(faults, w.follow(filepath.Dir(p)))
	}
	return errors.Join(faults...)
}

// follow watches dir, as far as it exists, and every directory on the way to it from the root, as a directory is not told
// when one above it is moved away. What is made between the look and the watch would be missed, so it looks again until
// nothing has changed.
func (w *watch) follow(dir string) error {
	for {
		at := deepest(dir, w.host.root)
		var faults []error
		for d := at; ; d = filepath.Dir(d) {
			if err := w.fs.Add(d); err != nil {
				faults = append(faults, fmt.Errorf("watching %q: %w", d, err))
			}
			if d == w.host.root || d == "/" {
				break
			}
		}
		if deepest(dir, w.host.root) == at {
			return errors.Join(faults...)
		}
	}
}

func deepest(dir, root string) string {
	for dir != root && dir != "/" {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	return dir
}
