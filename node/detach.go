package node

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// csiVolume begins the name that a volume of a CSI driver has in a Node's status. Only their names are known from their objects.
const csiVolume = "kubernetes.io/csi/"

// beforeDeadline is when a drain stops to wait for volumes: late enough to have waited, early enough to go on.
const beforeDeadline = 5 * time.Second

// awaiting is how long a run waits for volumes, however often it does.
type awaiting struct {
	settings DrainSettings
	node     *Client   // shows the Node; not needed without a time for volumes
	until    time.Time // when they were awaited for long enough; zero: they were not yet
	still    string    // those that were on the node then
}

// wait waits until the volumes of others than the pods that are left are off the node, or until it is time to go on. It looks once at
// least, so that what is still there is said.
func (a *awaiting) wait(ctx context.Context, d *Drainer, left []*corev1.Pod, waiting func(string)) (still string, waited bool) {
	now, first := time.Now(), a.until.IsZero()
	if first {
		a.until = a.settings.volumesUntil(now)
	}
	switch {
	case a.settings.Volumes == 0:
	case now.Before(a.until):
		a.still, waited = a.awaitVolumes(ctx, d, left, waiting)
	case first:
		a.still = a.volumesNow(ctx, d, left)
	}
	return a.still, waited
}

// volumesUntil is until when volumes are awaited: not to the end of the drain, which would fail for them.
func (s DrainSettings) volumesUntil(now time.Time) time.Time {
	until := now.Add(s.Volumes)
	if last := s.Begun.Add(s.Timeout - beforeDeadline); s.Timeout > 0 && last.Before(until) {
		return last
	}
	return until
}

// notKnown stands for the volumes of a Node that cannot be read.
const notKnown = "which is not known"

// lookTime bounds how long a Node is awaited of which nothing is known yet by one who only looks.
const lookTime = time.Second

// volumesNow says which volumes the Node names, but for those of the pods that are left.
func (a *awaiting) volumesNow(ctx context.Context, d *Drainer, left []*corev1.Pod) string {
	stay := d.staying(ctx, left)
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	_, still := a.awaitNode(ctx, stay, func(string) { cancel() })
	return still
}

// staying are the volumes of the pods that are left.
func (d *Drainer) staying(ctx context.Context, left []*corev1.Pod) map[string]bool {
	stay := map[string]bool{}
	for _, has := range d.volumes.of(ctx, d, left) {
		for _, v := range has.attached {
			stay[v] = true
		}
	}
	return stay
}

// awaitVolumes waits until the volumes of others than the pods that are left are detached from the node, and says which are not when
// the time is over. waiting is told of each change until then; waited tells that it took time.
func (a *awaiting) awaitVolumes(ctx context.Context, d *Drainer, left []*corev1.Pod, waiting func(string)) (still string, waited bool) {
	ctx, cancel := context.WithDeadline(ctx, a.until)
	defer cancel()
	stay := d.staying(ctx, left)
	told := ""
	tell := func(volumes string) {
		if volumes != told {
			told = volumes
			waiting(volumes)
		}
	}
	gone, still := a.awaitNode(ctx, stay, tell)
	if still == "" {
		still = d.awaitDetached(ctx, gone, tell)
	}
	return still, told != "" || still != ""
}

// awaitNode waits until the Node's status names no volume of a CSI driver any more but those that stay, neither as in use nor as
// attached, and says which it named before, and which it still names when the time is over. What it goes by may be a moment old, but
// not older than what the Client has read and written: not than the cordon.
func (a *awaiting) awaitNode(ctx context.Context, stay map[string]bool, waiting func(string)) (named []string, still string) {
	defer func() { slices.Sort(named); named = slices.Compact(named) }()
	still = notKnown
	for {
		n, news := a.node.latest()
		if n.known() {
			now := slices.DeleteFunc(slices.Clone(n.volumes), func(v string) bool { return stay[v] })
			named = append(named, now...)
			if still = list(now); still == "" {
				return named, ""
			}
			waiting(still)
		}
		select {
		case <-ctx.Done():
			return named, still
		case <-news:
		}
	}
}

// awaitDetached waits until there is no VolumeAttachment for these volumes and this node any more, and says for which there still is
// one when the time is over. The controller takes a volume out of the Node's status before it asks for its detachment, and deletes
// the VolumeAttachment when the driver has said that it is done.
func (d *Drainer) awaitDetached(ctx context.Context, volumes []string, waiting func(string)) string {
	delay := firstDelay
	for {
		volumes = slices.DeleteFunc(volumes, func(v string) bool { return d.detached(ctx, v) })
		if len(volumes) == 0 {
			return ""
		}
		waiting(list(volumes))
		select {
		case <-ctx.Done():
			return list(volumes)
		case <-time.After(delay):
		}
		delay = min(delay*8/5, maxDelay)
	}
}

// detached tells whether nothing is to be awaited any more for a volume that the Node named. It goes by the REST client: the one of
// package storage/v1 would be linked with all its methods, for one GET. To a node that asks for a VolumeAttachment that is gone the
// node authorizer says that it is forbidden, and so does a cluster where nobody has permitted it.
func (d *Drainer) detached(ctx context.Context, volume string) bool {
	name := attachmentOf(volume, d.node)
	var a storagev1.VolumeAttachment
	err := d.as.client().CoreV1().RESTClient().Get().AbsPath("/apis/storage.k8s.io/v1").Resource("volumeattachments").Name(name).Do(ctx).Into(&a)
	switch {
	case apierrors.IsNotFound(err):
		return true
	case apierrors.IsForbidden(err):
		d.log.Debug("the attachment of a volume is gone, or may not be read", "volume", volume, "err", err)
		return true
	case err != nil:
		d.log.Debug("looking for the attachment of a volume", "volume", volume, "err", err)
	}
	return false
}

// attachmentOf is the name that the attach/detach controller gives to the VolumeAttachment of a volume, which is named as in a
// Node's status, and a node.
func attachmentOf(volume, node string) string {
	driver, handle, _ := strings.Cut(strings.TrimPrefix(volume, csiVolume), "^")
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(handle+driver+node)))
}

// volumesOn are the volumes of CSI drivers that the Node's status names, sorted.
func volumesOn(n *corev1.Node) []string {
	var all []string
	for _, v := range n.Status.VolumesInUse {
		all = append(all, string(v))
	}
	for _, v := range n.Status.VolumesAttached {
		all = append(all, string(v.Name))
	}
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(v string) bool { return !strings.HasPrefix(v, csiVolume) })
}
