package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	sddbus "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// Names of D-Bus errors: dbus-protocol.h, systemd's bus-common-errors.h and polkit's refusals as sd-bus words them.
const (
	busAccessDenied     = "org.freedesktop.DBus.Error.AccessDenied"
	busInteractive      = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
	busUnknownMethod    = "org.freedesktop.DBus.Error.UnknownMethod"
	busServiceUnknown   = "org.freedesktop.DBus.Error.ServiceUnknown"
	busNoOwner          = "org.freedesktop.DBus.Error.NameHasNoOwner"
	busSpawnNotFound    = "org.freedesktop.DBus.Error.Spawn.ServiceNotFound"
	busNoReply          = "org.freedesktop.DBus.Error.NoReply"
	busTimeout          = "org.freedesktop.DBus.Error.Timeout"
	busTimedOut         = "org.freedesktop.DBus.Error.TimedOut"
	busDisconnected     = "org.freedesktop.DBus.Error.Disconnected"
	loginBlocked        = "org.freedesktop.login1.BlockedByInhibitorLock"
	loginInProgress     = "org.freedesktop.login1.OperationInProgress"
	systemdNoSuchUnit   = "org.freedesktop.systemd1.NoSuchUnit"
	systemdUnitExists   = "org.freedesktop.systemd1.UnitExists"
	systemdMasked       = "org.freedesktop.systemd1.UnitMasked"
	systemdDestructive  = "org.freedesktop.systemd1.TransactionIsDestructive"
	systemdShuttingDown = "org.freedesktop.systemd1.ShuttingDown"
)

// connect opens a connection of this operation's own, which ends with close or ctx. An operation is rare (gates are asked
// every few minutes) and a connection takes a millisecond, so none is kept: nothing can be stale after a restart of the
// bus, and a request that fails while connecting was certainly not sent.
func (h *Host) connect(ctx context.Context) (conn *dbus.Conn, done func(), err error) {
	conn, end, err := opening(ctx, h, h.dial)
	if err != nil {
		return nil, nil, err
	}
	return conn, func() { _ = conn.Close(); end() }, nil // nothing is buffered in a connection whose calls have returned
}

// systemd is connect for go-systemd's client, which opens two connections.
func (h *Host) systemd(ctx context.Context) (conn *sddbus.Conn, done func(), err error) {
	conn, end, err := opening(ctx, h, func(life context.Context) (*sddbus.Conn, error) {
		return sddbus.NewConnection(func() (*dbus.Conn, error) { return h.dial(life) })
	})
	if err != nil {
		return nil, nil, err
	}
	return conn, func() { conn.Close(); end() }, nil
}

// opening bounds the opening of a connection by the call timeout, and its life by ctx: godbus ends a connection with its
// context, which is what interrupts an authentication that is never answered. end frees that context.
func opening[T any](ctx context.Context, h *Host, open func(life context.Context) (T, error)) (conn T, end func(), err error) {
	if err := ctx.Err(); err != nil {
		return conn, nil, fmt.Errorf("connecting to the system bus: %w", err)
	}
	life, end := context.WithCancel(ctx)
	watchdog := time.AfterFunc(h.timeout, end)
	conn, err = open(life)
	if !watchdog.Stop() {
		err = fmt.Errorf("no answer within %s", h.timeout)
	}
	if err != nil {
		end()
		return conn, nil, fmt.Errorf("connecting to the system bus at %q: %w", h.address, named(err))
	}
	return conn, end, nil
}

func (h *Host) dial(life context.Context) (*dbus.Conn, error) {
	// EXTERNAL with the numeric uid is what a system bus wants; godbus' default would look for a home directory too.
	return dbus.Connect(h.address, dbus.WithContext(life), dbus.WithAuth(dbus.AuthExternal(strconv.Itoa(os.Geteuid()))))
}

// ask calls a method and waits for its reply, at most the call timeout.
func (h *Host) ask(ctx context.Context, object dbus.BusObject, method string, args ...any) ([]any, error) {
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	call := object.CallWithContext(ctx, method, 0, args...)
	return call.Body, named(call.Err)
}

func (h *Host) property(ctx context.Context, object dbus.BusObject, iface, name string) (any, error) {
	body, err := h.ask(ctx, object, "org.freedesktop.DBus.Properties.Get", iface, name)
	if err != nil {
		return nil, fmt.Errorf("reading property %s: %w", name, err)
	}
	if len(body) == 1 {
		if v, ok := body[0].(dbus.Variant); ok {
			return v.Value(), nil
		}
	}
	return nil, fmt.Errorf("reading property %s: %w", name, wrongType(body))
}

func wrongType(got any) error {
	return fmt.Errorf("the reply %.100q has the wrong type", fmt.Sprintf("%#v", got))
}

// named puts a D-Bus error's name before its text, which godbus leaves out.
func named(err error) error {
	if name := errorName(err); name != "" {
		return fmt.Errorf("%s: %w", name, err)
	}
	return err
}

// errorName is the D-Bus name of an error that the other side, or the bus, sent; "" for one of this side.
func errorName(err error) string {
	if e, ok := errors.AsType[dbus.Error](err); ok {
		return e.Name
	}
	return ""
}

// serviceAbsent: nobody has this name and nothing can be started for it. A service that is installed and not running is
// started by the bus when it is asked.
func serviceAbsent(err error) bool {
	return slices.Contains([]string{busServiceUnknown, busNoOwner, busSpawnNotFound, systemdNoSuchUnit, systemdMasked}, errorName(err))
}

// answerLost: the request may have reached its receiver. Everything that is not an error sent by the other side counts.
func answerLost(err error) bool {
	name := errorName(err)
	return name == "" || slices.Contains([]string{busNoReply, busTimeout, busTimedOut, busDisconnected}, name)
}
