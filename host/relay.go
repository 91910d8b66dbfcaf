package host

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lynn9388/p2p/internal/addr"
)

// RelayConfig bounds what a relay carries. The zero value stands for [DefaultRelay].
type RelayConfig struct {
	// Duration is how long one relayed connection may last; zero is 24 hours.
	Duration time.Duration

	// Data is how many bytes one relayed connection may carry in each direction; zero is 1 TiB.
	Data int64

	// Reservations is how many peers may be reachable through the relay at once; zero is 1,024.
	Reservations int

	// ReservationsPerIP is how many of them may be at one IP address; zero is 256, for the offices behind one.
	ReservationsPerIP int

	// Circuits is how many relayed connections one peer may have at once; zero is 64.
	Circuits int

	// Metrics takes the relay's metrics. Nil keeps none.
	Metrics prometheus.Registerer
}

// DefaultRelay returns what the zero fields of a [RelayConfig] stand for. The limits are far above what nodes use, and
// finite, so that libp2p tells both ends that they are relayed: without any it would take a relayed connection for as
// good as a direct one.
func DefaultRelay() RelayConfig {
	return RelayConfig{
		Duration:          24 * time.Hour,
		Data:              1 << 40,
		Reservations:      1024,
		ReservationsPerIP: 256,
		Circuits:          64,
	}
}

const (
	// reservationTTL is how long a reservation holds unless it is renewed. It ends with the connection anyway, so that it
	// need not be short; and a peer takes none that has ended by its own clock, which may be hours off.
	reservationTTL = 24 * time.Hour

	// relayBuffer is how much a relay copies at once, for each direction of a relayed connection.
	relayBuffer = 16 << 10
)

// complete returns the configuration with the defaults in place of what is zero.
func (r RelayConfig) complete() (RelayConfig, error) {
	if r.Duration < 0 || r.Data < 0 || r.Reservations < 0 || r.ReservationsPerIP < 0 || r.Circuits < 0 {
		return r, errors.New("host: a relay's limit is negative: leave it zero for the default")
	}
	d := DefaultRelay()
	r.Duration = cmp.Or(r.Duration, d.Duration)
	r.Data = cmp.Or(r.Data, d.Data)
	r.Reservations = cmp.Or(r.Reservations, d.Reservations)
	r.ReservationsPerIP = cmp.Or(r.ReservationsPerIP, d.ReservationsPerIP)
	r.Circuits = cmp.Or(r.Circuits, d.Circuits)
	return r, nil
}

// newRelay starts the relay service of n.
func newRelay(n *node, cfg RelayConfig, allow *AllowList) (*relay.Relay, error) {
	opts := []relay.Option{
		relay.WithResources(relay.Resources{
			Limit:                 &relay.RelayLimit{Duration: cfg.Duration, Data: cfg.Data},
			ReservationTTL:        reservationTTL,
			MaxReservations:       cfg.Reservations,
			MaxCircuits:           cfg.Circuits,
			BufferSize:            relayBuffer,
			MaxReservationsPerIP:  cfg.ReservationsPerIP,
			MaxReservationsPerASN: cfg.Reservations, // one office's provider is as good as another
		}),
		relay.WithACL(&carriage{n, allow}),
		// A relay inside a site is reached at private addresses. Loopback ones are of use only to its own machine.
		relay.WithReservationAddressFilter(func(a ma.Multiaddr) bool {
			return addr.ScopeOf(a) != addr.Loopback || addr.LoopbackOnly(n.Network().ListenAddresses())
		}),
	}
	if cfg.Metrics != nil {
		opts = append(opts, relay.WithMetricsTracer(relay.NewMetricsTracer(relay.WithRegisterer(cfg.Metrics))))
	}
	r, err := relay.New(n, opts...)
	if err != nil {
		return nil, fmt.Errorf("host: start the relay: %w", err)
	}
	return r, nil
}

// carriage decides who is carried: both ends must be on the allow list. That a peer may be connected because it
// carries for this host gives it no right to be carried.
type carriage struct {
	node  *node
	allow *AllowList
}

var _ relay.ACLFilter = (*carriage)(nil)

// AllowReserve implements [relay.ACLFilter].
func (c *carriage) AllowReserve(p peer.ID, a ma.Multiaddr) bool {
	if c.allow.Allows(p) {
		return true
	}
	c.node.refuse(Refusal{p, a, network.DirInbound, "reservation: not on the allow list"})
	return false
}

// AllowConnect implements [relay.ACLFilter].
func (c *carriage) AllowConnect(src peer.ID, a ma.Multiaddr, dest peer.ID) bool {
	switch {
	case !c.allow.Allows(src):
		c.node.refuse(Refusal{src, a, network.DirInbound, "relayed connection: not on the allow list"})
		return false
	case !c.allow.Allows(dest):
		c.node.refuse(Refusal{src, a, network.DirInbound, "relayed connection to " + dest.String() + ": that one is not on the allow list"})
		return false
	default:
		return true
	}
}
