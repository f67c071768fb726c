package node

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// tolerating gives a pod the tolerations that the API server gives it, or others.
func tolerating(seconds ...int64) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		for i, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
			s := seconds[min(i, len(seconds)-1)]
			t := corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &s}
			if s < 0 {
				t.TolerationSeconds = nil
			}
			p.Spec.Tolerations = append(p.Spec.Tolerations, t)
		}
	}
}

// measured are facts of a node that is expected back within a minute and a half, with others of web elsewhere.
func measured(edits ...func(*Facts)) Facts {
	f := Facts{Now: noon, Downtimes: []time.Duration{40 * time.Second, time.Minute, 30 * time.Second}, Elsewhere: map[string]int{"uid-web": 1}}
	for _, edit := range edits {
		edit(&f)
	}
	return f
}

func TestStaying(t *testing.T) {
	const expected = "expected back within 1m30s, half as much again as the worst of 3 downtimes, 1m0s; "
	auto := Policy{Mode: ModeAuto}
	for _, tc := range []struct {
		name   string
		pods   []*corev1.Pod
		policy Policy
		facts  Facts
		stay   bool
		why    string
	}{
		{"by default nothing stays", []*corev1.Pod{web(tolerating(300))}, Policy{}, measured(), false, ""},
		{"nor does it by a word that is not known", []*corev1.Pod{web(tolerating(300))}, Policy{Mode: "fast"}, measured(), false, ""},
		{"auto: pods that are tolerated for five minutes stay on a node that is back within one and a half", []*corev1.Pod{web(tolerating(300))}, auto, measured(), true, "quick: " + expected + "no pod is moved within 5m0s"},
		{"auto: a node without pods is quick", nil, auto, measured(), true, "quick: " + strings.TrimSuffix(expected, "; ")},
		{"auto: a pod that is tolerated for ever stays", []*corev1.Pod{web(tolerating(-1))}, auto, measured(), true, "quick: " + strings.TrimSuffix(expected, "; ")},
		{"auto: two downtimes say nothing yet", []*corev1.Pod{web(tolerating(300))}, auto, measured(func(f *Facts) { f.Downtimes = f.Downtimes[:2] }), false, "not quick: 2 of 3 downtimes measured"},
		{"auto: one slow reboot is enough", []*corev1.Pod{web(tolerating(300))}, auto, measured(func(f *Facts) { f.Downtimes = append(f.Downtimes, 200*time.Second) }), false, "not quick: expected back within 5m0s, half as much again as the worst of 4 downtimes, 3m20s; shop/a: it is moved after 5m0s without its node"},
		{"auto: the shorter toleration counts", []*corev1.Pod{web(tolerating(300, 60))}, auto, measured(), false, "not quick: " + expected + "shop/a: it is moved after 1m0s without its node"},
		{"auto: as long as the downtime is not enough", []*corev1.Pod{web(tolerating(90))}, auto, measured(), false, "not quick: " + expected + "shop/a: it is moved after 1m30s without its node"},
		{"auto: a pod without a toleration is moved at once", []*corev1.Pod{web()}, auto, measured(), false, "not quick: " + expected + "shop/a: it is moved after 0s without its node"},
		{"auto: a toleration of everything is for ever", []*corev1.Pod{web(func(p *corev1.Pod) {
			p.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
		})}, auto, measured(), true, "quick: " + strings.TrimSuffix(expected, "; ")},
		{"auto: of two tolerations of a taint the first counts", []*corev1.Pod{web(tolerating(10), tolerating(300))}, auto, measured(), false, "not quick: " + expected + "shop/a: it is moved after 10s without its node"},
		{"auto: the last of its kind is not left without", []*corev1.Pod{web(tolerating(300))}, auto, measured(func(f *Facts) { f.Elsewhere["uid-web"] = 0 }), false, "not quick: " + expected + "shop/a: no other pod of ReplicaSet web is ready elsewhere"},
		{"auto: what is not known is no", []*corev1.Pod{web(tolerating(300))}, auto, measured(func(f *Facts) { f.Elsewhere = nil }), false, "not quick: " + expected + "shop/a: whether others of ReplicaSet web are ready elsewhere is not known"},
		{"auto: another node that may be down may have the others", []*corev1.Pod{web(tolerating(300))}, auto, measured(func(f *Facts) { f.Hindrance = "others may be down too: n2" }), false, "not quick: others may be down too: n2"},
		{"auto: nor is it quick where a budget does not allow it", []*corev1.Pod{web(tolerating(300))}, auto, measured(func(f *Facts) { f.Short = map[string]string{"uid-a": "disruption budget web allows 0 of 1 now"} }), false, "not quick: " + expected + "shop/a: disruption budget web allows 0 of 1 now"},
		{"auto: what its owner says to others counts as any other pod", []*corev1.Pod{web(func(p *corev1.Pod) { p.Annotations = map[string]string{AnnotationDoNotDisrupt: "true"} })}, Policy{Mode: ModeAuto, Annotated: DoEvict}, measured(), false, "not quick: " + expected + "shop/a: it is moved after 0s without its node"},
		{"auto: a pod with a device does not come back", []*corev1.Pod{web(tolerating(300), asksFor("nvidia.com/gpu"))}, auto, measured(), false, "not quick: " + expected + "shop/a: it holds nvidia.com/gpu, which the kubelet rejects while the device plugin is not up yet"},
		{"auto: a kubelet that ends pods at shutdown leaves none to come back", []*corev1.Pod{web(tolerating(300))}, auto, measured(func(f *Facts) { f.Ends = "the kubelet ends it" }), false, "not quick: " + expected + "shop/a: the kubelet ends it"},
		{"auto: DaemonSets' pods do not matter", []*corev1.Pod{pod("d", ownedBy("DaemonSet", "proxy"))}, auto, measured(), true, "quick: " + strings.TrimSuffix(expected, "; ")},
		{"auto: nor does a pod whose owner wants it evicted", []*corev1.Pod{web(tolerating(0), says(DoEvict))}, auto, measured(), true, "quick: " + strings.TrimSuffix(expected, "; ")},
		{"auto: nor does a pod that a rule leaves on the node", []*corev1.Pod{web(onDisk(""))}, Policy{Mode: ModeAuto, Rules: []Rule{{Policy: Policy{EmptyDir: DoRideThrough}}}}, measured(), true, "quick: " + strings.TrimSuffix(expected, "; ")},
		{"auto: a pod that a rule lets go does", []*corev1.Pod{web(onDisk(""))}, Policy{Mode: ModeAuto, EmptyDir: DoRideThrough, Rules: []Rule{{Policy: Policy{EmptyDir: DoEvict}}}}, measured(), false, "not quick: " + expected + "shop/a: it is moved after 0s without its node"},
		{"auto: one pod that cannot stay makes all go", []*corev1.Pod{web(tolerating(300)), pod("b", ownedBy("ReplicaSet", "web"))}, auto, measured(), false, "not quick: " + expected + "shop/b: it is moved after 0s without its node"},
		{"auto: on the only node pods have nowhere to go", []*corev1.Pod{web()}, auto, Facts{Now: noon, Alone: true}, true, "there is no other node to go to"},
		{"auto: unless they would not come back to it either", []*corev1.Pod{web()}, auto, Facts{Now: noon, Alone: true, Ends: "the kubelet ends it"}, true, "there is no other node to go to, but the kubelet ends it"},
		{"never: and that it ends every pod is said", []*corev1.Pod{web()}, Policy{Mode: ModeNever}, Facts{Now: noon, Ends: "the kubelet ends it"}, true, "the mode of the drain is never, but the kubelet ends it"},
		{"never: they stay whatever is known", []*corev1.Pod{web()}, Policy{Mode: ModeNever}, Facts{Now: noon}, true, "the mode of the drain is never"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			plan := Plan(tc.pods, tc.policy, tc.facts)
			if plan.Stay != tc.stay || plan.Mode != tc.why {
				t.Errorf("stay %v: %q, want %v: %q", plan.Stay, plan.Mode, tc.stay, tc.why)
			}
		})
	}
}
