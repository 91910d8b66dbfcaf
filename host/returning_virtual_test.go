package host_test

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/host/hosttest"
)

func TestRelay_DropsWhatAPeerLeftBehindWhenItIsBack(t *testing.T) {
	inNetwork(t, func(t *testing.T, n *hosttest.Network, relay corehost.Host) {
		id, _, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		crashed := n.Router(hosttest.PortRestricted).HostWith(host.Config{WAN: true, Identity: id})
		seenBy(t, relay, crashed)
		left := relay.Network().ConnsToPeer(crashed.ID())
		n.Unplug(crashed)
		back := n.Router(hosttest.PortRestricted).HostWith(host.Config{WAN: true, Identity: id})
		begun := time.Now()
		if err := back.Connect(t.Context(), peer.AddrInfo{ID: relay.ID(), Addrs: relay.Addrs()}); err != nil {
			t.Fatal(err)
		}
		for _, c := range left {
			for !c.IsClosed() {
				if time.Since(begun) > 3*time.Second {
					t.Fatalf("the connection of before is there after %v", time.Since(begun))
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
		t.Logf("dropped after %v", time.Since(begun))
		if got := relay.Network().Connectedness(back.ID()); got != network.Connected {
			t.Errorf("the new connection is gone too: %v", got)
		}
	})
}

func TestRelay_KeepsTwoConnectionsOfAPeer(t *testing.T) {
	inNetwork(t, func(t *testing.T, n *hosttest.Network, relay corehost.Host) {
		h := n.Router(hosttest.PortRestricted).HostWith(host.Config{WAN: true})
		seenBy(t, relay, h)
		if _, err := host.DialVia(t.Context(), h, peer.AddrInfo{ID: relay.ID(), Addrs: relay.Addrs()}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if conns := relay.Network().ConnsToPeer(h.ID()); len(conns) != 2 {
			t.Errorf("%d connections, want the two that live", len(conns))
		}
	})
}
