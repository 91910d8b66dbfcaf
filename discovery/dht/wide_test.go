package dht

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/discovery"
	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/internal/addr"
)

// member returns a host of the network behind a router of its own.
func (b *bubble) member(kind hosttest.RouterKind, cfg host.Config) corehost.Host {
	b.t.Helper()
	cfg.WAN = true
	cfg.Setup = func(h corehost.Host) error {
		h.SetStreamHandler(testMember, func(s network.Stream) { _ = s.Reset() })
		return nil
	}
	return b.net.Router(kind).HostWith(cfg)
}

// public starts a server with a public address, which is a relay if it is told so.
func (b *bubble) public(relay *host.RelayConfig, change ...func(*settings)) *node {
	b.t.Helper()
	return b.nodeOn(b.member(hosttest.Open, host.Config{Relay: relay}), change...)
}

// behind starts a client behind a NAT that is reached through relay, and has reserved there.
func (b *bubble) behind(relay *node, change ...func(*settings)) *node {
	b.t.Helper()
	client := func(c *settings) {
		c.Client = true
		overRelays(func(p peer.ID) bool { return p == relay.host.ID() })(c)
	}
	n := b.nodeOn(b.member(hosttest.PortRestricted, host.Config{}), append([]func(*settings){client}, change...)...)
	reachability, err := n.host.EventBus().Emitter(new(event.EvtLocalReachabilityChanged), eventbus.Stateful)
	if err != nil {
		b.t.Fatal(err)
	}
	_ = reachability.Emit(event.EvtLocalReachabilityChanged{Reachability: network.ReachabilityPrivate})
	b.reserve(n, relay)
	return n
}

func (b *bubble) reserve(n, relay *node) {
	b.t.Helper()
	info := publicInfo(relay)
	n.host.ConnManager().Protect(info.ID, "test") // as a node does with its relays; a visit's end would close it
	synctest.Wait()                               // until both hosts tell of their handlers
	if err := n.host.Connect(b.ctx, info); err != nil {
		b.t.Fatal(err)
	}
	if _, err := client.Reserve(b.ctx, n.host, info); err != nil {
		b.t.Fatal(err)
	}
	through, err := addr.ThroughRelay(info.ID, info.Addrs[0])
	if err != nil {
		b.t.Fatal(err)
	}
	addrs, err := n.host.EventBus().Emitter(new(event.EvtAutoRelayAddrsUpdated), eventbus.Stateful)
	if err != nil {
		b.t.Fatal(err)
	}
	_ = addrs.Emit(event.EvtAutoRelayAddrsUpdated{RelayAddrs: []ma.Multiaddr{through}})
}

// publicInfo says where everybody reaches a node.
func publicInfo(n *node) peer.AddrInfo {
	info := peer.AddrInfo{ID: n.host.ID()}
	for _, a := range n.host.Network().ListenAddresses() {
		if addr.ScopeOf(a) == addr.Public {
			info.Addrs = append(info.Addrs, a)
		}
	}
	return info
}

// relayOf returns through whom a peer is said to be reached, if there is no other address.
func relayOf(info peer.AddrInfo) (relay peer.ID) {
	for _, a := range info.Addrs {
		through, _, ok := addr.SplitRelay(a)
		if !ok || relay != "" && relay != through {
			return ""
		}
		relay = through
	}
	return relay
}

// overRelays makes a node that takes addresses through the relays for which may is true.
func overRelays(may func(relay peer.ID) bool) func(*settings) {
	return func(c *settings) { c.keeper = &discovery.KeeperConfig{Relay: may} }
}

func anyRelay(c *settings) { overRelays(func(peer.ID) bool { return true })(c) }

func TestDHT_OneRelayIsEnough(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.net.SetLatencyAll(15 * time.Millisecond)
		relay := b.public(&host.RelayConfig{}, overRelays(func(peer.ID) bool { return false }))
		server, asker := b.behind(relay), b.behind(relay)
		server.dht.Announce([]string{service})
		took := b.within(3*time.Second, func() string {
			if info := b.find(asker, service)[server.host.ID()]; relayOf(info) != relay.host.ID() {
				return fmt.Sprintf("found at %v", info.Addrs)
			}
			return ""
		})
		t.Logf("found by the service's name after %v", took)
		info, err := asker.dht.FindPeer(t.Context(), server.host.ID())
		if err != nil || relayOf(info) != relay.host.ID() {
			t.Errorf("found by its ID: %v, %v", info.Addrs, err)
		}
		if err := asker.host.Connect(network.WithAllowLimitedConn(t.Context(), "test"), info); err != nil {
			t.Errorf("it is not reached there: %v", err)
		}
	})
}

// Clients are in no table, so that nobody would find them by their ID if they did not say where they are.
func TestDHT_ClientsAreFoundByTheirIDOverServersTheyAreNotConnectedTo(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.net.SetLatencyAll(15 * time.Millisecond)
		var servers []*node
		for i := range 5 {
			s := b.public(&host.RelayConfig{}, anyRelay)
			if servers = append(servers, s); i > 0 {
				synctest.Wait()
				if err := s.host.Connect(b.ctx, publicInfo(servers[i-1])); err != nil {
					t.Fatal(err)
				}
			}
		}
		time.Sleep(10 * time.Second)
		first := b.behind(servers[0])
		time.Sleep(10 * time.Second)
		for _, s := range servers[1:] { // as a neighbors' keeper does with those who have left
			s.host.Peerstore().ClearAddrs(first.host.ID())
		}
		last := b.behind(servers[len(servers)-1], anyRelay)
		t.Logf("found after %v", b.within(5*time.Second, func() string {
			for _, find := range []func(context.Context, peer.ID) (peer.AddrInfo, error){last.dht.FindPeer, last.dht.announcedPeer} {
				info, err := find(b.ctx, first.host.ID())
				if err != nil || relayOf(info) != servers[0].host.ID() {
					return fmt.Sprintf("%v, %v", info.Addrs, err)
				}
			}
			return ""
		}))
		for _, s := range servers {
			if slices.Contains(s.dht.Peers(), first.host.ID()) {
				t.Error("a client is in a table")
			}
		}
	})
}

