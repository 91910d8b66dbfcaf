package reach_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/host/reach"
	"github.com/lynn9388/p2p/internal/poll"
)

func TestReach_ReservesAtOnceWithADeadRelayToo(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		w.Unplug(w.relays[0])
		n := w.node(w.Router(hosttest.PortRestricted))
		took := poll.Until(t, time.Second, poll.Not("a reservation", func() bool {
			synctest.Wait() // for what follows from it
			return n.Status().Relays[1].Reserved
		}))
		if took > 500*time.Millisecond {
			t.Errorf("a reservation after %v", took)
		}
		s := n.Status()
		if s.Relays[0].Reserved || len(s.Circuits) != 1 || len(s.Observed) != 1 || s.Mapping != reach.MappingSomeNAT {
			t.Errorf("%+v", s)
		}
		if got := circuits(n); len(got) != 1 || !strings.Contains(got[0].String(), w.relays[1].ID().String()) {
			t.Errorf("announced: %v", got)
		}
		poll.Until(t, 10*time.Second, poll.Not("what is wrong with the other", func() bool {
			return strings.Contains(n.Status().Relays[0].LastError, "no answer")
		}))
	})
}

// circuits returns the addresses through relays that a host announces.
func circuits(h interface{ Addrs() []ma.Multiaddr }) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, a := range h.Addrs() {
		if relayedAddr(a) {
			out = append(out, a)
		}
	}
	return out
}

func relayedAddr(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}

func TestReach_NATKindByTwoRelays(t *testing.T) {
	for kind, want := range map[hosttest.RouterKind]reach.Mapping{
		hosttest.Open: reach.MappingNone, hosttest.Firewall: reach.MappingNone,
		hosttest.FullCone: reach.MappingIndependent, hosttest.PortRestricted: reach.MappingIndependent,
		hosttest.Symmetric: reach.MappingSymmetric,
	} {
		inWorld(t, 2, func(t *testing.T, w *world) {
			n := w.node(w.Router(kind))
			w.reserved(n)
			poll.Until(t, time.Second, func() string {
				if s := n.Status(); s.Mapping != want || s.UDP != want || s.TCP != reach.MappingUnknown {
					return kind.String() + ": " + s.Mapping.String()
				}
				return ""
			})
		})
	}
}

func TestReach_Filtering(t *testing.T) {
	for kind, want := range map[hosttest.RouterKind]reach.Filtering{
		hosttest.FullCone: reach.FilteringOpen, hosttest.Restricted: reach.FilteringOpen,
		hosttest.PortRestricted: reach.FilteringPort, hosttest.Symmetric: reach.FilteringPort,
	} {
		inWorld(t, 1, func(t *testing.T, w *world) {
			n := w.node(w.Router(kind))
			poll.Until(t, 20*time.Second, poll.Not(kind.String(), func() bool { return n.Status().Filtering == want }))
			if got := n.Status().Reachability; got != network.ReachabilityPrivate {
				t.Errorf("%s: %s", kind, got)
			}
		})
	}
}

func TestReach_APublicHostNoticesAndUsesNoRelays(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		n := w.node(w.Router(hosttest.Open))
		poll.Until(t, time.Second, poll.Not("it is public", func() bool {
			s := n.Status()
			return s.Reachability == network.ReachabilityPublic && len(s.Circuits) == 0 && !s.Relays[0].Reserved && len(s.Reached) == 1
		}))
		poll.Until(t, time.Second, poll.Not("its address alone is announced", func() bool {
			return len(circuits(n)) == 0 && len(n.Addrs()) == 1
		}))
	})
}

func TestReach_AFirewalledHostIsPrivate(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		n := w.node(w.Router(hosttest.Firewall))
		w.reserved(n)
		poll.Until(t, 30*time.Second, poll.Not("it is private", func() bool {
			return n.Status().Reachability == network.ReachabilityPrivate
		}))
		if s := n.Status(); len(s.Circuits) != 2 || !s.Relays[0].Reserved {
			t.Errorf("%+v", s)
		}
	})
}

