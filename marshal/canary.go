package marshal

import (
	"fmt"
	"slices"
	"time"
)

// A group with canaries tries a wish for a reboot on few nodes first. A wish is covered when it is not younger than the
// moment at which the canaries had been back, and healthy, for long enough: what was installed on other nodes by then was
// installed on them. Younger wishes are tried anew. All that has to be remembered are two times, a [Trial].

// Trials returns what is to be remembered of each group's canaries. A nomination goes by what the Lease has of it already.
func Trials(v View) map[string]Trial {
	s := look(v)
	out := map[string]Trial{}
	for _, q := range s.squads {
		if t := s.next(q); t != (Trial{}) {
			out[q.Name] = t
		}
	}
	return out
}

// next is the trial as it stands now: over when its canaries have proven themselves, begun when a wish is not covered.
func (s *survey) next(q *squad) Trial {
	t := q.trial
	if q.Canaries == 0 {
		return Trial{}
	}
	if !t.Started.IsZero() {
		if end, ok := q.proven(); ok && !s.Now.Before(end) {
			t = Trial{Covered: end}
		}
	}
	if t.Started.IsZero() && slices.ContainsFunc(q.members, func(n *Node) bool { return n.Bids && n.Pending.After(t.Covered) }) {
		t.Started = s.Now
	}
	return t
}

// trialsDue is when the next trial is over, zero when that depends on nodes.
func trialsDue(v View) time.Time {
	var next time.Time
	for _, q := range look(v).squads {
		if q.Canaries == 0 || q.trial.Started.IsZero() {
			continue
		}
		if end, ok := q.proven(); ok && (next.IsZero() || end.Before(next)) {
			next = end
		}
	}
	return next
}

// covered tells whether the node's wish was tried. In a group without canaries every wish counts as tried.
func (q *squad) covered(n *Node) bool { return q.Canaries == 0 || !n.Pending.After(q.trial.Covered) }

// proven returns when the others may go, as far as the canaries are concerned; false while not enough of them are back.
func (q *squad) proven() (time.Time, bool) {
	back := q.back()
	want := min(q.Canaries, len(q.members))
	if len(back) < want || want == 0 {
		return time.Time{}, false
	}
	return back[want-1].Add(q.CanarySoak), true
}

// back are the times at which canaries of the trial that is on came back, of those that are still healthy, in their order.
func (q *squad) back() []time.Time {
	var at []time.Time
	for _, n := range q.members {
		if !n.Proven.Before(q.trial.Started) && n.Ready && n.Phase != phaseFailed {
			at = append(at, n.Proven)
		}
	}
	slices.SortFunc(at, time.Time.Compare)
	return at
}

// canaries returns the bids that may go as far as canaries are concerned.
func (s *survey) canaries(q *squad, bids []*Node) []*Node {
	if q.Canaries == 0 {
		return bids
	}
	left, why := 0, "a canary goes first"
	if !q.trial.Started.IsZero() {
		left = min(q.Canaries, len(q.members)) - len(q.back())
		for _, n := range q.members {
			if s.slotOf[n.UID] != nil && !q.covered(n) && !s.stuck(q, n) {
				left--
				why = n.Name + " goes first"
			}
		}
	}
	if end, ok := q.proven(); ok && !q.trial.Started.IsZero() {
		why = fmt.Sprintf("the canaries are back; the others go at %s", end.UTC().Format(time.RFC3339))
	}
	slices.SortFunc(bids, s.order)
	return slices.DeleteFunc(bids, func(n *Node) bool {
		if q.covered(n) {
			return false
		}
		left--
		if left >= 0 {
			return false
		}
		q.trying = why
		q.say(n, reasonCanary, why)
		return true
	})
}
