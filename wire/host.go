package wire

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"kubebaton.io/baton/agent"
	"kubebaton.io/baton/host"
)

// Host is the machine beneath an agent, as [*host.Host] is, with its types and its errors.
type Host interface {
	BootID() (string, error)
	Sentinel(ctx context.Context) (host.Sentinel, error)
	Watch(ctx context.Context, changed func()) error
	Shutdown(ctx context.Context) (string, error)
	Inhibitors(ctx context.Context) ([]string, error)
	OtherRebooters(ctx context.Context) ([]string, error)
	KubeletEndsPods(ctx context.Context) (bool, error)
	Reboot(ctx context.Context) error
	Lock() (release func(), err error)
}

// Hooks runs the programs that people put on the machine, as [*host.Host] does.
type Hooks interface {
	RunHooks(ctx context.Context, stage string, s host.HookSettings) (host.HookOutcome, error)
	ClearHooks(ctx context.Context) error
}

type hookSeam struct{ h Hooks }

func (s hookSeam) Run(ctx context.Context, stage string, hs agent.HookSettings) (agent.HookOutcome, error) {
	v, err := s.h.RunHooks(ctx, stage, host.HookSettings(hs))
	out := agent.HookOutcome{Hooks: make([]agent.HookResult, len(v.Hooks))}
	for i, r := range v.Hooks {
		out.Hooks[i] = agent.HookResult(r)
	}
	return out, err
}

func (s hookSeam) Clear(ctx context.Context) error { return s.h.ClearHooks(ctx) }

// hostSeam is the host. The sentinels that it looks for are those of the configuration in force; before there is one,
// nothing is known of them.
type hostSeam struct {
	Host
	sentinels atomic.Pointer[Host]
	replaced  chan struct{}
}

func newHostSeam(h Host) *hostSeam {
	return &hostSeam{Host: h, replaced: make(chan struct{}, 1)}
}

// look makes h the one that looks for sentinels.
func (s *hostSeam) look(h Host) {
	s.sentinels.Store(&h)
	select {
	case s.replaced <- struct{}{}:
	default:
	}
}

func (s *hostSeam) Sentinel(ctx context.Context) (agent.Sentinel, error) {
	h := s.sentinels.Load()
	if h == nil {
		return agent.Sentinel{}, errNoSentinels
	}
	v, err := (*h).Sentinel(ctx)
	return agent.Sentinel(v), err
}

func (s *hostSeam) Watch(ctx context.Context, changed func()) error {
	for ctx.Err() == nil {
		sub, cancel := context.WithCancel(ctx)
		go func() {
			select {
			case <-sub.Done():
			case <-s.replaced:
				cancel()
			}
		}()
		var err error
		if h := s.sentinels.Load(); h != nil {
			err = (*h).Watch(sub, changed)
		} else {
			<-sub.Done()
		}
		cancel()
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// errNoSentinels: no configuration has said yet where to look.
var errNoSentinels = errors.New("no configuration says which sentinels to look for")

func (s *hostSeam) Reboot(ctx context.Context) error {
	err := s.Host.Reboot(ctx)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, host.ErrInhibited):
		return fmt.Errorf("%w: %w", agent.ErrInhibited, err)
	case errors.Is(err, host.ErrInProgress):
		return fmt.Errorf("%w: %w", agent.ErrInProgress, err)
	case errors.Is(err, host.ErrUnknown):
		return fmt.Errorf("%w: %w", agent.ErrUnknown, err)
	}
	return err
}
