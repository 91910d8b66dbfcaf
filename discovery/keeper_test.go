package discovery

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// On a busy machine identify may be faster than the notification of the connection that it ran on.
func TestKeeper_IdentifiedBeforeConnected(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		ah, bh := b.net.Host(), b.net.Host()
		k := NewKeeper(ah, KeeperConfig{Member: testMember, Logger: quiet()})
		must(t, ah.Connect(t.Context(), peer.AddrInfo{ID: bh.ID(), Addrs: simAddrs(bh)}))
		conn := ah.Network().ConnsToPeer(bh.ID())[0]
		k.heard(event.EvtPeerIdentificationCompleted{Peer: bh.ID(), Conn: conn, Protocols: []protocol.ID{testMember}})
		k.connected(conn)
		if p, _ := k.Peer(bh.ID()); p.State != Neighbor || !p.Outbound {
			t.Errorf("it is %+v", p)
		}
		_ = conn.Close()
		k.disconnected(conn)
		k.heard(event.EvtPeerIdentificationCompleted{Peer: bh.ID(), Conn: conn, Protocols: []protocol.ID{testMember}})
		if p, _ := k.Peer(bh.ID()); p.State != Known {
			t.Errorf("after the end it is %+v", p)
		}
		if ah.Network().Connectedness(bh.ID()) == network.Connected {
			t.Error("the connection is there")
		}
	})
}
