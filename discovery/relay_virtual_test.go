package discovery

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/event"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/internal/addr"
)

// wide is a network of sites behind routers with one relay in the middle, and 15 ms on every way.
type wide struct {
	*bubble
	asker
	relay  *site
	routed func(peer.ID) bool // KeeperConfig.Relay of everybody
}

// site is one node.
type site struct {
	h      corehost.Host
	k      *Keeper
	used   bool // everybody it is connected to is in use
	cancel context.CancelFunc
}

func inWide(t *testing.T, f func(t *testing.T, w *wide)) {
	t.Helper()
	inBubble(t, func(t *testing.T, b *bubble) {
		t.Helper()
		w := &wide{bubble: b, asker: asker{keepers: make(map[peer.ID]*Keeper)}}
		b.net.SetLatencyAll(15 * time.Millisecond)
		w.relay = w.site(b.net.Router(hosttest.Open), host.Config{WAN: true, Relay: &host.RelayConfig{}}, KeeperConfig{})
		f(t, w)
	})
}

// site starts a node behind a router. It is connected to nobody.
func (w *wide) site(at *hosttest.Router, hc host.Config, kc KeeperConfig) *site {
	w.t.Helper()
	hc.WAN = true
	hc.Setup = func(h corehost.Host) error {
		h.SetStreamHandler(testMember, func(s network.Stream) { _ = s.Reset() })
		return nil
	}
	s := &site{h: at.HostWith(hc)}
	kc.Member, kc.Logger = testMember, quiet()
	own := func(p peer.ID) bool { return w.relay != nil && p == w.relay.h.ID() }
	if kc.Relay = own; w.routed != nil {
		kc.Relay = w.routed
	}
	if kc.Keep == nil {
		kc.Keep = own
	}
	kc.InUse = func(peer.ID) bool { return s.used }
	s.k = NewKeeper(s.h, kc)
	ctx, cancel := context.WithCancel(w.ctx)
	s.cancel = cancel
	w.wg.Go(func() { _ = s.k.Run(ctx) })
	w.mu.Lock()
	w.keepers[s.h.ID()] = s.k
	w.mu.Unlock()
	w.wg.Go(func() { _ = s.k.Follow(ctx, NewExchange(s.k, w.ask(s.h))) })
	return s
}

// behind starts a node that reserves at the relay and keeps doing so, as package host/reach does.
func (w *wide) behind(kind hosttest.RouterKind, hc host.Config, kc KeeperConfig) *site {
	w.t.Helper()
	s := w.site(w.net.Router(kind), hc, kc)
	w.reserve(s)
	return s
}

