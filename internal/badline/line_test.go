package badline_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"kubebaton.io/baton/internal/badline"
)

// patience bounds every wait of these tests; moment is how long nothing must happen for a test to believe it.
const (
	patience = 20 * time.Second
	moment   = 100 * time.Millisecond
)

// api is an API server that remembers what arrived. A GET of /events streams what is sent to events.
type api struct {
	config *rest.Config
	events chan string
	ended  chan struct{} // such streams

	mu      sync.Mutex
	arrived []string
	news    chan struct{}
}

func newAPI(t *testing.T) *api {
	t.Helper()
	a := &api{events: make(chan string), ended: make(chan struct{}, 100), news: make(chan struct{}, 100)}
	s := httptest.NewUnstartedServer(a)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	a.config = &rest.Config{Host: s.URL, BearerToken: "secret", TLSClientConfig: rest.TLSClientConfig{CAData: ca}}
	return a
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	a.arrived = append(a.arrived, fmt.Sprintf("%s %s %s %s %s", r.Method, r.URL.RequestURI(), r.Proto, r.Header.Get("Authorization"), body))
	a.mu.Unlock()
	a.news <- struct{}{}
	if r.URL.Path != "/events" {
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, "done")
		return
	}
	_ = http.NewResponseController(w).Flush()
	for {
		select {
		case e := <-a.events:
			fmt.Fprintln(w, e)
			_ = http.NewResponseController(w).Flush()
		case <-r.Context().Done():
			a.ended <- struct{}{}
			return
		}
	}
}

// got returns what arrived so far.
func (a *api) got() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.arrived
}

// await waits for the next request to arrive.
func (a *api) await(t *testing.T) {
	t.Helper()
	receive(t, a.news, "nothing arrived")
}

func receive[T any](t *testing.T, c <-chan T, orElse string) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal(orElse)
	}
	return v
}

// nothing waits a moment and fails when c brings something.
func nothing[T any](t *testing.T, c <-chan T, orElse string) {
	t.Helper()
	select {
	case v := <-c:
		t.Fatal(orElse, v)
	case <-time.After(moment):
	}
}

// setUp makes a line to an API server, and a client of it.
func setUp(t *testing.T) (*api, *badline.Line, *http.Client) {
	t.Helper()
	a := newAPI(t)
	l, err := badline.Open(t.Context(), a.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	c, err := rest.HTTPClientFor(l.Config())
	if err != nil {
		t.Fatal(err)
	}
	return a, l, c
}

// answer is what a client got.
type answer struct {
	code   int
	proto  string
	header http.Header
	body   string
	reused bool // the connection
	err    error
}

func ask(ctx context.Context, l *badline.Line, c *http.Client, method, path, body string) (got answer) {
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { got.reused = i.Reused }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), method, l.Config().Host+path, strings.NewReader(body))
	if err != nil {
		return answer{err: err}
	}
	resp, err := c.Do(req)
	if err != nil {
		got.err = err
		return got
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	got.code, got.proto, got.header, got.body, got.err = resp.StatusCode, resp.Proto, resp.Header, string(text), err
	return got
}

// asking is ask in the background.
func asking(ctx context.Context, l *badline.Line, c *http.Client, method, path, body string) <-chan answer {
	done := make(chan answer, 1)
	go func() { done <- ask(ctx, l, c, method, path, body) }()
	return done
}

func always(f badline.Fate) badline.Rule { return func(*badline.Request) badline.Fate { return f } }

