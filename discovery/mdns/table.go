package mdns

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	// maxEntries bounds what is remembered of the link: many more than the nodes of a large office.
	maxEntries = 512
	// passBurst and passRate bound how many findings are passed on, at once and per second, whatever comes in. What is
	// held back is not forgotten by its node, which answers again as long as nobody names it as known.
	passBurst, passRate = 64, 32
	// changeGap bounds how often the new addresses of one instance are passed on, and repeatGap how often an instance
	// that the host is not connected to is passed on again.
	changeGap, repeatGap = 500 * time.Millisecond, 3 * time.Second
)

// An entry is an instance that was heard.
type entry struct {
	id        peer.ID
	addrs     map[int][]ma.Multiaddr // by the interface they were heard on
	heard     time.Time              // last, on any interface
	heardOn   map[int]time.Time
	passed    time.Time
	lost      time.Time // when the host lost its connection to the peer, unless heard since; zero: not lost
	connected bool
}

// A table holds the instances that were heard. It decides which findings are passed on. It is not safe for concurrent
// use.
type table struct {
	entries map[string]*entry // by instance
	tokens  float64           // of passRate
	filled  time.Time
	skipped int // findings that were held back
}

func newTable() *table { return &table{entries: map[string]*entry{}, tokens: passBurst} }

// hear notes an announcement from an interface and returns the finding to pass on, if there is one.
func (t *table) hear(a announced, iface int, connected bool, now time.Time) (peer.AddrInfo, bool) {
	e := t.entries[a.instance]
	fresh := e == nil || e.id != a.info.ID
	var added bool
	if !fresh {
		added = slices.ContainsFunc(a.info.Addrs, func(addr ma.Multiaddr) bool { return !e.has(addr) })
		since := now.Sub(e.passed)
		due := e.expired(now) || !e.lost.IsZero() ||
			added && since >= changeGap || !connected && since >= repeatGap
		if !due {
			if !added { // what is held back must still be news the next time
				e.note(a, iface, connected, now)
			}
			return peer.AddrInfo{}, false
		}
	}
	if !t.allow(now) {
		t.skipped++
		return peer.AddrInfo{}, false
	}
	if fresh {
		if e == nil && len(t.entries) >= maxEntries {
			t.evict()
		}
		t.replace(a.info.ID)
		e = &entry{id: a.info.ID, addrs: map[int][]ma.Multiaddr{}, heardOn: map[int]time.Time{}}
		t.entries[a.instance] = e
	}
	e.note(a, iface, connected, now)
	e.passed = now
	return peer.AddrInfo{ID: e.id, Addrs: e.all()}, true
}

func (e *entry) note(a announced, iface int, connected bool, now time.Time) {
	e.addrs[iface] = a.info.Addrs
	e.heardOn[iface] = now
	e.heard = now
	e.connected = connected
	e.lost = time.Time{}
}

func (e *entry) has(a ma.Multiaddr) bool {
	for _, list := range e.addrs {
		if slices.ContainsFunc(list, a.Equal) {
			return true
		}
	}
	return false
}

// all returns the addresses heard on all interfaces.
func (e *entry) all() []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, list := range e.addrs {
		for _, a := range list {
			if !slices.ContainsFunc(out, a.Equal) {
				out = append(out, a)
			}
		}
	}
	return out
}

func (e *entry) expired(now time.Time) bool { return now.Sub(e.heard) >= recordTTL*time.Second }

// allow takes a token of the rate at which findings are passed on.
func (t *table) allow(now time.Time) bool {
	t.fill(now)
	if t.tokens < 1 {
		return false
	}
	t.tokens--
	return true
}

func (t *table) fill(now time.Time) {
	if !t.filled.IsZero() {
		t.tokens = min(passBurst, t.tokens+now.Sub(t.filled).Seconds()*passRate)
	}
	t.filled = now
}

// recovered tells, once, that findings were held back and that there is room for them again: time to ask for them.
func (t *table) recovered(now time.Time) bool {
	if t.skipped == 0 {
		return false
	}
	if t.fill(now); t.tokens < passBurst/2 {
		return false
	}
	t.skipped = 0
	return true
}

// replace removes the lost instances of a peer that is back as another one.
func (t *table) replace(id peer.ID) {
	for instance, e := range t.entries {
		if e.id == id && !e.lost.IsZero() {
			delete(t.entries, instance)
		}
	}
}

// evict removes any entry that the host is not connected to, or any at all: which one is chance, so that a flood of
// invented instances cannot aim at a real one.
func (t *table) evict() {
	victim := ""
	for instance, e := range t.entries {
		victim = instance
		if !e.connected {
			break
		}
	}
	delete(t.entries, victim)
}

// goodbye removes an instance that says that it ends, on the interface where it was heard.
func (t *table) goodbye(instance string, iface int) {
	e := t.entries[instance]
	if e == nil {
		return
	}
	delete(e.addrs, iface)
	delete(e.heardOn, iface)
	if len(e.heardOn) == 0 {
		delete(t.entries, instance)
	}
}

// forget removes what was heard on an interface that is gone.
func (t *table) forget(iface int) {
	for instance := range t.entries {
		t.goodbye(instance, iface)
	}
}

// connection notes that the host has gained or lost its connection to a peer and reports whether that is a loss of
// somebody who was heard.
func (t *table) connection(id peer.ID, connected bool, now time.Time) (lost bool) {
	for _, e := range t.entries {
		if e.id != id {
			continue
		}
		if e.connected && !connected {
			e.lost = now
			lost = true
		}
		if connected {
			e.lost = time.Time{}
		}
		e.connected = connected
	}
	return lost
}

// expire removes the instances that were not heard for the life of a record.
func (t *table) expire(now time.Time) {
	for instance, e := range t.entries {
		if e.expired(now) {
			delete(t.entries, instance)
		}
	}
}

// known lists the instances that need not answer a query on an interface: heard there within half of a record's life
// (RFC 6762, section 7.1) and since then, and not lost. The order is chance: if a packet holds only some, others are
// next.
func (t *table) known(iface int, since, now time.Time) []string {
	var out []string
	for instance, e := range t.entries {
		at, ok := e.heardOn[iface]
		if ok && e.lost.IsZero() && !at.Before(since) && now.Sub(at) < recordTTL*time.Second/2 {
			out = append(out, instance)
		}
	}
	return out
}

// lastLost is when the most recent loss happened that was not made good; zero: none.
func (t *table) lastLost() time.Time {
	var last time.Time
	for _, e := range t.entries {
		if e.lost.After(last) {
			last = e.lost
		}
	}
	return last
}

// count tells how many peers are there, on one interface or, if it is 0, on any.
func (t *table) count(iface int) int {
	peers := map[peer.ID]struct{}{}
	for _, e := range t.entries {
		if _, here := e.heardOn[iface]; e.lost.IsZero() && (iface == 0 || here) {
			peers[e.id] = struct{}{}
		}
	}
	return len(peers)
}
