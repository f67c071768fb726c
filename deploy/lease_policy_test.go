package deploy_test

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"kubebaton.io/baton/lock"
)

// The refusals of the policies baton-lease and baton-marshal, as their files word them.
const (
	otherLease    = "an agent may write the Leases slot-* and marshal"
	leaseCreate   = "an agent may create an empty slot that nobody is nominated for, or the Lease marshal in its own name"
	leaseDelete   = "an agent may delete an empty slot and no other Lease"
	marshalHolder = "an agent may hold the Lease marshal in its own name, and give it up"
	marshalPause  = "an agent may not touch kubebaton.io/pause"
	slotPath      = "a slot goes from empty to the agent's own node, and from there to empty"
	slotTake      = "a slot is taken by the node that it nominates"
	slotReborn    = "the slot is held by an earlier Node of this name"
	slotHeld      = "a held slot keeps its holder's uid, its nominee and its finalizer"
	slotFree      = "a slot is freed and let go of in one write"
	slotClaim     = "the claim on a slot is its holder's"
	slotEmpty     = "an empty slot carries no claim"
	slotGroup     = "a slot stays in its group, and only a person asks for its release"
	onlyMakes     = "only the marshal makes and deletes slots"
	onlyNominates = "only the marshal nominates"
	onlyOrders    = "only the marshal writes a nomination"
	onlyHolds     = "only the marshal writes and lifts kubebaton.io/hold on a slot"
	onlyFrees     = "only the marshal frees the slot of another node"
	twoRules      = "denied request" // of two policies; which of them is quoted is chance
)

const (
	nominee   = lock.LabelNominee
	group     = lock.LabelGroup
	nodeLabel = lock.LabelNode
	held      = lock.FinalizerHeld
	nodeUID   = lock.AnnotationNodeUID
	hold      = lock.AnnotationHold
	release   = lock.AnnotationRelease
)

// actors are the three agents of these tests; m holds the Lease marshal.
type actors struct{ m, a, b agent }

// slot is an empty slot; edits make it what a case starts from.
func slot(name string, edits ...func(*coordinationv1.Lease)) *coordinationv1.Lease {
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
		Name: name, Namespace: namespace,
		Labels:      map[string]string{group: "workers"},
		Annotations: map[string]string{"example.com/note": "x"},
	}}
	for _, edit := range edits {
		edit(l)
	}
	return l
}

func nominates(uid string) func(*coordinationv1.Lease) {
	return func(l *coordinationv1.Lease) {
		l.Labels[nominee] = uid
		l.Labels[nodeLabel] = "hash"
		l.Annotations[lock.AnnotationNomineeNode] = "some-node"
		l.Annotations[lock.AnnotationBidCycle] = "c1"
		l.Annotations[lock.AnnotationBidAttempt] = "1"
		l.Annotations[lock.AnnotationBidUntil] = "2026-01-01T00:00:00Z"
	}
}

