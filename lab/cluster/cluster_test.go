//go:build nodes

// These tests run a cluster of real nodes: as root, with `go test -tags nodes ./cluster`.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kubebaton.io/baton/lab/build"
)

const testName = "lab-test"

// TestHelperStart is not a test of its own: it is the program that gets killed.
func TestHelperStart(t *testing.T) {
	if os.Getenv("LAB_TEST_HELPER") == "" {
		return
	}
	if _, err := Start(t.Context(), Options{Name: testName, Nodes: 1}); err != nil {
		t.Fatal(err)
	}
	<-t.Context().Done()
}

func TestCluster(t *testing.T) {
	ctx := t.Context()
	t.Cleanup(func() {
		if err := Remove(context.Background(), testName, ""); err != nil {
			t.Error(err)
		}
		assertNothingLeft(t)
	})

	t.Run("a start that is killed at any point is cleaned up by the next one", func(t *testing.T) {
		for _, after := range []time.Duration{300 * time.Millisecond, 3 * time.Second, 7 * time.Second} {
			helper := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestHelperStart$")
			helper.Env = append(os.Environ(), "LAB_TEST_HELPER=1")
			if err := helper.Start(); err != nil {
				t.Fatal(err)
			}
			<-time.After(after)
			if err := helper.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = helper.Wait()
		}
	})

	c, err := Start(ctx, Options{Name: testName, Nodes: 2})
	if err != nil {
		t.Fatal(err)
	}

	t.Run("a second program may not take a cluster whose owner lives", func(t *testing.T) {
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		if _, err := Start(short, Options{Name: testName}); err == nil || !strings.Contains(err.Error(), "still runs") {
			t.Errorf("error %v does not say who holds it", err)
		}
	})

	t.Run("a reboot asked of logind is a new boot, and the power log tells it", func(t *testing.T) {
		old := bootID(ctx, t, c, "n1")
		if _, err := c.Exec(ctx, "n1", "busctl", "call", "org.freedesktop.login1", "/org/freedesktop/login1",
			"org.freedesktop.login1.Manager", "RebootWithFlags", "t", "0"); err != nil {
			t.Fatal(err)
		}
		waitBoot(ctx, t, c, "n1", old)
		log := powerOf(t, c, "n1")
		if diff := cmp.Diff([]string{"on", "off 133", "on"}, log); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("a cut is told apart from a reboot, and the node comes back", func(t *testing.T) {
		old := bootID(ctx, t, c, "n2")
		if err := c.Power(ctx, "n2", Cycle); err != nil {
			t.Fatal(err)
		}
		waitBoot(ctx, t, c, "n2", old)
		if diff := cmp.Diff([]string{"on", "off -1", "on"}, powerOf(t, c, "n2")); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("etcd and the API server go on where they were killed", func(t *testing.T) {
		get := func() *corev1.Node {
			n, err := c.Client().CoreV1().Nodes().Get(ctx, "n1", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		before := get()
		for _, u := range []Unit{Etcd, APIServer} {
			if err := c.Kill(ctx, u); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(c.Run(u), c.WaitAPI(ctx)); err != nil {
				t.Fatal(err)
			}
		}
		if after := get(); after.UID != before.UID {
			t.Errorf("UID %s, it was %s", after.UID, before.UID)
		}
	})

	t.Run("a program that is killed in a node is another one afterwards", func(t *testing.T) {
		before, err := c.Process("n1", "kubelet")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Signal("n1", "kubelet", unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		if err := until(short, "another kubelet", 50*time.Millisecond, func() (bool, error) {
			after, err := c.Process("n1", "kubelet")
			return err == nil && after != before, err
		}); err != nil {
			t.Error(err)
		}
	})

	t.Run("nodes come and go", func(t *testing.T) {
		node, err := c.AddNode(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.RemoveNode(ctx, node); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Nodes(); err != nil || len(got) != 2 {
			t.Errorf("nodes %v, error %v", got, err)
		}
	})

	t.Run("a sentinel is seen in the node", func(t *testing.T) {
		if err := c.RaiseSentinel("n1", "libc6"); err != nil {
			t.Fatal(err)
		}
		got, err := c.Exec(ctx, "n1", "cat", "/run/reboot-required.pkgs")
		if err != nil || got != "libc6\n" {
			t.Errorf("%q, error %v", got, err)
		}
	})

	t.Run("a node's certificate may not write another Node", func(t *testing.T) {
		const patch = `{"metadata":{"annotations":{"a":"b"}}}`
		try := func(node string) error {
			_, err := c.Exec(ctx, "n1", "kubectl", "--kubeconfig=/etc/kubernetes/kubelet.kubeconfig", "patch", "node", node, "-p", patch)
			return err
		}
		if err := try("n1"); err != nil {
			t.Errorf("own Node: %v", err)
		}
		if err := try("n2"); err == nil || !strings.Contains(err.Error(), "forbidden") {
			t.Errorf("Node of another: %v", err)
		}
	})

	if err := c.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	assertNothingLeft(t)
}

func bootID(ctx context.Context, t *testing.T, c *Cluster, node string) string {
	t.Helper()
	n, err := c.Client().CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return n.Status.NodeInfo.BootID
}

// waitBoot waits for the node to be Ready with another boot ID.
func waitBoot(ctx context.Context, t *testing.T, c *Cluster, node, old string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	start := time.Now()
	if err := until(ctx, "a new boot of "+node, 20*time.Millisecond, func() (bool, error) {
		n, err := c.Client().CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
		return err == nil && n.Status.NodeInfo.BootID != old && nodeReady(n), err
	}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s Ready with a new boot ID after %.2f s", node, time.Since(start).Seconds())
}

func powerOf(t *testing.T, c *Cluster, node string) []string {
	t.Helper()
	log, err := c.PowerLog()
	if err != nil {
		t.Fatal(err)
	}
	var events []string
	for _, e := range log {
		switch {
		case e.Node != node:
		case e.On:
			events = append(events, "on")
		default:
			events = append(events, fmt.Sprintf("off %d", e.Exit))
		}
	}
	return events
}

func assertNothingLeft(t *testing.T) {
	t.Helper()
	cache, err := build.New(build.Config{})
	if err != nil {
		t.Fatal(err)
	}
	left := &Cluster{dir: place(cache, testName)}
	processes, err := left.processes()
	if err != nil || len(processes) > 0 {
		t.Errorf("processes %v, error %v", processes, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), left.dir+"/") {
		t.Errorf("something is mounted in %s (error %v)", left.dir, err)
	}
	groups, err := left.groups()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(groups, left.dir, left.Logs()) {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s is left (%v)", path, err)
		}
	}
	if machines, _ := filepath.Glob("/run/systemd/nspawn/*/" + left.machine("*")); len(machines) > 0 {
		t.Errorf("left under /run: %v", machines)
	}
}
