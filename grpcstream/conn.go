package grpcstream

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// defaultWriteStall is how long one write may make no progress. TCP_USER_TIMEOUT, which gRPC sets on sockets,
	// does nothing on a stream of a shared connection.
	defaultWriteStall = 5 * time.Second

	// writeChunk is how much must get through within the write stall limit: one yamux frame, about 13 KB/s.
	writeChunk = 65519 - 12

	// closeWait bounds Close where the connection under the stream is stuck: its reset is then sent in the background.
	closeWait = 250 * time.Millisecond
)

// NewConn returns s as a net.Conn, which then owns s: closing the connection ends the stream.
//
// Writes are serialized, since two at once on one yamux stream end the whole connection; so are reads, which race there
// in the accounting of the window. A timeout matches
// os.ErrDeadlineExceeded, and the connection is usable again once the deadline is moved. Close may be called more
// than once; it lets what was written arrive, unless a Write is under way, which it interrupts. Reads and writes after
// it fail with net.ErrClosed. A write that makes no progress for 5 seconds, because the peer does not read or is gone,
// ends the stream.
//
// s must be past the negotiation of its protocol: for a stream of host.NewStream that has been read from or accepted
// by a handler. [Dial] opens streams without waiting for that.
func NewConn(s network.Stream) net.Conn { return newConn(s, defaultWriteStall) }

// Addr is the address of a [NewConn], [Dial] or [Listen] connection: a peer, not a place.
type Addr struct{ ID peer.ID }

// Network implements net.Addr. It returns "libp2p".
func (Addr) Network() string { return "libp2p" }

// String implements net.Addr. It returns the peer ID.
func (a Addr) String() string { return a.ID.String() }

var errWriteStalled = errors.New("grpcstream: write stalled: the peer does not read or cannot be reached")

type conn struct {
	stream network.Stream
	peer   Peer
	nego   *negotiation // nil when the protocol was confirmed before
	stall  *watchdog
	gone   atomic.Pointer[Error] // why the connection under it was lost
	meter  *meter                // nil unless it goes over a relay
	base   time.Time             // when the connection was made
	heard  atomic.Int64          // nanoseconds from base to when something was read last; 0: nothing was
	asked  atomic.Int64          // to the first write since then; 0: there was none
	wrote  atomic.Int64          // to the last write

	reading sync.Mutex    // held while the stream is read; a deadline or Close ends the read under way, and the next one
	writing chan struct{} // holds one token while a Write is under way
	closed  chan struct{}
	once    sync.Once
	cause   error // why the connection ended by itself; set before closed is closed
}

func newConn(s network.Stream, stall time.Duration) *conn {
	return connOver(s, PeerOf(s.Conn()), stall)
}

func connOver(s network.Stream, p Peer, stall time.Duration) *conn {
	c := &conn{
		stream:  s,
		peer:    p,
		writing: make(chan struct{}, 1),
		closed:  make(chan struct{}),
		base:    time.Now(),
	}
	c.stall = newWatchdog(stall, func() { c.end(errWriteStalled) })
	if p.Path == PathRelay {
		c.meter = new(meter)
	}
	return c
}

func (c *conn) remote() Peer { return c.peer }

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	if c.nego != nil {
		if err := c.nego.wait(c.closed); err != nil {
			return 0, c.failure(err)
		}
	}
	c.reading.Lock()
	n, err := c.stream.Read(p)
	c.reading.Unlock()
	if n > 0 {
		c.heard.Store(c.now())
		c.asked.Store(0)
	}
	if c.meter != nil {
		c.meter.got.Add(int64(n + meterOverhead))
	}
	return n, c.failure(err)
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	select {
	case c.writing <- struct{}{}:
		defer func() { <-c.writing }()
	case <-c.closed:
		return 0, c.failure(net.ErrClosed)
	}
	total := 0
	for {
		chunk := p[total:min(len(p), total+writeChunk)]
		c.stall.begin()
		if c.asked.Load() == 0 {
			c.asked.Store(c.now())
		}
		n, err := c.stream.Write(chunk)
		c.wrote.Store(c.now())
		c.stall.end()
		if c.meter != nil {
			c.meter.sent.Add(int64(n + meterOverhead))
		}
		total += n
		if err != nil {
			return total, c.failure(err)
		}
		if total >= len(p) {
			return total, nil
		}
	}
}

// now is the time as heard, asked and wrote have it.
func (c *conn) now() int64 { return int64(time.Since(c.base)) + 1 }

// lastHeard returns when something was read last on a libp2p connection; zero: never, or on another one.
func (c *conn) lastHeard(on network.Conn) time.Time { return c.when(on, c.heard.Load()) }

// lastMoved returns when something was read or written last on a libp2p connection; zero: never, or on another one.
func (c *conn) lastMoved(on network.Conn) time.Time {
	return c.when(on, max(c.heard.Load(), c.wrote.Load()))
}

func (c *conn) when(on network.Conn, t int64) time.Time {
	if t == 0 || c.stream.Conn() != on {
		return time.Time{}
	}
	return c.base.Add(time.Duration(t - 1))
}

// silent tells whether something was written so long ago and nothing was read since.
func (c *conn) silent(long time.Duration) bool {
	asked := c.asked.Load()
	return asked != 0 && c.now()-asked >= int64(long)
}

// failure turns a stream's error into the one that net.Conn promises.
func (c *conn) failure(err error) error {
	if err == nil {
		return nil
	}
	select {
	case <-c.closed:
		if c.cause != nil {
			return c.cause
		}
		return net.ErrClosed
	default:
	}
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return os.ErrDeadlineExceeded
	}
	if e := c.lost(err); e != nil {
		c.gone.CompareAndSwap(nil, e)
		return e
	}
	return err
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.end(nil)
	return nil
}

// end closes the connection once. With a cause, or where bytes are cut off anyway, the stream is reset.
func (c *conn) end(cause error) {
	c.once.Do(func() {
		c.cause = cause
		close(c.closed)
		c.stall.stop()
		reset := cause != nil || (c.nego != nil && !c.nego.confirmed())
		select {
		case c.writing <- struct{}{}:
		default:
			reset = true
			_ = c.stream.SetWriteDeadline(time.Unix(1, 0)) // a reset alone does not wake a writer that waits for the session
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			// QUIC's Close reports an error for a stream that the peer canceled; there is nothing left to do then.
			if reset || c.stream.Close() != nil {
				_ = c.stream.Reset()
			}
		}()
		t := time.NewTimer(closeWait)
		defer t.Stop()
		select {
		case <-done:
		case <-t.C:
		}
	})
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return Addr{c.stream.Conn().LocalPeer()} }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return Addr{c.peer.ID} }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	if c.nego != nil && c.nego.setReadDeadline(t) {
		return nil
	}
	return c.stream.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.stream.SetWriteDeadline(t) }
