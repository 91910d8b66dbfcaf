package grpcstream

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
)

// A tunnel is the server's end of one. It is a net.Conn that gRPC reads and writes, with the account of what its peer
// uses and a watch on peers that are slow or silent: HTTP/2 must begin, the peer must show that it reads, and each
// frame must come whole, within the connection timeout each. What comes later (a peer that reads no more, or is gone)
// is found by the write stall limit of the connection under it, and by gRPC's keepalive.
type tunnel struct {
	net.Conn
	peer  Peer
	srv   *Server
	limit *peerLimit
	mem   reservation

	frames  frameTracker // used by gRPC's one reader only
	partial *watchdog
	opening *time.Timer
	open    chan struct{} // closed when HTTP/2 works in both directions
	once    sync.Once
}

// newTunnel takes a connection over. When the peer has too many it is closed and nil returned.
func (s *Server) newTunnel(c net.Conn, p Peer, scope memoryScope) *tunnel {
	limit, ok := s.limits.addTunnel(p.ID)
	if !ok {
		s.log.Debug("tunnel refused: the peer has too many", "peer", p.ID)
		return nil
	}
	t := &tunnel{Conn: c, peer: p, srv: s, limit: limit, open: make(chan struct{})}
	t.mem.scope = scope
	t.partial = newWatchdog(s.cfg.ConnectionTimeout, t.cut)
	t.opening = time.AfterFunc(s.cfg.ConnectionTimeout, t.cut)
	s.mu.Lock()
	closed := s.state == serverClosed
	if !closed {
		s.tunnels[t] = struct{}{}
	}
	s.mu.Unlock()
	if closed {
		t.cut()
	}
	return t
}

func (t *tunnel) remote() Peer { return t.peer }

// Read implements net.Conn.
func (t *tunnel) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if n == 0 {
		return n, err
	}
	before := t.frames.frames
	t.frames.advance(p[:n])
	switch {
	case !t.frames.within():
		t.partial.end()
	case t.frames.frames != before || t.partial.since.Load() == 0:
		t.partial.begin()
	}
	if t.frames.acked && !t.isOpen() {
		t.opening.Stop()
		close(t.open)
	}
	return n, err
}

// isOpen reports whether the peer has spoken HTTP/2 and read what it was sent.
func (t *tunnel) isOpen() bool {
	select {
	case <-t.open:
		return true
	default:
		return false
	}
}

// Close implements net.Conn.
func (t *tunnel) Close() error {
	t.leave()
	return t.Conn.Close()
}

// cut ends the tunnel without ceremony.
func (t *tunnel) cut() {
	t.leave()
	if c, ok := t.Conn.(*conn); ok {
		c.end(net.ErrClosed)
		return
	}
	_ = t.Conn.Close()
}

func (t *tunnel) leave() {
	t.once.Do(func() {
		t.opening.Stop()
		t.partial.stop()
		t.mem.close()
		t.srv.limits.removeTunnel(t.limit)
		t.srv.mu.Lock()
		delete(t.srv.tunnels, t)
		t.srv.mu.Unlock()
	})
}

// acquire waits for the turn of one call.
func (t *tunnel) acquire(ctx context.Context, kind callKind) error {
	if err := t.srv.limits.acquire(ctx, t.limit, kind); err != nil {
		return err
	}
	if kind == watchCall {
		return nil // it is one small message a side, and lasts
	}
	if err := t.mem.begin(); err != nil {
		t.srv.limits.release(t.limit, kind)
		t.srv.log.Debug("call refused: no memory left for the tunnel", "peer", t.peer.ID, "err", err)
		return busy("this node has no memory left for the tunnel")
	}
	return nil
}

// release ends a call that acquire let run.
func (t *tunnel) release(kind callKind) {
	if kind == ordinaryCall {
		t.mem.end()
		t.srv.limits.served(t.limit)
	}
	t.srv.limits.release(t.limit, kind)
}

// tunnelListener accepts the tunnels of one protocol.
type tunnelListener struct {
	*streamListener
	srv *Server
}

// Accept implements net.Listener.
func (l tunnelListener) Accept() (net.Conn, error) {
	for {
		s, err := l.accept()
		if err != nil {
			return nil, err
		}
		c := newConn(s, l.srv.cfg.WriteStall)
		if t := l.srv.newTunnel(c, c.peer, s.Scope()); t != nil {
			return t, nil
		}
		_ = s.ResetWithError(network.StreamResourceLimitExceeded)
	}
}
