package grpcstream

import (
	"slices"
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
	// ask begins to follow the health of an instance over a link, and returns at once. It reports by [hub.told] until the
	// probe's context or the link ends, and calls ended then. It is not called under the lock.
	ask(q *probe, ended func())
	// wake makes every held call ask again.
	wake()
}

// A hub chooses the peer for each call: the peer named, or in turn one of the ready instances of a service. It dials
// peers as calls need them, and holds calls while nobody is known or ready.
//
// Of the instances of a service it calls those that say that they are serving, over direct paths if there are any, the
// less busy if one is busy, and for a while not those to which calls failed.
//
// Its methods may be called concurrently. Nothing of the wire but connect is called under its lock, and every change
// ends in a wake: a call that was given a link which has just gone waits for the next one.
type hub struct {
	network string        // its name, for error texts
	self    peer.ID       // the host's own
	wait    time.Duration // how long a call is held for a peer or an instance to be known
	patient func(method string) bool
	seek    func(service string)        // calls wait for an instance; it does not block and is called under the lock
	rtt     func(peer.ID) time.Duration // the round trip to a peer, or 0; called under the lock
	now     func() time.Time
	work    sync.WaitGroup // what the wire does in the background

	mu       sync.RWMutex
	wire     wire
	later    []func(wire) // to be done when the lock is released
	peers    map[peer.ID]*hubPeer
	services map[string]*hubService
	moving   map[*hubPeer]struct{} // their calls are about to move to a better path
	timer    *time.Timer
	timerAt  time.Time
	closed   bool
	wanted   map[string]time.Time // services that calls wait for, and until when they do
}

func newHub(network string, wait time.Duration) *hub {
	return &hub{
		network:  network,
		wait:     wait,
		patient:  func(string) bool { return false },
		seek:     func(string) {},
		rtt:      func(peer.ID) time.Duration { return 0 },
		now:      time.Now,
		peers:    map[peer.ID]*hubPeer{},
		services: map[string]*hubService{},
		moving:   map[*hubPeer]struct{}{},
		wanted:   map[string]time.Time{},
	}
}

// attach gives the hub its wire.
func (h *hub) attach(w wire) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wire = w
}

// begin runs work in the background that the channel's Close waits for. It reports false, and does nothing, when that is
// under way.
func (h *hub) begin(work func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.work.Go(work)
	return true
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
		p.unlinked()
	}
	for _, s := range h.services {
		s.refresh(h.now())
	}
	h.unlock(gone...)
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

// An offer is what a peer is known to offer.
type offer struct {
	node     bool     // it is connected and speaks the tunnel protocol
	relayed  bool     // it is connected over a relay only
	services []string // sorted, each once
	tags     []string
}

// offers tells the hub what a peer offers from now on.
func (h *hub) offers(id peer.ID, o offer) {
	h.mu.Lock()
	p := h.peers[id]
	if p == nil {
		if !o.node && len(o.services) == 0 {
			h.unlock()
			return
		}
		p = h.peerLocked(id)
	}
	now := h.now()
	p.node, p.farAway = o.node, o.relayed
	retagged := !slices.Equal(p.tags, o.tags)
	p.tags = slices.Clone(o.tags)
	kept := p.offered[:0]
	had := make(map[string]bool, len(p.offered))
	for _, i := range p.offered {
		if _, ok := slices.BinarySearch(o.services, i.service.name); !ok {
			h.removeLocked(i, now)
			continue
		}
		kept = append(kept, i)
		had[i.service.name] = true
		if retagged {
			i.service.regroup(now)
		}
	}
	clear(p.offered[len(kept):])
	p.offered = kept
	for _, name := range o.services {
		if !had[name] {
			h.addLocked(p, name, now)
		}
	}
	h.unlockAndWake(h.moveLocked(p, now))
}

// addLocked makes a peer an instance of a service.
func (h *hub) addLocked(p *hubPeer, name string, now time.Time) {
	s := h.services[name]
	if s == nil {
		s = &hubService{name: name}
		h.services[name] = s
	}
	i := &instance{peer: p, service: s}
	p.offered = append(p.offered, i)
	s.instances = append(s.instances, i)
	delete(h.wanted, name)
	h.askLocked(i, now)
	s.regroup(now)
	if !s.due.IsZero() {
		h.wakeAtLocked(s.due)
	}
}

// removeLocked takes an instance out of its service.
func (h *hub) removeLocked(i *instance, now time.Time) {
	s := i.service
	i.forget()
	s.instances = slices.DeleteFunc(s.instances, func(j *instance) bool { return i == j })
	if len(s.instances) == 0 {
		delete(h.services, s.name)
	}
	s.regroup(now)
}

// cameBack tells the hub that a peer is connected again: it need not be left alone any longer. A peer that comes and
// goes is dialed at most once each [flapPause].
func (h *hub) cameBack(id peer.ID) {
	h.mu.Lock()
	p := h.peers[id]
	if p == nil {
		h.unlock()
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

// refreshLocked brings the services of a peer up to date after its link has changed.
func (h *hub) refreshLocked(p *hubPeer) {
	for _, i := range p.offered {
		h.refreshServiceLocked(i.service)
	}
}

// unlock unlocks the hub, does what was put off, and disconnects the links given, of which some may be nil.
func (h *hub) unlock(gone ...*link) {
	w, later := h.wire, h.later
	h.later = nil
	h.mu.Unlock()
	if w == nil {
		return
	}
	for _, f := range later {
		f(w)
	}
	for _, l := range gone {
		if l != nil {
			w.disconnect(l)
		}
	}
}

// unlockAndWake is unlock, and wakes the calls held.
func (h *hub) unlockAndWake(gone ...*link) {
	w := h.wire
	h.unlock(gone...)
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
	now := h.now()
	for _, s := range h.services {
		if !s.due.IsZero() && !s.due.After(now) {
			s.refresh(now)
		}
		if !s.due.IsZero() {
			h.wakeAtLocked(s.due)
		}
	}
	var gone []*link
	for p := range h.moving {
		gone = append(gone, h.moveLocked(p, now))
	}
	h.unlockAndWake(gone...)
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
			p.unlinked()
			h.refreshLocked(p)
		}
		if len(p.offered) == 0 && !p.node && !p.resting(now) {
			delete(h.peers, id)
		}
	}
	for _, s := range h.services {
		h.sweepServiceLocked(s)
	}
	for name, until := range h.wanted {
		if !until.After(now) {
			delete(h.wanted, name)
		}
	}
	if len(gone) == 0 {
		h.unlock()
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

// want says that somebody else than a call waits for a service, for as long as a call does.
func (h *hub) want(service string) {
	h.mu.Lock()
	defer h.unlock()
	h.wantLocked(service, h.now().Add(h.wait))
}

// wantLocked says that calls wait for a service until t.
func (h *hub) wantLocked(service string, t time.Time) {
	if t.After(h.wanted[service]) {
		h.wanted[service] = t
	}
	h.seek(service)
}
