package reach

import (
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
	doubted    bool // it was not identified in time
	retired    bool // a newer one has taken its place
}

// good tells whether a connection over the transport works, as far as is known.
func (c *core) good(r *relay, k kind) bool {
	for _, l := range c.links {
		if l.relay == r && l.kind == k && l.missed == 0 && !l.retired {
			return true
		}
	}
	return false
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

// linkUp is told of a new connection to a relay.
func (c *core) linkUp(conn string, p peer.ID, remote ma.Multiaddr) {
	r, k := c.relayOf(p), kindOf(remote)
	if r == nil || k == kindNone || c.links[conn] != nil {
		return
	}
	if !c.joined(r) {
		r.since = c.now
	}
	for _, l := range c.links {
		if l.relay != r || l.kind != k {
			continue
		}
		if l.missed > 0 {
			c.do(action{kind: actClose, conn: l.conn})
		}
		l.retired = true
	}
	_, seen := c.seen[conn]
	c.links[conn] = &link{conn: conn, relay: r, kind: k, remote: remote, up: c.now, look: c.now.Add(pingFirst), identified: seen}
	r.slots[k].text, r.slots[k].fresh = "", false
	if r.listens(remote) {
		r.at[place{k, ipOf(remote).Is4()}] = remote
	}
	if r.ask = c.now; c.now.Sub(r.asked) < reserveGap && r.held {
		r.ask = r.asked.Add(reserveGap)
	}
	c.changed = true
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
			s.text = "it ends the connection: it may not allow this node"
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
		r.away = c.now
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
	if l.kind == kindWebSocket && !l.retired && c.near(l.relay) && c.now.Sub(l.relay.lost) > webSocketIdle {
		l.retired = true
	}
	if l.retired {
		if c.replaced(l) {
			c.do(action{kind: actRetire, conn: l.conn})
		}
		soon(c.now.Add(time.Second))
		return
	}
	if !l.identified && !l.doubted { // or it was before this began to listen
		if at := l.up.Add(identifyWithin); at.After(c.now) {
			soon(at)
		} else {
			l.doubted = true
			l.relay.slots[l.kind].fresh, l.relay.slots[l.kind].next = true, c.now
			soon(c.now)
		}
	}
	if l.pinging {
		return
	}
	if l.look.After(c.now) {
		soon(l.look)
		return
	}
	l.pinging = true
	c.do(action{kind: actPing, conn: l.conn, timeout: pingWithin})
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
