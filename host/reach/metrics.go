package reach

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics count what is done to be reachable. A nil *metrics counts nothing.
type metrics struct {
	dials, reservations, attempts *prometheus.CounterVec
}

// newMetrics registers the metrics. Hosts that share a registerer share them.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	if reg == nil {
		return nil, nil //nolint:nilnil // nil counts nothing
	}
	m := &metrics{}
	for _, v := range []struct {
		to         **prometheus.CounterVec
		name, help string
		labels     []string
	}{
		{&m.dials, "p2p_reach_relay_dials_total", "Dials to relays, by transport and by result: ok or failed.", []string{"transport", "result"}},
		{&m.reservations, "p2p_reach_reservations_total", "Requests for a reservation, by result: ok or failed.", []string{"result"}},
		{&m.attempts, "p2p_reach_attempts_total", "Attempts to get a direct connection in place of a relayed one, by result: ok or failed.", []string{"result"}},
	} {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: v.name, Help: v.help}, v.labels)
		err := reg.Register(c)
		if there, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
			if old, ok := there.ExistingCollector.(*prometheus.CounterVec); ok {
				c, err = old, nil
			}
		}
		if err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
		*v.to = c
	}
	return m, nil
}

func result(ok bool) string {
	if ok {
		return "ok"
	}
	return "failed"
}

func (m *metrics) dialed(k kind, err error) {
	if m != nil {
		m.dials.WithLabelValues(k.String(), result(err == nil)).Inc()
	}
}

func (m *metrics) reserved(err error) {
	if m != nil {
		m.reservations.WithLabelValues(result(err == nil)).Inc()
	}
}

func (m *metrics) attempted(direct bool) {
	if m != nil {
		m.attempts.WithLabelValues(result(direct)).Inc()
	}
}
