package node

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// pod returns a running, ready pod of namespace shop, changed by edits.
func pod(name string, edits ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-" + name)},
		Spec:       corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways, Containers: []corev1.Container{{Name: "main", Image: "none"}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
	for _, edit := range edits {
		edit(p)
	}
	return p
}

func ownedBy(kind, name string) func(*corev1.Pod) {
	yes := true
	return func(p *corev1.Pod) {
		p.OwnerReferences = append(p.OwnerReferences, metav1.OwnerReference{
			APIVersion: "apps/v1", Kind: kind, Name: name, UID: types.UID("uid-" + name), Controller: &yes,
		})
	}
}

func ending(p *corev1.Pod) {
	now, grace := metav1.Now(), int64(30)
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &now, &grace
}

func priority(value int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.Priority = &value }
}

func asksFor(name corev1.ResourceName) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{name: resource.MustParse("1")}
	}
}

// noon is when the plans of these tests are made.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func annotatedWith(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Annotations = map[string]string{key: value} }
}

func says(do string) func(*corev1.Pod) { return annotatedWith(AnnotationEviction, do) }

func startedAt(t time.Time) func(*corev1.Pod) {
	return func(p *corev1.Pod) { s := metav1.NewTime(t); p.Status.StartTime = &s }
}

func onDisk(medium corev1.StorageMedium) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: medium}}})
	}
}

// planCase is one pod in one cluster; docs/drain.md shows them all.
type planCase struct {
	name   string
	pod    *corev1.Pod
	policy Policy
	facts  Facts
	want   PodPlan // Namespace, Name and UID left out
}

func web(edits ...func(*corev1.Pod)) *corev1.Pod {
	return pod("a", append([]func(*corev1.Pod){ownedBy("ReplicaSet", "web")}, edits...)...)
}

// chapters are the cases by what they are about.
func chapters() map[string][]planCase {
	return map[string][]planCase{
		"1 What is evicted":          evictedCases(),
		"2 What is left alone":       leftAloneCases(),
		"3 What nobody re-creates":   unmanagedCases(),
		"4 What cannot ride through": ridingCases(),
		"5 Data on the node":         dataCases(),
		"6 Jobs, and young pods":     patientCases(),
		"7 What its owner says":      ownersCases(),
		"8 What the operator says":   rulesCases(),
		"9 What comes last":          tierCases(),
		"A Several at once":          severalCases(),
		"B The mode of the drain":    modeCases(),
	}
}

func evictedCases() []planCase {
	evict := func(impact string) PodPlan {
		return PodPlan{Owner: "ReplicaSet/web", Decision: DecisionEvict, Reason: ReasonController, Message: "ReplicaSet web re-creates it elsewhere", Impact: impact}
	}
	elsewhere := func(n int) Facts { return Facts{Elsewhere: map[string]int{"uid-web": n}} }
	return []planCase{
		{"a pod of a ReplicaSet is evicted", web(), Policy{}, Facts{}, evict(ImpactMoved)},
		{"others of its kind are ready on other nodes: its users feel nothing", web(), Policy{}, elsewhere(2), evict(ImpactServed)},
		{"none of its kind is ready elsewhere: its users wait for it", web(), Policy{}, elsewhere(0), evict(ImpactOutage)},
		{"it may run on this node only: it is away as long as the node", web(func(p *corev1.Pod) {
			p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "n1"}
		}), Policy{}, elsewhere(2), evict(ImpactDowntime)},
		{"the same, said by its affinity", web(func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"n1"}}}}},
			}}}
		}), Policy{}, elsewhere(2), evict(ImpactDowntime)},
		{
			"a pod of a controller that nobody has heard of is evicted", pod("a", ownedBy("GameServer", "doom")),
			Policy{},
			Facts{},
			PodPlan{Owner: "GameServer/doom", Decision: DecisionEvict, Reason: ReasonController, Message: "GameServer doom re-creates it elsewhere", Impact: ImpactMoved},
		},
	}
}

func leftAloneCases() []planCase {
	ignore := func(owner, reason, message string) PodPlan {
		return PodPlan{Owner: owner, Decision: DecisionIgnore, Reason: reason, Message: message, Impact: ImpactNone}
	}
	wait := func(owner, message string) PodPlan {
		return PodPlan{Owner: owner, Decision: DecisionWait, Reason: ReasonTerminating, Message: message, Impact: ImpactUntilEnd}
	}
	return []planCase{
		{"a DaemonSet's pod stays", pod("a", ownedBy("DaemonSet", "proxy")), Policy{}, Facts{}, ignore("DaemonSet/proxy", ReasonDaemonSet, "a DaemonSet keeps it on this node")},
		{"a DaemonSet's pod that ends is not waited for", pod("a", ownedBy("DaemonSet", "proxy"), ending), Policy{}, Facts{}, ignore("DaemonSet/proxy", ReasonDaemonSet, "a DaemonSet keeps it on this node")},
		{"a mirror pod stays", pod("a", ownedBy("Node", "n1"), annotatedWith(corev1.MirrorPodAnnotationKey, "x")), Policy{}, Facts{}, ignore("Node/n1", ReasonMirror, "the kubelet runs it from a file of this node")},
		{"a finished pod without a controller is no reason to block", pod("a", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }), Policy{}, Facts{}, ignore("", ReasonFinished, "it has run to its end")},
		{
			"a failed pod that is being deleted is awaited: its volumes and its successor wait for that too",
			pod("a", ending, func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }),
			Policy{},
			Facts{},
			wait("", "it is ending already"),
		},
		{"the end of an ending pod is awaited without a second eviction", web(ending), Policy{}, Facts{}, wait("ReplicaSet/web", "it is ending already")},
		{"an ending pod without a controller does not block: somebody has decided", pod("a", ending), Policy{}, Facts{}, wait("", "it is ending already")},
		{
			"what keeps an ending pod is named", web(ending, func(p *corev1.Pod) { p.Finalizers = []string{"example.com/backup"} }),
			Policy{},
			Facts{},
			wait("ReplicaSet/web", "it is ending already: its finalizers are example.com/backup"),
		},
	}
}

