package node

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What a drain does with a pod.
const (
	DecisionIgnore      = "ignore"      // it belongs to the node, or is over: it is not in the way
	DecisionEvict       = DoEvict       // it is evicted and its end awaited
	DecisionRideThrough = DoRideThrough // it stays and comes back with the node
	DecisionWait        = DoWait        // its end, or the time until it may be evicted, is awaited
	DecisionBlock       = DoBlock       // the node may not be drained while it is here
)

// Reasons of a [PodPlan] and of a [DrainView]; those that hold a node up are words of Baton's closed set of reasons.
const (
	ReasonDaemonSet   = "daemonset"
	ReasonMirror      = "mirror"
	ReasonFinished    = "finished"
	ReasonController  = "controller"
	ReasonLocalVolume = "local-volume"
	ReasonEmptyDir    = "empty-dir"
	ReasonJob         = "job"
	ReasonRule        = "rule" // the configuration says so for this pod
	ReasonAge         = "age"  // it has not run for long enough
	ReasonMode        = "mode" // the mode of the drain leaves it on the node

	ReasonTerminating   = "terminating"    // it was asked to end; in a DrainView: and has not within its grace period
	ReasonUnmanagedPod  = "unmanaged-pod"  // it has no controller
	ReasonPodAnnotation = "pod-annotation" // an annotation of its own says so
	ReasonBudget        = "pdb"            // its disruption budget does not allow its eviction now
	ReasonOtherRebooter = "other-rebooter" // a pod of this node reboots it too
	ReasonEviction      = "eviction"       // the API server refuses its eviction for another reason
	ReasonLoadBalancer  = "load-balancer"  // load balancers are given time to leave the node
	ReasonVolume        = "volume"         // volumes of pods that have ended are still on the node
)

// What the users of a pod will feel. What depends on pods of other nodes is said only when those are known.
const (
	ImpactNone     = "none"      // nothing: it is not touched
	ImpactMoved    = "moved"     // it is re-created elsewhere; others may serve meanwhile, or not: that is not known
	ImpactServed   = "served"    // it is re-created elsewhere or away with the node, and others of its kind are ready
	ImpactOutage   = "outage"    // it is re-created elsewhere, and no other of its kind is ready until then
	ImpactDowntime = "downtime"  // it is away as long as the node, and comes back with it
	ImpactLost     = "lost"      // it ends for good
	ImpactUntilEnd = "until-end" // nothing: its own end is awaited
)

// Tiers of a drain: the next one begins when nothing of the one before is in the way.
const (
	TierOrdinary = 0
	TierCritical = 1 // system-critical pods: the others may need them until they have ended
)

// systemCritical is the lowest priority of the system-critical classes; users cannot define any above 1e9.
const systemCritical = 2_000_000_000

const (
	kindDaemonSet = "DaemonSet"
	kindJob       = "Job"
)

// PodPlan says what a drain would do with a pod, why, and what its users will feel.
type PodPlan struct {
	Namespace, Name, UID string
	Owner                string // "ReplicaSet/web-6d4cf": its controller; "" none
	Tier                 int
	Decision             string
	Reason               string    // a word
	Message              string    // a sentence for people
	Impact               string    // a word
	Until                time.Time // of a wait that ends by itself in an eviction; zero for none

	grace time.Duration // its own grace period
}

// DrainPlan says what a drain would do with every pod of a node.
type DrainPlan struct {
	Pods []PodPlan // by namespace and name
	// Stay tells that pods are left on the node which a drain would else move; Mode says why, or why not. It is empty under
	// [ModeAlways].
	Stay bool
	Mode string
	Held string // why no drain begins at all now: the host cannot be asked; "" when one may
}

func (n DrainPlan) heldBy(err error) DrainPlan {
	if err != nil {
		n.Held = err.Error()
	}
	return n
}

