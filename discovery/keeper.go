package discovery

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/feed"
	"github.com/lynn9388/p2p/internal/idle"
)

// The marks of a keeper that was told none.
const (
	DefaultLow  = 15
	DefaultHigh = 20
)

// Limits on what others tell of peers.
const (
	// MaxAddrs is the most addresses that are kept of a peer.
	MaxAddrs = 16
	// MaxPeers is the most peers that are known at once, besides those that are connected.
	MaxPeers = 1000
)

// KeeperConfig says how a [Keeper] works. The zero value of each field is usable.
type KeeperConfig struct {
	// Low and High are the marks: below Low candidates are dialed, and peers that come by themselves are taken as
	// neighbors up to High. 0 stands for 15 and 20; High is raised to Low.
	Low, High int
	// Member is the protocol that the peers of this network speak. A peer that does not is no neighbor, its records
	// are not kept, and it is let go. Empty: every peer is a member.
	Member protocol.ID
	// Allow says who may be a neighbor; nil allows all. It is asked again twice a second for those who are connected.
	// It must neither block nor call the keeper.
	Allow func(peer.ID) bool
	// InUse says which peers have live calls; their connections are never closed to make room, and those of 128 of them
	// are protected from the connection manager as neighbors are. nil: none. It must neither block nor call the keeper.
	InUse func(peer.ID) bool
	// Relay says through which relays others may be dialed and handed on: this node's own relays, and those that it may
	// connect to. On a relay it also means that this node's own circuits are handed on. nil: no address that leads through
	// a relay is accepted, unless the node's user names it. It must neither block nor call the keeper.
	Relay func(relay peer.ID) bool
	// LinkOnly keeps the node to its links until its user leads it further: what is heard on a link, or told by a peer on
	// one, may name public addresses only if they are of a link of this machine. It does not hold for what a peer tells
	// that this node has dialed at a public address beyond them, since only its user can have named that.
	LinkOnly bool
	// Keep says on which peers this node depends, as on its relays: their connections are never closed to make room or
	// for what the peer is, and are looked at every few seconds. nil: none. Peers that depend on this node as their relay
	// need not be named: the keeper knows them by libp2p's marks in the connection manager. It must neither block nor call
	// the keeper.
	Keep func(peer.ID) bool
	// Heard tells when something came in over a connection last; zero: nobody knows. A connection on which something
	// comes in is not taken for dead because its answers to pings are late, behind a long upload for example. nil: pings
	// and what QUIC counts are all that is known. It must neither block nor call the keeper.
	Heard func(network.Conn) time.Time
	// Book remembers peers over restarts; nil remembers nothing.
	Book *Book
	// DialRate is the budget of dials per second that the keeper starts by itself, with bursts of twice as many;
	// 0 stands for 10.
	DialRate float64
	// Logger is told of neighbors that come and go (Info), of what a person should mend (Warn) and of the rest
	// (Debug); nil stands for slog.Default().
	Logger *slog.Logger
}

// Keeper keeps a node's neighbors. Its methods may be called concurrently, before, while and after Run.
//
// Below the low mark it dials candidates, of other networks than the neighbors' first, a few at once, each with a
// backoff of its own. Peers that connect by themselves become neighbors up to the high mark. Others stay while they are in
// use, and for two seconds in any case, so that they can ask for other neighbors; then one is let go by lot among it and
// the neighbors that are not in use, were not named by the user and are not the two oldest that this node dialed. A lost
// neighbor is redialed whatever the number of the others, within two seconds at first and each minute later, so that a
// network that was split grows together again. All connections to members are pinged each ten seconds.
type Keeper struct {
	h      corehost.Host
	cfg    KeeperConfig
	log    *slog.Logger
	events feed.Feed[Event]
	wake   chan struct{} // the loop has something to look at

	mu      sync.Mutex
	core    *core
	running bool
	changed chan struct{}     // closed and replaced at each input
	moved   []func()          // called when the network changed
	pinging map[look]struct{} // pings under way
	links   atomic.Pointer[[]netip.Prefix]
	aimed   map[peer.ID]int      // dials under way, whose addresses the peerstore has
	clones  map[string]time.Time // where a clone was looked for, and when
	checks  chan ma.Multiaddr    // addresses with this node's ID, to be looked at
}

