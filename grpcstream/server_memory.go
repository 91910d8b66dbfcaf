package grpcstream

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc/test/bufconn"
)

// memoryBuffer is how much a tunnel in memory holds in each direction before writes wait.
const memoryBuffer = 64 << 10

// ErrNotStarted is returned by [Server.DialMemory] before [Server.Start].
var ErrNotStarted = errors.New("grpcstream: the server is not started")

// DialMemory opens a tunnel from the node to itself, in memory. The peer at either end is the host's own ID with the
// path [PathMemory]. Before Start it fails with [ErrNotStarted], after Shutdown with net.ErrClosed.
func (s *Server) DialMemory(ctx context.Context) (net.Conn, error) {
	s.mu.Lock()
	state, l := s.state, s.memory
	s.mu.Unlock()
	switch state {
	case serverNew:
		return nil, ErrNotStarted
	case serverClosed:
		return nil, fmt.Errorf("grpcstream: dial in memory: %w", net.ErrClosed)
	case serverStarted:
	}
	c, err := l.DialContext(ctx)
	if err != nil {
		if ctx.Err() == nil {
			err = net.ErrClosed
		}
		return nil, fmt.Errorf("grpcstream: dial in memory: %w", err)
	}
	return memoryConn{c, l.peer}, nil
}

// memoryListener accepts the tunnels of DialMemory.
type memoryListener struct {
	*bufconn.Listener
	srv  *Server
	peer Peer
}

func (s *Server) listenMemory(p Peer) *memoryListener {
	return &memoryListener{Listener: bufconn.Listen(memoryBuffer), srv: s, peer: p}
}

// Accept implements net.Listener.
func (l *memoryListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, net.ErrClosed
		}
		c = memoryConn{c, l.peer}
		if t := l.srv.newTunnel(c, l.peer, nil); t != nil {
			return t, nil
		}
		_ = c.Close()
	}
}

// Addr implements net.Listener.
func (l *memoryListener) Addr() net.Addr { return Addr{l.peer.ID} }

// memoryConn is one end of a tunnel in memory.
type memoryConn struct {
	net.Conn
	peer Peer
}

func (c memoryConn) remote() Peer         { return c.peer }
func (c memoryConn) LocalAddr() net.Addr  { return Addr{c.peer.ID} }
func (c memoryConn) RemoteAddr() net.Addr { return Addr{c.peer.ID} }