// Plan decides about every pod of a node. It reads nothing but its arguments.
func Plan(pods []*corev1.Pod, p Policy, f Facts) DrainPlan {
	how := staying(pods, p, f)
	n := DrainPlan{Pods: make([]PodPlan, 0, len(pods)), Stay: how.stay, Mode: how.why}
	for _, pod := range pods {
		n.Pods = append(n.Pods, planPod(pod, p, f, how))
	}
	slices.SortFunc(n.Pods, func(a, b PodPlan) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return n
}

// planPod decides about one pod of a node whose mode is decided.
func planPod(pod *corev1.Pod, p Policy, f Facts, how stance) PodPlan {
	pp := PodPlan{Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID), Tier: tier(pod)}
	if owner := metav1.GetControllerOf(pod); owner != nil {
		pp.Owner = owner.Kind + "/" + owner.Name
	}
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		pp.grace = time.Duration(*s) * time.Second
	}
	of := p.of(pod)
	v := decide(pod, of, f, how)
	says := v.reason != ReasonRule && (v.reason != ReasonAge || of.MinAge != p.MinAge) // else the words or the age are not the rule's
	if without := decide(pod, p, f, how); says && v.differs(without) {
		v.message += "; a rule of the configuration wants it so"
	}
	pp.Decision, pp.Reason, pp.Message, pp.Until = v.decision, v.reason, v.message, v.until
	pp.Impact = impact(pod, v.decision, f)
	return pp
}

// decide is what becomes of a pod by the policy that is in force for it.
func decide(pod *corev1.Pod, p Policy, f Facts, how stance) verdict {
	v := judge(pod, p, f)
	switch {
	case v.decision != DecisionEvict:
		return v
	case how.stay && !v.told && lostByReboot(pod, f) == "":
		return verdict{decision: DecisionRideThrough, reason: ReasonMode, message: how.why}
	}
	return ripens(pod, v, p, f)
}

// judge is the answer of the first filter that decides about the pod. An eviction is decided at once only by those who know the pod;
// with all other filters it means no objection, and a later one may have one.
func judge(pod *corev1.Pod, p Policy, f Facts) verdict {
	var evict verdict // by the first filter that has no objection
	for _, decide := range filters() {
		v, ok := decide(pod, p, f)
		switch {
		case !ok:
		case v.told || v.decision != DecisionEvict:
			return v
		default:
			evict = cmp.Or(evict, v)
		}
	}
	return evict
}

func tier(p *corev1.Pod) int {
	class := p.Spec.PriorityClassName
	if class == "system-cluster-critical" || class == "system-node-critical" ||
		p.Spec.Priority != nil && *p.Spec.Priority >= systemCritical {
		return TierCritical
	}
	return TierOrdinary
}

// verdict is a filter's answer.
type verdict struct {
	decision, reason, message string
	until                     time.Time
	told                      bool // by somebody who knows the pod: the mode of the drain does not matter
}

func (v verdict) differs(w verdict) bool { return v.decision != w.decision || !v.until.Equal(w.until) }

// filter decides about a pod, or leaves it to those after it.
type filter func(*corev1.Pod, Policy, Facts) (verdict, bool)

// filters are asked in this order; see judge.
func filters() []filter {
	return []filter{
		// What is over needs no end, even if it belongs to somebody.
		finished,
		// What belongs to the node: it stays through a drain, and would only be re-created here.
		mirror,
		daemonSet,
		// What ends already is not asked again, but must have ended.
		terminating,
		// Those who know the pod say what becomes of it: its owner, then the cluster's operator.
		annotated,
		ruled,
		// Its owner told other tools not to disturb it.
		untouchable,
		// What is lost with the pod, gravest first.
		unmanaged,
		localVolume,
		job,
		emptyDir,
		// Controllers re-create what is evicted, elsewhere.
		controlled,
	}
}

func finished(p *corev1.Pod, _ Policy, _ Facts) (verdict, bool) {
	over := p.DeletionTimestamp == nil && (p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed)
	return verdict{decision: DecisionIgnore, reason: ReasonFinished, message: "it has run to its end"}, over
}

