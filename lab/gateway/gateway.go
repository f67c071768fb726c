// Package gateway leads what the pods of a node of the lab say to the API server through a place where it can be spoiled: by
// every toxic of toxiproxy, by resets, and by a Date in the replies that is off.
//
// Guarantees:
//   - The agents run as they are: the node's firewall leads their connections here, on this boot and on all to come.
//   - The kubelet and kube-proxy keep their own way.
//
// Not guaranteed:
//   - Some toxics log past the logger that they are given, to zerolog's global one.
package gateway

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/stream"
	"github.com/rs/zerolog"

	"kubebaton.io/baton/lab/cluster"
)

// Gateway is the way of one node's pods to the API server: every connection goes through a link of toxiproxy. While the clock
// is shifted it goes through a server of the API server's name as well, which changes the Date of each reply.
type Gateway struct {
	cluster  *cluster.Cluster
	node     string
	tcp      net.Listener
	clock    *http.Server
	clockTCP net.Listener
	server   *toxiproxy.ApiServer
	links    *toxiproxy.Proxy // never started: it holds the toxics and the links
	done     sync.WaitGroup

	mu     sync.Mutex
	open   []*net.TCPConn // and some that are closed by now
	passed int            // connections, ever
	refuse bool
	shift  time.Duration
}

// firstPort is that of n1 less one; the server that shifts the clock listens 1000 above.
const firstPort = 20000

// Open listens for a node and makes the node send its pods' connections here. Connections live as long as life.
func Open(ctx, life context.Context, c *cluster.Cluster, node string) (*Gateway, error) {
	number, err := strconv.Atoi(strings.TrimPrefix(node, "n"))
	if err != nil {
		return nil, fmt.Errorf("opening the gateway of node %q: %w", node, err)
	}
	port := firstPort + number
	logger := zerolog.Nop()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), logger)
	g := &Gateway{cluster: c, node: node, server: server, links: toxiproxy.NewProxy(server, node, "", cluster.APIAddr)}
	if g.tcp, err = c.Listen(ctx, "tcp", net.JoinHostPort(cluster.Gateway, strconv.Itoa(port))); err != nil {
		return nil, fmt.Errorf("opening the gateway of node %q: %w", node, err)
	}
	if err := errors.Join(g.serveClock(ctx, port+1000), redirect(ctx, c, node, port)); err != nil {
		g.Close()
		return nil, fmt.Errorf("opening the gateway of node %q: %w", node, err)
	}
	g.done.Go(func() { g.accept(life) })
	return g, nil
}

// Close ends all connections. The node still sends its pods' connections here: see Leave.
func (g *Gateway) Close() {
	_ = g.tcp.Close()
	if g.clock != nil {
		_ = g.clock.Close()
	}
	g.Cut()
	g.done.Wait()
}

// redirectRules come before those of kube-proxy, which would send the connection to the API server itself.
const redirectRules = `table ip lab-gateway
delete table ip lab-gateway
table ip lab-gateway {
	chain prerouting {
		type nat hook prerouting priority dstnat - 20
		ip saddr %s ip daddr %s tcp dport 443 dnat to %s:%d
	}
}
`

const redirectUnit = `[Unit]
Description=The way of the pods to the API server leads through the lab
Before=kubelet.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f /etc/lab-gateway.nft
[Install]
WantedBy=multi-user.target
`

const rulesFile, unitFile = "/etc/lab-gateway.nft", "/etc/systemd/system/lab-gateway.service"

func redirect(ctx context.Context, c *cluster.Cluster, node string, port int) error {
	for path, text := range map[string]string{
		rulesFile: fmt.Sprintf(redirectRules, cluster.PodNet, cluster.ServiceIP, cluster.Gateway, port),
		unitFile:  redirectUnit,
	} {
		file, err := c.File(node, path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	_, err := c.Exec(ctx, node, "systemctl", "enable", "--now", "lab-gateway.service")
	return err
}

// Leave gives the node's pods their own way back, if it is on, and closes the gateway.
func (g *Gateway) Leave(ctx context.Context) error {
	defer g.Close()
	_, err := g.cluster.Exec(ctx, g.node, "sh", "-c", "systemctl disable --now lab-gateway.service && rm -f "+rulesFile+" "+unitFile+" && nft delete table ip lab-gateway")
	return err
}

func (g *Gateway) accept(ctx context.Context) {
	for {
		conn, err := g.tcp.Accept()
		if err != nil {
			return // closed
		}
		client := conn.(*net.TCPConn) // a TCP listener accepts nothing else
		g.mu.Lock()
		refuse, shift := g.refuse, g.shift
		g.passed++
		g.mu.Unlock()
		if refuse {
			reset(client)
			continue
		}
		to := cluster.APIAddr
		if shift != 0 {
			to = g.clockTCP.Addr().String()
		}
		g.done.Go(func() { g.link(ctx, client, to) })
	}
}

// link joins a client to the other side.
func (g *Gateway) link(ctx context.Context, client *net.TCPConn, to string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := g.cluster.Dial(ctx, "tcp", to)
	if err != nil {
		reset(client)
		return
	}
	upstream := conn.(*net.TCPConn) // Dial of tcp gives nothing else
	for _, c := range []*net.TCPConn{client, upstream} {
		// A machine whose power was cut says no farewell.
		_ = c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3})
	}
	g.mu.Lock()
	g.open = append(g.open, client, upstream)
	g.mu.Unlock()
	name := client.RemoteAddr().String()
	g.links.Toxics.StartLink(g.server, name+" up", client, upstream, stream.Upstream)
	g.links.Toxics.StartLink(g.server, name+" down", upstream, client, stream.Downstream)
}

