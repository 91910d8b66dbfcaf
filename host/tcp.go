package host

import (
	"context"
	"slices"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/tcpreuse"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
)

// tcpTransport is TCP that dials from its listening port, so that a router, which maps by the port inside, gives the host
// one outside port: the one that a relay sees is the one that others get through to.
//
// Other dials leave from a port of their own. A dial from the listening port has the same four numbers as the other
// side's own: when two nodes find each other at once, TCP makes one connection of both dials, at which both speak first,
// and none is left. That is what happens on a link, where all meet at once, and where no router is in between; the two
// who punch a hole agree beforehand on who speaks first.
//
// A relay is behind no router, and its dials would only meet those of another relay.
type tcpTransport struct {
	*tcp.TcpTransport                   // listens, and dials from the listening port
	own               *tcp.TcpTransport // dials from a port of its own
	routed            bool              // a router may be in between
	relays            []peer.ID         // dialed from the listening port wherever they are
}

// newTCP returns the constructor of the transport.
func newTCP(routed bool, relays []peer.ID) func(transport.Upgrader, network.ResourceManager, *tcpreuse.ConnMgr) (*tcpTransport, error) {
	return func(u transport.Upgrader, rm network.ResourceManager, listeners *tcpreuse.ConnMgr) (*tcpTransport, error) {
		own, err := tcp.NewTCPTransport(u, rm, nil, tcp.DisableReuseport())
		if err != nil {
			return nil, err
		}
		var opts []tcp.Option
		if !routed {
			opts = append(opts, tcp.DisableReuseport())
		}
		shared, err := tcp.NewTCPTransport(u, rm, listeners, opts...)
		if err != nil {
			return nil, err
		}
		return &tcpTransport{shared, own, routed, relays}, nil
	}
}

var _ transport.DialUpdater = (*tcpTransport)(nil)

// Dial implements [transport.Transport].
func (t *tcpTransport) Dial(ctx context.Context, a ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	return t.DialWithUpdates(ctx, a, p, nil)
}

// DialWithUpdates implements [transport.DialUpdater].
func (t *tcpTransport) DialWithUpdates(ctx context.Context, a ma.Multiaddr, p peer.ID, updates chan<- transport.DialUpdate) (transport.CapableConn, error) {
	if t.fromListeningPort(ctx, a, p) {
		return t.TcpTransport.DialWithUpdates(ctx, a, p, updates)
	}
	return t.own.DialWithUpdates(ctx, a, p, updates)
}

func (t *tcpTransport) fromListeningPort(ctx context.Context, a ma.Multiaddr, p peer.ID) bool {
	if !t.routed {
		return false
	}
	if punching, _, _ := network.GetSimultaneousConnect(ctx); punching {
		return true
	}
	scope := addr.ScopeOf(a)
	return scope == addr.Public || scope == addr.Private && slices.Contains(t.relays, p)
}
