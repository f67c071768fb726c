package report

import (
	"fmt"
	"slices"
	"time"
)

// Spread of several values.
type Spread struct {
	Min     Millis   `json:"minMs"`
	Median  Millis   `json:"medianMs"`
	Max     Millis   `json:"maxMs"`
	Samples []Millis `json:"samplesMs"` // in the order they were measured
}

// Millis is a duration that is written as a number of milliseconds.
type Millis time.Duration

// MarshalJSON writes a number.
func (m Millis) MarshalJSON() ([]byte, error) { return []byte(m.number()), nil }

func (m Millis) number() string { return fmt.Sprintf("%.1f", time.Duration(m).Seconds()*1000) }

func (m Millis) String() string { return m.number() + " ms" }

// SpreadOf values; the zero Spread when there are none.
func SpreadOf(values []time.Duration) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	var s Spread
	for _, v := range values {
		s.Samples = append(s.Samples, Millis(v))
	}
	sorted := slices.Sorted(slices.Values(s.Samples))
	n := len(sorted)
	s.Min, s.Median, s.Max = sorted[0], (sorted[(n-1)/2]+sorted[n/2])/2, sorted[n-1]
	return s
}

func (s Spread) String() string {
	return fmt.Sprintf("%s / %s / %v", s.Min.number(), s.Median.number(), s.Max)
}

// Counted says of how many values it is, too.
func (s Spread) Counted() string {
	return fmt.Sprintf("%v (min / median / max of %d)", s, len(s.Samples))
}
