package grpcstream

import (
	"errors"
	"math/rand/v2"
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
	comingPause  = time.Second            // and at least one that a relay does not know: it may be about to come to it
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
	misses atomic.Int32         // failed calls in a row

	// Guarded by hub.mu.
	next    *link // on the way, or about to take the place of link
	move    move
	node    bool // connected, and speaks the tunnel protocol
	farAway bool // connected over a relay only
	offered []*instance
	tags    []string
	rtt     time.Duration  // as an answer about its health showed
	aside   time.Time      // until when it passes its turns on, or did
	strikes int            // how often it was set aside
	hints   []ma.Multiaddr // where a caller says it is
	failure failure
	back    time.Time // when it last came back
	swept   uint64    // picks at the last sweep
	unused  int       // sweeps without a pick
}

// A link is one connection to a peer, from its first dial to its end.
type link struct {
	peer   *hubPeer
	hints  []ma.Multiaddr
	path   PathKind     // set by the wire before the link is up
	since  time.Time    // when the dial began, then when it was ready
	conn   any          // what the wire keeps of it
	tunnel *conn        // set by the wire like path; nil in memory
	unary  atomic.Int64 // unary calls in flight, counted over a relay only
	heard  atomic.Bool

	settles bool // it is, or was, to take the place of one over a relay; guarded by hub.mu
}

// relayed tells whether calls to the peer go over a relay.
func (p *hubPeer) relayed() bool {
	l := p.link.Load()
	return l != nil && l.path == PathRelay
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
	// errAwayFromRelay is what a relay says of a peer that has not come to it yet, or not again, or that is about to
	// change one connection to it for another.
	errAwayFromRelay = errors.New("the peer is not at the relay")
	errShortLink     = errors.New("the connection was lost right after it was made")
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
	if errors.Is(err, errAwayFromRelay) {
		f.soft, f.until = true, now.Add(min(pauseAfter(f.count), comingPause))
		return
	}
	f.soft = errors.Is(err, errShortLink) || lostUnderway(err)
	f.until = now.Add(pauseAfter(f.count))
}

// lostUnderway tells whether a tunnel was not made because the connection under it, or the one to the relay that was asked
// for it, ended for no reason that has to do with calls. It may have been dead for a while: that of a peer whose address has
// changed, beside the one that the peer has made since. Or the peer had no use for it a moment before the tunnel was begun.
func lostUnderway(err error) bool {
	ce, ok := errors.AsType[*network.ConnError](err)
	return ok && (ce.ErrorCode == network.ConnNoError || ce.ErrorCode == network.ConnGarbageCollected) || errors.Is(err, network.ErrResourceScopeClosed)
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
