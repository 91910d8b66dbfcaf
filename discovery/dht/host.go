package dht

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
	"github.com/lynn9388/p2p/internal/idle"
)

const (
	// dialTimeout bounds a dial: a dead node must not hold up a lookup.
	dialTimeout = 3 * time.Second
	// linger is how long a connection made for the table is kept after its last use. It is less than the time after
	// which a keeper of neighbors draws lots about a connection that is one too many.
	linger = time.Second
)

// guarded is the host as the library sees it: who may ask is looked at before it is, connections made for the table are
// not kept longer than needed, and none is protected: the neighbors' keeper decides about those.
type guarded struct {
	corehost.Host
	d *DHT
}

// SetStreamHandler implements [corehost.Host].
func (g *guarded) SetStreamHandler(pid protocol.ID, handler network.StreamHandler) {
	if pid != g.d.proto {
		return // the library has no other
	}
	g.d.role.handle(g.d.door.guard(handler))
}

// Peerstore implements [corehost.Host].
func (g *guarded) Peerstore() peerstore.Peerstore { return g.d.homes }

// ConnManager implements [corehost.Host].
func (g *guarded) ConnManager() connmgr.ConnManager { return connmgr.NullConnMgr{} }

// Connect implements [corehost.Host].
func (g *guarded) Connect(ctx context.Context, info peer.AddrInfo) error {
	return g.d.connect(ctx, info.ID)
}

// connect connects to a peer at the direct addresses that the peerstore has of it, for the table only.
func (d *DHT) connect(ctx context.Context, p peer.ID) error {
	if d.host.Network().Connectedness(p) == network.Connected {
		return nil
	}
	if !d.allowed(p) {
		return errNotMember
	}
	if d.cfg.Parted != nil && d.cfg.Parted(p) {
		return errParted
	}
	addrs := d.host.Peerstore().Addrs(p)
	relayed := slices.ContainsFunc(addrs, addr.Relayed)
	direct := slices.ContainsFunc(addrs, func(a ma.Multiaddr) bool { return !addr.Relayed(a) })
	switch {
	case relayed && !direct:
		return errRelayed
	case relayed:
		ctx = network.WithForceDirectDial(ctx, "dht")
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	defer d.visits.made(p) // also when nobody waited for the end of it
	return d.host.Connect(ctx, peer.AddrInfo{ID: p})
}

// errParted is why a member is not asked.
var errParted = errors.New("dht: the user parted from the peer")

// errRelayed is why a client is not asked: servers are reached directly, and a lookup is not worth what a relay carries.
var errRelayed = errors.New("dht: the peer is reached through a relay only")

// visits are the connections that were made for the table.
type visits struct {
	host  corehost.Host
	inUse func(peer.ID) bool

	mu     sync.Mutex
	closed bool
	of     map[peer.ID]*visit
	ending sync.WaitGroup
}

// A visit is what goes on with one peer.
type visit struct {
	asking int         // questions under way
	last   time.Time   // when a connection was made or a question ended
	timer  *time.Timer // ends it; nil: no connection was made
}

func newVisits(h corehost.Host, inUse func(peer.ID) bool) *visits {
	return &visits{host: h, inUse: inUse, of: make(map[peer.ID]*visit)}
}

// made takes that a connection was made for the table.
func (v *visits) made(p peer.ID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return
	}
	x := v.visitLocked(p)
	x.last = time.Now()
	if x.timer == nil {
		x.timer = time.AfterFunc(linger, func() { v.end(p) })
	} else {
		x.timer.Reset(linger)
	}
}

// use takes that a question to p begins: the connections stay until done.
func (v *visits) use(p peer.ID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.visitLocked(p).asking++
}

// done takes that a question to p has ended.
func (v *visits) done(p peer.ID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	x := v.of[p]
	x.last = time.Now()
	if x.asking--; x.timer != nil {
		x.timer.Reset(linger)
	} else if x.asking == 0 {
		delete(v.of, p)
	}
}

func (v *visits) visitLocked(p peer.ID) *visit {
	if v.of[p] == nil {
		v.of[p] = new(visit)
	}
	return v.of[p]
}

// end closes the connections to p, unless they are asked over again, as soon as nobody else uses them. Those that p made are
// p's to close, and those that are protected are their protectors' affair.
func (v *visits) end(p peer.ID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	x := v.of[p]
	if v.closed || x == nil || x.asking > 0 || time.Since(x.last) < linger {
		return
	}
	m := v.host.ConnManager()
	if m.IsProtected(p, "") {
		delete(v.of, p)
		return
	}
	used := v.inUse(p) || idle.CarriedFor(m, p)
	var over []network.Conn
	left := false
	for _, c := range v.host.Network().ConnsToPeer(p) {
		switch {
		case c.Stat().Direction != network.DirOutbound:
		case used || !idle.Conn(c):
			left = true
		default:
			over = append(over, c)
		}
	}
	if left {
		x.timer.Reset(linger)
	} else {
		delete(v.of, p)
	}
	v.ending.Go(func() {
		for _, c := range over {
			_ = c.CloseWithError(network.ConnGarbageCollected) // it is gone either way
		}
	})
}

// close forgets all visits; the host closes their connections. Nothing is asked any more.
func (v *visits) close() {
	v.mu.Lock()
	v.closed = true
	for _, x := range v.of {
		if x.timer != nil {
			x.timer.Stop()
		}
	}
	clear(v.of)
	v.mu.Unlock()
	v.ending.Wait()
}
