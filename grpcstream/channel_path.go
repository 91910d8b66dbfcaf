package grpcstream

import (
	"context"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/internal/feed"
)

// A PathEvent says that the path to a peer is another one from now on: that over which new tunnels to it are made.
type PathEvent struct {
	Peer peer.ID
	Time time.Time
	From Peer // what the path was; without a Path: the peer was not connected
	To   Peer // what it is; without a Path: the peer is not connected
}

// Moved tells whether the peer was connected before and is now, but directly instead of over a relay, over a relay
// instead of directly, or over another relay.
func (e PathEvent) Moved() bool {
	return e.From.Path != "" && e.To.Path != "" && (e.From.Path != e.To.Path || e.From.Relay != e.To.Relay)
}

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

// Paths returns the changes of the paths to all peers from now on, not from when the sequence is first read, until ctx
// ends, the channel is closed or the loop is left. It is for one loop. A path that was there for a moment only may be
// missing, never the latest; a reader more than a thousand events behind misses the oldest.
func (ch *Channel) Paths(ctx context.Context) iter.Seq[PathEvent] {
	return ch.directory.paths.feed.Follow(ctx)
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

// A pathTracker follows which connection is the best to each peer. libp2p has an event only for the first connection to
// a peer, the last, and the first that is not limited.
type pathTracker struct {
	network network.Network
	moved   func(peer.ID) // the path to a peer may be another one
	feed    feed.Feed[PathEvent]

	mu      sync.Mutex
	touched map[peer.ID]struct{}
	wake    chan struct{}
	known   map[peer.ID]Peer // used by run only
}

func newPathTracker(n network.Network) *pathTracker {
	return &pathTracker{
		network: n, moved: func(peer.ID) {},
		touched: map[peer.ID]struct{}{}, wake: make(chan struct{}, 1), known: map[peer.ID]Peer{},
	}
}

// run follows the connections until ctx ends.
func (t *pathTracker) run(ctx context.Context) {
	defer t.feed.Close()
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
			t.look(id)
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

// look tells if the path to a peer has changed.
func (t *pathTracker) look(id peer.ID) {
	e := PathEvent{Peer: id, Time: time.Now(), From: t.known[id]}
	if c := newest(t.network.ConnsToPeer(id)); c != nil {
		e.To = PeerOf(c)
		t.known[id] = e.To
	} else {
		delete(t.known, id)
	}
	t.moved(id)
	if a, b := e.From, e.To; a.Path != b.Path || a.Relay != b.Relay || a.Transport != b.Transport || !a.Since.Equal(b.Since) {
		t.feed.Publish(e)
	}
}
