package lock

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// metrics are of what this process does with slots. The state of the rollout is the marshal's to tell.
type metrics struct {
	requests  *prometheus.CounterVec // by verb and result
	heartbeat *prometheus.GaugeVec   // by slot
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "baton_slot_requests_total",
			Help: "Operations on slot Leases by verb and result: ok, refused (by this agent, nothing was written), " +
				"conflict (the slot had changed), missing, denied, unknown (no clear answer).",
		}, []string{"verb", "result"}),
		heartbeat: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "baton_slot_heartbeat_timestamp_seconds",
			Help: "When this node last wrote the slot that it holds; time() minus it is the age. Absent while it holds none.",
		}, []string{"slot"}),
	}
	if r == nil {
		return m, nil
	}
	var errs [2]error
	m.requests, errs[0] = register(r, m.requests)
	m.heartbeat, errs[1] = register(r, m.heartbeat)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("registering the metrics of slots: %w", err)
	}
	return m, nil
}

// register returns the collector that is there already when another Slots brought it.
func register[C prometheus.Collector](r prometheus.Registerer, c C) (C, error) {
	err := r.Register(c)
	if there := (prometheus.AlreadyRegisteredError{}); errors.As(err, &there) {
		if same, ok := there.ExistingCollector.(C); ok {
			return same, nil
		}
	}
	return c, err
}

func (m *metrics) count(verb string, err error) { m.requests.WithLabelValues(verb, result(err)).Inc() }

func (m *metrics) beat(sl Slot) {
	m.heartbeat.WithLabelValues(sl.Name).Set(float64(sl.Renewed.UnixMicro()) / 1e6)
}

func (m *metrics) rest(slot string) { m.heartbeat.DeleteLabelValues(slot) }

// heartbeats sets all that this node holds, so that a slot lost without its doing does not stay.
func (m *metrics) heartbeats(node string, slots []Slot) {
	m.heartbeat.Reset()
	for _, sl := range slots {
		if sl.Holder == node {
			m.beat(sl)
		}
	}
}

func result(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, ErrHeld), errors.Is(err, ErrNotHeld), errors.Is(err, ErrNotNominated), errors.Is(err, ErrDeleting):
		return "refused"
	case apierrors.IsConflict(err), apierrors.IsInvalid(err):
		return "conflict"
	case apierrors.IsNotFound(err):
		return "missing"
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return "denied"
	}
	return "unknown"
}
