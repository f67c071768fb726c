package kube

import (
	"context"
	"errors"
	"net"
	"time"
)

// The first packets of a pod whose node has just booted may be lost, because its network is still being laid. TCP sends
// them again after a second, then two; a dial that is given up sooner and begun anew does not wait for that.
const (
	firstDial = 250 * time.Millisecond
	lastDial  = 4 * time.Second
)

// dial connects like net.Dialer, in growing attempts.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	for limit := firstDial; ; limit *= 2 {
		d := net.Dialer{Timeout: limit, KeepAlive: DeadConnection}
		c, err := d.DialContext(ctx, network, address)
		if err == nil {
			return c, nil
		}
		var late net.Error
		if !errors.As(err, &late) || !late.Timeout() || ctx.Err() != nil || limit >= lastDial {
			return nil, err //nolint:wrapcheck // the transport wraps it.
		}
	}
}