func unmanagedCases() []planCase {
	plan := func(decision, message, impact string) PodPlan {
		return PodPlan{Decision: decision, Reason: ReasonUnmanagedPod, Message: message, Impact: impact}
	}
	block := plan(DecisionBlock, "it has no controller: an eviction would delete it for good", ImpactNone)
	return []planCase{
		{"a pod without a controller blocks", pod("a"), Policy{}, Facts{}, block},
		{"an owner that is not its controller does not count", pod("a", ownedBy("ReplicaSet", "web"), func(p *corev1.Pod) { p.OwnerReferences[0].Controller = nil }), Policy{}, Facts{}, block},
		{"a setting that is not known blocks", pod("a"), Policy{Unmanaged: "ride-thru"}, Facts{}, block},
		{"under wait its end is awaited", pod("a"), Policy{Unmanaged: DoWait}, Facts{}, plan(DecisionWait, "it has no controller: its end is awaited", ImpactUntilEnd)},
		{"under delete it is deleted for good", pod("a", asksFor("nvidia.com/gpu")), Policy{Unmanaged: DoDelete}, Facts{}, plan(DecisionEvict, "it has no controller: it is deleted for good, as the setting says", ImpactLost)},
		{"under ride-through it stays", pod("a"), Policy{Unmanaged: DoRideThrough}, Facts{}, plan(DecisionRideThrough, "it has no controller: it comes back with the node", ImpactDowntime)},
		{"huge pages ride through", pod("a", asksFor("hugepages-2Mi")), Policy{Unmanaged: DoRideThrough}, Facts{}, plan(DecisionRideThrough, "it has no controller: it comes back with the node", ImpactDowntime)},
	}
}

func ridingCases() []planCase {
	never, always := corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyAlways
	block := func(why string) PodPlan {
		return PodPlan{
			Decision: DecisionBlock, Reason: ReasonUnmanagedPod, Impact: ImpactNone,
			Message: "it has no controller: it cannot ride through, as " + why,
		}
	}
	ride := Policy{Unmanaged: DoRideThrough}
	away := func(downtimes ...time.Duration) Facts { return Facts{Downtimes: downtimes} }
	const late = "the cluster deletes it after 5m0s without its node, which is usually away for 3m20s"
	slow := away(time.Minute, 200*time.Second, 250*time.Second)
	rides := func(reason, message string) PodPlan {
		return PodPlan{Decision: DecisionRideThrough, Reason: reason, Message: message, Impact: ImpactDowntime}
	}
	return []planCase{
		{"a GPU does not ride through", pod("a", asksFor("nvidia.com/gpu")), ride, Facts{}, block("it holds nvidia.com/gpu, which the kubelet rejects while the device plugin is not up yet")},
		{"nor does a GPU of an init container", pod("a", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "i", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"amd.com/gpu": resource.MustParse("2")}}}}
		}), ride, Facts{}, block("it holds amd.com/gpu, which the kubelet rejects while the device plugin is not up yet")},
		{"nor a resource claim", pod("a", func(p *corev1.Pod) { p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu"}} }), ride, Facts{}, block("it holds a device through a resource claim")},
		{"nor restartPolicy OnFailure", pod("a", func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyOnFailure }), ride, Facts{}, block("restartPolicy OnFailure does not start it again")},
		{"nor a container's own restartPolicy Never", pod("a", func(p *corev1.Pod) { p.Spec.Containers[0].RestartPolicy = &never }), ride, Facts{}, block("restartPolicy Never of container main does not start it again")},
		{"nor does one of an init container, which fails for good if it does right after the boot", pod("a", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "i", RestartPolicy: &never}}
		}), ride, Facts{}, block("restartPolicy Never of init container i ends it if that fails after the boot")},
		{"a sidecar rides through", pod("a", func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "i", RestartPolicy: &always}}
		}), ride, Facts{}, rides(ReasonUnmanagedPod, "it has no controller: it comes back with the node")},
		{"a node that was back long before the cluster deletes it", pod("a", tolerating(300)), ride, away(time.Minute, time.Minute, 3*time.Minute), rides(ReasonUnmanagedPod, "it has no controller: it comes back with the node")},
		{"a node that may be away for longer than it is tolerated", pod("a", tolerating(300)), ride, slow, block(late)},
		{
			"the same, where a rule of the configuration says that it rides through", pod("a", tolerating(300)),
			Policy{Rules: []Rule{does(DoRideThrough)}},
			slow,
			PodPlan{Decision: DecisionBlock, Reason: ReasonRule, Impact: ImpactNone, Message: "a rule of the configuration says ride-through: it cannot ride through, as " + late},
		},
		{"one long reboot of several proves nothing", pod("a", tolerating(300)), ride, away(time.Minute, time.Hour, time.Minute), rides(ReasonUnmanagedPod, "it has no controller: it comes back with the node")},
		{"nor do two", pod("a", tolerating(300)), ride, away(time.Hour, time.Hour), rides(ReasonUnmanagedPod, "it has no controller: it comes back with the node")},
		{"a pod that is tolerated for ever rides through a slow reboot too", pod("a", tolerating(-1)), ride, away(time.Hour, time.Hour, time.Hour), rides(ReasonUnmanagedPod, "it has no controller: it comes back with the node")},
		{"its owner's own word counts whatever the downtimes were", pod("a", tolerating(300), says(DoRideThrough)), Policy{}, away(time.Hour, time.Hour, time.Hour), rides(ReasonPodAnnotation, "its annotation kubebaton.io/eviction says ride-through")},
		{
			"what a controller re-creates is not lost, however slow the node is", web(tolerating(300)),
			Policy{Rules: []Rule{does(DoRideThrough)}},
			away(time.Hour, time.Hour, time.Hour),
			PodPlan{Owner: "ReplicaSet/web", Decision: DecisionRideThrough, Reason: ReasonRule, Message: "a rule of the configuration says ride-through", Impact: ImpactDowntime},
		},
	}
}

