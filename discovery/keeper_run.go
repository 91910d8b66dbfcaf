package discovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/safetext"
)

// protectTag is the keeper's mark in the connection manager.
const protectTag = "p2p-neighbor"

// bookEvery is how often the book is brought up to date.
const bookEvery = 30 * time.Second

// Run keeps the neighbors until ctx ends, and returns nil then. It leaves the connections open: they end with the
// host. It may be called once.
func (k *Keeper) Run(ctx context.Context) error {
	k.mu.Lock()
	if k.running {
		k.mu.Unlock()
		return errors.New("discovery: the keeper runs already")
	}
	k.running = true
	k.mu.Unlock()
	defer k.events.Close()

	sub, err := k.h.EventBus().Subscribe([]any{
		new(event.EvtPeerIdentificationCompleted), new(event.EvtPeerIdentificationFailed),
	}, eventbus.BufSize(1024), eventbus.Name("discovery.Keeper"))
	if err != nil {
		return fmt.Errorf("discovery: follow the host's events: %w", err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() { _ = sub.Close() }() // ends the reader below
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	notify := &network.NotifyBundle{
		ConnectedF:    func(_ network.Network, c network.Conn) { k.connected(c) },
		DisconnectedF: func(_ network.Network, c network.Conn) { k.disconnected(c) },
	}
	k.h.Network().Notify(notify)
	defer k.h.Network().StopNotify(notify)

	wg.Go(func() {
		for e := range sub.Out() {
			k.heard(e)
		}
	})
	wg.Go(func() { k.watchInterfaces(ctx) })
	wg.Go(func() { k.watchClock(ctx, time.Now) })
	wg.Go(func() { k.lookForClones(ctx) })
	k.adopt()
	k.recall()
	k.loop(ctx, &wg)
	k.remember()
	return nil
}

// loop does what the core wants until ctx ends.
func (k *Keeper) loop(ctx context.Context, wg *sync.WaitGroup) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	book := time.NewTicker(bookEvery)
	defer book.Stop()
	for {
		k.mu.Lock()
		k.core.now = time.Now()
		next := k.core.tick()
		out := k.core.out
		k.core.out = nil
		k.published()
		k.mu.Unlock()
		for _, a := range out {
			k.perform(ctx, wg, a)
		}
		wait := time.Hour
		if !next.IsZero() {
			wait = max(time.Until(next), time.Millisecond)
		}
		due := time.Now().Add(wait)
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		case <-timer.C:
			k.mu.Lock()
			k.core.woken(time.Since(due))
			k.mu.Unlock()
		case <-book.C:
			k.remember()
		}
	}
}

func (k *Keeper) perform(ctx context.Context, wg *sync.WaitGroup, a action) {
	switch a.kind {
	case actDial:
		wg.Go(func() {
			err := k.dial(ctx, a.peer, a.addrs, a.timeout, a.on)
			k.log.Debug("dialed", "peer", a.peer, "err", err)
			k.input(func(c *core) { c.dialed(a.peer, err) })
		})
	case actNear:
		wg.Go(func() { k.approach(ctx, a.peer, a.addrs, a.timeout) })
	case actClose:
		wg.Go(func() {
			for _, c := range k.h.Network().ConnsToPeer(a.peer) {
				_ = c.CloseWithError(a.code) // it is gone either way
			}
		})
	case actProtect:
		if a.on {
			k.h.ConnManager().Protect(a.peer, protectTag)
		} else {
			k.h.ConnManager().Unprotect(a.peer, protectTag)
		}
	case actAddrs:
		k.storeAddrs(a.peer)
	case actPing:
		conns := k.h.Network().ConnsToPeer(a.peer)
		if a.on {
			conns = slices.DeleteFunc(conns, func(c network.Conn) bool { return !linkTo(c.RemoteMultiaddr()).far() })
		}
		k.ping(ctx, wg, conns, a.look, a.timeout)
	case actLog:
		k.tell(a.event)
	}
}

