package node

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
)

// doorman is an API server without pods that lets in whom it is told to.
type doorman struct {
	*httptest.Server
	mu           sync.Mutex
	node, agent  bool   // who is let in: the node, the agent by its own name
	evictedBy    string // the user that an eviction named; - none
	asked, heard int    // requests of the node; of the agent
}

func newDoorman(t *testing.T) *doorman {
	t.Helper()
	d := &doorman{}
	d.Server = httptest.NewServer(d)
	t.Cleanup(func() { d.CloseClientConnections(); d.Close() })
	return d
}

func (d *doorman) let(node, agent bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.node, d.agent, d.asked, d.heard = node, agent, 0, 0
}

func (d *doorman) counts() (asNode, asAgent int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked, d.heard
}

func (d *doorman) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	user := r.Header.Get("Impersonate-User")
	let := d.agent
	if user != "" {
		let = d.node
		d.asked++
	} else {
		d.heard++
	}
	if r.Method == http.MethodPost {
		d.evictedBy = user
	}
	d.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch {
	case !let:
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"no ` + user + `"}`))
	case r.URL.Query().Get("watch") != "":
		_, _ = w.Write([]byte(`{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"1","annotations":{"k8s.io/initial-events-end":"true"}}}}` + "\n"))
		w.(http.Flusher).Flush() //nolint:forcetypeassert // of httptest it is one.
		<-r.Context().Done()
	case r.Method == http.MethodPost:
		_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Success"}`))
	default:
		_, _ = w.Write([]byte(`{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}`))
	}
}

// What the API server forbids in the moment of its start must not be believed for as long as the agent lives.
func TestInWhoseName(t *testing.T) {
	const as, none = "system:node:n1", ""
	looks := func(ctx context.Context, d *Drainer) error {
		_, err := d.Look(ctx, DrainSettings{}, false)
		return err
	}
	preflights := func(ctx context.Context, d *Drainer) error {
		_, err := d.Look(ctx, DrainSettings{}, true)
		return err
	}
	drains := func(ctx context.Context, d *Drainer) error { return d.Run(ctx, DrainSettings{}, func(DrainView) {}) }
	awaits := func(ctx context.Context, d *Drainer) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		err := d.AwaitReady(ctx, nil, func([]string) { cancel() })
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	}
	for name, first := range map[string]func(context.Context, *Drainer) error{"a look": looks, "a preflight": preflights, "a drain": drains, "the way home": awaits} {
		door := newDoorman(t)
		set := func(t *testing.T) (*Drainer, context.Context) {
			t.Helper()
			own, _ := connect(t, OwnNodeConfig(&rest.Config{Host: door.URL}, "n1"))
			plain, _ := connect(t, &rest.Config{Host: door.URL})
			d, err := NewDrainer(DrainerConfig{Clientset: own, Cluster: plain, Node: "n1"})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			t.Cleanup(cancel)
			return d, ctx
		}
		evicts := func(t *testing.T, d *Drainer, want string) {
			t.Helper()
			door.evictedBy = "-"
			_ = d.evict(t.Context(), PodPlan{Namespace: "default", Name: "web", UID: "x"}, 0)
			if door.evictedBy != want {
				t.Errorf("it evicts as %q, want %q", door.evictedBy, want)
			}
		}
		t.Run(name+" that is forbidden in both names says both, and is asked for again", func(t *testing.T) {
			d, ctx := set(t)
			door.let(false, false)
			err := first(ctx, d)
			if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "no "+as) || !strings.Contains(err.Error(), "own rights: ") || ctx.Err() != nil {
				t.Errorf("got %v", err)
			}
			evicts(t, d, as)
			door.let(true, true)
			if err := first(ctx, d); err != nil {
				t.Error(err)
			}
			if _, asAgent := door.counts(); asAgent > 0 {
				t.Errorf("it may act as its node, and sent %d requests in its own name", asAgent)
			}
			evicts(t, d, as)
		})
		t.Run(name+" that its node may have is never asked for in the agent's name, also when that is forbidden later", func(t *testing.T) {
			d, ctx := set(t)
			door.let(true, true)
			if err := first(ctx, d); err != nil {
				t.Error(err)
			}
			door.let(false, true)
			if err := looks(ctx, d); !apierrors.IsForbidden(err) {
				t.Errorf("got %v", err)
			}
			if _, asAgent := door.counts(); asAgent > 0 {
				t.Errorf("it sent %d requests in its own name", asAgent)
			}
			evicts(t, d, as)
		})
		t.Run(name+" that only the agent may have is its own from then on", func(t *testing.T) {
			d, ctx := set(t)
			door.let(false, true)
			for range 2 {
				if err := first(ctx, d); err != nil {
					t.Error(err)
				}
			}
			if asNode, _ := door.counts(); asNode != 1 {
				t.Errorf("it asked %d times whether it may act as its node", asNode)
			}
			evicts(t, d, none)
			door.let(true, false)
			if err := looks(ctx, d); err != nil {
				t.Errorf("the agent's own right is gone, and its node may have it: %v", err)
			}
			evicts(t, d, as)
		})
	}
	t.Run("a server that cannot be asked tells nothing about that", func(t *testing.T) {
		own, _ := connect(t, OwnNodeConfig(&rest.Config{Host: "http://127.0.0.1:1"}, "n1"))
		door := newDoorman(t)
		door.let(true, true)
		plain, _ := connect(t, &rest.Config{Host: door.URL})
		d, err := NewDrainer(DrainerConfig{Clientset: own, Cluster: plain, Node: "n1"})
		if err != nil {
			t.Fatal(err)
		}
		if err := looks(t.Context(), d); err == nil || apierrors.IsForbidden(err) {
			t.Errorf("got %v", err)
		}
		if _, asAgent := door.counts(); asAgent > 0 {
			t.Error("it asked in the agent's name")
		}
	})
}
