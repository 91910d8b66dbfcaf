// Package reach keeps a libp2p host reachable across NATs through relays of the user's own, and replaces relayed
// connections by direct ones.
//
// It keeps two connections to each relay, one over TCP and one over QUIC, so that the host's outside address is known
// for both, holds a reservation there and announces it. It finds out whether the host is public, and then does without
// reservations. Over each relayed connection it agrees with the other end on a moment at which both dial each other
// directly, as often as that takes, and says what each attempt met.
//
// It contacts the relays that it was given, and peers that are connected through a relay already: nobody else.
//
// # Trust
//
// A relay is believed in what it sees this host's address to be; it carries the connections anyway. A peer is believed
// in where it may be reached: this host then sends it packets there. So addresses are exchanged with peers that
// [Config.Allow] lets in, on relayed connections only, which prove who the peer is; few are taken, of few hosts; none is
// of loopback, multicast or a cloud's metadata, and each must reach at least as far as the relay's own address on the
// connection it came over. Private addresses are told, and dialed, beyond that only when both sides show one public
// IP address, and then a peer can have this host dial into its own network; what answered there is not told to it. How
// often a peer may begin an exchange is bounded: with the figures in this package it can make the host send some 10 kB a
// second to addresses of its choice.
package reach

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lynn9388/p2p/internal/feed"
)

// Config says what a [Reach] works with.
type Config struct {
	// Relays are the relays to be reachable through, with addresses that name TCP, QUIC or WebSocket; host names in them are
	// resolved anew for each dial. Empty: no relay is contacted, and relayed connections that others make are still replaced
	// by direct ones. A host that is a relay itself is given none.
	Relays []peer.AddrInfo
	// Network names the network whose peers exchange addresses: it is part of the protocol's ID. It must not be empty.
	Network string
	// Allow says with whom addresses are exchanged; nil: with every peer that is connected. It must neither block nor
	// call the Reach.
	Allow func(peer.ID) bool
	// Logger takes Info for what a person wants to see of a running node and Debug for the rest; nil: slog.Default().
	Logger *slog.Logger
	// Metrics takes the package's metrics; nil keeps none.
	Metrics prometheus.Registerer
}

// Reach keeps one host reachable. Its methods may be called concurrently, before, while and after Run.
type Reach struct {
	h        corehost.Host
	log      *slog.Logger
	protocol protocol.ID
	metrics  *metrics
	changes  feed.Feed[struct{}]
	wake     chan struct{} // the loop has something to look at
	listens  chan struct{} // the host listens somewhere, or no longer

	mu      sync.Mutex
	core    *core
	begun   bool
	serve   func(network.Stream)        // an exchange that a peer begins; nil while not running
	conns   map[string]network.Conn     // by ID
	ends    map[peer.ID]end             // of the attempts under way
	waiting map[peer.ID][]chan struct{} // closed when there is a direct connection
}

// Protocol returns the ID of the protocol by which the peers of a network agree on a direct connection.
func Protocol(network string) protocol.ID {
	return protocol.ID("/p2p/" + network + "/direct/1.0.0")
}

// New returns a Reach of h, which must have been built by [host.New] with WAN. It sets the handler of [Protocol] and
// starts nothing; while Run does not run, the handler refuses. It fails when the configuration names no network, a relay
// without an ID or without an address with TCP, QUIC or WebSocket, or the host itself as a relay.
func New(h corehost.Host, cfg Config) (*Reach, error) {
	if cfg.Network == "" {
		return nil, errors.New("reach: the configuration names no network")
	}
	for _, r := range cfg.Relays {
		switch {
		case r.ID.Validate() != nil:
			return nil, fmt.Errorf("reach: relay %v has no peer ID: write ID@host:port", r.Addrs)
		case r.ID == h.ID():
			return nil, fmt.Errorf("reach: relay %s is this host itself: name another one", r.ID)
		case len(r.Addrs) == 0:
			return nil, fmt.Errorf("reach: relay %s has no address: write %s@host:port", r.ID, r.ID)
		case !slices.ContainsFunc(r.Addrs, func(a ma.Multiaddr) bool { return kindOf(a) != kindNone }):
			return nil, fmt.Errorf("reach: relay %s has no address with TCP, QUIC or WebSocket but %v: write %s@host:port", r.ID, r.Addrs, r.ID)
		}
	}
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("reach: %w", err)
	}
	log := cfg.Logger
	if log == nil {
		log = slog.Default()
	}
	r := &Reach{
		h: h, log: log, protocol: Protocol(cfg.Network), metrics: m,
		wake:    make(chan struct{}, 1),
		listens: make(chan struct{}, 1),
		core:    newCore(h.ID(), cfg, rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))),
		conns:   map[string]network.Conn{},
		ends:    map[peer.ID]end{},
		waiting: map[peer.ID][]chan struct{}{},
	}
	h.SetStreamHandler(r.protocol, r.handle)
	return r, nil
}

// handle takes a stream of the protocol.
func (r *Reach) handle(s network.Stream) {
	r.mu.Lock()
	serve := r.serve
	r.mu.Unlock()
	if serve == nil {
		_ = s.Reset()
		return
	}
	serve(s)
}

// Changes returns a channel that holds a value after the status, or what is known of a peer's path, has changed, until
// ctx ends. It is closed when Run returns.
func (r *Reach) Changes(ctx context.Context) <-chan struct{} { return r.changes.Changes(ctx) }
