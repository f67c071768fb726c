package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Limits of the HTTP server, and the delay before a port that is taken is tried again.
const (
	readHeaderTimeout = 5 * time.Second
	listenRetry       = 5 * time.Second
)

// http serves /metrics, /healthz and /readyz until ctx ends. A port that is taken does not end the agent: it waits.
func (d *daemon) http(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if err := d.agent.Alive(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", d.readyz)
	for {
		if err := d.listen(ctx, mux); ctx.Err() == nil {
			d.log.Error("serving HTTP: tries again", "address", d.address, "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(listenRetry):
		}
	}
}

func (d *daemon) listen(ctx context.Context, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: readHeaderTimeout}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", d.address)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}

// readyz says what the agent is doing, and when it is not ready, why.
func (d *daemon) readyz(w http.ResponseWriter, _ *http.Request) {
	s := d.agent.Status()
	if !s.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
		for _, why := range s.NotYet {
			fmt.Fprintln(w, "not ready:", why)
		}
	}
	fmt.Fprintf(w, "phase: %s\nwaits: %s\n", s.Phase, s.Why)
	if s.Trouble != "" {
		fmt.Fprintln(w, "trouble:", s.Trouble)
	}
}
