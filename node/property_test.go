package node

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// drainWorld is a node whose pods come, go and are replaced while a rota empties it.
type drainWorld struct {
	*testing.T
	r         *rand.Rand
	now       time.Time
	begun     time.Time
	policy    Policy
	facts     Facts
	pods      map[string]*corev1.Pod // by UID
	uids      int
	asked     map[string]bool // evictions in flight
	evictions int             // asked for
	st        *rota
}

// pick draws one of words.
func (w *drainWorld) pick(words ...string) string { return words[w.r.IntN(len(words))] }

// rarely is true one time in n.
func (w *drainWorld) rarely(n int) bool { return w.r.IntN(n) == 0 }

// draw draws what becomes of pods.
func (w *drainWorld) draw() Policy {
	words := []string{DoEvict, DoEvict, DoEvict, DoWait, DoRideThrough, DoBlock}
	p := Policy{
		Unmanaged: w.pick(DoDelete, DoDelete, DoDelete, DoWait, DoRideThrough, DoBlock), LocalVolumes: w.pick(words...), EmptyDir: w.pick(words...), Jobs: w.pick(append(words, DoWait, DoWait)...), Annotated: w.pick(words...),
	}
	if w.rarely(2) {
		p.JobsFor, p.MinAge = time.Duration(20+w.r.IntN(100))*time.Second, time.Duration(10+w.r.IntN(20))*time.Second
	}
	return p
}

// rules draws a policy, and what is known beside the pods.
func (w *drainWorld) rules() {
	w.policy = w.draw()
	w.policy.Mode = w.pick(ModeAlways, ModeAlways, ModeAuto, ModeNever)
	if w.rarely(2) { // the second is for the pods of the first too
		own := w.draw()
		own.Do = w.pick("", "", DoEvict, DoDelete, DoWait, DoRideThrough, DoBlock)
		w.policy.Rules = []Rule{
			{Match: func(l map[string]string) bool { return l["ruled"] == "yes" }, Policy: own},
			{Match: func(l map[string]string) bool { return l["ruled"] != "" }, Namespaces: []string{"a", "b"}, Policy: w.draw()},
			{Namespaces: []string{"b"}, Policy: w.draw()},
		}
	}
	w.facts = Facts{Bound: map[string]string{}, Unread: map[string]string{}, Alone: w.rarely(2), Hindrance: "others may be down too"}
	if w.rarely(3) {
		w.facts.Downtimes = []time.Duration{time.Hour, time.Hour, time.Hour} // longer than any pod without a controller is left alone
	}
}

// come puts a pod on the node, with whatever may matter to a drain.
func (w *drainWorld) come(name string) {
	w.uids++
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "a", UID: types.UID(fmt.Sprint(name, "/", w.uids)), Annotations: map[string]string{}, Labels: map[string]string{}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main"}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &metav1.Time{Time: w.now}},
	}
	if kind := w.pick("ReplicaSet", "ReplicaSet", "ReplicaSet", "Job", "Job", "DaemonSet", ""); kind != "" {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: kind, Name: "of-" + name, UID: "1", Controller: &yes}}
	}
	if w.rarely(10) {
		p.Annotations[corev1.MirrorPodAnnotationKey] = "x"
	}
	if w.rarely(10) {
		p.Status.Phase = corev1.PodSucceeded
	}
	if w.rarely(6) {
		p.Annotations[AnnotationEviction] = w.pick(DoEvict, DoEvict, DoWait, DoRideThrough, DoBlock, "evikt")
	}
	if w.rarely(5) {
		p.Annotations[AnnotationDoNotDisrupt] = "true"
	}
	if w.rarely(3) {
		p.Labels["ruled"] = w.pick("yes", "too")
	}
	if w.rarely(3) {
		onDisk("")(p)
	}
	if w.rarely(8) {
		asksFor("nvidia.com/gpu")(p)
	}
	switch w.r.IntN(8) {
	case 0:
		w.facts.Bound[string(p.UID)] = "pv"
	case 1:
		w.facts.Unread[string(p.UID)] = "forbidden"
	}
	w.pods[string(p.UID)] = p
}