// takes writes a claim: what the agent named does to a slot when it takes it.
func takes(node, uid string) func(*coordinationv1.Lease) {
	return func(l *coordinationv1.Lease) {
		l.Spec.HolderIdentity = &node
		l.Spec.RenewTime = &metav1.MicroTime{Time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
		l.Labels[nominee] = uid
		l.Labels[nodeLabel] = "hash"
		l.Annotations[nodeUID] = uid
		for _, k := range []string{
			lock.AnnotationCycle, lock.AnnotationAttempt, lock.AnnotationBootID, lock.AnnotationCordon, lock.AnnotationInstance,
		} {
			l.Annotations[k] = "1"
		}
		l.Finalizers = append(l.Finalizers, held)
	}
}

// frees empties a slot as its holder or the marshal does.
func frees(l *coordinationv1.Lease) {
	l.Spec.HolderIdentity = nil
	delete(l.Labels, nominee)
	delete(l.Labels, nodeLabel)
	for k := range l.Annotations {
		if strings.HasPrefix(k, "kubebaton.io/") && k != hold {
			delete(l.Annotations, k)
		}
	}
	l.Finalizers = slices.DeleteFunc(l.Finalizers, func(f string) bool { return f == held })
}

func annotate(k, v string) func(*coordinationv1.Lease) {
	return func(l *coordinationv1.Lease) { l.Annotations[k] = v }
}

func unnoted(k string) func(*coordinationv1.Lease) {
	return func(l *coordinationv1.Lease) { delete(l.Annotations, k) }
}

func label(k, v string) func(*coordinationv1.Lease) {
	return func(l *coordinationv1.Lease) { metav1.SetMetaDataLabel(&l.ObjectMeta, k, v) }
}

func unlabelled(k string) func(*coordinationv1.Lease) {
	return func(l *coordinationv1.Lease) { delete(l.Labels, k) }
}

func unheld(l *coordinationv1.Lease) { l.Finalizers = nil }

func unclaimed(l *coordinationv1.Lease) { l.Spec.HolderIdentity = nil }

func renewed(l *coordinationv1.Lease) {
	l.Spec.RenewTime = &metav1.MicroTime{Time: time.Date(2026, 1, 1, 0, 0, 9, 0, time.UTC)}
}

type edits = []func(*coordinationv1.Lease)

// slotUpdate is one UPDATE of a slot: who does what to which state of it.
type slotUpdate struct {
	name   string
	by     agent
	before edits
	change edits
	want   string
}

func slotUpdates(x actors) []slotUpdate {
	m, a, b := x.m, x.a, x.b
	ofA, ofB := takes(a.node, a.uid), takes(b.node, b.uid)
	forA := nominates(a.uid)
	return []slotUpdate{
		{"the nominee takes its slot", a, edits{forA}, edits{ofA}, ""},
		{"a nominee with a slot on hold may take it: the agent reads the hold", a, edits{forA, annotate(hold, "paused")}, edits{ofA}, ""},
		{"a slot that nominates nobody is not taken", a, nil, edits{ofA, unlabelled(nominee), unlabelled(nodeLabel)}, slotTake},
		{"a slot that nominates another is not taken", a, edits{nominates(b.uid)}, edits{ofA, label(nominee, b.uid)}, slotTake},
		{"a nomination is not rewritten while taking", a, edits{nominates(b.uid)}, edits{ofA}, twoRules},
		{"a slot is not taken with another uid", a, edits{forA}, edits{ofA, annotate(nodeUID, b.uid)}, slotTake},
		{"a slot is not taken without its finalizer", a, edits{forA}, edits{ofA, unheld}, slotTake},
		{"a slot is not taken for another node", a, edits{nominates(b.uid)}, edits{ofB}, slotPath},
		{"not even by the marshal", m, edits{forA}, edits{ofA}, slotPath},
		{"a held slot is not taken over", a, edits{ofB}, edits{func(l *coordinationv1.Lease) { *l.Spec.HolderIdentity = a.node }}, slotPath},
		{"a held slot is not handed on", a, edits{ofA}, edits{func(l *coordinationv1.Lease) { *l.Spec.HolderIdentity = b.node }}, slotPath},

		{"the holder renews its claim", a, edits{ofA}, edits{renewed, annotate(lock.AnnotationBootID, "2")}, ""},
		{"the holder does not change its uid", a, edits{ofA}, edits{annotate(nodeUID, b.uid)}, slotHeld},
		{"the holder does not let go of the finalizer and stay", a, edits{ofA}, edits{unheld}, slotHeld},
		{"the holder stays the nominee", a, edits{ofA}, edits{label(nominee, "")}, slotHeld},
		{
			"the holder whose finalizer somebody took away still renews", a,
			edits{ofA, unheld},
			edits{renewed},
			"",
		},
		{"a claim of an earlier Node of that name is not renewed", a, edits{takes(a.node, "earlier")}, edits{renewed}, slotReborn},
		{"its successor frees it", a, edits{takes(a.node, "earlier")}, edits{frees}, ""},

		{"the holder frees its slot", a, edits{ofA}, edits{frees}, ""},
		{"the holder frees a slot whose release was asked", a, edits{ofA, annotate(release, "please")}, edits{frees}, ""},
		{"a slot is not emptied with its finalizer on", a, edits{ofA}, edits{frees, func(l *coordinationv1.Lease) { l.Finalizers = []string{held} }}, slotFree},
		{"another agent does not free it", b, edits{ofA}, edits{frees, label(nominee, a.uid), label(nodeLabel, "hash")}, onlyFrees},
		{"the marshal frees it: the Node is gone", m, edits{ofA}, edits{frees}, ""},

		{"another agent does not renew it", b, edits{ofA}, edits{renewed}, slotClaim},
		{"another agent does not change the claim", b, edits{ofA}, edits{annotate(lock.AnnotationBootID, "2")}, slotClaim},
		{"another agent does not take the finalizer away", b, edits{ofA}, edits{unheld}, slotClaim},
		{"another agent does not hide the slot from its holder", b, edits{ofA}, edits{label(nodeLabel, "x")}, twoRules},
		{"nor does the marshal", m, edits{ofA}, edits{renewed}, slotClaim},
		{"the marshal puts the finalizer back", m, edits{ofA, unheld}, edits{func(l *coordinationv1.Lease) { l.Finalizers = []string{held} }}, ""},
		{"nobody makes up a claim on an empty slot", m, nil, edits{annotate(lock.AnnotationBootID, "1")}, slotEmpty},
		{"nor its finalizer, which would keep it for ever", m, nil, edits{func(l *coordinationv1.Lease) { l.Finalizers = []string{held} }}, slotEmpty},
		{"the marshal wipes what is left of a claim whose holder a person took off", m, edits{ofA, unclaimed}, edits{frees}, ""},
		{"an agent does not move a slot to another group", a, edits{ofA}, edits{label(group, "control-plane")}, slotGroup},
		{"an agent asks for no release", b, edits{ofA}, edits{annotate(release, "please")}, slotGroup},

		{"the marshal nominates", m, nil, edits{forA}, ""},
		{"the marshal clears a nomination", m, edits{forA}, edits{frees}, ""},
		{"an agent does not nominate itself", a, nil, edits{forA}, onlyNominates},
		{"an agent does not nominate another", a, nil, edits{nominates(b.uid)}, onlyNominates},
		{"an agent clears its own nomination", a, edits{forA}, edits{frees}, ""},
		{"an agent does not clear the nomination of another", b, edits{forA}, edits{frees}, onlyNominates},
		{"a nominee does not prolong its nomination", a, edits{forA}, edits{annotate(lock.AnnotationBidUntil, "2027-01-01T00:00:00Z")}, onlyOrders},
		{"another agent does not shorten it", b, edits{forA}, edits{unnoted(lock.AnnotationBidUntil)}, onlyOrders},
		{"the marshal puts a held slot on hold", m, edits{ofA}, edits{annotate(hold, "halted")}, ""},
		{"the marshal lifts the hold", m, edits{ofA, annotate(hold, "halted")}, edits{unnoted(hold)}, ""},
		{"another agent does not hide a nomination from its node", b, edits{forA}, edits{unlabelled(nodeLabel)}, onlyNominates},
		{"nor shows it an empty slot", b, nil, edits{label(nodeLabel, "hash")}, onlyNominates},
		{"an agent declines a nomination whose label is off", a, edits{forA, unlabelled(nodeLabel)}, edits{frees}, ""},
		{"the marshal puts a slot on hold whose label is off", m, edits{ofA, unlabelled(nodeLabel)}, edits{annotate(hold, "halted"), label(nodeLabel, "hash")}, ""},
		{"the marshal frees one", m, edits{ofA, unlabelled(nodeLabel)}, edits{frees}, ""},
		{"a holder puts back the label that a person took off its slot", a, edits{ofA, unlabelled(nodeLabel)}, edits{renewed, label(nodeLabel, "hash")}, ""},
		{"an agent puts no slot on hold", b, edits{ofA}, edits{annotate(hold, "x")}, onlyHolds},
		{"a holder does not lift the hold", a, edits{ofA, annotate(hold, "halted")}, edits{unnoted(hold)}, onlyHolds},
	}
}

func newActors(t *testing.T) actors {
	t.Helper()
	x := actors{m: newAgent(t, "node-m"), a: newAgent(t, "node-a"), b: newAgent(t, "node-b")}
	elect(t, x.m)
	return x
}

// elect makes an agent the marshal, by its own hand, and waits until the policies know.
func elect(t *testing.T, m agent) {
	t.Helper()
	leases := m.CoordinationV1().Leases(namespace)
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "marshal"}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &m.node}}
	if _, err := leases.Create(t.Context(), l, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, "marshal") })
	nobody := unbound(t)
	eventually(t, "policies baton-lease and baton-marshal in force", func(ctx context.Context) error {
		dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
		bad := slot("other")
		if _, err := leases.Create(ctx, bad, dry); refused(err, otherLease) != nil {
			return refused(err, otherLease)
		}
		_, err := nobody.CoordinationV1().Leases(namespace).Create(ctx, slot("slot-x"), dry)
		if err := refused(err, "denied"); err != nil {
			return err
		}
		_, err = leases.Create(ctx, slot("slot-x"), dry)
		return err
	})
}