// A connection through a relay that came up before the node knew where it is seen from outside.
func TestReach_CatchesEarlyConnections(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		b := w.node(w.Router(hosttest.PortRestricted))
		w.reserved(b)
		for _, caller := range []bool{true, false} {
			h := w.Router(hosttest.PortRestricted).HostWith(host.Config{WAN: true, Relays: []peer.ID{w.relays[0].ID()}})
			cfg := reach.Config{Network: "test", Relays: w.infos()}
			a := &node{Host: h}
			if !caller { // no relay of its own: it knows where it is seen from the one that carries the connection
				cfg.Relays = nil
				a = w.run(h, cfg)
			}
			if err := a.Connect(w.ctx, w.infos()[0]); err != nil {
				t.Fatal(err)
			}
			w.call(a, b)
			if caller {
				<-time.After(20 * time.Second)
				if direct(a, b) {
					t.Error("direct without an exchange")
				}
				a = w.run(h, cfg)
			}
			t.Logf("direct after %v", w.directly(a, b, 3*time.Second))
		}
	})
}

func TestReach_BehindOneNAT(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		home := w.Router(hosttest.PortRestricted)
		a, b := w.node(home), w.node(home)
		w.reserved(a)
		w.reserved(b)
		w.call(a, b)
		took := w.directly(a, b, time.Second)
		last := a.Attempts(b.ID())
		t.Logf("direct after %v: %+v", took, last)
		if met := last[len(last)-1].Met; !strings.Contains(a.Network().ConnsToPeer(b.ID())[1].RemoteMultiaddr().String(), "192.168.1.") || len(met) != 2 || met[1].How != "lan" {
			t.Errorf("met %+v", met)
		}
	})
}

// The one is at home behind a carrier's NAT, the other has the carrier's own address, as a phone does.
func TestReach_BehindOneCarrier(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		carrier := w.Router(hosttest.PortRestricted)
		a, b := w.node(carrier.Router(hosttest.PortRestricted)), w.node(carrier)
		w.reserved(a)
		w.reserved(b)
		w.call(a, b)
		t.Logf("direct after %v", w.directly(a, b, 3*time.Second))
	})
}

func TestReach_DoubleNAT(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a := w.node(w.Router(hosttest.PortRestricted).Router(hosttest.PortRestricted))
		b := w.node(w.Router(hosttest.PortRestricted))
		w.reserved(a)
		w.reserved(b)
		w.call(b, a)
		t.Logf("direct after %v", w.directly(a, b, time.Second))
	})
}

func TestReach_BehindOneCarrierAtTwoHomes(t *testing.T) {
	for _, hairpin := range []bool{true, false} {
		inWorld(t, 1, func(t *testing.T, w *world) {
			carrier := w.Router(hosttest.PortRestricted)
			carrier.SetHairpin(hairpin)
			a, b := w.node(carrier.Router(hosttest.PortRestricted)), w.node(carrier.Router(hosttest.PortRestricted))
			w.reserved(a)
			w.reserved(b)
			w.call(a, b)
			if hairpin {
				t.Logf("direct after %v", w.directly(a, b, time.Second))
				return
			}
			<-time.After(10 * time.Second)
			if direct(a, b) {
				t.Error("direct, against theory")
			}
			t.Log(a.WhyRelayed(b.ID()))
		})
	}
}

func TestReach_OnABadLine(t *testing.T) {
	for range 20 {
		inWorld(t, 1, func(t *testing.T, w *world) {
			a, b := w.node(w.Router(hosttest.PortRestricted)), w.node(w.Router(hosttest.PortRestricted))
			w.reserved(a)
			w.reserved(b)
			w.SetLatencyAll(50 * time.Millisecond)
			w.SetLossAll(0.05)
			w.call(a, b)
			t.Logf("direct after %v", w.directly(a, b, 4*time.Second))
		})
	}
}

func TestReach_RelayedConnectionsAreClosedOnceNothingIsOnThem(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		a, b := w.node(w.Router(hosttest.PortRestricted)), w.node(w.Router(hosttest.PortRestricted))
		w.reserved(a)
		w.reserved(b)
		b.SetStreamHandler("/test", func(network.Stream) {})
		w.call(a, b)
		ctx, cancel := context.WithTimeout(network.WithAllowLimitedConn(w.ctx, "test"), time.Second)
		defer cancel()
		s, err := a.NewStream(ctx, b.ID(), "/test")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		w.directly(a, b, time.Second)
		<-time.After(30 * time.Second)
		if s.Conn().IsClosed() {
			t.Fatal("a stream on the relayed connection was cut")
		}
		if err := s.Reset(); err != nil {
			t.Fatal(err)
		}
		poll.Until(t, 5*time.Second, poll.Not("the relayed connection is closed", func() bool {
			return s.Conn().IsClosed() && len(a.Network().ConnsToPeer(b.ID())) == 1 && direct(a, b)
		}))
	})
}

