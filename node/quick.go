package node

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
)

// minDowntimes is how many reboots of a node must have been measured before the next one is foretold.
const minDowntimes = 3

// stance tells whether pods that a drain would move are left on the node, and why, or why not.
type stance struct {
	stay bool
	why  string // "" under ModeAlways
}

// staying goes by the policy's mode and the node's own history. Under [ModeAuto] the reboot must be so quick that nobody moves
// a pod meanwhile and nobody misses one; a node that is alone has nowhere to move any.
func staying(pods []*corev1.Pod, p Policy, f Facts) stance {
	switch p.Mode {
	case ModeNever:
		return all("the mode of the drain is never", f)
	case ModeAuto:
	default:
		return stance{}
	}
	switch n := len(f.Downtimes); {
	case f.Alone:
		return all("there is no other node to go to", f)
	case n < minDowntimes:
		return stance{false, fmt.Sprintf("not quick: %d of %d downtimes measured", n, minDowntimes)}
	case f.Hindrance != "":
		return stance{false, "not quick: " + f.Hindrance}
	}
	expected, expects := expect(f.Downtimes)
	shortest := time.Duration(math.MaxInt64)
	byName := slices.SortedFunc(slices.Values(pods), func(a, b *corev1.Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	for _, pod := range byName {
		if v := judge(pod, p.of(pod), f); v.decision != DecisionEvict || v.told {
			continue
		}
		if why := missed(pod, f, expected); why != "" {
			return stance{false, fmt.Sprintf("not quick: %s; %s/%s: %s", expects, pod.Namespace, pod.Name, why)}
		}
		shortest = min(shortest, tolerated(pod))
	}
	if shortest == math.MaxInt64 {
		return stance{true, "quick: " + expects}
	}
	return stance{true, fmt.Sprintf("quick: %s; no pod is moved within %s", expects, shortest)}
}

// all is a reason for every pod to stay; and why none can, where that is so.
func all(why string, f Facts) stance {
	if f.Ends != "" {
		why += ", but " + f.Ends
	}
	return stance{true, why}
}

// expect is how long a node is away at most, by its earlier downtimes, of which there is one at least; and that in words.
func expect(downtimes []time.Duration) (at time.Duration, words string) {
	worst := slices.Max(downtimes)
	at = (worst * 3 / 2).Round(time.Second)
	return at, fmt.Sprintf("expected back within %s, half as much again as the worst of %d downtimes, %s", at, len(downtimes), worst.Round(time.Second))
}

// missed says why a pod cannot stay on a node that is away for so long; "" when it can.
func missed(p *corev1.Pod, f Facts, downtime time.Duration) string {
	if why := lostByReboot(p, f); why != "" {
		return why
	}
	if t := tolerated(p); t <= downtime {
		return fmt.Sprintf("it is moved after %s without its node", t)
	}
	if why := f.Short[string(p.UID)]; why != "" {
		return why
	}
	owner := metav1.GetControllerOf(p)
	if owner == nil {
		return "it has no controller"
	}
	switch n, ok := f.Elsewhere[string(owner.UID)]; {
	case !ok:
		return fmt.Sprintf("whether others of %s %s are ready elsewhere is not known", owner.Kind, owner.Name)
	case n == 0:
		return fmt.Sprintf("no other pod of %s %s is ready elsewhere", owner.Kind, owner.Name)
	}
	return ""
}

// tolerated is how long the pod stays on a node that is not ready: the shorter of its two tolerations, 0 without one. Of
// several that match a taint the first counts, as it does for the controller that evicts by taints.
func tolerated(p *corev1.Pod) time.Duration {
	shortest := time.Duration(math.MaxInt64)
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		taint := corev1.Taint{Key: key, Effect: corev1.TaintEffectNoExecute}
		i := slices.IndexFunc(p.Spec.Tolerations, func(t corev1.Toleration) bool { return t.ToleratesTaint(klog.Background(), &taint, false) })
		switch {
		case i < 0:
			return 0
		case p.Spec.Tolerations[i].TolerationSeconds != nil:
			shortest = min(shortest, max(0, time.Duration(*p.Spec.Tolerations[i].TolerationSeconds)*time.Second))
		}
	}
	return shortest
}
