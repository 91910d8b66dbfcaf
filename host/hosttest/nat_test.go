package hosttest_test

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/lynn9388/p2p/host/hosttest"
	"github.com/lynn9388/p2p/internal/addr"
)

// socket is a simulated socket that sends and gets single bytes.
type socket struct {
	t *testing.T
	net.PacketConn
}

func listen(t *testing.T, at hosttest.Place, port uint16) socket {
	t.Helper()
	c, err := at.Listen(port)
	if err != nil {
		t.Fatal(err)
	}
	return socket{t, c}
}

// socketBehind returns a socket at a place of its own.
func socketBehind(t *testing.T, r *hosttest.Router) socket {
	t.Helper()
	return listen(t, r.Place(), hosttest.Port)
}

func (s socket) addr() netip.AddrPort {
	u, ok := s.LocalAddr().(*net.UDPAddr)
	if !ok {
		s.t.Fatalf("local address %v", s.LocalAddr())
	}
	return u.AddrPort()
}

func (s socket) send(to netip.AddrPort) {
	s.t.Helper()
	if _, err := s.WriteTo([]byte{1}, net.UDPAddrFromAddrPort(to)); err != nil {
		s.t.Fatal(err)
	}
}

// get returns where the next packet of a second comes from; none is the zero address.
func (s socket) get() netip.AddrPort {
	s.t.Helper()
	if err := s.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		s.t.Fatal(err)
	}
	_, from, err := s.ReadFrom(make([]byte, 8))
	if err != nil {
		return netip.AddrPort{}
	}
	u, ok := from.(*net.UDPAddr)
	if !ok {
		s.t.Fatalf("a packet from %v", from)
	}
	return u.AddrPort()
}

// seenFrom returns the address that a packet from s has at to.
func (s socket) seenFrom(to socket) netip.AddrPort {
	s.t.Helper()
	s.send(to.addr())
	from := to.get()
	if !from.IsValid() {
		s.t.Fatalf("nothing from %s at %s", s.addr(), to.addr())
	}
	return from
}

// reaches tells whether a packet from s gets to to by the address given.
func (s socket) reaches(to socket, by netip.AddrPort) bool {
	s.t.Helper()
	s.send(by)
	return to.get().IsValid()
}

func TestRouter_Kinds(t *testing.T) {
	for _, tc := range []struct {
		kind hosttest.RouterKind

		translates, perDestination             bool // how it maps
		unasked, fromStranger, fromAnotherPort bool // what it lets in
	}{
		{kind: hosttest.Open, unasked: true, fromStranger: true, fromAnotherPort: true},
		{kind: hosttest.Firewall},
		{kind: hosttest.FullCone, translates: true, fromStranger: true, fromAnotherPort: true},
		{kind: hosttest.Restricted, translates: true, fromAnotherPort: true},
		{kind: hosttest.PortRestricted, translates: true},
		{kind: hosttest.Symmetric, translates: true, perDestination: true},
	} {
		t.Run(tc.kind.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T, n *hosttest.Network) {
				t.Helper()
				open, r := n.Router(hosttest.Open), n.Router(tc.kind)
				place := open.Place()
				server, same, other, stranger := listen(t, place, 1), listen(t, place, 2), socketBehind(t, open), socketBehind(t, open)
				host := socketBehind(t, r)

				if by := host.addr(); stranger.reaches(host, by) != tc.unasked {
					t.Errorf("let in at %s before anything has left: %v", by, !tc.unasked)
				}
				by := host.seenFrom(server)
				if got := by != host.addr(); got != tc.translates {
					t.Errorf("%s is seen as %s", host.addr(), by)
				}
				if tc.translates && by.Addr() != r.Addr() || !tc.translates && r.Addr().IsValid() {
					t.Errorf("seen as %s at a router with the address %s", by, r.Addr())
				}
				if again := host.seenFrom(server); again != by {
					t.Errorf("seen as %s and as %s by one server", by, again)
				}
				if !server.reaches(host, by) {
					t.Error("no answer was let in")
				}
				if got := stranger.reaches(host, by); got != tc.fromStranger {
					t.Errorf("from a stranger: let in %v", got)
				}
				if got := same.reaches(host, by); got != tc.fromAnotherPort {
					t.Errorf("from another port of the server: let in %v", got)
				}
				if got := host.seenFrom(other) != by; got != tc.perDestination {
					t.Errorf("another mapping for another server: %v", got)
				}
				if got := host.seenFrom(same) != by; got != tc.perDestination {
					t.Errorf("another mapping for another port: %v", got)
				}
			})
		})
	}
}

