package grpcstream

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/semaphore"
)

// callLimits bounds how many calls run at once, for each peer and in all, and how many tunnels a peer holds. libp2p's
// resource manager cannot: it sees one stream, however many calls it carries.
type callLimits struct {
	perPeer, inAll, tunnels int
	wait                    time.Duration
	all                     *semaphore.Weighted
	begun                   time.Time

	mu    sync.Mutex
	peers map[peer.ID]*peerLimit
}

// A peerLimit lives while the peer has tunnels or running calls: a peer that reconnects while its old calls still run
// does not get a fresh one.
type peerLimit struct {
	id      peer.ID
	calls   *semaphore.Weighted
	present atomic.Int64 // calls running or waiting
	watches atomic.Int64 // health watches among them
	called  atomic.Int64 // when a call ended last, in nanoseconds since callLimits.begun; 0: never
	tunnels int          // guarded by callLimits.mu
}

func newCallLimits(cfg ServerConfig) *callLimits {
	return &callLimits{
		perPeer: cfg.MaxCallsPerPeer,
		inAll:   cfg.MaxCalls,
		tunnels: cfg.MaxTunnelsPerPeer,
		wait:    cfg.BusyWait,
		all:     semaphore.NewWeighted(int64(cfg.MaxCalls)),
		begun:   time.Now(),
		peers:   make(map[peer.ID]*peerLimit),
	}
}

// addTunnel counts a tunnel of the peer; false means that it has too many.
func (l *callLimits) addTunnel(id peer.ID) (*peerLimit, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.peers[id]
	if p == nil {
		p = &peerLimit{id: id, calls: semaphore.NewWeighted(int64(l.perPeer))}
		l.peers[id] = p
	}
	if p.tunnels >= l.tunnels {
		return nil, false
	}
	p.tunnels++
	return p, true
}

func (l *callLimits) removeTunnel(p *peerLimit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.tunnels--
	l.forgetLocked(p)
}

// callPause is how long a peer counts as one that calls after its last call, while it has a tunnel: who calls again and
// again is not to be let go in between, when its next call may be on its way.
const callPause = 10 * time.Second

// calling tells whether calls of the peer run or wait, or did a moment ago, health watches apart.
func (l *callLimits) calling(id peer.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.peers[id]
	if p == nil {
		return false
	}
	called := p.called.Load()
	return p.present.Load() > p.watches.Load() || called > 0 && p.tunnels > 0 && time.Since(l.begun)-time.Duration(called) < callPause
}

// running tells whether any call runs, health watches apart.
func (l *callLimits) running() bool {
	if !l.all.TryAcquire(int64(l.inAll)) {
		return true
	}
	l.all.Release(int64(l.inAll))
	return false
}

func (l *callLimits) forgetLocked(p *peerLimit) {
	if p.tunnels == 0 && p.present.Load() == 0 && l.peers[p.id] == p {
		delete(l.peers, p.id)
	}
}

// A callKind says what a call counts for.
type callKind bool

const (
	ordinaryCall callKind = false
	// A health watch lasts as long as its tunnel and does nothing most of the time. Many peers watch many services, so
	// it counts for its peer only.
	watchCall callKind = true
)

// acquire waits for the turn of one call. An error is a gRPC status; without one the call must be released.
func (l *callLimits) acquire(ctx context.Context, p *peerLimit, kind callKind) error {
	// As many may wait as may run.
	if p.present.Add(1) > 2*int64(l.perPeer) {
		l.leave(p)
		return l.busyPeer()
	}
	if !p.calls.TryAcquire(1) {
		if err := l.waitFor(ctx, p.calls); err != nil {
			l.leave(p)
			return orBusy(ctx, l.busyPeer())
		}
	}
	if kind == ordinaryCall && !l.all.TryAcquire(1) {
		if err := l.waitFor(ctx, l.all); err != nil {
			p.calls.Release(1)
			l.leave(p)
			return orBusy(ctx, busy(fmt.Sprintf("this node runs %d calls at once", l.inAll)))
		}
	}
	if kind == watchCall {
		p.watches.Add(1)
	}
	return nil
}

// served takes that a call of the peer has run.
func (l *callLimits) served(p *peerLimit) { p.called.Store(max(1, int64(time.Since(l.begun)))) }

func (l *callLimits) release(p *peerLimit, kind callKind) {
	if kind == ordinaryCall {
		l.all.Release(1)
	} else {
		p.watches.Add(-1)
	}
	p.calls.Release(1)
	l.leave(p)
}

func (l *callLimits) leave(p *peerLimit) {
	if p.present.Add(-1) > 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forgetLocked(p)
}

func (l *callLimits) waitFor(ctx context.Context, s *semaphore.Weighted) error {
	ctx, cancel := context.WithTimeout(ctx, l.wait)
	defer cancel()
	return s.Acquire(ctx, 1)
}

func (l *callLimits) busyPeer() error {
	return busy(fmt.Sprintf("this node runs %d calls of one peer at once", l.perPeer))
}

// orBusy prefers the end of the call itself to the end of its waiting.
func orBusy(ctx context.Context, busy error) error {
	if err := ctx.Err(); err != nil {
		return contextStatus(err)
	}
	return busy
}
