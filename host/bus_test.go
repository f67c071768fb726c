package host_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"kubebaton.io/baton/host"
	"kubebaton.io/baton/internal/bustest"
)

// startBus starts a bus of the test's own at the place where the host below a fresh root has its system bus.
func startBus(t *testing.T) (b *bustest.Bus, root string) {
	t.Helper()
	root = t.TempDir()
	return bustest.Start(t, root), root
}

func newHost(t *testing.T, c host.Config) *host.Host {
	t.Helper()
	h, err := host.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// noConnections waits until only the given connections are on the bus.
func noConnections(t *testing.T, conn *dbus.Conn, want int) {
	t.Helper()
	var names []string
	eventually(t, func() bool {
		names = nil
		if err := conn.BusObject().Call("org.freedesktop.DBus.ListNames", 0).Store(&names); err != nil {
			t.Fatal(err)
		}
		names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, ":") })
		return len(names) == want
	}, func() string { return fmt.Sprintf("%d connections are on the bus, want %d", len(names), want) })
}

func eventually(t *testing.T, ok func() bool, say func() string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatal(say())
		case <-tick.C:
		}
	}
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
