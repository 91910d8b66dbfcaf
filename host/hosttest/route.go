package hosttest

import (
	"net"
	"net/netip"
	"time"

	"github.com/marcopolo/simnet"
)

// A packet goes up through its sender's routers until it is in an area that has its destination. Then it is on its way
// for as long as the link takes. When it arrives it goes down through the receiver's routers, which decide by what has
// left them until that moment: so two packets that are on their way at the same time open the way for each other.

// area is a network of addresses: the backbone, or what is behind a router. Each address belongs to a [*station] or to
// the [*Router] that leads to it.
type area struct{ at map[netip.Addr]any }

func (a *area) put(ip netip.Addr, x any) {
	if a.at == nil {
		a.at = map[netip.Addr]any{}
	}
	a.at[ip] = x
}

// passage is a packet on its way. As its destination it stands for the one receiver of the line, whatever the packet's
// own is, since private addresses exist more than once.
type passage struct {
	from, to netip.AddrPort
	area     *area
	delay    time.Duration
}

// Network implements [net.Addr].
func (*passage) Network() string { return "udp" }

// String implements [net.Addr].
func (*passage) String() string { return "0.0.0.0:0" }

func delayOf(p *simnet.Packet) time.Duration {
	if v, ok := p.To.(*passage); ok {
		return v.delay
	}
	return 0
}

// RecvPacket implements [simnet.PacketReceiver] for what the station's sockets send.
func (s *station) RecvPacket(p *simnet.Packet) {
	from, ok := addrPort(p.From)
	to, ok2 := addrPort(p.To)
	if !ok || !ok2 {
		return
	}
	s.net.mu.Lock()
	v := s.net.depart(s, from, to)
	s.net.mu.Unlock()
	if v != nil {
		p.To = v
		s.net.line.RecvPacket(p)
	}
}

func addrPort(a net.Addr) (netip.AddrPort, bool) {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}, false
	}
	at := u.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), true
}

// depart returns the passage of a packet, or nil when it is lost.
func (n *Network) depart(s *station, from, to netip.AddrPort) *passage {
	if n.links.off[s.number] {
		return nil
	}
	v := &passage{from: from, to: to, area: &n.backbone}
	for r := s.home; r != nil; r = r.up {
		if _, here := r.inside.at[to.Addr()]; here {
			v.area = &r.inside
			break
		}
		v.from = r.leave(v.from, to)
		if to.Addr() == r.outside && !r.hairpin {
			return nil
		}
	}
	usual := n.links.usual
	if s.home != nil && s.home.kind.translates() && v.area == &s.home.inside {
		usual = link{} // they share a LAN
	}
	with := n.behind(v.area, to)
	if with == nil { // nobody has the address
		return nil
	}
	p := newPair(s, with)
	if n.links.lost(p, usual) {
		return nil
	}
	v.delay = n.links.delay(p, usual)
	return v
}

// behind returns the station to which an address leads, whether a packet is let in or not.
func (n *Network) behind(a *area, to netip.AddrPort) *station {
	for {
		switch x := a.at[to.Addr()].(type) {
		case *station:
			return x
		case *Router:
			var ok bool
			if to, ok = x.translate(to); !ok {
				return nil
			}
			a = &x.inside
		default:
			return nil
		}
	}
}

// arrivals is where every packet of a network arrives.
type arrivals struct{ n *Network }

// RecvPacket implements [simnet.PacketReceiver].
func (a arrivals) RecvPacket(p *simnet.Packet) {
	v, ok := p.To.(*passage)
	if !ok {
		return
	}
	a.n.mu.Lock()
	e, to := a.n.arrive(v)
	a.n.mu.Unlock()
	if e != nil {
		p.From, p.To = net.UDPAddrFromAddrPort(v.from), net.UDPAddrFromAddrPort(to)
		e.RecvPacket(p)
	}
}

// arrive returns the socket that gets a packet, and its address there, or nil.
func (n *Network) arrive(v *passage) (*endpoint, netip.AddrPort) {
	in, to := v.area, v.to
	for {
		switch x := in.at[to.Addr()].(type) {
		case *station:
			return x.sockets[to.Port()], to
		case *Router:
			if !x.admits(v.from, to) {
				return nil, to
			}
			var ok bool
			if to, ok = x.translate(to); !ok {
				return nil, to
			}
			in = &x.inside
		default:
			return nil, to
		}
	}
}
