package host

import (
	"errors"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/config"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	tls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	madns "github.com/multiformats/go-multiaddr-dns"
	"go.uber.org/fx"
)

const (
	// maxProtocols is how many protocols of one peer are remembered: as many as identify carries. A peerstore's own
	// limit of 128 drops a longer list as a whole.
	maxProtocols = 1024

	// Above highMark connections the connection manager closes unprotected ones until lowMark are left; a new
	// connection is spared for connGrace. Neighbors, relays, those that are called and some callers are protected by the
	// packages that know them, so the marks leave room for others; a relay's are higher by what it carries.
	lowMark   = 160
	highMark  = 192
	connGrace = 10 * time.Second

	// streamWindow is how much a peer may send on a fresh stream before it hears from us: a 1 MiB answer on a link
	// with a round trip of 50 ms then needs one round trip instead of four.
	streamWindow    = 4 << 20
	maxStreamWindow = 16 << 20

	// maxMuxMessage makes one message of the multiplexer fit one record of the secure channel.
	maxMuxMessage = 65519
)

// errPSK tells that a pre-shared key and the default transports exclude each other.
var errPSK = errors.New("a private network key works over TCP only, and the default transports include QUIC: " +
	"add libp2p.Transport(tcp.NewTCPTransport) to the options, or use an allow list instead of the key")

// options returns the user's options and then ours, each of which sets only what is still unset.
func options(cfg Config, n *node) []libp2p.Option {
	opts := append([]libp2p.Option{}, cfg.Libp2p...)
	return append(opts,
		func(c *config.Config) error { return identity(c, cfg) },
		transports(cfg, n),
		channels,
		n.store,
		n.limits,
		func(c *config.Config) error {
			n.gate = &gate{node: n, allow: cfg.Allow, relays: cfg.Relays, next: c.ConnectionGater, self: c.PeerKey}
			c.ConnectionGater = n.gate
			n.resolver = c.MultiaddrResolver
			if n.resolver == nil {
				n.resolver = swarm.ResolverFromMaDNS{Resolver: madns.DefaultResolver}
			}
			return nil
		},
		func(c *config.Config) error {
			if c.AddrsFactory == nil {
				c.AddrsFactory = n.fresh
			}
			if c.DialRanker == nil {
				c.DialRanker = n.rank
			}
			return nil
		},
		reaching(cfg, n),
		func(c *config.Config) error {
			n.dialer = dialerOf(c)
			return nil
		},
		n.setUp(cfg.Setup),
	)
}

// setUp has f called with the host before libp2p starts it: identify answers with what it found when it started, until it
// has heard of something new.
func (n *node) setUp(f func(corehost.Host) error) libp2p.Option {
	if f == nil {
		return nil
	}
	// The host would be left half open by an error that fx is given.
	return libp2p.WithFxOption(fx.Invoke(func(h corehost.Host) { n.setup = f(h) }))
}

func identity(c *config.Config, cfg Config) error {
	if c.PeerKey == nil {
		c.PeerKey = cfg.Identity
	}
	if c.PeerKey == nil {
		if err := libp2p.RandomIdentity(c); err != nil {
			return err
		}
	}
	if c.UserAgent == "" {
		c.UserAgent = cfg.UserAgent
	}
	return nil
}

// transports sets TCP and QUIC, and WebSocket where it is of use.
func transports(cfg Config, n *node) libp2p.Option {
	return func(c *config.Config) error {
		if c.Transports == nil {
			if c.PSK != nil {
				return errPSK
			}
			opts := []libp2p.Option{libp2p.Transport(newTCP(cfg.WAN && cfg.Relay == nil, cfg.Relays)), libp2p.Transport(quic.NewTransport)}
			if cfg.WAN || cfg.WebSocket != "" {
				opts = append(opts, libp2p.Transport(newWebSocket))
			}
			if cfg.WebSocket != "" {
				opts = append(opts, libp2p.ShareTCPListener()) // it may be asked for at the port of TCP
			}
			if err := c.Apply(opts...); err != nil {
				return err
			}
		}
		n.simulated = c.QUICReuse != nil
		if c.QUICReuse == nil {
			return c.Apply(libp2p.QUICReuse(newQUICManager))
		}
		return nil
	}
}

