package host_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"kubebaton.io/baton/host"
	"kubebaton.io/baton/internal/bustest"
)

const hooksDir = "etc/baton/hooks.d"

// hook puts a hook where the host below root has it.
func hook(t *testing.T, root, name string) string {
	t.Helper()
	path := filepath.Join(root, hooksDir, name)
	mkdir(t, filepath.Dir(path))
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil { //nolint:gosec // a hook can be executed.
		t.Fatal(err)
	}
	return path
}

func unitOf(stage, name string) string {
	return "baton-hook-" + stage + "-cycle-1-" + name + ".service"
}

func run1() host.HookSettings {
	return host.HookSettings{Node: "n1", Cycle: "cycle", Attempt: 1, Reason: "a new kernel", Timeout: time.Minute}
}

// hookHost is a host with these hooks and a systemd that knows no unit.
func hookHost(t *testing.T, hooks ...string) (h *host.Host, u *bustest.Units, b *bustest.Bus, root string) {
	t.Helper()
	b, root = startBus(t)
	for _, name := range hooks {
		hook(t, root, name)
	}
	u = bustest.NewUnits()
	u.Serve(t, b)
	return newHost(t, host.Config{Root: root}), u, b, root
}

func TestHooksAreRunOneAfterAnotherByName(t *testing.T) {
	h, u, _, root := hookHost(t, "pre-drain/20-b", "pre-drain/10-a.sh", "pre-reboot/10-c")
	var got []map[string]any
	u.Script(func(unit string, properties map[string]dbus.Variant) bustest.Ending {
		p := map[string]any{"unit": unit}
		for name, v := range properties {
			p[name] = v.Value()
		}
		got = append(got, p)
		write(t, filepath.Join(root, "run/baton-hook-pre-drain-10-a.sh.log"), "all went well\n")
		return bustest.Ending{Result: "success"}
	})
	o, err := h.RunHooks(t.Context(), host.PreDrain, run1())
	if err != nil {
		t.Fatal(err)
	}
	want := host.HookOutcome{Hooks: []host.HookResult{
		{Name: "10-a.sh", Result: "success", Message: "succeeded: all went well", Took: 2500 * time.Millisecond},
		{Name: "20-b", Result: "success", Message: "succeeded", Took: 2500 * time.Millisecond},
	}}
	if diff := cmp.Diff(want, o); diff != "" {
		t.Errorf("outcome (-want +got):\n%s", diff)
	}
	if started := u.Started(); len(started) != 2 || len(got) != 2 {
		t.Fatalf("started %v", started)
	}
	if diff := cmp.Diff(map[string]any{
		"unit": unitOf("pre-drain", "10-a.sh"), "Description": "Baton's pre-drain hook 10-a.sh",
		"Type": "oneshot", "RemainAfterExit": true,
		"ExecStart": [][]any{{
			"/etc/baton/hooks.d/pre-drain/10-a.sh", []string{"/etc/baton/hooks.d/pre-drain/10-a.sh"}, false,
		}},
		"TimeoutStartUSec": uint64(60_000_000), "TimeoutStopUSec": uint64(10_000_000),
		"StandardOutputFileToTruncate": "/run/baton-hook-pre-drain-10-a.sh.log", "StandardError": "inherit",
		"Environment": []string{
			"BATON_NODE=n1", "BATON_STAGE=pre-drain", "BATON_CYCLE=cycle", "BATON_ATTEMPT=1", "BATON_REASON=a new kernel",
		},
	}, got[0]); diff != "" {
		t.Errorf("the first unit (-want +got):\n%s", diff)
	}
}

