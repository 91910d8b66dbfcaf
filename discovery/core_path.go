package discovery

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
)

// Between this machine and its link TCP tells at once that the other end is gone. What goes further is looked at more
// often while somebody waits for it, since a router in between may have forgotten the path and says nothing.
const (
	// liveEvery is how often the far connections of a peer with live calls are looked at.
	liveEvery = time.Second
	// keepEvery is how often those of a peer that this node depends on are. A relay that was restarted answers an old
	// connection by ending it, so that it is not missed for longer.
	keepEvery = 2500 * time.Millisecond
	// liveTimeout is how long such a look waits for its answer, two of which must be missing: together with the time to
	// the next look and a new connection it is under the 5 s within which calls go on. Four round trips, where that is more,
	// are the time that a lost packet and its repetition take. On a machine that is too busy to be on time it is longer,
	// as it is where nobody waits.
	liveTimeout = 1250 * time.Millisecond
	// lostTimeout bounds a dial of a lost peer that has a relay: the relay may wait in vain at a connection of the peer's
	// that is dead, and gives it up a moment later. Ten round trips, where that is more, are twice what it takes; over
	// lostLongest nobody waits.
	lostTimeout = 1500 * time.Millisecond
	lostLongest = 4 * time.Second
)

// link is one connection of a peer.
type link struct {
	addr  ma.Multiaddr
	relay peer.ID // that it goes through; empty: direct
	scope Scope
}

// far tells whether a link leaves the site, or is carried by a relay.
func (l link) far() bool { return l.relay != "" || l.scope == Public }

func isFar(links []link) bool { return slices.ContainsFunc(links, link.far) }

// linked takes by which connections a peer is connected, the oldest first. The caller has told of them by connUp or connDown.
func (c *core) linked(p peer.ID, links []link) {
	e := c.peers[p]
	if e == nil || e.conns == 0 || len(links) == 0 {
		return
	}
	if e.links == nil {
		e.vigil = c.now.Add(liveEvery)
	}
	e.links = links
	best := links[len(links)-1]
	for _, l := range slices.Backward(links) {
		if best.relay != "" && l.relay == "" || best.relay == l.relay && l.addr.Equal(e.path.Addr) {
			best = l
		}
	}
	before := e.path
	now := Path{Addr: best.addr, Relay: best.relay, Since: before.Since}
	changed := before.Addr == nil || before.Relay != best.relay
	if changed {
		now.Since = c.now
	}
	c.setPath(e, now)
	if changed && before.Addr != nil && e.member {
		c.emit(PeerPathChanged, e, nil)
	}
}

// setPath counts who is reached through which relay, too.
func (c *core) setPath(e *entry, now Path) {
	if r := e.path.Relay; r != "" {
		if c.carriers[r]--; c.carriers[r] == 0 {
			delete(c.carriers, r)
		}
	}
	if now.Relay != "" {
		c.carriers[now.Relay]++
	}
	e.path = now
}

// needed tells whether this node depends on a peer, or the peer on this node.
func (c *core) needed(p peer.ID) bool { return c.depends(p) || c.tied(p) }

// depends tells whether this node depends on a peer.
func (c *core) depends(p peer.ID) bool {
	return c.carriers[p] > 0 || c.keeps(p)
}

// keeps tells whether this node's owner says that it depends on a peer.
func (c *core) keeps(p peer.ID) bool { return c.cfg.Keep != nil && c.cfg.Keep(p) }

// vigil returns how often a peer's far connections are looked at; zero: not more often than any others. What a relay
// carries is dead when the connection to the relay is.
func (c *core) vigil(e *entry) time.Duration {
	switch {
	case c.inUse(e.id) || c.carriesUsed(e.id):
		return liveEvery
	case c.depends(e.id):
		return keepEvery
	default:
		return 0
	}
}

// carriesUsed tells whether a relay carries a peer with live calls.
func (c *core) carriesUsed(relay peer.ID) bool {
	if c.carriers[relay] == 0 {
		return false
	}
	for p, e := range c.peers {
		if e.path.Relay == relay && c.inUse(p) {
			return true
		}
	}
	return false
}

