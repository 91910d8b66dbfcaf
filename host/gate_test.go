package host

import (
	"crypto/rand"
	"log/slog"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// from is a connection of which only the far end matters.
type from struct {
	network.Conn
	at   ma.Multiaddr
	peer peer.ID
}

func (f from) RemoteMultiaddr() ma.Multiaddr { return f.at }
func (f from) LocalMultiaddr() ma.Multiaddr  { return f.at }
func (f from) RemotePeer() peer.ID           { return f.peer }

// The list is asked in the middle of the handshake, before anything is exchanged, and once more at its end.
func TestGate_DecidesTwice(t *testing.T) {
	friend, stranger := nobody(t), nobody(t)
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	self, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	allow, err := NewAllowList("", friend, self)
	if err != nil {
		t.Fatal(err)
	}
	at := ma.StringCast("/ip4/192.0.2.1/tcp/1")
	var clones []ma.Multiaddr
	g := &gate{
		node:  &node{log: slog.New(slog.DiscardHandler), clone: func(a ma.Multiaddr) { clones = append(clones, a) }},
		allow: allow, self: key,
	}
	for _, dir := range []network.Direction{network.DirInbound, network.DirOutbound} {
		for id, want := range map[peer.ID]bool{friend: true, stranger: false} {
			if got := g.InterceptSecured(dir, id, from{at: at, peer: id}); got != want {
				t.Errorf("%v: secured %v, want %v", dir, got, want)
			}
			if got, _ := g.InterceptUpgraded(from{at: at, peer: id}); got != want {
				t.Errorf("%v: upgraded %v, want %v", dir, got, want)
			}
		}
	}
	if len(clones) > 0 {
		t.Errorf("clones %v", clones)
	}
	if g.InterceptSecured(network.DirInbound, self, from{at: at, peer: self}) {
		t.Error("a peer with the host's own identity is let in")
	}
	if len(clones) != 1 || !clones[0].Equal(at) {
		t.Errorf("clones %v, want one at %s", clones, at)
	}
	if !g.InterceptPeerDial(stranger) || !g.InterceptAddrDial(stranger, at) || !g.InterceptAccept(from{at: at}) {
		t.Error("decided before the peer has proved its ID")
	}
}
