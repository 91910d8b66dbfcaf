package grpcstream

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// up says that a link is ready.
func (h *hub) up(l *link) {
	h.mu.Lock()
	p, now := l.peer, h.now()
	if h.closed || p.next != l {
		h.unlock(l)
		return
	}
	l.since = now
	if p.link.Load() != nil {
		h.unlockAndWake(h.arrivedLocked(l, now))
		return
	}
	p.next = nil
	h.useLocked(l, now)
	if !p.node { // whether there is a direct path is not known yet
		h.unlockAndWake()
		return
	}
	h.unlockAndWake(h.moveLocked(p, now)) // one may have come up meanwhile
}

// useLocked has the calls to a peer go over a link from now on, and returns the one that they went over before, or nil.
func (h *hub) useLocked(l *link, now time.Time) (old *link) {
	p := l.peer
	old = p.link.Swap(l)
	p.failure.until, p.failure.at = time.Time{}, time.Time{}
	p.aside = time.Time{}
	p.misses.Store(0)
	p.unused = 0
	for _, i := range p.offered {
		h.askLocked(i, now)
	}
	h.refreshLocked(p)
	return old
}

// down says that a link is not ready any longer, or could not be made.
func (h *hub) down(l *link, err error) {
	h.mu.Lock()
	p, now := l.peer, h.now()
	switch {
	case p.next == l:
		p.next = nil
		if p.link.Load() != nil {
			h.notMovedLocked(p, now)
			break
		}
		p.fails(err, now)
		h.wakeAtLocked(p.failure.until)
	case p.link.Load() == l:
		h.lostLocked(l, now)
	}
	h.unlockAndWake(l)
}

// lostLocked takes in that the link over which the calls to a peer go has ended.
func (h *hub) lostLocked(l *link, now time.Time) {
	p := l.peer
	if n := p.next; n != nil && n.settles {
		h.useLocked(h.movedLocked(p), now) // none of them need wait
		return
	}
	p.link.Store(nil)
	p.unlinked()
	flapped := p.move.lost(l, now)
	if !flapped && now.Sub(l.since) < steadyAfter && !l.heard.Load() {
		p.fails(errShortLink, now)
		h.wakeAtLocked(p.failure.until)
	} else {
		p.failure = failure{}
	}
	h.refreshLocked(p)
}

// part takes the link of a peer away. The calls on it go on to their end; the next one makes a new link.
func (h *hub) part(id peer.ID) {
	h.mu.Lock()
	p := h.peers[id]
	if p == nil {
		h.unlock()
		return
	}
	gone := []*link{p.link.Swap(nil)}
	if n := p.next; n != nil && n.settles {
		gone = append(gone, h.movedLocked(p))
	}
	p.unlinked()
	h.refreshLocked(p)
	h.unlockAndWake(gone...)
}
