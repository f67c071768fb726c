package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"kubebaton.io/baton/agent"
)

// patience bounds every wait for something that must happen.
const patience = 2 * time.Minute

// site is what one trace has for itself: a namespace, a group, its nodes with their hosts and agents, and a judge.
type site struct {
	*testing.T
	name  string // of the namespace and of the group; the nodes' names begin with it
	api   kubernetes.Interface
	hosts []*machine
	judge *judge
	conf  string // the configuration file, the same for all its agents
	pods  int    // that a kubelet may have to end
}

// newSite makes a site of some nodes, of which so many may be down at once. Their hosts are up, and no agent runs.
func newSite(t *testing.T, name string, nodes, limit int) *site {
	t.Helper()
	client, err := kubernetes.NewForConfig(server.Config)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{T: t, name: name + "-" + strings.ToLower(rand.Text()[:6]), api: client, conf: filepath.Join(t.TempDir(), "config.yaml")}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.name}}
	if _, err := client.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.judge = newJudge(t, client, s.name, limit)
	s.configure(limit)
	for i := range nodes {
		s.hosts = append(s.hosts, newMachine(s, fmt.Sprintf("%s-%d", s.name, i)))
	}
	return s
}

// dir makes a directory for a host. Its path is short, because a socket's has to be.
func (s *site) dir() string {
	s.Helper()
	dir, err := os.MkdirTemp(hostsDir, "")
	if err != nil {
		s.Fatal(err)
	}
	return dir
}

// configure writes the configuration file: as short as its bounds allow where a trace waits for a time to pass, and long
// where it must not.
func (s *site) configure(limit int) {
	s.Helper()
	text := fmt.Sprintf(`apiVersion: kubebaton.io/v1alpha1
kind: RebootConfiguration
sentinels: {recheckInterval: 10s}
gateInterval: 10s
groups: [{name: %[1]s, nodeSelector: {matchLabels: {%[2]s: %[1]s}}, maxUnavailable: %[3]d}]
drain: {timeout: 10m}
verify: {timeout: 10m}
backoff: {initial: 1s, max: 4s}
deletedGrace: 1s
nominationTimeout: 10s
`, s.name, labelGroup, limit)
	write(s.T, s.conf, text)
}

// until waits until what is true. Hosts whose reboot was accepted reboot meanwhile, and their kubelets do their work.
func (s *site) until(what string, is func() bool) {
	s.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, m := range s.hosts {
			m.tend()
		}
		if is() {
			return
		}
		select {
		case <-s.judge.news:
		case <-tick.C:
		case <-deadline:
			s.Fatalf("not so after %s: %s", patience, what)
		}
	}
}

// end waits until everything is settled and hears the judge.
func (s *site) end() *history {
	s.Helper()
	s.until("everything is settled", s.judge.settled)
	return s.verdict()
}

// verdict hears the judge about everything up to now.
func (s *site) verdict() *history {
	s.Helper()
	meta := metav1.ObjectMeta{Name: endName}
	_, err := s.api.CoreV1().ConfigMaps(s.name).Create(s.Context(), &corev1.ConfigMap{ObjectMeta: meta}, metav1.CreateOptions{})
	if err == nil {
		_, err = s.api.CoordinationV1().Leases(s.name).Create(s.Context(), &coordinationv1.Lease{ObjectMeta: meta}, metav1.CreateOptions{})
	}
	meta = metav1.ObjectMeta{Name: s.name + "-" + endName, Labels: map[string]string{labelSite: s.name}}
	if err == nil {
		_, err = s.api.CoreV1().Nodes().Create(s.Context(), &corev1.Node{ObjectMeta: meta}, metav1.CreateOptions{})
	}
	if err != nil {
		s.Fatal(err)
	}
	s.until("the judge has seen everything", s.judge.complete)
	return s.judge.verdict()
}

// slot is the name of slot i.
func (s *site) slot(i int) string { return fmt.Sprintf("slot-%s-%d", s.name, i) }

// allow says to the judge how many nodes may be down from now on.
func (s *site) allow(limit int) {
	s.Helper()
	s.note(limitName, map[string]string{limitName: fmt.Sprint(limit)})
}

// note writes a ConfigMap.
func (s *site) note(name string, data map[string]string) {
	s.Helper()
	if err := s.write(name, data); err != nil {
		s.Fatal(err)
	}
}

func (s *site) write(name string, data map[string]string) error {
	body, err := json.Marshal(&corev1.ConfigMap{
		TypeMeta: metav1.TypeMeta{Kind: "ConfigMap", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data,
	})
	if err == nil {
		force := true
		_, err = s.api.CoreV1().ConfigMaps(s.name).Patch(s.Context(), name, types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: "test", Force: &force})
	}
	return err
}

// person patches a Node as a person does, without a resourceVersion.
func (s *site) person(did, node, patch string) {
	s.Helper()
	n, err := s.api.CoreV1().Nodes().Patch(s.Context(), node, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		s.Fatal(err)
	}
	s.judge.person(n, did)
}

func (s *site) cordon(node string) {
	s.Helper()
	s.person("a person cordons", node, `{"spec":{"unschedulable":true}}`)
}

func (s *site) uncordon(node string) {
	s.Helper()
	s.person("a person uncordons", node, `{"spec":{"unschedulable":false}}`)
}

// annotate sets an annotation on a Node; "" removes it.
func (s *site) annotate(node, key, value string) {
	s.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		s.Fatal(err)
	}
	if value == "" {
		text = []byte("null")
	}
	s.person(fmt.Sprintf("a person writes %s: %q", key, value), node, fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, key, text))
}

// record is the record of a node, as the judge has last seen it; the zero value when there is none.
func (s *site) record(node string) (r agent.Record) {
	if n := s.judge.node(node); n != nil {
		_ = json.Unmarshal([]byte(n.Annotations["kubebaton.io/reboot"]), &r) // rubbish is no record
	}
	return r
}

// in makes a condition: the node's record is in that phase.
func (s *site) in(node string, phase agent.Phase) func() bool {
	return func() bool { return s.record(node).Phase == phase }
}

// holds makes a condition: the slot is held by that node; "" by nobody.
func (s *site) holds(slot, node string) func() bool {
	return func() bool { return s.judge.holder(slot) == node }
}

// told tells whether an Event on the node says so.
func (s *site) told(node, reason, text string) bool {
	s.Helper()
	return told(s.T, s.api, node, reason, text)
}

// pod puts a pod with a controller on a node.
func (s *site) pod(node, name string) {
	s.Helper()
	yes := true
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, OwnerReferences: []metav1.OwnerReference{{
			APIVersion: "apps/v1", Kind: "ReplicaSet", Name: name, UID: types.UID(rand.Text()), Controller: &yes,
		}}},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "none"}}},
	}
	if _, err := s.api.CoreV1().Pods(s.name).Create(s.Context(), p, metav1.CreateOptions{}); err != nil {
		s.Fatal(err)
	}
	s.pods++
}
