package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"kubebaton.io/baton/lab/observe"
)

// What people write, as docs/annotations.md has it.
const (
	holdKey        = "kubebaton.io/hold"
	acknowledgeKey = "kubebaton.io/acknowledge"
	pauseKey       = "kubebaton.io/pause"
	releaseKey     = "kubebaton.io/release"
	requestKey     = "kubebaton.io/request"

	marshalLease = "marshal"
)

// insist tries for a while: people type a command again when the API server does not answer.
func (r *run) insist(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		once, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := do(once)
		cancel()
		var said apierrors.APIStatus
		switch {
		case err == nil:
			return nil
		case errors.As(err, &said) && said.Status().Code < 500 && !apierrors.IsTooManyRequests(err):
			return err
		case !pause(ctx, 500*time.Millisecond):
			return err
		}
	}
}

func (r *run) patchNode(ctx context.Context, node string, change map[string]any) error {
	text, err := json.Marshal(change)
	if err != nil {
		return err
	}
	return r.insist(ctx, func(ctx context.Context) error {
		_, err := r.client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, text, metav1.PatchOptions{})
		return err
	})
}

// annotate sets an annotation of a Node; nil removes it.
func (r *run) annotate(ctx context.Context, node, key string, value any) error {
	return r.patchNode(ctx, node, map[string]any{"metadata": map[string]any{"annotations": map[string]any{key: value}}})
}

// errAlready is why a cordon, or its end, writes nothing.
var errAlready = errors.New("it is so already")

// setCordon is kubectl cordon and uncordon, which write nothing when it is so already. What is written says that it was us.
func (r *run) setCordon(ctx context.Context, node, who string, on bool) error {
	if n, ok := r.observer.Nodes()[node]; ok && n.Unschedulable == on {
		return errAlready
	}
	return r.patchNode(ctx, node, map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{observe.AnnotationBy: who}},
		"spec":     map[string]any{"unschedulable": on},
	})
}

// takeOff takes a cordon off, if there is one.
func (r *run) takeOff(ctx context.Context, node, who string) error {
	if err := r.setCordon(ctx, node, who, false); !errors.Is(err, errAlready) {
		return gone(err)
	}
	return nil
}

func (r *run) cordon(ctx context.Context, f Fault, node string) (string, func(context.Context) error, error) {
	err := r.setCordon(ctx, node, fmt.Sprintf("fault %d", f.Seq), true)
	if errors.Is(err, errAlready) {
		return "", nil, err // and it is somebody else's to take off
	}
	return fmt.Sprintf("for %s", f.For), func(ctx context.Context) error {
		return r.takeOff(ctx, node, fmt.Sprintf("end of fault %d", f.Seq))
	}, err
}

func (r *run) uncordon(ctx context.Context, f Fault, node string) (string, func(context.Context) error, error) {
	return "", nil, r.setCordon(ctx, node, fmt.Sprintf("fault %d", f.Seq), false)
}

// hold keeps the node where it is for a while, and cordoned if it came home meanwhile.
func (r *run) hold(ctx context.Context, f Fault, node string) (string, func(context.Context) error, error) {
	return fmt.Sprintf("for %s", f.For), func(ctx context.Context) error {
		if err := r.annotate(ctx, node, holdKey, nil); err != nil {
			return gone(err)
		}
		if slices.Contains(r.observer.Log().CordonedByPeople(), node) {
			return r.takeOff(ctx, node, fmt.Sprintf("end of fault %d", f.Seq))
		}
		return nil
	}, r.annotate(ctx, node, holdKey, "chaos")
}

// pauseAll stops all groups, or the one that there is.
func (r *run) pauseAll(ctx context.Context, f Fault, _ string) (string, func(context.Context) error, error) {
	key := pauseKey
	if f.Size%2 == 1 {
		key += ".workers"
	}
	end := func(ctx context.Context) error { return gone(r.annotateLease(ctx, marshalLease, key, nil)) }
	return fmt.Sprintf("%s for %s", key, f.For), end, r.annotateLease(ctx, marshalLease, key, "chaos")
}

func (r *run) annotateLease(ctx context.Context, lease, key string, value any) error {
	text, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{key: value}}})
	if err != nil {
		return err
	}
	return r.insist(ctx, func(ctx context.Context) error {
		_, err := r.client.CoordinationV1().Leases(observe.Namespace).Patch(ctx, lease, types.MergePatchType, text, metav1.PatchOptions{})
		return err
	})
}

// slotOf is the slot that the node holds, or one that another holds; any when nobody holds one and that will do.
func (r *run) slotOf(node string, anyWillDo bool) (string, error) {
	best := ""
	for name, s := range r.observer.Slots() {
		switch {
		case s.Holder == node:
			return name, nil
		case s.Holder != "", best == "" && anyWillDo:
			best = name
		}
	}
	if best == "" {
		return "", errors.New("no slot is held")
	}
	return best, nil
}

func (r *run) release(ctx context.Context, _ Fault, node string) (string, func(context.Context) error, error) {
	slot, err := r.slotOf(node, false)
	if err != nil {
		return "", nil, err
	}
	return slot, nil, r.annotateLease(ctx, slot, releaseKey, "chaos")
}

func (r *run) deleteSlot(ctx context.Context, _ Fault, node string) (string, func(context.Context) error, error) {
	slot, err := r.slotOf(node, true)
	if err != nil {
		return "", nil, err
	}
	return slot, nil, r.insist(ctx, func(ctx context.Context) error {
		return r.client.CoordinationV1().Leases(observe.Namespace).Delete(ctx, slot, metav1.DeleteOptions{})
	})
}

// closeBudget lets no pod of the workload go for a while.
func (r *run) closeBudget(ctx context.Context, f Fault, _ string) (string, func(context.Context) error, error) {
	set := func(ctx context.Context, n int) error {
		text := fmt.Sprintf(`{"spec":{"maxUnavailable":%d}}`, n)
		return r.insist(ctx, func(ctx context.Context) error {
			_, err := r.client.PolicyV1().PodDisruptionBudgets(space).Patch(ctx, blueName, types.MergePatchType, []byte(text), metav1.PatchOptions{})
			return err
		})
	}
	return fmt.Sprintf("for %s", f.For), func(ctx context.Context) error { return set(ctx, budget) }, set(ctx, 0)
}

func (r *run) acknowledge(ctx context.Context, _ Fault, node string) (string, func(context.Context) error, error) {
	return "", nil, r.annotate(ctx, node, acknowledgeKey, "chaos")
}

// gone forgives that there is nothing any more to take something off.
func gone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
