package p2p

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/grpc"

	"github.com/lynn9388/p2p/discovery"
	"github.com/lynn9388/p2p/discovery/dht"
	"github.com/lynn9388/p2p/discovery/mdns"
	"github.com/lynn9388/p2p/grpcstream"
	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/host/reach"
	"github.com/lynn9388/p2p/internal/feed"
	"github.com/lynn9388/p2p/protocols/neighbors"
	"github.com/lynn9388/p2p/protocols/nodeinfo"
)

// running is a node between its start and its end: the parts, and the order in which they begin and stop.
type running struct {
	node  *Node
	log   *slog.Logger
	begun time.Time

	home      *host.Home // nil without a home
	book      *discovery.Book
	allow     *host.AllowList
	host      corehost.Host
	channel   *grpcstream.Channel
	keeper    *discovery.Keeper
	bootstrap *discovery.Bootstrap
	sources   []discovery.Source
	table     *dht.DHT     // nil without a part in the table
	reach     *reach.Reach // nil with LAN
	events    feed.Feed[PeerEvent]
	metrics   *metrics                         // nil without WithMetrics
	watch     atomic.Pointer[discovery.Keeper] // the keeper, for those who may come before it

	ctx    context.Context //nolint:containedctx // the life of the background work, which no call's context bounds
	cancel context.CancelFunc
	work   sync.WaitGroup

	failOnce sync.Once
	failed   chan struct{}
	failure  error
}

// start builds and starts the parts. When one fails, those before it are returned, and have to be stopped.
func start(n *Node, joins []string) (r *running, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("p2p: start: %w", err)
		}
	}()
	r = &running{node: n, log: n.logger(), begun: time.Now(), failed: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	for _, step := range []func() error{r.openMetrics, r.openHome, r.openHost, r.checkRelays, r.openChannel, r.openDiscovery, r.openTable, r.openReach} {
		if err := step(); err != nil {
			return r, err
		}
	}
	// Everybody who follows the host's events does so before the first connection can come.
	r.passOn(r.keeper.Events(r.ctx), r.channel.Watch(r.ctx))
	r.background("keeper", r.keeper.Run)
	if r.table != nil {
		r.background("dht", r.table.Run)
	}
	r.keepReachable()
	if err := host.Listen(r.host, n.config.listen); err != nil {
		return r, err
	}
	if err := r.bootstrap.Join(append(n.config.relayPlaces(), joins...)...); err != nil {
		return r, err
	}
	for _, s := range r.sources {
		r.background(s.String(), func(ctx context.Context) error { return r.keeper.Follow(ctx, s) })
	}
	if r.allow != nil {
		r.background("allow list", func(ctx context.Context) error { return r.allow.Run(ctx, r.host, r.log) })
	}
	return r, nil
}

func (r *running) openHome() (err error) {
	c := r.node.config
	if c.listed() {
		if r.allow, err = host.NewAllowList(c.allowFile, c.allow...); err != nil {
			return err
		}
		r.node.access.list.Store(r.allow)
	}
	if c.home == "" {
		return nil
	}
	if r.home, err = host.OpenHome(c.home); err != nil {
		return err
	}
	r.book, err = discovery.OpenBook(r.home)
	return err
}

func (r *running) openHost() (err error) {
	c := r.node.config
	key := c.identity
	if r.home != nil {
		if key, err = r.home.Identity(); err != nil {
			return err
		}
	}
	r.host, err = host.New(host.Config{
		Identity:  key,
		Announce:  c.announce,
		Allow:     r.allow,
		WAN:       c.profile != profileLAN,
		MapPorts:  c.profile == profileWAN && !c.noMapping,
		Relay:     c.carries(),
		WebSocket: c.webSocket,
		Relays:    c.relayIDs(),
		Refused:   r.refused,
		Clone:     r.cloned,
		Setup:     r.node.server.Start,
		UserAgent: userAgent(c.name),
		Libp2p:    c.libp2pOptions,
		Logger:    r.log,
	})
	if err == nil {
		id := r.host.ID()
		r.node.id.Store(&id)
	}
	return err
}

// refused logs and counts what the host refused a peer.
func (r *running) refused(of host.Refusal) {
	r.metrics.refused(of)
	r.node.access.refused.peer(of)
}

// cloned passes on that another host has this node's identity. An option of the user's may make the host listen before
// there is a keeper.
func (r *running) cloned(at ma.Multiaddr) {
	if k := r.watch.Load(); k != nil {
		k.Cloned(at)
	}
}

