// Command app is the lab's test workload. It serves its host name over HTTP until SIGTERM, and can be asked to be difficult.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	addr := flag.String("listen", ":8080", "address to serve on; empty serves nothing")
	exit := flag.Int("exit", -1, "exit at once with this code instead of waiting")
	linger := flag.Duration("linger", 0, "keep running this long after SIGTERM")
	ready := flag.Duration("ready-after", 0, "answer /ready with 503 until this long after the start")
	flag.Parse()
	if *exit >= 0 {
		os.Exit(*exit)
	}
	if err := run(*addr, *linger, *ready); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(addr string, linger, ready time.Duration) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	failed := make(chan error, 1)
	if addr != "" {
		go func() { failed <- http.ListenAndServe(addr, handler(time.Now().Add(ready))) }()
	}
	select {
	case err := <-failed:
		return fmt.Errorf("serving on %s: %w", addr, err)
	case <-ctx.Done():
	}
	if linger > 0 {
		<-time.After(linger)
	}
	return nil
}

func handler(readyAt time.Time) http.Handler {
	name, err := os.Hostname()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		if err != nil {
			http.Error(w, errors.Unwrap(err).Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, name)
	})
	mux.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) {
		if time.Now().Before(readyAt) {
			http.Error(w, "starting", http.StatusServiceUnavailable)
		}
	})
	return mux
}