// NewKeeper returns a keeper of h's neighbors. It does nothing until Run. One host has one keeper.
func NewKeeper(h corehost.Host, cfg KeeperConfig) *Keeper {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	k := &Keeper{
		h: h, cfg: cfg, log: cfg.Logger,
		wake:    make(chan struct{}, 1),
		core:    newCore(h.ID(), cfg, rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))),
		changed: make(chan struct{}),
		pinging: make(map[look]struct{}),
		aimed:   make(map[peer.ID]int),
		clones:  make(map[string]time.Time),
		checks:  make(chan ma.Multiaddr, 8),
	}
	k.core.myPorts = func() string { return ports(h.Addrs()) }
	k.core.tied = func(p peer.ID) bool { return idle.CarriedFor(h.ConnManager(), p) }
	return k
}

// input lets f tell the core of something, publishes what came of it and wakes the loop.
func (k *Keeper) input(f func(c *core)) {
	k.mu.Lock()
	k.core.now = time.Now()
	f(k.core)
	k.published()
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// published hands on the core's events; the caller holds the lock, so that their order is the order of the world.
func (k *Keeper) published() {
	for _, e := range k.core.events {
		k.events.Publish(e)
	}
	k.core.events = nil
	close(k.changed)
	k.changed = make(chan struct{})
}

// Follow runs a source and hands what it finds to the keeper, until ctx ends; then it returns nil. A source that fails
// is run again after a while: 1 s at first, 30 s at most.
func (k *Keeper) Follow(ctx context.Context, s Source) error {
	o := OriginOf(s)
	if _, heard := s.(Scoped); heard && k.cfg.LinkOnly {
		o.onLink = k.onLink // a source without it was chosen by the node's user
	}
	for wait := time.Second; ; wait = min(2*wait, 30*time.Second) {
		err := s.Run(ctx, k.h, func(info peer.AddrInfo) { k.Found(info, o) })
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was told to end
		}
		k.log.Debug("source ended and is run again", "source", o.Source, "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// Found tells the keeper of a peer. Addresses that the origin has no right to name are dropped, and so is a peer of
// which none is left; which relays may be in them is up to [KeeperConfig]. Found does not block.
func (k *Keeper) Found(info peer.AddrInfo, from Origin) {
	from.Relay = k.relay()
	addrs := accepted(info.ID, info.Addrs, from)
	if len(addrs) == 0 {
		return
	}
	if info.ID == k.h.ID() {
		if !from.secondhand {
			k.suspect(addrs)
		}
		return
	}
	k.input(func(c *core) { c.found(info.ID, addrs, from) })
}

// Connect connects to a peer at once, at info's addresses or at the known ones, and keeps it as a neighbor until
// [Keeper.Disconnect]: it is redialed for ever and never closed to make room. Addresses may have any scope. The error
// says what was tried; then the peer is no more than a candidate. While the keeper runs, Connect returns when the
// peer has shown that it is of this network.
func (k *Keeper) Connect(ctx context.Context, info peer.AddrInfo) error {
	if info.ID == k.h.ID() {
		return errors.New("discovery: connect: this is the node's own ID")
	}
	from := Origin{Source: "connect", Explicit: true}
	named := accepted(info.ID, info.Addrs, from)
	if len(named) == 0 && len(info.Addrs) > 0 {
		return fmt.Errorf("discovery: connect %s: none of its addresses can be dialed", info.ID)
	}
	var addrs []ma.Multiaddr
	var ours bool
	k.input(func(c *core) {
		delete(c.banned, info.ID)
		c.found(info.ID, named, from)
		addrs, ours = c.claim(info.ID)
	})
	var err error
	if len(k.h.Network().ConnsToPeer(info.ID)) == 0 {
		if len(addrs) == 0 {
			err = errors.New("no address of it is known: write ID@host:port")
		} else {
			err = k.dial(ctx, info.ID, addrs, 10*time.Second, true)
		}
	}
	if ours {
		k.input(func(c *core) { c.dialed(info.ID, err) })
	}
	if err != nil {
		return fmt.Errorf("discovery: connect %s: %w", info.ID, err)
	}
	if err := k.awaitMember(ctx, info.ID); err != nil {
		return fmt.Errorf("discovery: connect %s: %w", info.ID, err)
	}
	k.input(func(c *core) {
		if e := c.peers[info.ID]; e != nil {
			e.sticky = true
		}
	})
	return nil
}

// awaitMember waits until a connected peer was identified.
func (k *Keeper) awaitMember(ctx context.Context, p peer.ID) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		k.mu.Lock()
		running, changed := k.running, k.changed
		e := k.core.peers[p]
		var err error
		switch {
		case !running:
		case e == nil || e.conns == 0 && e.lastErr != "":
			err = errors.New("the connection was closed at once")
			if e != nil {
				err = errors.New(e.lastErr)
			}
		case !e.member:
			err = errors.New("it did not identify itself in time")
			if e.unwanted {
				err = e.left
				k.mu.Unlock()
				return err
			}
			k.mu.Unlock()
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return err
			}
		}
		k.mu.Unlock()
		return err
	}
}

