package node

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	firstDelay  = time.Second      // before a refused eviction is asked again
	maxDelay    = 15 * time.Second // the delay grows by 8/5 up to here
	settle      = 10 * time.Second // an accepted eviction that the watch does not show by then is asked again
	goneSettle  = 2 * time.Second  // the same for a pod said to be gone: the server's own cache may not know it yet
	lastReplies = time.Second      // for replies about pods that have gone
	proofAge    = 5 * time.Second  // how old what is seen may be, at most, to be believed unasked
	overdue     = 30 * time.Second // past its grace period a pod is said to be stuck
	longWait    = time.Hour        // nothing is due: only the watch or a reply can bring news
	maxMessage  = 470              // bytes of DrainView.Message: what the cycle says around it has room in its 512
	maxNames    = 3                // pods named in one sentence
)

// backoff grows by 8/5 with each refusal and ends with the first success.
type backoff struct {
	delay     time.Duration
	notBefore time.Time
}

func (b *backoff) refused(now time.Time, least time.Duration) {
	b.delay = min(max(b.delay*8/5, firstDelay), maxDelay)
	wait := max(b.delay, least)
	b.notBefore = now.Add(wait + rand.N(wait/5+1))
}

// group is a set of pods that share evictions' luck: those of one controller, and after the first refusal by a budget
// those of that budget.
type group struct {
	backoff
	limit    int // in flight at most: grows by one with each acceptance; where budgets are not known it begins with one
	inFlight int
	budgeted bool    // a budget has refused: one at a time from then on
	refusal  string  // its words, "" while it allows
	evicted  bool    // an eviction was accepted
	returns  backoff // for the pods that a controller puts back on this node
}

// podState is what a run knows about one pod.
type podState struct {
	PodPlan
	backoff
	pod      *corev1.Pod
	owner    string // key of its controller's group
	budget   string // key of its budget's group, once known; its owner's, when none covers it
	ready    bool
	asked    int // evictions asked
	askedAt  time.Time
	group    *group // of the eviction in flight, nil none
	accepted bool
	evicted  time.Time // when that one was asked for that was accepted: the pod was there then
	refusal  string
	stuckAt  time.Time // when its grace period is well over; zero while it is not ending
}

// denied tells that the last answer was a refusal of this pod: by admission, not by a budget.
func (p *podState) denied() bool { return p.refusal != "" && p.delay > 0 }

func (p *podState) name() string { return p.Namespace + "/" + p.Name }

// rota is the state of one run: it is told what was seen and answered, and says what to do next. It does no I/O and
// reads no clock.
type rota struct {
	policy Policy
	facts  Facts
	how    stance // whether pods stay: decided at the first look, and once more at the last
	begun  time.Time
	hold   time.Time // no eviction before
	limit  int       // evictions in flight

	pods     map[string]*podState // by UID
	groups   map[string]*group
	budgetOf map[string]string // owner's key to budget's key
	inFlight map[string]*podState
	evicted  int
	server   backoff // the API server's own: throttled or away
	away     string  // its words, "" while it answers

	repliesBy time.Time // how long an empty node waits for replies
	seen      bool
	asOf      time.Time // all that had happened by then is in what was seen; zero: nobody knows
	empty     bool      // confirmed
	left      string    // volumes that are still on the empty node
	confirmAt backoff
}

func newRota(s DrainSettings, limit int) *rota {
	return &rota{
		policy: s.Policy, begun: s.Begun, hold: s.Begun.Add(s.Wait), limit: limit,
		pods: map[string]*podState{}, groups: map[string]*group{}, budgetOf: map[string]string{}, inFlight: map[string]*podState{},
	}
}

func inTheWay(p PodPlan) bool {
	return p.Decision != DecisionIgnore && p.Decision != DecisionRideThrough
}

