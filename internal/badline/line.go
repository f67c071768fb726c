package badline

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/rest"
)

// Line is a proxy between one client and one API server. Its methods may be called from any goroutine.
type Line struct {
	config    rest.Config // the client's
	server    *http.Server
	proxy     *httputil.ReverseProxy
	transport *http.Transport
	closing   chan struct{}  // closed by Close
	underWay  sync.WaitGroup // handlers, and requests that are late

	mu       sync.Mutex
	state    state
	changed  chan struct{} // closed, and made anew, when state or frozen change
	conns    map[*conn]struct{}
	rule     Rule
	shift    time.Duration
	frozen   func(*Request) bool   // nil: none
	sent     map[*Request]struct{} // on their way to the API server, or answered by it
	requests []*Request
	givenUp  []time.Time // when the client closed connections that were severed
}

// state is what the whole line does.
type state int

const (
	carries state = iota
	holed         // packets vanish
	refuses
	closed
)

// Open makes a line to the API server of a configuration, with that configuration's credentials. What ends it is Close,
// not ctx.
func Open(ctx context.Context, api *rest.Config) (*Line, error) {
	upstream, _, err := rest.DefaultServerUrlFor(api)
	if err != nil {
		return nil, fmt.Errorf("opening a line: %w", err)
	}
	tlsConfig, err := rest.TLSConfigFor(api)
	if err != nil {
		return nil, fmt.Errorf("opening a line to %s: %w", api.Host, err)
	}
	l := &Line{
		transport: &http.Transport{TLSClientConfig: tlsConfig, ForceAttemptHTTP2: true},
		closing:   make(chan struct{}), changed: make(chan struct{}), conns: map[*conn]struct{}{}, sent: map[*Request]struct{}{},
	}
	authenticated, err := rest.HTTPWrappersForConfig(api, l.transport)
	if err != nil {
		return nil, fmt.Errorf("opening a line to %s: %w", api.Host, err)
	}
	quiet := slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	l.proxy = &httputil.ReverseProxy{
		Rewrite:   func(p *httputil.ProxyRequest) { p.SetURL(upstream) },
		Transport: authenticated, FlushInterval: -1, ErrorLog: quiet,
		ModifyResponse: l.answered,
		// The API server gave no answer: that is no answer here, and not a 502.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	certificate, pem, err := selfSigned()
	if err != nil {
		return nil, fmt.Errorf("opening a line to %s: %w", api.Host, err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("opening a line to %s: %w", api.Host, err)
	}
	l.config = rest.Config{Host: "https://" + listener.Addr().String(), TLSClientConfig: rest.TLSClientConfig{CAData: pem}}
	l.server = &http.Server{Handler: http.HandlerFunc(l.serve), TLSConfig: certificate, ConnContext: withConn, ErrorLog: quiet}
	l.underWay.Go(func() { _ = l.server.ServeTLS(gate{listener, l}, "", "") }) // it ends with Close
	return l, nil
}

// Config is how a client reaches the API server over the line.
func (l *Line) Config() *rest.Config { return rest.CopyConfig(&l.config) }

// Close ends the line and everything on it. It may be called more than once.
func (l *Line) Close() {
	if l.set(closed) {
		close(l.closing)
	}
	_ = l.server.Close() // its connections are broken
	l.cut(func(*Request) bool { return true })
	l.underWay.Wait()
	l.transport.CloseIdleConnections()
}

// Rule makes r the rule for requests from now on; nil passes everything on.
func (l *Line) Rule(r Rule) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rule = r
}

// ShiftDate moves the Date of every answer by d.
func (l *Line) ShiftDate(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shift = d
}

// Requests returns every request so far, in the order in which they came in.
func (l *Line) Requests() []*Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.requests)
}

// BlackHole lets every packet vanish: the client hears nothing any more, not even that its connection is gone.
func (l *Line) BlackHole() { l.set(holed) }

// Sever makes all connections that are open now black holes, for ever. New ones are as good as any: so it is when a load
// balancer has forgotten what it knew.
func (l *Line) Sever() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		c.severed = true
	}
}

// GivenUp returns when the client closed connections that had been severed, in that order.
func (l *Line) GivenUp() []time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.givenUp)
}

// Refuse resets all connections, and every new one.
func (l *Line) Refuse() { l.set(refuses) }

// Heal ends BlackHole and Refuse.
func (l *Line) Heal() { l.set(carries) }

// Freeze holds back what the watches that match bring from now on, those that are opened later too.
func (l *Line) Freeze(match func(*Request) bool) { l.ice(match) }

