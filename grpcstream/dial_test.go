package grpcstream

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
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
