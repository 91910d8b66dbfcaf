package hosttest

import (
	"net"
	"net/netip"
	"time"

	"github.com/marcopolo/simnet"
)

// pair is two addresses in order: what holds for one direction holds for the other.
type pair struct{ a, b netip.Addr }

func newPair(a, b netip.Addr) pair {
	if b.Less(a) {
		a, b = b, a
	}
	return pair{a, b}
}

func pairOf(p *simnet.Packet) pair { return newPair(ipOf(p.From), ipOf(p.To)) }

func ipOf(a net.Addr) netip.Addr {
	if u, ok := a.(*net.UDPAddr); ok {
		return u.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// links is the state of the network between hosts. The zero value has no latency and no cuts.
type links struct {
	latency map[pair]time.Duration
	cuts    map[pair]bool
	side    map[netip.Addr]int // the group of each partitioned host
}

func (l *links) setLatency(p pair, d time.Duration) {
	if l.latency == nil {
		l.latency = map[pair]time.Duration{}
	}
	l.latency[p] = d
}

func (l *links) setCut(p pair, cut bool) {
	if l.cuts == nil {
		l.cuts = map[pair]bool{}
	}
	l.cuts[p] = cut
}

// cut tells whether nothing passes between the two.
func (l *links) cut(p pair) bool {
	if l.cuts[p] {
		return true
	}
	a, oka := l.side[p.a]
	b, okb := l.side[p.b]
	return oka && okb && a != b
}
