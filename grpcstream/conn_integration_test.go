package grpcstream

import (
	"errors"
	"net"
	"testing"

	"github.com/libp2p/go-libp2p/core/protocol"
	"golang.org/x/net/nettest"
)

const testProtocol protocol.ID = "/test/1.0.0"

// connPair is a connection from one host to another, and its other end.
func connPair(tb testing.TB, transport string) (dialed, accepted net.Conn) {
	tb.Helper()
	a, b := newHost(tb, transport), newHost(tb, transport)
	knows(a, b)
	l, err := Listen(b, testProtocol)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	if dialed, err = Dial(tb.Context(), a, b.ID(), testProtocol); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = dialed.Close() })
	if accepted, err = l.Accept(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = accepted.Close() })
	return dialed, accepted
}

func TestConn_IsANetConn(t *testing.T) {
	for _, end := range []string{"dialed", "accepted"} {
		t.Run(end, func(t *testing.T) {
			for transport := range listenOn {
				t.Run(transport, func(t *testing.T) {
					a, b := newHost(t, transport), newHost(t, transport)
					knows(a, b)
					l, err := Listen(b, testProtocol)
					if err != nil {
						t.Fatal(err)
					}
					defer l.Close()
					nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
						c1, err = Dial(t.Context(), a, b.ID(), testProtocol)
						if err != nil {
							return nil, nil, nil, err
						}
						c2, err = l.Accept()
						if err != nil {
							return nil, nil, nil, errors.Join(err, c1.Close())
						}
						stop = func() { _, _ = c1.Close(), c2.Close() }
						if end == "accepted" {
							c1, c2 = c2, c1
						}
						return c1, c2, stop, nil
					})
				})
			}
		})
	}
}
