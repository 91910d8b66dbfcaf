package discovery

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
)

// found takes addresses of a peer that were accepted already.
func (c *core) found(p peer.ID, addrs []ma.Multiaddr, from Origin) {
	if _, ok := c.banned[p]; ok || p == c.self || p == "" || len(addrs) == 0 {
		return
	}
	e, known := c.peers[p]
	if !known {
		if e = c.add(p, from.Source); e == nil {
			return
		}
		e.next = c.now.Add(c.turn(p, addrs, from))
	}
	changed := c.merge(e, addrs, from.Explicit)
	if e.conns == 0 {
		c.hasten(e, from, changed && known)
	}
	c.consider(e, from, changed)
	if !known {
		c.emit(PeerFound, e, nil)
	}
}

// consider takes what else follows from having heard of a peer.
func (c *core) consider(e *entry, from Origin, changed bool) {
	direct := !from.secondhand
	if e.conns == 0 {
		e.told = e.told && (!direct || e.direct && !changed)
	}
	e.direct = e.direct || direct
	switch {
	case !changed:
	case e.conns == 0:
		c.do(action{kind: actAddrs, peer: e.id})
	case direct && e.path.Relay != "": // and now it is heard to be near
		c.approach(e)
	case direct && !from.Explicit: // it is said to be elsewhere: does the connection still work?
		c.do(action{kind: actPing, peer: e.id, look: lookDoubt, timeout: checkTimeout})
	}
}

// hasten brings forward the dial of a peer that is not connected, if what was heard of it gives a reason.
func (c *core) hasten(e *entry, from Origin, changed bool) {
	switch {
	case e.full > 0: // it let this node go
	case c.keeps(e.id): // others dial it
	case from.Explicit:
		e.asked, e.next = true, c.now
	case !from.secondhand && !e.lost.IsZero():
		// Somebody heard of it just now: it may be back.
		if soon := e.tried.Add(redialHeard); soon.Before(e.next) {
			e.next = soon
		}
	case changed:
		e.fails, e.next = 0, c.now
	}
}

// turn is how long to wait before a peer is dialed for the first time. When two find each other at once, the one with
// the greater ID waits for the other's call, and those whom a crowd hears of are not dialed by all of it in one moment.
// Through a relay it takes longer than that wait to be connected, and who hears of whom is known to that relay only.
func (c *core) turn(p peer.ID, addrs []ma.Multiaddr, from Origin) time.Duration {
	if c.keeps(p) {
		return ownWait
	}
	if from.Explicit || !slices.ContainsFunc(addrs, func(a ma.Multiaddr) bool { return !addr.Relayed(a) }) {
		return 0
	}
	var d time.Duration
	if c.self > p {
		d = politeness
	}
	if from.secondhand {
		d += time.Duration(c.rng.Int64N(int64(2 * politeness)))
	}
	return d
}

// add makes an entry of a peer that is not connected, in place of a less useful one when there are too many; nil when all
// are more useful.
func (c *core) add(p peer.ID, source string) *entry {
	if len(c.peers)-c.connected >= MaxPeers {
		victim := c.leastUseful()
		if victim == nil {
			return nil
		}
		c.drop(victim)
	}
	return c.insert(p, source)
}

func (c *core) insert(p peer.ID, source string) *entry {
	e := &entry{id: p, source: source, state: Known, since: c.now}
	c.peers[p] = e
	return e
}

func (c *core) drop(e *entry) {
	if e.conns > 0 {
		c.connected--
	}
	c.setPath(e, Path{})
	c.protect(e, false)
	delete(c.peers, e.id)
	c.do(action{kind: actAddrs, peer: e.id})
}

// prune drops entries until there are not too many, when one has come back among those that are not connected: the
// least useful one, or else who has been away the longest. A relay meets many in its time.
func (c *core) prune() {
	for len(c.peers)-c.connected > MaxPeers {
		victim := c.leastUseful()
		if victim == nil {
			victim = c.longestAway()
		}
		if victim == nil {
			return
		}
		c.drop(victim)
	}
}

// longestAway returns who was once a neighbor and has been away the longest.
func (c *core) longestAway() *entry {
	var best *entry
	for _, e := range c.peers {
		if e.conns > 0 || e.busy || e.sticky || !e.lost.IsZero() || e.explicit() {
			continue
		}
		if best == nil || e.since.Before(best.since) {
			best = e
		}
	}
	return best
}

