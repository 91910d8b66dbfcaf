package discovery

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/internal/addr"
)

func TestKeeper_NodesBehindNATsAreNeighborsThroughTheRelay(t *testing.T) {
	inWide(t, func(t *testing.T, w *wide) {
		a := w.behind(hosttest.Symmetric, host.Config{}, KeeperConfig{})
		b := w.behind(hosttest.PortRestricted, host.Config{}, KeeperConfig{})
		t.Logf("neighbors after %v", w.meet(30*time.Second, a, b))
		p, _ := a.neighbor(b)
		if p.Path.Relay != w.relay.h.ID() || p.RTT > 0 && p.RTT < 60*time.Millisecond {
			t.Errorf("reached by %+v, round trip %v", p.Path, p.RTT)
		}
		for _, at := range p.Addrs {
			if !addr.Relayed(at) {
				t.Errorf("a node behind a NAT is said to be at %s", at)
			}
		}
		relayed := a.h.Network().ConnsToPeer(b.h.ID())
		for _, c := range a.h.Network().ConnsToPeer(w.relay.h.ID()) {
			if got := a.k.carriedBy(c); len(got) != len(relayed) || !slices.Contains(relayed, got[0]) {
				t.Errorf("the relay's connection carries %v, want %v", got, relayed)
			}
		}
		c := w.behind(hosttest.Symmetric, host.Config{}, KeeperConfig{})
		t.Logf("a third is neighbor of both after %v", max(w.meet(3*time.Second, a, c), w.meet(3*time.Second, b, c)))
	})
}

func TestKeeper_ARelayKeepsAllThatDependOnIt(t *testing.T) {
	inWide(t, func(t *testing.T, w *wide) {
		const many = DefaultHigh + 10
		var office *hosttest.Router
		var all []*site
		for i := range many {
			if i%5 == 0 {
				office = w.net.Router(hosttest.Symmetric)
			}
			s := w.site(office, host.Config{}, KeeperConfig{Low: 1, High: 2})
			w.reserve(s)
			all = append(all, s)
		}
		time.Sleep(20 * time.Second)
		for i, s := range all {
			if n := len(s.h.Network().ConnsToPeer(w.relay.h.ID())); n == 0 {
				t.Errorf("node %d of %d is not connected to the relay", i, many)
			}
			for _, c := range s.h.Network().ConnsToPeer(w.relay.h.ID()) {
				if age := time.Since(c.Stat().Opened); age < 15*time.Second {
					t.Errorf("node %d was let go: its connection is %v old", i, age)
				}
			}
		}
	})
}

// Whoever names addresses through a relay has a node connect to that relay, which may be anywhere: unless the node's
// owner lets that relay through, nothing leaves.
func TestKeeper_RelaysThatStrangersNameAreNotConnected(t *testing.T) {
	inWide(t, func(t *testing.T, w *wide) {
		var calls atomic.Int32
		bait := w.net.Router(hosttest.Open).HostWith(host.Config{WAN: true, Relay: &host.RelayConfig{}, Libp2p: []libp2p.Option{
			libp2p.ConnectionGater(&counting{calls: &calls}),
		}})
		liar := bait.ID()
		own := w.relay.h.ID()
		victim := w.behind(hosttest.PortRestricted, host.Config{}, KeeperConfig{})
		w.meet(3*time.Second, victim, w.relay)
		at := publicAddrs(bait)[0].String()
		var records [][]byte
		for range MaxRecords {
			key := testKey(t)
			id, err := peer.IDFromPrivateKey(key)
			must(t, err)
			var addrs []string
			for _, relay := range []peer.ID{liar, testID(t)} {
				addrs = append(addrs, at+"/p2p/"+relay.String()+"/p2p-circuit", at+"/p2p/"+relay.String()+"/p2p-circuit/p2p/"+id.String())
			}
			addrs = append(addrs, "/p2p/"+liar.String()+"/p2p-circuit", "/ip4/127.0.0.1/tcp/1/p2p/"+own.String()+"/p2p-circuit")
			records = append(records, signed(t, key, id, time.Now(), addrs...))
		}
		if n := victim.k.FoundRecords(records, Origin{Source: "exchange", Scope: Loopback}); n != MaxRecords {
			t.Fatalf("%d records accepted: what leads through the node's own relay is of use", n)
		}
		time.Sleep(time.Minute)
		if n := calls.Load(); n > 0 {
			t.Errorf("%d connections came to where the liar says that a relay is", n)
		}
		for _, p := range victim.k.Peers() {
			for _, a := range p.Addrs {
				if relay, _, ok := addr.SplitRelay(a); ok && relay != own {
					t.Fatalf("%s is kept", a)
				}
			}
		}
	})
}

