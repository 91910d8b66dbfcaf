// Package reach keeps a libp2p host reachable across NATs through relays of the user's own, and replaces relayed
// connections by direct ones.
//
// It keeps two connections to each relay, one over TCP and one over QUIC, so that the host's outside address is known
// for both, holds a reservation there and announces it. It finds out whether the host is public, and then does without
// reservations. Over each relayed connection it agrees with the other end on a moment at which both dial each other
// directly, as often as that takes, and says what each attempt met.
//
// It contacts the relays that it was given, and peers that are connected through a relay already: nobody else.
package reach

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lynn9388/p2p/internal/feed"
)

// Config says what a [Reach] works with.
type Config struct {
	// Relays are the relays to be reachable through, with their addresses; names are resolved anew for each dial. Empty:
	// no relay is contacted, and relayed connections that others make are still replaced by direct ones. A host that is
	// a relay itself is given none.
	Relays []peer.AddrInfo
	// Network names the network whose peers exchange addresses: it is part of the protocol's ID. It must not be empty.
	Network string
	// Allow says with whom addresses are exchanged; nil: with every peer that is connected. It must not block.
	Allow func(peer.ID) bool
	// Logger takes Info for what a person wants to see of a running node and Debug for the rest; nil: slog.Default().
	Logger *slog.Logger
	// Metrics takes the package's metrics; nil keeps none.
	Metrics prometheus.Registerer
}

// Reach keeps one host reachable. Its methods may be called concurrently, before, while and after Run.
type Reach struct {
	h        corehost.Host
	cfg      Config
	log      *slog.Logger
	protocol protocol.ID
	changes  feed.Feed[struct{}]
}

// Protocol returns the ID of the protocol by which the peers of a network agree on a direct connection.
func Protocol(network string) protocol.ID {
	return protocol.ID("/p2p/" + network + "/direct/1.0.0")
}

// New returns a Reach of h. It sets the handler of [Protocol] and starts nothing; until Run the handler refuses. It
// fails when the configuration names a relay without an ID, or the host itself as a relay.
func New(h corehost.Host, cfg Config) (*Reach, error) {
	if cfg.Network == "" {
		return nil, errors.New("reach: the configuration names no network")
	}
	for _, r := range cfg.Relays {
		if err := r.ID.Validate(); err != nil {
			return nil, fmt.Errorf("reach: relay %v: it has no peer ID: write ID@host:port", r.Addrs)
		}
		if r.ID == h.ID() {
			return nil, fmt.Errorf("reach: relay %s is this host itself: name another one", r.ID)
		}
	}
	log := cfg.Logger
	if log == nil {
		log = slog.Default()
	}
	return &Reach{h: h, cfg: cfg, log: log, protocol: Protocol(cfg.Network)}, nil
}

// Run keeps the host reachable until ctx ends, and returns nil then. It leaves the connections open: they end with the
// host. It may be called once.
func (r *Reach) Run(ctx context.Context) error {
	defer r.changes.Close()
	<-ctx.Done()
	return nil
}

// Status returns how the host can be reached now.
func (r *Reach) Status() Status { return Status{} }

// Attempts returns the last attempts to get a direct connection to p, the newest last, at most [MaxAttempts].
func (r *Reach) Attempts(p peer.ID) []Attempt { return nil }

// WhyRelayed says in one line, for a person, why p is connected through a relay only. It is empty when p is connected
// directly or not at all.
func (r *Reach) WhyRelayed(p peer.ID) string { return "" }

// Changes returns a channel that holds a value after the status, or what is known of a peer's path, has changed, until
// ctx ends. It is closed when Run returns.
func (r *Reach) Changes(ctx context.Context) <-chan struct{} { return r.changes.Changes(ctx) }

// MaxAttempts is how many attempts are remembered of one peer.
const MaxAttempts = 16
