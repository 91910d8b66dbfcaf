package reach

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// The figures of watching connections to relays, each with its reason.
const (
	// pingEvery and pingWithin find a connection that died without a word; one that misses a ping is replaced first and
	// closed when its substitute is there, or after pingMisses.
	pingFirst  = 300 * time.Millisecond // soon, for the round trip; not while everybody connects
	pingEvery  = 2 * time.Second
	pingWithin = 1500 * time.Millisecond
	pingMisses = 3

	// lingers is how long a connection is kept that was replaced: the relay may have chosen it a moment ago for something
	// that it is about to carry, which would fail with it.
	lingers = 3 * time.Second

	// identifyWithin is how long a connection may take to tell what the relay sees, before another one is made.
	identifyWithin = 2 * time.Second
)

// link is a connection to a relay.
type link struct {
	conn       string
	relay      *relay
	kind       kind
	remote     ma.Multiaddr
	up         time.Time
	look       time.Time // when to ping
	pinging    bool
	missed     int
	identified bool
	doubted    bool      // it was not identified in time
	retired    bool      // a newer one has taken its place
	free       time.Time // when it may be closed, if that is known
	local      uint16
}

// makeshift tells whether a connection did not leave from a port that the host listens at over its transport: then the
// relay does not see where others get through. That happens when another dial to the relay, somebody else's, has the TCP
// port, and to a dial that was made before the host listened.
func (c *core) makeshift(l *link) bool {
	return c.listens(l.kind) && !slices.Contains(c.listening, port{l.kind, l.local})
}

// listens tells whether the host listens over a transport.
func (c *core) listens(k kind) bool {
	return slices.ContainsFunc(c.listening, func(p port) bool { return p.kind == k })
}

// A connection that does not leave from the listening port is made anew after a while, twice as long each time. In
// the end it stays: where the system does not let a port be shared, that is all there can be.
const (
	makeshiftFor  = 250 * time.Millisecond
	maxMakeshifts = 6
)

// good tells whether a connection over the transport works, as far as is known: one missed ping may be a busy machine.
func (c *core) good(r *relay, k kind) bool { return c.missing(r, k) <= 1 }

// sound tells whether a connection over the transport has missed nothing.
func (c *core) sound(r *relay, k kind) bool { return c.missing(r, k) == 0 }

// missing returns how many pings in a row the best connection over the transport has missed; without one it is a lot.
func (c *core) missing(r *relay, k kind) int {
	least := pingMisses
	for _, l := range c.links {
		if l.relay == r && l.kind == k && !l.retired {
			least = min(least, l.missed)
		}
	}
	return least
}

// linked tells whether there is any connection to the relay, dead ones included.
func (c *core) linked(r *relay) bool {
	for _, l := range c.links {
		if l.relay == r {
			return true
		}
	}
	return false
}

// near tells whether the relay is connected over TCP or QUIC.
func (c *core) near(r *relay) bool { return c.good(r, kindTCP) || c.good(r, kindQUIC) }

// joined tells whether the relay is connected at all.
func (c *core) joined(r *relay) bool { return c.near(r) || c.good(r, kindWebSocket) }

// linkUp is told of a new connection to a relay, which left from the port local.
func (c *core) linkUp(conn string, p peer.ID, remote ma.Multiaddr, local uint16) {
	r, k := c.relayOf(p), kindOf(remote)
	if r == nil || k == kindNone || c.links[conn] != nil {
		return
	}
	if !c.joined(r) {
		r.since = c.now
	}
	if c.linkedAt.IsZero() {
		c.linkedAt = c.now
	}
	_, seen := c.seen[conn]
	l := &link{
		conn: conn, relay: r, kind: k, remote: remote, local: local, up: c.now, look: c.now.Add(pingFirst), identified: seen,
	}
	c.retire(l)
	c.links[conn] = l
	s := &r.slots[k]
	if s.text, s.fresh = "", false; !c.makeshift(l) {
		s.makeshifts = 0
	}
	if r.listens(remote) {
		r.at[place{k, ipOf(remote).Is4()}] = remote
	}
	if r.ask = c.now; c.now.Sub(r.asked) < reserveGap && r.held {
		r.ask = r.asked.Add(reserveGap)
	}
	c.changed = true
}

// retire has a new connection take the place of the others like it, or theirs stay.
func (c *core) retire(l *link) {
	for _, o := range c.links {
		switch {
		case o.relay != l.relay || o.kind != l.kind:
		case o.missed > 0:
			c.do(action{kind: actClose, conn: o.conn})
			o.retired = true
		case c.makeshift(l) && !c.makeshift(o) && !o.retired:
			l.retired = true
		default:
			o.retired = true
		}
	}
}

