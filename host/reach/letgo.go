package reach

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/idle"
)

// verifyWithin is how long a direct connection may take to answer when the other end seems to have lost it.
const verifyWithin = 1500 * time.Millisecond

// verify closes the direct connections to p that do not answer, and tells whether one is left. The other end made a new
// connection through a relay, or wants to exchange addresses: it would not if it had a direct one.
func (j *job) verify(ctx context.Context, p peer.ID) (left bool) {
	var all sync.WaitGroup
	var alive atomic.Bool
	for _, c := range j.direct(p) {
		all.Go(func() {
			pctx, cancel := context.WithTimeout(ctx, verifyWithin)
			defer cancel()
			_, err := host.Ping(pctx, c)
			switch {
			case err == nil, pctx.Err() == nil && !c.IsClosed(): // it answers, if only that it has no ping
				alive.Store(true)
			case ctx.Err() == nil:
				j.log.Debug("closing a direct connection that the other end has lost", "peer", p, "addr", c.RemoteMultiaddr())
				_ = c.Close()
			}
		})
	}
	all.Wait()
	return alive.Load()
}

// direct returns the direct connections to p.
func (r *Reach) direct(p peer.ID) []network.Conn {
	return slices.DeleteFunc(r.h.Network().ConnsToPeer(p), func(c network.Conn) bool {
		_, _, relayed := throughRelay(c.RemoteMultiaddr())
		return relayed || c.IsClosed()
	})
}

// needlessAfter is how long a direct connection must last before the relayed ones beside it are closed.
const needlessAfter = 2 * time.Second

// letGo closes the relayed connections that a direct one has taken the place of, once nothing is on them: each takes a
// place at the relay.
func (j *job) letGo() {
	j.mu.Lock()
	var needless []network.Conn
	for _, t := range j.core.peers {
		if t.direct == 0 || time.Since(t.since) < needlessAfter || t.running {
			continue
		}
		for _, r := range t.relayed {
			if c := j.conns[r.conn]; c != nil && time.Since(c.Stat().Opened) > needlessAfter { // verified, if it is young
				needless = append(needless, c)
			}
		}
	}
	j.mu.Unlock()
	for _, c := range needless {
		if idle.Conn(c) {
			j.log.Debug("closing a relayed connection beside a direct one", "peer", c.RemotePeer(), "addr", c.RemoteMultiaddr())
			_ = c.Close()
		}
	}
}
