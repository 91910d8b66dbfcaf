package p2p

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"

	"github.com/lynn9388/p2p/grpcstream"
	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/safetext"
)

const (
	// Of one peer the first refusals are logged, and then one each ten seconds: enough to see what it wants.
	refusedPerPeer = rate.Limit(0.1)
	refusedFirst   = 10
	// Of all together ten a second, so that a flood of identities fills no disk.
	refusedRate  = rate.Limit(10)
	refusedBurst = 100
	// maxRefused bounds how many peers are remembered for it. Whoever has so many identities is bounded by the rate of
	// all.
	maxRefused = 1024
)

// refusals writes one line for each connection, carriage and call that was refused, within a bound: a line says how many were
// left out before it. Its methods may be called concurrently.
type refusals struct {
	log func() *slog.Logger

	mu      sync.Mutex
	all     *rate.Limiter
	peers   map[peer.ID]*rate.Limiter
	skipped int
}

func newRefusals(log func() *slog.Logger) *refusals {
	return &refusals{log: log, all: rate.NewLimiter(refusedRate, refusedBurst), peers: make(map[peer.ID]*rate.Limiter)}
}

// peer logs that the host refused a peer a connection or, as a relay, to carry something.
func (r *refusals) peer(of host.Refusal) {
	at := ""
	if of.Addr != nil {
		at = of.Addr.String()
	}
	r.write(of.Peer, slog.LevelWarn, "refused a peer", "peer", of.Peer, "addr", at, "direction", of.Direction, "reason", of.Reason)
}

// call logs that a call was refused; why is not what the caller is told.
func (r *refusals) call(c grpcstream.Call, why error) {
	level, method := slog.LevelWarn, c.Method
	if errors.Is(why, errCarrier) {
		level = slog.LevelInfo // as it should be: nobody has to do anything
	}
	if method == "" {
		method = "one that this node does not have"
	}
	r.write(c.Peer.ID, level, "refused a call", "peer", c.Peer.ID, "method", method, "path", string(c.Peer.Path), "reason", safetext.Clean(why.Error()))
}

func (r *refusals) write(p peer.ID, level slog.Level, msg string, attrs ...any) {
	skipped, ok := r.allow(p)
	if !ok {
		return
	}
	if skipped > 0 {
		attrs = append(attrs, "left_out", skipped)
	}
	r.log().Log(context.Background(), level, msg, attrs...) //nolint:sloglint // the message is one of two constants
}

// allow tells whether a line about a peer is written, and how many were not since the last one that was.
func (r *refusals) allow(p peer.ID) (skipped int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	own := r.peers[p]
	if own == nil {
		if len(r.peers) >= maxRefused {
			clear(r.peers)
		}
		own = rate.NewLimiter(refusedPerPeer, refusedFirst)
		r.peers[p] = own
	}
	if !own.Allow() || !r.all.Allow() {
		r.skipped++
		return 0, false
	}
	skipped, r.skipped = r.skipped, 0
	return skipped, true
}
