package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// asking bounds how many objects are read at once for the facts of a plan.
const asking = 10

// facts are all that a plan needs to know about pods that were listed. What cannot be read is left out, and the plan goes the
// careful way. The error is of the host alone: with it the facts are good to be shown, and not to be acted on.
func (d *Drainer) facts(ctx context.Context, pods []*corev1.Pod, s DrainSettings) (Facts, error) {
	f, unasked := d.known(ctx, pods, s)
	if unasked != nil {
		return f, unasked
	}
	if s.Mode != ModeAuto {
		return f, nil
	}
	if f.Alone = d.alone(ctx); f.Alone || len(s.Downtimes) < minDowntimes {
		return f, nil
	}
	if f.Hindrance = d.hindrance(ctx); f.Hindrance != "" {
		return f, nil
	}
	if budgets, err := d.budgets(ctx, pods); err != nil {
		f.Hindrance = "whether disruption budgets allow it is not known: " + err.Error()
	} else {
		f.Short = shortOf(pods, budgets)
		f.Elsewhere = d.elsewhere(ctx, pods)
	}
	return f, nil
}

// known are facts without what only the mode of a drain asks for.
func (d *Drainer) known(ctx context.Context, pods []*corev1.Pod, s DrainSettings) (Facts, error) {
	f := Facts{Now: time.Now(), Downtimes: s.Downtimes}
	var unasked error
	f.Ends, unasked = d.ends(ctx)
	f.Bound, f.Unread = d.bound(ctx, pods)
	return f, unasked
}

// hindrance says why this node may not be away with its pods now: two nodes that are could have all pods of a kind.
func (d *Drainer) hindrance(ctx context.Context) string {
	if d.othersDown == nil {
		return ""
	}
	switch others, err := d.othersDown(ctx); {
	case err != nil:
		return "whether other nodes are down is not known: " + err.Error()
	case len(others) > 0:
		return "others may be down too: " + list(others)
	}
	return ""
}

// ends says why no pod outlives a reboot of this host; its error, that the host could not be asked.
func (d *Drainer) ends(ctx context.Context) (string, error) {
	if d.endsPods == nil {
		return "", nil
	}
	switch ends, err := d.endsPods(ctx); {
	case err != nil:
		return "whether the kubelet ends every pod when the host shuts down is not known: " + err.Error(), fmt.Errorf("asking whether the kubelet ends pods when the host shuts down: %w", err)
	case ends:
		return "the kubelet ends every pod when the host shuts down (shutdownGracePeriod)", nil
	}
	return "", nil
}

// alone tells that the cluster has no other node.
func (d *Drainer) alone(ctx context.Context) bool {
	l, err := d.cluster.CoreV1().Nodes().List(ctx, metav1.ListOptions{Limit: 2})
	if err != nil {
		d.log.Debug("looking for other nodes", "err", err)
		return false
	}
	return l.Continue == "" && len(l.Items) == 1 && l.Items[0].Name == d.node
}

