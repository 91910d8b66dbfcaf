package grpcstream

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// A ditch is a Local whose tunnels can be made to lose everything, in both directions, without a word.
type ditch struct {
	Local
	mu     sync.Mutex
	lose   chan struct{} // closed: everything is lost
	dialed int
}

func newDitch(s Local) *ditch { return &ditch{Local: s, lose: make(chan struct{})} }

func (d *ditch) DialMemory(ctx context.Context) (net.Conn, error) {
	c, err := d.Local.DialMemory(ctx)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dialed++
	inner, ok := c.(memoryConn)
	if !ok {
		return nil, errors.New("not a connection in memory")
	}
	return memoryConn{&lossyConn{Conn: inner.Conn, lose: d.lose, closed: make(chan struct{})}, inner.peer}, nil
}

// dig has all tunnels of now lose everything from now on.
func (d *ditch) dig() {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.lose)
	d.lose = make(chan struct{})
}

type lossyConn struct {
	net.Conn
	lose   chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (c *lossyConn) lost() bool {
	select {
	case <-c.lose:
		return true
	default:
		return false
	}
}

func (c *lossyConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.lost() {
		<-c.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *lossyConn) Write(b []byte) (int, error) {
	if c.lost() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *lossyConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// T12: packets are dropped under calls in flight. The calls end within 15 s, and the next one gets a new tunnel.
func TestChannel_HalfOpen(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a := o.host()
		d := newDitch(o.serve(a, "x.A"))
		ch := o.channel(a, ChannelConfig{Self: d})
		idle := make(chan time.Duration)
		for range 20 { // calls at each moment of the keepalive's period
			if _, err := askWho(t.Context(), ch.Peer(a.ID().String()), "x.A"); err != nil {
				t.Fatal(err)
			}
			start := make(chan time.Time, 1)
			go func() {
				err := ch.Invoke(t.Context(), "/x.A/Hang", nothing(), nothing())
				if status.Code(err) != codes.Unavailable {
					t.Errorf("%v", err)
				}
				idle <- time.Since(<-start)
			}()
			s, err := ch.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/x.A/Chat")
			if err != nil {
				t.Fatal(err)
			}
			go func() { // an upload
				for s.SendMsg(wrapperspb.String("some bytes")) == nil {
					time.Sleep(10 * time.Millisecond)
				}
			}()
			go func() { // a download
				var err error
				for err == nil {
					err = s.RecvMsg(nothing())
				}
			}()
			time.Sleep(700 * time.Millisecond)
			start <- time.Now()
			d.dig()
			begin := time.Now()
			<-s.Context().Done()
			if dur := time.Since(begin); dur > 15*time.Second {
				t.Errorf("a stream ended after %v", dur)
			}
			if dur := <-idle; dur > 15*time.Second {
				t.Errorf("a silent call ended after %v", dur)
			}
			time.Sleep(333 * time.Millisecond)
		}
		if d.dialed < 20 {
			t.Errorf("%d tunnels", d.dialed)
		}
	})
}

// A server that stops and starts again on a connected host is called again as soon as it announces itself.
func TestChannel_ServerRestarts(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		ch := o.channel(a, ChannelConfig{})
		o.connect(a, b)
		for range 5 {
			s := o.serve(b, "x.A")
			for range 3 {
				if _, err := askWho(t.Context(), ch, "x.A"); err != nil {
					t.Fatal(err)
				}
			}
			wg := streams(t, ch, 3)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			go func() {
				time.Sleep(time.Second)
				wg()
			}()
			if err := s.Shutdown(ctx); err != nil {
				t.Errorf("shutdown: %v", err)
			}
			cancel()
			time.Sleep(10 * time.Second) // identify takes a burst of ten pushes from a network, then one each five seconds
			synctest.Wait()
		}
	})
}

// streams opens streams, which go on until the function returned is called.
func streams(t *testing.T, ch *Channel, n int) (stop func()) {
	t.Helper()
	var open []grpc.ClientStream
	for range n {
		s, err := ch.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/x.A/Chat")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SendMsg(wrapperspb.String("x")); err != nil {
			t.Fatal(err)
		}
		open = append(open, s)
	}
	return func() {
		for _, s := range open {
			if err := errors.Join(s.RecvMsg(nothing()), s.SendMsg(nothing()), s.RecvMsg(nothing()), s.CloseSend()); err != nil {
				t.Errorf("a stream that was open when its server began to stop: %v", err)
			}
			for s.RecvMsg(nothing()) == nil {
			}
		}
	}
}