// linkDown is told that a connection to a relay ended. The other ones may have died with it.
func (c *core) linkDown(conn string) {
	delete(c.seen, conn)
	l := c.links[conn]
	if l == nil {
		return
	}
	delete(c.links, conn)
	r, s := l.relay, &l.relay.slots[l.kind]
	if !l.retired {
		s.short = c.now.Sub(l.up) < lasting
		if !s.short {
			s.fails = 0
		} else {
			s.fails++
			s.text = "it ends the connection: put this node, " + c.self.String() + ", on its allow list"
		}
		if s.next = c.now.Add(c.pause(r, s)); !s.short {
			s.next = c.now
		}
		for _, o := range c.links {
			if o.relay == r {
				o.look = c.now
			}
		}
	}
	if !c.near(r) {
		r.lost = c.now
	}
	if !c.linked(r) {
		r.since, r.held = c.now, false // the relay forgets it with the last connection
		r.hurryUnlessShort(c.now)
	}
	c.changed = true
}

// hurryUnlessShort dials at once over every transport that did not just refuse.
func (r *relay) hurryUnlessShort(now time.Time) {
	for k := range r.slots {
		if s := &r.slots[k]; !s.dialing && !s.short {
			s.next, s.fails = now, 0
		}
	}
}

func (c *core) tickLink(l *link, soon func(time.Time)) {
	if l.kind == kindWebSocket && c.near(l.relay) && c.now.Sub(l.relay.lost) > webSocketIdle {
		l.retired = true
	}
	switch {
	case l.retired:
		switch {
		case !c.replaced(l):
		case l.free.IsZero():
			l.free = c.now.Add(lingers)
		case !l.free.After(c.now):
			c.do(action{kind: actRetire, conn: l.conn})
		}
		soon(c.now.Add(time.Second))
	case c.makeshift(l):
		c.betterLink(l, soon)
	case !l.identified && !l.doubted: // or it was before this began to listen
		c.doubtLink(l, soon)
	}
	switch {
	case l.pinging:
	case l.look.After(c.now):
		soon(l.look)
	default:
		l.pinging = true
		c.do(action{kind: actPing, conn: l.conn, timeout: pingWithin})
	}
}

// betterLink has another connection made in place of a makeshift one, when the port is free or soon will be.
func (c *core) betterLink(l *link, soon func(time.Time)) {
	s := &l.relay.slots[l.kind]
	if s.makeshifts >= maxMakeshifts || s.dialing || l.kind == kindTCP && !c.alone(l) {
		return
	}
	if at := l.up.Add(makeshiftFor << s.makeshifts); at.After(c.now) {
		soon(at)
		return
	}
	s.makeshifts++
	s.fresh, s.next = true, c.now
	soon(c.now)
}

// doubtLink has another connection made in place of one that does not tell what the relay sees.
func (c *core) doubtLink(l *link, soon func(time.Time)) {
	if at := l.up.Add(identifyWithin); at.After(c.now) {
		soon(at)
		return
	}
	l.doubted = true
	if s := &l.relay.slots[l.kind]; l.kind == kindQUIC {
		s.fresh, s.next = true, c.now
	} else { // a second one could not leave from the same port
		c.do(action{kind: actRetire, conn: l.conn})
	}
	soon(c.now)
}

// alone tells whether there is no other connection over the transport to the relay.
func (c *core) alone(l *link) bool {
	for _, o := range c.links {
		if o != l && o.relay == l.relay && o.kind == l.kind {
			return false
		}
	}
	return true
}

// replaced tells whether another connection to the relay has been identified, so that it has told what it sees.
func (c *core) replaced(l *link) bool {
	for _, o := range c.links {
		if o.relay == l.relay && o != l && !o.retired && o.identified {
			return true
		}
	}
	return false
}

// pinged is told how a ping of a connection to a relay ended.
func (c *core) pinged(conn string, rtt time.Duration, alive bool) {
	l := c.links[conn]
	if l == nil {
		return
	}
	l.pinging = false
	if alive {
		l.missed, l.look = 0, c.now.Add(pingEvery)
		if rtt > 0 {
			c.changed = c.changed || l.relay.rtt == 0
			l.relay.rtt = rtt
		}
		return
	}
	l.missed++
	l.look = c.now
	c.changed = true
	s := &l.relay.slots[l.kind]
	if l.missed == 1 && !s.dialing { // its substitute
		s.next, s.fails, s.short = c.now, 0, false
	}
	if l.missed >= pingMisses {
		c.do(action{kind: actClose, conn: l.conn})
		l.look = c.now.Add(pingEvery)
	}
}
