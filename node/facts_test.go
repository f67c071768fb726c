package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"

	"kubebaton.io/baton/kube"
)

// claimed gives a pod a volume.
func claimed(claim string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
		}}}
	}
}

// volume makes a volume and a claim on it; key is the label by which it lies on the node.
func (s *scene) volume(name string, source corev1.PersistentVolumeSource, key string) {
	s.t.Helper()
	v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: s.ns + "-" + name}, Spec: corev1.PersistentVolumeSpec{
		Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		PersistentVolumeSource: source, ClaimRef: &corev1.ObjectReference{Namespace: s.ns, Name: name},
	}}
	if key != "" {
		v.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
			{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: corev1.NodeSelectorOpIn, Values: []string{s.node}}}},
		}}}
	}
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
		VolumeName: v.Name, AccessModes: v.Spec.AccessModes,
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
	}}
	_, err := s.admin.CoreV1().PersistentVolumes().Create(s.t.Context(), v, metav1.CreateOptions{})
	_, cerr := s.admin.CoreV1().PersistentVolumeClaims(s.ns).Create(s.t.Context(), c, metav1.CreateOptions{})
	if err := errors.Join(err, cerr); err != nil {
		s.t.Fatal(err)
	}
}

func TestBound(t *testing.T) {
	s := newScene(t)
	csi := corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "example.com", VolumeHandle: "h"}}
	s.volume("local", corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/data"}}, corev1.LabelHostname)
	s.volume("lvm", csi, "topology.topolvm.io/node")
	s.volume("cloud", csi, corev1.LabelTopologyZone)
	want := map[string]string{}
	for _, name := range []string{"local", "lvm", "cloud", "missing"} {
		p := s.pod("with-"+name, claimed(name))
		if name == "local" || name == "lvm" {
			want[string(p.UID)] = s.ns + "-" + name
		}
	}
	d := s.drainer(s.clientset)
	s.requests.reset()
	for range 3 {
		pods, err := listPods(t.Context(), s.clientset, s.node)
		if err != nil {
			t.Fatal(err)
		}
		bound, unread := d.bound(t.Context(), pods)
		if diff := cmp.Diff(want, bound); diff != "" {
			t.Error(diff)
		}
		if len(unread) != 0 {
			t.Errorf("not read: %v", unread)
		}
	}
	for i := range 20 { // some are known, some are new
		s.pod(fmt.Sprintf("more-%02d", i))
	}
	if all, err := listPods(t.Context(), s.clientset, s.node); err != nil || len(d.volumes.of(t.Context(), d, all)) != 24 {
		t.Errorf("the volumes of not all of %d pods: %v", len(all), err)
	}
	claims := 0
	for _, call := range s.requests.calls {
		if strings.Contains(call, "persistentvolume") {
			claims++
		}
	}
	if claims != 7 {
		t.Errorf("%d requests for claims and volumes, want each once: %v", claims, s.requests.calls)
	}
	plan, err := d.Plan(t.Context(), DrainSettings{Timeout: time.Minute, Policy: Policy{LocalVolumes: DoBlock}})
	if err != nil {
		t.Fatal(err)
	}
	if reason, message := blocked(plan.Pods); reason != ReasonLocalVolume || !strings.Contains(message, "with-local") || !strings.Contains(message, "with-lvm") {
		t.Errorf("%s: %s", reason, message)
	}
}

// controller makes a ReplicaSet or a StatefulSet with so many ready pods, and returns its UID.
func (s *scene) controller(kind, name string, ready int32) types.UID {
	s.t.Helper()
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: selector.MatchLabels},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "none"}}},
	}
	meta := metav1.ObjectMeta{Name: name}
	apps := s.admin.AppsV1()
	var uid types.UID
	var err, serr error
	if kind == "ReplicaSet" {
		rs := &appsv1.ReplicaSet{ObjectMeta: meta, Spec: appsv1.ReplicaSetSpec{Selector: selector, Template: template}}
		rs, err = apps.ReplicaSets(s.ns).Create(s.t.Context(), rs, metav1.CreateOptions{})
		rs.Status = appsv1.ReplicaSetStatus{Replicas: ready, ReadyReplicas: ready}
		uid = rs.UID
		_, serr = apps.ReplicaSets(s.ns).UpdateStatus(s.t.Context(), rs, metav1.UpdateOptions{})
	} else {
		ss := &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Selector: selector, Template: template}}
		ss, err = apps.StatefulSets(s.ns).Create(s.t.Context(), ss, metav1.CreateOptions{})
		ss.Status = appsv1.StatefulSetStatus{Replicas: ready, ReadyReplicas: ready}
		uid = ss.UID
		_, serr = apps.StatefulSets(s.ns).UpdateStatus(s.t.Context(), ss, metav1.UpdateOptions{})
	}
	if err := errors.Join(err, serr); err != nil {
		s.t.Fatal(err)
	}
	return uid
}

