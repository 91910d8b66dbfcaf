package grpcstream

import (
	"errors"
	"slices"
	"time"

	ma "github.com/multiformats/go-multiaddr"
)

// A verdict is what the hub says to a call that asks for a peer.
type verdict uint8

const (
	picked verdict = iota // go ahead
	held                  // ask again after the next wake
	gaveUp                // it has been held long enough: the hub knows why
)

// pick gives a call its peer, without ever blocking. After picked the call must end by [link.done].
func (h *hub) pick(c *call, method string) (*link, verdict) {
	if c.sel.peer != "" {
		h.mu.RLock()
		p := h.peers[c.sel.peer]
		h.mu.RUnlock()
		if p != nil {
			if l := p.link.Load(); l != nil {
				return h.take(c, p, l)
			}
		}
		return h.pickPeer(c, method)
	}
	h.mu.RLock()
	var p *hubPeer
	var slot *instance
	if pl := h.poolFor(c, method); pl != nil {
		p, slot = pl.choose(c)
	}
	h.mu.RUnlock()
	if p != nil && slot == nil {
		if l := p.link.Load(); l != nil {
			return h.take(c, p, l)
		}
	}
	return h.pickInstance(c, method)
}

// poolFor returns the pool from which a call may choose without more ado, or nil.
func (h *hub) poolFor(c *call, method string) *pool {
	s := h.services[c.service(method)]
	if s == nil || !s.called {
		return nil
	}
	p := &s.all
	if c.sel.tags != "" {
		p = s.tagged[c.sel.tags]
	}
	if p != nil && c.sel.nearest && h.now().Sub(p.nearAt) >= nearEvery {
		return nil
	}
	return p
}

// take gives l to the call.
func (h *hub) take(c *call, p *hubPeer, l *link) (*link, verdict) {
	c.attempt(l)
	p.active.Add(1)
	p.picks.Add(1)
	return l, picked
}

// pickPeer is pick for a call to one peer, when that has no link yet.
func (h *hub) pickPeer(c *call, method string) (*link, verdict) {
	h.mu.Lock()
	defer h.unlock()
	now := h.now()
	p := h.peerLocked(c.sel.peer)
	if l := p.link.Load(); l != nil {
		return h.take(c, p, l)
	}
	h.newsLocked(c, p)
	f := &p.failure
	switch {
	case p.next != nil:
		return h.holdLocked(c, method, dialing, now)
	case f.err != nil && f.soft && p.resting(now):
		h.wakeAtLocked(f.until)
		return h.holdLocked(c, method, softKind(f), now)
	case f.err != nil && !f.soft && (p.resting(now) || !c.since.IsZero() && !f.at.Before(c.since)) && !h.isPatient(c, method):
		c.hold = failing
		return nil, gaveUp
	case p.resting(now):
		h.wakeAtLocked(f.until)
		return h.holdLocked(c, method, failing, now)
	}
	_, v := h.holdLocked(c, method, dialing, now)
	if v == held {
		h.dialLocked(p, now)
	}
	return nil, v
}

// newsLocked takes in where a call says that its peer is, once for each call. How the peer failed at other places does
// not matter then.
func (h *hub) newsLocked(c *call, p *hubPeer) {
	if len(c.sel.addrs) == 0 || c.hinted || p.next != nil {
		return
	}
	c.hinted = true
	if slices.EqualFunc(p.hints, c.sel.addrs, ma.Multiaddr.Equal) {
		return
	}
	p.hints = c.sel.addrs
	p.failure.until, p.failure.at, p.failure.soft = time.Time{}, time.Time{}, true
}

// softKind tells why a call is held after a failure that does not fail it.
func softKind(f *failure) holdKind {
	if errors.Is(f.err, errUnknownPeer) {
		return noPeer
	}
	return failing
}

