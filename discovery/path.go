package discovery

import (
	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
)

// links tells how connections go.
func links(conns []network.Conn) []link {
	out := make([]link, len(conns))
	for i, c := range conns {
		out[i] = linkTo(c.RemoteMultiaddr())
	}
	return out
}

// linkTo tells how the connection with the other end's address goes.
func linkTo(remote ma.Multiaddr) link {
	relay, _, _ := addr.SplitRelay(remote)
	return link{addr: remote, relay: relay, scope: connScope(remote)}
}

// answeredAt is the address at which this node has dialed a peer that answered; nil if it was not this node that did.
func answeredAt(c network.Conn) ma.Multiaddr {
	remote := c.RemoteMultiaddr()
	if c.Stat().Direction != network.DirOutbound {
		return nil
	}
	if _, _, ok := addr.SplitRelay(remote); ok || dialable(remote) {
		return remote
	}
	return nil
}