// aWhile is the wish that a pod is awaited, but not for ever.
const aWhile = "wait a while"

// over is the policy under which a pod is.
func (w *drainWorld) over(p *corev1.Pod) Policy {
	switch ruled := p.Labels["ruled"]; {
	case ruled == "" || len(w.policy.Rules) == 0:
		return w.policy
	case ruled == "yes":
		return w.policy.Rules[0].Policy
	}
	return w.policy.Rules[1].Policy
}

// wishes are what all that concern a pod want for it, and whether one that knows it has said so alone; none for a pod that is of no
// concern. They are the policy said again, in other words than the plan's.
func (w *drainWorld) wishes(p *corev1.Pod) (all []string, told bool) {
	owner := metav1.GetControllerOf(p)
	if p.Status.Phase == corev1.PodSucceeded || p.Annotations[corev1.MirrorPodAnnotationKey] != "" || owner != nil && owner.Kind == "DaemonSet" {
		return nil, false
	}
	if do := p.Annotations[AnnotationEviction]; do != "" {
		return []string{do}, true
	}
	policy := w.over(p)
	switch do := policy.Do; {
	case do == DoDelete:
		return []string{DoEvict}, true
	case do != "" && (do != DoEvict || owner != nil):
		return []string{do}, true
	}
	all = []string{DoEvict}
	if p.Annotations[AnnotationDoNotDisrupt] == "true" {
		all = append(all, policy.Annotated)
	}
	switch {
	case owner == nil && policy.Unmanaged == DoDelete:
		all = append(all, DoEvict)
	case owner == nil:
		all = append(all, policy.Unmanaged)
	}
	if w.facts.Bound[string(p.UID)] != "" || w.facts.Unread[string(p.UID)] != "" {
		all = append(all, policy.LocalVolumes)
	}
	data, returns := len(p.Spec.Volumes) > 0, len(p.Spec.Containers[0].Resources.Limits) == 0
	kept := data && (policy.EmptyDir == DoWait || policy.EmptyDir == DoBlock || policy.EmptyDir == DoRideThrough && !returns)
	limited := policy.JobsFor > 0 && policy.Jobs == DoWait && !kept
	switch over := w.now.Sub(w.begun) >= policy.JobsFor; {
	case owner == nil || owner.Kind != "Job" || limited && over:
	case limited:
		all = append(all, aWhile)
	default:
		all = append(all, policy.Jobs)
	}
	if data {
		all = append(all, policy.EmptyDir)
	}
	return all, false
}

// tell is a pod in the words of a failure.
func (w *drainWorld) tell(p *corev1.Pod) string {
	all, told := w.wishes(p)
	return fmt.Sprintf("%s (wanted: %v, told: %v, under %+v, alone: %v, downtimes: %v)", p.UID, all, told, w.over(p), w.facts.Alone, w.facts.Downtimes)
}

// mayGo tells whether an eviction of the pod is right now: one objection is enough to keep it.
func (w *drainWorld) mayGo(p *corev1.Pod) bool {
	all, told := w.wishes(p)
	objects := slices.ContainsFunc(all, func(do string) bool { return do != DoEvict })
	stays := w.policy.Mode == ModeNever || w.policy.Mode == ModeAuto && w.facts.Alone
	returns := len(p.Spec.Containers[0].Resources.Limits) == 0
	young := w.now.Sub(p.Status.StartTime.Time) < w.over(p).MinAge
	return len(all) > 0 && !objects && (told || !stays || !returns) && !young
}