// Connections is how many connections there have been.
func (g *Gateway) Connections() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.passed
}

// reset closes a connection without a farewell.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// Cut resets all connections that there are.
func (g *Gateway) Cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.open {
		reset(c)
	}
	g.open = nil
}

// Refuse resets all connections, and all that come, until it is called with false.
func (g *Gateway) Refuse(on bool) {
	g.mu.Lock()
	g.refuse = on
	g.mu.Unlock()
	g.Cut()
}

// Shift makes the API server's clock be off by d as the node's agents see it; 0 ends that. They have to connect anew.
func (g *Gateway) Shift(d time.Duration) {
	g.mu.Lock()
	g.shift = d
	g.mu.Unlock()
	g.Cut()
}

// Toxic is one of toxiproxy's, on what goes one way.
type Toxic struct {
	Name       string         `json:"name"`
	Type       string         `json:"type"`
	Stream     string         `json:"stream"`
	Attributes map[string]int `json:"attributes"`
}

// Both is a toxic on both ways.
func Both(kind string, attributes map[string]int) []Toxic {
	return []Toxic{{Type: kind, Stream: "upstream", Attributes: attributes}, {Type: kind, Stream: "downstream", Attributes: attributes}}
}

// Poison adds toxics to all links that there are and all that come. undo takes them away again.
func (g *Gateway) Poison(seq int, toxics ...Toxic) (undo func(context.Context) error, err error) {
	var added []string
	undo = func(ctx context.Context) error {
		gone := make(chan error, 1)
		go func() {
			var faults []error
			for _, name := range added {
				faults = append(faults, g.links.Toxics.RemoveToxic(ctx, name))
			}
			gone <- errors.Join(faults...)
		}()
		select {
		case err := <-gone:
			return err
		case <-time.After(3 * time.Second):
			g.Cut() // a link whose other end does not read is stuck, and the toxic with it
		}
		select {
		case err := <-gone:
			return err
		case <-ctx.Done():
			return fmt.Errorf("taking toxics away: %w", ctx.Err())
		}
	}
	for _, t := range toxics {
		t.Name = fmt.Sprintf("%d %s %s", seq, t.Type, t.Stream)
		text, err := json.Marshal(t)
		if err != nil {
			return undo, err
		}
		if _, err := g.links.Toxics.AddToxicJson(strings.NewReader(string(text))); err != nil {
			return undo, fmt.Errorf("adding toxic %s: %w", text, err)
		}
		added = append(added, t.Name)
	}
	return undo, nil
}

// serveClock serves in the API server's name, and passes everything on but for the time.
func (g *Gateway) serveClock(ctx context.Context, port int) error {
	cert, authority, err := g.cluster.ServerTLS()
	if err != nil {
		return err
	}
	if g.clockTCP, err = g.cluster.Listen(ctx, "tcp", net.JoinHostPort(cluster.Gateway, strconv.Itoa(port))); err != nil {
		return err
	}
	quiet := log.New(io.Discard, "", 0) //nolint:forbidigo // what net/http wants; its lines are about the faults that are made here
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "https", Host: cluster.APIAddr}) },
		FlushInterval: -1, // a watch has no end
		ErrorLog:      quiet,
		Transport: &http.Transport{
			DialContext: g.cluster.Dial, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: authority},
		},
		ModifyResponse: func(r *http.Response) error {
			g.mu.Lock()
			defer g.mu.Unlock()
			r.Header.Set("Date", time.Now().Add(g.shift).UTC().Format(http.TimeFormat))
			return nil
		},
	}
	g.clock = &http.Server{
		Handler: proxy, ErrorLog: quiet, ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
	}
	g.done.Go(func() { _ = g.clock.ServeTLS(g.clockTCP, "", "") })
	return nil
}
