package grpcstream

import "time"

const (
	asideAfter  = 3                // failed calls in a row after which a peer is set aside
	asideBase   = time.Second      // for how long the first time; doubled each further time
	asideMax    = 30 * time.Second // and at most
	asideForget = time.Minute      // after so long without one the next is the first time again
)

// An outcome is what a call that has ended tells of the peer that it went to.
type outcome uint8

const (
	answered outcome = iota // by a success or by an error that is the answer
	missed                  // the peer, or the way to it, is not fit
	neither                 // it was canceled, or did not go out
)

// judge takes in the outcome of a call to a peer.
func (h *hub) judge(p *hubPeer, o outcome) {
	switch {
	case o == answered && p.misses.Load() != 0:
		p.misses.Store(0)
	case o == missed && p.misses.Add(1) >= asideAfter:
		h.setAside(p)
	}
}

// setAside has a peer pass its turns on for a while. When it is back, one failed call more sets it aside again, for
// longer.
func (h *hub) setAside(p *hubPeer) {
	h.mu.Lock()
	now := h.now()
	p.misses.Store(asideAfter - 1)
	if p.aside.After(now) {
		h.unlock()
		return
	}
	if now.Sub(p.aside) > asideForget {
		p.strikes = 0
	}
	p.aside = now.Add(min(asideBase<<p.strikes, asideMax))
	p.strikes = min(p.strikes+1, 10)
	h.refreshLocked(p)
	h.unlockAndWake()
}
