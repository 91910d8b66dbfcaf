package host

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Refusal is something that a host did not let a peer do.
type Refusal struct {
	// Peer proved its ID and was refused.
	Peer peer.ID
	// Addr is where it is, or where it was dialed.
	Addr ma.Multiaddr
	// Direction is that of the connection.
	Direction network.Direction
	// Reason says what was refused, and why, for a person: "connection: not on the allow list".
	Reason string
}

// gate lets a connection go on only if its peer is allowed. It decides when the peer has proved its ID, in the middle
// of the handshake: a refused peer gets no stream, so no identify and no record.
type gate struct {
	node   *node
	allow  *AllowList
	relays []peer.ID               // may be connected, listed or not
	next   connmgr.ConnectionGater // the user's own; nil: none
	self   crypto.PrivKey
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
	if !g.admits(p) {
		g.node.refuse(Refusal{p, c.RemoteMultiaddr(), dir, "connection: not on the allow list"})
		return false
	}
	if dir == network.DirInbound && g.node.probes.arrived(p, c.LocalMultiaddr()) {
		return false // all that was wanted of it
	}
	return g.next == nil || g.next.InterceptSecured(dir, p, c)
}

// InterceptUpgraded implements [connmgr.ConnectionGater].
func (g *gate) InterceptUpgraded(c network.Conn) (bool, control.DisconnectReason) {
	if !g.admits(c.RemotePeer()) { // removed from the list since
		return false, 0
	}
	if g.next == nil {
		return true, 0
	}
	return g.next.InterceptUpgraded(c)
}

// admits tells whether p may be connected. A relay may, because it carries; what it may call is not decided here.
func (g *gate) admits(p peer.ID) bool { return g.allow.Allows(p) || slices.Contains(g.relays, p) }

// refuse reports a refusal.
func (n *node) refuse(r Refusal) {
	n.log.Debug("refused", "peer", r.Peer, "addr", r.Addr, "direction", r.Direction, "reason", r.Reason)
	if n.refused != nil {
		n.refused(r)
	}
}