// mayHold tells whether a pod may keep the drain from ending whatever comes, and holds whether it does: all that object do that.
func (w *drainWorld) mayHold(p *corev1.Pod) (mayHold, holds bool) {
	all, _ := w.wishes(p)
	returns := len(p.Spec.Containers[0].Resources.Limits) == 0 &&
		(len(w.facts.Downtimes) == 0 || w.facts.Alone || metav1.GetControllerOf(p) != nil || p.Annotations[AnnotationEviction] != "")
	holds = p.DeletionTimestamp == nil
	objections := 0
	for _, do := range all {
		switch {
		case do == DoEvict:
			continue
		case do == DoRideThrough && returns, do == aWhile:
			holds = false
		default:
			mayHold = true
		}
		objections++
	}
	return mayHold, holds && objections > 0
}

func (w *drainWorld) observe() {
	w.st.observe(slices.Collect(maps.Values(w.pods)), w.facts, w.now)
}

// budgets are some that cover every pod, or none.
func (w *drainWorld) budgets() []policyv1.PodDisruptionBudget {
	all := make([]policyv1.PodDisruptionBudget, w.r.IntN(3))
	for i := range all {
		all[i].Namespace, all[i].Name = "a", fmt.Sprint("budget-", i)
		all[i].Spec.Selector = &metav1.LabelSelector{}
		all[i].Status.DisruptionsAllowed = int32(w.r.IntN(5)) //nolint:gosec // small
	}
	return all
}

// ask lets the rota begin evictions, and judges each.
func (w *drainWorld) ask() {
	held := ""
	for uid, p := range w.pods {
		if _, holds := w.mayHold(p); holds {
			held = uid
		}
	}
	for _, p := range w.st.start(w.now) {
		switch {
		case w.asked[p.UID]:
			w.Errorf("%s is asked for twice at once", p.UID)
		case !w.mayGo(w.pods[p.UID]):
			w.Errorf("%s is evicted", w.tell(w.pods[p.UID]))
		case held != "":
			w.Errorf("%s is evicted in vain: %s stays", p.UID, w.tell(w.pods[held]))
		case len(w.asked) >= w.st.limit:
			w.Errorf("%d evictions in flight, limit %d", len(w.asked)+1, w.st.limit)
		}
		w.asked[p.UID] = true
		w.evictions++
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
			{result: resultBudget, message: "no"},
			{result: resultThrottled, after: time.Second},
			{result: resultRefused, message: "not now"},
			{result: resultError, message: "away"},
		}[w.r.IntN(7)]
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
		w.come(fmt.Sprintf("p-%d", w.r.IntN(20)))
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

// TestDrainProperties: whatever pods come and go, and whatever the API server answers, no pod is evicted that anybody wants to stay, none
// twice at once, never more than the limit, and none for a drain that cannot end; and when the answers are kind and nothing holds the
// drain, every pod that may go does.
func TestDrainProperties(t *testing.T) {
	evictions := 0
	for seed := range uint64(500) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			begun := time.Unix(1000, 0)
			w := &drainWorld{
				T: t, r: rand.New(rand.NewPCG(seed, 1)), now: begun, begun: begun, //nolint:gosec // replayable
				pods: map[string]*corev1.Pod{}, asked: map[string]bool{},
			}
			w.rules()
			w.st = newRota(DrainSettings{Policy: w.policy, Begun: w.now}, 1+w.r.IntN(4))
			for range 8 {
				w.event()
			}
			w.observe()
			if w.r.IntN(2) == 0 {
				w.st.learn(w.budgets())
			}
			for range 200 {
				w.observe()
				w.ask()
				w.answer(false)
				w.event()
				if w.rarely(3) {
					w.end()
				}
			}
			maps.DeleteFunc(w.pods, func(_ string, p *corev1.Pod) bool { mayHold, _ := w.mayHold(p); return mayHold })
			for range 400 {
				w.observe()
				w.ask()
				w.answer(true)
				w.end()
				w.now = w.now.Add(2 * time.Second)
			}
			for _, p := range w.pods {
				if w.mayGo(p) {
					t.Errorf("%s is still there: %s", w.tell(p), w.st.view(w.now).Message)
				}
			}
			evictions += w.evictions
		})
	}
	if evictions < 3_000 {
		t.Errorf("%d evictions show too little", evictions)
	}
}
