package p2p

import (
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lynn9388/p2p/grpcstream"
	"github.com/lynn9388/p2p/host"
)

// metrics are the node's own. A nil *metrics counts nothing.
type metrics struct {
	refusals *prometheus.CounterVec
	paths    *prometheus.CounterVec
}

// openMetrics registers the metrics, if somebody collects them. Nodes that share a registerer are counted together.
func (r *running) openMetrics() (err error) {
	reg := r.node.config.metrics
	if reg == nil {
		return nil
	}
	r.metrics = new(metrics)
	if r.metrics.refusals, err = register(reg, "p2p_node_refused_peers_total",
		"Connections, reservations and relayed connections that a peer was refused because of who it is, by direction: inbound or outbound.", "direction"); err != nil {
		return err
	}
	r.metrics.paths, err = register(reg, "p2p_node_path_changes_total",
		"How often the path to a neighbor became another one, by what it became: direct or relay.", "path")
	return err
}

func register(reg prometheus.Registerer, name, help, label string) (*prometheus.CounterVec, error) {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	err := reg.Register(c)
	if there, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if old, ok := there.ExistingCollector.(*prometheus.CounterVec); ok {
			return old, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return c, nil
}

func (m *metrics) refused(of host.Refusal) {
	if m == nil {
		return
	}
	direction := "inbound"
	if of.Direction == network.DirOutbound {
		direction = "outbound"
	}
	m.refusals.WithLabelValues(direction).Inc()
}

// moved counts that a neighbor is on another path now.
func (m *metrics) moved(relayed bool) {
	if m == nil {
		return
	}
	path := grpcstream.PathDirect
	if relayed {
		path = grpcstream.PathRelay
	}
	m.paths.WithLabelValues(string(path)).Inc()
}