func dataCases() []planCase {
	local := Facts{Bound: map[string]string{"uid-a": "pv-7"}, Elsewhere: map[string]int{"uid-db": 2}}
	unread := Facts{Unread: map[string]string{"uid-a": `getting claim "data": forbidden`}}
	db := func(edits ...func(*corev1.Pod)) *corev1.Pod {
		return pod("a", append([]func(*corev1.Pod){ownedBy("StatefulSet", "db")}, edits...)...)
	}
	plan := func(decision, reason, message, impact string) PodPlan {
		return PodPlan{Owner: "StatefulSet/db", Decision: decision, Reason: reason, Message: message, Impact: impact}
	}
	const binds, keeps = "its volume pv-7 binds it to this node", "it keeps data in the emptyDir data"
	return []planCase{
		{"a pod whose volume lies on this node is evicted, ends in its own time, and comes back with the node", db(), Policy{}, local, plan(DecisionEvict, ReasonLocalVolume, binds, ImpactDowntime)},
		{"unless the setting says that it rides through", db(), Policy{LocalVolumes: DoRideThrough}, local, plan(DecisionRideThrough, ReasonLocalVolume, binds, ImpactDowntime)},
		{"or blocks", db(), Policy{LocalVolumes: DoBlock}, local, plan(DecisionBlock, ReasonLocalVolume, binds, ImpactNone)},
		{"nobody knows whether a volume lies on this node: it is evicted", db(), Policy{}, unread, plan(DecisionEvict, ReasonController, "StatefulSet db re-creates it elsewhere", ImpactMoved)},
		{"unless the setting wants care", db(), Policy{LocalVolumes: DoBlock}, unread, plan(DecisionBlock, ReasonLocalVolume, "a volume may bind it to this node: getting claim \"data\": forbidden", ImpactNone)},
		{"data in an emptyDir ends with its pod", db(onDisk("")), Policy{}, Facts{}, plan(DecisionEvict, ReasonController, "StatefulSet db re-creates it elsewhere", ImpactMoved)},
		{"unless the setting says that it rides through", db(onDisk("")), Policy{EmptyDir: DoRideThrough}, Facts{}, plan(DecisionRideThrough, ReasonEmptyDir, keeps, ImpactDowntime)},
		{"or blocks", db(onDisk("")), Policy{EmptyDir: DoBlock}, Facts{}, plan(DecisionBlock, ReasonEmptyDir, keeps, ImpactNone)},
		{"an emptyDir in huge pages is no data on disk", db(onDisk("HugePages-2Mi")), Policy{EmptyDir: DoBlock}, Facts{}, plan(DecisionEvict, ReasonController, "StatefulSet db re-creates it elsewhere", ImpactMoved)},
		{"an emptyDir in memory is no data", db(onDisk(corev1.StorageMediumMemory)), Policy{EmptyDir: DoBlock}, Facts{}, plan(DecisionEvict, ReasonController, "StatefulSet db re-creates it elsewhere", ImpactMoved)},
	}
}

