package lock

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// fault is what happens to one write on its way.
type fault int

const (
	none    fault = iota
	dropped       // it never arrives, and the sender is told nothing
	failed        // the server answers 500 and has written nothing
	lost          // it takes hold, and the sender is told nothing
	late          // the sender is told nothing, and it arrives later
)

var errCut = errors.New("the line was cut")

// line is a bad connection to the API server.
type line struct {
	next  http.RoundTripper
	fault func() fault // asked for every write

	lists, gets atomic.Int32 // that were asked for

	mu      sync.Mutex
	pending []func() int // the late writes; each arrives when it is called, and returns the server's status
}

func badLine(t testing.TB, f func() fault) (*line, func(http.RoundTripper) http.RoundTripper) {
	t.Helper()
	l := &line{fault: f}
	return l, func(next http.RoundTripper) http.RoundTripper {
		l.next = next
		return l
	}
}

func (l *line) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodGet {
		switch {
		case !strings.HasSuffix(req.URL.Path, "/leases"):
			l.gets.Add(1)
		case !req.URL.Query().Has("watch"):
			l.lists.Add(1)
		}
		return l.next.RoundTrip(req)
	}
	f := l.fault()
	if f == none {
		return l.next.RoundTrip(req)
	}
	var body []byte
	if req.Body != nil {
		var err error
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
		if err := req.Body.Close(); err != nil {
			return nil, err
		}
	}
	send := func() int {
		again := req.Clone(context.WithoutCancel(req.Context()))
		again.Body = io.NopCloser(bytes.NewReader(body))
		resp, err := l.next.RoundTrip(again)
		if err != nil {
			return 0
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return 0
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	switch f {
	case none, dropped:
	case failed:
		return &http.Response{
			StatusCode: http.StatusInternalServerError, Request: req, Header: http.Header{"Content-Type": {"text/plain"}},
			Body: io.NopCloser(bytes.NewReader([]byte("etcdserver: leader changed"))),
		}, nil
	case lost:
		send()
	case late:
		l.mu.Lock()
		l.pending = append(l.pending, send)
		l.mu.Unlock()
	}
	return nil, errCut
}

// arrive lets the late writes arrive and returns the server's answers.
func (l *line) arrive() (statuses []int) {
	l.mu.Lock()
	sends := l.pending
	l.pending = nil
	l.mu.Unlock()
	for _, send := range sends {
		statuses = append(statuses, send())
	}
	return statuses
}

// operation is one write of one of the two roles, with what it needs and what it brings about.
type operation struct {
	name    string
	prepare func(*world) Slot
	do      func(context.Context, *Slots, Slot) error
	done    func(*world) bool
	again   bool // repeating it after it took hold, on the old version, is no error
}

func operations() []operation {
	held := func(w *world) Slot { return w.held(slot0) }
	nominated := func(w *world) Slot { return w.nominated(slot0) }
	empty := func(w *world) Slot { return w.get(slot0) }
	isEmpty := func(w *world) bool {
		sl := w.get(slot0)
		return sl == Slot{Name: slot0, ResourceVersion: sl.ResourceVersion, Group: "workers"}
	}
	there := func(w *world, name string) bool {
		slots, err := w.marshal.List(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		return slices.ContainsFunc(slots, func(s Slot) bool { return s.Name == name })
	}
	return []operation{
		{
			name: "take", prepare: nominated, done: func(w *world) bool { return w.get(slot0).Holder == "a" },
			do: func(ctx context.Context, s *Slots, sl Slot) error {
				_, err := s.Take(ctx, sl, "uid-a", claim("i1"))
				return err
			},
		},
		{
			name: "renew", prepare: held, done: func(w *world) bool { return w.get(slot0).Instance == "i2" },
			do: func(ctx context.Context, s *Slots, sl Slot) error {
				_, err := s.Renew(ctx, sl, claim("i2"))
				return err
			},
		},
		{
			name: "free", prepare: held, done: isEmpty,
			do: func(ctx context.Context, s *Slots, sl Slot) error { _, err := s.Free(ctx, sl); return err },
		},
		{
			name: "decline", prepare: nominated, done: isEmpty,
			do: func(ctx context.Context, s *Slots, sl Slot) error { _, err := s.Decline(ctx, sl); return err },
		},
		{
			name: "nominate", prepare: empty, done: func(w *world) bool { return w.get(slot0).BidCycle == "c7" },
			do: func(ctx context.Context, s *Slots, sl Slot) error {
				_, err := s.Nominate(ctx, sl, "uid-b", "b", "c7", 1, time.Now().Add(time.Minute))
				return err
			},
		},
		{
			name: "clear the nomination", prepare: nominated, done: isEmpty,
			do: func(ctx context.Context, s *Slots, sl Slot) error { _, err := s.ClearNomination(ctx, sl); return err },
		},
		{
			name: "hold", prepare: held, done: func(w *world) bool { return w.get(slot0).Hold == "halted" },
			do: func(ctx context.Context, s *Slots, sl Slot) error { _, err := s.SetHold(ctx, sl, "halted"); return err },
		},
		{
			name: "free of the gone", prepare: held, done: isEmpty,
			do: func(ctx context.Context, s *Slots, sl Slot) error { _, err := s.FreeGone(ctx, sl); return err },
		},
		{
			name: "delete", prepare: empty, done: func(w *world) bool { return !there(w, slot0) }, again: true,
			do: func(ctx context.Context, s *Slots, sl Slot) error { return s.Delete(ctx, sl) },
		},
		{
			name: "create", prepare: empty, done: func(w *world) bool { return there(w, "slot-workers-1") }, again: true,
			do: func(ctx context.Context, s *Slots, _ Slot) error { return s.Create(ctx, "workers", 1) },
		},
	}
}

// TestFaults breaks every write in every way. Whatever happened, reading again tells how things stand, and going on from
// there brings about what was meant, once.
func TestFaults(t *testing.T) {
	for _, op := range operations() {
		for f, name := range map[fault]string{dropped: "is dropped", failed: "fails", lost: "takes hold unseen", late: "arrives late"} {
			t.Run(op.name+" "+name, func(t *testing.T) {
				t.Parallel()
				testFault(t, op, f)
			})
		}
	}
}

func testFault(t *testing.T, op operation, f fault) {
	w, now := newWorld(t), none
	l, wrap := badLine(t, func() fault { return now })
	s := open(t, clientset(t, wrap), w.ns, "a")
	sl := op.prepare(w)
	now = f
	err := op.do(t.Context(), s, sl)
	now = none
	if want := f == failed; err == nil || !errors.Is(err, errCut) && !want || apierrors.IsInternalError(err) != want {
		t.Fatalf("got error %v", err)
	}
	if got := result(err); got != "unknown" {
		t.Errorf("counted as %q", got)
	}
	if op.done(w) != (f == lost) {
		t.Fatalf("done is %v", op.done(w))
	}
	restarted := open(t, clientset(t, nil), w.ns, "a")
	if f == lost {
		for _, s := range []*Slots{s, restarted} { // the same write again, on what it was decided on
			if err := op.do(t.Context(), s, sl); op.again != (err == nil) || err != nil && result(err) != "conflict" && result(err) != "refused" {
				t.Errorf("repeated: got %v", err)
			}
		}
		return
	}
	if op.name != "create" {
		sl = must(restarted.Get(t.Context(), sl.Name))(t)
	}
	if err := op.do(t.Context(), restarted, sl); err != nil {
		t.Fatalf("after reading again: %v", err)
	}
	if !op.done(w) {
		t.Fatal("it said that it is done, and is not")
	}
	before := must(w.marshal.List(t.Context()))(t)
	for _, status := range l.arrive() {
		if status != http.StatusConflict && status != http.StatusNotFound {
			t.Errorf("the late write was answered %d", status)
		}
	}
	after := must(w.marshal.List(t.Context()))(t)
	if d := cmp.Diff(before, after); d != "" {
		t.Error("the late write took hold:", d)
	}
}

// started lets a process begin, which watches its slots.
func started(t *testing.T, s *Slots) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	shown, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		first := sync.OnceFunc(func() { close(shown) })
		_ = s.Watch(ctx, func([]Slot, bool) { first() })
	}()
	t.Cleanup(func() { cancel(); <-ended })
	select {
	case <-shown:
	case <-time.After(20 * time.Second):
		t.Fatal("the watch shows nothing")
	}
}