// observe takes the node's pods as they are now, and what is known about them. A pod is the one with its UID: one of the same
// name is another.
func (st *rota) observe(pods []*corev1.Pod, f Facts, now time.Time) {
	wasEmpty := st.seen && st.remaining() == 0
	next := make(map[string]*podState, len(pods))
	st.facts, st.facts.Now, st.facts.Begun = f, now, st.begun
	if !st.seen {
		st.how = staying(pods, st.policy, st.facts)
	}
	for _, pod := range pods {
		p, known := st.pods[string(pod.UID)]
		if !known {
			p = &podState{owner: ownerKey(pod)}
			// A controller that puts its pod back on this cordoned node would have it evicted in a tight loop.
			if g := st.groups[p.owner]; st.seen && g != nil && g.evicted {
				g.returns.refused(now, 0)
				p.notBefore = g.returns.notBefore
				p.refusal = "its controller puts it back on this node"
			}
		}
		p.pod, p.PodPlan = pod, st.planOf(pod)
		p.ready = isReady(pod)
		if pod.DeletionTimestamp != nil && p.stuckAt.IsZero() {
			grace := time.Duration(0)
			if s := pod.DeletionGracePeriodSeconds; s != nil {
				grace = time.Duration(*s) * time.Second
			}
			p.stuckAt = now.Add(grace + overdue)
		}
		next[p.UID] = p
	}
	for uid, p := range st.pods {
		if next[uid] == nil && p.accepted {
			st.saw(p)
		}
	}
	st.pods, st.seen = next, true
	if st.remaining() == 0 && !wasEmpty {
		st.repliesBy = now.Add(lastReplies)
	}
}

// saw takes that what was seen shows the end of a pod that this run has evicted. A watch tells what happens in the order of the store,
// and when it begins anew it never falls behind what it has told: so with that end it shows all that came before, every pod bound to the
// node by then. How late it shows that is not known, and so the end is dated by what came before it: the eviction, which found the pod
// there, and the ends of its containers, which the kubelet tells by the clock of this host.
func (st *rota) saw(p *podState) {
	at := p.evicted
	for _, c := range p.pod.Status.ContainerStatuses {
		if end := c.State.Terminated; end != nil && end.FinishedAt.After(at) {
			at = end.FinishedAt.Time
		}
	}
	if at.After(st.asOf) {
		st.asOf = at
	}
}

// proven tells that what was seen is as good as if it were asked for now. A clock that was set back proves nothing.
func (st *rota) proven(now time.Time) bool {
	age := now.Sub(st.asOf)
	return age >= 0 && age < proofAge
}

// learn takes the disruption budgets of the pods, before any of them is asked to go. Pods that none covers need not be asked for one
// by one, to find out; those that one covers share its luck from the beginning, and so many of them are asked as it allows.
func (st *rota) learn(budgets []policyv1.PodDisruptionBudget) {
	for _, p := range st.pods {
		var by []*policyv1.PodDisruptionBudget
		for i := range budgets {
			if covers(&budgets[i], p.pod) {
				by = append(by, &budgets[i])
			}
		}
		switch {
		case len(by) == 0:
			p.budget = p.owner // others of its controller may be covered
			st.groupFor(p.owner).limit = st.limit
		case len(by) == 1:
			st.under(p, by[0].Name).limit = max(1, int(by[0].Status.DisruptionsAllowed))
		}
	}
}

// under puts a pod, and those of its controller, under a budget.
func (st *rota) under(p *podState, budget string) *group {
	p.budget = "budget/" + p.Namespace + "/" + budget
	st.budgetOf[p.owner] = p.budget
	return st.groupFor(p.budget)
}

func (st *rota) planOf(p *corev1.Pod) PodPlan { return planPod(p, st.policy, st.facts, st.how) }

func ownerKey(p *corev1.Pod) string {
	if owner := metav1.GetControllerOf(p); owner != nil {
		return "owner/" + p.Namespace + "/" + string(owner.UID)
	}
	return "pod/" + string(p.UID)
}

// groupOf returns the group whose luck p shares now.
func (st *rota) groupOf(p *podState) *group {
	return st.groupFor(cmp.Or(p.budget, st.budgetOf[p.owner], p.owner))
}

func (st *rota) groupFor(key string) *group {
	g := st.groups[key]
	if g == nil {
		g = &group{limit: 1}
		st.groups[key] = g
	}
	return g
}

