package wire

import (
	"context"
	"errors"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"kubebaton.io/baton/agent"
	"kubebaton.io/baton/host"
	"kubebaton.io/baton/lock"
	"kubebaton.io/baton/marshal"
	"kubebaton.io/baton/node"
)

// What an error of a write means decides whether the next write is a fence.
func TestOutcome(t *testing.T) {
	leases := schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}
	for _, tt := range []struct {
		name string
		err  error
		want error
	}{
		{"a conflict took no effect", apierrors.NewConflict(leases, "slot-workers-0", errors.New("changed")), agent.ErrConflict},
		{"another UID is a conflict", apierrors.NewInvalid(schema.GroupKind{Kind: "Node"}, "n1", nil), agent.ErrConflict},
		{"a slot that is held by another is a conflict", lock.ErrHeld, agent.ErrConflict},
		{"an object that is gone is gone", apierrors.NewNotFound(leases, "slot-workers-0"), agent.ErrGone},
		{"a time-out may have taken effect", apierrors.NewTimeoutError("slow", 1), agent.ErrUnknown},
		{"a server error may have taken effect", apierrors.NewInternalError(errors.New("etcd")), agent.ErrUnknown},
		{"a lost connection may have taken effect", errors.New("connection reset by peer"), agent.ErrUnknown},
		{"an ended context may have taken effect", context.DeadlineExceeded, agent.ErrUnknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := outcome(tt.err); !errors.Is(got, tt.want) || !errors.Is(got, tt.err) {
				t.Errorf("outcome is %v", got)
			}
		})
	}
	for _, err := range []error{
		apierrors.NewForbidden(leases, "slot-workers-0", errors.New("policy")),
		apierrors.NewTooManyRequests("busy", 1),
	} {
		if got := outcome(err); errors.Is(got, agent.ErrUnknown) || errors.Is(got, agent.ErrConflict) {
			t.Errorf("a refusal took no effect and is none of these: %v", got)
		}
	}
	if outcome(nil) != nil {
		t.Error("no error has an outcome")
	}
}

// A record that the agent writes and the marshal does not understand would be left alone for ever.
func TestTheMarshalUnderstandsTheRecordsThatTheAgentWrites(t *testing.T) {
	if agent.RecordVersion != marshal.RecordVersion {
		t.Errorf("the agent writes version %d, the marshal reads %d", agent.RecordVersion, marshal.RecordVersion)
	}
}

// A stage that the host does not know has no hooks there: they would be skipped without a word. A word for success that the agent
// does not know is a failure.
func TestTheAgentAndTheHostHaveTheSameWordsForHooks(t *testing.T) {
	for _, of := range []struct{ agent, host string }{
		{agent.PreDrain, host.PreDrain},
		{agent.PreReboot, host.PreReboot},
		{agent.PostReboot, host.PostReboot},
		{agent.HookSucceeded, host.HookSucceeded},
	} {
		if of.agent != of.host {
			t.Errorf("the agent says %q, the host %q", of.agent, of.host)
		}
	}
}

// A word of the drain that the cycle does not know would be shown as another.
func TestWhateverHoldsADrainUpIsAReasonOfTheCycle(t *testing.T) {
	for _, word := range []string{
		node.ReasonUnmanagedPod, node.ReasonPodAnnotation, node.ReasonRule, node.ReasonLocalVolume, node.ReasonEmptyDir, node.ReasonJob,
		node.ReasonAge, node.ReasonTerminating, node.ReasonBudget, node.ReasonEviction, node.ReasonVolume, node.ReasonLoadBalancer,
		node.ReasonOtherRebooter,
	} {
		if !agent.Reason(word).Known() {
			t.Errorf("%s is not known", word)
		}
	}
}