func (r *running) openChannel() (err error) {
	c := r.node.config
	findPeer := r.findPeer
	if c.profile == profileLAN && !c.dht {
		findPeer = nil // there is nobody to ask
	}
	r.channel, err = grpcstream.NewChannel(r.host, grpcstream.ChannelConfig{
		Network:          c.network,
		DiscoveryTimeout: c.discoveryWait,
		Self:             r.node.server,
		Catalog:          nodeinfo.Names,
		Find:             r.find,
		FindPeer:         findPeer,
		RTT:              r.rtt,
		ServiceConfig:    c.serviceConfig,
		Options:          c.dialOptions,
		Logger:           r.log,
	})
	return err
}

// rtt is the round trip to a peer as the keeper measured it last.
func (r *running) rtt(id peer.ID) time.Duration {
	if k := r.watch.Load(); k != nil {
		p, _ := k.Peer(id)
		return p.RTT
	}
	return 0
}

func (r *running) openDiscovery() error {
	c := r.node.config
	r.keeper = discovery.NewKeeper(r.host, discovery.KeeperConfig{
		Low: c.low, High: c.high,
		Member:   grpcstream.TunnelProtocol(c.network),
		Allow:    r.node.access.mayConnect,
		InUse:    r.inUse,
		Relay:    r.mayCarry(),
		LinkOnly: c.profile == profileLAN,
		Keep:     r.node.access.carrier,
		Heard:    r.heard,
		Book:     r.book,
		Logger:   r.log,
	})
	r.watch.Store(r.keeper)
	r.bootstrap = discovery.NewBootstrap(discovery.BootstrapConfig{Keeper: r.keeper, Book: r.book, Logger: r.log})
	r.sources = []discovery.Source{r.bootstrap, discovery.NewExchange(r.keeper, r.askNeighbors)}
	if !c.sourcesSet && c.profile != profileRelay {
		c.sources = []discovery.Source{mdns.New(mdns.Config{Network: c.network, Logger: r.log})}
	}
	r.sources = append(r.sources, c.sources...)
	return nil
}

// inUse tells whether there are calls to or from a peer.
func (r *running) inUse(p peer.ID) bool { return r.channel.InUse(p) || r.node.server.InUse(p) }

// heard tells when something was read last on a connection.
func (r *running) heard(c network.Conn) time.Time {
	called, calling := r.node.server.Heard(c), r.channel.Heard(c)
	if called.After(calling) {
		return called
	}
	return calling
}

// askNeighbors asks one neighbor for its neighbors' signed records.
func (r *running) askNeighbors(ctx context.Context, p peer.ID) (envelopes [][]byte, err error) {
	err = r.ask(p, func(cc grpc.ClientConnInterface) error {
		found, err := neighbors.AskUnverified(ctx, cc, neighbors.MaxRecords) // the keeper verifies what is new to it
		for _, n := range found {
			envelopes = append(envelopes, n.Envelope)
		}
		return err
	})
	return envelopes, err
}

// errLeft is why a peer is not asked: it has left, and a question of the node's own is no reason to dial it.
var errLeft = errors.New("it is not connected any more")

// ask asks one connected peer something over a tunnel of the question's own: one of the node's channel would stay open, and
// make every peer that was asked look like one in use.
func (r *running) ask(p peer.ID, question func(cc grpc.ClientConnInterface) error) error {
	if r.host.Network().Connectedness(p) == network.NotConnected {
		return errLeft
	}
	cc, err := r.channel.NewClient(p.String())
	if err != nil {
		return err
	}
	return errors.Join(question(cc), cc.Close())
}

// background runs a part until the node ends. A part that ends before is the end of the node.
func (r *running) background(name string, run func(context.Context) error) {
	r.work.Go(func() {
		err := run(r.ctx)
		if r.ctx.Err() != nil {
			return
		}
		r.failOnce.Do(func() {
			r.failure = fmt.Errorf("p2p: %s ended: %w", name, cmp.Or(err, errors.New("without an error")))
			r.log.Error("the node ends: a part of it failed", "source", name, "err", r.failure)
			close(r.failed)
		})
	})
}

// cause is why the node ended by itself, or nil.
func (r *running) cause() error {
	select {
	case <-r.failed:
		return r.failure
	default:
		return nil
	}
}

// stop ends the parts. The order: withdraw announcements and stop discovery; stop accepting and let calls end, within
// the shutdown timeout; leave the broadcasts; close the client channel; close the host; wait. It runs on parts that never
// began, too.
func (r *running) stop() error {
	var errs []error
	r.cancel()
	r.work.Wait()
	r.events.Close()
	if r.table != nil {
		errs = append(errs, r.table.Close())
	}
	ctx, cancel := context.WithTimeout(context.Background(), r.node.config.shutdown)
	defer cancel()
	errs = append(errs, r.node.server.Shutdown(ctx), r.node.bus.Close())
	if r.channel != nil {
		errs = append(errs, r.channel.Close())
	}
	if r.host != nil {
		errs = append(errs, r.host.Close())
	}
	if r.home != nil {
		errs = append(errs, r.home.Close())
	}
	return errors.Join(errs...)
}
