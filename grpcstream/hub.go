package grpcstream

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// dialsPerService is how many instances of a service are dialed at once while none is ready.
const dialsPerService = 3

// A wire connects to peers and carries calls to them. The hub knows nothing else of how that is done.
type wire interface {
	// connect starts to connect l and returns at once. The wire reports by [hub.up] and [hub.down]. It is called
	// with the hub's lock held.
	connect(l *link) error
	// disconnect ends l once the calls on it have ended. It may be called twice.
	disconnect(l *link)
	// wake makes every held call ask again.
	wake()
}

// A hub chooses the peer for each call: the peer named, or in turn one of the ready instances of a service. It dials
// peers as calls need them, and holds calls while nobody is known or ready.
//
// Its methods may be called concurrently. Nothing of the wire but connect is called under its lock, and every change
// ends in a wake: a call that was given a link which has just gone waits for the next one.
type hub struct {
	network string        // its name, for error texts
	wait    time.Duration // how long a call is held for a peer or an instance to be known
	patient func(method string) bool
	now     func() time.Time

	mu       sync.RWMutex
	wire     wire
	peers    map[peer.ID]*hubPeer
	services map[string]*hubService
	timer    *time.Timer
	timerAt  time.Time
	closed   bool
	self     peer.ID
	wanted   map[string]time.Time // services that calls wait for, and until when they do
}

func newHub(network string, wait time.Duration) *hub {
	return &hub{
		network:  network,
		wait:     wait,
		patient:  func(string) bool { return false },
		now:      time.Now,
		peers:    map[peer.ID]*hubPeer{},
		services: map[string]*hubService{},
		wanted:   map[string]time.Time{},
	}
}

// attach gives the hub its wire.
func (h *hub) attach(w wire) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wire = w
}

// close forgets all links. Calls still held are the wire's to end.
func (h *hub) close() {
	h.mu.Lock()
	h.closed = true
	if h.timer != nil {
		h.timer.Stop()
	}
	var gone []*link
	for _, p := range h.peers {
		gone = append(gone, p.link.Swap(nil), p.next)
		p.next = nil
	}
	for _, s := range h.services {
		s.refresh()
	}
	w := h.wire
	h.mu.Unlock()
	drop(w, gone...)
}

// drop disconnects links, of which some may be nil. It must not be called under the lock.
func drop(w wire, links ...*link) {
	for _, l := range links {
		if l != nil && w != nil {
			w.disconnect(l)
		}
	}
}

// peerLocked returns the peer of that ID, a new one if need be.
func (h *hub) peerLocked(id peer.ID) *hubPeer {
	p := h.peers[id]
	if p == nil {
		p = &hubPeer{id: id}
		h.peers[id] = p
	}
	return p
}

// offers tells the hub what a peer offers from now on. node says that it is connected and speaks the tunnel protocol.
func (h *hub) offers(id peer.ID, node bool, services []string, tags ...string) {
	h.mu.Lock()
	p := h.peers[id]
	if p == nil {
		if !node && len(services) == 0 {
			h.mu.Unlock()
			return
		}
		p = h.peerLocked(id)
	}
	p.node = node
	for _, name := range p.services {
		if s := h.services[name]; s != nil && !slices.Contains(services, name) {
			if s.instances = without(s.instances, p); len(s.instances) == 0 {
				delete(h.services, name)
				continue
			}
			s.refresh()
		}
	}
	for _, name := range services {
		s := h.services[name]
		if s == nil {
			s = &hubService{name: name}
			h.services[name] = s
		}
		if !slices.Contains(s.instances, p) {
			s.instances = append(s.instances, p)
			s.refresh()
		}
	}
	p.services, p.tags = slices.Clone(services), slices.Clone(tags)
	h.unlockAndWake()
}

// cameBack tells the hub that a peer is connected again: it need not be left alone any longer. A peer that comes and
// goes is dialed at most once each [flapPause].
func (h *hub) cameBack(id peer.ID) {
	h.mu.Lock()
	p := h.peers[id]
	if p == nil {
		h.mu.Unlock()
		return
	}
	now := h.now()
	if rest := p.back.Add(flapPause); rest.After(now) && p.failure.count > 0 {
		if p.failure.until.After(rest) {
			p.failure.until = rest
			p.failure.soft = true
			h.wakeAtLocked(rest)
		}
	} else {
		p.back = now
		p.failure.until, p.failure.at, p.failure.soft = time.Time{}, time.Time{}, true
	}
	h.unlockAndWake()
}

