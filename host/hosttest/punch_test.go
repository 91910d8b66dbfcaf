package hosttest_test

import (
	"context"
	"sync"
	"testing"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host/hosttest"
)

// seenBy returns where server sees h.
func seenBy(t *testing.T, server, h corehost.Host) peer.AddrInfo {
	t.Helper()
	if err := h.Connect(t.Context(), info(server)); err != nil {
		t.Fatal(err)
	}
	conns := server.Network().ConnsToPeer(h.ID())
	if len(conns) != 1 {
		t.Fatalf("%d connections", len(conns))
	}
	return peer.AddrInfo{ID: h.ID(), Addrs: []ma.Multiaddr{conns[0].RemoteMultiaddr()}}
}

// punch has both sides dial the address at which server sees the other at the same time, a as the client.
func punch(t *testing.T, server, a, b corehost.Host) bool {
	t.Helper()
	atA, atB := seenBy(t, server, a), seenBy(t, server, b)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var both sync.WaitGroup
	both.Go(func() { _ = a.Connect(network.WithSimultaneousConnect(ctx, true, "test"), atB) })
	both.Go(func() { _ = b.Connect(network.WithSimultaneousConnect(ctx, false, "test"), atA) })
	both.Wait()
	if a.Network().Connectedness(b.ID()) != network.Connected {
		return false
	}
	if took, err := roundTrip(t.Context(), t, a, b); err != nil || took > 60*time.Millisecond {
		t.Errorf("round trip %v, %v", took, err)
	}
	return true
}

func TestRouter_HolesArePunched(t *testing.T) {
	for _, tc := range []struct {
		client, server hosttest.RouterKind
		want           bool
	}{
		{hosttest.PortRestricted, hosttest.PortRestricted, true},
		{hosttest.PortRestricted, hosttest.Restricted, true},
		{hosttest.Firewall, hosttest.Firewall, true},
		{hosttest.Firewall, hosttest.PortRestricted, true},
		{hosttest.Symmetric, hosttest.FullCone, true},
		{hosttest.Symmetric, hosttest.Restricted, true},
		{hosttest.Restricted, hosttest.Symmetric, false}, // which dials in vain: nobody knows its next port
		{hosttest.Symmetric, hosttest.PortRestricted, false},
		{hosttest.PortRestricted, hosttest.Symmetric, false},
		{hosttest.Symmetric, hosttest.Symmetric, false},
	} {
		t.Run(tc.client.String()+" to "+tc.server.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T, n *hosttest.Network) {
				t.Helper()
				n.SetLatencyAll(15 * time.Millisecond)
				middle, a, b := n.Router(hosttest.Open).Host(), n.Router(tc.client).Host(), n.Router(tc.server).Host()
				if got := punch(t, middle, a, b); got != tc.want {
					t.Errorf("connected: %v", got)
				}
			})
		})
	}
}
