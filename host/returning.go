package host

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"

	"github.com/lynn9388/p2p/internal/addr"
)

const (
	// returnTimeout is how long an older connection of a peer that connected again has to show life, each time it is asked.
	// Over QUIC a dead one shows by no packet at all.
	returnTimeout = 750 * time.Millisecond

	// returnTimeoutTCP is the same for TCP, where an answer may wait behind megabytes of others, and a process that ended
	// has its connections closed by its machine.
	returnTimeoutTCP = 3 * time.Second

	// returnTries is how often one is asked, so that neither a lost packet nor a moment in which the machine does something
	// else costs a connection that lives.
	returnTries = 2

	// A peer that comes from another IP address than before has most likely moved, and what it has under way still arrives
	// while no answer gets back. So such a connection must answer, each time within these.
	movedTimeout    = 500 * time.Millisecond
	movedTimeoutTCP = 750 * time.Millisecond

	// returnStall is by how much a question may last longer than its time. When it does, this process did not get to run, and
	// it does not count.
	returnStall = 250 * time.Millisecond
)

// returning closes, at a relay, what a peer has left behind when it connects again after a crash or a change of its
// network: libp2p prefers the connection with the most streams, which the dead one is, and whoever wants to be carried to
// the peer would wait until the relay finds out, 30 s later. A peer keeps connections over TCP and QUIC side by side, and
// while it changes from one to another two of a kind, so that each is asked for life first.
type returning struct {
	ctx  context.Context //nolint:containedctx // it is the network's to call, and gives none
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu     sync.Mutex
	asking map[string]bool // by the connection's ID
}

func newReturning(n network.Network) *returning {
	r := &returning{asking: map[string]bool{}}
	r.ctx, r.stop = context.WithCancel(context.Background())
	n.Notify(r)
	return r
}

// Close ends the questions that are under way, and waits for them.
func (r *returning) Close() {
	r.mu.Lock()
	r.stop()
	r.mu.Unlock()
	r.wg.Wait()
}

// Connected implements [network.Notifiee].
func (r *returning) Connected(n network.Network, c network.Conn) {
	if c.Stat().Direction != network.DirInbound || addr.Relayed(c.RemoteMultiaddr()) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, older := range n.ConnsToPeer(c.RemotePeer()) {
		id := older.ID()
		if id == c.ID() || addr.Relayed(older.RemoteMultiaddr()) || r.asking[id] || r.ctx.Err() != nil {
			continue
		}
		r.asking[id] = true
		moved := elsewhere(older.RemoteMultiaddr(), c.RemoteMultiaddr())
		r.wg.Go(func() {
			if !showsLife(r.ctx, older, moved) {
				_ = older.Close()
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			delete(r.asking, id)
		})
	}
}

// elsewhere tells whether two addresses are of different hosts: of one version of IP, and not the same.
func elsewhere(a, b ma.Multiaddr) bool {
	x, okx := addr.IP(a)
	y, oky := addr.IP(b)
	return okx && oky && x.Is4() == y.Is4() && x != y
}

// showsLife asks the other end of a connection, whose peer has moved or not, for an answer. One that ctx keeps from
// answering has shown life.
func showsLife(ctx context.Context, c network.Conn, moved bool) bool {
	timeout := returnTimeoutTCP
	var q *quic.Conn
	switch quic := c.As(&q); {
	case quic && moved:
		timeout = movedTimeout
	case quic:
		timeout = returnTimeout
	case moved:
		timeout = movedTimeoutTCP
	}
	for silent := 0; silent < returnTries; {
		before, begun := packets(q), time.Now()
		asked, cancel := context.WithTimeout(ctx, timeout)
		_, _ = Ping(asked, c)
		answered := asked.Err() == nil
		cancel()
		switch {
		case answered, ctx.Err() != nil, !moved && packets(q) != before:
			return true
		case time.Since(begun) < timeout+returnStall:
			silent++
		}
	}
	return false
}

// packets is how many packets a QUIC connection has received.
func packets(q *quic.Conn) uint64 {
	if q == nil {
		return 0
	}
	return q.ConnectionStats().PacketsReceived
}

// Disconnected implements [network.Notifiee].
func (r *returning) Disconnected(network.Network, network.Conn) {}

// Listen implements [network.Notifiee].
func (r *returning) Listen(network.Network, ma.Multiaddr) {}

// ListenClose implements [network.Notifiee].
func (r *returning) ListenClose(network.Network, ma.Multiaddr) {}