func patientCases() []planCase {
	task := pod("a", ownedBy("Job", "report"))
	plan := func(decision, reason, message, impact string, until time.Time) PodPlan {
		return PodPlan{Owner: "Job/report", Decision: decision, Reason: reason, Message: message, Impact: impact, Until: until}
	}
	const is = "it belongs to Job report"
	begun := func(ago time.Duration) Facts { return Facts{Now: noon, Begun: noon.Add(-ago)} }
	young := func(decision, reason, message, impact string, until time.Time) PodPlan {
		return PodPlan{Owner: "ReplicaSet/web", Decision: decision, Reason: reason, Message: message, Impact: impact, Until: until}
	}
	return []planCase{
		{"a pod of a Job is evicted, and its Job starts another", task, Policy{}, Facts{}, plan(DecisionEvict, ReasonJob, is, ImpactMoved, time.Time{})},
		{"under wait its end is awaited", task, Policy{Jobs: DoWait}, begun(time.Hour), plan(DecisionWait, ReasonJob, is, ImpactUntilEnd, time.Time{})},
		{"for as long as the setting says", task, Policy{Jobs: DoWait, JobsFor: 10 * time.Minute}, begun(9 * time.Minute), plan(DecisionWait, ReasonJob, is, ImpactUntilEnd, noon.Add(time.Minute))},
		{"and then it is evicted", task, Policy{Jobs: DoWait, JobsFor: 10 * time.Minute}, begun(10 * time.Minute), plan(DecisionEvict, ReasonJob, is+", which was awaited for 10m0s", ImpactMoved, time.Time{})},
		{
			"a Job's pod does not ride through", pod("a", ownedBy("Job", "report"), func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever }),
			Policy{Jobs: DoRideThrough},
			Facts{},
			plan(DecisionBlock, ReasonJob, is+": it cannot ride through, as restartPolicy Never does not start it again", ImpactNone, time.Time{}),
		},
		{
			"a pod that has just started is left alone until it is old enough", web(startedAt(noon.Add(-time.Minute))),
			Policy{MinAge: 5 * time.Minute},
			Facts{Now: noon},
			young(DecisionWait, ReasonAge, "it has not run for 5m0s yet", ImpactUntilEnd, noon.Add(4*time.Minute)),
		},
		{
			"and then evicted", web(startedAt(noon.Add(-5 * time.Minute))),
			Policy{MinAge: 5 * time.Minute},
			Facts{Now: noon},
			young(DecisionEvict, ReasonController, "ReplicaSet web re-creates it elsewhere", ImpactMoved, time.Time{}),
		},
	}
}

func ownersCases() []planCase {
	plan := func(owner, decision, message, impact string) PodPlan {
		return PodPlan{Owner: owner, Decision: decision, Reason: ReasonPodAnnotation, Message: message, Impact: impact}
	}
	const key = "its annotation kubebaton.io/eviction says "
	return []planCase{
		{"a pod may say that it rides through", web(says(DoRideThrough)), Policy{}, Facts{}, plan("ReplicaSet/web", DecisionRideThrough, key+"ride-through", ImpactDowntime)},
		{"or that its end is to be awaited", web(says(DoWait)), Policy{}, Facts{}, plan("ReplicaSet/web", DecisionWait, key+"wait", ImpactUntilEnd)},
		{"or that it blocks", web(says(DoBlock)), Policy{}, Facts{}, plan("ReplicaSet/web", DecisionBlock, key+"block", ImpactNone)},
		{"a pod without a controller may say that it may be lost", pod("a", says(DoEvict)), Policy{}, Facts{}, plan("", DecisionEvict, key+"evict", ImpactLost)},
		{"a word that is not known blocks", web(says("never")), Policy{}, Facts{}, plan("ReplicaSet/web", DecisionBlock, key+"never", ImpactNone)},
		{"what it says to cluster-autoscaler counts", web(annotatedWith(annotationSafeToEvict, "false")), Policy{}, Facts{}, plan("ReplicaSet/web", DecisionBlock, `it says cluster-autoscaler.kubernetes.io/safe-to-evict: "false"`, ImpactNone)},
		{"and what it says to Karpenter", web(annotatedWith(AnnotationDoNotDisrupt, "true")), Policy{}, Facts{}, plan("ReplicaSet/web", DecisionBlock, `it says karpenter.sh/do-not-disrupt: "true"`, ImpactNone)},
		{"unless the setting says otherwise", web(annotatedWith(AnnotationDoNotDisrupt, "true")), Policy{Annotated: DoEvict}, Facts{}, plan("ReplicaSet/web", DecisionEvict, `it says karpenter.sh/do-not-disrupt: "true"`, ImpactMoved)},
	}
}

// does is a rule that says of every pod what becomes of it.
func does(do string) Rule { return Rule{Policy: Policy{Do: do}} }