func (w *wide) reserve(s *site) {
	w.t.Helper()
	bus := s.h.EventBus()
	reachability, err := bus.Emitter(new(event.EvtLocalReachabilityChanged), eventbus.Stateful)
	must(w.t, err)
	addrs, err := bus.Emitter(new(event.EvtAutoRelayAddrsUpdated), eventbus.Stateful)
	must(w.t, err)
	must(w.t, reachability.Emit(event.EvtLocalReachabilityChanged{Reachability: network.ReachabilityPrivate}))
	relay := peer.AddrInfo{ID: w.relay.h.ID(), Addrs: publicAddrs(w.relay.h)}
	ctx := w.ctx
	w.wg.Go(func() {
		held := network.Conn(nil)
		for ctx.Err() == nil {
			if held == nil || held.IsClosed() {
				held = nil
				rctx, cancel := context.WithTimeout(ctx, time.Second)
				s.k.Found(relay, Origin{Source: "join", Explicit: true})
				if sw, ok := s.h.Network().(interface {
					Backoff() interface{ Clear(peer.ID) }
				}); ok {
					sw.Backoff().Clear(relay.ID)
				}
				s.h.Peerstore().AddAddrs(relay.ID, relay.Addrs, time.Minute)
				if _, err := client.Reserve(rctx, s.h, relay); err == nil {
					held = s.h.Network().ConnsToPeer(relay.ID)[0]
					var out []ma.Multiaddr
					for _, a := range relay.Addrs {
						c, err := addr.ThroughRelay(relay.ID, a)
						must(w.t, err)
						out = append(out, c)
					}
					_ = addrs.Emit(event.EvtAutoRelayAddrsUpdated{RelayAddrs: out})
				}
				cancel()
			}
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	})
}

// publicAddrs are the addresses at which everybody reaches h.
func publicAddrs(h corehost.Host) (out []ma.Multiaddr) {
	for _, a := range h.Network().ListenAddresses() {
		if addr.ScopeOf(a) == Public && !addr.Relayed(a) {
			out = append(out, a)
		}
	}
	return out
}

func (s *site) neighbor(of *site) (Peer, bool) {
	p, ok := s.k.Peer(of.h.ID())
	return p, ok && p.State == Neighbor
}

// meet waits until two nodes are neighbors.
func (w *wide) meet(limit time.Duration, a, b *site) time.Duration {
	w.t.Helper()
	return w.within(limit, func() string {
		if _, ok := a.neighbor(b); !ok {
			return fmt.Sprintf("b is no neighbor of a: %+v", a.k.Peers())
		}
		if _, ok := b.neighbor(a); !ok {
			return fmt.Sprintf("a is no neighbor of b: %+v", b.k.Peers())
		}
		return ""
	})
}

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

// reached waits until a reaches b through the relay or directly, and returns how long that took.
func (w *wide) reached(limit time.Duration, a, b *site, relayed bool) time.Duration {
	w.t.Helper()
	return w.within(limit, func() string {
		p, ok := a.neighbor(b)
		if !ok || relayed != (p.Path.Relay != "") {
			return fmt.Sprintf("b is %+v", p)
		}
		return ""
	})
}

// direct connects a to b, which is at a public address and has a relay all the same.
func (w *wide) direct(a, b *site) {
	w.t.Helper()
	w.meet(3*time.Second, a, w.relay)
	w.meet(3*time.Second, b, w.relay)
	a.k.Found(peer.AddrInfo{ID: b.h.ID(), Addrs: publicAddrs(b.h)}, Origin{Source: "join", Explicit: true})
	w.reached(3*time.Second, a, b, false)
	w.within(3*time.Second, func() string {
		if p, _ := a.neighbor(b); len(p.Addrs) < 2 {
			return fmt.Sprintf("a does not know b's relay: %+v", p)
		}
		return ""
	})
	time.Sleep(steady)
}

func TestKeeper_ADirectPathThatIsCutIsReplacedThroughTheRelay(t *testing.T) {
	inWide(t, func(t *testing.T, w *wide) {
		a := w.behind(hosttest.PortRestricted, host.Config{}, KeeperConfig{Low: 1})
		b := w.behind(hosttest.Open, host.Config{}, KeeperConfig{Low: 1})
		a.used, b.used = true, true
		w.direct(a, b)
		w.net.Cut(a.h, b.h)
		t.Logf("back over the relay after %v", w.reached(4500*time.Millisecond, a, b, true))
	})
}

func TestKeeper_APeerThatCrashedIsReachedAtItsNewPlace(t *testing.T) {
	inWide(t, func(t *testing.T, w *wide) {
		a := w.behind(hosttest.PortRestricted, host.Config{}, KeeperConfig{Low: 1})
		key := testKey(t)
		home := w.net.Router(hosttest.Open)
		b := w.site(home, host.Config{Identity: key}, KeeperConfig{Low: 1})
		w.reserve(b)
		a.used, b.used = true, true
		w.direct(a, b)
		b.cancel()
		w.net.Unplug(b.h)
		time.Sleep(time.Second)
		b = w.site(home, host.Config{Identity: key}, KeeperConfig{Low: 1})
		w.reserve(b)
		before := a.h.Network().ConnsToPeer(b.h.ID())
		t.Logf("reached after %v", w.within(5*time.Second, func() string {
			for _, c := range a.h.Network().ConnsToPeer(b.h.ID()) {
				old := false
				for _, o := range before {
					old = old || o == c
				}
				if !old && len(b.h.Network().ConnsToPeer(a.h.ID())) > 0 {
					return ""
				}
			}
			return "a has no new connection to b"
		}))
		w.meet(5*time.Second, a, b)
	})
}

func TestKeeper_ARenumberedRouterIsGotOver(t *testing.T) {
	inWide(t, func(t *testing.T, w *wide) {
		site := w.net.Router(hosttest.PortRestricted)
		a := w.site(site, host.Config{}, KeeperConfig{Low: 1})
		w.reserve(a)
		b := w.behind(hosttest.Open, host.Config{}, KeeperConfig{Low: 1})
		a.used, b.used = true, true
		w.direct(a, b)
		site.Renumber()
		t.Logf("reached after %v", w.within(5*time.Second, func() string {
			for _, c := range append(a.h.Network().ConnsToPeer(b.h.ID()), b.h.Network().ConnsToPeer(a.h.ID())...) {
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				_, err := host.Ping(ctx, c)
				if cancel(); err != nil {
					return err.Error()
				}
			}
			return ""
		}))
		w.meet(5*time.Second, a, b)
		w.meet(5*time.Second, a, w.relay)
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
