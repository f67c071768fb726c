package node

import (
	"errors"
	"net/http"
	"strings"
	"time"

	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// answer is what came of an eviction request.
type answer struct {
	result  string
	budget  string        // resultBudget: the budget's name, "" when it is not told
	message string        // why not
	after   time.Duration // the server's Retry-After, or the least delay that makes sense; 0 none
}

// severalBudgets is how long to leave a pod alone that more than one budget covers: only a person can change that.
const severalBudgets = 30 * time.Second

// classify reads the API server's answer.
func classify(err error) answer {
	if err == nil {
		return answer{result: resultAccepted}
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return answer{result: resultError, message: err.Error()}
	}
	a := answer{result: resultRefused, message: status.Status().Message}
	if s, ok := apierrors.SuggestsClientDelay(err); ok {
		a.after = time.Duration(s) * time.Second
	}
	// The cause comes with 429, and with 403 when the budget's own status is out of order.
	if cause, ok := apierrors.StatusCause(err, policyv1.DisruptionBudgetCause); ok {
		budget, message := parseBudget(cause.Message)
		return answer{result: resultBudget, budget: budget, message: message, after: a.after}
	}
	switch code := status.Status().Code; {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		a.result = resultGone
	case code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout, apierrors.IsTimeout(err), apierrors.IsServerTimeout(err):
		a.result = resultError // the server's trouble and not this pod's; it may have been accepted
	case apierrors.IsTooManyRequests(err) && a.after > 0:
		// The server's own limit always comes with Retry-After. A 429 without it is the word of an admission webhook
		// about this one pod; KubeVirt says so that it has begun to move the machine.
		a.result = resultThrottled
	case code == http.StatusInternalServerError && strings.Contains(a.message, "more than one PodDisruptionBudget"):
		a.after = severalBudgets
		a.message = "more than one disruption budget covers it, which the API server does not support"
	}
	return a
}

// parseBudget takes the budget's name from the sentence in which the API server tells it. All that it says since the
// cause exists begin with the same words; a name has no blanks.
func parseBudget(message string) (budget, rest string) {
	after, ok := strings.CutPrefix(message, "The disruption budget ")
	if !ok {
		return "", message
	}
	budget, rest, ok = strings.Cut(after, " ")
	if !ok {
		return "", message
	}
	return budget, rest
}
