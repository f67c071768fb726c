package e2e

import (
	"fmt"
	"os"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"kubebaton.io/baton/lab/audit"
	"kubebaton.io/baton/lab/observe"
)

// slotDeleted: n1 drains, n2 waits for the slot, and somebody deletes the Lease.
func slotDeleted(p *play) {
	draining, release := p.draining(n1)
	slot := draining.record.Slot
	p.bring(n2, observe.Waiting)
	p.must(p.client.CoordinationV1().Leases(batonSpace).Delete(p.ctx, slot, metav1.DeleteOptions{}))
	deleting := p.then(draining, is{slot + " is marked for deletion", func(e observe.Event) bool {
		return e.Slot != nil && e.Slot.Name == slot && (e.Slot.Deleting || !e.Slot.Exists)
	}})
	if !deleting.Slot.Exists || deleting.Slot.Holder != n1 {
		p.failf("the slot that %s holds vanished: %+v", n1, *deleting.Slot)
	}
	p.never(deleting, 5*time.Second, lost(draining))
	p.not(deleting, goes(n2))
	release()
	p.home(n1, n2)
}

// nodeDeleted: somebody deletes the Node of n4 while n4 drains, and n1 waits for the slot.
func nodeDeleted(p *play) {
	draining, release := p.draining(n4)
	p.bring(n1, observe.Waiting)
	p.must(p.client.CoreV1().Nodes().Delete(p.ctx, n4, metav1.DeleteOptions{}))
	deleted := p.then(draining, gone(n4))
	release() // from here on an eviction would succeed
	took := p.then(deleted, freed(draining)).Time.Sub(deleted.Time)
	p.note("deletedGrace %s, freed after %.1f s", deletedGrace, took.Seconds())
	if took < deletedGrace || took > deletedGrace+5*time.Second {
		p.failf("the slot was freed %.1f s after the Node was deleted; want %s to %s", took.Seconds(), deletedGrace, deletedGrace+5*time.Second)
	}
	p.home(n1)
	evictions, err := audit.Evictions(p.c.AuditLog(), deleted.Time, time.Time{})
	p.must(err)
	for _, e := range evictions {
		// An eviction that was under way when the Node went is forgiven; one that succeeded is not.
		if e.Caller.Node == n4 && (e.Code < 300 || e.Time.After(deleted.Time.Add(time.Second))) {
			p.failf("the agent of %s asked to evict %s/%s %.1f s after its Node was deleted, and got %d", n4, e.Namespace, e.Pod, e.Time.Sub(deleted.Time).Seconds(), e.Code)
		}
	}
}

// as is a client with a token instead of the administrator's certificate; impersonate "" is nobody.
func (p *play) as(token, impersonate string) kubernetes.Interface {
	admin, err := p.c.RestConfig()
	p.must(err)
	config := rest.AnonymousClientConfig(admin)
	config.BearerToken, config.Impersonate.UserName = token, impersonate
	client, err := kubernetes.NewForConfig(config)
	p.must(err)
	return client
}

// tokenOfAnother takes the token from the file of the agent's pod on n1, and one by TokenRequest bound to that pod.
func tokenOfAnother(p *play) {
	pid, err := p.c.Process(n1, agentProgram)
	p.must(err)
	file, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/var/run/secrets/kubernetes.io/serviceaccount/token", pid))
	p.must(err)
	p.bears("the token of its file", strings.TrimSpace(string(file)), n1, n2)
	p.bears("a token bound to its pod", p.token(p.agentOf(n1)), n1, n2)
	p.refuses("a token bound to nothing", p.token(nil), n1)
}

// agentOf is the pod of a node's agent.
func (p *play) agentOf(node string) *corev1.Pod {
	pods, err := p.client.CoreV1().Pods(batonSpace).List(p.ctx, metav1.ListOptions{LabelSelector: agentLabel, FieldSelector: "spec.nodeName=" + node})
	p.must(err)
	if len(pods.Items) != 1 {
		p.failf("%s has %d pods of the agent, want one", node, len(pods.Items))
	}
	return &pods.Items[0]
}

// token asks for a token of the agents' account, bound to a pod or to nothing.
func (p *play) token(pod *corev1.Pod) string {
	r := &authenticationv1.TokenRequest{}
	if pod != nil {
		r.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}
	}
	r, err := p.client.CoreV1().ServiceAccounts(batonSpace).CreateToken(p.ctx, "baton-agent", r, metav1.CreateOptions{})
	p.must(err)
	return r.Status.Token
}

// bears fails unless a token writes its own node, and neither writes another nor reads or evicts the pods there.
func (p *play) bears(what, token, own, other string) {
	client := p.as(token, "")
	n, err := p.client.CoreV1().Nodes().Get(p.ctx, own, metav1.GetOptions{})
	p.must(err)
	restore, there := any(n.Annotations[historyKey]), n.Annotations[historyKey] != ""
	if !there {
		restore = nil
	}
	for _, value := range []any{n.Annotations[historyKey] + " ", restore} {
		if err := p.patchNode(p.ctx, client, own, annotation(historyKey, value)); err != nil {
			p.failf("%s does not write its own node: %w", what, err)
		}
	}
	p.refuses(what, token, other)
	for _, node := range []string{own, other} {
		_, err = p.as(token, "system:node:"+node).CoreV1().Pods("").List(p.ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + node})
		if node == own && err != nil {
			p.failf("%s does not read the pods of its own node: %w", what, err)
		}
		if node == other && !apierrors.IsForbidden(err) {
			p.failf("%s acts as node %s: the answer is %v", what, other, err)
		}
	}
}

// refuses fails unless the policy refuses every write of this node with the token.
func (p *play) refuses(what, token, node string) {
	client := p.as(token, "")
	for name, change := range map[string]any{
		"the record": annotation(recordKey, "{}"),
		"a cordon":   map[string]any{"spec": map[string]any{"unschedulable": true}},
		"the phase":  map[string]any{"metadata": map[string]any{"labels": map[string]any{phaseKey: "waiting"}}},
	} {
		err := p.patchNode(p.ctx, client, node, change)
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "baton-node") {
			p.failf("%s writes %s of node %s: the answer is %v, want a refusal by policy baton-node", what, name, node, err)
		}
	}
}
