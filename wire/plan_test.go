package wire

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"k8s.io/client-go/rest"

	"kubebaton.io/baton/kube"
)

// What the API server forbids in the moment of its start must not be believed for as long as the agent lives.
func TestPodClient(t *testing.T) {
	var starting, unbound atomic.Bool // it has no rules yet; the agent may not act as its node
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if starting.Load() || unbound.Load() && r.Header.Get("Impersonate-User") != "" {
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`))
			return
		}
		_, _ = w.Write([]byte(`{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}`))
	}))
	defer server.Close()
	api := &rest.Config{Host: server.URL}
	plain, err := kube.Client(api)
	if err != nil {
		t.Fatal(err)
	}
	ask := func() (kube.Interface, error) {
		return podClient(t.Context(), api, plain, "n1", slog.New(slog.DiscardHandler))
	}
	starting.Store(true)
	if _, err := ask(); err == nil {
		t.Error("nothing is permitted, and it has a client")
	}
	starting.Store(false)
	if c, err := ask(); err != nil || c == plain {
		t.Errorf("it may act as its node, and does not: %v", err)
	}
	unbound.Store(true)
	if c, err := ask(); err != nil || c != plain {
		t.Errorf("its own rights suffice, and are not used: %v", err)
	}
}