// watch looks at the far connections of a peer if that is due, and returns when it wants to be called again.
func (c *core) watch(e *entry) time.Time {
	if !isFar(e.links) {
		return time.Time{}
	}
	if c.now.Before(e.vigil) {
		return e.vigil
	}
	every := c.vigil(e)
	if every > 0 {
		timeout := c.patience(e)
		if every > liveEvery {
			timeout = min(2*timeout, pingTimeout)
		}
		c.do(action{kind: actPing, peer: e.id, look: lookUsed, timeout: timeout, on: true})
	}
	e.vigil = c.now.Add(cmp.Or(every, liveEvery)) // it may be used by then
	return e.vigil
}

// patience is how long an answer of a peer may take while somebody waits for it.
func (c *core) patience(e *entry) time.Duration {
	d := max(liveTimeout, 4*e.rtt)
	if c.width <= maxDials/4 { // this machine's timers are late, time after time
		d *= 2
	}
	return min(d, pingTimeout)
}

// measured takes a round trip to a peer.
func (c *core) measured(p peer.ID, rtt time.Duration) {
	if e := c.peers[p]; e != nil {
		e.rtt = rtt
	}
}

// missed takes that a ping to a peer had no answer, over a connection that a relay carries or a direct one (empty). Then
// the relay may be what is not reached, or it is this node that reaches nobody: its relays are looked at, too.
func (c *core) missed(p, relay peer.ID) {
	for q, e := range c.peers {
		if q != p && e.conns > 0 && (q == relay || relay == "" && c.keeps(q)) {
			c.do(action{kind: actPing, peer: q, look: lookUsed, timeout: c.patience(e)})
		}
	}
}

// resumed takes that this process did not run for a while, as when the machine slept: what is connected may be gone, and
// what waits to be dialed waits no longer.
func (c *core) resumed() {
	c.hurry()
	for p, e := range c.peers {
		if e.conns > 0 {
			c.do(action{kind: actPing, peer: p, look: lookUsed, timeout: c.patience(e)})
		}
	}
}

// approach has a peer that a relay carries dialed directly: package host/reach finds ways through routers, and it was not
// told of this one.
func (c *core) approach(e *entry) {
	direct, _ := c.places(e)
	if len(direct) == 0 || !c.budget.AllowN(c.now, 1) {
		return
	}
	c.do(action{kind: actNear, peer: e.id, addrs: direct, timeout: dialTimeout(direct, false)})
}

// through tells whether an address leads through this node itself: others may use it, this node cannot.
func (c *core) through(a ma.Multiaddr) bool {
	if !addr.Relayed(a) {
		return false
	}
	relay, _, _ := addr.SplitRelay(a)
	return relay == c.self
}

// homeless tells whether a peer has no address at which this node may dial it.
func (c *core) homeless(e *entry) bool {
	return !slices.ContainsFunc(e.addrs, func(a address) bool { return !c.through(a.Multiaddr) })
}

// places returns at which addresses a peer may be dialed: directly, and through relays.
func (c *core) places(e *entry) (direct, circuits []ma.Multiaddr) {
	for _, a := range e.multiaddrs() {
		switch {
		case !addr.Relayed(a):
			direct = append(direct, a)
		case !c.through(a):
			circuits = append(circuits, a)
		}
	}
	return direct, circuits
}

// aim returns at which addresses a peer is dialed next, and for how long at most.
//
// Of a lost peer beyond the site that has a relay, the relay is asked first, and mostly alone: it knows at once whether the
// peer is there, while the addresses that the peer had may keep silent for as long as the dial lasts.
func (c *core) aim(e *entry) ([]ma.Multiaddr, time.Duration) {
	direct, circuits := c.places(e)
	all := slices.Concat(direct, circuits)
	if len(circuits) == 0 || e.lost.IsZero() || slices.ContainsFunc(direct, func(a ma.Multiaddr) bool { return addr.ScopeOf(a) < Public }) {
		if len(direct) == 0 {
			direct = circuits
		}
		return all, dialTimeout(direct, !e.lost.IsZero())
	}
	timeout := min(max(lostTimeout, 10*e.rtt), lostLongest)
	if e.fails%4 != 1 {
		return circuits, timeout
	}
	return all, timeout
}