func TestRouter_AddressesArePublic(t *testing.T) {
	inBubble(t, func(t *testing.T, n *hosttest.Network) {
		t.Helper()
		home := n.Router(hosttest.PortRestricted)
		far := home.Router(hosttest.Symmetric)
		public := []netip.Addr{home.Addr()}
		for range 300 {
			public = append(public, n.Router(hosttest.Firewall).Place().Addr())
		}
		seen := map[netip.Addr]bool{}
		for _, ip := range public {
			m, err := manet.FromIP(ip.AsSlice())
			if err != nil || addr.IPScope(ip) != addr.Public || !manet.IsPublicAddr(m) || seen[ip] {
				t.Fatalf("%s: %v, seen before: %v, %v", ip, addr.IPScope(ip), seen[ip], err)
			}
			seen[ip] = true
		}
		for _, ip := range []netip.Addr{home.Place().Addr(), far.Place().Addr(), far.Addr()} {
			if got := addr.IPScope(ip); got != addr.Private {
				t.Errorf("%s is %v", ip, got)
			}
		}
		h := home.Host()
		if got, want := h.Addrs(), ma.StringCast("/ip4/192.168.1.3/udp/9388/quic-v1"); len(got) != 1 || !got[0].Equal(want) {
			t.Errorf("a host knows itself as %v, want %v", got, want)
		}
	})
}

func TestRouter_SameHomesDoNotMix(t *testing.T) {
	inBubble(t, func(t *testing.T, n *hosttest.Network) {
		t.Helper()
		one, two := n.Router(hosttest.FullCone), n.Router(hosttest.FullCone)
		server := socketBehind(t, n.Router(hosttest.Open))
		a, b := socketBehind(t, one), socketBehind(t, two)
		a2, b2 := socketBehind(t, one), socketBehind(t, two)
		if a.addr() != b.addr() || a2.addr() != b2.addr() {
			t.Errorf("addresses %s and %s, %s and %s", a.addr(), b.addr(), a2.addr(), b2.addr())
		}
		if atA, atB := a.seenFrom(server), b.seenFrom(server); atA.Addr() == atB.Addr() {
			t.Errorf("seen as %s and %s", atA, atB)
		}
		a.send(a2.addr())
		if a2.get() != a.addr() || b2.get().IsValid() {
			t.Error("a packet on one LAN did not get to the host next to it alone")
		}
		if atA, atA2 := a.seenFrom(server), a2.seenFrom(server); atA.Addr() != atA2.Addr() || atA == atA2 {
			t.Errorf("two hosts behind one router are seen as %s and %s", atA, atA2)
		}
	})
}

func TestRouter_SimultaneousPacketsOpenTheWay(t *testing.T) {
	inBubble(t, func(t *testing.T, n *hosttest.Network) {
		t.Helper()
		n.SetLatencyAll(15 * time.Millisecond)
		server := socketBehind(t, n.Router(hosttest.Open))
		a, b := socketBehind(t, n.Router(hosttest.PortRestricted)), socketBehind(t, n.Router(hosttest.PortRestricted))
		atA, atB := a.seenFrom(server), b.seenFrom(server)
		a.send(atB)
		time.Sleep(10 * time.Millisecond)
		b.send(atA)
		if from := b.get(); from != atA {
			t.Errorf("b got something from %v", from)
		}
		if from := a.get(); from != atB {
			t.Errorf("a got something from %v", from)
		}

		c := socketBehind(t, n.Router(hosttest.PortRestricted))
		atC := c.seenFrom(server)
		a.send(atC)
		time.Sleep(20 * time.Millisecond)
		c.send(atA)
		if c.get().IsValid() {
			t.Error("a packet got in before anything had left")
		}
		if from := a.get(); from != atC {
			t.Errorf("a got something from %v", from)
		}
	})
}

func TestRouter_Hairpin(t *testing.T) {
	inBubble(t, func(t *testing.T, n *hosttest.Network) {
		t.Helper()
		server := socketBehind(t, n.Router(hosttest.Open))
		carrier := n.Router(hosttest.FullCone)
		home, home2 := carrier.Router(hosttest.FullCone), carrier.Router(hosttest.FullCone)
		a, a2, b := socketBehind(t, home), socketBehind(t, home), socketBehind(t, home2)
		atA, atB := a.seenFrom(server), b.seenFrom(server)
		if atA.Addr() != carrier.Addr() || atB.Addr() != carrier.Addr() {
			t.Errorf("seen as %s and %s behind a carrier's %s", atA, atB, carrier.Addr())
		}
		for _, x := range []socket{b, a2} {
			if x.reaches(a, atA) {
				t.Error("got through without hairpin")
			}
		}
		carrier.SetHairpin(true)
		for _, x := range []socket{b, a2} {
			if x.send(atA); a.get().Addr() != carrier.Addr() {
				t.Error("not by the carrier's address with hairpin")
			}
		}
	})
}

