package fleet

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// Span is a duration that is drawn evenly from Mean ± Spread.
type Span struct{ Mean, Spread time.Duration }

func (s Span) String() string { return fmt.Sprintf("%v±%v", s.Mean, s.Spread) }

// Set reads what String writes; ± may be written as +-.
func (s *Span) Set(text string) error {
	mean, spread, ok := strings.Cut(strings.Replace(text, "+-", "±", 1), "±")
	if !ok {
		spread = "0s"
	}
	var err error
	if s.Mean, err = time.ParseDuration(mean); err != nil {
		return fmt.Errorf("reading the mean of %q: %w", text, err)
	}
	if s.Spread, err = time.ParseDuration(spread); err != nil {
		return fmt.Errorf("reading the spread of %q: %w", text, err)
	}
	if s.Spread < 0 || s.Spread > s.Mean {
		return fmt.Errorf("%q: the spread is negative or larger than the mean", text)
	}
	return nil
}

func (s Span) draw(r *rand.Rand) time.Duration {
	return s.Mean + time.Duration((2*r.Float64()-1)*float64(s.Spread))
}

// times are those of one node. They hang on the seed and the node's number only.
type times struct {
	drain, boot time.Duration
	lost        bool // it never comes back from its reboot
}

func drawn(seed uint64, i int, drain, boot Span, lost float64) times {
	r := rand.New(rand.NewPCG(seed, uint64(i)+1)) //nolint:gosec // a simulation that can be repeated
	return times{drain: drain.draw(r), boot: boot.draw(r), lost: r.Float64() < lost}
}

// floor is the shortest time in which the cycles could be done if all slots were always in use and nothing but the
// hardware took time: their sum over the number of slots.
func floor(cycles []times, slots int) time.Duration {
	var sum time.Duration
	for _, t := range cycles {
		if !t.lost {
			sum += t.drain + t.boot
		}
	}
	return sum / time.Duration(slots)
}

// limit is how many of n nodes may be down: a number, or a part of n in per cent, rounded down, at least one.
func limit(of string, n int) (int, error) {
	percent, isPercent := strings.CutSuffix(of, "%")
	v, err := strconv.Atoi(percent)
	if err != nil || v < 1 {
		return 0, fmt.Errorf("%q: want a number of nodes or per cent", of)
	}
	if isPercent {
		v = n * v / 100
	}
	return max(1, v), nil
}

// percentile of sorted values, by the nearest rank.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, int(math.Ceil(p/100*float64(len(sorted))))-1)]
}