func TestFates(t *testing.T) {
	t.Run("without a rule everything is passed on as it is, by HTTP/2 on both sides, with the line's credentials", func(t *testing.T) {
		a, l, c := setUp(t)
		got := ask(t.Context(), l, c, http.MethodPut, "/a/b?x=1&y=%20", "body")
		if got.err != nil || got.code != http.StatusCreated || got.body != "done" || got.proto != "HTTP/2.0" {
			t.Errorf("the client got %+v", got)
		}
		if want := "PUT /a/b?x=1&y=%20 HTTP/2.0 Bearer secret body"; len(a.got()) != 1 || a.got()[0] != want {
			t.Errorf("the API server got %q, want %q", a.got(), want)
		}
		if r := l.Requests(); len(r) != 1 || r[0].String() != "PUT /a/b?x=1&y=+" || string(r[0].Body) != "body" || r[0].Status(t.Context()) != http.StatusCreated {
			t.Errorf("the line remembers %v", r)
		}
	})
	t.Run("a rule sees method, path, query and body, and may be changed at any time", func(t *testing.T) {
		a, l, c := setUp(t)
		l.Rule(func(r *badline.Request) badline.Fate {
			if r.Method == http.MethodPatch && r.Path == "/n" && r.Query.Get("q") == "1" && string(r.Body) == "cordon" {
				return badline.Answer(http.StatusInternalServerError, 0)
			}
			return badline.Pass()
		})
		if got := ask(t.Context(), l, c, http.MethodPatch, "/n?q=1", "cordon"); got.code != http.StatusInternalServerError {
			t.Errorf("the one that matches: %+v", got)
		}
		if got := ask(t.Context(), l, c, http.MethodPatch, "/n?q=1", "uncordon"); got.code != http.StatusCreated {
			t.Errorf("another one: %+v", got)
		}
		l.Rule(nil)
		if got := ask(t.Context(), l, c, http.MethodPatch, "/n?q=1", "cordon"); got.code != http.StatusCreated || len(a.got()) != 2 {
			t.Errorf("without the rule: %+v, arrived %q", got, a.got())
		}
	})
	t.Run("an answer of the line is a Status with Retry-After, and nothing arrives", func(t *testing.T) {
		a, l, c := setUp(t)
		l.Rule(always(badline.Answer(http.StatusTooManyRequests, 3*time.Second)))
		got := ask(t.Context(), l, c, http.MethodGet, "/", "")
		if got.code != http.StatusTooManyRequests || got.header.Get("Retry-After") != "3" || !strings.Contains(got.body, `"reason":"TooManyRequests","details":{"retryAfterSeconds":3}`) {
			t.Errorf("the client got %+v", got)
		}
		if len(a.got()) != 0 || l.Requests()[0].Status(t.Context()) != 0 {
			t.Errorf("the API server got %q", a.got())
		}
	})
	t.Run("a lost answer: the request takes hold", func(t *testing.T) {
		a, l, c := setUp(t)
		ask(t.Context(), l, c, http.MethodGet, "/", "")
		l.Rule(always(badline.Lose(badline.Reset)))
		if got := ask(t.Context(), l, c, http.MethodPut, "/", "1"); got.err == nil || !got.reused {
			t.Errorf("a reset stream: %+v", got)
		}
		if len(a.got()) != 2 {
			t.Errorf("the API server got %q", a.got())
		}
		l.Rule(always(badline.Lose(badline.Break)))
		if got := ask(t.Context(), l, c, http.MethodPut, "/", "2"); got.err == nil || !got.reused {
			t.Errorf("a broken connection, which a reset stream has left alone: %+v", got)
		}
		l.Rule(nil)
		if got := ask(t.Context(), l, c, http.MethodPut, "/", "3"); got.err != nil || got.reused {
			t.Errorf("after a broken connection comes a new one: %+v", got)
		}
		if len(a.got()) != 4 {
			t.Errorf("the API server got %q", a.got())
		}
	})
	t.Run("a dropped request never arrives, and silence lasts until its sender gives up", func(t *testing.T) {
		a, l, c := setUp(t)
		l.Rule(always(badline.Drop(badline.Silence)))
		ctx, cancel := context.WithCancel(t.Context())
		done := asking(ctx, l, c, http.MethodPut, "/", "1")
		nothing(t, done, "the client heard something: ")
		cancel()
		if got := receive(t, done, "the client still waits"); !errors.Is(got.err, context.Canceled) || len(a.got()) != 0 {
			t.Errorf("the client got %+v, the API server %q", got, a.got())
		}
	})
	t.Run("a late request arrives when its sender is long dead", func(t *testing.T) {
		a, l, c := setUp(t)
		until := make(chan struct{})
		l.Rule(always(badline.Late(until, badline.Break)))
		if got := ask(t.Context(), l, c, http.MethodPut, "/", "1"); got.err == nil {
			t.Errorf("the sender was told %+v", got)
		}
		c.CloseIdleConnections()
		nothing(t, a.news, "it arrived before its time")
		close(until)
		a.await(t)
		if code := l.Requests()[0].Status(t.Context()); code != http.StatusCreated {
			t.Errorf("it was answered with %d", code)
		}
	})
	t.Run("a held request arrives when it is released, and its sender gets the answer", func(t *testing.T) {
		a, l, c := setUp(t)
		until := make(chan struct{})
		l.Rule(always(badline.Hold(until)))
		done := asking(t.Context(), l, c, http.MethodPut, "/", "1")
		nothing(t, a.news, "it arrived before it was released")
		close(until)
		a.await(t)
		if got := receive(t, done, "no answer"); got.code != http.StatusCreated {
			t.Errorf("the client got %+v", got)
		}
	})
	t.Run("a held request whose sender gave up arrives all the same", func(t *testing.T) {
		a, l, c := setUp(t)
		trap := badline.Catch(func(r *badline.Request) bool { return r.Path == "/held" })
		l.Rule(trap.Rule)
		ctx, cancel := context.WithCancel(t.Context())
		done := asking(ctx, l, c, http.MethodPut, "/held", "1")
		held := receive(t, trap.Caught(), "nothing was caught")
		if got := ask(t.Context(), l, c, http.MethodPut, "/held", "2"); got.code != http.StatusCreated {
			t.Errorf("a trap catches one request, and the next got %+v", got)
		}
		a.await(t)
		cancel()
		receive(t, done, "the sender does not give up")
		now := make(chan struct{})
		close(now)
		trap.Release(badline.Hold(now))
		a.await(t)
		if held.Status(t.Context()) != http.StatusCreated || string(held.Body) != "1" {
			t.Errorf("it was answered with %d", held.Status(t.Context()))
		}
	})
	t.Run("a slow request takes its time", func(t *testing.T) {
		_, l, c := setUp(t)
		l.Rule(always(badline.Slow(moment)))
		begin := time.Now()
		if got := ask(t.Context(), l, c, http.MethodGet, "/", ""); got.err != nil || time.Since(begin) < moment {
			t.Errorf("the client got %+v after %s", got, time.Since(begin))
		}
	})
	t.Run("the server's clock is what the line says", func(t *testing.T) {
		_, l, c := setUp(t)
		for _, rule := range []badline.Rule{nil, always(badline.Answer(http.StatusTooManyRequests, 0))} {
			l.Rule(rule)
			l.ShiftDate(-3 * time.Hour)
			got := ask(t.Context(), l, c, http.MethodGet, "/", "")
			at, err := http.ParseTime(got.header.Get("Date"))
			if off := time.Since(at) - 3*time.Hour; err != nil || off.Abs() > time.Minute {
				t.Errorf("the Date is %s", got.header.Get("Date"))
			}
		}
	})
}

