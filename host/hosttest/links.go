package hosttest

import (
	"math/rand/v2"
	"time"
)

// pair is the numbers of two stations in order: what holds for one direction holds for the other.
type pair struct{ a, b int }

func newPair(a, b *station) pair {
	return pair{min(a.number, b.number), max(a.number, b.number)}
}

// link is what a packet meets on its way.
type link struct {
	delay time.Duration
	loss  float64
}

// links is the state of the network between hosts. The zero value has no latency, no loss and no cuts.
type links struct {
	usual   link
	latency map[pair]time.Duration // where it is another than the usual one
	cuts    map[pair]bool
	side    map[int]int // the group of each partitioned host
	off     map[int]bool
}

// delay is how long a packet between the two is on its way, if that is usual.
func (l *links) delay(p pair, usual link) time.Duration {
	if d, ok := l.latency[p]; ok {
		return d
	}
	return usual.delay
}

// lost decides about one packet between the two.
func (l *links) lost(p pair, usual link) bool {
	return l.cut(p) || usual.loss > 0 && rand.Float64() < usual.loss
}

func (l *links) unplug(a int) {
	if l.off == nil {
		l.off = map[int]bool{}
	}
	l.off[a] = true
}

func (l *links) plug(a int) { delete(l.off, a) }

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
