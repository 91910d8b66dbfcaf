package discovery

import (
	"context"
	"fmt"
	"testing"
	"time"

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
