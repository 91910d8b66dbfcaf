package grpcstream

import (
	"context"
	"slices"
	"time"
)

// A probe follows the health of one instance over one link. The wire reports by [hub.told].
type probe struct {
	instance *instance
	link     *link
	service  string
	ctx      context.Context //nolint:containedctx // the life of the question, which no call's context bounds
	cancel   context.CancelFunc
}

// askLocked has the wire ask for the health of an instance over the link that its peer has, if its service is called.
// What it said over an earlier link of a peer that has changed its path holds until it says otherwise.
func (h *hub) askLocked(i *instance, now time.Time) {
	l := i.peer.link.Load()
	if l == nil || !i.service.called || h.closed || i.probe != nil && i.probe.link == l {
		return
	}
	q := &probe{instance: i, link: l, service: i.service.name}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	if i.probe != nil {
		i.probe.cancel()
	}
	i.probe, i.asked = q, now
	h.work.Add(1)
	h.later = append(h.later, func(w wire) { w.ask(q, h.work.Done) })
}

// forget ends the question for the health of an instance, and forgets what it said.
func (i *instance) forget() {
	if i.probe != nil {
		i.probe.cancel()
	}
	i.probe, i.health, i.asked = nil, unasked, time.Time{}
}

// unlinked forgets what the instances of a peer said over a link that is gone.
func (p *hubPeer) unlinked() {
	for _, i := range p.offered {
		i.forget()
	}
}

// told takes in what an instance says of its health, and how long it took to say it; 0: that was not measured.
func (h *hub) told(q *probe, is fitness, took time.Duration) {
	h.mu.Lock()
	i := q.instance
	if i.probe != q {
		h.unlock()
		return
	}
	if took > 0 {
		i.peer.rtt = took
	}
	if i.health == is {
		h.unlock()
		return
	}
	i.health = is
	h.refreshServiceLocked(i.service)
	h.unlockAndWake()
}

// calledLocked notes that calls ask for a service: from now on its instances are asked for their health.
func (h *hub) calledLocked(s *hubService, now time.Time) {
	if s.called {
		return
	}
	s.called = true
	for _, i := range s.instances {
		h.askLocked(i, now)
	}
	h.refreshServiceLocked(s)
}

// sweepServiceLocked forgets the pools from which no call chose during the last [idleSweeps] sweeps, and lets a service
// rest that no call asked for in that time: its instances are not asked for their health any longer.
func (h *hub) sweepServiceLocked(s *hubService) {
	used := s.all.sweep()
	for key, p := range s.tagged {
		if p.sweep() {
			used = true
		} else if p.unused >= idleSweeps {
			delete(s.tagged, key)
		}
	}
	if used {
		s.unused = 0
		return
	}
	if s.unused++; s.unused < idleSweeps || !s.called {
		return
	}
	s.called = false
	for _, i := range s.instances {
		i.forget()
	}
	h.refreshServiceLocked(s)
}

// refreshServiceLocked brings a service up to date after something has changed about its instances.
func (h *hub) refreshServiceLocked(s *hubService) {
	s.refresh(h.now())
	if !s.due.IsZero() {
		h.wakeAtLocked(s.due)
	}
}

// any tells whether an instance is in some state that the call has not tried.
func (p *pool) any(c *call, is func(*instance) bool) bool {
	return slices.ContainsFunc(p.instances, func(i *instance) bool { return !c.hasTried(i.peer) && is(i) })
}

// isAsked tells whether the instance was asked and has not answered.
func (i *instance) isAsked() bool {
	return i.peer.link.Load() != nil && i.probe != nil && i.health == unasked
}