// remove deletes a Lease whatever keeps it.
func remove(t *testing.T, name string) {
	t.Helper()
	ctx, leases := context.Background(), admin(t).CoordinationV1().Leases(namespace)
	if l, err := leases.Get(ctx, name, metav1.GetOptions{}); err == nil && len(l.Finalizers) > 0 {
		l.Finalizers = nil
		if _, err := leases.Update(ctx, l, metav1.UpdateOptions{}); err != nil {
			t.Error(err)
		}
	}
	if err := leases.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}

// place creates a slot in a given state, as an administrator.
func place(t *testing.T, l *coordinationv1.Lease) *coordinationv1.Lease {
	t.Helper()
	l, err := admin(t).CoordinationV1().Leases(namespace).Create(t.Context(), l, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, l.Name) })
	return l
}

func update(ctx context.Context, by kubernetes.Interface, l *coordinationv1.Lease, change ...func(*coordinationv1.Lease)) error {
	l = l.DeepCopy()
	for _, c := range change {
		c(l)
	}
	_, err := by.CoordinationV1().Leases(namespace).Update(ctx, l, metav1.UpdateOptions{})
	return err
}

func TestSlotsGoFromEmptyToTheirOwnNodeAndBack(t *testing.T) {
	x := newActors(t)
	for _, tt := range slotUpdates(x) {
		t.Run(tt.name, func(t *testing.T) {
			l := place(t, slot("slot-workers-0", tt.before...))
			check(t, update(t.Context(), tt.by, l, tt.change...), tt.want)
		})
	}
	t.Run("a slot that is being deleted is not taken", func(t *testing.T) {
		keep := func(l *coordinationv1.Lease) { l.Finalizers = []string{"example.com/keep"} }
		l := place(t, slot("slot-workers-0", nominates(x.a.uid), keep))
		leases := admin(t).CoordinationV1().Leases(namespace)
		if err := leases.Delete(t.Context(), l.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		l, err := leases.Get(t.Context(), l.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		// No new finalizer may be added to it either: the API server is asked with one that is already there.
		check(t, update(t.Context(), x.a, l, takes(x.a.node, x.a.uid), keep), slotTake)
	})
	t.Run("a stale resourceVersion is a conflict, not a refusal", func(t *testing.T) {
		l := place(t, slot("slot-workers-0", nominates(x.a.uid)))
		if err := update(t.Context(), x.a, l, takes(x.a.node, x.a.uid)); err != nil {
			t.Fatal(err)
		}
		if err := update(t.Context(), x.a, l, takes(x.a.node, x.a.uid)); !apierrors.IsConflict(err) {
			t.Errorf("got %v, want a conflict", err)
		}
	})
	t.Run("a token that is bound to no pod takes nothing", func(t *testing.T) {
		l := place(t, slot("slot-workers-0", nominates(x.a.uid)))
		check(t, update(t.Context(), unbound(t), l, takes(x.a.node, x.a.uid)), noNode)
	})
}

// leaseCreates are Leases that agents make.
func leaseCreates(x actors) []struct {
	name string
	by   agent
	what *coordinationv1.Lease
	want string
} {
	marshal := func(node string, annotations map[string]string) *coordinationv1.Lease {
		return &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: "marshal", Annotations: annotations},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &node},
		}
	}
	return []struct {
		name string
		by   agent
		what *coordinationv1.Lease
		want string
	}{
		{"the marshal makes a slot", x.m, slot("slot-workers-0"), ""},
		{"the marshal makes a slot on hold", x.m, slot("slot-workers-0", annotate(hold, "paused")), ""},
		{"another agent makes none", x.a, slot("slot-workers-0"), onlyMakes},
		{"no slot is made held", x.m, slot("slot-workers-0", takes(x.m.node, x.m.uid)), leaseCreate},
		{"no slot is made for a nominee", x.m, slot("slot-workers-0", nominates(x.m.uid)), leaseCreate},
		{"no Lease of another name is made", x.m, slot("workers-0"), otherLease},
		{"nobody makes the Lease marshal in another's name", x.a, marshal(x.b.node, nil), leaseCreate},
		{"nobody makes it paused", x.a, marshal(x.a.node, map[string]string{"kubebaton.io/pause.workers": ""}), leaseCreate},
	}
}

