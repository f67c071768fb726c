package host

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// hooksDir holds one directory a stage, and that the hooks of the stage.
const hooksDir = "/etc/baton/hooks.d"

// The stages of a reboot at which hooks run, as their directories are named.
const (
	PreDrain   = "pre-drain"
	PreReboot  = "pre-reboot"
	PostReboot = "post-reboot"
)

// Results of a hook that are not systemd's own words.
const (
	// HookSucceeded is the only result that lets a cycle go on.
	HookSucceeded = "success"
	// HookRefused is a hook that was not started: the file is not to be trusted, or systemd did not take it.
	HookRefused = "refused"
	// HookStopped is a hook that somebody stopped before its end.
	HookStopped = "stopped"
)

// HookSettings say which run of the hooks it is, and what they are told.
type HookSettings struct {
	Node    string
	Cycle   string
	Attempt int           // with the cycle and the stage it names the run: nothing of one run is done twice
	Reason  string        // why the host is rebooted, for people
	Timeout time.Duration // of each hook; 0 is 5 minutes
}

const defaultHookTimeout = 5 * time.Minute

// HookResult is how one hook ended.
type HookResult struct {
	Name   string
	Result string // HookSucceeded, HookRefused, HookStopped, or systemd's word: exit-code, signal, timeout, oom-kill, …
	// Message says it to people: one line of at most 400 bytes, with the exit code and the end of what the hook wrote.
	Message string
	Took    time.Duration
}

// HookOutcome is how the hooks of a stage ended. When one has failed, it is the last one: those after it are not run.
type HookOutcome struct{ Hooks []HookResult }

// RunHooks runs the executables in /etc/baton/hooks.d/<stage> one after another, by name, each as a transient unit of
// systemd, and returns when all have succeeded or one has not. That is an answer; an error is none: the bus or systemd
// could not be asked, and the same run may be asked for again.
//
// A unit outlives this process and the bus. What one run (the same stage, cycle and attempt) has started before is found and
// waited for, or found to have ended, and never started twice. What other runs have left is stopped first. Units end with
// the boot.
//
// Before the drain the hooks of the other stages are looked at too, so that a file that would be refused later keeps the
// node from going down.
func (h *Host) RunHooks(ctx context.Context, stage string, s HookSettings) (HookOutcome, error) {
	var o HookOutcome
	names, refused, err := h.hooks(stage)
	switch {
	case err != nil:
		return o, fmt.Errorf("reading the hooks: %w", err)
	case refused != nil:
		return HookOutcome{Hooks: []HookResult{*refused}}, nil
	case len(names) == 0:
		return o, nil
	}
	u, done, err := h.units(ctx)
	if err != nil {
		return o, fmt.Errorf("running the %s hooks: %w", stage, err)
	}
	defer done()
	if err := u.stopAll(ctx, func(unit string) bool { return !s.owns(unit) }); err != nil {
		return o, fmt.Errorf("stopping hooks of an earlier run: %w", err)
	}
	for _, name := range names {
		r, err := h.runHook(ctx, u, stage, name, s)
		if err != nil {
			return o, fmt.Errorf("running the %s hook %s: %w", stage, name, err)
		}
		o.Hooks = append(o.Hooks, r)
		if r.Result != HookSucceeded {
			break
		}
	}
	return o, nil
}

// ClearHooks stops every hook that runs, and makes systemd forget those that have ended. It asks nobody on a host that has
// no hooks.
func (h *Host) ClearHooks(ctx context.Context) error {
	if _, err := os.Lstat(h.under(hooksDir)); absent(err) && !removed(h.under(path.Dir(hooksDir))) {
		return nil
	}
	u, done, err := h.units(ctx)
	if err != nil {
		return fmt.Errorf("stopping hooks: %w", err)
	}
	defer done()
	if err := u.stopAll(ctx, func(string) bool { return true }); err != nil {
		return fmt.Errorf("stopping hooks: %w", err)
	}
	return nil
}

// hooks lists the hooks of a stage. One that is not to be trusted is an answer too: nothing of the stage is run then.
func (h *Host) hooks(stage string) (names []string, refused *HookResult, err error) {
	if above := path.Dir(hooksDir); removed(h.under(above)) {
		return nil, refuse(above, "is not the host's any more: it was removed or replaced since the agent's pod was started",
			"restart the agent's pod: a mount stays at the directory of before"), nil
	}
	if _, err := os.Lstat(h.under(hooksDir)); absent(err) {
		return nil, nil, nil
	}
	root, err := os.OpenRoot(h.root)
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	for _, dir := range []string{path.Dir(hooksDir), hooksDir} {
		if r, err := refusedDir(root, dir); r != nil || err != nil {
			return nil, r, err
		}
	}
	if stage == PreDrain {
		if refused, err = refusedLater(root); refused != nil || err != nil {
			return nil, refused, err
		}
	}
	return hooksOf(root, stage)
}

// removed tells whether a directory has no place in its file system any more, which can be seen only where it is mounted.
func removed(dir string) bool {
	info, err := os.Stat(dir)
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Nlink == 0
}

// refusedLater looks at all that the later stages would refuse.
func refusedLater(root *os.Root) (*HookResult, error) {
	stages, err := list(root, hooksDir)
	if err != nil {
		return nil, err
	}
	for _, stage := range stages {
		if !slices.Contains([]string{PreDrain, PreReboot, PostReboot}, stage) {
			return refuse(path.Join(hooksDir, stage), "is no stage", "the stages are pre-drain, pre-reboot and post-reboot"), nil
		}
		if _, r, err := hooksOf(root, stage); r != nil || err != nil {
			return r, err
		}
	}
	return nil, nil //nolint:nilnil // nothing is refused
}

