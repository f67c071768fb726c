package host

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	defaultReread      = 10 * time.Minute
	defaultCallTimeout = 5 * time.Second
	busSocket          = "/run/dbus/system_bus_socket"
	bootIDFile         = "/proc/sys/kernel/random/boot_id"
)

// ErrLocked is returned by [Host.Lock] when another process on this host holds the lock.
var ErrLocked = errors.New("another agent acts on this host")

// Config says where the host is found. The zero value is a process that runs on the host itself.
type Config struct {
	// Root is the directory below which the host's directories are mounted; "" is "/".
	Root string
	// BusAddress is the D-Bus address of the host's system bus; "" is the socket /run/dbus/system_bus_socket below Root.
	// Mount the directory /run/dbus: a mount of the socket itself goes stale when the bus is restarted.
	BusAddress string
	// Files are the sentinels, as paths of the host; none is /run/reboot-required and /run/reboot-needed. Beside each,
	// a file with `.pkgs` added to its name lists the packages that asked, one a line, as Debian and Ubuntu write it.
	Files []string
	// Reread is how often sentinels are read without an event; 0 is 10 minutes.
	Reread time.Duration
	// LockDir is the directory of the host, existing, that [Host.Lock] locks; "" is /run.
	LockDir string
	// CallTimeout bounds every single wait for the bus; 0 is 5 seconds.
	CallTimeout time.Duration
	// Log is nil for none.
	Log *slog.Logger
}

// Host is safe for concurrent use.
type Host struct {
	root    string
	address string
	sources []source
	reread  time.Duration
	lockDir string
	timeout time.Duration
	log     *slog.Logger
}

// New checks the whole configuration and names every fault in it. It touches neither files nor the bus.
func New(c Config) (*Host, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	h := &Host{root: c.Root, address: c.BusAddress, reread: c.Reread, lockDir: c.LockDir, timeout: c.CallTimeout, log: c.Log}
	h.setDefaults()
	if !filepath.IsAbs(h.root) {
		fault("root %q is not an absolute path", h.root)
	}
	if !strings.Contains(h.address, ":") {
		fault("bus address %q has no transport, want one like unix:path=%s", h.address, busSocket)
	}
	if h.reread < 0 {
		fault("re-read interval %s is negative", h.reread)
	}
	if h.timeout < 0 {
		fault("call timeout %s is negative", h.timeout)
	}
	if !filepath.IsAbs(h.lockDir) {
		fault("lock directory %q is not an absolute path", h.lockDir)
	}
	files := c.Files
	if len(files) == 0 {
		files = []string{"/run/reboot-required", "/run/reboot-needed"}
	}
	seen := map[string]bool{}
	for _, f := range files {
		path := hostPath(f)
		switch {
		case !filepath.IsAbs(f), path == "/", printable(f) != f:
			fault("sentinel file %q is not an absolute path of a file", f)
		case seen[path]:
			fault("sentinel file %q is named twice", f)
		default:
			seen[path] = true
			h.sources = append(h.sources, source(path))
		}
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("checking the host's configuration: %w", errors.Join(faults...))
	}
	return h, nil
}

func (h *Host) setDefaults() {
	if h.root == "" {
		h.root = "/"
	}
	h.root = filepath.Clean(h.root)
	if h.address == "" {
		h.address = "unix:path=" + dbus.EscapeBusAddressValue(filepath.Join(h.root, busSocket))
	}
	if h.reread == 0 {
		h.reread = defaultReread
	}
	if h.lockDir == "" {
		h.lockDir = "/run"
	}
	if h.timeout == 0 {
		h.timeout = defaultCallTimeout
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
}

// hostPath cleans a path of the host. /var/run is a link to /run on every systemd host, as an absolute link mostly, which
// would lead out of Root; users know the sentinel by that name.
func hostPath(path string) string {
	path = filepath.Clean(path)
	if rest, ok := strings.CutPrefix(path, "/var/run/"); ok {
		return "/run/" + rest
	}
	return path
}

// under is the place of a host's path in this process's file system.
func (h *Host) under(path string) string { return filepath.Join(h.root, path) }

// BootID returns the ID the host's kernel took at boot, in the form of status.nodeInfo.bootID. Mount the directory
// /proc/sys/kernel/random of the host: the /proc of a container that runs in a container tells another.
func (h *Host) BootID() (string, error) {
	raw, err := os.ReadFile(h.under(bootIDFile))
	if err != nil {
		return "", fmt.Errorf("reading the boot ID: %w", err)
	}
	id := strings.TrimSpace(string(raw))
	uuid := regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	if !uuid.MatchString(id) || strings.Trim(id, "0-") == "" {
		return "", fmt.Errorf("reading the boot ID: %s holds %.64q, not a boot ID", h.under(bootIDFile), id)
	}
	return id, nil
}

// Lock makes this process the one agent that acts on the host, until release or the end of the process. It locks the
// directory LockDir with flock(2), which needs no right to write and works on a read-only mount. [ErrLocked] when another
// process has it.
func (h *Host) Lock() (release func(), err error) {
	dir, err := os.OpenFile(h.under(h.lockDir), os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the lock directory: %w", err)
	}
	if err := flock(dir); err != nil {
		_ = dir.Close() // opened read-only: nothing can be lost
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking %q: %w", dir.Name(), ErrLocked)
		}
		return nil, fmt.Errorf("locking %q: %w", dir.Name(), err)
	}
	return sync.OnceFunc(func() { _ = dir.Close() }), nil // closing the only copy releases the lock
}

func flock(f *os.File) error {
	for {
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
