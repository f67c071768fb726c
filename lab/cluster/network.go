package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Addresses inside the network namespace. The range is reserved for tests of networks (RFC 2544).
const (
	Gateway    = "198.18.0.1" // this side's, as the nodes see it
	apiPort    = "6443"
	APIAddr    = Gateway + ":" + apiPort // of the API server
	ServiceIP  = "10.96.0.1"             // by which pods reach the API server, on port 443: the first of serviceNet
	serviceNet = "10.96.0.0/16"
	PodNet     = "10.200.0.0/16"         // of all pods
	EtcdURL    = "http://127.0.0.1:2379" // plain text
	firstNode  = 10                      // node i has the address 198.18.0.(firstNode+i)
	maxNodes   = 240
	bridge     = "lab0"
)

// netnsPath is where the network namespace is kept alive: a mount in the cluster's own directory.
func (c *Cluster) netnsPath() string { return c.path("network") }

// makeNetwork makes the network namespace, and in it a bridge for the nodes. The namespace routes between the pod networks.
func (c *Cluster) makeNetwork(ctx context.Context) error {
	if err := c.makeNamespace(); err != nil {
		return fmt.Errorf("making the network of cluster %q: %w", c.Name, err)
	}
	for _, args := range []string{
		"link set lo up",
		// An address of its own: without one a bridge takes that of a port, and another one when the port goes, and the
		// nodes would talk to the old one for half a minute.
		"link add " + bridge + " address 02:ba:70:00:00:01 type bridge forward_delay 0",
		"addr add " + Gateway + "/24 dev " + bridge,
		"link set " + bridge + " up",
	} {
		if err := c.ip(ctx, args); err != nil {
			return err
		}
	}
	// /proc/sys/net is that of the thread that opens it.
	return c.inNetwork(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) })
}

func (c *Cluster) makeNamespace() error {
	if err := os.WriteFile(c.netnsPath(), nil, 0o600); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlock: this thread ends
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- unix.Mount("/proc/thread-self/ns/net", c.netnsPath(), "", unix.MS_BIND, "")
	}()
	return <-done
}

// routePods sends a node's pod network to the node.
func (c *Cluster) routePods(ctx context.Context, n int) error {
	return c.ip(ctx, fmt.Sprintf("route replace 10.200.%d.0/24 via %s", firstNode+n, nodeIP(n)))
}

// ip runs iproute2 inside the network.
func (c *Cluster) ip(ctx context.Context, args string) error {
	return c.inNetwork(func() error {
		if out, err := exec.CommandContext(ctx, "ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", args, err, out)
		}
		return nil
	})
}

func nodeIP(n int) string { return fmt.Sprintf("198.18.0.%d", firstNode+n) }

// inNetwork calls f on a thread that is inside the network namespace. What f starts is inside too. The thread ends with f.
func (c *Cluster) inNetwork(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlock: nobody else may get this thread
		done <- func() error {
			ns, err := os.Open(c.netnsPath())
			if err != nil {
				return fmt.Errorf("opening the network of cluster %q: %w", c.Name, err)
			}
			defer func() { _ = ns.Close() }()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("entering the network of cluster %q: %w", c.Name, err)
			}
			return f()
		}()
	}()
	return <-done
}

// Dial connects to an address inside the cluster's network. A socket stays in the namespace that it was made in.
func (c *Cluster) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = c.inNetwork(func() error {
		// FallbackDelay < 0: no second goroutine, on a thread outside the namespace, races for IPv6.
		conn, err = (&net.Dialer{FallbackDelay: -1}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen listens on an address inside the cluster's network, on which the nodes reach it by the address of Gateway.
func (c *Cluster) Listen(ctx context.Context, network, address string) (l net.Listener, err error) {
	err = c.inNetwork(func() error {
		l, err = (&net.ListenConfig{}).Listen(ctx, network, address)
		return err
	})
	return l, err
}