// endless tells of a pod that neither an eviction nor a known time takes off the node: while it is there the drain may never end,
// and then whoever was evicted for it was evicted in vain.
func endless(p PodPlan) bool {
	return p.Decision == DecisionBlock || p.Decision == DecisionWait && p.Until.IsZero() && p.Reason != ReasonTerminating
}

// candidates are none while a pod is there that may stay for ever; else the pods to evict of the lowest tier that is still in the
// way, the least asked first; those that are not ready before those that are, as a budget lets them go even while it holds the
// others; and those that may take long to end before the others.
func (st *rota) candidates() []*podState {
	current := TierCritical
	for _, p := range st.pods {
		if endless(p.PodPlan) {
			return nil
		}
		if inTheWay(p.PodPlan) {
			current = min(current, p.Tier)
		}
	}
	var c []*podState
	for _, p := range st.pods {
		if p.Decision == DecisionEvict && p.Tier == current && p.group == nil {
			c = append(c, p)
		}
	}
	slices.SortFunc(c, func(a, b *podState) int {
		if a.asked == b.asked && a.ready != b.ready {
			if b.ready {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.asked, b.asked), cmp.Compare(b.grace, a.grace), cmp.Compare(a.name(), b.name()))
	})
	return c
}

// ripen decides anew about pods whose wait is over.
func (st *rota) ripen(now time.Time) {
	st.facts.Now = now
	for _, p := range st.pods {
		if !p.Until.IsZero() && !now.Before(p.Until) {
			p.PodPlan = st.planOf(p.pod)
		}
	}
}

// start returns the pods to evict now and counts them as asked.
func (st *rota) start(now time.Time) []PodPlan {
	st.ripen(now)
	limit := st.limit
	if st.away != "" {
		limit = 1
	}
	if now.Before(st.server.notBefore) || now.Before(st.hold) {
		return nil
	}
	var begin []PodPlan
	for _, p := range st.candidates() {
		g := st.groupOf(p)
		if len(st.inFlight) >= limit {
			break
		}
		if g.inFlight >= g.limit || now.Before(p.notBefore) || now.Before(g.notBefore) {
			continue
		}
		p.group, p.asked, p.askedAt = g, p.asked+1, now
		g.inFlight++
		st.inFlight[p.UID] = p
		begin = append(begin, p.PodPlan)
	}
	return begin
}

// answered takes the API server's answer to the eviction of the pod with that UID.
func (st *rota) answered(uid string, a answer, now time.Time) {
	p := st.inFlight[uid]
	delete(st.inFlight, uid)
	g := p.group
	g.inFlight--
	p.group = nil
	if a.result != resultThrottled && a.result != resultError {
		st.server, st.away = backoff{}, ""
	}
	switch a.result {
	case resultAccepted:
		if !p.accepted {
			st.evicted++
		}
		st.allowed(g)
		st.groupFor(p.owner).evicted = true
		if p.denied() {
			st.advance(p, now)
		}
		p.accepted, p.evicted, p.refusal, p.backoff = true, p.askedAt, "", backoff{notBefore: now.Add(settle)}
		if st.pods[uid] == nil {
			st.saw(p)
		}
	case resultGone:
		p.refused(now, goneSettle)
	case resultBudget:
		st.refusedByBudget(p, a, now)
	case resultThrottled, resultError:
		// One of them tells for all that were in flight together.
		if !now.Before(st.server.notBefore) {
			st.server.refused(now, a.after)
		}
		st.away = cmp.Or(a.message, "the API server does not answer")
	default:
		p.refused(now, a.after)
		p.refusal = a.message
	}
}

// advance asks for one more of the refused pods that share the controller, or the words of the refusal, of one that is accepted
// now: what denied them may be over, and that one will tell in turn. All of them at once would be asked in vain by a webhook
// that lets them go one by one.
func (st *rota) advance(accepted *podState, now time.Time) {
	var next *podState
	for _, p := range st.pods {
		alike := p.owner == accepted.owner || p.refusal == accepted.refusal
		if p != accepted && alike && p.denied() && p.group == nil && (next == nil || p.notBefore.Before(next.notBefore)) {
			next = p
		}
	}
	if next != nil && next.notBefore.After(now) {
		next.notBefore = now
	}
}

