package grpcstream

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/grpc"
)

const (
	defaultDiscoveryTimeout = 5 * time.Second
	defaultIdleTimeout      = 5 * time.Minute
)

// ChannelConfig says how a [Channel] finds and reaches peers. The zero value is ready to use.
type ChannelConfig struct {
	// Network is the network's name; empty: [DefaultNetwork]. See [CheckNetwork].
	Network string
	// DiscoveryTimeout is how long a call is held for a peer or a service to become known; 0: 5 s.
	DiscoveryTimeout time.Duration
	// IdleTimeout is how long the tunnel to a peer is kept without a call on it; 0: 5 minutes.
	IdleTimeout time.Duration
	// MoveGrace is how long streams to a peer may go on over a relay when there is a direct path, which new calls take.
	// Then they end with Unavailable and the reason PATH_MOVED, so that the relay gets its slot back; unary calls under way
	// may take longer. 0: 30 s.
	MoveGrace time.Duration
	// Self takes the calls to the host's own ID, in memory, and is an instance of its services once it is started.
	// nil: such calls fail.
	Self Local
	// Catalog reads the services of a peer that has too many to announce them one by one; cc calls that peer. It is
	// called in the background, a few at a time. nil: such peers can be called by ID only.
	Catalog func(ctx context.Context, cc grpc.ClientConnInterface) ([]string, error)
	// Find looks for peers that offer a service, beyond those that are connected. It is called in the background, once at
	// a time for each service, while calls wait for an instance and for [Channel.Search]; who it yields is dialed and
	// asked what it offers, so that its word need not be trusted. It ends when its context does. nil: nobody is looked
	// for.
	Find func(ctx context.Context, service string) iter.Seq2[peer.AddrInfo, error]
	// FindPeer returns where a peer may be. It is asked within a dial, when no address of the peer is known, and when the
	// peer is at none of those known. It must end when its context does. nil: nobody is asked.
	FindPeer func(ctx context.Context, id peer.ID) ([]ma.Multiaddr, error)
	// RTT returns the round trip time to a peer as last measured, 0 if it is not known. It must be quick and not call the
	// channel. Where it does not know, or is nil, [Selector.Nearest] goes by what the channel itself measured, once for
	// each tunnel.
	RTT func(peer.ID) time.Duration
	// ServiceConfig is a gRPC service config in JSON, for method configs such as retry policies; its choice of a
	// balancer is ignored. Leave retryThrottling out: all services would share it. An option WithDefaultServiceConfig
	// has no effect on a channel.
	ServiceConfig string
	// Options are more options for the channel. They win over this package's defaults for windows, message sizes and
	// keepalive; credentials, dialer, resolver, authority and idle timeout of a channel are fixed.
	Options []grpc.DialOption
	// Logger gets debug messages; nil: [slog.Default].
	Logger *slog.Logger
}

// A Channel calls any number of peers over one tunnel to each, made on demand, shared by all services and callers and
// closed when it is no longer used.
//
// Invoke and NewStream call an instance of the service in the method's name, as "Choosing" in the package's doc says;
// [Channel.Select], [Channel.Service] and [Channel.Peer] choose otherwise. A call to a peer or service that is not known yet is held until it is, at most
// the discovery timeout or the call's deadline, and then fails as Unavailable with the reason NO_INSTANCE; with
// grpc.WaitForReady it is held until its deadline. Retries go to peers that the call has not tried.
//
// A Channel follows its host's events from NewChannel to Close. It must be made by [NewChannel], and its methods may
// be called concurrently.
type Channel struct {
	host      corehost.Host
	cfg       ChannelConfig
	log       *slog.Logger
	cc        *grpc.ClientConn
	hub       *hub
	directory *directory
	dialer    *dialer
	guard     *guard
	catalogs  *catalogs
	finder    *finder
	whole     handle          // calls through the channel itself
	quit      <-chan struct{} // closed when the channel is

	close func() error
}

// NewChannel returns a channel over h, which need not be listening or connected yet. It connects to nobody. Close it
// before the host.
func NewChannel(h corehost.Host, cfg ChannelConfig) (*Channel, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	config, err := hubServiceConfig(cfg.ServiceConfig)
	if err != nil {
		return nil, err
	}
	dir, err := newDirectory(h, cfg.Network, cfg.Self, cfg.Logger)
	if err != nil {
		return nil, err
	}
	ch := &Channel{
		host:      h,
		cfg:       cfg,
		log:       cfg.Logger,
		hub:       newHub(cfg.Network, cfg.DiscoveryTimeout),
		directory: dir,
		dialer:    newDialer(h, cfg, dir),
		guard:     newGuard(h, cfg, newTally()),
	}
	ch.whole = handle{ch: ch, sel: &selector{}}
	ch.cc, err = grpc.NewClient(Scheme+":///", ch.options(config)...)
	if err != nil {
		_ = dir.sub.Close()
		return nil, fmt.Errorf("grpcstream: new channel: %w", err)
	}
	ch.hub.self = h.ID()
	if cfg.RTT != nil {
		ch.hub.rtt = cfg.RTT
	}
	ch.hub.patient = func(method string) bool {
		wfr := ch.cc.GetMethodConfig(method).WaitForReady
		return wfr != nil && *wfr
	}
	ch.start()
	return ch, nil
}