// counting is a gater that counts who comes in.
type counting struct {
	connmgr.ConnectionGater
	calls *atomic.Int32
}

func (c *counting) InterceptAccept(network.ConnMultiaddrs) bool { c.calls.Add(1); return false }

// An address that a person gives may lead through any relay: it is how a node behind a NAT is named.
func TestBootstrap_JoinsThroughARelay(t *testing.T) {
	inWide(t, func(t *testing.T, w *wide) {
		b := w.behind(hosttest.Symmetric, host.Config{}, KeeperConfig{})
		w.meet(3*time.Second, b, w.relay)
		w.routed = func(peer.ID) bool { return false }
		a := w.site(w.net.Router(hosttest.Symmetric), host.Config{}, KeeperConfig{Keep: func(peer.ID) bool { return false }})
		through, err := addr.ThroughRelay(w.relay.h.ID(), publicAddrs(w.relay.h)[0])
		must(t, err)
		join := NewBootstrap(BootstrapConfig{Keeper: a.k, Logger: quiet()})
		must(t, join.Join(through.String()+"/p2p/"+b.h.ID().String()))
		w.wg.Go(func() { _ = a.k.Follow(w.ctx, join) })
		t.Logf("neighbors after %v", w.meet(3*time.Second, a, b))
		if p, _ := a.neighbor(b); p.Path.Relay != w.relay.h.ID() {
			t.Errorf("reached by %+v", p.Path)
		}
	})
}

// What a peer says over a relayed connection takes nothing away from what it says over a direct one.
func TestKeeper_WhoIsHeardOnTheLinkIsReachedDirectly(t *testing.T) {
	inWide(t, func(t *testing.T, w *wide) {
		office := w.net.Router(hosttest.Symmetric)
		a, b := w.site(office, host.Config{}, KeeperConfig{}), w.site(office, host.Config{}, KeeperConfig{})
		w.reserve(a)
		w.reserve(b)
		w.meet(3*time.Second, a, b)
		w.reached(time.Second, a, b, true)
		near := simAddrs(b.h)
		a.k.Found(peer.AddrInfo{ID: b.h.ID(), Addrs: near}, lanOrigin)
		w.reached(time.Second, a, b, false)
		w.reached(time.Second, b, a, false)
		time.Sleep(2 * recordWithin)
		for _, c := range a.h.Network().ConnsToPeer(b.h.ID()) {
			if addr.Relayed(c.RemoteMultiaddr()) {
				a.k.heard(event.EvtPeerIdentificationCompleted{
					Peer: b.h.ID(), Conn: c, ListenAddrs: host.Addrs(b.h), Protocols: b.h.Mux().Protocols(),
				})
			}
		}
		p, _ := a.neighbor(b)
		private, relayed := 0, 0
		for _, at := range p.Addrs {
			switch {
			case addr.Relayed(at):
				relayed++
			case connScope(at) == Private:
				private++
			}
		}
		if private != 1 || relayed == 0 || len(a.h.Network().ConnsToPeer(b.h.ID())) < 2 {
			t.Errorf("known at %v over %d connections", p.Addrs, len(a.h.Network().ConnsToPeer(b.h.ID())))
		}
	})
}
