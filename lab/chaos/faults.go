package chaos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kubebaton.io/baton/lab/cluster"
	"kubebaton.io/baton/lab/gateway"
	"kubebaton.io/baton/lab/observe"
)

// blows are how the kinds of fault strike.
func (r *run) blows() map[Kind]blow {
	return map[Kind]blow{
		KillAgent:      r.killIn(agentProgram),
		StallAgent:     r.stall,
		KillKubelet:    r.killIn("kubelet"),
		KillContainerd: r.killIn("containerd"),
		KillBus:        r.killIn("dbus-daemon"),
		KillLogind:     r.killIn("systemd-logind"),
		KillAPIServer:  r.killUnit(cluster.APIServer),
		KillEtcd:       r.killUnit(cluster.Etcd),
		PowerCut:       r.cutPower,
		HandReboot:     r.reboot,
		Inhibit:        r.inhibit,
		DropSentinel:   r.dropSentinel,
		LoseDevice:     r.loseDevice,
		Latency:        r.poison,
		SlowLink:       r.poison,
		Resets:         r.poison,
		BlackHole:      r.poison,
		LostReplies:    r.poison,
		Refusal:        r.refuse,
		ClockJump:      r.shiftClock,
		Partition:      r.partition,
		Configure:      r.configure,
		Misconfigure:   r.misconfigure,
		Update:         r.update,
		AddNode:        r.addNode,
		RemoveNode:     r.removeNode,
		DeleteNode:     r.deleteNode,
		Cordon:         r.cordon,
		Uncordon:       r.uncordon,
		Hold:           r.hold,
		Pause:          r.pauseAll,
		Release:        r.release,
		Acknowledge:    r.acknowledge,
		DeleteSlot:     r.deleteSlot,
		CloseBudget:    r.closeBudget,
	}
}

// killIn kills a program of a node. Whoever watches over it starts it again.
func (r *run) killIn(program string) blow {
	return func(_ context.Context, _ Fault, node string) (string, func(context.Context) error, error) {
		return "", nil, r.cluster.Signal(node, program, unix.SIGKILL)
	}
}

// stall stops the agent where it stands, and lets it go on as if nothing had been.
func (r *run) stall(_ context.Context, f Fault, node string) (string, func(context.Context) error, error) {
	return fmt.Sprintf("for %s", f.For), func(context.Context) error {
		_ = r.cluster.Signal(node, agentProgram, unix.SIGCONT) // it may have been killed, or its node, or be another one
		return nil
	}, r.cluster.Signal(node, agentProgram, unix.SIGSTOP)
}

// killUnit kills a part of the control plane, which is run again when the fault is taken back.
func (r *run) killUnit(u cluster.Unit) blow {
	return func(ctx context.Context, f Fault, _ string) (string, func(context.Context) error, error) {
		run := func(ctx context.Context) error {
			if err := r.cluster.Run(u); err != nil {
				return err
			}
			return r.cluster.WaitAPI(ctx)
		}
		return fmt.Sprintf("runs again after %s", f.For), run, r.cluster.Kill(ctx, u)
	}
}

// cutPower leaves the machine off for a while, or boots it at once when that while is short.
func (r *run) cutPower(ctx context.Context, f Fault, node string) (string, func(context.Context) error, error) {
	if f.For < 3*time.Second {
		return "boots at once", nil, r.cluster.Power(ctx, node, cluster.Cycle)
	}
	on := func(ctx context.Context) error { return r.cluster.Power(ctx, node, cluster.On) }
	return fmt.Sprintf("off for %s", f.For), on, r.cluster.Power(ctx, node, cluster.Off)
}

// reboot is what a person does on the host, without a word to anybody.
func (r *run) reboot(ctx context.Context, _ Fault, node string) (string, func(context.Context) error, error) {
	r.mu.Lock()
	r.byHand = append(r.byHand, handReboot{node, time.Now()})
	r.mu.Unlock()
	_, err := r.cluster.Exec(ctx, node, "systemctl", "reboot")
	return "", nil, err
}