func rulesCases() []planCase {
	gpu := Rule{Namespaces: []string{"ml", "shop"}, Match: func(l map[string]string) bool { return l["train"] == "yes" }, Policy: Policy{Do: DoWait}}
	scratch := Rule{Policy: Policy{Unmanaged: DoDelete, Annotated: DoEvict, EmptyDir: DoEvict}}
	const so = "; a rule of the configuration wants it so"
	training := func(p *corev1.Pod) { p.Labels = map[string]string{"train": "yes"} }
	moved := PodPlan{Owner: "ReplicaSet/web", Decision: DecisionEvict, Reason: ReasonController, Message: "ReplicaSet web re-creates it elsewhere", Impact: ImpactMoved}
	return []planCase{
		{
			"a rule by namespace and label decides", web(training),
			Policy{Rules: []Rule{gpu}},
			Facts{},
			PodPlan{Owner: "ReplicaSet/web", Decision: DecisionWait, Reason: ReasonRule, Message: "a rule of the configuration says wait", Impact: ImpactUntilEnd},
		},
		{"a pod with other labels is none of its", web(), Policy{Rules: []Rule{gpu}}, Facts{}, moved},
		{"a pod of another namespace is none of its", web(training, func(p *corev1.Pod) { p.Namespace = "bank" }), Policy{Rules: []Rule{gpu}}, Facts{}, moved},
		{
			"the first rule that matches decides", web(training),
			Policy{Rules: []Rule{does(DoBlock), gpu}},
			Facts{},
			PodPlan{Owner: "ReplicaSet/web", Decision: DecisionBlock, Reason: ReasonRule, Message: "a rule of the configuration says block", Impact: ImpactNone},
		},
		{
			"the word of the pod's owner comes before it", web(training, says(DoRideThrough)),
			Policy{Rules: []Rule{gpu}},
			Facts{},
			PodPlan{Owner: "ReplicaSet/web", Decision: DecisionRideThrough, Reason: ReasonPodAnnotation, Message: "its annotation kubebaton.io/eviction says ride-through", Impact: ImpactDowntime},
		},
		{
			"a rule saves a pod without a controller from blocking", pod("a"),
			Policy{Rules: []Rule{{Namespaces: []string{"shop"}, Policy: Policy{Do: DoRideThrough}}}},
			Facts{},
			PodPlan{Decision: DecisionRideThrough, Reason: ReasonRule, Message: "a rule of the configuration says ride-through", Impact: ImpactDowntime},
		},
		{
			"a rule that says evict does not delete a pod without a controller", pod("a"),
			Policy{Rules: []Rule{does(DoEvict)}},
			Facts{},
			PodPlan{Decision: DecisionBlock, Reason: ReasonUnmanagedPod, Message: "it has no controller: an eviction would delete it for good", Impact: ImpactNone},
		},
		{
			"one that says delete does", pod("a"),
			Policy{Rules: []Rule{does(DoDelete)}},
			Facts{},
			PodPlan{Decision: DecisionEvict, Reason: ReasonRule, Message: "a rule of the configuration says delete", Impact: ImpactLost},
		},
		{
			"and evicts what has one, as one that says evict does", web(onDisk("")),
			Policy{EmptyDir: DoBlock, Rules: []Rule{does(DoDelete)}},
			Facts{},
			PodPlan{Owner: "ReplicaSet/web", Decision: DecisionEvict, Reason: ReasonRule, Message: "a rule of the configuration says delete", Impact: ImpactMoved},
		},
		{
			"a rule may say of Jobs that they are awaited for a time", pod("a", ownedBy("Job", "build")),
			Policy{Rules: []Rule{{Namespaces: []string{"shop"}, Policy: Policy{Jobs: DoWait, JobsFor: 20 * time.Minute}}}},
			Facts{Now: noon, Begun: noon.Add(-time.Minute)},
			PodPlan{Owner: "Job/build", Decision: DecisionWait, Reason: ReasonJob, Message: "it belongs to Job build" + so, Impact: ImpactUntilEnd, Until: noon.Add(19 * time.Minute)},
		},
		{
			"or for longer than those of other namespaces", pod("a", ownedBy("Job", "build")),
			Policy{Jobs: DoWait, JobsFor: time.Minute, Rules: []Rule{{Namespaces: []string{"shop"}, Policy: Policy{Jobs: DoWait, JobsFor: 20 * time.Minute}}}},
			Facts{Now: noon, Begun: noon.Add(-time.Minute)},
			PodPlan{Owner: "Job/build", Decision: DecisionWait, Reason: ReasonJob, Message: "it belongs to Job build" + so, Impact: ImpactUntilEnd, Until: noon.Add(19 * time.Minute)},
		},
		{
			"and of these it says nothing", pod("a", ownedBy("Job", "build"), func(p *corev1.Pod) { p.Namespace = "bank" }),
			Policy{Rules: []Rule{{Namespaces: []string{"shop"}, Policy: Policy{Jobs: DoWait, JobsFor: 20 * time.Minute}}}},
			Facts{Now: noon, Begun: noon.Add(-time.Minute)},
			PodPlan{Owner: "Job/build", Decision: DecisionEvict, Reason: ReasonJob, Message: "it belongs to Job build", Impact: ImpactMoved},
		},
		{
			"that pods without a controller are deleted", pod("a"),
			Policy{Rules: []Rule{scratch}},
			Facts{},
			PodPlan{Decision: DecisionEvict, Reason: ReasonUnmanagedPod, Message: "it has no controller: it is deleted for good, as the setting says" + so, Impact: ImpactLost},
		},
		{
			"that what pods say to other tools does not count", web(annotatedWith(AnnotationDoNotDisrupt, "true")),
			Policy{Rules: []Rule{scratch}},
			Facts{},
			PodPlan{Owner: "ReplicaSet/web", Decision: DecisionEvict, Reason: ReasonPodAnnotation, Message: `it says karpenter.sh/do-not-disrupt: "true"` + so, Impact: ImpactMoved},
		},
		{
			"that their data in an emptyDir does not", web(onDisk("")),
			Policy{EmptyDir: DoBlock, Rules: []Rule{scratch}},
			Facts{},
			PodPlan{Owner: "ReplicaSet/web", Decision: DecisionEvict, Reason: ReasonController, Message: "ReplicaSet web re-creates it elsewhere" + so, Impact: ImpactMoved},
		},
		{
			"or that a volume on this node keeps them there", web(),
			Policy{Rules: []Rule{{Policy: Policy{LocalVolumes: DoRideThrough}}}},
			Facts{Bound: map[string]string{"uid-a": "pv-7"}},
			PodPlan{Owner: "ReplicaSet/web", Decision: DecisionRideThrough, Reason: ReasonLocalVolume, Message: "its volume pv-7 binds it to this node" + so, Impact: ImpactDowntime},
		},
		{
			"that they must be of an age", web(startedAt(noon.Add(-time.Minute))),
			Policy{MinAge: time.Second, Rules: []Rule{{Policy: Policy{MinAge: 10 * time.Minute}}}},
			Facts{Now: noon},
			PodPlan{Owner: "ReplicaSet/web", Decision: DecisionWait, Reason: ReasonAge, Message: "it has not run for 10m0s yet" + so, Impact: ImpactUntilEnd, Until: noon.Add(9 * time.Minute)},
		},
		{
			"which holds for all also where a rule says that they are evicted", web(startedAt(noon.Add(-time.Minute))),
			Policy{MinAge: 10 * time.Minute, Rules: []Rule{{Policy: Policy{Do: DoEvict, MinAge: 10 * time.Minute}}}},
			Facts{Now: noon},
			PodPlan{Owner: "ReplicaSet/web", Decision: DecisionWait, Reason: ReasonAge, Message: "it has not run for 10m0s yet", Impact: ImpactUntilEnd, Until: noon.Add(9 * time.Minute)},
		},
		{
			"and is not the rule's wish", web(startedAt(noon.Add(-time.Minute)), annotatedWith(AnnotationDoNotDisrupt, "true")),
			Policy{MinAge: 10 * time.Minute, Rules: []Rule{{Policy: Policy{Do: DoEvict, MinAge: 10 * time.Minute}}}},
			Facts{Now: noon},
			PodPlan{Owner: "ReplicaSet/web", Decision: DecisionWait, Reason: ReasonAge, Message: "it has not run for 10m0s yet", Impact: ImpactUntilEnd, Until: noon.Add(9 * time.Minute)},
		},
		{
			"a rule that says what is said for all anyway is not named", pod("a", ownedBy("Job", "build")),
			Policy{Jobs: DoWait, Rules: []Rule{{Policy: Policy{Jobs: DoWait}}}},
			Facts{},
			PodPlan{Owner: "Job/build", Decision: DecisionWait, Reason: ReasonJob, Message: "it belongs to Job build", Impact: ImpactUntilEnd},
		},
		{
			"only the first rule that matches counts, whatever it says", pod("a"),
			Policy{Rules: []Rule{{Policy: Policy{Jobs: DoWait}}, scratch}},
			Facts{},
			PodPlan{Decision: DecisionBlock, Reason: ReasonUnmanagedPod, Message: "it has no controller: an eviction would delete it for good", Impact: ImpactNone},
		},
		{
			"the word of the pod's owner comes before such a rule too", pod("a", says(DoBlock)),
			Policy{Rules: []Rule{scratch}},
			Facts{},
			PodPlan{Decision: DecisionBlock, Reason: ReasonPodAnnotation, Message: "its annotation kubebaton.io/eviction says block", Impact: ImpactNone},
		},
		{"a DaemonSet's pod is left alone whatever rules say", pod("a", ownedBy("DaemonSet", "proxy")), Policy{Rules: []Rule{does(DoEvict)}}, Facts{}, PodPlan{
			Owner: "DaemonSet/proxy", Decision: DecisionIgnore, Reason: ReasonDaemonSet, Message: "a DaemonSet keeps it on this node", Impact: ImpactNone,
		}},
	}
}