// leastUseful returns an entry that may go: one that failed rather than one that was not tried, one of which others
// talk rather than one that was heard directly. Entries that are connected, were once neighbors or were named by the
// user stay. Within a class the choice is random (a map's order), so that a flood cannot aim.
func (c *core) leastUseful() *entry {
	var best *entry
	value := 0
	for _, e := range c.peers {
		if e.conns > 0 || e.busy || e.sticky || !e.lost.IsZero() || e.wasMember || e.explicit() {
			continue
		}
		v := 4
		if e.fails > 0 {
			v -= 2
		}
		if !e.direct {
			v--
		}
		if best == nil || v < value {
			best, value = e, v
		}
		if value == 1 {
			break
		}
	}
	return best
}

func (e *entry) explicit() bool {
	return slices.ContainsFunc(e.addrs, func(a address) bool { return a.explicit })
}

// merge adds addresses and tells whether one of them was new. Over MaxAddrs the oldest go, explicit ones last.
func (c *core) merge(e *entry, addrs []ma.Multiaddr, explicit bool) bool {
	changed := false
	for _, a := range addrs {
		i := slices.IndexFunc(e.addrs, func(b address) bool { return b.Equal(a) })
		if i >= 0 {
			old := e.addrs[i]
			old.seen, old.explicit = c.now, old.explicit || explicit
			e.addrs = append(slices.Delete(e.addrs, i, i+1), old)
			continue
		}
		changed = true
		e.addrs = append(e.addrs, address{Multiaddr: a, explicit: explicit, seen: c.now})
	}
	for len(e.addrs) > MaxAddrs {
		i := slices.IndexFunc(e.addrs, func(a address) bool { return !a.explicit })
		e.addrs = slices.Delete(e.addrs, max(i, 0), max(i, 0)+1)
	}
	return changed
}

// replace makes addrs, which the peer itself named, what is known, beside what the user named, and, if the peer has said no
// more than before, beside what was heard lately.
func (c *core) replace(e *entry, addrs []ma.Multiaddr, saidBefore bool) {
	e.addrs = slices.DeleteFunc(e.addrs, func(a address) bool {
		return !a.explicit && !(saidBefore && c.now.Sub(a.seen) < recordWithin)
	})
	c.merge(e, addrs, false)
}

// dropAddrs forgets addresses of a peer at which somebody else answers.
func (c *core) dropAddrs(p peer.ID, gone func(ma.Multiaddr) bool) {
	e := c.peers[p]
	if e == nil {
		return
	}
	e.addrs = slices.DeleteFunc(e.addrs, func(a address) bool { return gone(a.Multiaddr) })
	if c.homeless(e) && e.conns == 0 && !e.sticky && !e.busy {
		c.drop(e)
		return
	}
	if e.conns == 0 {
		c.do(action{kind: actAddrs, peer: p})
	}
}

// ban ends what binds the node to a peer until it is named or comes by itself. The caller closes its connections: those
// of now, since one that is opened afterwards was asked for.
func (c *core) ban(p peer.ID) {
	if len(c.banned) >= maxBanned {
		for q := range c.banned {
			delete(c.banned, q)
			break
		}
	}
	c.banned[p] = struct{}{}
	if e := c.peers[p]; e != nil {
		e.sticky, e.asked, e.lost = false, false, time.Time{}
		if e.conns > 0 {
			e.why, e.left, e.closed = closedByUser, errDisconnected, c.now
		}
	}
}

// forget drops all that is known.
func (c *core) forget(p peer.ID) {
	c.ban(p)
	if e := c.peers[p]; e != nil {
		c.demote(e)
		c.drop(e)
	}
}

// group is what a peer shares with others of the same network, or behind the same relay: candidates from groups with few
// neighbors come first.
func (e *entry) group() string {
	relay := peer.ID("")
	for _, a := range slices.Backward(e.addrs) {
		if addr.Relayed(a.Multiaddr) {
			if relay == "" {
				relay, _, _ = addr.SplitRelay(a.Multiaddr)
			}
			continue
		}
		ip, ok := addr.IP(a.Multiaddr)
		if !ok {
			continue
		}
		bits := 16
		if ip.Is6() {
			bits = 32
		}
		if prefix, err := ip.Prefix(bits); err == nil {
			return prefix.String()
		}
	}
	return string(relay)
}
