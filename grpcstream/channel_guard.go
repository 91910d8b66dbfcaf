package grpcstream

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
)

const (
	// defaultMoveGrace is how long streams may go on over a relay when there is a direct tunnel: long enough for most to
	// end by themselves, short enough to give the relay's slot back.
	defaultMoveGrace = 30 * time.Second
	// moveBusyMax is how long unary calls may keep such a tunnel: they end by themselves, and cannot go on elsewhere.
	moveBusyMax = 5 * time.Minute
	// moveBusyLook is how often it is looked whether they have ended.
	moveBusyLook = time.Second
	// silentFor is how long a peer has not answered when its tunnel ends for that: a little less than gRPC's ping waits.
	silentFor = clientKeepaliveTimeout - 500*time.Millisecond
)

// A guard protects from the connection manager the connections under its tunnels, and ends tunnels over a relay that
// linger beside a direct one.
type guard struct {
	host  corehost.Host
	tag   string
	grace time.Duration
	self  Local          // the tunnels of its peers are on the same connections; or nil
	all   *tally         // of this guard and those of the clients of its channel
	work  sync.WaitGroup // what is done in the background

	mu     sync.Mutex
	held   map[peer.ID]map[*guardedConn]struct{} // protected as long as there is one: protecting twice is undone at once
	closed bool                                  // no more work
}

func newGuard(h corehost.Host, cfg ChannelConfig, all *tally) *guard {
	g := &guard{host: h, grace: cfg.MoveGrace, self: cfg.Self, all: all, held: map[peer.ID]map[*guardedConn]struct{}{}}
	g.tag = fmt.Sprintf("grpcstream-%p", g) // one of its own for each channel of a host
	return g
}

// A tally counts the guards that hold a peer.
type tally struct {
	mu sync.Mutex
	of map[peer.ID]int
}

func newTally() *tally { return &tally{of: map[peer.ID]int{}} }

func (t *tally) add(id peer.ID, n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of[id] += n; t.of[id] == 0 {
		delete(t.of, id)
	}
}

func (t *tally) has(id peer.ID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.of[id] > 0
}

// A guardedConn is a tunnel under a guard, from its handshake to its end.
type guardedConn struct {
	net.Conn
	guard *guard
	peer  Peer
	busy  func() bool // unary calls are under way on it

	// Guarded by guard.mu.
	leave *time.Timer // when it is to end; nil: it need not
	until time.Time   // when it ends although it is busy
}

// Close implements net.Conn.
func (c *guardedConn) Close() error {
	t, ok := c.Conn.(*conn)
	silent := ok && t.silent(silentFor)
	err := c.Conn.Close()
	c.guard.release(c)
	if silent {
		c.guard.abandon(t.stream.Conn())
	}
	return err
}

// hold takes a tunnel under guard.
func (g *guard) hold(c *guardedConn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	id := c.peer.ID
	if g.held[id] == nil {
		g.held[id] = map[*guardedConn]struct{}{}
		g.all.add(id, 1)
		if id != g.host.ID() {
			g.host.ConnManager().Protect(id, g.tag)
		}
	}
	g.held[id][c] = struct{}{}
	if c.peer.Path != PathDirect {
		return
	}
	for other := range g.held[id] {
		if other.peer.Path == PathRelay && other.leave == nil {
			other.until = time.Now().Add(g.grace + moveBusyMax)
			other.leave = time.AfterFunc(g.grace, func() { g.end(other) })
		}
	}
}

// end ends a tunnel over a relay, if there still is a direct one and no unary call is on it.
func (g *guard) end(c *guardedConn) {
	g.mu.Lock()
	direct := false
	for other := range g.held[c.peer.ID] {
		direct = direct || other.peer.Path == PathDirect
	}
	switch {
	case c.leave == nil: // it has ended
		g.mu.Unlock()
		return
	case !direct:
		c.leave = nil
		g.mu.Unlock()
		return
	case c.busy() && time.Now().Before(c.until):
		c.leave.Reset(moveBusyLook)
		g.mu.Unlock()
		return
	}
	g.mu.Unlock()
	if t, ok := c.Conn.(*conn); ok {
		t.end(pathMoved(c.peer))
	}
}