func severalCases() []planCase {
	spared := annotatedWith(AnnotationDoNotDisrupt, "true")
	const says = `it says karpenter.sh/do-not-disrupt: "true"`
	local := Facts{Bound: map[string]string{"uid-a": "pv-7"}}
	task := func(edits ...func(*corev1.Pod)) *corev1.Pod {
		return pod("a", append([]func(*corev1.Pod){ownedBy("Job", "report")}, edits...)...)
	}
	plan := func(owner, decision, reason, message, impact string) PodPlan {
		return PodPlan{Owner: owner, Decision: decision, Reason: reason, Message: message, Impact: impact}
	}
	return []planCase{
		{
			"what its owner says to others may be overridden, and it is not lost for that", pod("a", spared),
			Policy{Annotated: DoEvict},
			Facts{},
			plan("", DecisionBlock, ReasonUnmanagedPod, "it has no controller: an eviction would delete it for good", ImpactNone),
		},
		{
			"unless that setting says so too", pod("a", spared),
			Policy{Annotated: DoEvict, Unmanaged: DoDelete},
			Facts{},
			plan("", DecisionEvict, ReasonPodAnnotation, says, ImpactLost),
		},
		{
			"a Job's pod is awaited, also with a volume on this node", task(),
			Policy{Jobs: DoWait},
			local,
			plan("Job/report", DecisionWait, ReasonJob, "it belongs to Job report", ImpactUntilEnd),
		},
		{
			"a pod with a volume on this node and data in an emptyDir blocks, if one of both does", pod("a", ownedBy("StatefulSet", "db"), onDisk("")),
			Policy{EmptyDir: DoBlock},
			local,
			plan("StatefulSet/db", DecisionBlock, ReasonEmptyDir, "it keeps data in the emptyDir data", ImpactNone),
		},
		{
			"and so does a Job's pod with data in an emptyDir", task(onDisk("")),
			Policy{EmptyDir: DoBlock},
			Facts{},
			plan("Job/report", DecisionBlock, ReasonEmptyDir, "it keeps data in the emptyDir data", ImpactNone),
		},
		{
			"of two objections the first decides", task(onDisk("")),
			Policy{Jobs: DoWait, EmptyDir: DoBlock},
			Facts{},
			plan("Job/report", DecisionWait, ReasonJob, "it belongs to Job report", ImpactUntilEnd),
		},
		{
			"what would be kept by its data is awaited for as long as the drain lasts, and nobody is evicted meanwhile", task(onDisk("")),
			Policy{Jobs: DoWait, JobsFor: 10 * time.Minute, EmptyDir: DoBlock},
			Facts{Now: noon, Begun: noon.Add(-time.Minute)},
			plan("Job/report", DecisionWait, ReasonJob, "it belongs to Job report, without a limit: it keeps data in the emptyDir data", ImpactUntilEnd),
		},
		{
			"nobody objects: the first that has something to say is the reason", task(onDisk("")),
			Policy{},
			local,
			plan("Job/report", DecisionEvict, ReasonLocalVolume, "its volume pv-7 binds it to this node", ImpactDowntime),
		},
	}
}