func mirror(p *corev1.Pod, _ Policy, _ Facts) (verdict, bool) {
	_, ok := p.Annotations[corev1.MirrorPodAnnotationKey]
	return verdict{decision: DecisionIgnore, reason: ReasonMirror, message: "the kubelet runs it from a file of this node"}, ok
}

// daemonSet goes by the kind alone: whatever its API group, such a controller puts the pod back on the same node.
func daemonSet(p *corev1.Pod, _ Policy, _ Facts) (verdict, bool) {
	owner := metav1.GetControllerOf(p)
	return verdict{decision: DecisionIgnore, reason: ReasonDaemonSet, message: "a DaemonSet keeps it on this node"},
		owner != nil && owner.Kind == kindDaemonSet
}

func terminating(p *corev1.Pod, _ Policy, _ Facts) (verdict, bool) {
	message := "it is ending already"
	if len(p.Finalizers) > 0 {
		message += ": its finalizers are " + list(p.Finalizers)
	}
	return verdict{decision: DecisionWait, reason: ReasonTerminating, message: message}, p.DeletionTimestamp != nil
}

// annotated is the word of the pod's owner to Baton.
func annotated(p *corev1.Pod, _ Policy, f Facts) (verdict, bool) {
	do, ok := p.Annotations[AnnotationEviction]
	// He may know better than the downtimes how long the pod may be away.
	v := bearing(do, ReasonPodAnnotation, "its annotation "+AnnotationEviction+" says "+do, lostByReboot(p, f))
	v.told = true
	return v, ok
}

// ruled is the word of a rule that does not go into why.
func ruled(p *corev1.Pod, pol Policy, f Facts) (verdict, bool) {
	v := as(p, f, deleting(pol.Do), ReasonRule, "a rule of the configuration says "+pol.Do)
	v.told = true
	lost := pol.Do == DoEvict && metav1.GetControllerOf(p) == nil // for that there is a word of its own
	return v, pol.Do != "" && !lost
}

// untouchable is the word of the pod's owner to other tools.
func untouchable(p *corev1.Pod, pol Policy, f Facts) (verdict, bool) {
	key := ""
	switch {
	case p.Annotations[annotationSafeToEvict] == "false":
		key = annotationSafeToEvict + `: "false"`
	case p.Annotations[AnnotationDoNotDisrupt] == "true":
		key = AnnotationDoNotDisrupt + `: "true"`
	}
	return as(p, f, cmp.Or(pol.Annotated, DoBlock), ReasonPodAnnotation, "it says "+key), key != ""
}

// unmanaged is for what nobody re-creates.
func unmanaged(p *corev1.Pod, pol Policy, f Facts) (verdict, bool) {
	message := map[string]string{
		DoBlock: "an eviction would delete it for good", DoWait: "its end is awaited", DoRideThrough: "it comes back with the node",
		DoEvict: "it is deleted for good, as the setting says",
	}
	do := known(deleting(cmp.Or(pol.Unmanaged, DoBlock)))
	v := as(p, f, do, ReasonUnmanagedPod, "it has no controller")
	if v.decision == do {
		v.message += ": " + message[do]
	}
	return v, metav1.GetControllerOf(p) == nil
}

func localVolume(p *corev1.Pod, pol Policy, f Facts) (verdict, bool) {
	do := cmp.Or(pol.LocalVolumes, DoEvict)
	if why, ok := f.Unread[string(p.UID)]; ok && do != DoEvict {
		return as(p, f, do, ReasonLocalVolume, "a volume may bind it to this node: "+why), true
	}
	volume, ok := f.Bound[string(p.UID)]
	return as(p, f, do, ReasonLocalVolume, "its volume "+volume+" binds it to this node"), ok
}

