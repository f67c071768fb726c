package lock

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kubebaton.io/baton/kube"
)

// Slot is what one Lease says, as it was read. It is a value: the verbs write on the version that it was read at.
type Slot struct {
	Name            string
	ResourceVersion string    // of the Lease; a verb's write carries it
	Group           string    // label, or else what the name says
	Nominee         string    // UID of a Node; "" is none. It stays while the slot is held
	BidCycle        string    // the bid that was nominated; "" while held
	BidAttempt      int       // see BidCycle
	BidUntil        time.Time // the nomination's end; zero for a nomination that cannot be read, which is over
	Holder          string    // node name; "" is empty
	HolderUID       string    // UID of the holder's Node
	Cycle           string    // the holder's claim, see Claim
	Attempt         int
	BootID          string
	Cordon          string
	Instance        string
	Hold            string    // the marshal's brake: its reason, "" is none
	Release         string    // an operator asks the holder to back off: the reason, "" is none
	Deleting        bool      // the Lease goes as soon as it is freed, and is not to be taken
	Renewed         time.Time // the holder's last write by Config.Now, in microseconds; for people and metrics only
}

// Claim is what a holder writes beside its name. It comes back unchanged in the Slot.
type Claim struct {
	Cycle    string // never empty
	Attempt  int    // counts from 1
	BootID   string // of the boot that asked
	Cordon   string // whose cordon it is: "", "baton" or "foreign"
	Instance string // of the agent's process that wrote last
}

// state is a Slot with the facts that only writing needs. Verbs change a state; read and write map it.
type state struct {
	Slot
	nomineeNode string
	acquired    time.Time
	transitions int32
}

// annotationKeys are Baton's own annotations on a slot; every other is foreign.
func annotationKeys() []string {
	return []string{
		AnnotationNomineeNode, AnnotationBidCycle, AnnotationBidAttempt, AnnotationBidUntil,
		AnnotationNodeUID, AnnotationCycle, AnnotationAttempt, AnnotationBootID, AnnotationCordon, AnnotationInstance,
		AnnotationHold, AnnotationRelease,
	}
}

// isSlot goes by the name, which cannot be changed: a slot whose labels somebody removed is still one.
func isSlot(name string) bool { return strings.HasPrefix(name, slotPrefix) }

func slotName(group string, i int) string { return slotPrefix + group + "-" + strconv.Itoa(i) }

// groupOf is the group in a slot's name.
func groupOf(name string) string {
	g := strings.TrimPrefix(name, slotPrefix)
	if i := strings.LastIndexByte(g, '-'); i >= 0 {
		return g[:i]
	}
	return g
}

// slotOf reads a Lease. Nothing in it can make this fail: what cannot be read counts against the reader, so a nomination
// with a part missing is over, and a Lease with a holder is held whatever its annotations are.
func slotOf(l *coordinationv1.Lease) Slot { return read(l).Slot }

func read(l *coordinationv1.Lease) state {
	a := l.Annotations
	s := state{nomineeNode: a[AnnotationNomineeNode], acquired: fromMicro(l.Spec.AcquireTime)}
	if l.Spec.LeaseTransitions != nil {
		s.transitions = *l.Spec.LeaseTransitions
	}
	s.Slot = Slot{
		Name: l.Name, ResourceVersion: l.ResourceVersion, Group: l.Labels[LabelGroup],
		Nominee: l.Labels[LabelNominee], BidCycle: a[AnnotationBidCycle],
		HolderUID: a[AnnotationNodeUID], Cycle: a[AnnotationCycle],
		BootID: a[AnnotationBootID], Cordon: a[AnnotationCordon], Instance: a[AnnotationInstance],
		Hold: reason(a, AnnotationHold), Release: reason(a, AnnotationRelease),
		Deleting: l.DeletionTimestamp != nil, Renewed: fromMicro(l.Spec.RenewTime),
	}
	if s.Group == "" {
		s.Group = groupOf(l.Name)
	}
	if l.Spec.HolderIdentity != nil {
		s.Holder = *l.Spec.HolderIdentity
	}
	if n, err := strconv.Atoi(a[AnnotationAttempt]); err == nil {
		s.Attempt = n
	}
	n, errN := strconv.Atoi(a[AnnotationBidAttempt])
	until, errU := time.Parse(time.RFC3339Nano, a[AnnotationBidUntil])
	if errN == nil && errU == nil {
		s.BidAttempt, s.BidUntil = n, until.UTC()
	}
	if s.BidCycle == "" { // what is left of a nomination is none
		s.bid("", "", 0, time.Time{})
	}
	if s.Holder == "" { // what is left of a claim is none, and the next write wipes it
		s.HolderUID, s.acquired = "", time.Time{}
		s.claim(Claim{}, time.Time{})
	}
	return s
}

