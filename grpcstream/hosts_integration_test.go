package grpcstream

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/interop/grpc_testing"
)

// listenOn are the transports, by name, that integration tests run over.
var listenOn = map[string]string{
	"tcp":  "/ip4/127.0.0.1/tcp/0",
	"quic": "/ip4/127.0.0.1/udp/0/quic-v1",
}

func newHost(tb testing.TB, transport string) corehost.Host {
	tb.Helper()
	h, err := libp2p.New(
		libp2p.ListenAddrStrings(listenOn[transport]),
		libp2p.DisableRelay(),
		libp2p.DisableMetrics(),
	)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = h.Close() })
	return h
}

// knows tells a host the addresses of others.
func knows(h corehost.Host, others ...corehost.Host) {
	for _, o := range others {
		h.Peerstore().AddAddrs(o.ID(), o.Addrs(), time.Hour)
	}
}

// textLogger writes to w. Only one call may log.
func textLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// startServer serves a TestService, or what register registers, on a new host.
func startServer(tb testing.TB, transport string, cfg ServerConfig, register func(grpc.ServiceRegistrar)) (corehost.Host, *Server) {
	tb.Helper()
	h := newHost(tb, transport)
	if cfg.Logger == nil {
		cfg.Logger = quiet()
	}
	s := NewServer(cfg)
	if register == nil {
		register = func(r grpc.ServiceRegistrar) { grpc_testing.RegisterTestServiceServer(r, testService{}) }
	}
	register(s)
	if err := s.Start(h); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // the test's context has ended
		cancel()
		_ = s.Shutdown(ctx)
	})
	return h, s
}

// plainClient is an ordinary gRPC channel from one host to a peer.
func plainClient(tb testing.TB, h corehost.Host, p peer.ID, opts ...grpc.DialOption) *grpc.ClientConn {
	tb.Helper()
	cc, err := grpc.NewClient("passthrough:///"+p.String(), append([]grpc.DialOption{
		grpc.WithTransportCredentials(NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return Dial(ctx, h, p, TunnelProtocol(DefaultNetwork))
		}),
	}, opts...)...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = cc.Close() })
	return cc
}

func withTimeout(tb testing.TB, d time.Duration) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), d)
	tb.Cleanup(cancel)
	return ctx
}