// watching opens a watch and returns its lines; the channel is closed when the watch ends.
func watching(t *testing.T, l *badline.Line, c *http.Client) <-chan string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, l.Config().Host+"/events?watch=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req) //nolint:bodyclose // the goroutine below closes it.
	if err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 10)
	go func() {
		defer close(lines)
		defer func() { _ = resp.Body.Close() }()
		for s := bufio.NewScanner(resp.Body); s.Scan(); {
			lines <- s.Text()
		}
	}()
	return lines
}

func events(r *badline.Request) bool { return r.Watch && r.Path == "/events" }

func TestWatches(t *testing.T) {
	t.Run("an event is there before the next one is sent", func(t *testing.T) {
		a, l, c := setUp(t)
		lines := watching(t, l, c)
		for _, e := range []string{"1", "2", "3"} {
			a.events <- e
			if got := receive(t, lines, "no event"); got != e {
				t.Errorf("got %q, want %q", got, e)
			}
		}
	})
	t.Run("what is frozen comes after the thaw, in order", func(t *testing.T) {
		a, l, c := setUp(t)
		lines := watching(t, l, c)
		l.Freeze(events)
		a.events <- "1"
		a.events <- "2"
		nothing(t, lines, "an event through the ice: ")
		later := watching(t, l, c)
		a.await(t)
		l.Thaw()
		for _, e := range []string{"1", "2"} {
			if got := receive(t, lines, "no event"); got != e {
				t.Errorf("got %q, want %q", got, e)
			}
		}
		nothing(t, later, "a watch that was opened later brings ")
	})
	t.Run("a frozen watch can be cut", func(t *testing.T) {
		a, l, c := setUp(t)
		lines := watching(t, l, c)
		l.Freeze(events)
		a.events <- "1"
		nothing(t, lines, "an event through the ice: ")
		if n := l.Cut(func(*badline.Request) bool { return false }) + l.Cut(events); n != 1 {
			t.Errorf("%d watches were cut, want 1", n)
		}
		if got, more := <-lines; more {
			t.Errorf("the watch brought %q", got)
		}
		l.Thaw()
		receive(t, a.ended, "the API server goes on with a watch that was cut") // it would take the next event, too
		lines = watching(t, l, c)
		a.events <- "2"
		if got := receive(t, lines, "no event"); got != "2" {
			t.Errorf("the next watch brings %q", got)
		}
	})
}