// pathMoved is why a tunnel over a relay ends that lingers beside a direct one.
func pathMoved(p Peer) error {
	return &Error{
		Code:    codes.Unavailable,
		Reason:  ReasonPathMoved,
		Message: fmt.Sprintf("the path to peer %s over relay %s was given up for a direct one", p.ID, p.Relay),
		Remedy:  "make the call again: it takes the direct path",
	}
}

func (g *guard) release(c *guardedConn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.leave != nil {
		c.leave.Stop()
		c.leave = nil
	}
	id := c.peer.ID
	if _, ok := g.held[id][c]; !ok {
		return // closed before, or released with all
	}
	if delete(g.held[id], c); len(g.held[id]) == 0 {
		delete(g.held, id)
		g.all.add(id, -1)
		g.host.ConnManager().Unprotect(id, g.tag)
	}
}

// heard returns when something was last read from a tunnel on a libp2p connection.
func (g *guard) heard(on network.Conn) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	var last time.Time
	for c := range g.held[on.RemotePeer()] {
		if t, ok := c.Conn.(*conn); ok {
			last = later(last, t.lastHeard(on))
		}
	}
	return last
}

// abandon closes a libp2p connection under a tunnel that has ended because the peer was silent, so that the next tunnel
// does not begin on it: if nothing moves on other tunnels there, and there is another way to the peer.
func (g *guard) abandon(c network.Conn) {
	id, since := c.RemotePeer(), time.Now().Add(-silentFor)
	if c.IsClosed() || g.moved(c).After(since) {
		return
	}
	if !slices.ContainsFunc(g.host.Network().ConnsToPeer(id), func(other network.Conn) bool { return other != c && !other.IsClosed() }) &&
		!slices.ContainsFunc(g.host.Peerstore().Addrs(id), func(a ma.Multiaddr) bool { return isRelayed(a) && !a.Equal(c.RemoteMultiaddr()) }) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		g.work.Go(func() { _ = c.Close() })
	}
}

// moved returns when something was last read or written on tunnels over a libp2p connection, whoever made them.
func (g *guard) moved(on network.Conn) time.Time {
	var last time.Time
	if s, ok := g.self.(interface {
		lastOf(network.Conn, func(*conn, network.Conn) time.Time) time.Time
	}); ok {
		last = s.lastOf(on, (*conn).lastMoved)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := range g.held[on.RemotePeer()] {
		if t, ok := c.Conn.(*conn); ok {
			last = later(last, t.lastMoved(on))
		}
	}
	return last
}

// releaseAll ends all protection, and waits for what is done in the background.
func (g *guard) releaseAll() {
	defer g.work.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for id, conns := range g.held {
		g.all.add(id, -1)
		g.host.ConnManager().Unprotect(id, g.tag)
		for c := range conns {
			if c.leave != nil {
				c.leave.Stop()
			}
		}
	}
	clear(g.held)
}

// guardedCredentials put each tunnel under guard.
type guardedCredentials struct {
	credentials.TransportCredentials
	guard *guard
}

// ClientHandshake implements credentials.TransportCredentials.
func (g guardedCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, info, err := g.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		return nil, nil, err
	}
	if ours, ok := info.(AuthInfo); ok {
		guarded := &guardedConn{Conn: c, guard: g.guard, peer: ours.Peer, busy: func() bool { return false }}
		if l := linkFrom(ctx); l != nil {
			guarded.busy = func() bool { return l.unary.Load() > 0 }
		}
		g.guard.hold(guarded)
		c = guarded
	}
	return c, info, nil
}

// Clone implements credentials.TransportCredentials.
func (g guardedCredentials) Clone() credentials.TransportCredentials {
	return guardedCredentials{g.TransportCredentials.Clone(), g.guard}
}