// A hook that fails is the last one of its stage.
func TestHookFails(t *testing.T) {
	long := strings.Repeat("ä", 1000) + " the\x1b[31m end\n\n"
	for _, tt := range []struct {
		name   string
		ending bustest.Ending
		output string
		want   host.HookResult
	}{
		{
			"by its exit code",
			bustest.Ending{Result: "exit-code", Status: 3},
			"trying\n  the pool is\tdown \n",
			host.HookResult{Result: "exit-code", Message: "exit code 3: trying the pool is down"},
		},
		{
			"in silence",
			bustest.Ending{Result: "exit-code", Status: 1},
			"",
			host.HookResult{Result: "exit-code", Message: "exit code 1"},
		},
		{
			"after many words",
			bustest.Ending{Result: "exit-code", Status: 1},
			long,
			host.HookResult{Result: "exit-code", Message: "exit code 1: …" + strings.Repeat("ä", 152) + " the[31m end"},
		},
		{
			"as no executable",
			bustest.Ending{Result: "exit-code", Status: 203},
			"",
			host.HookResult{Result: "exit-code", Message: "exit code 203: systemd could not execute it; is its interpreter there?"},
		},
		{
			"by a signal",
			bustest.Ending{Result: "signal", Status: 9},
			"",
			host.HookResult{Result: "signal", Message: "ended by signal 9 (killed)"},
		},
		{
			"by a crash",
			bustest.Ending{Result: "core-dump", Status: 11},
			"",
			host.HookResult{Result: "core-dump", Message: "ended by signal 11 (segmentation fault)"},
		},
		{
			"by its timeout",
			bustest.Ending{Result: "timeout", Status: 15},
			"waits for Ceph",
			host.HookResult{Result: "timeout", Message: "took longer than 1m0s: waits for Ceph"},
		},
		{
			"for want of memory",
			bustest.Ending{Result: "oom-kill", Status: 9},
			"",
			host.HookResult{Result: "oom-kill", Message: "oom-kill"},
		},
		{
			"as systemd refuses it",
			bustest.Ending{Result: "error: org.freedesktop.DBus.Error.PropertyReadOnly"},
			"of another run",
			host.HookResult{Result: "refused", Message: "refused: systemd does not start it: org.freedesktop.DBus.Error.PropertyReadOnly: no"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, u, _, root := hookHost(t, "pre-reboot/10-a", "pre-reboot/20-b")
			write(t, filepath.Join(root, "run/baton-hook-pre-reboot-10-a.log"), tt.output)
			u.Script(func(string, map[string]dbus.Variant) bustest.Ending { return tt.ending })
			o, err := h.RunHooks(t.Context(), host.PreReboot, run1())
			if err != nil {
				t.Fatal(err)
			}
			tt.want.Name = "10-a"
			if diff := cmp.Diff([]host.HookResult{tt.want}, o.Hooks, cmpopts.IgnoreFields(host.HookResult{}, "Took")); diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
			if n := len(o.Hooks[0].Message); n > 400 {
				t.Errorf("the message has %d bytes", n)
			}
		})
	}
}

func TestAHookIsWaitedForByTheNewsOfItsUnit(t *testing.T) {
	h, u, _, _ := hookHost(t, "post-reboot/10-a", "post-reboot/20-b")
	first, second := unitOf("post-reboot", "10-a"), unitOf("post-reboot", "20-b")
	done := make(chan host.HookOutcome, 1)
	go func() {
		o, err := h.RunHooks(t.Context(), host.PostReboot, run1())
		if err != nil {
			t.Error(err)
		}
		done <- o
	}()
	u.AwaitStart(t, first)
	u.End(first, bustest.Ending{Result: "success"})
	u.AwaitStart(t, second)
	u.Forget(second)
	o := <-done
	if len(o.Hooks) != 2 || o.Hooks[0].Result != "success" || o.Hooks[1].Result != "stopped" || o.Hooks[1].Message != "somebody stopped it" {
		t.Errorf("outcome %+v", o)
	}
}

