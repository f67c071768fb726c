package lock

import (
	"errors"
	"fmt"
	"time"
)

// A verb refused for one of these sent no write. Callers match them with errors.Is; every other error that a verb
// returns wraps the API's.
var (
	// ErrHeld: the slot has a holder, or this node already holds another one.
	ErrHeld = errors.New("slot is held")
	// ErrNotHeld: the slot has no holder, or another one than this node.
	ErrNotHeld = errors.New("slot is not held")
	// ErrNotNominated: the slot is meant for another node, or for another bid of this one, or the nomination is over.
	ErrNotNominated = errors.New("slot has no such nomination")
	// ErrDeleting: the Lease is being deleted.
	ErrDeleting = errors.New("slot is being deleted")
)

// verb is a pure change of a slot. It refuses with an error and then has changed nothing.
type verb func(*state) error

func take(node, uid string, c Claim, now time.Time) verb {
	return func(s *state) error {
		switch {
		case s.Holder != "":
			return fmt.Errorf("%w by %q", ErrHeld, s.Holder)
		case s.Deleting:
			return ErrDeleting
		case uid == "" || s.Nominee != uid:
			return fmt.Errorf("%w: its nominee is %q, not %q", ErrNotNominated, s.Nominee, uid)
		case s.BidCycle == "" || s.BidCycle != c.Cycle || s.BidAttempt != c.Attempt:
			return fmt.Errorf("%w: it answers the bid %q/%d, not %q/%d", ErrNotNominated, s.BidCycle, s.BidAttempt, c.Cycle, c.Attempt)
		case !now.Before(s.BidUntil):
			return fmt.Errorf("%w: it ended at %s", ErrNotNominated, s.BidUntil.Format(time.RFC3339))
		}
		s.Holder, s.HolderUID = node, uid
		s.claim(c, now)
		s.acquired = s.Renewed
		s.transitions++
		s.bid("", "", 0, time.Time{})
		return nil
	}
}

func renew(node string, c Claim, now time.Time) verb {
	return func(s *state) error {
		if s.Holder != node {
			return fmt.Errorf("%w by %q: its holder is %q", ErrNotHeld, node, s.Holder)
		}
		s.claim(c, now)
		return nil
	}
}

func free(node string) verb {
	return func(s *state) error {
		if s.Holder != node {
			return fmt.Errorf("%w by %q: its holder is %q", ErrNotHeld, node, s.Holder)
		}
		s.empty()
		return nil
	}
}

// freeGone also serves a Lease that cannot go because somebody emptied the holder by hand and left the finalizer.
func freeGone() verb {
	return func(s *state) error {
		if s.Holder == "" && !s.Deleting {
			return ErrNotHeld
		}
		s.empty()
		return nil
	}
}

func nominate(uid, node, cycle string, attempt int, until time.Time) verb {
	return func(s *state) error {
		switch {
		case uid == "" || node == "" || cycle == "":
			return fmt.Errorf("%w: a nomination names a Node, its UID and a cycle, not %q, %q and %q", ErrNotNominated, node, uid, cycle)
		case s.Holder != "":
			return fmt.Errorf("%w by %q", ErrHeld, s.Holder)
		case s.Deleting:
			return ErrDeleting
		}
		s.Nominee = uid
		s.bid(node, cycle, attempt, until)
		return nil
	}
}

// withdraw serves the nominee that declines and the marshal that thinks better of it.
func withdraw() verb {
	return func(s *state) error {
		switch {
		case s.Holder != "":
			return fmt.Errorf("%w by %q", ErrHeld, s.Holder)
		case s.Nominee == "":
			return ErrNotNominated
		}
		s.Nominee = ""
		s.bid("", "", 0, time.Time{})
		return nil
	}
}

func setHold(reason string) verb {
	return func(s *state) error {
		s.Hold = reason
		return nil
	}
}

func (s *state) claim(c Claim, now time.Time) {
	s.Cycle, s.Attempt, s.BootID, s.Cordon, s.Instance = c.Cycle, c.Attempt, c.BootID, c.Cordon, c.Instance
	s.Renewed = now.UTC().Truncate(time.Microsecond)
}

func (s *state) bid(node, cycle string, attempt int, until time.Time) {
	s.nomineeNode, s.BidCycle, s.BidAttempt, s.BidUntil = node, cycle, attempt, until.UTC()
}

// empty leaves the marshal's hold: it is not the holder's to lift.
func (s *state) empty() {
	s.Holder, s.HolderUID, s.Nominee, s.Release = "", "", "", ""
	s.claim(Claim{}, time.Time{})
	s.acquired = time.Time{}
	s.bid("", "", 0, time.Time{})
}