// write puts what changed from s to n on the Lease that s was read from. What is not Baton's stays as it is; a key of
// Baton's that n has no use for goes, also when it held rubbish.
func (s state) write(n state, l *coordinationv1.Lease) {
	from, to := s.annotations(), n.annotations()
	for _, k := range annotationKeys() {
		l.Annotations = put(l.Annotations, k, from, to)
	}
	from, to = s.labels(), n.labels()
	from[LabelNode] = l.Labels[LabelNode] // one that people changed is put right
	for _, k := range []string{LabelNominee, LabelNode} {
		l.Labels = put(l.Labels, k, from, to)
	}
	held := slices.Contains(l.Finalizers, FinalizerHeld)
	switch {
	case n.Holder != "" && !held:
		l.Finalizers = append(l.Finalizers, FinalizerHeld)
	case n.Holder == "" && held:
		l.Finalizers = slices.DeleteFunc(l.Finalizers, func(f string) bool { return f == FinalizerHeld })
	}
	l.Spec.HolderIdentity = nil
	if n.Holder != "" {
		l.Spec.HolderIdentity = &n.Holder
	}
	l.Spec.AcquireTime, l.Spec.RenewTime = toMicro(n.acquired), toMicro(n.Renewed)
	if n.transitions != s.transitions {
		l.Spec.LeaseTransitions = &n.transitions
	}
}

func put(m map[string]string, k string, from, to map[string]string) map[string]string {
	v, wanted := to[k]
	if !wanted {
		delete(m, k)
		return m
	}
	if _, there := m[k]; there && from[k] == v {
		return m
	}
	if m == nil {
		m = map[string]string{}
	}
	m[k] = v
	return m
}

func (s state) labels() map[string]string {
	m := map[string]string{}
	if s.Nominee != "" {
		m[LabelNominee] = s.Nominee
	}
	if node := cmp.Or(s.Holder, s.nomineeNode); node != "" {
		m[LabelNode] = kube.NodeLabel(node)
	}
	return m
}

func (s state) annotations() map[string]string {
	m := map[string]string{}
	set := func(k, v string) {
		if v != "" {
			m[k] = v
		}
	}
	set(AnnotationHold, s.Hold)
	set(AnnotationRelease, s.Release)
	if s.BidCycle != "" {
		m[AnnotationBidCycle] = s.BidCycle
		m[AnnotationBidAttempt] = strconv.Itoa(s.BidAttempt)
		m[AnnotationBidUntil] = s.BidUntil.UTC().Format(time.RFC3339Nano)
		set(AnnotationNomineeNode, s.nomineeNode)
	}
	if s.Holder != "" {
		m[AnnotationAttempt] = strconv.Itoa(s.Attempt)
		set(AnnotationNodeUID, s.HolderUID)
		set(AnnotationCycle, s.Cycle)
		set(AnnotationBootID, s.BootID)
		set(AnnotationCordon, s.Cordon)
		set(AnnotationInstance, s.Instance)
	}
	return m
}

// reason reads an annotation whose presence alone counts.
func reason(a map[string]string, key string) string {
	if v, ok := a[key]; ok {
		if v == "" {
			return noReason
		}
		return v
	}
	return ""
}

func fromMicro(t *metav1.MicroTime) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}

func toMicro(t time.Time) *metav1.MicroTime {
	if t.IsZero() {
		return nil
	}
	return &metav1.MicroTime{Time: t}
}