func (st *rota) allowed(g *group) {
	g.backoff, g.refusal = backoff{}, ""
	if !g.budgeted {
		g.limit++
	}
}

func (st *rota) refusedByBudget(p *podState, a answer, now time.Time) {
	g, words := st.groupOf(p), a.message
	if a.budget != "" {
		g, words = st.under(p, a.budget), fmt.Sprintf("disruption budget %s/%s %s", p.Namespace, a.budget, a.message)
	}
	g.limit, g.budgeted, g.refusal = 1, true, words
	if !now.Before(g.notBefore) {
		g.refused(now, a.after)
	}
}

// confirmDue says that the watch shows an empty node, and that it is time to make sure that it is. The watch
// may be faster than the replies to the evictions: those are waited for, as they are counted, but not for long.
func (st *rota) confirmDue(now time.Time) bool {
	return st.seen && st.remaining() == 0 && !now.Before(st.confirmAt.notBefore) && !now.Before(st.hold) &&
		(len(st.inFlight) == 0 || !now.Before(st.repliesBy))
}

// lastLook decides anew whether pods stay, by what is known just before the node counts as drained: others of their kind may
// have gone since the first look. Once they go, they go.
func (st *rota) lastLook(pods []*corev1.Pod, f Facts, now time.Time) {
	st.facts, st.facts.Now, st.facts.Begun = f, now, st.begun
	if st.how = staying(pods, st.policy, st.facts); st.how.stay {
		return
	}
	for _, p := range st.pods {
		p.PodPlan = st.planOf(p.pod)
	}
}

// looksAgain tells that pods which stay are looked at once more at the end.
func (st *rota) looksAgain() bool { return st.how.stay && st.policy.Mode == ModeAuto }

// confirmed takes the pods as the API server has them, and tells whether none is in the way.
func (st *rota) confirmed(pods []*corev1.Pod, err error, now time.Time) bool {
	st.facts.Now = now
	st.empty = err == nil && !slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return inTheWay(st.planOf(p)) })
	if !st.empty {
		st.confirmAt.refused(now, 0)
	}
	return st.empty
}

// stays counts the pods that are left on the node and would not have to be.
func (st *rota) stays() int {
	n := 0
	for _, p := range st.pods {
		if p.Decision == DecisionRideThrough {
			n++
		}
	}
	return n
}

// summary says what was done with an empty node.
func (st *rota) summary() string {
	parts := []string{fmt.Sprintf("%d pods evicted", st.evicted)}
	if st.evicted == 1 {
		parts[0] = "1 pod evicted"
	}
	if n := st.stays(); n > 0 {
		parts = append(parts, fmt.Sprintf("%d stay", n))
	}
	if st.how.why != "" {
		parts = append(parts, st.how.why)
	}
	if st.left != "" {
		parts = append(parts, "still attached: "+st.left)
	}
	return strings.Join(parts, ", ")
}

// evicts tells whether a pod may be evicted, now or later.
func (st *rota) evicts() bool {
	for _, p := range st.pods {
		if p.Decision == DecisionEvict || !p.Until.IsZero() {
			return true
		}
	}
	return false
}

func (st *rota) remaining() int {
	n := 0
	for _, p := range st.pods {
		if inTheWay(p.PodPlan) {
			n++
		}
	}
	return n
}

// wake returns how long nothing is due, counted from now.
func (st *rota) wake(now time.Time) time.Duration {
	next := now.Add(longWait)
	due := func(t time.Time) {
		if t.After(now) && t.Before(next) {
			next = t
		}
	}
	for _, p := range st.candidates() {
		times := []time.Time{p.notBefore, st.groupOf(p).notBefore, st.server.notBefore, st.hold}
		due(slices.MaxFunc(times, time.Time.Compare))
	}
	if len(st.facts.Unread) > 0 {
		due(now.Add(maxDelay))
	}
	for _, p := range st.pods {
		if inTheWay(p.PodPlan) {
			due(p.stuckAt)
			due(p.Until)
		}
	}
	if st.seen && st.remaining() == 0 {
		due(st.confirmAt.notBefore)
		due(st.repliesBy)
	}
	due(st.hold)
	return next.Sub(now)
}