func TestFactsOfMode(t *testing.T) {
	of := func(kind, name string, uid types.UID) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			yes := true
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: name, UID: uid, Controller: &yes}}
		}
	}
	s := newScene(t)
	newScene(t) // a node to go to
	web, db := s.controller("ReplicaSet", "web", 3), s.controller("StatefulSet", "db", 1)
	s.pod("web-a", of("ReplicaSet", "web", web))
	s.pod("web-b", of("ReplicaSet", "web", web))
	s.pod("db-0", of("StatefulSet", "db", db))
	s.pod("old", of("ReplicaSet", "web", "uid-of-one-before"))
	s.pod("gone", of("ReplicaSet", "gone", "uid-gone"))
	s.pod("own", of("Tenant", "own", "uid-own"))
	pods, err := listPods(t.Context(), s.clientset, s.node)
	if err != nil {
		t.Fatal(err)
	}
	auto := DrainSettings{Policy: Policy{Mode: ModeAuto}, Downtimes: []time.Duration{1, 2, 3}}
	factsOf := func(d *Drainer, settings DrainSettings) Facts {
		f, _ := d.facts(t.Context(), pods, settings)
		return f
	}
	d := s.drainer(s.clientset)
	t.Run("ready pods elsewhere are those that their controller counts, without those here", func(t *testing.T) {
		got := factsOf(d, auto)
		want := map[string]int{string(web): 1, string(db): 0}
		if diff := cmp.Diff(want, got.Elsewhere); diff != "" || got.Alone {
			t.Errorf("%salone: %v", diff, got.Alone)
		}
	})
	t.Run("a budget counts all of its pods here, as all will be away", func(t *testing.T) {
		s.budget("web") // of all: their label is the same
		s.allow("web", 3)
		got := factsOf(d, auto).Short
		if len(got) != len(pods) || !strings.Contains(got[string(pods[0].UID)], "disruption budget web allows 3 of 6 now") {
			t.Errorf("%q", got)
		}
		s.allow("web", 6)
		if got := factsOf(d, auto).Short; len(got) != 0 {
			t.Errorf("%q", got)
		}
	})
	t.Run("other nodes that may be down are named, and so is that they cannot be asked for", func(t *testing.T) {
		defer func() { d.othersDown = nil }()
		for want, err := range map[string]error{"others may be down too: n7": nil, "whether other nodes are down is not known: no API": errors.New("no API")} {
			d.othersDown = func(context.Context) ([]string, error) { return []string{"n7"}, err }
			if got := factsOf(d, auto); got.Hindrance != want || got.Elsewhere != nil {
				t.Errorf("%+v, want %q", got, want)
			}
		}
	})
	t.Run("what the mode does not need is not asked for", func(t *testing.T) {
		for _, settings := range []DrainSettings{{}, {Policy: Policy{Mode: ModeNever}}} {
			s.requests.reset()
			if f := factsOf(d, settings); f.Elsewhere != nil || len(s.requests.calls) != 0 {
				t.Errorf("%+v: %v", f, s.requests.calls)
			}
		}
		s.requests.reset()
		if f := factsOf(d, DrainSettings{Policy: auto.Policy}); f.Elsewhere != nil || len(s.requests.calls) != 1 {
			t.Errorf("without downtimes: %+v, %v", f, s.requests.calls)
		}
	})
	t.Run("a kubelet that ends pods at shutdown is known, and so is that it cannot be asked", func(t *testing.T) {
		for _, tc := range []struct {
			ends bool
			err  error
			want string
		}{{want: ""}, {ends: true, want: "shutdownGracePeriod"}, {err: errors.New("no bus"), want: "not known: no bus"}} {
			d.endsPods = func(context.Context) (bool, error) { return tc.ends, tc.err }
			got, err := d.facts(t.Context(), pods, DrainSettings{})
			if !strings.Contains(got.Ends, tc.want) || (tc.want == "") != (got.Ends == "") || !errors.Is(err, tc.err) {
				t.Errorf("%+v: %q, %v", tc, got.Ends, err)
			}
		}
	})
}

