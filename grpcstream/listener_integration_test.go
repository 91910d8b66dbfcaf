package grpcstream

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

func TestListen_Twice(t *testing.T) {
	h := newHost(t, "tcp")
	l, err := Listen(h, testProtocol)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(h, testProtocol); err == nil || !strings.Contains(err.Error(), string(testProtocol)) {
		t.Errorf("a second listener: %v", err)
	}
	if l.Addr().String() != h.ID().String() || l.Addr().Network() != "libp2p" {
		t.Errorf("address %v", l.Addr())
	}
	done := make(chan error)
	go func() {
		_, err := l.Accept()
		done <- err
	}()
	for range 2 {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept during Close: %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
	again, err := Listen(h, testProtocol)
	if err != nil {
		t.Fatal(err)
	}
	_ = again.Close()
}

func TestConn_HasPeersForAddresses(t *testing.T) {
	dialed, accepted := connPair(t, "tcp")
	if dialed.LocalAddr() != accepted.RemoteAddr() || dialed.RemoteAddr() != accepted.LocalAddr() || dialed.LocalAddr() == dialed.RemoteAddr() {
		t.Errorf("%v to %v, %v to %v", dialed.LocalAddr(), dialed.RemoteAddr(), accepted.LocalAddr(), accepted.RemoteAddr())
	}
}

func TestConn_Closed(t *testing.T) {
	for transport := range listenOn {
		t.Run(transport, func(t *testing.T) {
			dialed, accepted := connPair(t, transport)
			if _, err := dialed.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(accepted, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if err := accepted.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := accepted.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("after the deadline: %v", err)
			}
			for range 2 {
				if err := accepted.Close(); err != nil {
					t.Error(err)
				}
			}
			if _, err := accepted.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Read after Close: %v", err)
			}
			if _, err := accepted.Write(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Write after Close: %v", err)
			}
			if _, err := dialed.Read(make([]byte, 1)); err == nil {
				t.Error("the other end read on")
			}
		})
	}
}

// A peer that takes the stream and does not read is noticed by the writer.
func TestConn_AWriteThatStallsEndsTheConnection(t *testing.T) {
	for transport := range listenOn {
		t.Run(transport, func(t *testing.T) {
			a, b := newHost(t, transport), newHost(t, transport)
			knows(a, b)
			taken := make(chan network.Stream, 1)
			b.SetStreamHandler(testProtocol, func(s network.Stream) { taken <- s })
			s, err := a.NewStream(t.Context(), b.ID(), testProtocol)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write([]byte{0}); err != nil { // the protocol is agreed on with it
				t.Fatal(err)
			}
			other := <-taken
			c := newConn(s, 300*time.Millisecond)
			start := time.Now()
			for err == nil {
				_, err = c.Write(make([]byte, 1<<20))
			}
			if !errors.Is(err, errWriteStalled) || time.Since(start) > 10*time.Second {
				t.Errorf("after %v: %v", time.Since(start), err)
			}
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, errWriteStalled) {
				t.Errorf("Read afterwards: %v", err)
			}
			_ = other.Reset()
		})
	}
}

func TestDial_Refused(t *testing.T) {
	for transport := range listenOn {
		t.Run(transport, func(t *testing.T) {
			a, b := newHost(t, transport), newHost(t, transport)
			knows(a, b)
			for _, pids := range [][]protocol.ID{{"/no/1"}, {"/no/1", "/no/2"}} {
				c, err := Dial(t.Context(), a, b.ID(), pids...)
				if err == nil {
					_, err = c.Read(make([]byte, 1))
					_ = c.Close()
				}
				if !errors.Is(err, ErrProtocolNotSupported) || !strings.Contains(err.Error(), "/no/1") {
					t.Errorf("%v: %v", pids, err)
				}
			}
			if _, err := Dial(t.Context(), a, b.ID()); err == nil {
				t.Error("a dial without a protocol")
			}
			if _, err := Dial(t.Context(), a, a.ID(), testProtocol); !errors.Is(err, ErrSelf) {
				t.Errorf("a dial to oneself: %v", err)
			}
			if _, err := Dial(t.Context(), a, somePeer(t, bobText), testProtocol); err == nil || !strings.Contains(err.Error(), bobText) {
				t.Errorf("a dial to nowhere: %v", err)
			}
		})
	}
}

func TestDial_TakesTheFirstProtocolThatThePeerSpeaks(t *testing.T) {
	a, b := newHost(t, "tcp"), newHost(t, "tcp")
	knows(a, b)
	l, err := Listen(b, testProtocol)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 3 { // not known at first, then known
		c, err := Dial(t.Context(), a, b.ID(), "/no/1", testProtocol)
		if err != nil {
			t.Fatal(err)
		}
		other, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Close(), other.Close()
	}
}

func TestDial_ItsContextDoesNotBoundTheConnection(t *testing.T) {
	a, b := newHost(t, "tcp"), newHost(t, "tcp")
	knows(a, b)
	l, err := Listen(b, testProtocol)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	c, err := Dial(ctx, a, b.ID(), testProtocol)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cancel()
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for range 2 {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(other, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if _, err := other.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Dial(ctx, a, somePeer(t, bobText), testProtocol); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

// A peer that takes the stream and never answers to the protocol holds up reads until their deadline, and Close not
// at all.
func TestDial_TheAnswerNeverComes(t *testing.T) {
	a, b := newHost(t, "tcp"), newHost(t, "tcp")
	if err := a.Connect(t.Context(), peer.AddrInfo{ID: b.ID(), Addrs: b.Addrs()}); err != nil {
		t.Fatal(err)
	}
	b.Network().SetStreamHandler(func(network.Stream) {})
	c, err := Dial(t.Context(), a, b.ID(), testProtocol)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []time.Duration{20 * time.Millisecond, -time.Second} {
		if err := c.SetDeadline(time.Now().Add(d)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("deadline in %v: %v", d, err)
		}
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := c.Read(make([]byte, 1))
		done <- err
	}()
	start := time.Now()
	_ = c.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) || time.Since(start) > 5*time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
}