// setDefaults fills in what is not set, and checks the rest.
func (c *ChannelConfig) setDefaults() error {
	if c.Network == "" {
		c.Network = DefaultNetwork
	}
	c.DiscoveryTimeout = orDefault(c.DiscoveryTimeout, defaultDiscoveryTimeout)
	c.IdleTimeout = orDefault(c.IdleTimeout, defaultIdleTimeout)
	c.MoveGrace = orDefault(c.MoveGrace, defaultMoveGrace)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return CheckNetwork(c.Network)
}

// start runs the background work, which Close ends.
func (ch *Channel) start() {
	ctx, cancel := context.WithCancel(context.Background())
	ch.quit = ctx.Done()
	var wg sync.WaitGroup
	ch.catalogs = newCatalogs(ctx, &wg, ch)
	ch.finder = &finder{
		ctx: ctx, wg: &wg, find: ch.cfg.Find, dialer: ch.dialer, hub: ch.hub, log: ch.log,
		lookups: map[string]*lookup{},
	}
	ch.hub.seek = ch.finder.want
	ch.directory.changed = func(id peer.ID, e *entry) {
		if e == nil {
			e = &entry{}
		}
		ch.hub.offers(id, offer{node: e.tunnel && id != ch.host.ID(), relayed: e.relayed, services: e.services, tags: e.tags})
	}
	ch.directory.back = ch.hub.cameBack
	ch.directory.many = ch.catalogs.want
	ch.cc.Connect() // leave idle mode, for good: it dials nobody
	wg.Go(func() { ch.directory.run(ctx, ch.cfg.IdleTimeout/idleSweeps, ch.hub.sweep) })
	ch.close = sync.OnceValue(func() error {
		ch.finder.close(cancel)
		err := ch.cc.Close()
		wg.Wait()
		ch.hub.work.Wait()
		ch.guard.releaseAll()
		return err
	})
}

// Close ends all calls on the channel, its tunnels and its background work, and returns when that is done; a dial that was
// under way, and a tunnel that was giving way to another, may end a moment later. Calls made afterwards fail. It is
// idempotent.
func (ch *Channel) Close() error { return ch.close() }

// Invoke implements [grpc.ClientConnInterface]: it calls an instance of the method's service. The services that every
// node has (health, reflection, p2p.*) need a named peer: they are InvalidArgument here.
func (ch *Channel) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return ch.whole.Invoke(ctx, method, args, reply, opts...)
}

// NewStream implements [grpc.ClientConnInterface], like [Channel.Invoke].
func (ch *Channel) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return ch.whole.NewStream(ctx, desc, method, opts...)
}

// Peer returns a view of the channel that calls one peer, given as ID, ID@host:port or multiaddr that ends in
// /p2p/ID. There is nothing to close. With a target that cannot be read every call is InvalidArgument.
func (ch *Channel) Peer(target string) grpc.ClientConnInterface {
	sel, err := parsePeer(target)
	if err != nil {
		sel = &selector{err: err}
	}
	return handle{ch: ch, sel: sel}
}

// Service returns a view of the channel that calls instances of the service of that full name, whatever service a
// called method belongs to. There is nothing to close. With a name that cannot be one every call is InvalidArgument.
func (ch *Channel) Service(name string) grpc.ClientConnInterface {
	if name == "" {
		return handle{ch: ch, sel: &selector{err: badTarget(checkService(name))}}
	}
	return ch.Select(Selector{Service: name})
}

// Instances returns the instances of a service that are known now, sorted by peer ID. The host itself is among them if
// it offers the service.
func (ch *Channel) Instances(service string) []Instance { return ch.hub.snapshot(service, "") }

// Services returns what a connected peer offers as far as it is known now, sorted and without the services that every
// node has.
func (ch *Channel) Services(p peer.ID) []string {
	if e := ch.directory.lookup(p); e != nil {
		return append([]string(nil), e.services...)
	}
	return nil
}

// InUse tells whether there is a tunnel to the peer, of the channel or of what [Channel.NewClient] made. A tunnel lasts
// until no call was on it for the idle timeout, and its libp2p connection is protected from the connection manager as long.
func (ch *Channel) InUse(p peer.ID) bool { return ch.guard.all.has(p) }

// Drop takes the tunnel to a peer out of use: calls on it go on to their end, later ones dial the peer anew. It is for
// whoever closes the connections to a peer, of which the channel would learn a moment later only.
func (ch *Channel) Drop(p peer.ID) { ch.hub.part(p) }
