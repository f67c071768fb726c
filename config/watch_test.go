package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// state is one call of a watch's callback.
type state struct {
	c   *Config
	err error
}

const never = time.Hour // a re-read that does not come: inotify has to tell

func startWatch(t *testing.T, dir string, reread time.Duration) <-chan state {
	t.Helper()
	states := make(chan state, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		watch(ctx, dir, "config.yaml", reread, func(c *Config, err error) { states <- state{c, err} })
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return states
}

func next(t *testing.T, states <-chan state) state {
	t.Helper()
	select {
	case s := <-states:
		if (s.c == nil) == (s.err == nil) {
			t.Fatalf("passed %v, %v: want one of them", s.c, s.err)
		}
		return s
	case <-time.After(10 * time.Second):
		t.Fatal("nothing passed within 10 s")
		return state{}
	}
}

func wantFailed(t *testing.T, states <-chan state, maxFailed int) {
	t.Helper()
	if s := next(t, states); s.err != nil || s.c.MaxFailed != maxFailed {
		t.Fatalf("passed %+v, want maxFailed %d", s, maxFailed)
	}
}

func wantFaults(t *testing.T, states <-chan state) {
	t.Helper()
	var faults Faults
	if s := next(t, states); !errors.As(s.err, &faults) {
		t.Fatalf("passed %+v, want faults", s)
	}
}

func wantMissing(t *testing.T, states <-chan state) {
	t.Helper()
	if s := next(t, states); !errors.Is(s.err, fs.ErrNotExist) {
		t.Fatalf("passed %+v, want a missing file", s)
	}
}

func wantQuiet(t *testing.T, states <-chan state) {
	t.Helper()
	select {
	case s := <-states:
		t.Fatalf("passed %+v, want nothing", s)
	case <-time.After(4 * settle):
	}
}

func content(maxFailed int) string { return fmt.Sprintf("%smaxFailed: %d\n", header, maxFailed) }

// mounted is a ConfigMap's directory as kubelet keeps it: the files are symlinks into
// ..data, itself a symlink to a directory named by time; an update makes a new directory,
// renames a new symlink over ..data and removes the old directory.
type mounted struct {
	dir      string
	versions int
	current  string
}

func (m *mounted) update(t *testing.T, files map[string]string) {
	t.Helper()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	m.versions++
	version := fmt.Sprintf("..2026_01_02_03_04_%02d.1234", m.versions)
	ok(os.Mkdir(filepath.Join(m.dir, version), 0o750))
	for name, data := range files {
		write(t, filepath.Join(m.dir, version, name), data)
	}
	ok(os.Symlink(version, filepath.Join(m.dir, "..data_tmp")))
	ok(os.Rename(filepath.Join(m.dir, "..data_tmp"), filepath.Join(m.dir, "..data")))
	for name := range files {
		err := os.Symlink(filepath.Join("..data", name), filepath.Join(m.dir, name))
		if !errors.Is(err, fs.ErrExist) {
			ok(err)
		}
	}
	if m.current != "" {
		ok(os.RemoveAll(filepath.Join(m.dir, m.current)))
	}
	m.current = version
}

func TestWatchFollowsAMountedConfigMap(t *testing.T) {
	m := mounted{dir: t.TempDir()}
	m.update(t, map[string]string{"config.yaml": content(1)})
	states := startWatch(t, m.dir, never)
	wantFailed(t, states, 1)

	m.update(t, map[string]string{"config.yaml": content(2)})
	wantFailed(t, states, 2)

	m.update(t, map[string]string{"config.yaml": content(2), "other": "x"}) // another key
	wantQuiet(t, states)

	m.update(t, map[string]string{"config.yaml": content(-1)})
	wantFaults(t, states)
	m.update(t, map[string]string{"config.yaml": content(-1), "other": "y"})
	wantQuiet(t, states)
	m.update(t, map[string]string{"config.yaml": content(-2)})
	wantFaults(t, states)

	m.update(t, map[string]string{"config.yaml": content(3)})
	wantFailed(t, states, 3)

	m.update(t, map[string]string{"other": "z"}) // the key is gone, its symlink dangles
	wantMissing(t, states)
	m.update(t, map[string]string{"config.yaml": content(3)})
	wantFailed(t, states, 3)
}

func TestWatchFollowsAPlainFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	states := startWatch(t, dir, never)
	wantMissing(t, states)
	write(t, path, content(1))
	wantFailed(t, states, 1)
	write(t, path, content(1))
	wantQuiet(t, states)
	write(t, path, content(2))
	wantFailed(t, states, 2)

	write(t, path+".new", content(3))
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	wantFailed(t, states, 3)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	wantMissing(t, states)
}

func TestWatchReadsAgainWithoutInotify(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "mounted")
	states := startWatch(t, dir, 50*time.Millisecond) // no directory, so nothing to watch
	wantMissing(t, states)
	wantQuiet(t, states)
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "config.yaml"), content(1))
	for {
		if s := next(t, states); s.err == nil && s.c.MaxFailed == 1 {
			break // the read may have met the file half written
		}
	}
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	wantMissing(t, states)
}

// A watch of a directory that was replaced sees changes in the new one.
func TestWatchFindsItsDirectoryAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "mounted")
	m := mounted{dir: dir}
	mount := func(maxFailed int) {
		if err := os.Mkdir(dir, 0o750); err != nil {
			t.Fatal(err)
		}
		m.current = ""
		m.update(t, map[string]string{"config.yaml": content(maxFailed)})
	}
	mount(1)
	states := startWatch(t, dir, 200*time.Millisecond)
	wantFailed(t, states, 1)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	wantMissing(t, states)
	mount(2)
	for s := next(t, states); s.err != nil; s = next(t, states) {
		if !strings.Contains(s.err.Error(), "config.yaml") {
			t.Errorf("%v does not name the file", s.err)
		}
	}
	m.update(t, map[string]string{"config.yaml": content(3)})
	wantFailed(t, states, 3)
}