func TestRouter_TwoFilters(t *testing.T) {
	inBubble(t, func(t *testing.T, n *hosttest.Network) {
		t.Helper()
		open := n.Router(hosttest.Open)
		server, stranger := socketBehind(t, open), socketBehind(t, open)
		for _, kinds := range [][2]hosttest.RouterKind{
			{hosttest.FullCone, hosttest.PortRestricted},
			{hosttest.PortRestricted, hosttest.FullCone},
			{hosttest.Firewall, hosttest.FullCone},
			{hosttest.FullCone, hosttest.Firewall},
			{hosttest.Open, hosttest.PortRestricted},
		} {
			host := socketBehind(t, n.Router(kinds[0]).Router(kinds[1]))
			by := host.seenFrom(server)
			if !server.reaches(host, by) {
				t.Errorf("%v: no answer", kinds)
			}
			if stranger.reaches(host, by) {
				t.Errorf("%v: a stranger was let in", kinds)
			}
		}
		host := socketBehind(t, n.Router(hosttest.FullCone).Router(hosttest.FullCone))
		if !stranger.reaches(host, host.seenFrom(server)) {
			t.Error("a stranger was not let in")
		}
		outer := n.Router(hosttest.PortRestricted)
		far, near := socketBehind(t, outer.Router(hosttest.PortRestricted)), socketBehind(t, outer)
		if by := far.seenFrom(near); !near.reaches(far, by) {
			t.Errorf("no answer over one router of two, at %s", by)
		}
	})
}

func TestRouter_FlushMappings(t *testing.T) {
	inBubble(t, func(t *testing.T, n *hosttest.Network) {
		t.Helper()
		server, r := socketBehind(t, n.Router(hosttest.Open)), n.Router(hosttest.FullCone)
		host := socketBehind(t, r)
		by := host.seenFrom(server)
		r.FlushMappings()
		if server.reaches(host, by) {
			t.Error("a forgotten mapping let something in")
		}
		after := host.seenFrom(server)
		if after == by || after.Addr() != by.Addr() {
			t.Errorf("seen as %s before and %s after", by, after)
		}
		if server.reaches(host, by) || !server.reaches(host, after) {
			t.Error("not only the new mapping lets packets in")
		}
	})
}

func TestRouter_Renumber(t *testing.T) {
	inBubble(t, func(t *testing.T, n *hosttest.Network) {
		t.Helper()
		server := socketBehind(t, n.Router(hosttest.Open))
		for _, r := range []*hosttest.Router{n.Router(hosttest.FullCone), n.Router(hosttest.Open).Router(hosttest.FullCone)} {
			host := socketBehind(t, r)
			by, had := host.seenFrom(server), r.Addr()
			r.Renumber()
			if r.Addr() == had || server.reaches(host, by) {
				t.Error("the old address still leads to the host")
			}
			if after := host.seenFrom(server); after.Addr() != r.Addr() || !server.reaches(host, after) {
				t.Errorf("seen as %s behind %s", after, r.Addr())
			}
		}
	})
}

func TestRouter_MappingsEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, n *hosttest.Network) {
		t.Helper()
		open := n.Router(hosttest.Open)
		server, other, r := socketBehind(t, open), socketBehind(t, open), n.Router(hosttest.PortRestricted)
		host := socketBehind(t, r)
		by := host.seenFrom(server)
		host.seenFrom(other)
		for range 3 {
			time.Sleep(90 * time.Second)
			if host.seenFrom(server) != by {
				t.Fatal("a mapping in use has ended")
			}
		}
		if !server.reaches(host, by) || other.reaches(host, by) {
			t.Error("not only those that were sent to lately are let in")
		}
		r.SetMappingTimeout(10 * time.Second)
		time.Sleep(11 * time.Second)
		if server.reaches(host, by) {
			t.Error("an unused mapping has not ended")
		}
		if host.seenFrom(server) == by {
			t.Error("the mapping came back")
		}
	})
}

func TestRouter_LatencyAndCuts(t *testing.T) {
	inBubble(t, func(t *testing.T, n *hosttest.Network) {
		t.Helper()
		n.SetLatencyAll(20 * time.Millisecond)
		open, r := n.Router(hosttest.Open), n.Router(hosttest.Symmetric)
		server, server2, a, b := open.Host(), open.Host(), r.Host(), r.Host()
		for _, tc := range []struct {
			name string
			x, y corehost.Host
			want time.Duration
		}{
			{"through a router", a, server, 40 * time.Millisecond},
			{"between public hosts", server, server2, 40 * time.Millisecond},
			{"on a LAN", a, b, 0},
		} {
			if err := tc.x.Connect(t.Context(), info(tc.y)); err != nil {
				t.Fatal(err)
			}
			got, err := roundTrip(t.Context(), t, tc.x, tc.y)
			if err != nil {
				t.Fatal(err)
			}
			if got < tc.want || got > tc.want+30*time.Millisecond {
				t.Errorf("%s: round trip %v, want %v", tc.name, got, tc.want)
			}
		}
		if err := b.Connect(t.Context(), info(server)); err != nil {
			t.Fatal(err)
		}
		n.Cut(a, server)
		n.SetLossAll(1) // not on a LAN
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := roundTrip(ctx, t, b, server); err == nil {
			t.Error("all is lost, and something arrived")
		}
		if _, err := roundTrip(t.Context(), t, a, b); err != nil {
			t.Error(err)
		}
		n.SetLossAll(0)
		ctx, cancel = context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := roundTrip(ctx, t, a, server); err == nil {
			t.Error("a reached the server over the cut")
		}
		if _, err := roundTrip(t.Context(), t, b, server); err != nil {
			t.Errorf("b does not reach the server: %v", err)
		}
	})
}
