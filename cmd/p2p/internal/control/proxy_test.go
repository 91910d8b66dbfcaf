package control

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/lynn9388/p2p/cmd/p2p/internal/testservice"
)

// serve runs a gRPC server in memory and returns a connection to it.
func serve(t *testing.T, s *grpc.Server) *grpc.ClientConn {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	cc, err := grpc.NewClient("passthrough:///memory", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cc.Close()
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return cc
}

// proxied returns a client whose calls pass a proxy to the peer "there".
func proxied(t *testing.T) (testservice.ShapeServiceClient, context.Context) {
	t.Helper()
	peer := grpc.NewServer()
	testservice.RegisterShapeServiceServer(peer, testservice.Server{})
	up := serve(t, peer)
	p := proxy{conn: func(target string) (grpc.ClientConnInterface, error) {
		if target != "there" {
			return nil, status.Error(codes.NotFound, "no such peer")
		}
		return up, nil
	}}
	down := serve(t, grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}), grpc.UnknownServiceHandler(p.handle)))
	return testservice.NewShapeServiceClient(down), WithTarget(t.Context(), "there")
}

func TestProxy_Unary(t *testing.T) {
	c, ctx := proxied(t)
	var header, trailer metadata.MD
	ctx = metadata.AppendToOutgoingContext(ctx, "x-echo", "v")
	res, err := c.One(ctx, &testservice.OneRequest{Text: "hi"}, grpc.Header(&header), grpc.Trailer(&trailer))
	if err != nil || res.GetText() != "hi" {
		t.Fatalf("got %v, %v", res, err)
	}
	if diff := cmp.Diff([][]string{{"v"}, {"v"}}, [][]string{header.Get("x-echo-header"), trailer.Get("x-echo-trailer")}); diff != "" {
		t.Error(diff)
	}
}

func TestProxy_ServerStream(t *testing.T) {
	c, ctx := proxied(t)
	stream, err := c.Down(ctx, &testservice.DownRequest{Count: 100})
	if err != nil {
		t.Fatal(err)
	}
	for want := range int32(100) {
		res, err := stream.Recv()
		if err != nil || res.GetNumber() != want+1 {
			t.Fatalf("got %v, %v, want %d", res, err, want+1)
		}
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v at the end", err)
	}
}

func TestProxy_ClientStream(t *testing.T) {
	c, ctx := proxied(t)
	stream, err := c.Up(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"a", "b", "c"} {
		if err := stream.Send(&testservice.UpRequest{Text: text}); err != nil {
			t.Fatal(err)
		}
	}
	res, err := stream.CloseAndRecv()
	if err != nil || res.GetText() != "a b c" {
		t.Errorf("got %v, %v", res, err)
	}
}

func TestProxy_BidiStreamInterleaved(t *testing.T) {
	c, ctx := proxied(t)
	stream, err := c.Both(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"a", "", strings.Repeat("c", 1<<20)} {
		if err := stream.Send(&testservice.BothRequest{Text: text}); err != nil {
			t.Fatal(err)
		}
		if res, err := stream.Recv(); err != nil || res.GetText() != text {
			t.Fatalf("got %v, %v", res, err)
		}
	}
	if err := stream.Send(&testservice.BothRequest{Text: "stop"}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Aborted {
		t.Errorf("got %v", err)
	}
}

func TestProxy_StatusWithDetailsOnce(t *testing.T) {
	c, ctx := proxied(t)
	var trailer metadata.MD
	_, err := c.One(ctx, &testservice.OneRequest{Text: "fail"}, grpc.Trailer(&trailer))
	st := status.Convert(err)
	if st.Code() != codes.FailedPrecondition || !strings.HasPrefix(st.Message(), "not now") || len(st.Details()) != 1 {
		t.Errorf("got %v with %v", st, st.Details())
	}
	if n := len(trailer.Get(detailsKey)); n > 1 {
		t.Errorf("the details arrived %d times", n)
	}
}

func TestProxy_ReservedMetadataStaysHere(t *testing.T) {
	c, ctx := proxied(t)
	ctx = metadata.AppendToOutgoingContext(ctx, "p2p-sender", "somebody else")
	if _, err := c.One(ctx, &testservice.OneRequest{Text: "reserved"}); err != nil {
		t.Error(err)
	}
}

func TestProxy_CancelReachesThePeer(t *testing.T) {
	c, ctx := proxied(t)
	ctx, cancel := context.WithCancel(ctx)
	stream, err := c.Both(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&testservice.BothRequest{Text: "a"}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	// The peer's handler must end, or the leak check of this package finds it.
	if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("got %v", err)
	}
}

func TestProxy_Errors(t *testing.T) {
	c, ctx := proxied(t)
	for _, tc := range []struct {
		name string
		ctx  context.Context //nolint:containedctx // one of several contexts to try
		want codes.Code
	}{
		{"no target", t.Context(), codes.Unimplemented},
		{"two targets", WithTarget(ctx, "there"), codes.Unimplemented},
		{"unknown target", WithTarget(t.Context(), "elsewhere"), codes.NotFound},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := c.One(tc.ctx, &testservice.OneRequest{}); status.Code(err) != tc.want {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}
