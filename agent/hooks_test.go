package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// simHook is a hook of this world's host.
type simHook struct {
	name  string
	takes time.Duration
	fails int // so many of its next runs
}

// simUnit is what the host's systemd knows of a hook that was started. It ends with the boot.
type simUnit struct {
	ended  chan struct{}
	takes  time.Duration
	failed bool
}

// simHooks is the host's side of the hooks: it runs each unit once.
type simHooks struct{ *life }

func unitName(stage, cycle string, attempt int, hook string) string {
	return fmt.Sprintf("%s/%s/%d/%s", stage, cycle, attempt, hook)
}

func (s simHooks) Run(ctx context.Context, stage string, set HookSettings) (HookOutcome, error) {
	var out HookOutcome
	var hooks []*simHook
	var err error
	s.with(func() { hooks, err = s.hooks[stage], s.calm })
	if err != nil {
		return out, err
	}
	for _, h := range hooks {
		u, err := s.begin(stage, set, h)
		if err != nil {
			return out, err
		}
		select {
		case <-ctx.Done():
			return out, ctx.Err()
		case <-u.ended:
		}
		r := HookResult{Name: h.name, Result: "success", Message: "succeeded", Took: u.takes}
		if u.failed {
			r.Result, r.Message = "exit-code", "exit code 3: the pool is down"
		}
		if out.Hooks = append(out.Hooks, r); u.failed {
			break
		}
	}
	return out, nil
}

// begin starts a hook, unless that was done before.
func (s simHooks) begin(stage string, set HookSettings, h *simHook) (u *simUnit, err error) {
	name := unitName(stage, set.Cycle, set.Attempt, h.name)
	s.with(func() { u = s.units[name] })
	if u != nil {
		return u, nil
	}
	err = s.at("hook", func() error {
		s.mayRun(stage, name)
		u = &simUnit{ended: make(chan struct{}), takes: h.takes}
		s.units[name] = u
		s.hooked = append(s.hooked, stage+"/"+h.name)
		started := u
		go func() {
			pass(started.takes)
			s.with(func() {
				if s.units[name] != started {
					return
				}
				if h.fails > 0 {
					h.fails--
					started.failed = true
				}
				close(started.ended)
			})
		}()
		return nil
	})
	return u, s.outcome(err)
}

// mayRun checks what holds when a hook begins.
func (s simHooks) mayRun(stage, name string) {
	r := s.recordLocked()
	switch {
	case s.units[name] != nil:
		s.violated("hook %s is run twice", name)
	case s.gap:
	case !s.exists || s.slot.Holder != s.node.Name:
		s.violated("%s hook without the slot", stage)
	case stage != PostReboot && !s.node.Unschedulable:
		s.violated("%s hook without a cordon", stage)
	case stage == PreReboot && s.pods > 0:
		s.violated("pre-reboot hook with %d pods on the node", s.pods)
	case stage != PostReboot && r.Phase != Draining || stage == PostReboot && r.Phase != Verifying && r.Phase != Failed:
		s.violated("%s hook in phase %s", stage, r.Phase)
	}
}

func (s simHooks) Clear(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calm != nil || s.keepsUnits {
		return errMute
	}
	for name, u := range s.units {
		delete(s.units, name)
		select {
		case <-u.ended:
		default:
			u.failed = true
			close(u.ended)
		}
	}
	return nil
}

// needHooks checks that all hooks of a stage have succeeded in the run that r stands at. Without a record, when it was lost
// just now, there is none to ask about. The caller holds s.mu.
func (s *sim) needHooks(r Record, stage, before string) {
	if r.Phase == "" {
		return
	}
	for _, h := range s.hooks[stage] {
		u := s.units[unitName(stage, r.Cycle, r.HookRun, h.name)]
		ok := u != nil && !u.failed
		if ok {
			select {
			case <-u.ended:
			default:
				ok = false
			}
		}
		if !ok {
			s.violated("%s before %s hook %s has succeeded", before, stage, h.name)
		}
	}
}