func TestLeasesAreMadeAndDeletedByTheMarshal(t *testing.T) {
	x := newActors(t)
	for _, tt := range leaseCreates(x) {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.by.CoordinationV1().Leases(namespace).Create(t.Context(), tt.what, metav1.CreateOptions{})
			check(t, err, tt.want)
			if err == nil {
				remove(t, tt.what.Name)
			}
		})
	}
	for _, tt := range leaseDeletes(x) {
		t.Run(tt.name, func(t *testing.T) {
			place(t, tt.what)
			check(t, tt.by.CoordinationV1().Leases(namespace).Delete(t.Context(), tt.what.Name, metav1.DeleteOptions{}), tt.want)
		})
	}
	t.Run("nobody deletes the Lease marshal", func(t *testing.T) {
		check(t, x.m.CoordinationV1().Leases(namespace).Delete(t.Context(), "marshal", metav1.DeleteOptions{}), leaseDelete)
	})
	t.Run("nobody deletes all slots at once", func(t *testing.T) {
		err := x.m.CoordinationV1().Leases(namespace).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{})
		check(t, err, "deletecollection")
	})
}

func leaseDeletes(x actors) []struct {
	name string
	by   agent
	what *coordinationv1.Lease
	want string
} {
	return []struct {
		name string
		by   agent
		what *coordinationv1.Lease
		want string
	}{
		{"the marshal deletes an empty slot", x.m, slot("slot-workers-9"), ""},
		{"the marshal deletes no held slot", x.m, slot("slot-workers-9", takes(x.a.node, x.a.uid)), leaseDelete},
		{"a holder does not delete its slot", x.a, slot("slot-workers-9", takes(x.a.node, x.a.uid)), twoRules},
		{"another agent deletes none", x.a, slot("slot-workers-9"), onlyMakes},
	}
}

