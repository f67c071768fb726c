package host

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/godbus/dbus/v5"
)

// What [Host.Reboot] can be told. Each is wrapped around the answer itself, D-Bus name and text.
var (
	// ErrInhibited: a `block` inhibitor on shutdown is held; [Host.Inhibitors] names it.
	ErrInhibited = errors.New("an inhibitor blocks the reboot")
	// ErrInProgress: a shutdown, reboot or sleep is under way already.
	ErrInProgress = errors.New("a shutdown is in progress already")
	// ErrUnknown: the request was sent and its answer is lost; the reboot may come.
	ErrUnknown = errors.New("the answer to the reboot request is lost")
)

const (
	loginName    = "org.freedesktop.login1"
	loginManager = "org.freedesktop.login1.Manager"

	// rebootCheckInhibitors is SD_LOGIND_ROOT_CHECK_INHIBITORS: before systemd 257 root's reboot passes `block` locks
	// unless it asks not to. It closes the moment between the last look at the inhibitors and this call for locks of other
	// users; those of root's own stop root from systemd 257 on (seen on 252: the reboot is accepted in spite of one).
	rebootCheckInhibitors uint64 = 1 << 0
)

func loginObject(conn *dbus.Conn) dbus.BusObject {
	return conn.Object(loginName, "/org/freedesktop/login1")
}

// Reboot asks logind for a reboot of the host and returns its answer; nil is: accepted. A logind without RebootWithFlags
// (before systemd 251) is asked in the old way, and systemd itself on a host that has no logind at all.
func (h *Host) Reboot(ctx context.Context) error {
	if err := h.reboot(ctx); err != nil {
		return fmt.Errorf("asking for a reboot: %w", err)
	}
	return nil
}

func (h *Host) reboot(ctx context.Context) error {
	conn, done, err := h.connect(ctx)
	if err != nil {
		return err // nothing was asked
	}
	defer done()
	login := loginObject(conn)
	_, err = h.ask(ctx, login, loginManager+".RebootWithFlags", rebootCheckInhibitors)
	if errorName(err) == busUnknownMethod {
		_, err = h.ask(ctx, login, loginManager+".Reboot", false) // false: not interactive
	}
	if serviceAbsent(err) {
		return h.rebootBySystemd(ctx)
	}
	return h.refusal(ctx, login, err)
}

// rebootBySystemd does what logind would do.
func (h *Host) rebootBySystemd(ctx context.Context) error {
	conn, done, err := h.systemd(ctx)
	if err != nil {
		return err // nothing was asked
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	_, err = conn.StartUnitContext(ctx, "reboot.target", "replace-irreversibly", nil)
	return h.refusal(ctx, nil, named(err))
}

// refusal says what the error of a reboot request means. login is nil where no inhibitors exist.
func (h *Host) refusal(ctx context.Context, login dbus.BusObject, err error) error {
	switch name := errorName(err); {
	case err == nil:
		return nil
	case answerLost(err):
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	case name == loginBlocked:
		return fmt.Errorf("%w: %w", ErrInhibited, err)
	case name == loginInProgress, name == systemdDestructive, name == systemdShuttingDown:
		return fmt.Errorf("%w: %w", ErrInProgress, err)
	case name == busAccessDenied, name == busInteractive:
		// Until systemd 257 inhibitors are denials: "Access denied (to root) due to active block inhibitor", or polkit's
		// "Interactive authentication required" when it is asked whether they may be passed over.
		if strings.Contains(err.Error(), "inhibitor") || h.blocked(ctx, login) {
			return fmt.Errorf("%w: %w", ErrInhibited, err)
		}
		// This process is not root on the host (a user namespace), or AppArmor, SELinux or a bus policy stands between.
		return fmt.Errorf("asking for a reboot is not permitted: %w", err)
	default:
		return err
	}
}

// blocked reports whether a lock that blocks shutdown is known to be held.
func (h *Host) blocked(ctx context.Context, login dbus.BusObject) bool {
	if login == nil {
		return false
	}
	held, err := h.inhibitors(ctx, login)
	return err == nil && len(held) > 0
}