// elsewhere counts the ready pods on other nodes by the UID of their controller, for the controllers of pods that count them.
func (d *Drainer) elsewhere(ctx context.Context, pods []*corev1.Pod) map[string]int {
	here := map[string]int{} // ready ones
	owners := map[string]*corev1.Pod{}
	for _, p := range pods {
		owner := metav1.GetControllerOf(p)
		if owner == nil || !strings.HasPrefix(owner.APIVersion, "apps/") {
			continue
		}
		owners[string(owner.UID)] = p
		if isReady(p) {
			here[string(owner.UID)]++
		}
	}
	out := map[string]int{}
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(asking)
	for uid, p := range owners {
		g.Go(func() error {
			ready, err := d.readyOf(ctx, p.Namespace, metav1.GetControllerOf(p))
			if err != nil {
				d.log.Debug("counting the pods of a controller", "pod", p.Namespace+"/"+p.Name, "err", err)
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			out[uid] = max(0, ready-here[uid])
			return nil
		})
	}
	_ = g.Wait() // none returns an error
	return out
}

// readyOf reads how many pods of a controller are ready. It goes by the REST client: the one of package apps/v1 would be linked
// with all its methods, for two GETs.
func (d *Drainer) readyOf(ctx context.Context, namespace string, owner *metav1.OwnerReference) (int, error) {
	get := func(resource string, into runtime.Object) error {
		err := d.cluster.CoreV1().RESTClient().Get().AbsPath("/apis/apps/v1").Namespace(namespace).Resource(resource).Name(owner.Name).Do(ctx).Into(into)
		if err != nil {
			return fmt.Errorf("getting %s %q: %w", owner.Kind, owner.Name, err)
		}
		return nil
	}
	var uid types.UID
	var ready int32
	var err error
	switch owner.Kind {
	case "ReplicaSet":
		var rs appsv1.ReplicaSet
		err = get("replicasets", &rs)
		uid, ready = rs.UID, rs.Status.ReadyReplicas
	case "StatefulSet":
		var ss appsv1.StatefulSet
		err = get("statefulsets", &ss)
		uid, ready = ss.UID, ss.Status.ReadyReplicas
	default:
		err = fmt.Errorf("%s %q does not say how many are ready", owner.Kind, owner.Name)
	}
	if err == nil && uid != owner.UID {
		err = fmt.Errorf("%s %q is another one now", owner.Kind, owner.Name)
	}
	return int(ready), err
}

// claimTime bounds how long a drain waits for the claims of its pods.
const claimTime = 10 * time.Second

// volumes remembers what volumes pods have. The claims of a pod that runs are bound once and for all.
type volumes struct {
	mu    sync.Mutex
	known map[string]podVolumes // by the pod's UID
}

// podVolumes are the volumes of one pod.
type podVolumes struct {
	binds    string   // one that lies on this node; "" none
	attached []string // those that are attached to a node, by the name in its Node's status
	unread   string   // why they are not known; "" when they are
}

// bound says of pods, by their UID, which volume binds them to this node, or why that cannot be known.
func (d *Drainer) bound(ctx context.Context, pods []*corev1.Pod) (bound, unread map[string]string) {
	bound, unread = map[string]string{}, map[string]string{}
	for uid, has := range d.volumes.of(ctx, d, pods) {
		switch {
		case has.unread != "":
			unread[uid] = has.unread
		case has.binds != "":
			bound[uid] = has.binds
		}
	}
	return bound, unread
}

// of returns the volumes of pods by their UID, and forgets all others. What the cluster does not let the agent read is asked
// for once, as is what does not change any more.
func (v *volumes) of(ctx context.Context, d *Drainer, pods []*corev1.Pod) map[string]podVolumes {
	ctx, cancel := context.WithTimeout(ctx, claimTime)
	defer cancel()
	v.mu.Lock()
	defer v.mu.Unlock()
	found, known := make(map[string]podVolumes, len(pods)), make(map[string]podVolumes, len(pods))
	var missing []*corev1.Pod
	for _, p := range pods {
		uid := string(p.UID)
		if has, ok := v.known[uid]; ok {
			found[uid], known[uid] = has, has
		} else {
			missing = append(missing, p)
		}
	}
	var mu sync.Mutex // of both maps from here on
	var g errgroup.Group
	g.SetLimit(asking)
	for _, p := range missing {
		uid := string(p.UID)
		g.Go(func() error {
			has, err := d.volumesOf(ctx, p)
			if err != nil {
				d.log.Debug("looking at the claims of a pod", "pod", p.Namespace+"/"+p.Name, "err", err)
				has = podVolumes{unread: err.Error()}
			}
			mu.Lock()
			defer mu.Unlock()
			found[uid] = has
			if p.Status.Phase != corev1.PodPending && (err == nil || apierrors.IsForbidden(err)) {
				known[uid] = has
			}
			return nil
		})
	}
	_ = g.Wait() // none returns an error
	v.known = known
	return found
}

// claimsOf are the names of the pod's claims. An ephemeral volume's claim has the names of both.
func claimsOf(p *corev1.Pod) []string {
	var names []string
	for _, v := range p.Spec.Volumes {
		switch {
		case v.PersistentVolumeClaim != nil:
			names = append(names, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			names = append(names, p.Name+"-"+v.Name)
		}
	}
	return names
}

// volumesOf reads the volumes of the pod's claims.
func (d *Drainer) volumesOf(ctx context.Context, p *corev1.Pod) (podVolumes, error) {
	var has podVolumes
	for _, name := range claimsOf(p) {
		claim, err := d.as.client().CoreV1().PersistentVolumeClaims(p.Namespace).Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			continue
		case err != nil:
			return podVolumes{}, fmt.Errorf("getting claim %q: %w", name, err)
		case claim.Spec.VolumeName == "":
			continue
		}
		v, err := d.as.client().CoreV1().PersistentVolumes().Get(ctx, claim.Spec.VolumeName, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			continue
		case err != nil:
			return podVolumes{}, fmt.Errorf("getting volume %q: %w", claim.Spec.VolumeName, err)
		}
		if has.binds == "" && ofOneNode(v) {
			has.binds = v.Name
		}
		if csi := v.Spec.CSI; csi != nil {
			has.attached = append(has.attached, "kubernetes.io/csi/"+csi.Driver+"^"+csi.VolumeHandle)
		}
	}
	return has, nil
}

// ofOneNode tells whether a volume lies on one node: a local one, or one whose affinity names a node. Drivers of local
// storage use labels of their own that end in the same few words.
func ofOneNode(v *corev1.PersistentVolume) bool {
	if v.Spec.Local != nil || v.Spec.HostPath != nil {
		return true
	}
	if v.Spec.NodeAffinity == nil || v.Spec.NodeAffinity.Required == nil {
		return false
	}
	node := func(r corev1.NodeSelectorRequirement) bool {
		_, word, _ := strings.Cut(r.Key, "/")
		return r.Operator == corev1.NodeSelectorOpIn && len(r.Values) == 1 && slices.Contains([]string{"hostname", "node", "nodename"}, word)
	}
	return slices.ContainsFunc(v.Spec.NodeAffinity.Required.NodeSelectorTerms, func(t corev1.NodeSelectorTerm) bool {
		return slices.ContainsFunc(t.MatchExpressions, node)
	})
}