func tierCases() []planCase {
	plan := func(name string, tier int) PodPlan {
		return PodPlan{Owner: "ReplicaSet/" + name, Tier: tier, Decision: DecisionEvict, Reason: ReasonController, Message: "ReplicaSet " + name + " re-creates it elsewhere", Impact: ImpactMoved}
	}
	return []planCase{
		{"a pod with a system priority goes last", pod("a", ownedBy("ReplicaSet", "dns"), priority(2_000_000_000)), Policy{}, Facts{}, plan("dns", TierCritical)},
		{"the highest priority of users is ordinary", pod("a", ownedBy("ReplicaSet", "db"), priority(1_000_000_000)), Policy{}, Facts{}, plan("db", TierOrdinary)},
		{"a pod of class system-cluster-critical goes last", pod("a", ownedBy("ReplicaSet", "dns"), func(p *corev1.Pod) { p.Spec.PriorityClassName = "system-cluster-critical" }), Policy{}, Facts{}, plan("dns", TierCritical)},
	}
}

func modeCases() []planCase {
	const quick = "quick: expected back within 1m30s, half as much again as the worst of 3 downtimes, 1m0s; no pod is moved within 5m0s"
	evicted := func(message string) PodPlan {
		return PodPlan{Owner: "ReplicaSet/web", Decision: DecisionEvict, Reason: ReasonController, Message: message, Impact: ImpactServed}
	}
	stays := func(message, impact string) PodPlan {
		return PodPlan{Owner: "ReplicaSet/web", Decision: DecisionRideThrough, Reason: ReasonMode, Message: message, Impact: impact}
	}
	elsewhere := "ReplicaSet web re-creates it elsewhere"
	return []planCase{
		{"always: a pod goes, however quick the node is", web(tolerating(300)), Policy{}, measured(), evicted(elsewhere)},
		{"auto: it stays when the node is back before the cluster would move it, and others serve meanwhile", web(tolerating(300)), Policy{Mode: ModeAuto}, measured(), stays(quick, ImpactServed)},
		{"auto: it goes when it would be moved before", web(tolerating(60)), Policy{Mode: ModeAuto}, measured(), evicted(elsewhere)},
		{"auto: on the only node it stays", web(), Policy{Mode: ModeAuto}, Facts{Alone: true}, stays("there is no other node to go to", ImpactDowntime)},
		{"never: it stays", web(), Policy{Mode: ModeNever}, Facts{}, stays("the mode of the drain is never", ImpactDowntime)},
		{"never: what would not come back goes all the same", web(asksFor("nvidia.com/gpu")), Policy{Mode: ModeNever}, measured(), evicted(elsewhere)},
		{"never: and so does a pod whose owner wants it", web(says(DoEvict)), Policy{Mode: ModeNever}, measured(), PodPlan{
			Owner: "ReplicaSet/web", Decision: DecisionEvict, Reason: ReasonPodAnnotation, Message: "its annotation kubebaton.io/eviction says evict", Impact: ImpactServed,
		}},
		{
			"never: what would not come back goes where a rule has it deleted", pod("a", asksFor("nvidia.com/gpu")),
			Policy{Mode: ModeNever, Rules: []Rule{{Policy: Policy{Unmanaged: DoDelete}}}},
			Facts{},
			PodPlan{Decision: DecisionEvict, Reason: ReasonUnmanagedPod, Message: "it has no controller: it is deleted for good, as the setting says; a rule of the configuration wants it so", Impact: ImpactLost},
		},
		{
			"never: what would come back stays there too", pod("a"),
			Policy{Mode: ModeNever, Rules: []Rule{{Policy: Policy{Unmanaged: DoDelete}}}},
			Facts{},
			PodPlan{Decision: DecisionRideThrough, Reason: ReasonMode, Message: "the mode of the drain is never; a rule of the configuration wants it so", Impact: ImpactDowntime},
		},
		{"never: on a host whose kubelet ends pods at shutdown none comes back", web(), Policy{Mode: ModeNever}, measured(func(f *Facts) { f.Ends = "the kubelet ends every pod when the host shuts down (shutdownGracePeriod)" }), evicted(elsewhere)},
	}
}

