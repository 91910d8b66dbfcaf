package grpcstream

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count what a server survives and refuses. A nil *metrics counts nothing.
type metrics struct {
	panics  prometheus.Counter
	refused *prometheus.CounterVec
}

// Why a call was refused: the values of the label reason.
const (
	refusedByPolicy = "policy"
	refusedAsBusy   = "busy"
)

// newMetrics registers the metrics. Servers that share a registerer share them.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	if reg == nil {
		return nil, nil //nolint:nilnil // nil counts nothing
	}
	m := &metrics{
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "p2p_grpcstream_panics_total",
			Help: "Panics of handlers that were answered with Internal.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "p2p_grpcstream_refused_calls_total",
			Help: "Calls that were refused before their request was decoded, by reason: policy or busy.",
		}, []string{"reason"}),
	}
	var err error
	m.panics, err = register(reg, m.panics)
	if err != nil {
		return nil, err
	}
	m.refused, err = register(reg, m.refused)
	return m, err
}

// register returns the collector that reg has under c's names: c itself, or an equal one that was there.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) (C, error) {
	err := reg.Register(c)
	if there, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if old, ok := there.ExistingCollector.(C); ok {
			return old, nil
		}
	}
	if err != nil {
		return c, fmt.Errorf("grpcstream: register metrics: %w", err)
	}
	return c, nil
}

func (m *metrics) panicked() {
	if m != nil {
		m.panics.Inc()
	}
}

func (m *metrics) refuse(reason string) {
	if m != nil {
		m.refused.WithLabelValues(reason).Inc()
	}
}
