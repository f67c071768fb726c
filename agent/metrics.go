package agent

import (
	"errors"
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what an agent counts about its own node.
type metrics struct {
	inPhase     *prometheus.GaugeVec
	transitions *prometheus.CounterVec
	required    prometheus.Gauge
	closed      *prometheus.GaugeVec
	downtime    prometheus.Gauge
	evicted     prometheus.Gauge
	errors      *prometheus.CounterVec
	hookRuns    *prometheus.CounterVec
	hookSeconds *prometheus.HistogramVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		inPhase: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "baton_phase", Help: "1 for the phase of this node's cycle, 0 for the others.",
		}, []string{"phase"}),
		transitions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "baton_transitions_total", Help: "Moves of this node's cycle since the agent started.",
		}, []string{"from", "to", "reason"}),
		required: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "baton_reboot_required", Help: "1 while the host, or a person, wants a reboot of this node.",
		}),
		closed: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "baton_gate_closed", Help: "1 for each gate that kept this node from going down when it was last asked.",
		}, []string{"reason"}),
		downtime: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "baton_last_downtime_seconds", Help: "From the decision to reboot to healthy, of the last finished cycle.",
		}),
		evicted: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "baton_last_evictions", Help: "Pods that were evicted for the last finished cycle. The sum over the nodes is what the last rollout evicted.",
		}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "baton_errors_total", Help: "Calls to the API server or the host that failed, by what was being done.",
		}, []string{"doing"}),
		hookRuns: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "baton_hook_runs_total", Help: "Hooks that have ended since the agent started, by how.",
		}, []string{"stage", "result"}),
		hookSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "baton_hook_duration_seconds", Help: "How long hooks ran.", Buckets: []float64{0.1, 1, 10, 60, 300, 900, 3600},
		}, []string{"stage"}),
	}
	var faults []error
	for _, c := range []prometheus.Collector{m.inPhase, m.transitions, m.required, m.closed, m.downtime, m.evicted, m.errors, m.hookRuns, m.hookSeconds} {
		if err := r.Register(c); err != nil {
			faults = append(faults, err)
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("registering the agent's metrics: %w", err)
	}
	return m, nil
}

func (m *metrics) phase(is Phase) {
	for _, p := range []Phase{Idle, Waiting, Draining, Rebooting, Verifying, Backoff, Failed} {
		v := 0.0
		if p == is {
			v = 1
		}
		m.inPhase.WithLabelValues(strings.ToLower(string(p))).Set(v)
	}
}

// last shows the last finished cycle, whichever process finished it.
func (m *metrics) last(h History) {
	if n := len(h.Cycles); n > 0 {
		m.downtime.Set(h.Cycles[n-1].Downtime.Seconds())
		m.evicted.Set(float64(h.Cycles[n-1].Evicted))
	}
}

func (m *metrics) wanted(yes bool) {
	m.required.Set(0)
	if yes {
		m.required.Set(1)
	}
}

func (m *metrics) gates(closed []Closed) {
	m.closed.Reset()
	for _, c := range closed {
		m.closed.WithLabelValues(string(c.Reason)).Set(1)
	}
}