// handReboot is when somebody typed it.
type handReboot struct {
	node string
	at   time.Time
}

// inhibit blocks shutdown, as an updater does that writes the firmware. It ends by itself.
func (r *run) inhibit(ctx context.Context, f Fault, node string) (string, func(context.Context) error, error) {
	_, err := r.cluster.Exec(ctx, node, "systemd-run", "--collect", fmt.Sprintf("--unit=lab-inhibitor-%d", f.Seq),
		"systemd-inhibit", "--what=shutdown", "--mode=block", "--who=chaos", "--why=writes the firmware", "sleep", fmt.Sprint(f.For.Seconds()))
	return fmt.Sprintf("for %s", f.For), nil, err
}

// dropSentinel takes the wish for a reboot back: the host's, or else that of people.
func (r *run) dropSentinel(ctx context.Context, _ Fault, node string) (string, func(context.Context) error, error) {
	file, err := r.cluster.File(node, "/run/reboot-required")
	if err != nil {
		return "", nil, err
	}
	if err := os.Remove(file); !errors.Is(err, fs.ErrNotExist) {
		return "", nil, err
	}
	return "the request", nil, r.annotate(ctx, node, requestKey, nil)
}

// poison spoils what goes between the node's pods and the API server.
func (r *run) poison(_ context.Context, f Fault, node string) (string, func(context.Context) error, error) {
	g, err := r.gateway(node)
	if err != nil {
		return "", nil, err
	}
	var toxics []gateway.Toxic
	what := ""
	switch f.Kind { //nolint:exhaustive // the others come elsewhere
	case Latency:
		late := 50 + 10*f.Size
		toxics, what = gateway.Both("latency", map[string]int{"latency": late, "jitter": late / 2}), fmt.Sprintf("%d ms ± %d", late, late/2)
	case SlowLink:
		toxics = append(gateway.Both("bandwidth", map[string]int{"rate": 2 + f.Size/5}), gateway.Both("slicer", map[string]int{"average_size": 100, "size_variation": 50, "delay": 2000})...)
		what = fmt.Sprintf("%d KB/s, in slices", 2+f.Size/5)
	case Resets:
		g.Cut()
		toxics, what = gateway.Both("reset_peer", map[string]int{"timeout": 5 * f.Size}), fmt.Sprintf("%d ms after the first byte", 5*f.Size)
	case BlackHole:
		toxics = gateway.Both("timeout", map[string]int{"timeout": 0})
	case LostReplies:
		toxics = gateway.Both("timeout", map[string]int{"timeout": 0})[1:]
	}
	undo, err := g.Poison(f.Seq, toxics...)
	return strings.TrimPrefix(what+fmt.Sprintf(", for %s", f.For), ", "), undo, err
}

func (r *run) refuse(_ context.Context, f Fault, node string) (string, func(context.Context) error, error) {
	g, err := r.gateway(node)
	if err != nil {
		return "", nil, err
	}
	g.Refuse(true)
	return fmt.Sprintf("for %s", f.For), func(context.Context) error { g.Refuse(false); return nil }, nil
}

// shiftClock makes the API server's clock be off, as the node's pods see it. All nodes share the clock of this machine, which
// is nobody's to set; what an agent compares it with can be.
func (r *run) shiftClock(_ context.Context, f Fault, node string) (string, func(context.Context) error, error) {
	g, err := r.gateway(node)
	if err != nil {
		return "", nil, err
	}
	jumps := []time.Duration{70 * time.Second, -70 * time.Second, 10 * time.Minute, -10 * time.Minute, 30 * time.Hour, -30 * time.Hour}
	by := jumps[f.Size%len(jumps)]
	g.Shift(by)
	return fmt.Sprintf("by %s for %s", by, f.For), func(context.Context) error { g.Shift(0); return nil }, nil
}

