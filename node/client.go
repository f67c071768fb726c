package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"

	"kubebaton.io/baton/kube"
)

const (
	// controllerName is Event.reportingController.
	controllerName = "kubebaton.io/agent"
	// Limits of the API on an Event: validation refuses what is longer.
	maxNote     = 1024
	maxInstance = 128
)

// Config is what a [Client] needs; all but Log and Restored is required.
type Config struct {
	Clientset kube.Interface
	Name      string       // our own Node's name
	Log       *slog.Logger // told what goes wrong in a watch that goes on; nil: nobody is told
	Restored  func()       // called when the API server was restored from a backup, before Watch or Get shows what it knows; nil: nobody is
}

// Client reads, watches and changes one Node: our own.
type Client struct {
	clientset kube.Interface
	name      string
	log       *slog.Logger
	restored  func()

	mu   sync.Mutex
	last seen          // the latest that is known
	news chan struct{} // closed when that is no longer the latest
}

// New checks cfg and names all that is missing.
func New(cfg Config) (*Client, error) {
	var faults []error
	if cfg.Clientset == nil {
		faults = append(faults, errors.New("no clientset"))
	}
	if cfg.Name == "" {
		faults = append(faults, errors.New("no node name"))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("configuring the node's client: %w", err)
	}
	if cfg.Restored == nil {
		cfg.Restored = func() {}
	}
	return &Client{clientset: cfg.Clientset, name: cfg.Name, log: logger(cfg.Log), restored: cfg.Restored, news: make(chan struct{})}, nil
}

func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

// Get reads the Node from the store, not from a cache of the API server.
func (c *Client) Get(ctx context.Context) (View, error) {
	before, _ := c.latest()
	n, err := c.clientset.CoreV1().Nodes().Get(ctx, c.name, metav1.GetOptions{})
	if err != nil {
		return View{}, fmt.Errorf("getting node %q: %w", c.name, err)
	}
	v, err := viewOf(n)
	if err != nil {
		return View{}, err
	}
	if v.UID == before.uid && older(v.ResourceVersion, before.version) {
		c.goneBack(fmt.Errorf("getting it: %w: it was at version %s and is at %s", kube.ErrRestored, before.version, v.ResourceVersion))
	}
	c.saw(n)
	return v, nil
}

// seen is a version of the Node, and what those look at who follow it. The zero value: nothing is known of it.
type seen struct {
	uid, version string
	gone         bool     // a watch has shown since that there is no Node of the name
	volumes      []string // of CSI drivers, in use or attached by its status
}

func (s seen) known() bool { return s.uid != "" && !s.gone }

func older(a, b string) bool {
	n, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && n < 0
}

// latest is the latest version that Get, Patch or Watch has brought, and what is closed when there is a later one.
func (c *Client) latest() (seen, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last, c.news
}

// know makes s the latest. The caller holds the lock.
func (c *Client) know(s seen) {
	c.last = s
	close(c.news)
	c.news = make(chan struct{})
}

// saw keeps n if it is the latest.
func (c *Client) saw(n *corev1.Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	uid := string(n.UID)
	if uid == c.last.uid && older(n.ResourceVersion, c.last.version) {
		return
	}
	c.know(seen{uid: uid, version: n.ResourceVersion, volumes: volumesOn(n)})
}

// missed keeps that there is no Node.
func (c *Client) missed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.know(seen{uid: c.last.uid, version: c.last.version, gone: true})
}

// goneBack tells that the API server knows less than it did, and forgets what it knew.
func (c *Client) goneBack(err error) {
	c.mu.Lock()
	c.know(seen{})
	c.mu.Unlock()
	c.log.Warn("watching the node", "node", c.name, "error", err)
	c.restored()
}

// Patch changes the Node in one request and returns it as it is afterwards. A change that leaves everything as from
// shows it is not sent, and from is returned. An error that is 409 or 422 means: this was not decided on the Node as it
// is now, so read and decide again. After any other error the outcome is not known.
func (c *Client) Patch(ctx context.Context, from View, ch Change) (View, error) {
	body, err := patch(from, ch)
	if err != nil {
		return View{}, fmt.Errorf("patching node %q: %w", c.name, err)
	}
	if body == nil {
		return from, nil
	}
	n, err := c.clientset.CoreV1().Nodes().Patch(ctx, c.name, types.MergePatchType, body, metav1.PatchOptions{})
	if err != nil {
		return View{}, fmt.Errorf("patching node %q: %w", c.name, err)
	}
	c.saw(n)
	return viewOf(n)
}

// Watch calls f with every new state of the Node, at first with the one it finds, until ctx ends. exists is false while
// there is no Node of that name. Calls follow each other; f must not block for long.
func (c *Client) Watch(ctx context.Context, f func(v View, exists bool)) error {
	nodes := c.clientset.CoreV1().Nodes()
	sel := kube.Selection{Fields: fields.OneTermEqualSelector("metadata.name", c.name).String(), Quorum: true}
	warn := func(err error) { c.log.Warn("watching the node", "node", c.name, "error", err) }
	return kube.Watch(ctx, nodes.List, nodes.Watch, sel, &corev1.Node{}, func(found map[string]*corev1.Node) {
		n, ok := found[c.name]
		if !ok {
			c.missed()
			f(View{}, false)
			return
		}
		c.saw(n)
		v, err := viewOf(n)
		if err != nil {
			warn(err)
			return
		}
		f(v, true)
	}, func(err error) {
		if errors.Is(err, kube.ErrRestored) {
			c.goneBack(err)
			return
		}
		warn(err)
	})
}

// Event records an Event on the Node that v shows; kind is Normal or Warning. `kubectl describe node` finds Events by
// the Node's UID and, for the kubelet's sake, by its name in place of the UID; the UID is the better one, as it does not
// show a node what happened to another that had its name. Events on objects without a namespace live in `default`.
func (c *Client) Event(ctx context.Context, v View, kind, reason, message string) error {
	e := &eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{GenerateName: v.Name + "-", Namespace: metav1.NamespaceDefault},
		EventTime:           metav1.NowMicro(),
		ReportingController: controllerName,
		ReportingInstance:   cut(c.name, maxInstance),
		Action:              reason,
		Reason:              reason,
		Regarding:           corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: v.Name, UID: types.UID(v.UID)},
		Note:                cut(message, maxNote),
		Type:                kind,
	}
	if _, err := c.clientset.EventsV1().Events(metav1.NamespaceDefault).Create(ctx, e, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("recording event %s on node %q: %w", reason, v.Name, err)
	}
	return nil
}

// cut returns at most limit bytes of s, without half a character, and shows with a dot-dot-dot that it is not all.
func cut(s string, limit int) string {
	const more = "…"
	if len(s) <= limit {
		return s
	}
	return strings.TrimRight(strings.ToValidUTF8(s[:limit-len(more)], ""), " ,;:") + more
}
