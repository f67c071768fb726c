package e2e

import (
	"context"
	"errors"
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
func slotDeleted(ctx context.Context, w *world) error {
	const first, second = "n1", "n2"
	_, release, err := w.stuck(ctx, first)
	if err != nil {
		return err
	}
	if err := w.raise(first); err != nil {
		return err
	}
	draining, err := w.phase(ctx, first, observe.Draining)
	if err != nil {
		return err
	}
	held, err := recordOf(draining)
	if err != nil {
		return err
	}
	if err := w.raise(second); err != nil {
		return err
	}
	if _, err := w.phase(ctx, second, observe.Waiting); err != nil {
		return err
	}
	if err := w.client.CoordinationV1().Leases(batonSpace).Delete(ctx, held.Slot, metav1.DeleteOptions{}); err != nil {
		return err
	}
	deleting, err := w.next(ctx, draining, held.Slot+" to be marked for deletion", func(e observe.Event) bool {
		return e.Slot != nil && e.Slot.Name == held.Slot && (e.Slot.Deleting || !e.Slot.Exists)
	})
	if err != nil {
		return err
	}
	if !slotOf(first)(deleting) {
		return fmt.Errorf("the slot that %s holds vanished: %+v", first, *deleting.Slot)
	}
	if err := w.never(ctx, deleting, 5*time.Second, "the slot was lost, or the next node went", func(e observe.Event) bool {
		return slotFreed(held.Slot, first)(e) || slotOf(second)(e) || untouched(second)(e)
	}); err != nil {
		return err
	}
	if err := errors.Join(release(ctx), w.home(ctx, first, second)); err != nil {
		return err
	}
	return w.rebooted(first, second)
}

// nodeDeleted: somebody deletes the Node of n4 while n4 drains, and n1 waits for the slot.
func nodeDeleted(ctx context.Context, w *world) error {
	const gone, next = "n4", "n1"
	_, release, err := w.stuck(ctx, gone)
	if err != nil {
		return err
	}
	if err := w.raise(gone); err != nil {
		return err
	}
	draining, err := w.phase(ctx, gone, observe.Draining)
	if err != nil {
		return err
	}
	held, err := recordOf(draining)
	if err != nil {
		return err
	}
	if err := w.raise(next); err != nil {
		return err
	}
	if _, err := w.phase(ctx, next, observe.Waiting); err != nil {
		return err
	}
	if err := w.client.CoreV1().Nodes().Delete(ctx, gone, metav1.DeleteOptions{}); err != nil {
		return err
	}
	deleted, err := w.next(ctx, draining, "Node "+gone+" to be gone", func(e observe.Event) bool { return e.Node != nil && e.Node.Name == gone && !e.Node.Exists })
	if err != nil {
		return err
	}
	if err := release(ctx); err != nil { // from here on an eviction would succeed
		return err
	}
	freed, err := w.next(ctx, deleted, held.Slot+" to be freed", slotFreed(held.Slot, gone))
	if err != nil {
		return err
	}
	took := freed.Time.Sub(deleted.Time)
	w.note("deletedGrace %s, freed after %.1f s", deletedGrace, took.Seconds())
	if took < deletedGrace || took > deletedGrace+5*time.Second {
		return fmt.Errorf("the slot was freed %.1f s after the Node was deleted; want %s to %s", took.Seconds(), deletedGrace, deletedGrace+5*time.Second)
	}
	if err := errors.Join(w.home(ctx, next), w.rebooted(next)); err != nil {
		return err
	}
	evictions, err := audit.Evictions(w.c.AuditLog(), deleted.Time, time.Time{})
	if err != nil {
		return err
	}
	for _, e := range evictions {
		// An eviction that was under way when the Node went is forgiven; one that succeeded is not.
		if e.Caller.Node == gone && (e.Code < 300 || e.Time.After(deleted.Time.Add(time.Second))) {
			return fmt.Errorf("the agent of %s asked to evict %s/%s %.1f s after its Node was deleted, and got %d", gone, e.Namespace, e.Pod, e.Time.Sub(deleted.Time).Seconds(), e.Code)
		}
	}
	return nil
}

// as is a client with a token instead of the administrator's certificate; impersonate "" is nobody.
func (w *world) as(token, impersonate string) (kubernetes.Interface, error) {
	admin, err := w.c.RestConfig()
	if err != nil {
		return nil, err
	}
	config := rest.AnonymousClientConfig(admin)
	config.BearerToken, config.Impersonate.UserName = token, impersonate
	return kubernetes.NewForConfig(config)
}

// tokenOfAnother takes the token from the file of the agent's pod on n1, and one by TokenRequest bound to that pod.
func tokenOfAnother(ctx context.Context, w *world) error {
	const own, other = "n1", "n2"
	pid, err := w.c.Process(own, agentProgram)
	if err != nil {
		return err
	}
	file, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/var/run/secrets/kubernetes.io/serviceaccount/token", pid))
	if err != nil {
		return fmt.Errorf("taking the token of the agent of %s: %w", own, err)
	}
	pods, err := w.client.CoreV1().Pods(batonSpace).List(ctx, metav1.ListOptions{LabelSelector: agentLabel, FieldSelector: "spec.nodeName=" + own})
	if err != nil {
		return err
	}
	if len(pods.Items) != 1 {
		return fmt.Errorf("%s has %d pods of the agent, want one", own, len(pods.Items))
	}
	bound, err := w.token(ctx, &pods.Items[0])
	if err != nil {
		return err
	}
	unbound, err := w.token(ctx, nil)
	if err != nil {
		return err
	}
	return errors.Join(
		w.bears(ctx, "the token of its file", strings.TrimSpace(string(file)), own, other),
		w.bears(ctx, "a token bound to its pod", bound, own, other),
		w.refuses(ctx, "a token bound to nothing", unbound, own),
	)
}

// token asks for a token of the agents' account, bound to a pod or to nothing.
func (w *world) token(ctx context.Context, pod *corev1.Pod) (string, error) {
	r := &authenticationv1.TokenRequest{}
	if pod != nil {
		r.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}
	}
	r, err := w.client.CoreV1().ServiceAccounts(batonSpace).CreateToken(ctx, "baton-agent", r, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("asking for a token: %w", err)
	}
	return r.Status.Token, nil
}

