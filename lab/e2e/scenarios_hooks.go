package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"kubebaton.io/baton/lab/observe"
)

const (
	hooksDir = "/etc/baton/hooks.d"
	// hooksLog is where the scenario's hooks write that they run, on a disk that outlives the boot.
	hooksLog  = "/var/tmp/e2e-hooks"
	poolDown  = "/var/tmp/e2e-pool-is-down"
	hooksTime = time.Minute
)

// hookHead is how a scenario's hook begins: it writes when it runs, which attempt it is and what it is.
const hookHead = "#!/bin/sh\nset -eu\n" + `echo "$(date +%s.%N) $BATON_ATTEMPT $BATON_STAGE/${0##*/} $BATON_NODE" >>` + hooksLog + "\n"

// hooks are the scenario's, with a pool that is down once.
func hooks() map[string]string {
	const poolHook = "if rm " + poolDown + "; then\n  echo trying\n  echo the pool is down >&2\n  exit 3\nfi\n"
	return map[string]string{
		poolDown:                         "",
		hooksDir + "/pre-drain/10-first": hookHead,
		hooksDir + "/pre-drain/20-pool":  hookHead + poolHook,
		hooksDir + "/pre-reboot/10-slow": hookHead + "sleep 4\n",
		hooksDir + "/post-reboot/10-ok":  hookHead + "sleep 2\n",
	}
}

// hooksRun: every stage runs on a host, each hook once in an attempt although the agent is killed; one that fails is named.
func hooksRun(p *play) {
	p.must(errors.Join(p.mountHooks(p.ctx), p.putFiles(n2, hooks())))
	p.raise(n2)
	backoff := p.phase(n2, observe.Backoff)
	const failed = "pre-drain hook 20-pool: exit code 3: trying the pool is down"
	p.because(backoff, "hook", failed)
	p.schedulable(backoff)
	p.note("%s", backoff.record.Message)
	p.told(n2, "RebootBackoff", failed)
	p.until("the pre-reboot hook", func() (bool, error) {
		ran, _, err := p.hooksRan(n2)
		return slices.Contains(ran, "2 pre-reboot/10-slow n2"), err
	})
	p.must(p.c.Signal(n2, agentProgram, unix.SIGKILL))
	verifying := p.then(backoff, in(n2, observe.Verifying))
	idle := p.then(verifying, in(n2, observe.Idle))
	ran, last, err := p.hooksRan(n2)
	p.must(err)
	want := []string{
		"1 pre-drain/10-first n2", "1 pre-drain/20-pool n2",
		"2 pre-drain/10-first n2", "2 pre-drain/20-pool n2", "2 pre-reboot/10-slow n2", "2 post-reboot/10-ok n2",
	}
	if !slices.Equal(ran, want) {
		p.failf("the hooks that ran are %q, want %q", ran, want)
	}
	if took := idle.Time.Sub(last); took < 2*time.Second || !verifying.Node.Unschedulable {
		p.failf("the node was given back %s after the post-reboot hook began, which takes 2 s", took)
	}
	p.note("the post-reboot hook began %.1f s after Verifying, the node was schedulable %.1f s after that", last.Sub(verifying.Time).Seconds(), idle.Time.Sub(last).Seconds())
	p.home(n2)
	p.must(p.noUnits(p.ctx, n2))
}

// hookPatience is the scenario's hooks.timeout.
const hookPatience = 2 * time.Second

// hookTakesTooLong: systemd stops a hook that never ends, and n2 goes when somebody has taken it away.
func hookTakesTooLong(p *play) {
	const hook = hooksDir + "/pre-reboot/10-endless"
	p.must(errors.Join(p.mountHooks(p.ctx), p.putFiles(n2, map[string]string{hook: hookHead + "exec sleep 60\n"})))
	draining := p.bring(n2, observe.Draining)
	backoff := p.then(draining, in(n2, observe.Backoff))
	const failed = "pre-reboot hook 10-endless: took longer than 2s"
	p.because(backoff, "hook", failed)
	p.schedulable(backoff)
	p.told(n2, "RebootBackoff", failed)
	p.then(backoff, freed(draining))
	_, began, err := p.hooksRan(n2)
	p.must(err)
	if took := backoff.Time.Sub(began); took < hookPatience || took > 3*hookPatience {
		p.failf("the hook was given up %s after it began, want %s or a little more", took, hookPatience)
	}
	p.note("given up %.1f s after it began", backoff.Time.Sub(began).Seconds())
	if n := p.logged(n2, `"result":"timeout"`); n == 0 {
		p.must(errors.New("the agent does not log that it was the timeout"))
	}
	p.until("the hook that was stopped to be gone, before the next try", func() (bool, error) {
		ran, err := p.c.Exec(p.ctx, n2, "sh", "-c", "pgrep -fx 'sleep 60' || true")
		return err == nil && ran == "", err
	})
	p.stay()
	p.must(p.remove(n2, hook))
	p.home(n2)
}

