package grpcstream

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	backoffBase  = 100 * time.Millisecond // after the first failure; doubled by each further one
	backoffMax   = 5 * time.Second
	unknownPause = 250 * time.Millisecond // how often a peer without addresses is looked for while calls wait
	steadyAfter  = time.Second            // a link lost sooner, without an answer to any call, counts as a failure
	flapPause    = time.Second            // a peer that comes back more often than this is not dialed more often
)

// A hubPeer is a peer that offers services or that somebody called, shared by all services and callers. The fields
// below the comment are guarded by the hub's lock.
type hubPeer struct {
	id     peer.ID
	link   atomic.Pointer[link] // calls go over it; nil: not connected
	active atomic.Int64         // calls in flight
	picks  atomic.Uint64        // calls ever

	// Guarded by hub.mu.
	next     *link // on the way
	node     bool  // connected, and speaks the tunnel protocol
	services []string
	tags     []string
	hints    []ma.Multiaddr // where a caller says it is
	failure  failure
	back     time.Time // when it last came back
	swept    uint64    // picks at the last sweep
	unused   int       // sweeps without a pick
}

// A link is one connection to a peer, from its first dial to its end.
type link struct {
	peer  *hubPeer
	hints []ma.Multiaddr
	since time.Time // when the dial began, then when it was ready
	conn  any       // what the wire keeps of it
	heard atomic.Bool
}

// done ends a call that was given this link. heard tells that the peer answered it.
func (l *link) done(heard bool) {
	if heard && !l.heard.Load() {
		l.heard.Store(true)
	}
	l.peer.active.Add(-1)
}

// A failure is what is known of the last failures of a peer, until one of its links was steady.
type failure struct {
	count int
	err   error
	at    time.Time
	until time.Time // not dialed again before
	soft  bool      // calls are held, not failed: the peer is not known yet, or was there a moment ago
}

// The failures that calls wait out instead of failing by them.
var (
	errUnknownPeer = errors.New("not connected, and no address of it is known")
	errShortLink   = errors.New("the connection was lost right after it was made")
)

// fails notes a failure at the time now.
func (p *hubPeer) fails(err error, now time.Time) {
	f := &p.failure
	f.err, f.at, f.soft = err, now, false
	if errors.Is(err, errUnknownPeer) {
		f.count, f.soft, f.until = 1, true, now.Add(unknownPause)
		return
	}
	f.count++
	f.soft = errors.Is(err, errShortLink) || lostUnderway(err)
	f.until = now.Add(pauseAfter(f.count))
}

// lostUnderway tells whether a tunnel was not made because the connection under it ended, for no reason given. It may have
// been dead for a while: that of a peer whose address has changed, beside the one that the peer has made since.
func lostUnderway(err error) bool {
	ce, ok := errors.AsType[*network.ConnError](err)
	return ok && ce.ErrorCode == network.ConnNoError
}

// pauseAfter returns how long a peer is left alone after its nth failure in a row: 100 ms doubled each time up to 5 s,
// give or take a fifth.
func pauseAfter(n int) time.Duration {
	d := backoffMax
	if n < 7 {
		d = min(d, backoffBase<<max(0, n-1))
	}
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

// resting tells whether the peer is left alone at the time now.
func (p *hubPeer) resting(now time.Time) bool { return p.failure.until.After(now) }

// A hubService is a service and who offers it. It is guarded by the hub's lock, except for turn.
type hubService struct {
	name      string
	instances []*hubPeer
	ready     []*hubPeer // the instances that have a link
	turn      atomic.Uint64
}

// refresh rebuilds the list of ready instances.
func (s *hubService) refresh() {
	s.ready = s.ready[:0]
	for _, p := range s.instances {
		if p.link.Load() != nil {
			s.ready = append(s.ready, p)
		}
	}
	clear(s.ready[len(s.ready):cap(s.ready)])
}

// choose returns the ready instance whose turn it is, passing over those already tried, or nil. grow tells that an
// instance that is not ready should be dialed, for this call or for the next ones.
func (s *hubService) choose(c *call) (p *hubPeer, grow bool) {
	if !c.begun {
		c.turn, c.begun = s.turn.Add(1)-1, true
	}
	n := uint64(len(s.ready))
	grow = n < uint64(len(s.instances))
	if n == 0 {
		return nil, grow
	}
	for i := range n {
		if p := s.ready[(c.turn+i)%n]; c.n == 0 || !c.hasTried(p) {
			// A first attempt dials the instance in whose place it is, so that all come in as calls come.
			return p, grow && s.instances[c.turn%uint64(len(s.instances))].link.Load() == nil
		}
	}
	return nil, true
}

// without returns the list without p.
func without(list []*hubPeer, p *hubPeer) []*hubPeer {
	return slices.DeleteFunc(list, func(q *hubPeer) bool { return q == p })
}
