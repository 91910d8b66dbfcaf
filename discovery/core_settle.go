package discovery

import (
	"slices"
	"time"
)

// settle deals with the connected: it lets go whom nobody wants, and those over the high mark when their grace is
// over. It returns when it wants to be called again.
func (c *core) settle() (wake time.Time) {
	for _, e := range c.peers {
		switch {
		case e.conns == 0:
		case !e.identified:
			if late := e.newest.Add(identifyWithin); c.now.Before(late) {
				wake = earlier(wake, late)
			} else if !c.inUse(e.id) { // what is not identified serves nobody, a relay neither
				e.newest = c.now
				c.close(e, closedDead, errVanished)
			}
		default:
			wake = earlier(wake, c.settleOne(e))
			if c.cfg.Allow != nil {
				wake = earlier(wake, c.now.Add(recheck))
			}
		}
	}
	return wake
}

// settleOne is settle for one that is identified.
func (c *core) settleOne(e *entry) (wake time.Time) {
	switch {
	case !e.doubted.IsZero():
		if late := e.doubted.Add(memberWithin); c.now.Before(late) {
			return late
		}
		c.reject(e, closedNotMember, errNotMember)
		return c.now.Add(recheck)
	case e.unwanted:
		if !c.inUse(e.id) && (e.why == closedNotAllow || !c.depends(e.id)) {
			c.close(e, e.why, e.left)
		}
		return c.now.Add(recheck)
	case !c.allowed(e.id):
		if c.keeps(e.id) {
			c.bear(e)
		} else {
			c.reject(e, closedNotAllow, errNotAllowed)
		}
	case e.why != closedUnknown:
		// A connection that came while the others were being closed.
		if again := e.closed.Add(time.Second); c.now.Before(again) {
			return again
		}
		c.close(e, e.why, e.left)
	case !e.neighbor && e.member:
		return c.place(e)
	}
	return wake
}

// place decides about a member that is no neighbor.
func (c *core) place(e *entry) (wake time.Time) {
	switch {
	case c.neighbors < c.cfg.High || e.sticky:
		c.promote(e)
	case c.now.Before(e.grace):
		return e.grace
	case c.inUse(e.id), c.needed(e.id):
		c.protect(e, e.protected || c.protected-c.neighbors < maxGuests) // a guest: the connection manager knows of no calls
		return c.now.Add(recheck)
	default:
		c.makeRoom(e)
	}
	return time.Time{}
}

// makeRoom lets one peer go, by lot among the newcomer and those neighbors that nothing keeps. Were it always the
// newcomer, a node that starts in a full network would never get a neighbor: every connection of its would be closed.
// This way it keeps all but one in High+1 of its connections, while those who lose one have others, or dial again.
func (c *core) makeRoom(newcomer *entry) {
	lots := []*entry{newcomer}
	for _, e := range c.kept() {
		if !e.sticky && e.why == closedUnknown && c.now.Sub(e.since) >= grace && !c.inUse(e.id) && !c.needed(e.id) {
			lots = append(lots, e)
		}
	}
	victim := lots[c.rng.IntN(len(lots))]
	c.close(victim, closedFull, errMadeRoom)
	if victim != newcomer {
		c.demote(victim)
		c.promote(newcomer)
	}
}

// kept returns the neighbors without the reserve.
func (c *core) kept() []*entry {
	var out []*entry
	for _, e := range c.peers {
		if e.neighbor {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b *entry) int {
		if a.outbound != b.outbound {
			if a.outbound {
				return -1
			}
			return 1
		}
		return a.up.Compare(b.up)
	})
	n := 0
	for n < len(out) && n < reserve && out[n].outbound {
		n++
	}
	return out[n:]
}