func TestNoHooksAreAnAnswerWithoutABus(t *testing.T) {
	for name, prepare := range map[string]func(root string){
		"no directory":          func(string) {},
		"an empty directory":    func(root string) { mkdir(t, filepath.Join(root, hooksDir)) },
		"no hook of this stage": func(root string) { hook(t, root, "post-reboot/10-a") },
		"an empty stage":        func(root string) { mkdir(t, filepath.Join(root, hooksDir, "pre-drain")) },
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			prepare(root)
			o, err := newHost(t, host.Config{Root: root}).RunHooks(t.Context(), host.PreDrain, run1())
			if err != nil || len(o.Hooks) != 0 {
				t.Errorf("outcome %+v, %v", o, err)
			}
		})
	}
	t.Run("nor is there anything to clear", func(t *testing.T) {
		if err := newHost(t, host.Config{Root: t.TempDir()}).ClearHooks(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// One run of the hooks is done once, whatever becomes of the agent and the bus meanwhile.
func TestHooksOnce(t *testing.T) {
	t.Run("the next agent finds what ran", func(t *testing.T) {
		h, u, _, root := hookHost(t, "pre-drain/10-a", "pre-drain/20-b")
		first, second := unitOf("pre-drain", "10-a"), unitOf("pre-drain", "20-b")
		u.Script(func(unit string, _ map[string]dbus.Variant) (e bustest.Ending) {
			if unit == first {
				e.Result = "success"
			}
			return e
		})
		ctx, kill := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := h.RunHooks(ctx, host.PreDrain, run1())
			done <- err
		}()
		u.AwaitStart(t, second)
		kill()
		if err := <-done; err == nil {
			t.Fatal("a run that is cut short is an answer")
		}
		u.End(second, bustest.Ending{Result: "exit-code", Status: 7})
		write(t, filepath.Join(root, "run/baton-hook-pre-drain-20-b.log"), "of the first agent")
		for range 2 {
			o, err := newHost(t, host.Config{Root: root}).RunHooks(t.Context(), host.PreDrain, run1())
			if err != nil || len(o.Hooks) != 2 || o.Hooks[1].Message != "exit code 7: of the first agent" {
				t.Errorf("outcome %+v, %v", o, err)
			}
		}
		if diff := cmp.Diff([]string{first, second}, u.Started()); diff != "" {
			t.Errorf("started (-want +got):\n%s", diff)
		}
	})

	t.Run("a bus that goes is no answer", func(t *testing.T) {
		h, u, b, _ := hookHost(t, "pre-drain/10-a")
		unit := unitOf("pre-drain", "10-a")
		done := make(chan error, 1)
		go func() {
			_, err := h.RunHooks(t.Context(), host.PreDrain, run1())
			done <- err
		}()
		u.AwaitStart(t, unit)
		b.Stop()
		if err := <-done; err == nil {
			t.Fatal("an answer without a bus")
		}
		if _, err := h.RunHooks(t.Context(), host.PreDrain, run1()); err == nil {
			t.Fatal("an answer without a bus")
		}
		u.End(unit, bustest.Ending{Result: "success"}) // nobody hears it
		b.Run(t)
		u.Serve(t, b)
		o, err := h.RunHooks(t.Context(), host.PreDrain, run1())
		if err != nil || len(o.Hooks) != 1 || o.Hooks[0].Result != "success" || len(u.Started()) != 1 {
			t.Errorf("outcome %+v, %v; started %v", o, err, u.Started())
		}
	})

	t.Run("a lost reply is no answer", func(t *testing.T) {
		h, u, _, _ := hookHost(t, "pre-drain/10-a")
		u.Script(func(string, map[string]dbus.Variant) bustest.Ending {
			return bustest.Ending{Result: "error: org.freedesktop.DBus.Error.NoReply"}
		})
		if o, err := h.RunHooks(t.Context(), host.PreDrain, run1()); err == nil {
			t.Errorf("outcome %+v", o)
		}
	})

	t.Run("the next attempt is another run", func(t *testing.T) {
		h, u, _, _ := hookHost(t, "pre-drain/10-a")
		old := unitOf("pre-drain", "10-a")
		ctx, kill := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := h.RunHooks(ctx, host.PreDrain, run1())
			done <- err
		}()
		u.AwaitStart(t, old)
		kill()
		if err := <-done; err == nil {
			t.Fatal("a run that is cut short is an answer")
		}
		u.Script(func(string, map[string]dbus.Variant) bustest.Ending { return bustest.Ending{Result: "success"} })
		next := run1()
		next.Attempt = 12 // begins as 1 does
		o, err := h.RunHooks(t.Context(), host.PreDrain, next)
		if err != nil || len(o.Hooks) != 1 || o.Hooks[0].Result != "success" {
			t.Errorf("outcome %+v, %v", o, err)
		}
		if diff := cmp.Diff([]string{"baton-hook-pre-drain-cycle-12-10-a.service"}, u.Known()); diff != "" {
			t.Errorf("units (-want +got):\n%s", diff)
		}
	})

	t.Run("results stay until cleared", func(t *testing.T) {
		h, u, _, _ := hookHost(t, "pre-drain/10-a", "pre-reboot/10-b")
		u.Script(func(unit string, _ map[string]dbus.Variant) bustest.Ending {
			if unit == unitOf("pre-drain", "10-a") {
				return bustest.Ending{Result: "success"}
			}
			return bustest.Ending{Result: "exit-code", Status: 1}
		})
		for _, stage := range []string{host.PreDrain, host.PreReboot, host.PreDrain} {
			if _, err := h.RunHooks(t.Context(), stage, run1()); err != nil {
				t.Fatal(err)
			}
		}
		if len(u.Known()) != 2 || len(u.Started()) != 2 {
			t.Errorf("known %v, started %v", u.Known(), u.Started())
		}
		if err := h.ClearHooks(t.Context()); err != nil || len(u.Known()) != 0 {
			t.Errorf("left after clearing: %v, %v", u.Known(), err)
		}
	})
}

func TestHooksRefused(t *testing.T) {
	chmod := func(t *testing.T, path string, mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	const dir = "/etc/baton/hooks.d"
	for _, tt := range []struct {
		name    string
		stage   string
		prepare func(t *testing.T, root string)
		want    string // name and message
	}{
		{"writable by its group", host.PreDrain, func(t *testing.T, root string) {
			chmod(t, hook(t, root, "pre-drain/20-b"), 0o775)
		}, "pre-drain/20-b: refused: " + dir + "/pre-drain/20-b can be written by others than root: chmod go-w it"},
		{"writable by everybody", host.PreReboot, func(t *testing.T, root string) {
			chmod(t, hook(t, root, "pre-reboot/20-b"), 0o757)
		}, "pre-reboot/20-b: refused: " + dir + "/pre-reboot/20-b can be written by others than root: chmod go-w it"},
		{"not executable", host.PreDrain, func(t *testing.T, root string) {
			write(t, filepath.Join(root, hooksDir, "pre-drain/README"), "hooks go here")
		}, "pre-drain/README: refused: " + dir + "/pre-drain/README cannot be executed: chmod +x it, or remove it"},
		{"a link", host.PreDrain, func(t *testing.T, root string) {
			if err := os.Symlink("10-a", filepath.Join(root, hooksDir, "pre-drain/20-b")); err != nil {
				t.Fatal(err)
			}
		}, "pre-drain/20-b: refused: " + dir + "/pre-drain/20-b is no regular file: a link is none either: put the executable itself there"},
		{"a directory among them", host.PreDrain, func(t *testing.T, root string) {
			mkdir(t, filepath.Join(root, hooksDir, "pre-drain/d"))
		}, "pre-drain/d: refused: " + dir + "/pre-drain/d is no regular file: a link is none either: put the executable itself there"},
		{"hidden", host.PreDrain, func(t *testing.T, root string) {
			hook(t, root, "pre-drain/.10-a.swp")
		}, "pre-drain/.10-a.swp: refused: " + dir + "/pre-drain/.10-a.swp has a name that is none for a hook: it is made of at most 64 letters, digits, '.', '_' and '-', and does not begin with a dot: rename or remove it"},
		{"with a space in its name", host.PreDrain, func(t *testing.T, root string) {
			hook(t, root, "pre-drain/my hook\n")
		}, "pre-drain/my hook: refused: " + dir + "/pre-drain/my hook has a name that is none for a hook: it is made of at most 64 letters, digits, '.', '_' and '-', and does not begin with a dot: rename or remove it"},
		{"in a directory that others can write", host.PreDrain, func(t *testing.T, root string) {
			chmod(t, filepath.Join(root, hooksDir, "pre-drain"), 0o777)
		}, "pre-drain: refused: " + dir + "/pre-drain can be written by others than root: chmod go-w it"},
		{"below a directory that others can write", host.PostReboot, func(t *testing.T, root string) {
			chmod(t, filepath.Join(root, "etc/baton"), 0o777)
		}, "/etc/baton: refused: /etc/baton can be written by others than root: chmod go-w it"},
		{"of a stage that is a link", host.PreReboot, func(t *testing.T, root string) {
			if err := os.Symlink("pre-drain", filepath.Join(root, hooksDir, "pre-reboot")); err != nil {
				t.Fatal(err)
			}
		}, "pre-reboot: refused: " + dir + "/pre-reboot is no directory: a link is none either"},
		{"of a later stage: before the node goes down", host.PreDrain, func(t *testing.T, root string) {
			chmod(t, hook(t, root, "post-reboot/10-a"), 0o644)
		}, "post-reboot/10-a: refused: " + dir + "/post-reboot/10-a cannot be executed: chmod +x it, or remove it"},
		{"of a stage that is none: before the node goes down", host.PreDrain, func(t *testing.T, root string) {
			hook(t, root, "pre-boot/10-a")
		}, "pre-boot: refused: " + dir + "/pre-boot is no stage: the stages are pre-drain, pre-reboot and post-reboot"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir() // and no bus: nothing is started
			hook(t, root, "pre-drain/10-a")
			tt.prepare(t, root)
			o, err := newHost(t, host.Config{Root: root}).RunHooks(t.Context(), tt.stage, run1())
			if err != nil || len(o.Hooks) != 1 || o.Hooks[0].Result != "refused" {
				t.Fatalf("outcome %+v, %v", o, err)
			}
			if diff := cmp.Diff(tt.want, o.Hooks[0].Name+": "+o.Hooks[0].Message); diff != "" {
				t.Error(diff)
			}
		})
	}

	t.Run("of a directory that was replaced on the host, where the mount shows that of before", func(t *testing.T) {
		root := t.TempDir()
		hook(t, root, "pre-drain/10-a")
		dir := filepath.Join(root, "etc/baton")
		before, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer before.Close()
		if err := errors.Join(os.RemoveAll(dir), os.Symlink(fmt.Sprintf("/proc/self/fd/%d", before.Fd()), dir)); err != nil {
			t.Fatal(err)
		}
		o, err := newHost(t, host.Config{Root: root}).RunHooks(t.Context(), host.PreReboot, run1())
		if err != nil || len(o.Hooks) != 1 || !strings.Contains(o.Hooks[0].Message, "restart the agent's pod") {
			t.Errorf("outcome %+v, %v", o, err)
		}
	})
	t.Run("of an earlier stage: of no matter", func(t *testing.T) {
		h, u, _, root := hookHost(t, "post-reboot/10-a")
		chmod(t, hook(t, root, "pre-drain/10-a"), 0o644)
		u.Script(func(string, map[string]dbus.Variant) bustest.Ending { return bustest.Ending{Result: "success"} })
		if o, err := h.RunHooks(t.Context(), host.PostReboot, run1()); err != nil || len(o.Hooks) != 1 || o.Hooks[0].Result != "success" {
			t.Errorf("outcome %+v, %v", o, err)
		}
	})
}