// maxHookName leaves room in the name of a unit, which has at most 255 bytes.
const maxHookName = 64

func hooksOf(root *os.Root, stage string) (names []string, refused *HookResult, err error) {
	dir := path.Join(hooksDir, stage)
	if _, err := root.Lstat(inRoot(dir)); absent(err) {
		return nil, nil, nil
	}
	if r, err := refusedDir(root, dir); r != nil || err != nil {
		return nil, r, err
	}
	if names, err = list(root, dir); err != nil {
		return nil, nil, err
	}
	plain := regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*$`)
	for _, name := range names {
		file := path.Join(dir, name)
		if !plain.MatchString(name) || len(name) > maxHookName {
			return nil, refuse(file, "has a name that is none for a hook", "it is made of at most 64 letters, digits, '.', '_' and '-', and does not begin with a dot: rename or remove it"), nil
		}
		info, err := root.Lstat(inRoot(file))
		if err != nil {
			return nil, nil, err
		}
		if why, fix := untrusted(info.Mode(), owner(info), false); why != "" {
			return nil, refuse(file, why, fix), nil
		}
	}
	return names, nil, nil
}

// list returns the names in a directory, sorted.
func list(root *os.Root, dir string) ([]string, error) {
	d, err := root.Open(inRoot(dir))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

func refusedDir(root *os.Root, dir string) (*HookResult, error) {
	info, err := root.Lstat(inRoot(dir))
	if err != nil {
		return nil, err
	}
	if why, fix := untrusted(info.Mode(), owner(info), true); why != "" {
		return refuse(dir, why, fix), nil
	}
	return nil, nil //nolint:nilnil // it is not refused
}

// owner is the file's; of a file system that does not say, nobody's.
func owner(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

// untrusted tells why what is at a path could be the work of others than root, or could not be run, and what mends it. Who
// root is, is this process's own user: nobody else could ask systemd for anything.
func untrusted(mode fs.FileMode, uid int, dir bool) (why, fix string) {
	switch {
	case dir && !mode.IsDir():
		return "is no directory", "a link is none either"
	case !dir && !mode.IsRegular():
		return "is no regular file", "a link is none either: put the executable itself there"
	case uid != os.Geteuid():
		return fmt.Sprintf("belongs to user %d", uid), "chown root it"
	case mode.Perm()&0o022 != 0:
		return "can be written by others than root", "chmod go-w it"
	case !dir && mode.Perm()&0o100 == 0:
		return "cannot be executed", "chmod +x it, or remove it"
	}
	return "", ""
}

func refuse(file, why, fix string) *HookResult {
	name := strings.TrimPrefix(file, hooksDir+"/")
	return &HookResult{Name: printable(name), Result: HookRefused, Message: fmt.Sprintf("refused: %s %s: %s", printable(file), why, fix)}
}

// runHook runs one hook, or finds that it was run.
func (h *Host) runHook(ctx context.Context, u *units, stage, name string, s HookSettings) (HookResult, error) {
	if s.Timeout <= 0 {
		s.Timeout = defaultHookTimeout
	}
	output := "/run/" + hookUnits + stage + "-" + name + ".log"
	end, err := u.run(ctx, transient{
		name:        s.prefix(stage) + name + ".service",
		description: fmt.Sprintf("Baton's %s hook %s", stage, name),
		path:        path.Join(hooksDir, stage, name),
		timeout:     s.Timeout,
		output:      output,
		environment: []string{
			"BATON_NODE=" + printable(s.Node), "BATON_STAGE=" + stage, "BATON_CYCLE=" + printable(s.Cycle),
			fmt.Sprintf("BATON_ATTEMPT=%d", s.Attempt), "BATON_REASON=" + printable(s.Reason),
		},
	})
	if err != nil {
		return HookResult{}, err
	}
	r := HookResult{Name: name, Result: end.result, Message: end.text(s.Timeout), Took: end.took}
	if end.took > 0 || end.code != 0 { // else nothing of it ran, and the file is of another run
		if said := h.lastWords(output); said != "" {
			r.Message += ": " + said
		}
	}
	return r, nil
}

// hookUnits is how the names of all units begin that are hooks.
const hookUnits = "baton-hook-"

// prefix is how the names of the units of one run begin.
func (s HookSettings) prefix(stage string) string {
	cycle := regexp.MustCompile(`[^A-Za-z0-9]`).ReplaceAllString(s.Cycle, "_") // of a lost record: what stood on the slot
	return fmt.Sprintf("%s%s-%.64s-%d-", hookUnits, stage, cycle, s.Attempt)
}

// owns tells whether a unit is of the same cycle and attempt.
func (s HookSettings) owns(unit string) bool {
	return slices.ContainsFunc([]string{PreDrain, PreReboot, PostReboot}, func(stage string) bool {
		return strings.HasPrefix(unit, s.prefix(stage))
	})
}

const (
	maxTail  = 4 << 10 // bytes read of the end of what a hook wrote
	maxWords = 320     // bytes shown of it
)

// lastWords is the end of what a hook wrote, as one line; "" when it wrote nothing, or that cannot be read.
func (h *Host) lastWords(file string) string {
	f, err := os.OpenFile(h.under(file), os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return ""
	}
	tail, err := io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-maxTail), maxTail))
	if err != nil {
		return ""
	}
	line := printable(strings.Join(strings.Fields(strings.ToValidUTF8(string(tail), "")), " "))
	if len(line) > maxWords {
		line = "…" + strings.ToValidUTF8(line[len(line)-maxWords+len("…"):], "")
	}
	return line
}
