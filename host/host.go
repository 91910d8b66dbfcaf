// Package host builds a libp2p host the way a node needs it: keys, addresses, transports, limits and the gate.
//
// A host speaks TCP (TLS 1.3 first, Noise second) and QUIC on the same port number. By itself it contacts nobody: it
// uses no relay, asks no router for a port mapping, probes no reachability and looks up nothing. What it is given in
// [Config.Libp2p] wins over what this package would set.
//
// [Config.WAN] adds what reaching others across NATs is built from, and [Config.Relay] makes a host one that others are
// reached through; whom to contact and when stays with whoever uses the host. libp2p's own automatic relaying, hole
// punching, reachability probing and observed addresses stay off: each waits for several peers of a public network
// and would ask any that is connected.
//
// libp2p's own records, errors only by default, go to standard error: a program says otherwise by
// gologshim.SetDefaultHandler, of go-libp2p, before its first host, since libp2p knows one logger for the process.
package host

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/config"
	"github.com/libp2p/go-libp2p/core/crypto"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/autonatv2"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
)

// Config says what [New] builds. The zero value is a host with a throwaway identity that does not listen.
type Config struct {
	// Identity is the host's key. Nil makes a new Ed25519 key that is forgotten with the host.
	Identity crypto.PrivKey

	// Listen names where to listen, as [Listen] takes it. Empty, the host does not listen until Listen is called,
	// so that handlers can be set first.
	Listen []string

	// Announce names addresses, host or host:port, that reach this host although no interface of it has them, as
	// behind a 1:1 NAT. Without a port the listening port is meant.
	Announce []string

	// Allow decides who may be connected, in both directions, once a peer has proved its ID and before anything else
	// is exchanged. Nil lets everyone connect. A gater in Libp2p is asked as well: both must agree.
	Allow *AllowList

	// WAN readies the host for being reached across NATs: it dials and takes relayed connections, dials WebSocket
	// addresses (through the HTTP proxy that the environment names, if any), and dials public TCP addresses from its
	// listening port unless it is a relay, so that a router gives it one outside address for all. It contacts nobody by
	// itself.
	WAN bool

	// MapPorts asks the link's router for port mappings (UPnP, NAT-PMP). It goes with WAN only.
	MapPorts bool

	// Relay makes the host a relay: it carries connections between those whom Allow lets in, and probes for them
	// whether they can be reached. Nil, the host carries nothing.
	Relay *RelayConfig

	// WebSocket names a further place to listen at, for WebSocket over TCP, as Listen does: ":443". It is for peers
	// where nothing but HTTP gets out, may have the port of Listen, and is listened at together with the first address of
	// Listen. TLS around it, which some proxies want, is left to a server in front. Empty, the host does not listen for
	// WebSocket.
	WebSocket string

	// Relays are peers that may be connected although Allow does not list them, because they carry for this host.
	Relays []peer.ID

	// Refused is called for everything that the host refuses a peer. It may be called from several goroutines and must
	// not block. Nil ignores refusals.
	Refused func(Refusal)

	// Clone is called when somebody else proves this host's own identity, with the address it came from or was met
	// at. It may be called from several goroutines and must not block. Nil ignores clones.
	Clone func(remote ma.Multiaddr)

	// Setup sets the host's first handlers. It is called once, before New returns, with a host that is not connected to
	// anybody yet: what it sets is part of the first thing that identify tells a peer. A handler set later may be told
	// of a moment later, and if there are many such news, not at all. An error of it is New's. Nil sets nothing.
	Setup func(h corehost.Host) error

	// UserAgent is the agent version that identify tells other peers. Empty leaves libp2p's.
	UserAgent string

	// Libp2p are further options. They win: what they set, this package does not set again.
	Libp2p []libp2p.Option

	// Logger takes this package's records. Nil discards them.
	Logger *slog.Logger
}

