package host_test

import (
	"context"
	"sync"
	"testing"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/internal/virtual"
)

// inNetwork runs f with a relay on a simulated network of 15 ms.
func inNetwork(t *testing.T, f func(t *testing.T, n *hosttest.Network, relay corehost.Host)) {
	t.Helper()
	virtual.Test(t, func(t *testing.T) {
		n := hosttest.New(t)
		defer n.Close()
		n.SetLatencyAll(15 * time.Millisecond)
		f(t, n, n.Router(hosttest.Open).HostWith(host.Config{Relay: &host.RelayConfig{}}))
	})
}

// seenBy connects h to the relay and returns where the relay sees it.
func seenBy(t *testing.T, relay, h corehost.Host) ma.Multiaddr {
	t.Helper()
	if err := h.Connect(t.Context(), peer.AddrInfo{ID: relay.ID(), Addrs: relay.Addrs()}); err != nil {
		t.Fatal(err)
	}
	conns := relay.Network().ConnsToPeer(h.ID())
	if len(conns) != 1 {
		t.Fatalf("%d connections", len(conns))
	}
	return conns[0].RemoteMultiaddr()
}

func TestProbe_BehindRouters(t *testing.T) {
	for kind, want := range map[hosttest.RouterKind]bool{
		hosttest.Open: true, hosttest.FullCone: true, hosttest.Restricted: true, // the relay's address is one it has sent to
		hosttest.Firewall: false, hosttest.PortRestricted: false, hosttest.Symmetric: false,
	} {
		t.Run(kind.String(), func(t *testing.T) {
			inNetwork(t, func(t *testing.T, n *hosttest.Network, relay corehost.Host) {
				h := n.Router(kind).HostWith(host.Config{WAN: true})
				at := seenBy(t, relay, h)
				begun := time.Now()
				got, err := host.Probe(t.Context(), h, relay.ID(), at)
				if err != nil || got != want {
					t.Errorf("%s was reached: %v, error %v", at, got, err)
				}
				if took := time.Since(begun); got && took > 200*time.Millisecond || took > 12*time.Second {
					t.Errorf("it took %v", took)
				}
				if conns := h.Network().Conns(); len(conns) != 1 {
					t.Errorf("%d connections are left, want the one to the relay", len(conns))
				}
			})
		})
	}
}

// A relay lets a request rest that makes it dial another address than that of who asks. When it is closed meanwhile,
// nothing of it is left, or this test fails with the bubble's end.
func TestProbe_IsLeftWithTheRelay(t *testing.T) {
	inNetwork(t, func(t *testing.T, n *hosttest.Network, relay corehost.Host) {
		h, other := n.Router(hosttest.FullCone).HostWith(host.Config{WAN: true}), n.Router(hosttest.Open).Host()
		seenBy(t, relay, h)
		var asked sync.WaitGroup
		for range 3 {
			asked.Go(func() {
				if reached, err := host.Probe(t.Context(), h, relay.ID(), other.Addrs()[0]); reached {
					t.Errorf("another host was taken for this one: %v", err)
				}
			})
		}
		time.Sleep(500 * time.Millisecond)
		if err := relay.Close(); err != nil {
			t.Error(err)
		}
		asked.Wait()
	})
}

// Two hosts that only the relay reaches talk over it, and then punch a hole on the side.
func TestDialVia_PunchesAHoleBesideTheRelayedConnection(t *testing.T) {
	inNetwork(t, func(t *testing.T, n *hosttest.Network, relay corehost.Host) {
		a := n.Router(hosttest.PortRestricted).HostWith(host.Config{WAN: true})
		b := n.Router(hosttest.Firewall).HostWith(host.Config{WAN: true})
		atA, atB := seenBy(t, relay, a), seenBy(t, relay, b)
		if _, err := client.Reserve(t.Context(), b, peer.AddrInfo{ID: relay.ID()}); err != nil {
			t.Fatal(err)
		}
		through := relay.Addrs()[0].Encapsulate(ma.StringCast("/p2p/" + relay.ID().String() + "/p2p-circuit"))
		if err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: []ma.Multiaddr{through}}); err != nil {
			t.Fatal(err)
		}
		if r := <-ping.Ping(network.WithAllowLimitedConn(t.Context(), "test"), a, b.ID()); r.Error != nil || r.RTT < 60*time.Millisecond {
			t.Errorf("over the relay: %v, error %v", r.RTT, r.Error)
		}

		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		var both sync.WaitGroup
		for _, side := range []struct {
			from, to corehost.Host
			at       ma.Multiaddr
			client   bool
		}{{a, b, atB, true}, {b, a, atA, false}} {
			both.Go(func() {
				ctx := network.WithSimultaneousConnect(ctx, side.client, "test")
				c, err := host.DialVia(ctx, side.from, peer.AddrInfo{ID: side.to.ID(), Addrs: []ma.Multiaddr{side.at}})
				if err != nil {
					t.Errorf("client %v: %v", side.client, err)
				} else if c.Stat().Limited || !c.RemoteMultiaddr().Equal(side.at) {
					t.Errorf("client %v: connected to %s", side.client, c.RemoteMultiaddr())
				}
			})
		}
		both.Wait()
		if r := <-ping.Ping(t.Context(), a, b.ID()); r.Error != nil || r.RTT > 40*time.Millisecond {
			t.Errorf("directly: %v, error %v", r.RTT, r.Error)
		}
	})
}

// A relay that is gone holds up no dial that another carries, whichever of the two comes first.
func TestDial_ThroughTheRelayThatIsConnected(t *testing.T) {
	inNetwork(t, func(t *testing.T, n *hosttest.Network, relay corehost.Host) {
		other := n.Router(hosttest.Open).HostWith(host.Config{Relay: &host.RelayConfig{}})
		for _, pair := range [][2]corehost.Host{{relay, other}, {other, relay}} {
			gone, alive := pair[0], pair[1]
			a, b := n.Router(hosttest.Symmetric).HostWith(host.Config{WAN: true}), n.Router(hosttest.Symmetric).HostWith(host.Config{WAN: true})
			seenBy(t, alive, a)
			seenBy(t, alive, b)
			if _, err := client.Reserve(t.Context(), b, peer.AddrInfo{ID: alive.ID()}); err != nil {
				t.Fatal(err)
			}
			var through []ma.Multiaddr
			for _, r := range []corehost.Host{gone, alive} {
				through = append(through, r.Addrs()[0].Encapsulate(ma.StringCast("/p2p/"+r.ID().String()+"/p2p-circuit")))
			}
			n.Cut(a, gone)
			begun := time.Now()
			if err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: through}); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begun); took > 500*time.Millisecond {
				t.Errorf("it took %v", took)
			}
		}
	})
}
