package bench

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

// loadNow is 0 where it cannot be read.
func loadNow() float64 {
	var load float64
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	_, _ = fmt.Sscan(string(data), &load)
	return load
}

// watchLoad looks at the load until the returned function is called, or ctx ends.
func watchLoad(ctx context.Context) func() Load {
	ctx, cancel := context.WithCancel(ctx)
	seen := make(chan Load, 1)
	go func() {
		l := Load{Least: loadNow()}
		l.Largest = l.Least
		for pause(ctx, 5*time.Second) == nil {
			now := loadNow()
			l.Least, l.Largest = min(l.Least, now), max(l.Largest, now)
		}
		seen <- l
	}()
	return func() Load {
		cancel()
		return <-seen
	}
}