// bears fails unless a token writes its own node, and neither writes another nor reads or evicts the pods there.
func (w *world) bears(ctx context.Context, what, token, own, other string) error {
	client, err := w.as(token, "")
	if err != nil {
		return err
	}
	n, err := w.client.CoreV1().Nodes().Get(ctx, own, metav1.GetOptions{})
	if err != nil {
		return err
	}
	history := n.Annotations[historyKey]
	write := func(value any) error {
		return w.patchNode(ctx, client, own, map[string]any{"metadata": map[string]any{"annotations": map[string]any{historyKey: value}}})
	}
	if err := write(history + " "); err != nil {
		return fmt.Errorf("%s does not write its own node: %w", what, err)
	}
	restore := any(history)
	if history == "" {
		restore = nil
	}
	if err := write(restore); err != nil {
		return fmt.Errorf("%s does not write its own node: %w", what, err)
	}
	if err := w.refuses(ctx, what, token, other); err != nil {
		return err
	}
	for _, node := range []string{own, other} {
		acting, err := w.as(token, "system:node:"+node)
		if err != nil {
			return err
		}
		_, err = acting.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + node})
		if node == own && err != nil {
			return fmt.Errorf("%s does not read the pods of its own node: %w", what, err)
		}
		if node == other && !apierrors.IsForbidden(err) {
			return fmt.Errorf("%s acts as node %s: the answer is %v", what, other, err) //nolint:errorlint // it may be nil
		}
	}
	return nil
}

// refuses fails unless the policy refuses every write of this node with the token.
func (w *world) refuses(ctx context.Context, what, token, node string) error {
	client, err := w.as(token, "")
	if err != nil {
		return err
	}
	for name, change := range map[string]any{
		"the record": map[string]any{"metadata": map[string]any{"annotations": map[string]any{recordKey: "{}"}}},
		"a cordon":   map[string]any{"spec": map[string]any{"unschedulable": true}},
		"the phase":  map[string]any{"metadata": map[string]any{"labels": map[string]any{phaseKey: "waiting"}}},
	} {
		err := w.patchNode(ctx, client, node, change)
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "baton-node") {
			return fmt.Errorf("%s writes %s of node %s: the answer is %v, want a refusal by policy baton-node", what, name, node, err) //nolint:errorlint // it may be nil
		}
	}
	return nil
}