// checkHome checks the post-reboot hooks where the node is given back.
func (s *sim) checkHome(old, rec Record) {
	if old.Phase == Verifying && (rec.Phase == Waiting || rec.Phase == "") {
		s.needHooks(old, PostReboot, "home")
	}
}

// withHooks puts one hook at every stage.
func (s *sim) withHooks() *sim {
	s.hooks = map[string][]*simHook{
		PreDrain: {{name: "10-a", takes: 5 * time.Second}}, PreReboot: {{name: "10-b", takes: 5 * time.Second}},
		PostReboot: {{name: "10-c", takes: 5 * time.Second}},
	}
	return s
}

// failHooks makes the next runs of every hook fail.
func (s *sim) failHooks(runs int) {
	for _, hooks := range s.hooks {
		for _, h := range hooks {
			h.fails = runs
		}
	}
}

func TestHooks(t *testing.T) {
	for _, tt := range []struct {
		name    string
		last    time.Duration
		prepare func(s *sim)
		script  func(t *testing.T, s *sim)
		check   func(t *testing.T, s *sim)
	}{
		{
			"run in order, each once, and nothing of them is left", 10 * time.Minute,
			func(s *sim) { s.hooks[PreDrain] = append(s.hooks[PreDrain], &simHook{name: "20-z"}) }, nil,
			func(t *testing.T, s *sim) {
				s.settled(t, 1)
				s.ran(t, "pre-drain/10-a", "pre-drain/20-z", "pre-reboot/10-b", "post-reboot/10-c")
				s.left(t, 0)
				effects := slices.DeleteFunc(s.log, func(e string) bool { return e == "patch" || e == "renew" })
				if got, want := strings.Join(effects, " "), "take hook hook evict evict evict hook reboot hook free"; got != want {
					t.Errorf("effects %s, want %s", got, want)
				}
			},
		},
		{
			"pods that come while one runs before the reboot are not rebooted under", 10 * time.Minute,
			func(s *sim) { s.hooks[PreReboot][0].takes = 2 * time.Minute },
			func(_ *testing.T, s *sim) {
				pass(time.Minute)
				s.with(func() { s.pods = 2 })
			},
			func(t *testing.T, s *sim) {
				s.settled(t, 1)
				effects := slices.DeleteFunc(s.log, func(e string) bool { return e == "patch" || e == "renew" })
				if got, want := strings.Join(effects, " "), "take hook evict evict evict hook evict evict reboot hook free"; got != want {
					t.Errorf("effects %s, want %s", got, want)
				}
				if h := parseHistory(s.node.History); len(h.Cycles) != 1 || h.Cycles[0].Evicted != 5 {
					t.Errorf("history %+v", h)
				}
			},
		},
		{
			"none cost nothing", 10 * time.Minute,
			func(s *sim) { s.hooks = nil }, nil,
			func(t *testing.T, s *sim) {
				s.settled(t, 1)
				s.did(t, "patch", 5)
			},
		},
		{
			"a failing one before the drain backs off, and is run again in the next attempt", 10 * time.Minute,
			func(s *sim) { s.hooks[PreDrain][0].fails = 1 },
			func(t *testing.T, s *sim) {
				pass(20 * time.Second)
				n, sl, _ := s.state()
				r := s.record()
				if r.Phase != Backoff || r.Reasons[0] != ReasonHook || n.Unschedulable || sl.Holder != "" || s.pods != 3 {
					t.Errorf("record %+v, cordoned %v, holder %q", r, n.Unschedulable, sl.Holder)
				}
				if want := "pre-drain hook 10-a: exit code 3: the pool is down; next try in 1m0s"; r.Message != want {
					t.Errorf("message %q, want %q", r.Message, want)
				}
				s.left(t, 0)
			},
			func(t *testing.T, s *sim) {
				s.settled(t, 1)
				s.ran(t, "pre-drain/10-a", "pre-drain/10-a", "pre-reboot/10-b", "post-reboot/10-c")
				if !slices.Contains(s.events, "RebootBackoff hook true") {
					t.Errorf("events %v", s.events)
				}
			},
		},
		{
			"one that could not be cleared away is not taken for that of the next attempt", 10 * time.Minute,
			func(s *sim) { s.hooks[PreDrain][0].fails, s.keepsUnits = 1, true }, nil,
			func(t *testing.T, s *sim) {
				s.settled(t, 1)
				s.ran(t, "pre-drain/10-a", "pre-drain/10-a", "pre-reboot/10-b", "post-reboot/10-c")
			},
		},
		{
			"a failing one before the reboot backs off with the node empty", 10 * time.Minute,
			func(s *sim) { s.hooks[PreReboot][0].fails = 1 },
			func(t *testing.T, s *sim) {
				pass(40 * time.Second)
				if r, n := s.record(), s.node; r.Phase != Backoff || r.Reasons[0] != ReasonHook || n.Unschedulable || s.reboots != 0 {
					t.Errorf("record %+v, cordoned %v, %d reboots", r, n.Unschedulable, s.reboots)
				}
			},
			func(t *testing.T, s *sim) { s.settled(t, 1) },
		},
		{
			"a failing one after the reboot is tried again, later each time, with the node cordoned", time.Hour,
			func(s *sim) { s.hooks[PostReboot][0].fails = 3 },
			func(t *testing.T, s *sim) {
				pass(2 * time.Minute)
				r, n := s.record(), s.node
				if r.Phase != Verifying || r.Reasons[0] != ReasonHook || !n.Unschedulable || r.HookRun != 3 {
					t.Errorf("record %+v, cordoned %v", r, n.Unschedulable)
				}
			},
			func(t *testing.T, s *sim) {
				s.settled(t, 1)
				s.ran(t, "pre-drain/10-a", "pre-reboot/10-b", "post-reboot/10-c", "post-reboot/10-c", "post-reboot/10-c", "post-reboot/10-c")
				if !slices.Contains(s.events, "RebootHookFailed post-reboot hook 10-c true") {
					t.Errorf("events %v", s.events)
				}
				err := testutil.GatherAndCompare(s.metrics, strings.NewReader(`
# HELP baton_hook_runs_total Hooks that have ended since the agent started, by how.
# TYPE baton_hook_runs_total counter
baton_hook_runs_total{result="exit-code",stage="post-reboot"} 3
baton_hook_runs_total{result="success",stage="post-reboot"} 1
`), "baton_hook_runs_total")
				if err != nil {
					t.Error(err)
				}
			},
		},
		{
			"one that fails until verify.timeout fails the node, which comes home when it succeeds", 4 * time.Hour,
			func(s *sim) { s.hooks[PostReboot][0].fails = 1000 },
			func(t *testing.T, s *sim) {
				pass(20 * time.Minute)
				n, sl, _ := s.state()
				if r := s.record(); r.Phase != Failed || r.Reasons[0] != ReasonHook || !n.Unschedulable || sl.Holder == "" || !strings.Contains(r.Message, "10-c: exit code 3") {
					t.Errorf("record %+v", r)
				}
				s.with(func() { s.hooks[PostReboot][0].fails = 0 })
			},
			func(t *testing.T, s *sim) { s.settled(t, 1); s.cordoned(t, false) },
		},
		{
			"one that fails for ever is acknowledged like any failure", 4 * time.Hour,
			func(s *sim) { s.hooks[PostReboot][0].fails = 1000 },
			func(_ *testing.T, s *sim) {
				pass(time.Hour)
				s.person(func() { s.node.Acknowledge = "known" })
			},
			func(t *testing.T, s *sim) { s.settled(t, 1); s.cordoned(t, false) },
		},
		{
			"one that runs when a person uncordons the node is stopped, and run anew with the next cordon", 3 * time.Hour,
			func(s *sim) { s.hooks[PreDrain][0].takes = 4 * time.Minute },
			func(t *testing.T, s *sim) {
				pass(time.Minute)
				s.person(func() { s.setCordon(false) })
				pass(10 * time.Second)
				s.left(t, 0)
			},
			func(t *testing.T, s *sim) {
				s.settled(t, 1)
				s.ran(t, "pre-drain/10-a", "pre-drain/10-a", "pre-reboot/10-b", "post-reboot/10-c")
			},
		},
		{
			"one that takes longer than the drain may is given up", 30 * time.Minute,
			func(s *sim) { s.hooks[PreDrain][0].takes = 80 * time.Minute },
			func(t *testing.T, s *sim) {
				pass(15*time.Minute + 30*time.Second)
				if r := s.record(); r.Phase != Backoff || r.Reasons[0] != ReasonHook || !strings.Contains(r.Message, "drain.timeout, 15m0s") {
					t.Errorf("record %+v", r)
				}
				s.left(t, 0)
				s.with(func() { s.hooks[PreDrain][0].takes = time.Second })
			},
			func(t *testing.T, s *sim) { s.settled(t, 1) },
		},
		{
			"one of an empty node may take longer than the drain, and the loop sleeps meanwhile", 2 * time.Hour,
			func(s *sim) { s.hooks[PreReboot][0].takes = 40 * time.Minute }, nil,
			func(t *testing.T, s *sim) {
				s.settled(t, 1)
				s.ran(t, "pre-drain/10-a", "pre-reboot/10-b", "post-reboot/10-c")
			},
		},
		{
			"an agent that starts anew waits for the hook that runs", 30 * time.Minute,
			func(s *sim) {
				for _, hooks := range s.hooks {
					hooks[0].takes = time.Minute
				}
			},
			func(_ *testing.T, s *sim) {
				for range 20 {
					pass(13 * time.Second)
					s.with(s.cut)
				}
			},
			func(t *testing.T, s *sim) {
				s.settled(t, 1)
				s.ran(t, "pre-drain/10-a", "pre-reboot/10-b", "post-reboot/10-c")
			},
		},
		{
			"a bus that is away is waited for", time.Hour,
			func(*sim) {},
			func(t *testing.T, s *sim) {
				s.with(func() { s.hours.shut = time.Now() }) // no slot is asked for yet
				pass(time.Second)
				s.with(func() { s.hours, s.calm = hours{}, nil; s.configure() })
				await(time.Minute, func() bool { return s.record().Phase == Draining })
				s.with(func() { s.calm = errMute })
				pass(5 * time.Minute)
				if n, _, _ := s.state(); !n.Unschedulable || s.reboots != 0 {
					t.Errorf("cordoned %v, %d reboots", n.Unschedulable, s.reboots)
				}
				s.with(func() { s.calm = nil })
			},
			func(t *testing.T, s *sim) { s.settled(t, 1) },
		},
		{
			"a removal of Baton stops the one that runs", 10 * time.Minute,
			func(s *sim) { s.hooks[PreDrain][0].takes = time.Hour },
			func(_ *testing.T, s *sim) {
				pass(30 * time.Second)
				s.with(func() { s.removed = true; s.noMarshal = true })
				s.with(func() {
					for _, l := range s.lives {
						l.kill()
					}
				})
			},
			func(t *testing.T, s *sim) { s.settled(t, 0); s.cordoned(t, false); s.left(t, 0) },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSim(t).withHooks()
			tt.prepare(s)
			s.live(tt.last, func() {
				s.raise("a")
				if tt.script != nil {
					tt.script(t, s)
				}
			})
			tt.check(t, s)
		})
	}
}

// ran checks which hooks were started, in order.
func (s *sim) ran(t *testing.T, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, s.hooked); diff != "" {
		t.Errorf("hooks (-want +got):\n%s", diff)
	}
}

// left checks how many units the host still knows.
func (s *sim) left(t *testing.T, want int) {
	t.Helper()
	s.with(func() {
		if len(s.units) != want {
			t.Errorf("the host still knows %d hooks, want %d", len(s.units), want)
		}
	})
}