func TestPlan(t *testing.T) {
	for chapter, cases := range chapters() {
		for _, tc := range cases {
			t.Run(chapter[2:]+": "+tc.name, func(t *testing.T) {
				tc.want.Namespace, tc.want.Name, tc.want.UID = tc.pod.Namespace, "a", "uid-a"
				if diff := cmp.Diff([]PodPlan{tc.want}, Plan([]*corev1.Pod{tc.pod}, tc.policy, tc.facts).Pods, cmpopts.IgnoreUnexported(PodPlan{})); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
	t.Run("the plan is sorted by namespace and name", func(t *testing.T) {
		pods := []*corev1.Pod{pod("b"), pod("a"), pod("z", func(p *corev1.Pod) { p.Namespace = "bank" })}
		var got []string
		for _, p := range Plan(pods, Policy{}, Facts{}).Pods {
			got = append(got, p.Namespace+"/"+p.Name)
		}
		if diff := cmp.Diff([]string{"bank/z", "shop/a", "shop/b"}, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestBlocked(t *testing.T) {
	policy := Policy{Unmanaged: DoRideThrough}
	t.Run("nothing blocks a node whose pods go or ride through", func(t *testing.T) {
		reason, message := blocked(Plan([]*corev1.Pod{pod("a"), pod("b", ownedBy("ReplicaSet", "web"))}, policy, Facts{}).Pods)
		if reason != "" || message != "" {
			t.Errorf("got %q, %q", reason, message)
		}
	})
	t.Run("the pods that block are named, and why", func(t *testing.T) {
		reason, message := blocked(Plan([]*corev1.Pod{pod("a"), pod("b", asksFor("nvidia.com/gpu"))}, policy, Facts{}).Pods)
		want := "shop/b: it has no controller: it cannot ride through, as it holds nvidia.com/gpu, which the kubelet rejects while the device plugin is not up yet"
		if reason != ReasonUnmanagedPod || message != want {
			t.Errorf("got %q, %q", reason, message)
		}
	})
}

func TestCut(t *testing.T) {
	for _, tc := range []struct {
		name, in, want string
		limit          int
	}{
		{"what fits stays", "abc", "abc", 3},
		{"what does not fit ends with dots", "abcdefgh", "abcd…", 7},
		{"no character is halved", "äöüäöü", "äöü…", 10},
		{"no comma is left hanging", "a, b, cdefg", "a, b…", 9},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := cut(tc.in, tc.limit); got != tc.want || len(got) > tc.limit {
				t.Errorf("got %q (%d bytes), want %q", got, len(got), tc.want)
			}
		})
	}
}

func TestReady(t *testing.T) {
	ran := func(id string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", ContainerID: "containerd://" + id}}
		}
	}
	unready := func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }
	mirrored := func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} }
	of := func(pods ...*corev1.Pod) []string { return readyPods(pods) }

	before := of(pod("proxy-x", ownedBy("DaemonSet", "proxy"), ran("1")), pod("etcd-n1", mirrored, ran("2")),
		pod("sick", ownedBy("DaemonSet", "sick"), ran("3"), unready), pod("web", ownedBy("ReplicaSet", "web"), ran("4")))
	for _, tc := range []struct {
		name string
		now  []string
		want []string
	}{
		{"both ready with new containers, the DaemonSet's under another name", of(
			pod("proxy-y", ownedBy("DaemonSet", "proxy"), ran("5")), pod("etcd-n1", mirrored, ran("6"))), nil},
		{"ready with the containers of before the boot does not count", of(
			pod("proxy-x", ownedBy("DaemonSet", "proxy"), ran("1")), pod("etcd-n1", mirrored, ran("6"))), []string{"daemonset/shop/proxy"}},
		{"not ready is missing", of(
			pod("proxy-x", ownedBy("DaemonSet", "proxy"), ran("5"), unready), pod("etcd-n1", mirrored, ran("6"))), []string{"daemonset/shop/proxy"}},
		{"one that ends is missing", of(
			pod("proxy-x", ownedBy("DaemonSet", "proxy"), ran("5"), ending), pod("etcd-n1", mirrored, ran("6"))), []string{"daemonset/shop/proxy"}},
		{"nothing there, all missing; what was sick before is not asked for", nil, []string{"daemonset/shop/proxy", "mirror/shop/etcd-n1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, MissingReady(before, tc.now)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