func job(p *corev1.Pod, pol Policy, f Facts) (verdict, bool) {
	owner := metav1.GetControllerOf(p)
	if owner == nil || owner.Kind != kindJob {
		return verdict{}, false
	}
	v := as(p, f, cmp.Or(pol.Jobs, DoEvict), ReasonJob, "it belongs to Job "+owner.Name)
	data, _ := emptyDir(p, pol, f)
	endless := data.decision == DecisionWait || data.decision == DecisionBlock // it would not be evicted then either
	if v.decision == DecisionWait && pol.JobsFor > 0 && endless {
		v.message += ", without a limit: " + data.message
	}
	if v.decision != DecisionWait || pol.JobsFor == 0 || f.Begun.IsZero() || endless {
		return v, true
	}
	v.until = f.Begun.Add(pol.JobsFor)
	if !f.Now.Before(v.until) {
		v = verdict{decision: DecisionEvict, reason: ReasonJob, message: v.message + fmt.Sprintf(", which was awaited for %s", pol.JobsFor)}
	}
	return v, true
}

// emptyDir looks for data on disk: what lies in memory ends with the boot anyway.
func emptyDir(p *corev1.Pod, pol Policy, f Facts) (verdict, bool) {
	if pol.EmptyDir == "" || pol.EmptyDir == DoEvict {
		return verdict{}, false
	}
	for _, v := range p.Spec.Volumes {
		if v.EmptyDir != nil && outlasts(v.EmptyDir.Medium) {
			return as(p, f, pol.EmptyDir, ReasonEmptyDir, "it keeps data in the emptyDir "+v.Name), true
		}
	}
	return verdict{}, false
}

// outlasts tells whether what a medium holds is there after a boot. Of one that is not known it may be.
func outlasts(m corev1.StorageMedium) bool {
	return m != corev1.StorageMediumMemory && m != corev1.StorageMediumHugePages && !strings.HasPrefix(string(m), string(corev1.StorageMediumHugePagesPrefix))
}

func controlled(p *corev1.Pod, _ Policy, _ Facts) (verdict, bool) {
	owner := metav1.GetControllerOf(p)
	if owner == nil {
		return verdict{}, false
	}
	return verdict{decision: DecisionEvict, reason: ReasonController, message: fmt.Sprintf("%s %s re-creates it elsewhere", owner.Kind, owner.Name)}, true
}

// deleting is what a setting wants that may say [DoDelete], the word for an eviction that is meant also where it ends the pod for good.
func deleting(do string) string {
	if do == DoDelete {
		return DoEvict
	}
	return do
}

func known(do string) string {
	if slices.Contains([]string{DoEvict, DoWait, DoRideThrough, DoBlock}, do) {
		return do
	}
	return DoBlock
}

// as is what a policy wants, as far as the pod can bear it.
func as(p *corev1.Pod, f Facts, do, reason, message string) verdict {
	return bearing(do, reason, message, cmp.Or(lostByReboot(p, f), lostMeanwhile(p, f)))
}

// bearing is what is wanted, unless it is to ride through and something would make the pod lost.
func bearing(do, reason, message, lost string) verdict {
	decision := known(do) // the words are the same
	if decision == DecisionRideThrough && lost != "" {
		decision, message = DecisionBlock, message+": it cannot ride through, as "+lost
	}
	return verdict{decision: decision, reason: reason, message: message}
}

// ripens keeps a pod from being evicted before it is old enough.
func ripens(p *corev1.Pod, v verdict, pol Policy, f Facts) verdict {
	start := p.CreationTimestamp.Time
	if p.Status.StartTime != nil {
		start = p.Status.StartTime.Time
	}
	until := start.Add(pol.MinAge)
	if pol.MinAge == 0 || start.IsZero() || !f.Now.Before(until) {
		return v
	}
	return verdict{decision: DecisionWait, reason: ReasonAge, message: fmt.Sprintf("it has not run for %s yet", pol.MinAge), until: until}
}

