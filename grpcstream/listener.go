package grpcstream

import (
	"fmt"
	"net"
	"slices"
	"sync"

	gostream "github.com/libp2p/go-libp2p-gostream"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// Listen accepts the streams that peers open on a protocol. A second listener or stream handler on the same host and
// protocol is an error; it would take the streams of the first. After Close, which may be called more than once,
// Accept returns net.ErrClosed; accepted connections live on. The connections are as [NewConn] says.
func Listen(h corehost.Host, pid protocol.ID) (net.Listener, error) {
	l, err := listen(h, pid)
	if err != nil {
		return nil, err
	}
	return connListener{l}, nil
}

// streamListener accepts streams as they come.
type streamListener struct {
	net.Listener
	id    Addr
	close func() error
	done  chan struct{}
}

func listen(h corehost.Host, pid protocol.ID) (*streamListener, error) {
	if slices.Contains(h.Mux().Protocols(), pid) {
		return nil, fmt.Errorf("grpcstream: listen %s: the host already serves this protocol", pid)
	}
	l, err := gostream.Listen(h, pid)
	if err != nil {
		return nil, fmt.Errorf("grpcstream: listen %s: %w", pid, err)
	}
	done := make(chan struct{})
	return &streamListener{
		Listener: l,
		id:       Addr{h.ID()},
		close:    sync.OnceValue(func() error { close(done); return l.Close() }),
		done:     done,
	}, nil
}

func (l *streamListener) accept() (network.Stream, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		select {
		case <-l.done:
			return nil, net.ErrClosed
		default:
			return nil, err
		}
	}
	s, ok := c.(network.Stream)
	if !ok {
		return nil, fmt.Errorf("grpcstream: accepted a %T, which is no stream", c)
	}
	return s, nil
}

// Addr implements net.Listener. It is the host's peer ID.
func (l *streamListener) Addr() net.Addr { return l.id }

// Close implements net.Listener.
func (l *streamListener) Close() error { return l.close() }

type connListener struct{ *streamListener }

func (l connListener) Accept() (net.Conn, error) {
	s, err := l.accept()
	if err != nil {
		return nil, err
	}
	return NewConn(s), nil
}
