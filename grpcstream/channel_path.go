package grpcstream

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Path returns the path to a peer, over which new tunnels to it are made. It reports false when the peer is not
// connected.
func (ch *Channel) Path(id peer.ID) (Peer, bool) {
	if id == ch.host.ID() {
		return selfPeer(ch.host), true
	}
	c := newest(ch.host.Network().ConnsToPeer(id))
	if c == nil {
		return Peer{}, false
	}
	return PeerOf(c), true
}

// Heard returns when something was last read from a tunnel of the channel on a libp2p connection; zero: never. A
// connection on which much is under way may be alive although nothing else gets through.
func (ch *Channel) Heard(c network.Conn) time.Time { return ch.guard.heard(c) }

// Heard is [Channel.Heard] for the tunnels that peers have made to the server.
func (s *Server) Heard(c network.Conn) time.Time { return s.lastOf(c, (*conn).lastHeard) }

// lastOf returns the latest time of the tunnels that a peer has made over a libp2p connection.
func (s *Server) lastOf(c network.Conn, of func(*conn, network.Conn) time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	var last time.Time
	for t := range s.tunnels {
		if under, ok := t.Conn.(*conn); ok && t.peer.ID == c.RemotePeer() {
			last = later(last, of(under, c))
		}
	}
	return last
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// overRelay tells whether a connection goes through a relay.
func overRelay(c network.Conn) bool { return c.Stat().Limited || isRelayed(c.RemoteMultiaddr()) }

// A pathTracker tells when another connection may be the best to a peer. libp2p has an event only for the first
// connection to a peer, the last, and the first that is not limited.
type pathTracker struct {
	network network.Network
	moved   func(peer.ID) // the path to a peer may be another one

	mu      sync.Mutex
	touched map[peer.ID]struct{}
	wake    chan struct{}
}

func newPathTracker(n network.Network) *pathTracker {
	return &pathTracker{
		network: n, moved: func(peer.ID) {},
		touched: map[peer.ID]struct{}{}, wake: make(chan struct{}, 1),
	}
}

// run follows the connections until ctx ends.
func (t *pathTracker) run(ctx context.Context) {
	touch := func(_ network.Network, c network.Conn) { t.touch(c.RemotePeer()) }
	bundle := &network.NotifyBundle{ConnectedF: touch, DisconnectedF: touch}
	t.network.Notify(bundle)
	defer t.network.StopNotify(bundle)
	for _, id := range t.network.Peers() {
		t.touch(id)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
		}
		t.mu.Lock()
		ids := slices.Collect(maps.Keys(t.touched))
		clear(t.touched)
		t.mu.Unlock()
		for _, id := range ids {
			t.moved(id)
		}
	}
}

// touch has a peer looked at. libp2p calls it with locks held.
func (t *pathTracker) touch(id peer.ID) {
	t.mu.Lock()
	t.touched[id] = struct{}{}
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
}