func TestTheWholeLine(t *testing.T) {
	t.Run("in a black hole nobody hears anything, and after it everything goes on", func(t *testing.T) {
		a, l, c := setUp(t)
		lines := watching(t, l, c)
		a.await(t)
		l.BlackHole()
		a.events <- "1"
		done := asking(t.Context(), l, c, http.MethodPut, "/", "1")
		stranger, err := rest.HTTPClientFor(&rest.Config{Host: l.Config().Host, TLSClientConfig: rest.TLSClientConfig{Insecure: true}})
		if err != nil {
			t.Fatal(err)
		}
		other := asking(t.Context(), l, stranger, http.MethodPut, "/", "2")
		nothing(t, lines, "an event out of the black hole: ")
		nothing(t, done, "an answer out of the black hole: ")
		nothing(t, other, "a new connection out of the black hole: ")
		nothing(t, a.news, "a request out of the black hole")
		l.Heal()
		if got := receive(t, lines, "no event"); got != "1" {
			t.Errorf("the watch brings %q", got)
		}
		for _, c := range []<-chan answer{done, other} {
			if got := receive(t, c, "no answer"); got.code != http.StatusCreated {
				t.Errorf("the client got %+v", got)
			}
		}
	})
	t.Run("a severed connection is dead for ever, and a new one works", func(t *testing.T) {
		a, l, c := setUp(t)
		lines := watching(t, l, c)
		a.await(t)
		l.Sever()
		a.events <- "1"
		done := asking(t.Context(), l, c, http.MethodPut, "/", "1")
		nothing(t, lines, "an event over a severed connection: ")
		stranger, err := rest.HTTPClientFor(&rest.Config{Host: l.Config().Host, TLSClientConfig: rest.TLSClientConfig{Insecure: true}})
		if err != nil {
			t.Fatal(err)
		}
		if got := ask(t.Context(), l, stranger, http.MethodPut, "/", "2"); got.code != http.StatusCreated {
			t.Errorf("over a new connection: %+v", got)
		}
		l.Heal()
		nothing(t, done, "an answer over a severed connection: ")
		if got := l.GivenUp(); len(got) != 0 {
			t.Errorf("it was given up at %s, and its client has not", got)
		}
	})
	t.Run("it is known when a severed connection is given up", func(t *testing.T) {
		_, l, _ := setUp(t)
		dial := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
		c, err := dial.DialContext(t.Context(), "tcp", strings.TrimPrefix(l.Config().Host, "https://"))
		if err != nil {
			t.Fatal(err)
		}
		l.Sever()
		if _, err := c.Write([]byte("into the void")); err != nil {
			t.Fatal(err)
		}
		<-time.After(moment)
		if got := l.GivenUp(); len(got) != 0 {
			t.Errorf("it was given up at %s, and is open", got)
		}
		before := time.Now()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		for end := before.Add(patience); len(l.GivenUp()) == 0 && time.Now().Before(end); {
			<-time.After(time.Millisecond)
		}
		if got := l.GivenUp(); len(got) != 1 || got[0].Before(before) {
			t.Errorf("it was given up at %s, want once, after %s", got, before)
		}
	})
	t.Run("a line that refuses breaks what is open and what is new, until it is healed", func(t *testing.T) {
		a, l, c := setUp(t)
		lines := watching(t, l, c)
		a.await(t)
		l.Refuse()
		if got, more := <-lines; more {
			t.Errorf("the watch brought %q", got)
		}
		if got := ask(t.Context(), l, c, http.MethodPut, "/", "1"); got.err == nil {
			t.Errorf("the client got %+v", got)
		}
		nothing(t, a.news, "a request arrived")
		l.Heal()
		if got := ask(t.Context(), l, c, http.MethodPut, "/", "2"); got.code != http.StatusCreated {
			t.Errorf("the client got %+v", got)
		}
	})
	t.Run("closing ends all that is under way, and what was late never arrives", func(t *testing.T) {
		for name, whole := range map[string]func(*badline.Line){"carries": func(*badline.Line) {}, "is a black hole": (*badline.Line).BlackHole} {
			t.Run("a line that "+name, func(t *testing.T) {
				a, l, c := setUp(t)
				lines := watching(t, l, c)
				a.await(t)
				never := make(chan struct{})
				fates := []badline.Fate{badline.Late(never, badline.Reset), badline.Hold(never), badline.Drop(badline.Silence)}
				var waits []<-chan answer
				for i, f := range fates {
					l.Rule(always(f))
					waits = append(waits, asking(t.Context(), l, c, http.MethodPut, "/", fmt.Sprint(i)))
					for deadline := time.After(patience); len(l.Requests()) < i+2; {
						select {
						case <-deadline:
							t.Fatal("the request does not come in")
						case <-time.After(time.Millisecond):
						}
					}
				}
				whole(l)
				l.Close()
				for _, w := range waits {
					if got := receive(t, w, "a client still waits"); got.err == nil {
						t.Errorf("a client got %+v", got)
					}
				}
				if got, more := <-lines; more {
					t.Errorf("the watch brought %q", got)
				}
				if n := len(a.got()); n != 1 {
					t.Errorf("the API server got %q", a.got())
				}
			})
		}
	})
	t.Run("an API server that is away breaks the request, not the client's trust in HTTP", func(t *testing.T) {
		l, err := badline.Open(t.Context(), &rest.Config{Host: "https://127.0.0.1:1"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := rest.HTTPClientFor(l.Config())
		if err != nil {
			t.Fatal(err)
		}
		if got := ask(t.Context(), l, c, http.MethodGet, "/", ""); got.err == nil {
			t.Errorf("the client got %+v", got)
		}
	})
}
