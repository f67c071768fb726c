package marshal

import (
	"fmt"
	"slices"
	"time"
)

// A group with canaries tries a wish for a reboot on few nodes first. Once the canaries have been back, and healthy, for long
// enough, a wish is covered when it is not younger than the moment at which the first of them went down: what was installed on
// other nodes by then was installed on it, and booted. Younger wishes are tried anew. All that has to be remembered are two
// times, a [Trial].

// trials is what is to be remembered of each group's canaries. A nomination goes by what the Lease has of it already.
func (s *survey) trials() map[string]Trial {
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
		if covers, end, ok := s.proven(q); ok && !s.Now.Before(end) {
			t = Trial{Covered: covers}
		}
	}
	if t.Started.IsZero() && slices.ContainsFunc(q.members, func(n *Node) bool { return n.Bids && n.wish().After(t.Covered) }) {
		t.Started = s.Now
	}
	return t
}

// trialsDue is when the next trial is over, or a canary that broke in one counts as failed no more; zero when that depends on nodes.
func (s *survey) trialsDue() time.Time {
	var next time.Time
	for _, q := range s.squads {
		if q.Canaries == 0 || q.trial.Started.IsZero() {
			continue
		}
		if _, end, ok := s.proven(q); ok && (next.IsZero() || end.Before(next)) {
			next = end
		}
		for _, n := range q.members {
			if end := n.Proven.Add(q.CanarySoak); q.canary(n) && !n.Ready && s.Now.Before(end) && (next.IsZero() || end.Before(next)) {
				next = end
			}
		}
	}
	return next
}

// covered tells whether the node's wish was tried. In a group without canaries every wish counts as tried.
func (q *squad) covered(n *Node) bool { return q.Canaries == 0 || !n.wish().After(q.trial.Covered) }

// proven returns up to which time the canaries cover wishes, and when the others may go, as far as the canaries are concerned;
// false while not enough of them are back.
func (s *survey) proven(q *squad) (covers, end time.Time, ok bool) {
	back := s.back(q)
	want := min(q.Canaries, len(q.members))
	if len(back) < want || want == 0 {
		return time.Time{}, time.Time{}, false
	}
	covers = back[0].down()
	for _, n := range back[:want] {
		if d := n.down(); d.Before(covers) {
			covers = d
		}
	}
	return covers, back[want-1].Proven.Add(q.CanarySoak), true
}

// down is when the node was taken down for its last proven reboot. The wish that it served may be younger: what the host
// wants changes until the call.
func (n *Node) down() time.Time {
	if at := n.Proven.Add(-n.Took); n.Took > 0 && at.After(n.Tried) {
		return at
	}
	return n.Tried
}

// canary tells whether the node has come back from a reboot for a wish that the trial is about.
func (q *squad) canary(n *Node) bool {
	return q.Canaries > 0 && !q.trial.Started.IsZero() && !n.Proven.Before(q.trial.Started) && n.Tried.After(q.trial.Covered)
}

// back are the canaries of the trial that are back and healthy, in the order of their return. Once its soak is over, one that
// went down before the oldest wish that has still to be tried does not count any more: it is left from a wish that fewer nodes
// had than there are to be canaries.
func (s *survey) back(q *squad) []*Node {
	var oldest time.Time
	for _, n := range q.members {
		if w := n.wish(); n.Phase == phaseWaiting && !q.covered(n) && (oldest.IsZero() || w.Before(oldest)) {
			oldest = w
		}
	}
	var back []*Node
	for _, n := range q.members {
		aged := n.down().Before(oldest) && n.Proven.Add(q.CanarySoak).Before(s.Now)
		if q.canary(n) && !aged && n.Ready && !s.stuck(q, n) {
			back = append(back, n)
		}
	}
	slices.SortFunc(back, func(a, b *Node) int { return a.Proven.Compare(b.Proven) })
	return back
}

// canaries returns the bids that may go as far as canaries are concerned.
func (s *survey) canaries(q *squad, bids []*Node) []*Node {
	if q.Canaries == 0 {
		return bids
	}
	left, why := 0, "a canary goes first"
	if !q.trial.Started.IsZero() {
		left = min(q.Canaries, len(q.members)) - len(s.back(q))
		for _, n := range q.members {
			if s.slotOf[n.UID] != nil && !q.covered(n) && !s.stuck(q, n) {
				left--
				why = n.Name + " goes first"
			}
		}
	}
	if _, end, ok := s.proven(q); ok && !q.trial.Started.IsZero() {
		why = fmt.Sprintf("the canaries are back; the others go at %s", end.UTC().Format(time.RFC3339))
	}
	waits := left <= 0 // for canaries that have gone, or a trial that begins; a canary that cannot go keeps no other group waiting
	slices.SortFunc(bids, s.turn(q))
	return slices.DeleteFunc(bids, func(n *Node) bool {
		if q.covered(n) {
			return false
		}
		left--
		if left >= 0 {
			return false
		}
		if waits {
			q.trying = why
		}
		q.say(n, reasonCanary, why)
		return true
	})
}
