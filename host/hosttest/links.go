package hosttest

import (
	"math/rand/v2"
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

// links is the state of the network between hosts. The zero value has no latency, no loss and no cuts.
type links struct {
	usual   time.Duration
	latency map[pair]time.Duration // where it is another than the usual one
	loss    float64
	cuts    map[pair]bool
	side    map[netip.Addr]int // the group of each partitioned host
	off     map[netip.Addr]bool
}

// delay is how long a packet between the two is on its way.
func (l *links) delay(p pair) time.Duration {
	if d, ok := l.latency[p]; ok {
		return d
	}
	return l.usual
}

// lost decides about one packet between the two.
func (l *links) lost(p pair) bool {
	return l.cut(p) || l.loss > 0 && rand.Float64() < l.loss
}

func (l *links) unplug(a netip.Addr) {
	if l.off == nil {
		l.off = map[netip.Addr]bool{}
	}
	l.off[a] = true
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
	if l.cuts[p] || l.off[p.a] || l.off[p.b] {
		return true
	}
	a, oka := l.side[p.a]
	b, okb := l.side[p.b]
	return oka && okb && a != b
}
