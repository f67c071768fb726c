package node

import (
	"context"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"kubebaton.io/baton/kube"
)

// sight gathers the facts of one run, and remembers the volumes of every pod that it has seen.
type sight struct {
	drainer  *Drainer
	settings DrainSettings
	known    Facts
	volumes  map[string][]string // of every pod that was seen, by its UID
	now      map[string]bool     // the UIDs of those that are there
}

func newSight(d *Drainer, s DrainSettings) *sight {
	return &sight{drainer: d, settings: s, volumes: map[string][]string{}}
}

// facts asks for everything once, and later only about pods that are new.
func (s *sight) facts(ctx context.Context, pods []*corev1.Pod) Facts {
	if s.known.Now.IsZero() {
		s.known = s.drainer.facts(ctx, pods, s.settings)
	} else {
		s.known.Bound, s.known.Unread = s.drainer.volumes.bound(ctx, s.drainer, pods)
	}
	s.now = make(map[string]bool, len(pods))
	for _, p := range pods {
		uid := string(p.UID)
		s.now[uid] = true
		if v := s.drainer.volumes.of(uid); v != nil {
			s.volumes[uid] = v
		}
	}
	return s.known
}

// gone are the volumes of pods that were seen and are not there any more, without those that others still use.
func (s *sight) gone() []string {
	of := func(there bool) map[string]bool {
		found := map[string]bool{}
		for uid, volumes := range s.volumes {
			for _, v := range volumes {
				if s.now[uid] == there {
					found[v] = true
				}
			}
		}
		return found
	}
	used := of(true)
	return slices.DeleteFunc(slices.Sorted(maps.Keys(of(false))), func(v string) bool { return used[v] })
}

// awaitVolumes waits until the Node's status names none of the volumes any more, neither as in use nor as attached, and
// says which it still names when the time is over. waiting is told of each change until then.
func (d *Drainer) awaitVolumes(ctx context.Context, volumes []string, most time.Duration, waiting func(left string)) (left string) {
	if len(volumes) == 0 || most == 0 {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	nodes := d.cluster.CoreV1().Nodes()
	own := kube.Selection{Fields: fields.OneTermEqualSelector(metav1.ObjectNameField, d.node).String()}
	var here []string
	warn := func(err error) { d.log.Warn("watching the node's volumes", "node", d.node, "error", err) }
	_ = kube.Watch(ctx, nodes.List, nodes.Watch, own, &corev1.Node{}, func(found map[string]*corev1.Node) {
		n, ok := found[d.node]
		if !ok {
			return
		}
		status := map[string]bool{}
		for _, v := range n.Status.VolumesInUse {
			status[string(v)] = true
		}
		for _, v := range n.Status.VolumesAttached {
			status[string(v.Name)] = true
		}
		here = slices.DeleteFunc(slices.Clone(volumes), func(v string) bool { return !status[v] })
		if len(here) == 0 {
			cancel()
			return
		}
		waiting(list(here))
	}, warn)
	return list(here)
}