func (r *run) gateway(node string) (*gateway.Gateway, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.gateways[node]
	if g == nil {
		return nil, fmt.Errorf("%s has no gateway", node)
	}
	return g, nil
}

// partition cuts a whole node off from the control plane: its kubelet as well as its pods.
func (r *run) partition(ctx context.Context, f Fault, node string) (string, func(context.Context) error, error) {
	const rules = `table ip lab-partition {
	chain in { type filter hook input priority -300; ip saddr ` + cluster.Gateway + ` drop; }
	chain through { type filter hook forward priority -300; ip saddr ` + cluster.Gateway + ` drop; }
}`
	cmd, err := r.cluster.NodeCommand(ctx, node, "nft", "-f", "-")
	if err != nil {
		return "", nil, err
	}
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", nil, fmt.Errorf("cutting %s off: %w: %s", node, err, out)
	}
	return fmt.Sprintf("for %s", f.For), func(ctx context.Context) error {
		_, err := r.cluster.Exec(ctx, node, "nft", "delete", "table", "ip", "lab-partition")
		if errors.Is(err, cluster.ErrOff) || err != nil && strings.Contains(err.Error(), "No such file") {
			return nil // it went with its boot
		}
		return err
	}, nil
}

// addNode adds a node, with a gateway and the agent's image.
func (r *run) addNode(ctx context.Context, _ Fault, _ string) (string, func(context.Context) error, error) {
	if n := len(r.extra()); n >= extraNodes {
		return "", nil, fmt.Errorf("%d were added already", n)
	}
	node, err := r.cluster.AddNode(ctx)
	if err != nil {
		return "", nil, err
	}
	if err := r.openGateway(ctx, ctx, node); err != nil {
		return "", nil, err
	}
	return node, nil, r.cluster.Load(ctx, r.Image, node)
}

// removeNode removes a node that was added, for good.
func (r *run) removeNode(ctx context.Context, _ Fault, node string) (string, func(context.Context) error, error) {
	if node == "" {
		return "", nil, errors.New("none was added")
	}
	r.green.forgive(node)
	err := r.cluster.RemoveNode(ctx, node)
	if err != nil { // the machine is gone; the API server may have been away
		err = r.insist(ctx, func(ctx context.Context) error {
			return r.client.CoreV1().Nodes().Delete(ctx, node, metav1.DeleteOptions{})
		})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if g := r.gateways[node]; g != nil {
		g.Close()
		delete(r.gateways, node)
	}
	return "", nil, err
}

// deleteNode deletes the Node while its machine runs. It is brought back by a boot, after which nothing on it is that of the
// old one.
func (r *run) deleteNode(ctx context.Context, f Fault, node string) (string, func(context.Context) error, error) {
	r.green.forgive(node)
	back := func(ctx context.Context) error {
		if err := r.cluster.Power(ctx, node, cluster.Cycle); err != nil {
			return err
		}
		return r.observer.Wait(ctx, node+" to register", func(nodes map[string]observe.Node) bool { _, ok := nodes[node]; return ok })
	}
	return fmt.Sprintf("registers again after %s", f.For), back, r.insist(ctx, func(ctx context.Context) error {
		return r.client.CoreV1().Nodes().Delete(ctx, node, metav1.DeleteOptions{})
	})
}

// update changes the template of the agents' pods: all of them are replaced, one after the other.
func (r *run) update(ctx context.Context, f Fault, _ string) (string, func(context.Context) error, error) {
	text := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"lab.kubebaton.io/update":"%d"}}}}}`, f.Seq)
	return "", nil, r.insist(ctx, func(ctx context.Context) error {
		_, err := r.client.AppsV1().DaemonSets(observe.Namespace).Patch(ctx, "baton-agent", types.MergePatchType, []byte(text), metav1.PatchOptions{})
		return err
	})
}