// storeAddrs makes what is known of p now all that the peerstore has of it: what was known when the core asked for it may
// have been outdone by a call of [Keeper.Connect] that dials p right now, and does this itself in the end.
func (k *Keeper) storeAddrs(p peer.ID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.core.peers[p]
	if k.aimed[p] > 0 && (e == nil || e.conns == 0) {
		return
	}
	if e != nil {
		k.setAddrs(p, e.multiaddrs(), e.conns > 0)
		return
	}
	k.setAddrs(p, nil, false)
}

// setAddrs makes addrs all that the peerstore has of p, so that no part of the node dials what the keeper would not. At no
// moment are there none in between: a call may dial p right then.
func (k *Keeper) setAddrs(p peer.ID, addrs []ma.Multiaddr, connected bool) {
	ps := k.h.Peerstore()
	if len(addrs) == 0 {
		ps.ClearAddrs(p)
		return
	}
	ttl := time.Duration(peerstore.PermanentAddrTTL)
	if connected {
		ttl = peerstore.ConnectedAddrTTL
	}
	ps.SetAddrs(p, addrs, ttl)
	var others []ma.Multiaddr
	for _, a := range ps.Addrs(p) {
		if !slices.ContainsFunc(addrs, a.Equal) {
			others = append(others, a)
		}
	}
	ps.SetAddrs(p, others, 0)
}

func (k *Keeper) tell(e Event) {
	short := []any{"peer", e.Peer.ID}
	switch at := e.Peer.Path; {
	case at.Relay != "":
		short = append(short, "addr", safetext.Clean(at.Addr.String()), "relay", at.Relay)
	case at.Addr != nil:
		short = append(short, "addr", safetext.Clean(at.Addr.String()))
	case len(e.Peer.Addrs) > 0:
		short = append(short, "addr", safetext.Clean(e.Peer.Addrs[0].String()))
	}
	switch e.Kind {
	case PeerNeighbor:
		k.log.Info("neighbor joined", append(short, "source", e.Peer.Source)...)
	case PeerPathChanged:
		if e.Peer.Path.Relay != "" {
			k.log.Info("peer is reached through a relay now", short...)
		} else {
			k.log.Info("peer is reached directly now", short...)
		}
	case PeerLeft:
		k.log.Info("neighbor left", append(short, "err", e.Err)...)
	case PeerUnreachable, PeerClone, PeerIdentityRefused, PeerIdentityChanged:
		k.log.Warn(e.Err.Error(), "kind", string(e.Kind)) //nolint:sloglint // it is a message for a person, whole and clean
	case PeerFound, PeerConnected:
		k.log.Debug("peer", append(short, "kind", string(e.Kind), "source", e.Peer.Source)...)
	}
}

// connected takes a new connection. If the peer has old ones, it may be that they died when its address changed; one
// that came just now is the other half of two dials that met.
func (k *Keeper) connected(conn network.Conn) {
	p := conn.RemotePeer()
	var older []network.Conn
	k.input(func(c *core) {
		conns := k.h.Network().ConnsToPeer(p)
		c.connUp(p, len(conns), conn.Stat().Direction == network.DirOutbound)
		c.opened(p, conn.Stat().Opened)
		c.linked(p, links(conns))
		for _, o := range conns {
			if o != conn && time.Since(o.Stat().Opened) >= steady {
				older = append(older, o)
			}
		}
		if len(older) > 0 {
			c.do(action{kind: actPing, peer: p, look: lookDoubt, timeout: checkTimeout})
		}
	})
}

func (k *Keeper) disconnected(conn network.Conn) {
	p := conn.RemotePeer()
	why := closedUnknown
	if len(k.h.Network().ConnsToPeer(p)) == 0 {
		why = saidBy(conn)
	}
	k.input(func(c *core) {
		conns := k.h.Network().ConnsToPeer(p)
		c.connDown(p, len(conns), why)
		c.linked(p, links(conns))
	})
}

