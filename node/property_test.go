package node

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// drainWorld is a node whose pods come, go and are replaced while a rota empties it.
type drainWorld struct {
	*testing.T
	r      *rand.Rand
	now    time.Time
	policy Policy
	pods   map[string]*corev1.Pod // by UID
	uids   int
	asked  map[string]bool // evictions in flight
	st     *rota
}

// kinds of pods, and whether a drain under this policy may ever evict one: said here again, in other words than the plan's.
func kinds() map[string]func(p *corev1.Pod, policy Policy) (mayGo bool) {
	controlled := func(p *corev1.Pod, kind string) {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: kind, Name: "of-" + p.Name, UID: "1", Controller: &yes}}
	}
	return map[string]func(*corev1.Pod, Policy) bool{
		"web":    func(p *corev1.Pod, _ Policy) bool { controlled(p, "ReplicaSet"); return true },
		"agent":  func(p *corev1.Pod, _ Policy) bool { controlled(p, "DaemonSet"); return false },
		"static": func(p *corev1.Pod, _ Policy) bool { p.Annotations[corev1.MirrorPodAnnotationKey] = "x"; return false },
		"over": func(p *corev1.Pod, _ Policy) bool {
			controlled(p, "Job")
			p.Status.Phase = corev1.PodSucceeded
			return false
		},
		"alone": func(_ *corev1.Pod, policy Policy) bool { return policy.Unmanaged == DoEvict },
		"job":   func(p *corev1.Pod, policy Policy) bool { controlled(p, "Job"); return policy.Jobs == DoEvict },
		"banned": func(p *corev1.Pod, _ Policy) bool {
			controlled(p, "ReplicaSet")
			p.Annotations[AnnotationEviction] = "block"
			return false
		},
		"rider": func(p *corev1.Pod, _ Policy) bool {
			controlled(p, "ReplicaSet")
			p.Annotations[AnnotationEviction] = "ride-through"
			return false
		},
		"typo": func(p *corev1.Pod, _ Policy) bool {
			controlled(p, "ReplicaSet")
			p.Annotations[AnnotationEviction] = "evikt"
			return false
		},
	}
}

func (w *drainWorld) come(name string) {
	kind, _, _ := strings.Cut(name, "-")
	w.uids++
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "a", UID: types.UID(fmt.Sprint(name, "/", w.uids)), Annotations: map[string]string{}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
	kinds()[kind](p, w.policy)
	w.pods[string(p.UID)] = p
}

func (w *drainWorld) observe() {
	w.st.observe(slices.Collect(maps.Values(w.pods)), Facts{}, w.now)
}

// ask lets the rota begin evictions, and judges each.
func (w *drainWorld) ask() {
	for _, p := range w.st.start(w.now) {
		pod := w.pods[p.UID]
		if pod == nil {
			continue // gone since; the API server says so by its UID
		}
		kind, _, _ := strings.Cut(pod.Name, "-")
		switch {
		case w.asked[p.UID]:
			w.Errorf("%s is asked for twice at once", p.UID)
		case !kinds()[kind](pod.DeepCopy(), w.policy):
			w.Errorf("%s is evicted under %+v", p.UID, w.policy)
		case len(w.asked) >= w.st.limit:
			w.Errorf("%d evictions in flight, limit %d", len(w.asked)+1, w.st.limit)
		}
		w.asked[p.UID] = true
	}
}

// answer answers one eviction that is in flight, kindly or as it comes.
func (w *drainWorld) answer(kind bool) {
	uids := slices.Sorted(maps.Keys(w.asked))
	if len(uids) == 0 {
		return
	}
	uid := uids[w.r.IntN(len(uids))]
	delete(w.asked, uid)
	a := answer{result: resultAccepted}
	if !kind {
		a = []answer{
			{result: resultAccepted},
			{result: resultGone},
			{result: resultBudget, budget: "b", message: "no"},
			{result: resultThrottled, after: time.Second},
			{result: resultRefused, message: "not now"},
			{result: resultError, message: "away"},
		}[w.r.IntN(6)]
	}
	if w.pods[uid] == nil {
		a = answer{result: resultGone}
	}
	w.st.answered(uid, a, w.now)
	if p := w.pods[uid]; p != nil && a.result == resultAccepted {
		p = p.DeepCopy()
		p.DeletionTimestamp = &metav1.Time{Time: w.now}
		w.pods[uid] = p
	}
}

// event is something that happens on the node by itself.
func (w *drainWorld) event() {
	uids := slices.Sorted(maps.Keys(w.pods))
	switch w.r.IntN(4) {
	case 0:
		names := slices.Sorted(maps.Keys(kinds()))
		w.come(fmt.Sprintf("%s-%d", names[w.r.IntN(len(names))], w.r.IntN(3)))
	case 1:
		if len(uids) > 0 { // replaced under the same name
			p := w.pods[uids[w.r.IntN(len(uids))]]
			delete(w.pods, string(p.UID))
			w.come(p.Name)
		}
	case 2:
		if len(uids) > 0 {
			delete(w.pods, uids[w.r.IntN(len(uids))])
		}
	case 3:
		w.now = w.now.Add(time.Duration(w.r.IntN(20_000)) * time.Millisecond)
	}
}

// end lets pods that were asked to go be gone.
func (w *drainWorld) end() {
	maps.DeleteFunc(w.pods, func(_ string, p *corev1.Pod) bool { return p.DeletionTimestamp != nil })
}

// TestDrainProperties: whatever pods come and go, and whatever the API server answers, no pod is evicted that must stay, none twice at
// once, never more than the limit; and when the answers are kind, every pod that may go does.
func TestDrainProperties(t *testing.T) {
	for seed := range uint64(400) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // replayable
			pick := func(words ...string) string { return words[r.IntN(len(words))] }
			w := &drainWorld{
				T: t, r: r, now: time.Unix(1000, 0), pods: map[string]*corev1.Pod{}, asked: map[string]bool{},
				policy: Policy{Unmanaged: pick(DoBlock, DoEvict, DoRideThrough, DoWait), Jobs: pick(DoEvict, DoWait, DoRideThrough)},
			}
			w.st = newRota(DrainSettings{Policy: w.policy, Begun: w.now}, 1+r.IntN(4))
			for range 8 {
				w.event()
			}
			for range 200 {
				w.observe()
				w.ask()
				w.answer(false)
				w.event()
				if r.IntN(3) == 0 {
					w.end()
				}
			}
			for range 400 {
				w.observe()
				w.ask()
				w.answer(true)
				w.end()
				w.now = w.now.Add(2 * time.Second)
			}
			for _, p := range w.pods {
				if kind, _, _ := strings.Cut(p.Name, "-"); kinds()[kind](p.DeepCopy(), w.policy) {
					t.Errorf("%s is still there under %+v: %s", p.UID, w.policy, w.st.view(w.now).Message)
				}
			}
		})
	}
}
