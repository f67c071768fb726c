package host_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kubebaton.io/baton/host"
)

func TestNew(t *testing.T) {
	t.Run("takes the zero configuration", func(t *testing.T) {
		if _, err := host.New(host.Config{}); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("names every fault at once", func(t *testing.T) {
		_, err := host.New(host.Config{
			Root: "host", BusAddress: "/run/dbus", Reread: -time.Second, CallTimeout: -time.Second, LockDir: "run",
			Files: []string{"/run/a", "run/b", "/var/run/a", "/", "/run/c\n"},
		})
		if err == nil {
			t.Fatal("New took it")
		}
		for _, want := range []string{
			`root "host"`, `bus address "/run/dbus"`, "re-read interval -1s", "call timeout -1s", `lock directory "run"`,
			`file "run/b"`, `file "/var/run/a" is named twice`, `file "/" is not`, `file "/run/c\n" is not`,
		} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("error does not say %q:\n%v", want, err)
			}
		}
	})
}

func TestBootID(t *testing.T) {
	const id = "0b2e7d3a-8a1c-4f5e-9d67-3c1f0a9be812"
	for _, c := range []struct{ name, content, want string }{
		{"is read", id + "\n", id},
		{"empty is refused", "", ""},
		{"zero is refused", "00000000-0000-0000-0000-000000000000\n", ""},
		{"machine ID is refused", strings.ReplaceAll(id, "-", ""), ""},
		{"something else is refused", "hello", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			mkdir(t, filepath.Join(root, "proc/sys/kernel/random"))
			write(t, filepath.Join(root, "proc/sys/kernel/random/boot_id"), c.content)
			got, err := newHost(t, host.Config{Root: root}).BootID()
			if got != c.want || (err == nil) != (c.want != "") {
				t.Errorf("BootID: %q, %v, want %q", got, err, c.want)
			}
		})
	}

	t.Run("a missing file is an error", func(t *testing.T) {
		if got, err := newHost(t, host.Config{Root: t.TempDir()}).BootID(); got != "" || err == nil {
			t.Errorf("BootID: %q, %v, want an error", got, err)
		}
	})

	t.Run("this machine has one", func(t *testing.T) {
		if got, err := newHost(t, host.Config{}).BootID(); err != nil {
			t.Errorf("BootID: %q, %v", got, err)
		}
	})
}

func TestLock(t *testing.T) {
	root := t.TempDir()
	mkdir(t, filepath.Join(root, "run"))
	first, second := newHost(t, host.Config{Root: root}), newHost(t, host.Config{Root: root})
	release, err := first.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.Lock(); !errors.Is(err, host.ErrLocked) {
		t.Errorf("second Lock: %v, want ErrLocked", err)
	}
	release()
	release() // once more does nothing, above all not to a file that took the descriptor's number
	release, err = second.Lock()
	if err != nil {
		t.Errorf("Lock after release: %v", err)
	} else {
		release()
	}

	if _, err := newHost(t, host.Config{Root: root, LockDir: "/none"}).Lock(); err == nil || errors.Is(err, host.ErrLocked) {
		t.Errorf("Lock of a missing directory: %v, want another error than ErrLocked", err)
	}
	write(t, filepath.Join(root, "file"), "")
	if _, err := newHost(t, host.Config{Root: root, LockDir: "/file"}).Lock(); err == nil {
		t.Error("Lock took a file for a directory")
	}
}