// saidBy reads from a connection that ended what the other end said, or that this end closed it as idle: opening a
// stream on it fails with that.
func saidBy(conn network.Conn) closeReason {
	if !conn.IsClosed() {
		return closedUnknown
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s, err := conn.NewStream(network.WithAllowLimitedConn(ctx, "closed"))
	if err == nil {
		_ = s.Reset()
		return closedUnknown
	}
	ce, ok := errors.AsType[*network.ConnError](err)
	switch {
	case !ok:
		return closedUnknown
	case ce.Remote:
		return reasonOf(ce.ErrorCode)
	case ce.ErrorCode == network.ConnGarbageCollected:
		return closedIdle
	default:
		return closedUnknown
	}
}

// heard takes an event of the host.
func (k *Keeper) heard(e any) {
	switch e := e.(type) {
	case event.EvtPeerIdentificationCompleted:
		id := identity{
			member: k.isMember(e.Protocols),
			agent:  e.AgentVersion,
		}
		if e.Conn != nil {
			// All its connections count, not only the one that it says this over: of two, one may be relayed.
			from := k.From("", e.Peer)
			from.Scope = min(from.Scope, connScope(e.Conn.RemoteMultiaddr()))
			id.addrs = accepted(e.Peer, e.ListenAddrs, from)
			if at := answeredAt(e.Conn); at != nil && len(id.addrs) < MaxAddrs && !slices.ContainsFunc(id.addrs, at.Equal) {
				id.addrs = append(id.addrs, at)
			}
		}
		if e.SignedPeerRecord != nil {
			id.record, id.seq = recordOf(e.Peer, e.SignedPeerRecord)
		}
		k.input(func(c *core) {
			if known := c.peers[e.Peer]; e.Conn != nil && (known == nil || known.conns == 0) { // not notified of it yet
				conns := k.h.Network().ConnsToPeer(e.Peer)
				c.connUp(e.Peer, len(conns), e.Conn.Stat().Direction == network.DirOutbound)
				c.linked(e.Peer, links(conns))
			}
			c.identified(e.Peer, id)
		})
	case event.EvtPeerIdentificationFailed:
		err := errors.New(safetext.Clean(e.Reason.Error()))
		k.input(func(c *core) { c.identifyFailed(e.Peer, err) })
	}
}

func (k *Keeper) isMember(protos []protocol.ID) bool {
	return k.cfg.Member == "" || slices.Contains(protos, k.cfg.Member)
}

// adopt takes the connections that were there before Run.
func (k *Keeper) adopt() {
	for _, p := range k.h.Network().Peers() {
		conns := k.h.Network().ConnsToPeer(p)
		if len(conns) == 0 {
			continue
		}
		k.input(func(c *core) {
			c.connUp(p, len(conns), conns[0].Stat().Direction == network.DirOutbound)
			c.linked(p, links(conns))
		})
		protos, err := k.h.Peerstore().GetProtocols(p)
		if err != nil || len(protos) == 0 {
			continue // identify is under way, and its event will come
		}
		id := identity{member: k.isMember(protos)}
		id.addrs = accepted(p, k.h.Peerstore().Addrs(p), k.From("inbound", p))
		if agent, err := k.h.Peerstore().Get(p, "AgentVersion"); err == nil {
			id.agent, _ = agent.(string)
		}
		k.input(func(c *core) {
			if e := c.peers[p]; e != nil && !e.identified {
				c.identified(p, id)
			}
		})
	}
}

// recall makes candidates of the peers in the book.
func (k *Keeper) recall() {
	if k.cfg.Book == nil {
		return
	}
	for _, info := range k.cfg.Book.Peers() {
		k.Found(info, Origin{Source: "book", Scope: Loopback, secondhand: true})
	}
}

// remember writes the neighbors into the book.
func (k *Keeper) remember() {
	if k.cfg.Book == nil {
		return
	}
	k.mu.Lock()
	var infos []peer.AddrInfo
	for p, e := range k.core.peers {
		if e.neighbor && len(e.addrs) > 0 {
			infos = append(infos, peer.AddrInfo{ID: p, Addrs: e.multiaddrs()})
		}
	}
	k.mu.Unlock()
	if err := k.cfg.Book.remember(infos); err != nil {
		k.log.Warn("cannot remember the neighbors", "err", err)
	}
}