func TestVolumesAreAwaited(t *testing.T) {
	const driver = "example.com"
	name := func(handle string) corev1.UniqueVolumeName {
		return corev1.UniqueVolumeName(fmt.Sprintf("kubernetes.io/csi/%s^%s", driver, handle))
	}
	csi := func(handle string) corev1.PersistentVolumeSource {
		return corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: handle}}
	}
	// A node with two pods that go, and one that stays with the volume that it shares with one of them.
	set := func(t *testing.T) (*scene, func(inUse, attached []corev1.UniqueVolumeName)) {
		t.Helper()
		s := newScene(t)
		for _, handle := range []string{"a", "b", "shared"} {
			s.volume(handle, csi(handle), "")
		}
		s.pod("web-0", claimed("a"))
		s.pod("web-1", claimed("b"))
		s.pod("web-2", claimed("shared"))
		s.pod("stays", claimed("shared"), says(DoRideThrough))
		status := func(inUse, attached []corev1.UniqueVolumeName) {
			err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
				n, err := s.admin.CoreV1().Nodes().Get(t.Context(), s.node, metav1.GetOptions{})
				if err != nil {
					return err
				}
				n.Status.VolumesInUse, n.Status.VolumesAttached = inUse, nil
				for _, v := range attached {
					n.Status.VolumesAttached = append(n.Status.VolumesAttached, corev1.AttachedVolume{Name: v})
				}
				_, err = s.admin.CoreV1().Nodes().UpdateStatus(t.Context(), n, metav1.UpdateOptions{})
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
		all := []corev1.UniqueVolumeName{name("a"), name("b"), name("shared")}
		status(all, all)
		return s, status
	}
	const left = "waits until these volumes are off the node: "
	for how, follow := range map[string]func(*testing.T, *scene) *Client{
		"as the drain's own watch shows": func(*testing.T, *scene) *Client { return nil },
		"as the agent's watch shows":     func(t *testing.T, s *scene) *Client { t.Helper(); return s.watched(t) },
	} {
		t.Run("until the node's status names none of a pod that has ended, "+how, func(t *testing.T) {
			s, status := set(t)
			var kubelet sync.WaitGroup
			var views []DrainView
			d, err := NewDrainer(DrainerConfig{Clientset: s.clientset, Node: s.node, Follow: follow(t, s)})
			if err != nil {
				t.Fatal(err)
			}
			err = d.Run(t.Context(), DrainSettings{Volumes: time.Minute}, func(v DrainView) {
				views = append(views, v)
				if v.Reason != ReasonVolume {
					return
				}
				switch {
				case strings.Contains(v.Message, "^a, "):
					kubelet.Go(func() {
						status([]corev1.UniqueVolumeName{name("shared")}, []corev1.UniqueVolumeName{name("b"), name("shared")})
					})
				case strings.Contains(v.Message, "^b"):
					kubelet.Go(func() {
						status([]corev1.UniqueVolumeName{name("shared")}, []corev1.UniqueVolumeName{name("shared")})
					})
				}
			})
			kubelet.Wait()
			if err != nil {
				t.Fatal(err)
			}
			var said []string
			for _, v := range views {
				if v.Reason == ReasonVolume {
					said = append(said, v.Message)
				}
			}
			want := []string{left + string(name("a")) + ", " + string(name("b")), left + string(name("b"))}
			if last := views[len(views)-1]; cmp.Diff(want, said) != "" || last.Summary != "3 pods evicted, 1 stay" {
				t.Errorf("said %q, last %+v", said, last)
			}
		})
	}
	// What the attach/detach controller makes for a volume that is to be on the node, and deletes when it is off.
	attachment := func(s *scene, handle string) string {
		t.Helper()
		volume := s.ns + "-" + handle
		va := &storagev1.VolumeAttachment{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("csi-%x", sha256.Sum256([]byte(handle+driver+s.node)))},
			Spec:       storagev1.VolumeAttachmentSpec{Attacher: driver, NodeName: s.node, Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &volume}},
		}
		if _, err := s.admin.StorageV1().VolumeAttachments().Create(t.Context(), va, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		return va.Name
	}
	detach := func(s *scene, name string) {
		if err := s.admin.StorageV1().VolumeAttachments().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	}
	// off drains the scene's node; the Node names only the volume that stays as soon as it is waited for, and then is called, if ever,
	// when a is the one that is still waited for. It returns what was said.
	off := func(s *scene, status func(inUse, attached []corev1.UniqueVolumeName), settings DrainSettings, c kube.Interface, then func()) (said []string, last DrainView) {
		t.Helper()
		var cluster sync.WaitGroup
		d, err := NewDrainer(DrainerConfig{Clientset: c, Cluster: s.clientset, Node: s.node})
		if err != nil {
			t.Fatal(err)
		}
		err = d.Run(t.Context(), settings, func(v DrainView) {
			last = v
			if v.Reason != ReasonVolume {
				return
			}
			said = append(said, v.Message)
			switch {
			case strings.HasSuffix(v.Message, "^b"):
				shared := []corev1.UniqueVolumeName{name("shared")}
				cluster.Go(func() { status(shared, shared) })
			case strings.HasSuffix(v.Message, "^a"):
				cluster.Go(then)
			}
		})
		cluster.Wait()
		if err != nil {
			t.Fatal(err)
		}
		return said, last
	}
	both, one := left+string(name("a"))+", "+string(name("b")), left+string(name("a"))
	t.Run("and there is no VolumeAttachment for them any more", func(t *testing.T) {
		s, status := set(t)
		va := attachment(s, "a")
		attachment(s, "shared")
		said, last := off(s, status, DrainSettings{Volumes: time.Minute}, s.clientset, func() { detach(s, va) })
		if diff := cmp.Diff([]string{both, one}, said); diff != "" || last.Summary != "3 pods evicted, 1 stay" {
			t.Errorf("%s%+v", diff, last)
		}
	})
	t.Run("no longer for those either, and then they are named", func(t *testing.T) {
		s, status := set(t)
		attachment(s, "a")
		_, last := off(s, status, DrainSettings{Volumes: 2 * time.Second}, s.clientset, func() {})
		if want := "3 pods evicted, 1 stay, still attached: " + string(name("a")); last.Summary != want {
			t.Errorf("said %q", last.Summary)
		}
	})
	attachments := rbacv1.PolicyRule{APIGroups: []string{"storage.k8s.io"}, Resources: []string{"volumeattachments"}, Verbs: []string{"impersonate-on:associated-node:get"}}
	volumes := rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"persistentvolumeclaims", "persistentvolumes"}, Verbs: []string{"impersonate-on:associated-node:get"}}
	for name, tc := range map[string]struct {
		rules []rbacv1.PolicyRule
		want  []string
	}{
		"an agent that acts as its node reads its own": {append(ownNodeRules(), volumes, attachments), []string{both, one}},
		"one that may not read them does not wait":     {append(ownNodeRules(), volumes), []string{both}},
	} {
		t.Run(name, func(t *testing.T) {
			s, status := set(t)
			va := attachment(s, "a")
			own, _ := connect(t, OwnNodeConfig(s.agent(tc.rules...), s.node))
			permitted(t, own, s.node)
			said, last := off(s, status, DrainSettings{Volumes: time.Minute}, own, func() { detach(s, va) })
			if diff := cmp.Diff(tc.want, said); diff != "" || !last.Empty || strings.Contains(last.Summary, "still") {
				t.Errorf("%s%+v", diff, last)
			}
		})
	}
	t.Run("a node without such volumes is not asked about", func(t *testing.T) {
		s := newScene(t)
		s.pod("web-0")
		s.requests.reset()
		if err := s.drainer(s.clientset).Run(t.Context(), DrainSettings{Volumes: time.Minute}, func(DrainView) {}); err != nil {
			t.Fatal(err)
		}
		if n := s.requests.count("volumeattachments"); n != 0 {
			t.Errorf("%d requests for VolumeAttachments", n)
		}
	})
	t.Run("a drain that has no time for them looks once, and names them", func(t *testing.T) {
		s, _ := set(t)
		s.requests.reset()
		var last DrainView
		late := DrainSettings{Volumes: time.Minute, Begun: time.Now().Add(-time.Hour), Timeout: time.Hour + 4*time.Second}
		if err := s.drainer(s.clientset).Run(t.Context(), late, func(v DrainView) { last = v }); err != nil {
			t.Fatal(err)
		}
		want := "3 pods evicted, 1 stay, still attached: " + string(name("a")) + ", " + string(name("b"))
		if n := s.requests.count("/nodes"); last.Summary != want || n != 1 {
			t.Errorf("said %q after %d looks at the Node", last.Summary, n)
		}
		s.requests.reset()
		late.Begun = time.Now().Add(-time.Hour)
		d, err := NewDrainer(DrainerConfig{Clientset: s.clientset, Node: s.node, Follow: s.client()})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Run(t.Context(), late, func(v DrainView) { last = v }); err != nil || !strings.HasSuffix(last.Summary, notKnown) {
			t.Errorf("of a Node that is not known it says %q, and ends with %v", last.Summary, err)
		}
	})
	following := func(t *testing.T, s *scene, c *Client) string {
		t.Helper()
		d, err := NewDrainer(DrainerConfig{Clientset: s.clientset, Node: s.node, Follow: c})
		if err != nil {
			t.Fatal(err)
		}
		var last DrainView
		if err := d.Run(t.Context(), DrainSettings{Volumes: time.Second}, func(v DrainView) { last = v }); err != nil {
			t.Fatal(err)
		}
		return last.Summary
	}
	t.Run("by what the cordon brought, not by what a watch shows late from before it", func(t *testing.T) {
		s := newScene(t)
		c := s.client()
		empty := s.view(c)
		old, err := s.admin.CoreV1().Nodes().Get(t.Context(), s.node, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		n := old.DeepCopy()
		n.Status.VolumesAttached = []corev1.AttachedVolume{{Name: name("late")}}
		if n, err = s.admin.CoreV1().Nodes().UpdateStatus(t.Context(), n, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		empty.ResourceVersion = n.ResourceVersion // the agent has decided again, on a version that it does not show here
		if _, err := c.Patch(t.Context(), empty, Change{Unschedulable: ptr(true)}); err != nil {
			t.Fatal(err)
		}
		c.saw(old)
		if said, want := following(t, s, c), "0 pods evicted, still attached: "+string(name("late")); said != want {
			t.Errorf("said %q, want %q", said, want)
		}
	})
	t.Run("of a Node that is not known, or not any more, it is said that it is not known", func(t *testing.T) {
		s := newScene(t)
		const want = "0 pods evicted, still attached: which is not known"
		if said := following(t, s, s.client()); said != want {
			t.Errorf("without a watch: %q", said)
		}
		c := s.watched(t)
		_, news := c.latest()
		if err := s.admin.CoreV1().Nodes().Delete(t.Context(), s.node, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		<-news
		if said := following(t, s, c); said != want {
			t.Errorf("after the end of the Node: %q", said)
		}
		if said := following(t, s, nil); said != want {
			t.Errorf("with a watch of its own: %q", said)
		}
	})
	t.Run("no longer than the setting, and then they are named", func(t *testing.T) {
		s, _ := set(t)
		var last DrainView
		if err := s.drainer(s.clientset).Run(t.Context(), DrainSettings{Volumes: time.Second}, func(v DrainView) { last = v }); err != nil {
			t.Fatal(err)
		}
		if want := "3 pods evicted, 1 stay, still attached: " + string(name("a")) + ", " + string(name("b")); last.Summary != want {
			t.Errorf("said %q", last.Summary)
		}
	})
}

func TestVolumesAreNotAwaitedToTheEndOfTheDrain(t *testing.T) {
	begun := time.Unix(1000, 0)
	s := DrainSettings{Begun: begun, Timeout: 15 * time.Minute, Volumes: time.Minute}
	for after, want := range map[time.Duration]time.Duration{0: time.Minute, 14 * time.Minute: 15*time.Minute - beforeDeadline} {
		if got := s.volumesUntil(begun.Add(after)).Sub(begun); got != want {
			t.Errorf("from %s on they are awaited until %s, want %s", after, got, want)
		}
	}
}
