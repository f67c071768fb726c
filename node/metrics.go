package node

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Results of an eviction request, the values of the label `result`.
const (
	resultAccepted  = "accepted"  // the pod is on its way
	resultGone      = "gone"      // it had gone before, or another pod has its name by now
	resultBudget    = "pdb"       // its disruption budget does not allow it now
	resultThrottled = "throttled" // the API server asked for patience
	resultRefused   = "refused"   // any other no: admission, terminating namespace, more than one budget
	resultError     = "error"     // no answer; it may have been accepted
)

// metrics are the drain's own figures.
type metrics struct{ evictions *prometheus.CounterVec }

// newMetrics registers them on r; a nil r leaves them unseen.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{evictions: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "baton_evictions_total",
		Help: "Eviction requests by what came of them: accepted, gone, pdb, throttled, refused, error.",
	}, []string{"result"})}
	for _, result := range []string{resultAccepted, resultGone, resultBudget, resultThrottled, resultRefused, resultError} {
		m.evictions.WithLabelValues(result)
	}
	if r == nil {
		return m, nil
	}
	if err := r.Register(m.evictions); err != nil {
		return nil, fmt.Errorf("registering the drain's metrics: %w", err)
	}
	return m, nil
}