// Thaw lets everything come that was held back.
func (l *Line) Thaw() { l.ice(nil) }

// Cut resets the open watches that match and returns how many they were.
func (l *Line) Cut(match func(*Request) bool) int {
	return l.cut(func(r *Request) bool { return r.Watch && match(r) })
}

func (l *Line) cut(match func(*Request) bool) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for r := range l.sent {
		if match(r) {
			r.cut()
			n++
		}
	}
	return n
}

func (l *Line) ice(match func(*Request) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.frozen = match
	l.tell()
}

// tell wakes everybody who waits for a change. The caller holds the lock.
func (l *Line) tell() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// serve is the fate of one request.
func (l *Line) serve(w http.ResponseWriter, hr *http.Request) {
	if !l.enter() {
		panic(http.ErrAbortHandler)
	}
	defer l.underWay.Done()
	r, err := receive(hr)
	if err != nil {
		panic(http.ErrAbortHandler) // its sender is gone
	}
	f, ok := l.fate(r)
	switch {
	case !ok:
		r.settle(0)
		panic(http.ErrAbortHandler)
	case f.code != 0:
		r.settle(0)
		l.answer(w, f)
	case f.never:
		r.settle(0)
		l.lose(hr, f.loss)
	case f.early:
		l.underWay.Go(func() { l.deliver(nowhere{http.Header{}}, hr, r, f.until) })
		l.lose(hr, f.loss)
	case f.loss != 0:
		l.deliver(nowhere{http.Header{}}, hr, r, nil)
		l.lose(hr, f.loss)
	case f.until != nil:
		if !l.deliver(w, hr, r, f.until) {
			panic(http.ErrAbortHandler)
		}
	default:
		l.send(hr.Context(), w, hr, r)
	}
}

// enter counts a request in, while the line is open.
func (l *Line) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == closed {
		return false
	}
	l.underWay.Add(1)
	return true
}

// fate asks the rule, and waits for a fate that is not decided yet; false when the line ends before it is.
func (l *Line) fate(r *Request) (Fate, bool) {
	l.mu.Lock()
	l.requests = append(l.requests, r)
	rule := l.rule
	l.mu.Unlock()
	if rule == nil {
		return Pass(), true
	}
	f := rule(r)
	if f.decided == nil {
		return f, true
	}
	select {
	case f = <-f.decided:
		return f, true
	case <-l.closing:
		return f, false
	}
}

// deliver sends r on when its time has come, whatever its sender does. It returns false when the API server has not
// answered.
func (l *Line) deliver(w http.ResponseWriter, hr *http.Request, r *Request, until <-chan struct{}) (ok bool) {
	if until != nil {
		select {
		case <-until:
		case <-l.closing:
			r.settle(0)
			return false
		}
	}
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler { //nolint:errorlint // it is compared as net/http does.
			panic(p)
		} else if p != nil {
			ok = false
		}
	}()
	l.send(context.WithoutCancel(hr.Context()), w, hr, r)
	return true
}

// send sends r on and passes the answer to w. It panics as a handler does when the answer breaks off.
func (l *Line) send(ctx context.Context, w http.ResponseWriter, hr *http.Request, r *Request) {
	ctx, cut := context.WithCancel(ctx)
	defer cut()
	defer r.settle(0)
	l.mu.Lock()
	r.cut = cut
	l.sent[r] = struct{}{}
	if l.state == closed {
		cut()
	}
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.sent, r)
		l.mu.Unlock()
	}()
	l.proxy.ServeHTTP(w, r.upstream(ctx, hr))
}

// answered is told of every answer before it is passed on.
func (l *Line) answered(resp *http.Response) error {
	r := requestOf(resp.Request.Context())
	r.settle(resp.StatusCode)
	l.mu.Lock()
	shift := l.shift
	l.mu.Unlock()
	if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil && shift != 0 {
		resp.Header.Set("Date", at.Add(shift).Format(http.TimeFormat))
	}
	if r.Watch {
		resp.Body = &stream{ReadCloser: resp.Body, line: l, request: r, ctx: resp.Request.Context()}
	}
	return nil
}

// lose ends the handling of a request whose sender gets no answer. It does not return.
func (l *Line) lose(hr *http.Request, how Loss) {
	switch how {
	case Break:
		connOf(hr.Context()).reset()
	case Silence:
		select {
		case <-hr.Context().Done():
		case <-l.closing:
		}
	case Reset:
	}
	panic(http.ErrAbortHandler)
}