// marshalUpdates are UPDATEs of the Lease marshal, which m holds and people have paused.
func marshalUpdates(x actors) []slotUpdate {
	holder := func(node string) func(*coordinationv1.Lease) {
		return func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = &node }
	}
	free := holder("")
	return []slotUpdate{
		{"the marshal renews", x.m, nil, edits{renewed}, ""},
		{"the marshal gives up and names a waiting agent", x.m, nil, edits{free, label(nodeLabel, "hash")}, ""},
		{"another agent takes over: the election says when", x.a, nil, edits{holder(x.a.node), renewed}, ""},
		{"an agent takes it over when nobody has it", x.a, edits{free}, edits{holder(x.a.node)}, ""},
		{"an agent elects nobody else", x.a, nil, edits{holder(x.b.node)}, marshalHolder},
		{"an agent does not depose the marshal", x.a, nil, edits{free}, marshalHolder},
		{"an agent does not write into the marshal's Lease", x.a, nil, edits{renewed}, marshalHolder},
		{"the marshal does not pause", x.m, nil, edits{annotate("kubebaton.io/pause", "x")}, marshalPause},
		{"the marshal does not resume a group", x.m, nil, edits{unnoted("kubebaton.io/pause.workers")}, marshalPause},
		{"the marshal does not reword a pause", x.m, nil, edits{annotate("kubebaton.io/pause.workers", "x")}, marshalPause},
		{"the marshal notes what a rollout must remember", x.m, nil, edits{annotate("kubebaton.io/canary", "done")}, ""},
	}
}