// mountHooks adds deploy/components/hooks to the agents, until the scenario ends.
func (w *world) mountHooks(ctx context.Context) error {
	text, err := os.ReadFile(filepath.Join(w.Apply, "..", "components", "hooks", "daemonset.yaml"))
	if err != nil {
		return err
	}
	patch, err := yaml.YAMLToJSON(text)
	if err != nil {
		return err
	}
	sets := w.client.AppsV1().DaemonSets(batonSpace)
	before, err := sets.Get(ctx, agentProgram, metav1.GetOptions{})
	if err != nil {
		return err
	}
	w.later(func(ctx context.Context) error {
		now, err := sets.Get(ctx, agentProgram, metav1.GetOptions{})
		if err != nil {
			return err
		}
		now.Spec.Template = before.Spec.Template
		if _, err := sets.Update(ctx, now, metav1.UpdateOptions{}); err != nil {
			return err
		}
		return w.rolledOut(ctx)
	})
	if _, err := sets.Patch(ctx, agentProgram, types.StrategicMergePatchType, patch, metav1.PatchOptions{FieldValidation: "Strict"}); err != nil {
		return err
	}
	return w.rolledOut(ctx)
}

func (w *world) rolledOut(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, hooksTime)
	defer cancel()
	return until(ctx, "the agents to be rolled out", func() (bool, error) {
		s, err := w.client.AppsV1().DaemonSets(batonSpace).Get(ctx, agentProgram, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		return current(s), fmt.Errorf("%d of %d are", s.Status.UpdatedNumberScheduled, s.Status.DesiredNumberScheduled)
	})
}

func current(s *appsv1.DaemonSet) bool {
	st := s.Status
	return st.ObservedGeneration == s.Generation && st.UpdatedNumberScheduled == st.DesiredNumberScheduled && st.NumberAvailable == st.DesiredNumberScheduled
}

// putFiles writes hooks, and what they look at, to the node's disk.
func (w *world) putFiles(node string, files map[string]string) error {
	w.later(func(context.Context) error {
		for _, at := range []string{hooksDir, hooksLog, poolDown} {
			path, err := w.c.File(node, at)
			if err != nil {
				return err
			}
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
		return nil
	})
	for at, text := range files {
		path, err := w.c.File(node, at)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// hooksRan is what the hooks wrote, without the times, and when the last one began.
func (w *world) hooksRan(node string) (ran []string, last time.Time, err error) {
	path, err := w.c.File(node, hooksLog)
	if err != nil {
		return nil, last, err
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, last, nil
	}
	if err != nil {
		return nil, last, err
	}
	for line := range strings.Lines(string(text)) {
		at, what, _ := strings.Cut(strings.TrimSpace(line), " ")
		seconds, err := strconv.ParseFloat(at, 64)
		if err != nil {
			return nil, last, fmt.Errorf("reading %s: %w", hooksLog, err)
		}
		ran, last = append(ran, what), time.UnixMicro(int64(seconds*1e6))
	}
	return ran, last, nil
}

// noUnits waits until systemd has forgotten the hooks.
func (w *world) noUnits(ctx context.Context, node string) error {
	return until(ctx, "the hooks' units to be gone", func() (bool, error) {
		list, err := w.c.Exec(ctx, node, "systemctl", "list-units", "--all", "--plain", "--no-legend", "baton-hook-*")
		if err != nil || strings.TrimSpace(list) != "" {
			return false, errors.Join(err, fmt.Errorf("systemd still knows %q", list))
		}
		return true, nil
	})
}
