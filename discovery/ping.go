package discovery

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/safetext"
)

// stall is by how much the end of a ping may be late before it counts for nothing.
const stall = 50 * time.Millisecond

// look is a ping of one connection: a short one does not wait for a long one.
type look struct {
	conn  network.Conn
	short bool
}

// ping looks whether each of the connections still works, and closes those that do not. One look of a kind at one
// connection is under way at a time: it will tell.
func (k *Keeper) ping(ctx context.Context, wg *sync.WaitGroup, conns []network.Conn, timeout time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range conns {
		l := look{c, timeout < pingTimeout}
		if _, under := k.pinging[l]; under {
			continue
		}
		k.pinging[l] = struct{}{}
		wg.Go(func() {
			k.pingConn(ctx, c, timeout)
			k.mu.Lock()
			defer k.mu.Unlock()
			delete(k.pinging, l)
		})
	}
}

// pingConn closes a connection on which two pings in a row got no answer; when there was a reason to doubt it, one is
// enough.
func (k *Keeper) pingConn(ctx context.Context, c network.Conn, timeout time.Duration) {
	p := c.RemotePeer()
	failed, tries := 0, 1
	if timeout >= pingTimeout {
		tries = 2
	}
	for range 4 {
		if c.IsClosed() {
			return
		}
		pctx, cancel := context.WithTimeout(ctx, timeout)
		start := time.Now()
		rtt, err := host.Ping(pctx, c)
		expired := pctx.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case !expired && err == nil:
			k.input(func(cr *core) {
				if e := cr.peers[p]; e != nil {
					e.rtt = rtt
				}
			})
			return
		case !expired:
			return // an answer all the same: the other end lives and has no ping, or too much to do
		case time.Since(start) > timeout+stall:
			continue // this process did not get to run for a while: the answer may be there, unread
		}
		if failed++; failed >= tries {
			k.log.Debug("closing a connection that answers no ping", "peer", p, "addr", safetext.Clean(c.RemoteMultiaddr().String()))
			_ = c.Close() // it is dead
			return
		}
	}
}
