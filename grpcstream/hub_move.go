package grpcstream

import "time"

const (
	// moveSettle is how long a direct path must have lasted before calls over a relay move to it: many that appear are
	// gone again at once, with what is on them. It is doubled each time that one was lost soon after, up to moveSettleMax.
	moveSettle    = 250 * time.Millisecond
	moveSettleMax = 8 * time.Second
	// moveSteady is how long a direct path must have lasted for its loss not to count as soon.
	moveSteady = 10 * time.Second
)

// A move is what is known of the moves of a peer's calls from a relay to a direct path.
type move struct {
	failed int       // attempts in a row that came to nothing
	until  time.Time // none is made before
	losses int       // direct paths in a row that were lost soon after the calls had moved to them
}

// settle is how long a direct path must last before calls move to it.
func (m *move) settle() time.Duration {
	return min(moveSettle<<min(m.losses, 10), moveSettleMax)
}

// lost takes in that a link was lost, and tells whether that was soon after the calls had moved to it.
func (m *move) lost(l *link, now time.Time) bool {
	switch {
	case !l.settles:
		return false
	case now.Sub(l.since) < moveSteady:
		m.losses++
		return true
	default:
		m.losses = 0
		return false
	}
}

// moveLocked brings the calls of a peer closer to a direct path, if they go over a relay and there is one: it makes a link,
// then waits until that has settled, then moves. It returns the link that is of no use any longer, or nil.
func (h *hub) moveLocked(p *hubPeer, now time.Time) (gone *link) {
	l := p.link.Load()
	if l == nil || l.path != PathRelay {
		delete(h.moving, p)
		return nil
	}
	if n := p.next; n != nil {
		if !n.settles {
			return nil // it is being dialed
		}
		if ripe := n.since.Add(p.move.settle()); ripe.After(now) {
			h.moving[p] = struct{}{}
			h.wakeAtLocked(ripe)
			return nil
		}
		return h.useLocked(h.movedLocked(p), now)
	}
	switch {
	case p.farAway:
		delete(h.moving, p)
	case p.move.until.After(now):
		h.moving[p] = struct{}{}
		h.wakeAtLocked(p.move.until)
	default:
		h.dialLocked(p, now)
	}
	return nil
}

// arrivedLocked takes in that a link is ready to which the calls of a peer may move. It returns the link that is of no
// use any longer, or nil.
func (h *hub) arrivedLocked(l *link, now time.Time) (gone *link) {
	p := l.peer
	if l.path == PathRelay { // the direct path was gone by the time the tunnel was made
		p.next = nil
		h.notMovedLocked(p, now)
		return l
	}
	l.settles = true
	return h.moveLocked(p, now)
}

// movedLocked ends a move: it returns the link that has settled.
func (h *hub) movedLocked(p *hubPeer) *link {
	l := p.next
	p.next = nil
	p.move.failed, p.move.until = 0, time.Time{}
	delete(h.moving, p)
	return l
}

// notMovedLocked notes that an attempt to move came to nothing. The calls go on over the relay.
func (h *hub) notMovedLocked(p *hubPeer, now time.Time) {
	p.move.failed++
	p.move.until = now.Add(pauseAfter(p.move.failed))
	h.moving[p] = struct{}{}
	h.wakeAtLocked(p.move.until)
}
