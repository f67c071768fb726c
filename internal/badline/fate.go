package badline

import (
	"sync/atomic"
	"time"
)

// Rule says what becomes of a request. It is asked when the request has come in, before any of it is sent on, and must
// not block: holding a request is a Fate.
type Rule func(*Request) Fate

// Fate is what becomes of one request. The zero value passes it on.
type Fate struct {
	decided    <-chan Fate     // brings the fate; nil: it is this one
	until      <-chan struct{} // it arrives when this is closed; nil: at once
	never      bool            // it does not arrive
	loss       Loss            // what its sender gets in place of the answer
	early      bool            // and that at once, not when the answer is there
	code       int             // the line answers in the API server's place
	retryAfter time.Duration
}

// Loss is how a sender loses an answer.
type Loss int

// The ways to lose an answer. The zero value loses none.
const (
	Reset   Loss = iota + 1 // the stream is reset: the connection lives on
	Break                   // the whole connection is reset
	Silence                 // nothing comes until the sender gives up
)

// Pass passes the request on.
func Pass() Fate { return Fate{} }

// Answer answers in the API server's place: with a Status of that code and, unless it is 0, a Retry-After in whole
// seconds. The request never arrives.
func Answer(code int, retryAfter time.Duration) Fate {
	return Fate{never: true, code: code, retryAfter: retryAfter}
}

// Lose passes the request on, which takes hold, and loses the answer.
func Lose(how Loss) Fate { return Fate{loss: how} }

// Drop loses the request.
func Drop(how Loss) Fate { return Fate{never: true, loss: how} }

// Late lets the sender lose the request now, and the API server get it when until is closed.
func Late(until <-chan struct{}, how Loss) Fate { return Fate{until: until, loss: how, early: true} }

// Hold passes the request on when until is closed. A sender that still waits gets the answer.
func Hold(until <-chan struct{}) Fate { return Fate{until: until} }

// Slow passes the request on after d.
func Slow(d time.Duration) Fate {
	until := make(chan struct{})
	time.AfterFunc(d, func() { close(until) })
	return Fate{until: until}
}

// Trap holds the first request that matches, until its fate is decided.
type Trap struct {
	match  func(*Request) bool
	sprung atomic.Bool
	caught chan *Request
	fate   chan Fate
}

// Catch makes a trap. Its Rule is for [Line.Rule].
func Catch(match func(*Request) bool) *Trap {
	return &Trap{match: match, caught: make(chan *Request, 1), fate: make(chan Fate, 1)}
}

// Rule passes every request on but the first that matches.
func (t *Trap) Rule(r *Request) Fate {
	if !t.match(r) || !t.sprung.CompareAndSwap(false, true) {
		return Pass()
	}
	t.caught <- r
	return Fate{decided: t.fate}
}

// Caught brings the request that is held, once.
func (t *Trap) Caught() <-chan *Request { return t.caught }

// Release decides its fate. It may be called once, also before anything is caught.
func (t *Trap) Release(f Fate) { t.fate <- f }