// A late write is dead after ANY later write of the Lease, not only after its own repetition.
func TestLateTakeOfAnotherSlot(t *testing.T) {
	for name, begins := range map[string]func(*testing.T, *Slots){
		"a new process that has read nothing":  func(*testing.T, *Slots) {},
		"a new process that watches its slots": started,
		"the same process":                     nil,
	} {
		t.Run(name, func(t *testing.T) {
			w, now := newWorld(t), none
			if err := w.marshal.Create(t.Context(), "workers", 1); err != nil {
				t.Fatal(err)
			}
			l, wrap := badLine(t, func() fault { return now })
			s := open(t, clientset(t, wrap), w.ns, "a")
			started(t, s)
			first := w.nominated(slot0)
			now = late
			if _, err := s.Take(t.Context(), first, "uid-a", claim("i1")); !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			now = none
			// A new process knows nothing of that write, and a careless marshal has nominated this node twice.
			if begins != nil {
				s = open(t, clientset(t, nil), w.ns, "a")
				begins(t, s)
			}
			must(s.Take(t.Context(), w.nominated("slot-workers-1"), "uid-a", claim("i2")))(t)
			if d := cmp.Diff([]int{http.StatusConflict}, l.arrive()); d != "" {
				t.Error(d)
			}
			if sl := w.get(slot0); sl.Holder != "" {
				t.Errorf("the node holds two: %+v", sl)
			}
		})
	}
}

