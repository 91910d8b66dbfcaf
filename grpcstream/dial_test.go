package grpcstream

import (
	"context"
	"errors"
	"testing"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

// agedConn is a connection with an age.
type agedConn struct {
	network.Conn
	opened          time.Duration
	limited, closed bool
}

func (c *agedConn) IsClosed() bool { return c.closed }

func (c *agedConn) Stat() network.ConnStats {
	return network.ConnStats{Stats: network.Stats{Opened: time.Unix(0, 0).Add(c.opened), Limited: c.limited}}
}

func (c *agedConn) RemoteMultiaddr() ma.Multiaddr { return nil }

func TestNewest(t *testing.T) {
	first, second, last := &agedConn{opened: 1}, &agedConn{opened: 2}, &agedConn{opened: 3}
	relayed, closed := &agedConn{opened: 4, limited: true}, &agedConn{opened: 5, closed: true}
	for name, c := range map[string]struct {
		conns []network.Conn
		want  network.Conn
	}{
		"none":                      {nil, nil},
		"closed ones only":          {[]network.Conn{closed}, nil},
		"the last of several":       {[]network.Conn{second, last, first}, last},
		"a direct one before a new": {[]network.Conn{relayed, first, closed}, first},
		"a relayed one alone":       {[]network.Conn{closed, relayed}, relayed},
	} {
		if got := newest(c.conns); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

// closingNetwork is the network of a host with connections to a peer, of which the last is being closed: libp2p takes it off
// the list, then lets it refuse streams, then closes it.
type closingNetwork struct {
	network.Network
	conns []network.Conn
}

func (n *closingNetwork) ConnsToPeer(peer.ID) []network.Conn          { return n.conns }
func (n *closingNetwork) Connectedness(peer.ID) network.Connectedness { return network.Connected }

type networkHost struct {
	corehost.Host
	net network.Network
}

func (h networkHost) Network() network.Network { return h.net }

// streamConn is a connection whose streams are made by a function.
type streamConn struct {
	agedConn
	open func() (network.Stream, error)
}

func (c *streamConn) NewStream(context.Context) (network.Stream, error) { return c.open() }

func TestOpenStream_NotOnAConnectionThatIsBeingClosed(t *testing.T) {
	n := &closingNetwork{}
	opened := false
	left := &streamConn{agedConn{opened: 1}, func() (network.Stream, error) { opened = true; return nil, nil }}
	closing := &streamConn{agedConn{opened: 2}, func() (network.Stream, error) {
		n.conns = n.conns[:1]
		return nil, swarm.ErrConnClosed
	}}
	n.conns = []network.Conn{left, closing}
	if _, err := openStream(t.Context(), networkHost{net: n}, "peer"); err != nil || !opened {
		t.Errorf("%v, on the connection that is left: %v", err, opened)
	}

	// QUIC says neither that it is closed nor that it is not listed any longer.
	opened = false
	closing.open = func() (network.Stream, error) { return nil, &network.ConnError{} }
	n.conns = []network.Conn{left, closing}
	if _, err := openStream(t.Context(), networkHost{net: n}, "peer"); err != nil || !opened {
		t.Errorf("%v, on the connection that is left: %v", err, opened)
	}
	n.conns = []network.Conn{closing}
	closing.open = func() (network.Stream, error) {
		n.conns = nil
		return nil, swarm.ErrConnClosed
	}
	if _, err := openStream(t.Context(), networkHost{net: n}, "peer"); !errors.Is(err, network.ErrNoConn) {
		t.Errorf("without another connection: %v", err)
	}

	// What a connection says that another side does not want is the error, if there is no other.
	refused := &network.ConnError{ErrorCode: network.ConnGated, Remote: true}
	closing.open = func() (network.Stream, error) { return nil, refused }
	n.conns = []network.Conn{closing}
	if _, err := openStream(t.Context(), networkHost{net: n}, "peer"); !errors.Is(err, refused) {
		t.Errorf("on one that is refused: %v", err)
	}
}