// up says that a link is ready.
func (h *hub) up(l *link) {
	h.mu.Lock()
	p := l.peer
	if h.closed || p.next != l {
		w := h.wire
		h.mu.Unlock()
		drop(w, l)
		return
	}
	p.next = nil
	l.since = h.now()
	old := p.link.Swap(l)
	p.failure.until, p.failure.at = time.Time{}, time.Time{}
	p.unused = 0
	h.refreshLocked(p)
	h.unlockAndWake(old)
}

// down says that a link is not ready any longer, or could not be made.
func (h *hub) down(l *link, err error) {
	h.mu.Lock()
	p, now := l.peer, h.now()
	switch {
	case p.next == l:
		p.next = nil
		p.fails(err, now)
		h.wakeAtLocked(p.failure.until)
	case p.link.Load() == l:
		p.link.Store(nil)
		if now.Sub(l.since) < steadyAfter && !l.heard.Load() {
			p.fails(errShortLink, now)
			h.wakeAtLocked(p.failure.until)
		} else {
			p.failure = failure{}
		}
		h.refreshLocked(p)
	}
	h.unlockAndWake(l)
}

// part takes the link of a peer away. The calls on it go on to their end; the next one makes a new link.
func (h *hub) part(id peer.ID) {
	h.mu.Lock()
	p := h.peers[id]
	if p == nil {
		h.mu.Unlock()
		return
	}
	l := p.link.Swap(nil)
	h.refreshLocked(p)
	h.unlockAndWake(l)
}

// refreshLocked brings the services of a peer up to date after its link has changed.
func (h *hub) refreshLocked(p *hubPeer) {
	for _, name := range p.services {
		if s := h.services[name]; s != nil {
			s.refresh()
		}
	}
}

// unlockAndWake unlocks the hub, disconnects the links given and wakes the calls held.
func (h *hub) unlockAndWake(gone ...*link) {
	w := h.wire
	h.mu.Unlock()
	drop(w, gone...)
	if w != nil {
		w.wake()
	}
}

// wakeAtLocked has the held calls ask again at t.
func (h *hub) wakeAtLocked(t time.Time) {
	if h.closed || (!h.timerAt.IsZero() && !t.Before(h.timerAt)) {
		return
	}
	h.timerAt = t
	d := max(0, t.Sub(h.now()))
	if h.timer == nil {
		h.timer = time.AfterFunc(d, h.alarm)
		return
	}
	h.timer.Reset(d)
}

func (h *hub) alarm() {
	h.mu.Lock()
	h.timerAt = time.Time{}
	h.unlockAndWake()
}

// idleSweeps is the number of sweeps without a call after which a link is closed.
const idleSweeps = 4

// sweep closes links that no call used during the last [idleSweeps] sweeps, and forgets peers that are of no
// interest any longer.
func (h *hub) sweep() {
	h.mu.Lock()
	now := h.now()
	var gone []*link
	for id, p := range h.peers {
		if n := p.picks.Load(); n != p.swept || p.active.Load() > 0 || p.next != nil {
			p.swept, p.unused = n, 0
			continue
		}
		if p.unused++; p.unused < idleSweeps {
			continue
		}
		if l := p.link.Swap(nil); l != nil {
			gone = append(gone, l)
			h.refreshLocked(p)
		}
		if len(p.services) == 0 && !p.node && !p.resting(now) {
			delete(h.peers, id)
		}
	}
	if len(gone) == 0 {
		h.mu.Unlock()
		return
	}
	h.unlockAndWake(gone...)
}

// wakeAll makes every held call ask again.
func (h *hub) wakeAll() {
	h.mu.Lock()
	h.unlockAndWake()
}

// isWanted tells whether calls wait for a service that nobody offers.
func (h *hub) isWanted(service string) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.wanted[service].After(h.now())
}

// snapshot returns the instances of a service that have the tags given, sorted.
func (h *hub) snapshot(service, tags string) []Instance {
	h.mu.RLock()
	defer h.mu.RUnlock()
	s := h.services[service]
	if s == nil {
		return nil
	}
	var all []Instance
	for _, p := range s.instances {
		if tags != "" && !containsAll(p.tags, strings.Split(tags, "\n")) {
			continue
		}
		all = append(all, Instance{
			Peer: p.id, Tags: slices.Clone(p.tags), Self: p.id == h.self,
			Connected: p.link.Load() != nil, InFlight: int(p.active.Load()),
		})
	}
	slices.SortFunc(all, func(a, b Instance) int { return cmp.Compare(a.Peer, b.Peer) })
	return all
}

func containsAll(have, want []string) bool {
	return !slices.ContainsFunc(want, func(w string) bool { return !slices.Contains(have, w) })
}