// A take asks which slots name the node only where one of them may be the node's, or become so.
func TestTakeAsksNothingThatIsKnown(t *testing.T) {
	w, now := newWorld(t), none
	l, wrap := badLine(t, func() fault { return now })
	s := open(t, clientset(t, wrap), w.ns, "a")
	started(t, s)
	take := func(what string, lists int32) {
		t.Helper()
		before := l.lists.Load()
		held := must(s.Take(t.Context(), w.nominated(slot0), "uid-a", claim("i1")))(t)
		must(s.Free(t.Context(), held))(t)
		if n := l.lists.Load() - before; n != lists {
			t.Errorf("%s: %d lists, want %d", what, n, lists)
		}
	}
	take("the watch has shown that there is none", 0)
	take("the only one was freed", 0)
	sl := w.nominated(slot0)
	now = lost
	if _, err := s.Take(t.Context(), sl, "uid-a", claim("i1")); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	now = none
	must(s.Free(t.Context(), w.get(slot0)))(t)
	take("of an earlier take nobody knows whether it will arrive", 1)
	take("that was looked into", 0)

	began := open(t, clientset(t, wrap), w.ns, "a")
	held := must(began.Take(t.Context(), w.nominated(slot0), "uid-a", claim("i1")))(t)
	started(t, began) // what a watch shows may be older than a take
	began.own.first(nil)
	if began.own.only("slot-workers-1") {
		t.Error("a take is forgotten because a watch has not shown it yet")
	}
	next := open(t, clientset(t, wrap), w.ns, "a")
	started(t, next)
	if next.own.only("slot-workers-1") || !next.own.only(held.Name) {
		t.Error("the slot that an earlier process holds is not known")
	}
	must(next.Free(t.Context(), held))(t)
	if !next.own.only("slot-workers-1") {
		t.Error("a slot that was freed is still held against the node")
	}
}
