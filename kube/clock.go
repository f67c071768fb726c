package kube

import (
	"net/http"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"
)

// Clock compares this host's clock with the API server's, which stands in the Date of each of its replies. The zero
// value has seen nothing and is ready to use.
type Clock struct{ skew atomic.Int64 }

// Skew returns own clock minus the API server's, as last seen; 0 when nothing was seen. A Date has whole seconds, and
// the way of the reply is not taken off: it is good for minutes, not for milliseconds.
func (c *Clock) Skew() time.Duration { return time.Duration(c.skew.Load()) }

// Observe makes the clients of cfg tell c what they see.
func (c *Clock) Observe(cfg *rest.Config) {
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return clockTripper{next, c} })
}

type clockTripper struct {
	next  http.RoundTripper
	clock *Clock
}

func (t clockTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	if err != nil {
		return nil, err //nolint:wrapcheck // a round tripper passes on what it is given.
	}
	if at, perr := http.ParseTime(resp.Header.Get("Date")); perr == nil {
		t.clock.skew.Store(int64(time.Since(at)))
	}
	return resp, nil
}
