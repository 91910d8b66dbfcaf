package message

import (
	"context"
	"net"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	mocknet "github.com/libp2p/go-libp2p/p2p/net/mock"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p/grpcstream"
)

// serve serves r with a gRPC server that is not grpcstream's.
func serve(t *testing.T, l net.Listener, r *Router, opts ...grpc.ServerOption) {
	t.Helper()
	s := grpc.NewServer(opts...)
	Register(s, r)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func TestRegister_AtAnyServerWithItsCredentials(t *testing.T) {
	network, err := mocknet.FullMeshConnected(2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = network.Close() })
	taker, sender := network.Hosts()[0], network.Hosts()[1]
	l, err := grpcstream.Listen(taker, grpcstream.TunnelProtocol(""))
	if err != nil {
		t.Fatal(err)
	}
	r := NewRouter()
	Handle(r, func(_ context.Context, from peer.ID, _ *emptypb.Empty) (*wrapperspb.StringValue, error) {
		return wrapperspb.String(from.String()), nil
	})
	Handle(r, func(context.Context, peer.ID, *wrapperspb.BoolValue) (*emptypb.Empty, error) { panic("here, too") })
	serve(t, l, r, grpc.Creds(grpcstream.NewCredentials()))
	cc, err := grpcstream.NewClient(sender, taker.ID().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })

	_, err = Send[*emptypb.Empty](t.Context(), cc, wrapperspb.Bool(true))
	if status.Code(err) != codes.Internal || grpcstream.ReasonOf(err) != grpcstream.ReasonPanic {
		t.Errorf("%v, want Internal, PANIC", err)
	}
	got, err := Send[*wrapperspb.StringValue](t.Context(), cc, &emptypb.Empty{})
	if err != nil || got.GetValue() != sender.ID().String() {
		t.Errorf("%v, %v; want %v", got, err, sender.ID())
	}
}

func TestRegister_WithoutThemNobodyIsBelieved(t *testing.T) {
	l := bufconn.Listen(1 << 16)
	r := NewRouter()
	Handle(r, echo[*emptypb.Empty])
	serve(t, l, r)
	cc, err := grpc.NewClient("passthrough:///memory", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	ctx := metadata.AppendToOutgoingContext(t.Context(), "sender", "12D3KooWAnybody")
	if _, err := Send[*emptypb.Empty](ctx, cc, &emptypb.Empty{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("%v, want Unauthenticated", err)
	}
}