// impact is what the pod's users will feel.
func impact(p *corev1.Pod, decision string, f Facts) string {
	alone := ImpactOutage // when no other of its kind is ready
	switch decision {
	case DecisionIgnore, DecisionBlock:
		return ImpactNone
	case DecisionWait:
		return ImpactUntilEnd
	case DecisionRideThrough:
		alone = ImpactDowntime
	}
	owner := metav1.GetControllerOf(p)
	_, bound := f.Bound[string(p.UID)]
	switch {
	case owner == nil && decision == DecisionEvict:
		return ImpactLost
	case owner == nil || bound || pinned(p):
		return ImpactDowntime
	}
	elsewhere, ok := f.Elsewhere[string(owner.UID)]
	switch {
	case elsewhere > 0:
		return ImpactServed
	case !ok && decision == DecisionEvict:
		return ImpactMoved
	}
	return alone
}

// pinned tells whether the pod's own words bind it to one node: its name, by selector or as the only term of its affinity.
func pinned(p *corev1.Pod) bool {
	if _, ok := p.Spec.NodeSelector[corev1.LabelHostname]; ok {
		return true
	}
	a := p.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return false
	}
	terms := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	if len(terms) == 0 {
		return false
	}
	for _, term := range terms {
		one := func(r corev1.NodeSelectorRequirement) bool {
			return r.Operator == corev1.NodeSelectorOpIn && len(r.Values) == 1 && (r.Key == corev1.LabelHostname || r.Key == metav1.ObjectNameField)
		}
		if !slices.ContainsFunc(term.MatchExpressions, one) && !slices.ContainsFunc(term.MatchFields, one) {
			return false
		}
	}
	return len(terms) == 1
}

// lostByReboot says why the pod would not come back after a reboot of its node; "" when it would.
func lostByReboot(p *corev1.Pod, f Facts) string {
	if f.Ends != "" {
		return f.Ends
	}
	if policy := p.Spec.RestartPolicy; policy != corev1.RestartPolicyAlways && policy != "" {
		return fmt.Sprintf("restartPolicy %s does not start it again", policy)
	}
	for _, c := range p.Spec.Containers {
		if c.RestartPolicy != nil && *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
			return fmt.Sprintf("restartPolicy %s of container %s does not start it again", *c.RestartPolicy, c.Name)
		}
	}
	for _, c := range p.Spec.InitContainers { // they run anew, when not all may be there yet that they need
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyNever {
			return fmt.Sprintf("restartPolicy Never of init container %s ends it if that fails after the boot", c.Name)
		}
	}
	if len(p.Spec.ResourceClaims) > 0 || p.Status.ExtendedResourceClaimStatus != nil {
		return "it holds a device through a resource claim"
	}
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		if name := device(c.Resources); name != "" {
			return fmt.Sprintf("it holds %s, which the kubelet rejects while the device plugin is not up yet", name)
		}
	}
	return ""
}

// lostMeanwhile says why a pod that nobody re-creates would be deleted while its node is away; "" when it would not, or when that
// is not known.
func lostMeanwhile(p *corev1.Pod, f Facts) string {
	if len(f.Downtimes) < minDowntimes || f.Alone || metav1.GetControllerOf(p) != nil {
		return ""
	}
	// By what is usual: a single reboot that was long would keep the node for ever.
	sorted := slices.Sorted(slices.Values(f.Downtimes))
	usual := sorted[len(sorted)/2]
	if t := tolerated(p); t <= usual*3/2 {
		return fmt.Sprintf("the cluster deletes it after %s without its node, which is usually away for %s", t, usual.Round(time.Second))
	}
	return ""
}

// device returns the first extended resource that is asked for: a name with a domain that is not Kubernetes' own. Those
// without a domain are cpu, memory, storage and hugepages-*, which need no plugin. The API server copies a limit that
// has no request, so the limits decide.
func device(r corev1.ResourceRequirements) string {
	var names []string
	for _, list := range []corev1.ResourceList{r.Limits, r.Requests} {
		for name, q := range list {
			if strings.Contains(string(name), "/") && !strings.Contains(string(name), "kubernetes.io/") && !q.IsZero() {
				names = append(names, string(name))
			}
		}
	}
	if len(names) == 0 {
		return ""
	}
	return slices.Min(names)
}