// view says where the run stands. The first of the reasons that hold it up is its reason; the message tells all.
func (st *rota) view(now time.Time) DrainView {
	v := DrainView{Running: !st.empty, Empty: st.empty, Evicted: st.evicted, Remaining: st.remaining()}
	v.Stays = st.policy.Mode == ModeAuto && st.how.stay
	var sentences []string
	for _, h := range st.holdups(now) {
		v.Reason = cmp.Or(v.Reason, h.reason)
		sentences = append(sentences, h.sentence())
	}
	v.Message = cut(strings.Join(sentences, "; "), maxMessage)
	switch {
	case v.Empty:
		v.Summary = st.summary()
	case v.Remaining == 0 && now.Before(st.hold):
		v.Reason, v.Message = ReasonLoadBalancer, leaving
	}
	return v
}

// detaching is the view of an empty node from which volumes are still taken off.
func (st *rota) detaching(left string) DrainView {
	return DrainView{Running: true, Evicted: st.evicted, Reason: ReasonVolume, Message: cut("waits until these volumes are off the node: "+left, maxMessage)}
}

// holdup is a reason, what it says, and the pods it holds.
type holdup struct {
	rank          int
	reason, words string
	pods          []string
}

func (h holdup) sentence() string {
	if h.words == "" {
		return "waiting for " + list(h.pods)
	}
	return list(h.pods) + ": " + h.words
}

// holdups groups the pods in the way by what holds them, the gravest first.
func (st *rota) holdups(now time.Time) []holdup {
	found := map[holdupKey][]string{}
	for _, p := range st.pods {
		if inTheWay(p.PodPlan) {
			k := st.holdup(p, now)
			found[k] = append(found[k], p.name())
		}
	}
	hs := make([]holdup, 0, len(found))
	for k, pods := range found {
		slices.Sort(pods)
		hs = append(hs, holdup{k.rank, k.reason, k.words, pods})
	}
	slices.SortFunc(hs, func(a, b holdup) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.words, b.words))
	})
	return hs
}

type holdupKey struct {
	rank          int
	reason, words string
}

func (st *rota) holdup(p *podState, now time.Time) holdupKey {
	g := st.groupOf(p)
	switch {
	case endless(p.PodPlan): // before what others were refused for: they are not asked for any more
		return holdupKey{0, p.Reason, p.Message}
	case p.Decision == DecisionEvict && now.Before(st.hold):
		return holdupKey{3, ReasonLoadBalancer, leaving}
	case p.Decision == DecisionEvict && !p.accepted && g.refusal != "":
		return holdupKey{1, ReasonBudget, g.refusal}
	case p.Decision == DecisionEvict && p.refusal != "":
		return holdupKey{2, ReasonEviction, p.refusal}
	case p.Decision == DecisionEvict && !p.accepted && st.away != "":
		return holdupKey{2, ReasonEviction, st.away}
	case p.Reason == ReasonTerminating && !now.Before(p.stuckAt):
		return holdupKey{4, ReasonTerminating, stuck(p.pod)}
	case p.Reason != ReasonTerminating && p.Decision != DecisionEvict:
		return holdupKey{3, p.Reason, p.Message}
	}
	return holdupKey{rank: 5}
}

// leaving is why a drain waits before its first eviction.
const leaving = "load balancers are given time to leave the node"

// stuck says what may keep a pod that should have ended.
func stuck(p *corev1.Pod) string {
	const late = "has not ended within its grace period"
	if len(p.Finalizers) > 0 {
		return late + ": its finalizers are " + list(p.Finalizers)
	}
	return late
}

// list names the first few.
func list(names []string) string {
	if len(names) > maxNames {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNames], ", "), len(names)-maxNames)
	}
	return strings.Join(names, ", ")
}
