package host

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// socket is a WebSocket as a stream of bytes, in binary messages, as libp2p's are
// (https://github.com/libp2p/specs/blob/master/websockets/README.md). It is read by one goroutine at a time, as libp2p's
// upgrader does; the rest is safe for concurrent use.
type socket struct {
	*websocket.Conn
	remote, local ma.Multiaddr
	close         func() error

	message io.Reader  // what is left of the last one; nil: none
	writing sync.Mutex // which the library leaves to us
}

var _ manet.Conn = (*socket)(nil)

// closingTime bounds the message by which a socket is closed.
const closingTime = 100 * time.Millisecond

// newSocket returns c as the socket that was dialed at an address; behind a proxy, c itself leads to the proxy.
func newSocket(c *websocket.Conn, dialed ma.Multiaddr) (*socket, error) {
	local, err := manet.FromNetAddr(c.LocalAddr())
	if err != nil {
		return nil, fmt.Errorf("the local address %s: %w", c.LocalAddr(), err)
	}
	kind := ma.StringCast("/ws")
	for i, p := range dialed {
		if p.Protocol().Code == ma.P_TCP {
			kind = dialed[i+1:]
		}
	}
	s := &socket{Conn: c, remote: dialed, local: local.Encapsulate(kind)}
	s.close = sync.OnceValue(func() error {
		bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
		_ = c.WriteControl(websocket.CloseMessage, bye, time.Now().Add(closingTime))
		return c.Close()
	})
	return s, nil
}

// Read implements [net.Conn].
func (s *socket) Read(b []byte) (int, error) {
	for {
		if s.message == nil {
			_, r, err := s.NextReader()
			if closed, ok := errors.AsType[*websocket.CloseError](err); ok && closed.Code == websocket.CloseNormalClosure {
				return 0, io.EOF
			}
			if err != nil {
				return 0, err
			}
			s.message = r
		}
		n, err := s.message.Read(b)
		if errors.Is(err, io.EOF) {
			s.message = nil
			if n == 0 {
				continue
			}
			err = nil
		}
		return n, err
	}
}

// Write implements [net.Conn].
func (s *socket) Write(b []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.WriteMessage(websocket.BinaryMessage, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close implements [net.Conn].
func (s *socket) Close() error { return s.close() }

// SetWriteDeadline implements [net.Conn]. It waits for a write that is under way.
func (s *socket) SetWriteDeadline(t time.Time) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.Conn.SetWriteDeadline(t)
}

// SetDeadline implements [net.Conn].
func (s *socket) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// LocalMultiaddr implements [manet.Conn].
func (s *socket) LocalMultiaddr() ma.Multiaddr { return s.local }

// RemoteMultiaddr implements [manet.Conn].
func (s *socket) RemoteMultiaddr() ma.Multiaddr { return s.remote }
