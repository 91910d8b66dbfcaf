package reach

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
)

// When own addresses are probed. An address that nobody could reach is tried again rarely, since a probe of it costs the
// relay up to ten seconds; one that was reached is looked at again, and given up after two failures in a row.
const (
	probeAgain   = 10 * time.Minute
	probeDoubted = 5 * time.Second
	probeError   = 15 * time.Second
	maxChecks    = 16
)

// check is what is known of one own address that may be public.
type check struct {
	addr    ma.Multiaddr
	reached bool
	tried   bool
	fails   int // in a row
	errors  int // in a row: relays that did not try
	next    time.Time
	busy    bool
}

// public tells whether this host can be reached from outside without a relay. An address that relays only see proves
// nothing, also if all of them get through to it: the host talks to all of them, so that a router that lets in who was
// talked to lets each of them in, and nobody else.
func (c *core) public() bool {
	for _, k := range c.checks {
		if k.reached {
			return true
		}
	}
	return false
}

// tickChecks probes the own addresses, one at a time for each relay.
func (c *core) tickChecks(soon func(time.Time)) {
	own := c.own(addr.Public, addr.Public)
	for _, a := range c.addrs {
		if named(a) {
			own = append(own, a)
		}
	}
	own = own[:min(len(own), maxChecks)]
	for key, k := range c.checks {
		if !slices.ContainsFunc(own, k.addr.Equal) {
			delete(c.checks, key)
			c.changed = true
		}
	}
	for _, a := range own {
		key := string(a.Bytes())
		k := c.checks[key]
		if k == nil {
			k = &check{addr: a, next: c.now}
			c.checks[key] = k
		}
		if k.busy {
			continue
		}
		if k.next.After(c.now) {
			soon(k.next)
			continue
		}
		if r := c.prober(a); r != nil {
			k.busy, c.checking[r.id] = true, true
			c.do(action{kind: actProbe, peer: r.id, addr: a})
		}
	}
	c.tickFilter(soon)
}

// tickFilter has a relay try once whether it comes in from a port that was not talked to.
func (c *core) tickFilter(soon func(time.Time)) {
	for _, a := range c.outside() {
		if addr.ScopeOf(a) != addr.Public || slices.ContainsFunc(c.addrs, a.Equal) {
			continue
		}
		if c.filtered != nil && ipOf(c.filtered) == ipOf(a) {
			return
		}
		if c.filterAt.After(c.now) {
			soon(c.filterAt)
			return
		}
		if r := c.prober(a); r != nil {
			c.filtered, c.checking[r.id] = a, true
			c.do(action{kind: actProbe, peer: r.id, addr: a})
		}
		return
	}
}

// prober returns a relay that can be asked to dial a: one that is not asked for anything else, by choice another each
// time, so that one that cannot is no obstacle.
func (c *core) prober(a ma.Multiaddr) *relay {
	var free []*relay
	for _, r := range c.probers(a) {
		if !c.checking[r.id] {
			free = append(free, r)
		}
	}
	if len(free) == 0 {
		return nil
	}
	return free[c.rng.IntN(len(free))]
}

// probers returns the relays that can dial a, since they are connected over its version of IP.
func (c *core) probers(a ma.Multiaddr) []*relay {
	var out []*relay
	for _, r := range c.relays { // in their order, so that chance alone decides
		for _, l := range c.links {
			if l.relay == r && l.kind != kindWebSocket && l.identified && l.missed == 0 && !l.retired &&
				(named(a) || ipOf(l.remote).Is4() == ipOf(a).Is4()) {
				out = append(out, r)
				break
			}
		}
	}
	return out
}

// probed is told what a relay's dial to an address met; failed tells that the relay did not try.
func (c *core) probed(p peer.ID, a ma.Multiaddr, reached, failed bool) {
	delete(c.checking, p)
	if c.filtered != nil && a.Equal(c.filtered) {
		switch {
		case failed:
			c.filtered, c.filterAt = nil, c.now.Add(c.jitter(probeError))
		case reached:
			c.filtering = FilteringOpen
		default:
			c.filtering = FilteringPort
		}
		c.changed = true
	}
	k := c.checks[string(a.Bytes())]
	if k == nil {
		return
	}
	k.busy = false
	switch {
	case failed:
		k.errors++
		k.next = c.now.Add(c.jitter(min(probeAgain, probeError<<min(k.errors-1, 8))))
		return
	case reached:
		k.reached, k.fails, k.next = true, 0, c.now.Add(c.jitter(probeAgain))
	default:
		k.fails++
		k.next = c.now.Add(c.jitter(probeAgain))
		if k.reached && k.fails < 2 {
			k.next = c.now.Add(probeDoubted)
		} else {
			k.reached = false
		}
	}
	k.tried, k.errors = true, 0
	c.changed = true
}

// reachability returns what is known: unknown until relays have answered about each own address that may be public and
// that one of them can dial.
func (c *core) reachability() network.Reachability {
	if c.public() {
		return network.ReachabilityPublic
	}
	for _, k := range c.checks {
		if !k.tried && len(c.probers(k.addr)) > 0 {
			return network.ReachabilityUnknown
		}
	}
	for _, r := range c.relays {
		if c.joined(r) || r.held || !r.since.IsZero() {
			return network.ReachabilityPrivate
		}
	}
	return network.ReachabilityUnknown
}

// announce tells the host of its circuit addresses and of what is known of it, when that has changed. While it is not
// known to be public, it is private for libp2p: that is what has circuit addresses announced.
func (c *core) announce(soon func(time.Time)) {
	if len(c.relays) == 0 {
		return
	}
	a := action{kind: actAnnounce, public: network.ReachabilityPrivate}
	if c.public() {
		a.public = network.ReachabilityPublic
	} else {
		a.addrs = c.circuits(soon)
	}
	if c.told && a.public == c.announced.public && slices.EqualFunc(a.addrs, c.announced.addrs, ma.Multiaddr.Equal) {
		return
	}
	if !c.told && len(a.addrs) == 0 && a.public != network.ReachabilityPublic {
		return // what the host begins with
	}
	c.announced, c.told, c.changed = a, true, true
	c.do(a)
}

// circuits returns the addresses to announce.
func (c *core) circuits(soon func(time.Time)) []ma.Multiaddr {
	var out []ma.Multiaddr
	for _, r := range c.relays {
		switch linger := r.used.Add(circuitLinger); {
		case r.held && c.joined(r):
			r.shown, r.used = r.circuitsOf(), c.now
		case r.used.IsZero() || !linger.After(c.now) || c.joined(r) && r.refusals > 0:
			r.shown = nil
		default: // it may be back in a moment
			soon(linger)
		}
		out = append(out, r.shown...)
	}
	return out
}