func TestTheMarshalIsElectedInItsOwnName(t *testing.T) {
	x := newActors(t)
	for _, tt := range marshalUpdates(x) {
		t.Run(tt.name, func(t *testing.T) {
			leases := admin(t).CoordinationV1().Leases(namespace)
			l, err := leases.Get(t.Context(), "marshal", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			l.Labels, l.Annotations = nil, map[string]string{"kubebaton.io/pause.workers": "by hand"}
			l.Spec = coordinationv1.LeaseSpec{HolderIdentity: &x.m.node}
			for _, e := range tt.before {
				e(l)
			}
			if l, err = leases.Update(t.Context(), l, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			check(t, update(t.Context(), tt.by, l, tt.change...), tt.want)
		})
	}
}

func TestTheOfficeMovesWithTheLease(t *testing.T) {
	x := newActors(t)
	l := place(t, slot("slot-workers-0"))
	leases := admin(t).CoordinationV1().Leases(namespace)
	office, err := leases.Get(t.Context(), "marshal", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := update(t.Context(), x.a, office, func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = &x.a.node }); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	eventually(t, "the new marshal nominates", func(ctx context.Context) error { return update(ctx, x.a, l, nominates(x.b.uid)) })
	t.Logf("the new marshal was heard after %v", time.Since(start).Round(time.Millisecond))
	if l, err = leases.Get(t.Context(), l.Name, metav1.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	check(t, update(t.Context(), x.m, l, nominates(x.m.uid)), onlyNominates)

	t.Run("without a Lease marshal the other policy still binds", func(t *testing.T) {
		remove(t, "marshal")
		eventually(t, "nobody is marshal", func(ctx context.Context) error { return update(ctx, x.b, l, frees) })
		l, err := leases.Get(t.Context(), l.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		check(t, update(t.Context(), x.a, l, takes(x.a.node, x.a.uid)), slotTake)
		check(t, update(t.Context(), x.a, l, takes(x.b.node, x.b.uid)), slotPath)
	})
}

// The tables above must know every rule: a rule that refuses nothing here is not tested.
func TestEveryRuleOfEveryPolicyRefusesSomething(t *testing.T) {
	known := map[string]bool{noNode: true, otherNode: true}
	for _, tt := range nodePatches {
		known[tt.want] = true
	}
	for _, tt := range slices.Concat(slotUpdates(actors{}), marshalUpdates(actors{})) {
		known[tt.want] = true
	}
	for _, tt := range slices.Concat(leaseCreates(actors{}), leaseDeletes(actors{})) {
		known[tt.want] = true
	}
	delete(known, "")
	objects, err := manifests("base")
	if err != nil {
		t.Fatal(err)
	}
	rules := 0
	for _, u := range objects {
		if u.GetKind() != "ValidatingAdmissionPolicy" {
			continue
		}
		spec, _ := u.Object["spec"].(map[string]any)
		validations, _ := spec["validations"].([]any)
		for _, v := range validations {
			v, _ := v.(map[string]any)
			message, _ := v["message"].(string)
			rules++
			if !slices.ContainsFunc(slices.Collect(maps.Keys(known)), func(k string) bool { return strings.HasPrefix(message, k) }) {
				t.Errorf("policy %s: no case is refused with %q", u.GetName(), message)
			}
		}
	}
	if rules < 20 {
		t.Errorf("found %d rules, want them all", rules)
	}
}
