package config

import (
	"bytes"
	"context"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	rereadInterval = time.Minute            // for what inotify does not tell
	settle         = 100 * time.Millisecond // an editor writes in several steps
)

// Watch passes the state of the file in dir to changed: first as it is at the start, then
// whenever its content is another. A Config comes without an error; an error (content with
// faults, a file that is missing or cannot be read) comes without a Config, once until the
// content or the error changes. changed is called by one goroutine at a time. Watch returns
// when ctx ends.
//
// It watches the directory, not the file: kubelet updates a mounted ConfigMap by renaming
// the symlink ..data to a new directory, and an editor replaces a file likewise. Where
// inotify is not to be had (its instances are limited host-wide), and while the directory
// is missing, a look once a minute does.
func Watch(ctx context.Context, dir, file string, changed func(*Config, error)) {
	watch(ctx, dir, file, rereadInterval, changed)
}

func watch(ctx context.Context, dir, file string, reread time.Duration, changed func(*Config, error)) {
	seen := observer{path: filepath.Join(dir, file), changed: changed}
	var events chan fsnotify.Event // nil: never ready
	var errs chan error
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		defer watcher.Close()
		events, errs = watcher.Events, watcher.Errors
		_ = watcher.Add(dir) // tried again with every re-read
	}
	seen.look()
	tick := time.NewTicker(reread)
	defer tick.Stop()
	var settled <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-events:
			if settled == nil {
				settled = time.After(settle)
			}
		case <-errs: //nolint:errcheck // an overflow: something was missed, and is read again.
			settled = time.After(settle)
		case <-settled:
			settled = nil
			seen.look()
		case <-tick.C:
			if watcher != nil {
				_ = watcher.Add(dir)
			}
			seen.look()
		}
	}
}

// observer remembers what it passed on last.
type observer struct {
	path    string
	changed func(*Config, error)

	data    []byte
	failure string // of the last read, "" it succeeded
	looked  bool
}

func (o *observer) look() {
	data, err := read(o.path)
	failure := ""
	if err != nil {
		failure = err.Error()
	}
	if o.looked && failure == o.failure && bytes.Equal(data, o.data) {
		return
	}
	o.data, o.failure, o.looked = data, failure, true
	if err != nil {
		o.changed(nil, err)
		return
	}
	o.changed(parseNamed(o.path, data))
}
