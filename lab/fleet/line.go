package fleet

import (
	"context"
	"errors"
	"net"
	"sync"
)

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// line is the connections of one process. When its host or the process ends without a farewell, they are cut.
type line struct {
	dial dialer

	mu   sync.Mutex
	cut  bool
	open map[net.Conn]struct{}
}

var errCut = errors.New("the line is cut")

func newLine(d dialer) *line { return &line{dial: d, open: map[net.Conn]struct{}{}} }

func (l *line) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := l.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		_ = c.Close()
		return nil, errCut
	}
	l.open[c] = struct{}{}
	return &wired{c, l}, nil
}

// Cut ends all connections and lets no new one come up.
func (l *line) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for c := range l.open {
		_ = c.Close()
	}
	clear(l.open)
}

// wired is a connection that its line forgets when it is closed.
type wired struct {
	net.Conn
	line *line
}

func (w *wired) Close() error {
	w.line.mu.Lock()
	delete(w.line.open, w.Conn)
	w.line.mu.Unlock()
	return w.Conn.Close()
}
