package host

import (
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// gate lets a connection go on only if its peer is allowed. It decides when the peer has proved its ID, in the middle
// of the handshake: a refused peer gets no stream, so no identify and no record.
type gate struct {
	node  *node
	allow *AllowList
	next  connmgr.ConnectionGater // the user's own; nil: none
	self  crypto.PrivKey
}

var _ connmgr.ConnectionGater = (*gate)(nil)

// InterceptPeerDial implements [connmgr.ConnectionGater]. The allow list does not speak here: an address is asked who
// answers there by a dial to a peer that does not exist.
func (g *gate) InterceptPeerDial(p peer.ID) bool { return g.next == nil || g.next.InterceptPeerDial(p) }

// InterceptAddrDial implements [connmgr.ConnectionGater].
func (g *gate) InterceptAddrDial(p peer.ID, a ma.Multiaddr) bool {
	return g.next == nil || g.next.InterceptAddrDial(p, a)
}

// InterceptAccept implements [connmgr.ConnectionGater].
func (g *gate) InterceptAccept(c network.ConnMultiaddrs) bool {
	return g.next == nil || g.next.InterceptAccept(c)
}

// InterceptSecured implements [connmgr.ConnectionGater].
func (g *gate) InterceptSecured(dir network.Direction, p peer.ID, c network.ConnMultiaddrs) bool {
	if p.MatchesPrivateKey(g.self) {
		g.node.cloned(c.RemoteMultiaddr())
		return false
	}
	if !g.allow.Allows(p) {
		g.node.log.Debug("refused a peer that is not on the allow list", "peer", p, "addr", c.RemoteMultiaddr(), "direction", dir)
		return false
	}
	return g.next == nil || g.next.InterceptSecured(dir, p, c)
}

// InterceptUpgraded implements [connmgr.ConnectionGater].
func (g *gate) InterceptUpgraded(c network.Conn) (bool, control.DisconnectReason) {
	if !g.allow.Allows(c.RemotePeer()) { // removed from the list since
		return false, 0
	}
	if g.next == nil {
		return true, 0
	}
	return g.next.InterceptUpgraded(c)
}