// pickInstance is pick for a call to a service when there is something to do about its instances.
func (h *hub) pickInstance(c *call, method string) (*link, verdict) {
	h.mu.Lock()
	defer h.unlock()
	now := h.now()
	s := h.services[c.service(method)]
	if s == nil {
		return h.holdLocked(c, method, noInstance, now)
	}
	h.calledLocked(s, now)
	pl := s.pool(c.sel.tags, now)
	if c.sel.nearest {
		pl.sortNear(now, h.distance)
	}
	if len(pl.instances) == 0 {
		return h.holdLocked(c, method, noInstance, now)
	}
	p, slot := pl.choose(c)
	if slot != nil {
		h.tryLocked(slot.peer, now)
	}
	if p != nil {
		return h.take(c, p, p.link.Load())
	}
	switch {
	case h.dialInstancesLocked(pl, c, now):
		return h.holdLocked(c, method, dialing, now)
	case pl.any(c, (*instance).isAsked):
		return h.holdLocked(c, method, learning, now)
	case len(pl.ready) > 0: // all that can be had were tried: once more round
		p := pl.ready[(c.turn+uint64(c.n))%uint64(len(pl.ready))]
		return h.take(c, p, p.link.Load())
	case pl.any(c, func(i *instance) bool { return i.health == notServing }):
		return h.holdLocked(c, method, unfit, now)
	}
	return h.holdLocked(c, method, failing, now)
}

// dialInstancesLocked sees to it that instances which the call has not tried are being dialed, and tells whether one
// is. Those over relays come last.
func (h *hub) dialInstancesLocked(pl *pool, c *call, now time.Time) bool {
	n := 0
	for _, i := range pl.instances {
		if p := i.peer; p.next != nil && p.link.Load() == nil && !c.hasTried(p) {
			n++
		}
	}
	for _, far := range []bool{false, true} {
		for i := range uint64(len(pl.instances)) {
			if n >= dialsPerService {
				return true
			}
			p := pl.instances[(c.turn+i)%uint64(len(pl.instances))].peer
			if p.farAway == far && p.next == nil && !c.hasTried(p) && h.tryLocked(p, now) {
				n++
			}
		}
	}
	return n > 0
}

// tryLocked dials a peer unless it is connected, on the way or left alone.
func (h *hub) tryLocked(p *hubPeer, now time.Time) bool {
	if p.next != nil || p.link.Load() != nil {
		return false
	}
	if p.resting(now) {
		h.wakeAtLocked(p.failure.until)
		return false
	}
	h.dialLocked(p, now)
	return p.next != nil
}

// dialLocked starts to connect to p.
func (h *hub) dialLocked(p *hubPeer, now time.Time) {
	if h.closed || h.wire == nil {
		return
	}
	p.next = &link{peer: p, since: now, hints: p.hints}
	if err := h.wire.connect(p.next); err != nil {
		p.next = nil
		if p.link.Load() != nil {
			h.notMovedLocked(p, now)
			return
		}
		p.fails(err, now)
		h.wakeAtLocked(p.failure.until)
	}
}

// holdLocked holds the call, unless it has been held as long as it may.
func (h *hub) holdLocked(c *call, method string, why holdKind, now time.Time) (*link, verdict) {
	c.hold = why
	if c.since.IsZero() {
		c.since = now
	}
	end := c.since.Add(h.wait)
	switch why { // what is under way ends in that time, and another try comes after it
	case dialing:
		end = end.Add(connectTimeout)
	case learning:
		end = end.Add(connectTimeout + askWait)
	default:
	}
	patient := false
	if now.Before(end) {
		h.wakeAtLocked(end)
	} else if patient = h.isPatient(c, method); !patient {
		return nil, gaveUp
	}
	if why == noInstance || why == unfit {
		if patient {
			end = now.Add(h.wait)
		}
		h.wantLocked(c.service(method), end)
	}
	return nil, held
}

func (h *hub) isPatient(c *call, method string) bool { return c.patient || h.patient(method) }
