package grpcstream

import (
	"context"
	"errors"
	"slices"
	"testing"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

func TestChannel_Path(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		o.serve(b, "x.A")
		ch := o.channel(a, ChannelConfig{})
		if at, ok := ch.Path(a.ID()); !ok || at.Path != PathMemory {
			t.Errorf("path to itself %+v, %v", at, ok)
		}
		if _, ok := ch.Path(b.ID()); ok {
			t.Error("a peer that is not connected has a path")
		}
		o.connect(a, b)
		if at, ok := ch.Path(b.ID()); !ok || at.ID != b.ID() || at.Path != PathDirect {
			t.Errorf("path %+v, %v", at, ok)
		}
		o.disconnect(a, b)
		if at, ok := ch.Path(b.ID()); ok {
			t.Errorf("a peer that was disconnected has a path: %+v", at)
		}
	})
}

func TestChannel_FindPeer(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.stranger(), o.stranger()
		o.link(a, b)
		a.Peerstore().ClearAddrs(b.ID())
		o.serve(b, "x.A")
		asked := 0
		ch := o.channel(a, ChannelConfig{FindPeer: func(_ context.Context, id peer.ID) ([]ma.Multiaddr, error) {
			if asked++; asked == 1 || id != b.ID() {
				return nil, errors.New("nobody knows")
			}
			return b.Addrs(), nil
		}})
		if got, err := askWho(t.Context(), ch.Peer(b.ID().String()), "x.A"); err != nil || got != b.ID() {
			t.Errorf("got %v, %v", got, err)
		}
		if asked != 2 {
			t.Errorf("asked %d times, want twice", asked)
		}
	})
}

// moved is a host that its peers do not find at the address that they know.
type moved struct {
	corehost.Host
	old ma.Multiaddr
}

func (m moved) Network() network.Network { return movedNetwork{m.Host.Network(), m.Host, m.old} }

type movedNetwork struct {
	network.Network
	host corehost.Host
	old  ma.Multiaddr
}

func (m movedNetwork) DialPeer(ctx context.Context, id peer.ID) (network.Conn, error) {
	if at := m.host.Peerstore().Addrs(id); len(at) == 1 && slices.ContainsFunc(at, m.old.Equal) {
		return nil, errors.New("nobody is there")
	}
	return m.Network.DialPeer(ctx, id)
}

func TestChannel_FindPeerAtNewAddress(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.stranger(), o.stranger()
		o.link(a, b)
		o.serve(b, "x.A")
		old := ma.StringCast("/ip4/192.0.2.1/tcp/1")
		a.Peerstore().ClearAddrs(b.ID())
		a.Peerstore().AddAddr(b.ID(), old, 1e12)
		ch := o.channel(moved{a, old}, ChannelConfig{FindPeer: func(context.Context, peer.ID) ([]ma.Multiaddr, error) {
			return append(b.Addrs(), old), nil
		}})
		if got, err := askWho(t.Context(), ch.Peer(b.ID().String()), "x.A"); err != nil || got != b.ID() {
			t.Errorf("got %v, %v", got, err)
		}
	})
}