// The router is restarted: what it maps to now, only a new connection to the relay can tell.
func TestReach_MappingsFlushed(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		home := w.Router(hosttest.PortRestricted)
		a, b := w.node(home), w.node(w.Router(hosttest.PortRestricted))
		w.reserved(a)
		w.reserved(b)
		<-time.After(time.Minute)
		home.FlushMappings()
		<-time.After(5 * time.Second)
		w.call(b, a)
		t.Logf("direct after %v, %d attempts", w.directly(a, b, 5*time.Second), len(b.Attempts(a.ID())))
	})
}

// The provider gives the router another address. The connections outlast it, since QUIC follows.
func TestReach_PublicAddressChanges(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		home := w.Router(hosttest.PortRestricted)
		a, b := w.node(home), w.node(w.Router(hosttest.PortRestricted))
		w.reserved(a)
		w.reserved(b)
		w.call(a, b)
		w.directly(a, b, time.Second)
		<-time.After(time.Minute)
		home.Renumber()
		for _, ends := range [][2]*node{{a, b}, {b, a}} { // as who watches over connections would
			for _, c := range ends[0].Network().ConnsToPeer(ends[1].ID()) {
				_ = c.Close()
			}
		}
		<-time.After(5 * time.Second)
		w.call(b, a)
		t.Logf("direct after %v, %d attempts", w.directly(a, b, 5*time.Second), len(b.Attempts(a.ID())))
	})
}

func TestReach_RelayAwayAndBack(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		n, other := w.node(w.Router(hosttest.PortRestricted)), w.node(w.Router(hosttest.PortRestricted))
		w.reserved(n)
		w.reserved(other)
		for _, away := range []time.Duration{3 * time.Second, 20 * time.Second, 2 * time.Minute} {
			w.Cut(w.relays[0], n)
			<-time.After(away)
			if s := n.Status(); away > 10*time.Second && (s.Relays[0].Reserved || len(s.Relays[0].Connected) > 0 || len(s.Circuits) > 0 || s.Relays[0].LastError == "") {
				t.Errorf("after %v: %+v", away, s)
			}
			w.Heal(w.relays[0], n)
			t.Logf("after %v away it is back after %v", away, w.reserved(n))
			took := poll.Until(t, 5*time.Second, poll.Not("a call gets through", func() bool {
				ctx, cancel := context.WithTimeout(network.WithAllowLimitedConn(w.ctx, "test"), 2*time.Second)
				defer cancel()
				return other.Connect(ctx, peer.AddrInfo{ID: n.ID(), Addrs: circuits(n)}) == nil
			}))
			t.Logf("a call gets through after %v", took)
			for _, c := range other.Network().ConnsToPeer(n.ID()) {
				_ = c.Close()
			}
		}
	})
}

// One end has closed the direct connection, and the other has not heard of it: the new relayed one is the sign.
func TestReach_ADirectConnectionThatOneEndLost(t *testing.T) {
	inWorld(t, 1, func(t *testing.T, w *world) {
		home := w.Router(hosttest.PortRestricted)
		a, b := w.node(home), w.node(w.Router(hosttest.PortRestricted))
		w.reserved(a)
		w.reserved(b)
		w.call(a, b)
		w.directly(a, b, time.Second)
		<-time.After(time.Minute)
		home.FlushMappings() // what b sends to a gets lost from now on
		for _, c := range b.Network().ConnsToPeer(a.ID()) {
			_ = c.Close()
		}
		<-time.After(time.Second)
		if !direct(a, b) {
			t.Fatal("a has noticed")
		}
		w.call(b, a)
		lost := a.Network().ConnsToPeer(b.ID())[0]
		t.Logf("direct again after %v", poll.Until(t, 6*time.Second, poll.Not("a new direct connection", func() bool {
			return lost.IsClosed() && direct(a, b) && direct(b, a)
		})))
	})
}
