package hosttest

import (
	"net/netip"
	"time"
)

const (
	// mappingTimeout is how long a router remembers what was sent: the least that RFC 4787 (REQ-5) allows.
	mappingTimeout = 2 * time.Minute

	// firstMapped is the first port that a router maps to. No port keeps its number, so nobody can count on it.
	firstMapped = 30000
)

// mappings is what a router remembers of the packets that have left it. The zero value remembers nothing.
type mappings struct {
	out  map[flow]*mapping
	in   map[netip.AddrPort]*mapping // by the address outside
	next uint16
}

// flow is what a mapping is for. To is set where the mapping depends on the destination.
type flow struct{ inside, to netip.AddrPort }

// mapping is an address inside and the one outside that stands for it.
type mapping struct {
	flow
	outside netip.AddrPort
	sent    map[netip.AddrPort]time.Time // when the last packet left to each destination
}

// leave returns the address from which a packet leaves, and remembers that it did.
func (m *mappings) leave(k RouterKind, outside netip.Addr, from, to netip.AddrPort, timeout time.Duration) netip.AddrPort {
	f := flow{inside: from}
	if k == Symmetric {
		f.to = to
	}
	now := time.Now()
	x := m.out[f]
	if x != nil && !x.lives(now, timeout) {
		m.forget(x)
		x = nil
	}
	if x == nil {
		x = &mapping{flow: f, outside: from, sent: map[netip.AddrPort]time.Time{}}
		if k.translates() {
			x.outside = netip.AddrPortFrom(outside, m.freePort(outside))
		}
		m.remember(x)
	}
	x.sent[to] = now
	return x.outside
}

func (m *mappings) freePort(outside netip.Addr) uint16 {
	for {
		port := max(m.next, firstMapped)
		m.next = port + 1
		if m.in[netip.AddrPortFrom(outside, port)] == nil {
			return port
		}
	}
}

func (m *mappings) remember(x *mapping) {
	if m.out == nil {
		m.out, m.in = map[flow]*mapping{}, map[netip.AddrPort]*mapping{}
	}
	m.out[x.flow], m.in[x.outside] = x, x
}

func (m *mappings) forget(x *mapping) {
	delete(m.out, x.flow)
	delete(m.in, x.outside)
}

// flush forgets all. The ports that were mapped to do not come back soon.
func (m *mappings) flush() { m.out, m.in = nil, nil }

// admits tells whether a packet from outside is let in.
func (m *mappings) admits(k RouterKind, from, to netip.AddrPort, timeout time.Duration) bool {
	x, now := m.in[to], time.Now()
	if x == nil || !x.lives(now, timeout) {
		return false
	}
	switch k {
	case FullCone:
		return true
	case Restricted:
		for peer, at := range x.sent {
			if peer.Addr() == from.Addr() && now.Sub(at) < timeout {
				return true
			}
		}
		return false
	default:
		at, ok := x.sent[from]
		return ok && now.Sub(at) < timeout
	}
}

// lives tells whether anything was sent lately. It drops what is too old.
func (x *mapping) lives(now time.Time, timeout time.Duration) bool {
	for peer, at := range x.sent {
		if now.Sub(at) >= timeout {
			delete(x.sent, peer)
		}
	}
	return len(x.sent) > 0
}
