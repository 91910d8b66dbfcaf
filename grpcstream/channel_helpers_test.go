package grpcstream

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	mocknet "github.com/libp2p/go-libp2p/p2p/net/mock"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p/internal/virtual"
)

// A who is a service that says who serves it. The methods: Who (unary), Hang (unary, until canceled), Nap (unary, a minute), Chat (streams
// back what it gets).
type who struct {
	id   peer.ID
	fail func(ctx context.Context) error // nil: none
}

func whoDesc(service string) *grpc.ServiceDesc {
	unary := func(name string, do func(w *who, ctx context.Context) error) grpc.MethodDesc {
		return grpc.MethodDesc{
			MethodName: name,
			Handler: func(srv any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
				in := new(wrapperspb.StringValue)
				if err := dec(in); err != nil {
					return nil, err
				}
				w, _ := srv.(*who)
				handle := func(ctx context.Context, _ any) (any, error) {
					if err := do(w, ctx); err != nil {
						return nil, err
					}
					return wrapperspb.String(w.id.String()), nil
				}
				if interceptor == nil {
					return handle(ctx, in)
				}
				return interceptor(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/" + service + "/" + name}, handle)
			},
		}
	}
	return &grpc.ServiceDesc{
		ServiceName: service,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			unary("Who", func(w *who, ctx context.Context) error {
				if w.fail != nil {
					return w.fail(ctx)
				}
				return nil
			}),
			unary("Nap", func(*who, context.Context) error { time.Sleep(time.Minute); return nil }),
			unary("Hang", func(_ *who, ctx context.Context) error { <-ctx.Done(); return ctx.Err() }),
		},
		Streams: []grpc.StreamDesc{{
			StreamName: "Chat", ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, s grpc.ServerStream) error {
				for {
					m := new(wrapperspb.StringValue)
					if err := s.RecvMsg(m); errors.Is(err, io.EOF) {
						return nil
					} else if err != nil {
						return err
					}
					if err := s.SendMsg(m); err != nil {
						return err
					}
				}
			},
		}},
	}
}

// askWho calls Who of a service and returns who answered.
func askWho(ctx context.Context, cc grpc.ClientConnInterface, service string, opts ...grpc.CallOption) (peer.ID, error) {
	var out wrapperspb.StringValue
	err := cc.Invoke(ctx, "/"+service+"/Who", wrapperspb.String("?"), &out, opts...)
	if err != nil {
		return "", err
	}
	return peer.Decode(out.GetValue())
}

// An office is hosts in memory, for a test in virtual time.
type office struct {
	t   *testing.T
	net mocknet.Mocknet
	end []func()
}

// inOffice runs a test in virtual time.
func inOffice(t *testing.T, test func(t *testing.T, o *office)) {
	t.Helper()
	virtual.Test(t, func(t *testing.T) {
		o := &office{t: t, net: mocknet.New()}
		defer func() {
			for _, end := range slices.Backward(o.end) {
				end()
			}
			_ = o.net.Close()
			synctest.Wait()
		}()
		test(t, o)
	})
}

func muted() *slog.Logger { return slog.New(slog.DiscardHandler) }

// host returns a new host that every other one can dial, connected to none.
func (o *office) host() corehost.Host {
	o.t.Helper()
	h := o.stranger()
	if err := o.net.LinkAll(); err != nil {
		o.t.Fatal(err)
	}
	return h
}

// stranger returns a new host that nobody can dial, until it is linked.
func (o *office) stranger() corehost.Host {
	o.t.Helper()
	h, err := o.net.GenPeer()
	if err != nil {
		o.t.Fatal(err)
	}
	for _, other := range o.net.Hosts() {
		if other != h {
			other.Peerstore().ClearAddrs(h.ID())
			h.Peerstore().ClearAddrs(other.ID())
		}
	}
	return h
}

// link makes two hosts able to dial each other.
func (o *office) link(a, b corehost.Host) {
	o.t.Helper()
	if _, err := o.net.LinkPeers(a.ID(), b.ID()); err != nil {
		o.t.Fatal(err)
	}
}

// serve starts a server with services on h.
func (o *office) serve(h corehost.Host, services ...string) *Server {
	o.t.Helper()
	return o.serveAs(h, &who{id: h.ID()}, services...)
}

func (o *office) serveAs(h corehost.Host, w *who, services ...string) *Server {
	o.t.Helper()
	s := NewServer(ServerConfig{Logger: muted()})
	for _, name := range services {
		s.RegisterService(whoDesc(name), w)
	}
	if err := s.Start(h); err != nil {
		o.t.Fatal(err)
	}
	synctest.Wait() // until identify tells of the new protocols: an answer it gives now may be a moment old
	o.end = append(o.end, func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.Shutdown(ctx)
	})
	return s
}

// channel returns a channel over h.
func (o *office) channel(h corehost.Host, cfg ChannelConfig) *Channel {
	o.t.Helper()
	cfg.Logger = muted()
	ch, err := NewChannel(h, cfg)
	if err != nil {
		o.t.Fatal(err)
	}
	o.end = append(o.end, func() { _ = ch.Close() })
	return ch
}

// connect connects two hosts and waits until they know what the other offers.
func (o *office) connect(a, b corehost.Host) {
	o.t.Helper()
	synctest.Wait() // until identify knows what they offer
	if _, err := o.net.ConnectPeers(a.ID(), b.ID()); err != nil {
		o.t.Fatal(err)
	}
	synctest.Wait()
}

func (o *office) disconnect(a, b corehost.Host) {
	o.t.Helper()
	if err := o.net.DisconnectPeers(a.ID(), b.ID()); err != nil {
		o.t.Fatal(err)
	}
	synctest.Wait()
}

// wantReason checks an error's code and reason.
func wantReason(t *testing.T, err error, want Reason) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want reason %s", want)
	}
	if got := ReasonOf(err); got != want {
		t.Fatalf("reason %q, want %q: %v", got, want, err)
	}
}

// managed is a host with a connection manager that counts.
type managed struct {
	corehost.Host
	manager *countingManager
}

func (m managed) ConnManager() connmgr.ConnManager { return m.manager }

// A countingManager counts the peers that are protected.
type countingManager struct {
	connmgr.ConnManager
	mu   sync.Mutex
	held map[string]bool
}

func (c *countingManager) Protect(id peer.ID, tag string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		c.held = map[string]bool{}
	}
	c.held[string(id)+tag] = true
}

func (c *countingManager) Unprotect(id peer.ID, tag string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.held, string(id)+tag)
	return len(c.held) > 0
}

func (c *countingManager) n() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.held)
}

func nothing() *wrapperspb.StringValue { return new(wrapperspb.StringValue) }

// bundle is credentials that go together with no others.
type bundle struct{ credentials.Bundle }
