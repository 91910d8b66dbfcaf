package grpcstream

import (
	"context"
	"errors"
	"testing"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

// forgetful is a host whose addresses of a peer are gone when it dials, and there again afterwards.
type forgetful struct{ corehost.Host }

func (f forgetful) Network() network.Network { return forgetfulNetwork{f.Host.Network()} }

type forgetfulNetwork struct{ network.Network }

func (forgetfulNetwork) DialPeer(_ context.Context, p peer.ID) (network.Conn, error) {
	return nil, &swarm.DialError{Peer: p, Cause: swarm.ErrNoAddresses}
}

// A call to such a peer is held, as to one of which nothing is known, and not failed.
func TestDialer_AddressesThatComeAndGo(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.stranger()
		a.Peerstore().AddAddrs(b.ID(), []ma.Multiaddr{ma.StringCast("/ip4/192.0.2.1/tcp/1")}, peerstore.PermanentAddrTTL)
		ch := o.channel(a, ChannelConfig{})
		d := newDialer(forgetful{a}, ChannelConfig{}, ch.directory)
		if _, err := d.dial(t.Context(), b.ID(), nil); !errors.Is(err, errUnknownPeer) {
			t.Errorf("got %v", err)
		}
	})
}