// New returns a started host. The caller closes it. It fails when an address of the configuration is malformed, when
// it cannot listen (see [Listen]), and when an option of Libp2p fails or does not go with the others.
func New(cfg Config) (corehost.Host, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	n, err := newNode(cfg)
	if err != nil {
		return nil, err
	}
	h, err := libp2p.New(options(cfg, n)...)
	if err != nil {
		for _, c := range n.made { // libp2p has not come to own them
			_ = c.Close()
		}
		return nil, fmt.Errorf("host: %w", err)
	}
	n.made = nil
	n.Host = h
	if err := n.start(cfg); err != nil {
		_ = n.Close()
		return nil, err
	}
	return n, nil
}

// newNode returns what the configuration says of a host that does not exist yet.
func newNode(cfg Config) (*node, error) {
	if cfg.MapPorts && !cfg.WAN {
		return nil, errors.New("host: MapPorts without WAN: a mapped port is of use across NATs only")
	}
	n := &node{webSocket: cfg.WebSocket, clone: cfg.Clone, refused: cfg.Refused, log: cfg.Logger}
	var err error
	if n.announce, err = parseAnnounce(cfg.Announce); err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	if cfg.WebSocket != "" {
		if _, err := addr.ParseListenWebSocket(cfg.WebSocket); err != nil {
			return nil, fmt.Errorf("host: %w", err)
		}
	}
	if cfg.Relay != nil {
		carries, err := cfg.Relay.complete()
		if err != nil {
			return nil, err
		}
		n.carries = &carries
	}
	return n, nil
}

// start starts what libp2p has not, and listens last.
func (n *node) start(cfg Config) (err error) {
	if cfg.WAN {
		if n.door, err = newDoor(n.Network()); err != nil {
			return err
		}
	}
	n.ready.Store(true)
	if n.setup != nil {
		return n.setup
	}
	if n.carries != nil {
		if n.relay, err = newRelay(n, *n.carries, cfg.Allow); err != nil {
			return err
		}
		if n.prober, err = newProber(n, n.dialer, cfg.Allow); err != nil {
			return err
		}
		n.returning = newReturning(n.Network())
	}
	if len(cfg.Listen) == 0 {
		return nil
	}
	return Listen(n, cfg.Listen...)
}

// node is a libp2p host with what this package knows about it.
type node struct {
	corehost.Host

	announce []announced
	carries  *RelayConfig // complete; nil: nothing
	clone    func(ma.Multiaddr)
	refused  func(Refusal)
	log      *slog.Logger

	made      []io.Closer // what the options have made for a host that does not exist yet
	listening sync.Mutex  // one Listen at a time
	webSocket string      // where to listen for it as well, until that is done
	simulated bool        // its QUIC does not use the machine's sockets
	tableOf   addressTable
	setup     error // of Config.Setup
	relay     *relay.Relay
	mapping   *mapping // nil: none
	prober    *autonatv2.AutoNAT
	visits    visits // to the prober
	returning *returning
	probes    probes
	dialer    *config.Config // of a relay's prober
	gate      *gate
	resolver  network.MultiaddrDNSResolver // of the names in addresses
	door      *door                        // nil: not for WAN
	ready     atomic.Bool
}

// Close implements [corehost.Host].
func (n *node) Close() error {
	if n.relay != nil {
		_ = n.relay.Close() // it has no other error than having been closed
	}
	if n.prober != nil {
		n.prober.Close()
	}
	if n.returning != nil {
		n.returning.Close()
	}
	err := n.Host.Close() // ends the streams of those who are served
	n.visits.close()
	return err
}

// IDService returns libp2p's identify service: some of libp2p's packages look for this method.
func (n *node) IDService() identify.IDService {
	if h, ok := n.Host.(interface{ IDService() identify.IDService }); ok {
		return h.IDService()
	}
	return nil
}

// AllAddrs returns the addresses before relays and reachability are considered; AutoNAT looks for this method.
func (n *node) AllAddrs() []ma.Multiaddr {
	if h, ok := n.Host.(interface{ AllAddrs() []ma.Multiaddr }); ok {
		return ma.Unique(append(h.AllAddrs(), n.mapped()...)) // libp2p asks for what is mapped each 5 s
	}
	return n.Addrs()
}

// cloned reports that somebody else, at remote, has this host's identity.
func (n *node) cloned(remote ma.Multiaddr) {
	n.log.Debug("another host has this identity", "addr", remote)
	if n.clone != nil {
		n.clone(remote)
	}
}
