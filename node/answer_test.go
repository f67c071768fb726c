package node

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestClassify(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	// by is a refusal by a budget that is called web.
	by := func(err *apierrors.StatusError) error {
		if err.ErrStatus.Details == nil {
			err.ErrStatus.Details = &metav1.StatusDetails{}
		}
		err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: policyv1.DisruptionBudgetCause, Message: noRoom}}
		return err
	}
	const full = "needs 3 healthy pods and has 3 currently"
	two := "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
	status := func(code int32, message string) error {
		return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: code, Message: message}}
	}
	for _, tc := range []struct {
		name string
		err  error
		want answer
	}{
		{"accepted", nil, answer{result: resultAccepted}},
		{"429 of a budget", by(apierrors.NewTooManyRequests("no", 0)), answer{result: resultBudget, budget: "web", message: full}},
		{"429 of a budget whose status is behind", by(apierrors.NewTooManyRequests("no", 10)), answer{result: resultBudget, budget: "web", message: full, after: 10 * time.Second}},
		{"403 of a budget whose status is out of order", by(apierrors.NewForbidden(pods, "a", errors.New("no"))), answer{result: resultBudget, budget: "web", message: full}},
		{"429 of a server that has too much to do", apierrors.NewTooManyRequests("busy", 7), answer{result: resultThrottled, message: "busy", after: 7 * time.Second}},
		{"429 of a webhook", apierrors.NewTooManyRequests("it is moved", 0), answer{result: resultRefused, message: "it is moved"}},
		{"500 of two budgets", status(http.StatusInternalServerError, two), answer{
			result: resultRefused, after: severalBudgets, message: "more than one disruption budget covers it, which the API server does not support",
		}},
		{"500 of a webhook that is down", status(http.StatusInternalServerError, "failed calling webhook"), answer{result: resultRefused, message: "failed calling webhook"}},
		{"403 of admission", apierrors.NewForbidden(pods, "a", errors.New("not now")), answer{result: resultRefused, message: `pods "a" is forbidden: not now`}},
		{"404", apierrors.NewNotFound(pods, "a"), answer{result: resultGone, message: `pods "a" not found`}},
		{"409 of another UID", apierrors.NewConflict(pods, "a", errors.New("another")), answer{
			result: resultGone, message: `Operation cannot be fulfilled on pods "a": another`,
		}},
		{"503", status(http.StatusServiceUnavailable, "away"), answer{result: resultError, message: "away"}},
		{"504 of the server", apierrors.NewTimeoutError("it took too long", 0), answer{result: resultError, message: "Timeout: it took too long"}},
		{"504 of what stands before it", status(http.StatusGatewayTimeout, "it took too long"), answer{result: resultError, message: "it took too long"}},
		{"500 of a server whose store took too long", apierrors.NewServerTimeout(pods, "create", 2), answer{
			result: resultError, message: "The create operation against pods could not be completed at this time, please try again.", after: 2 * time.Second,
		}},
		{"no answer", errors.New("connection refused"), answer{result: resultError, message: "connection refused"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, classify(tc.err), cmp.AllowUnexported(answer{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}
