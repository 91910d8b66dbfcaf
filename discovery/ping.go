package discovery

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/quic-go/quic-go"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/addr"
	"github.com/lynn9388/p2p/internal/safetext"
)

// stall is by how much the end of a ping may be late before it counts for nothing.
const stall = 50 * time.Millisecond

// maxExcused is how many pings in a row may have no answer while something comes in: a packet that comes in proves one
// direction only.
const maxExcused = 8

// lookKind tells why a connection is looked at, and so after how many pings without an answer it is closed.
type lookKind int

const (
	lookUsual lookKind = iota // two
	lookUsed                  // two: somebody waits for it
	lookDoubt                 // one: there was a reason to doubt it already
)

// look is a look at one connection: a short one does not wait for a long one.
type look struct {
	conn network.Conn
	kind lookKind
}

// ping looks whether each of the connections still works, and closes those that do not. One look of a kind at one
// connection is under way at a time: it will tell.
func (k *Keeper) ping(ctx context.Context, wg *sync.WaitGroup, conns []network.Conn, kind lookKind, timeout time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range conns {
		l := look{c, kind}
		if _, under := k.pinging[l]; under {
			continue
		}
		k.pinging[l] = struct{}{}
		wg.Go(func() {
			k.pingConn(ctx, l, timeout)
			k.mu.Lock()
			defer k.mu.Unlock()
			delete(k.pinging, l)
		})
	}
}

// pingConn closes a connection on which pings in a row got no answer.
func (k *Keeper) pingConn(ctx context.Context, l look, timeout time.Duration) {
	p := l.conn.RemotePeer()
	tries := 2
	if l.kind == lookDoubt {
		tries = 1
	}
	for failed, excused, stalled := 0, 0, 0; stalled < 4; {
		if l.conn.IsClosed() {
			return
		}
		switch a := k.pingOnce(ctx, l.conn, timeout); {
		case ctx.Err() != nil:
			return
		case a.came && a.err == nil:
			k.input(func(cr *core) { cr.measured(p, a.rtt) })
			return
		case a.came:
			return // an answer all the same: the other end lives and has no ping, or too much to do
		case a.late:
			stalled++
			continue
		case a.traffic && excused < maxExcused:
			excused++
			continue
		}
		failed++
		relay, _, _ := addr.SplitRelay(l.conn.RemoteMultiaddr())
		k.input(func(cr *core) { cr.missed(p, relay) })
		if failed >= tries {
			k.log.Debug("closing a connection that answers no ping", "peer", p, "addr", safetext.Clean(l.conn.RemoteMultiaddr().String()))
			_ = l.conn.Close() // it is dead
			return
		}
	}
}

// answer is what came of one ping.
type answer struct {
	came    bool // in time
	rtt     time.Duration
	err     error
	late    bool // this process did not get to run for a while: it may be there, unread
	traffic bool // something else came in, and not only what was under way before
}

func (k *Keeper) pingOnce(ctx context.Context, c network.Conn, timeout time.Duration) answer {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	start := time.Now()
	var halfway atomic.Pointer[traffic]
	half := time.AfterFunc(timeout/2, func() { halfway.Store(new(k.received(c))) })
	defer half.Stop()
	rtt, err := host.Ping(ctx, c)
	a := answer{came: ctx.Err() == nil, rtt: rtt, err: err, late: time.Since(start) > timeout+stall}
	if then := halfway.Load(); then != nil {
		a.traffic = k.received(c).after(*then)
	}
	return a
}

// traffic is how much has come in over a connection.
type traffic struct {
	packets uint64    // as QUIC counts them
	last    time.Time // as KeeperConfig.Heard says
}

// after tells whether more has come in than then. That less is known of it, since a tunnel has ended, is no sign of life.
func (t traffic) after(then traffic) bool { return t.packets > then.packets || t.last.After(then.last) }

func (k *Keeper) received(c network.Conn) (t traffic) {
	var q *quic.Conn
	if c.As(&q) {
		t.packets = q.ConnectionStats().PacketsReceived
	}
	if k.cfg.Heard == nil {
		return t
	}
	t.last = k.cfg.Heard(c)
	if q != nil {
		return t
	}
	for _, over := range k.carriedBy(c) {
		if last := k.cfg.Heard(over); last.After(t.last) {
			t.last = last
		}
	}
	return t
}

// carriedBy returns the relayed connections that a connection to their relay carries.
func (k *Keeper) carriedBy(c network.Conn) (out []network.Conn) {
	for _, over := range k.h.Network().Conns() {
		relay, at, ok := addr.SplitRelay(over.RemoteMultiaddr())
		if ok && relay == c.RemotePeer() && at.Equal(c.RemoteMultiaddr()) && over.LocalMultiaddr().Equal(c.LocalMultiaddr()) {
			out = append(out, over)
		}
	}
	return out
}