// Disconnect closes the connections to a peer, whatever they are used for, and does not dial it again until it is
// named by Connect or it connects by itself.
func (k *Keeper) Disconnect(p peer.ID) error {
	return k.leave(p, func(c *core) { c.ban(p) })
}

// Forget is Disconnect, and drops all that is known and remembered of the peer.
func (k *Keeper) Forget(p peer.ID) error {
	err := k.leave(p, func(c *core) { c.forget(p) })
	if k.cfg.Book == nil {
		return err
	}
	known, berr := k.cfg.Book.Forget(p)
	if known {
		err = nil
	}
	return errors.Join(err, berr)
}

func (k *Keeper) leave(p peer.ID, f func(*core)) error {
	conns := k.h.Network().ConnsToPeer(p)
	known := len(conns) > 0
	k.input(func(c *core) { // before the connections end, so that it is clear why they do
		known = known || c.peers[p] != nil
		f(c)
	})
	for _, conn := range conns {
		_ = conn.CloseWithError(closedByUser.code()) // it is gone either way
	}
	if !known {
		return fmt.Errorf("discovery: %s is not known", p)
	}
	return nil
}

// Peers returns every known peer, ordered by ID.
func (k *Keeper) Peers() []Peer {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.core.snapshots()
}

// Peer returns what is known of one peer.
func (k *Keeper) Peer(p peer.ID) (Peer, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.core.peers[p]
	if e == nil {
		return Peer{}, false
	}
	return e.snapshot(), true
}

// Neighbors returns the neighbors, ordered by ID.
func (k *Keeper) Neighbors() []peer.ID {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []peer.ID
	for p, e := range k.core.peers {
		if e.neighbor {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

// From is how what a connected peer says comes to this node: with the scope of its connections (see [ScopeTo]), and the
// relays that [KeeperConfig] lets through.
func (k *Keeper) From(source string, p peer.ID) Origin {
	o := Origin{Source: source, Scope: ScopeTo(k.h.Network(), p), Relay: k.relay()}
	if k.cfg.LinkOnly && !k.ledTo(p) {
		o.onLink = k.onLink
	}
	return o
}

// relay returns which relays are let through; nil: none. Addresses through this node itself are of use to others.
func (k *Keeper) relay() func(peer.ID) bool {
	if k.cfg.Relay == nil {
		return nil
	}
	return func(relay peer.ID) bool { return relay == k.h.ID() || k.cfg.Relay(relay) }
}

// sated tells whether so many peers are known that the keeper need not ask for more at once: twice the high mark, so
// that there is a choice.
func (k *Keeper) sated() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.core.peers) >= 2*k.core.cfg.High
}

// Events returns what happens from the call on, until ctx ends or the keeper has ended. The sequence may be ranged over
// once. A reader that is more than 1,024 events behind misses the oldest ones: nobody waits for it. For the state at
// the start of the events call Peers after Events.
func (k *Keeper) Events(ctx context.Context) iter.Seq[Event] { return k.events.Follow(ctx) }

// settled tells whether dialing p once more is of no use: well, since it is connected or let this node go a moment ago;
// dialing, since a dial is under way.
func (k *Keeper) settled(p peer.ID) (well, dialing bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.core.peers[p]
	if e == nil {
		_, banned := k.core.banned[p]
		return banned, false
	}
	return e.conns > 0 || e.full > 0 && time.Now().Before(e.next), e.busy
}

// Parted tells whether p is one that the user parted from, by [Keeper.Disconnect] or [Keeper.Forget], and that has not come
// back by itself: nothing but a call of the user's is a reason to dial it.
func (k *Keeper) Parted(p peer.ID) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, banned := k.core.banned[p]
	return banned
}

// onMove has f called whenever the network changed; f must not block.
func (k *Keeper) onMove(f func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.moved = append(k.moved, f)
}