// channels sets how a connection is secured and split into streams.
func channels(c *config.Config) error {
	if !c.Insecure && c.SecurityTransports == nil {
		if err := c.Apply(libp2p.Security(tls.ID, tls.New), libp2p.Security(noise.ID, noise.New)); err != nil {
			return err
		}
	}
	if c.Muxers == nil {
		mux := *yamux.DefaultTransport.Config()
		mux.InitialStreamWindowSize = streamWindow
		mux.MaxStreamWindowSize = maxStreamWindow
		mux.MaxMessageSize = maxMuxMessage
		if err := c.Apply(libp2p.Muxer(yamux.ID, (*yamux.Transport)(&mux))); err != nil {
			return err
		}
	}
	return nil
}

// store sets the peerstore, and the metrics off unless somebody collects them.
func (n *node) store(c *config.Config) error {
	if c.PrometheusRegisterer == nil {
		c.DisableMetrics = true
	}
	if c.Peerstore != nil {
		return nil
	}
	ps, err := pstoremem.NewPeerstore(pstoremem.WithMaxProtocols(maxProtocols))
	if err != nil {
		return err
	}
	n.made = append(n.made, ps)
	c.Peerstore = ps
	return nil
}

// limits sets the resource and the connection manager.
func (n *node) limits(c *config.Config) error {
	if c.ResourceManager == nil {
		rm, err := newResourceManager(!c.DisableMetrics, n.carries)
		if err != nil {
			return err
		}
		n.made = append(n.made, rm)
		c.ResourceManager = rm
	}
	if c.ConnManager == nil {
		more := 0
		if n.carries != nil {
			more = relayConnsEach * n.carries.Reservations
		}
		cm, err := connmgr.NewConnManager(lowMark+more, highMark+more, connmgr.WithGracePeriod(connGrace))
		if err != nil {
			return err
		}
		n.made = append(n.made, cm)
		c.ConnManager = cm
	}
	return nil
}

// reaching sets how the host reaches others and is reached, as the configuration asks for, and turns off what would
// contact others by itself, unless the user's options ask for any of it.
func reaching(cfg Config, n *node) libp2p.Option {
	return func(c *config.Config) error {
		asked := asksForContacts(c)
		if !c.RelayCustom {
			circuits := libp2p.DisableRelay()
			if cfg.WAN { // the transport alone: it dials what it is told to, and takes what a relay brings
				circuits = libp2p.EnableRelay()
			}
			if err := c.Apply(circuits); err != nil {
				return err
			}
		}
		if cfg.MapPorts && c.NATManager == nil {
			c.NATManager = func(network network.Network) basichost.NATManager {
				n.mapping = newMapping(network, n.log)
				return n.mapping
			}
		}
		if !asked {
			quiet(c, cfg.Relay != nil)
		}
		if !cfg.WAN {
			return nil
		}
		// A hundred dials that failed at routers, as holes that could not be punched do, would have libp2p take UDP or
		// IPv6 for blocked, and dial neither any more.
		return c.Apply(libp2p.UDPBlackHoleSuccessCounter(nil), libp2p.IPv6BlackHoleSuccessCounter(nil))
	}
}

// asksForContacts tells whether the user's options ask for anything that contacts others by itself.
func asksForContacts(c *config.Config) bool {
	return c.Relay || c.EnableAutoRelay || c.EnableRelayService || c.EnableHolePunching || c.EnableAutoNATv2 ||
		c.EnableService || c.NATManager != nil || c.ForceReachability != nil
}

// quiet turns off that AutoNAT asks the peers to dial back, and that identify learns addresses from what they claim to
// see. The reachability that is forced is but the first word: libp2p's address list and the DHT follow the last
// [event.EvtLocalReachabilityChanged], whoever emits it.
func quiet(c *config.Config, public bool) {
	reachable := network.ReachabilityPrivate
	if public {
		reachable = network.ReachabilityPublic
	}
	c.ForceReachability = &reachable
	c.DisableIdentifyAddressDiscovery = true
}
