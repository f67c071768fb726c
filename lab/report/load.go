package report

import (
	"context"
	"fmt"
	"os"
	"time"
)

// Load is the least and the largest load average (of one minute) while something was measured.
type Load struct {
	Least   float64 `json:"least"`
	Largest float64 `json:"largest"`
}

func (l Load) String() string {
	if l.Least == l.Largest {
		return fmt.Sprintf("%.1f", l.Least)
	}
	return fmt.Sprintf("%.1f–%.1f", l.Least, l.Largest)
}

// LoadNow is 0 where it cannot be read.
func LoadNow() float64 {
	var load float64
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	_, _ = fmt.Sscan(string(data), &load)
	return load
}

// WatchLoad looks at the load until the returned function is called, or ctx ends.
func WatchLoad(ctx context.Context) func() Load {
	ctx, cancel := context.WithCancel(ctx)
	seen := make(chan Load, 1)
	go func() {
		tick := time.NewTicker(5 * time.Second)
		defer tick.Stop()
		l := Load{Least: LoadNow()}
		l.Largest = l.Least
		for {
			select {
			case <-ctx.Done():
				seen <- l
				return
			case <-tick.C:
				now := LoadNow()
				l.Least, l.Largest = min(l.Least, now), max(l.Largest, now)
			}
		}
	}()
	return func() Load {
		cancel()
		return <-seen
	}
}
