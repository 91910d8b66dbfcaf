// Package dht finds the instances of a service, and peers by their ID, in a Kademlia table that the nodes of one network
// keep among themselves: /p2p/<network>/kad/1.0.0, by go-libp2p-kad-dht.
//
// It contacts nobody but the network's nodes: the table is filled from the peers that the host is connected to, and from
// what those tell. It works on loopback and private addresses. A record in it is a claim that nobody signed, so what
// [DHT.Find] yields is to be verified by connecting; addresses in it are accepted by the rule of package discovery (see
// [Config]): with a scope at least as wide as that of the connection they came over. Only peers that speak the network's
// member protocol and are allowed enter the table, ask or are asked, and no address has more than half of a bucket.
//
// Everything is bounded: the records kept (see [MaxRecords]), the services announced ([MaxServices]), the size of
// messages, the rate of a peer's requests, how many are answered at once and for how long, the lookups at once, and the
// rounds of announcing. Connections that it made are closed a second after the last question, as soon as nobody else uses
// them, so that the neighbors stay who they are.
package dht

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	kad "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/lynn9388/p2p/discovery"
)

const (
	// DefaultLifetime is how long a record is kept that is not announced again.
	DefaultLifetime = 30 * time.Minute
	// MinLifetime is the shortest lifetime of records.
	MinLifetime = time.Second
	// MaxServices is how many services of a node are announced.
	MaxServices = 256
	// MaxFound is how many peers one search yields at most.
	MaxFound = 64

	// bucketSize is Kademlia's k: a record is kept by so many nodes, and they are asked for it. It is half of what public
	// tables need: here a node announces its services several times an hour.
	bucketSize = 10
	// alpha is how many nodes a lookup asks at once.
	alpha = 4
	// lookupsAtOnce bounds the lookups under way.
	lookupsAtOnce = 8
	// lookupTimeout ends a lookup whose context has no deadline sooner.
	lookupTimeout = 15 * time.Second
)

// Config says how [New] builds. Network and Member are required.
type Config struct {
	// Network is the network's name, which is part of the protocol ID and of the keys.
	Network string
	// Member is the protocol that the peers of this network speak. Others are neither asked nor answered.
	Member protocol.ID
	// Client makes a node that begins as a client: it asks and announces, and keeps no records for others. See
	// [DHT.SetServer].
	Client bool
	// Lifetime is how long a record is kept here that is not announced again; a node announces its own each third of it.
	// It should be the same on all nodes of a network. 0 means [DefaultLifetime], less than [MinLifetime] that.
	Lifetime time.Duration
	// Allow says who may take part; nil allows all members. It must not block.
	Allow func(peer.ID) bool
	// Parted says from which peers the node's user parted: they are not dialed for the table. nil: from none. It must not
	// block.
	Parted func(peer.ID) bool
	// InUse says which peers have live calls: connections to them are not let go. nil: none. It must not block.
	InUse func(peer.ID) bool
	// Origin is how what a connected peer says comes to this node: addresses that it has no right to name are not kept,
	// dialed or handed on. It is asked for each message, and must not block. nil: the scope of the peer's connections
	// decides, and no address that leads through a relay is taken.
	Origin func(peer.ID) discovery.Origin
	// Logger gets debug records; nil: [slog.Default].
	Logger *slog.Logger
}

// A DHT is one node's part of its network's table. Its methods may be called concurrently. Make it by [New], before the
// host listens, so that nobody asks it in vain; announcing needs [DHT.Run].
type DHT struct {
	host   corehost.Host
	cfg    Config
	log    *slog.Logger
	proto  protocol.ID
	kad    *kad.IpfsDHT
	store  *store
	sender *sender
	door   *door
	role   *role
	homes  *homes
	visits *visits
	slots  chan struct{}

	ctx    context.Context //nolint:containedctx // its life, which ends the lookups that outlast their caller's interest
	cancel context.CancelFunc

	mu       sync.Mutex
	services []string
	grown    chan struct{} // closed and replaced when somebody new answered
	changed  chan struct{} // the services, with room for one
	close    func() error
}

// errClosed is what a closed DHT answers.
var errClosed = fmt.Errorf("dht: closed: %w", net.ErrClosed)