func TestDHT_TheRoleChangesWhileItRuns(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		nodes := b.line(3)
		n := nodes[0]
		inTables := func(want bool) func() string {
			return func() string {
				if slices.Contains(nodes[1].dht.Peers(), n.host.ID()) != want {
					return fmt.Sprintf("in the next one's table: %v", !want)
				}
				return ""
			}
		}
		offered := func() bool { return slices.Contains(n.host.Mux().Protocols(), n.dht.proto) }
		b.within(5*time.Second, inTables(true))
		if !n.dht.Server() || !offered() {
			t.Error("a server at first")
		}
		n.dht.SetServer(false)
		n.dht.SetServer(false)
		b.within(5*time.Second, inTables(false))
		if n.dht.Server() || offered() {
			t.Error("a client still answers")
		}
		if _, err := nodes[2].dht.FindPeer(t.Context(), n.host.ID()); err != nil {
			t.Errorf("a node that became a client is not found: %v", err)
		}
		n.dht.SetServer(true)
		b.within(5*time.Second, inTables(true))
		if err := n.dht.Close(); err != nil {
			t.Error(err)
		}
		n.dht.SetServer(false)
		n.dht.SetServer(true)
		if synctest.Wait(); offered() {
			t.Error("a closed one answers again")
		}
	})
}

// A node that comes to be reached otherwise says so at once.
func TestDHT_WhereANodeIsIsAnnouncedAnewWhenItChanges(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.net.SetLatencyAll(15 * time.Millisecond)
		first, second := b.public(&host.RelayConfig{}, anyRelay), b.public(&host.RelayConfig{}, anyRelay)
		if err := first.host.Connect(b.ctx, publicInfo(second)); err != nil {
			t.Fatal(err)
		}
		n := b.behind(first)
		n.dht.Announce([]string{service})
		asker := b.behind(second, anyRelay)
		through := func(relay *node) func() string {
			return func() string {
				info := b.find(asker, service)[n.host.ID()]
				for _, a := range info.Addrs {
					if by, _, ok := addr.SplitRelay(a); ok && by == relay.host.ID() {
						return ""
					}
				}
				return fmt.Sprintf("found at %v", info.Addrs)
			}
		}
		b.within(3*time.Second, through(first))
		time.Sleep(time.Minute)
		b.reserve(n, second)
		t.Logf("known to be elsewhere after %v", b.within(6*time.Second, through(second)))
	})
}

// Whoever floods the table with records cannot make its memory grow.
func TestHomes_AreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		s := newHomes(b.net.Host(), time.Minute)
		at := []ma.Multiaddr{ma.StringCast("/ip4/9.9.9.9/tcp/1")}
		for i := range MaxRecords + 100 {
			s.AddAddrs(peer.ID(fmt.Sprint("p", i)), at, inRecord)
		}
		if got := s.len(); got != MaxRecords {
			t.Errorf("%d homes are kept, want %d", got, MaxRecords)
		}
		last := peer.ID(fmt.Sprint("p", MaxRecords+99))
		s.AddAddrs(last, []ma.Multiaddr{ma.StringCast("/ip4/9.9.9.9/tcp/2")}, inRecord)
		if got := s.PeerInfo(last).Addrs; len(got) != 1 || got[0].String() != "/ip4/9.9.9.9/tcp/2" {
			t.Errorf("the newest record says %v", got)
		}
		if got := s.Peerstore.Addrs(last); len(got) > 0 {
			t.Errorf("the host would dial %v", got)
		}
		time.Sleep(time.Minute + time.Second)
		if got := s.PeerInfo(last).Addrs; len(got) > 0 {
			t.Errorf("after its time it is at %v", got)
		}
	})
}

func TestHostile_ForeignRelaysAreNotKept(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		own := newID(t)
		n := b.node(overRelays(func(p peer.ID) bool { return p == own }))
		at := ma.StringCast("/ip4/9.9.9.9/udp/1/quic-v1")
		var liars []peer.AddrInfo
		for range 30 {
			info := peer.AddrInfo{ID: newID(t)}
			for range 30 {
				through, err := addr.ThroughRelay(newID(t), at)
				if err != nil {
					t.Fatal(err)
				}
				info.Addrs = append(info.Addrs, through)
			}
			liars = append(liars, info)
		}
		through, err := addr.ThroughRelay(own, at)
		if err != nil {
			t.Fatal(err)
		}
		honest := peer.AddrInfo{ID: newID(t), Addrs: []ma.Multiaddr{through}}
		b.liar(n, append([]peer.AddrInfo{honest}, liars...))
		got := b.find(n, service)
		if relayOf(got[honest.ID]) != own {
			t.Errorf("who is reached through the node's own relay is found at %v", got[honest.ID].Addrs)
		}
		for _, info := range liars {
			if addrs := n.host.Peerstore().Addrs(info.ID); len(addrs) > 0 {
				t.Fatalf("%v are kept", addrs)
			}
		}
	})
}
