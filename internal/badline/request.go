package badline

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// Request is one request that came in. What is exported never changes.
type Request struct {
	Method, Path string
	Query        url.Values
	Header       http.Header
	Body         []byte
	Watch        bool // its answer is a stream of events
	At           time.Time

	once    sync.Once
	settled chan struct{} // closed when status is known
	status  int
	cut     context.CancelFunc // ends its answer
}

// receive reads a request in full.
func receive(hr *http.Request) (*Request, error) {
	body, err := io.ReadAll(hr.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the body of %s %s: %w", hr.Method, hr.URL.Path, err)
	}
	r := &Request{
		Method: hr.Method, Path: hr.URL.Path, Query: hr.URL.Query(), Header: hr.Header.Clone(), Body: body, At: time.Now(),
		settled: make(chan struct{}),
	}
	w := r.Query.Get("watch")
	r.Watch = r.Method == http.MethodGet && (w == "1" || w == "true")
	return r, nil
}

// String is the request in one line, without its body.
func (r *Request) String() string {
	if len(r.Query) == 0 {
		return r.Method + " " + r.Path
	}
	return r.Method + " " + r.Path + "?" + r.Query.Encode()
}

// Status waits until the API server's answer has begun and returns its code; 0 when it is certain that none comes, or ctx
// ends.
func (r *Request) Status(ctx context.Context) int {
	select {
	case <-r.settled:
		return r.status
	case <-ctx.Done():
		return 0
	}
}

// settle notes the answer: the first one counts.
func (r *Request) settle(status int) {
	r.once.Do(func() {
		r.status = status
		close(r.settled)
	})
}

// upstream is the request as it is sent on, by itself and not by its sender's grace: ctx alone ends it.
func (r *Request) upstream(ctx context.Context, hr *http.Request) *http.Request {
	out := hr.Clone(context.WithValue(ctx, requestKey{}, r))
	out.Body, out.ContentLength, out.TransferEncoding = http.NoBody, int64(len(r.Body)), nil
	if len(r.Body) > 0 {
		out.Body = io.NopCloser(bytes.NewReader(r.Body))
	}
	return out
}

type requestKey struct{}

// requestOf returns the request that an upstream request was made of.
func requestOf(ctx context.Context) *Request {
	r, _ := ctx.Value(requestKey{}).(*Request)
	return r
}