// New returns a DHT that answers others, unless cfg says Client, and takes the peers that h is and will be connected to
// into its table. It connects to nobody by itself. Close it before the host.
func New(h corehost.Host, cfg Config) (*DHT, error) {
	if cfg.Network == "" || cfg.Member == "" {
		return nil, errors.New("dht: the network's name or its member protocol is missing")
	}
	if cfg.Lifetime == 0 {
		cfg.Lifetime = DefaultLifetime
	}
	cfg.Lifetime = max(cfg.Lifetime, MinLifetime)
	if cfg.Origin == nil {
		cfg.Origin = func(p peer.ID) discovery.Origin {
			return discovery.Origin{Source: "dht", Scope: discovery.ScopeTo(h.Network(), p)}
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	quiet()
	d := &DHT{
		host:    h,
		cfg:     cfg,
		log:     cfg.Logger,
		proto:   Protocol(cfg.Network),
		slots:   make(chan struct{}, lookupsAtOnce),
		grown:   make(chan struct{}),
		changed: make(chan struct{}, 1),
	}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.store = newStore(cfg.Lifetime)
	d.visits = newVisits(h, d.inUse)
	d.door = newDoor(d)
	d.role = &role{d: d, server: !cfg.Client}
	d.homes = newHomes(h, cfg.Lifetime)
	d.sender = newSender(d)
	k, err := kad.New(&guarded{Host: h, d: d}, d.options()...)
	if err != nil {
		d.cancel()
		return nil, fmt.Errorf("dht: %w", err)
	}
	d.mu.Lock()
	d.kad = k // it may be asking already
	d.mu.Unlock()
	d.close = sync.OnceValue(d.shut)
	return d, nil
}

// Protocol is the protocol ID of a network's table.
func Protocol(network string) protocol.ID { return prefix(network) + "/kad/1.0.0" }

func prefix(network string) protocol.ID { return protocol.ID("/p2p/" + network) }

func (d *DHT) options() []kad.Option {
	return []kad.Option{
		kad.ProtocolPrefix(prefix(d.cfg.Network)),
		kad.Mode(kad.ModeServer), // see role
		kad.BucketSize(bucketSize),
		kad.Concurrency(alpha),
		kad.DisableValues(),      // nobody needs them
		kad.DisableAutoRefresh(), // see Run
		kad.BootstrapPeersFunc(func() []peer.AddrInfo { return nil }),
		kad.Datastore(d.store),
		kad.ProviderManagerOpts(
			records.ProvideValidity(d.cfg.Lifetime),
			records.ProviderAddrTTL(inRecord),
			records.CleanupInterval(max(d.cfg.Lifetime/2, time.Second)),
			records.Cache(noCache{}), // the store is in memory
		),
		kad.RoutingTableFilter(func(_ any, p peer.ID) bool { return d.member(p) }),
		kad.RoutingTablePeerDiversityFilter(newDiversity(d.host.Network())),
		kad.LookupCheckConcurrency(2 * bucketSize),
		kad.WithCustomMessageSender(d.sender.build),
		kad.OnRequestHook(d.door.request),
	}
}

// member tells whether p may take part.
func (d *DHT) member(p peer.ID) bool {
	if !d.allowed(p) {
		return false
	}
	speaks, err := d.host.Peerstore().SupportsProtocols(p, d.cfg.Member)
	return err == nil && len(speaks) > 0
}

func (d *DHT) allowed(p peer.ID) bool { return d.cfg.Allow == nil || d.cfg.Allow(p) }

func (d *DHT) inUse(p peer.ID) bool { return d.cfg.InUse != nil && d.cfg.InUse(p) }

// Peers returns who is in the table, in no order.
func (d *DHT) Peers() []peer.ID { return d.kad.RoutingTable().ListPeers() }

// Ready tells whether there is anybody to ask.
func (d *DHT) Ready() bool { return d.kad.RoutingTable().Size() > 0 }

// answered takes that somebody answered, who may be new in the table.
func (d *DHT) answered(p peer.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.kad != nil && d.kad.RoutingTable().Find(p) != "" {
		return
	}
	close(d.grown)
	d.grown = make(chan struct{})
}

func (d *DHT) growth() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.grown
}

// awaitReady waits for somebody to ask.
func (d *DHT) awaitReady(ctx context.Context) error {
	const first, longest = time.Millisecond, time.Second
	pause := first
	for grown := d.growth(); !d.Ready(); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.ctx.Done():
			return errClosed
		case <-grown: // whoever answered is put into the table later, by another goroutine, which tells nobody
			grown, pause = d.growth(), first
		case <-time.After(pause):
			pause = min(2*pause, longest)
		}
	}
	return nil
}

// lookup takes a place among the lookups and returns a context for one, and what gives the place back.
func (d *DHT) lookup(ctx context.Context) (context.Context, func(), error) {
	if d.ctx.Err() != nil {
		return nil, nil, errClosed
	}
	select {
	case d.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	case <-d.ctx.Done():
		return nil, nil, errClosed
	}
	ctx, cancel := context.WithTimeout(network.WithDialPeerTimeout(ctx, dialTimeout), lookupTimeout)
	stop := context.AfterFunc(d.ctx, cancel)
	return ctx, sync.OnceFunc(func() {
		stop()
		cancel()
		<-d.slots
	}), nil
}

// Close ends all lookups, stops answering and announcing, and returns when that is done. It is idempotent. What was
// announced stays with others for its lifetime.
func (d *DHT) Close() error { return d.close() }

func (d *DHT) shut() error {
	d.cancel()
	d.role.end()
	d.door.close()
	err := d.kad.Close()
	d.sender.wait()
	d.visits.close()
	if err != nil {
		return fmt.Errorf("dht: close: %w", err)
	}
	return nil
}
