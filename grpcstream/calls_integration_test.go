package grpcstream

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	grpcpeer "google.golang.org/grpc/peer"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

func payload(n int) *grpc_testing.Payload { return &grpc_testing.Payload{Body: make([]byte, n)} }

func TestCalls_AllOfGRPCWorks(t *testing.T) {
	for transport := range listenOn {
		t.Run(transport, func(t *testing.T) {
			var seen atomic.Int64
			server, _ := startServer(t, transport, ServerConfig{Options: []grpc.ServerOption{
				grpc.StatsHandler(countingStats{&seen}),
				grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
					seen.Add(1_000)
					return next(ctx, req)
				}),
				grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
					seen.Add(1_000)
					return next(srv, ss)
				}),
			}}, nil)
			client := newHost(t, transport)
			knows(client, server)
			cc := plainClient(t, client, server.ID())
			c := grpc_testing.NewTestServiceClient(cc)
			ctx := withTimeout(t, 20*time.Second)

			t.Run("unary, metadata, trailers, peer", func(t *testing.T) {
				var header, trailer metadata.MD
				var p grpcpeer.Peer
				got, err := c.UnaryCall(metadata.AppendToOutgoingContext(ctx, "x-one", "1"), &grpc_testing.SimpleRequest{Payload: payload(1 << 20)},
					grpc.Header(&header), grpc.Trailer(&trailer), grpc.Peer(&p))
				if err != nil {
					t.Fatal(err)
				}
				if len(got.GetPayload().GetBody()) != 1<<20 || got.GetHostname() != "x-one" {
					t.Errorf("got %d bytes, metadata %q", len(got.GetPayload().GetBody()), got.GetHostname())
				}
				if got.GetUsername() != client.ID().String() {
					t.Errorf("the handler saw peer %s, want %s", got.GetUsername(), client.ID())
				}
				if want := "direct " + map[string]string{"tcp": "tcp", "quic": "quic-v1"}[transport]; got.GetServerId() != want {
					t.Errorf("the handler saw path %q, want %q", got.GetServerId(), want)
				}
				if header.Get("x-header")[0] != "h" || trailer.Get("x-trailer")[0] != "t" {
					t.Errorf("header %v, trailer %v", header, trailer)
				}
				info, ok := p.AuthInfo.(AuthInfo)
				if !ok || info.Peer.ID != server.ID() || !info.Peer.ID.MatchesPublicKey(info.Peer.PublicKey) {
					t.Errorf("the caller saw %+v", p)
				}
			})
			t.Run("server streaming", func(t *testing.T) {
				s, err := c.StreamingOutputCall(ctx, &grpc_testing.StreamingOutputCallRequest{
					ResponseParameters: []*grpc_testing.ResponseParameters{{Size: 1}, {Size: 1 << 20}, {Size: 3}},
				})
				if err != nil {
					t.Fatal(err)
				}
				total := 0
				for {
					m, err := s.Recv()
					if errors.Is(err, io.EOF) {
						break
					}
					if err != nil {
						t.Fatal(err)
					}
					total += len(m.GetPayload().GetBody())
				}
				if total != 1<<20+4 {
					t.Errorf("received %d bytes", total)
				}
			})
			t.Run("client streaming", func(t *testing.T) {
				s, err := c.StreamingInputCall(ctx)
				if err != nil {
					t.Fatal(err)
				}
				for range 5 {
					if err := s.Send(&grpc_testing.StreamingInputCallRequest{Payload: payload(100_000)}); err != nil {
						t.Fatal(err)
					}
				}
				if got, err := s.CloseAndRecv(); err != nil || got.GetAggregatedPayloadSize() != 500_000 {
					t.Errorf("got %v, %v", got, err)
				}
			})
			t.Run("bidirectional streaming", func(t *testing.T) {
				s, err := c.FullDuplexCall(ctx)
				if err != nil {
					t.Fatal(err)
				}
				for i := range 10 {
					if err := s.Send(&grpc_testing.StreamingOutputCallRequest{Payload: payload(i)}); err != nil {
						t.Fatal(err)
					}
					if m, err := s.Recv(); err != nil || len(m.GetPayload().GetBody()) != i {
						t.Fatalf("got %v, %v", m, err)
					}
				}
				if err := s.CloseSend(); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Recv(); !errors.Is(err, io.EOF) {
					t.Errorf("after CloseSend: %v", err)
				}
			})
			t.Run("deadline", func(t *testing.T) {
				short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
				defer cancel()
				if _, err := c.EmptyCall(asking(short, "hang"), &grpc_testing.Empty{}); status.Code(err) != codes.DeadlineExceeded {
					t.Errorf("got %v", err)
				}
			})
			t.Run("cancellation", func(t *testing.T) {
				canceled, cancel := context.WithCancel(ctx)
				time.AfterFunc(50*time.Millisecond, cancel)
				if _, err := c.EmptyCall(asking(canceled, "hang"), &grpc_testing.Empty{}); status.Code(err) != codes.Canceled {
					t.Errorf("got %v", err)
				}
			})
			t.Run("status details", func(t *testing.T) {
				_, err := c.EmptyCall(asking(ctx, "fail"), &grpc_testing.Empty{})
				st := status.Convert(err)
				if st.Code() != codes.FailedPrecondition || st.Message() != "as asked" || len(st.Details()) != 1 {
					t.Fatalf("got %v with %v", st, st.Details())
				}
				if _, ok := st.Details()[0].(*errdetails.RetryInfo); !ok {
					t.Errorf("detail is a %T", st.Details()[0])
				}
			})
			t.Run("compression", func(t *testing.T) {
				got, err := c.UnaryCall(ctx, &grpc_testing.SimpleRequest{Payload: payload(1 << 20)}, grpc.UseCompressor(gzip.Name))
				if err != nil || len(got.GetPayload().GetBody()) != 1<<20 {
					t.Errorf("got %d bytes, %v", len(got.GetPayload().GetBody()), err)
				}
			})
			t.Run("health", func(t *testing.T) {
				got, err := healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{Service: "grpc.testing.TestService"})
				if err != nil || got.GetStatus() != healthpb.HealthCheckResponse_SERVING {
					t.Errorf("got %v, %v", got, err)
				}
			})
			t.Run("reflection", func(t *testing.T) {
				s, err := reflectionpb.NewServerReflectionClient(cc).ServerReflectionInfo(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Send(&reflectionpb.ServerReflectionRequest{
					MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "grpc.testing.TestService"},
				}); err != nil {
					t.Fatal(err)
				}
				if m, err := s.Recv(); err != nil || len(m.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
					t.Errorf("got %v, %v", m, err)
				}
				if err := s.CloseSend(); err != nil {
					t.Fatal(err)
				}
			})
			t.Run("unknown service and method", func(t *testing.T) {
				for _, method := range []string{"/no.Such/Method", "/grpc.testing.TestService/NoSuch"} {
					if err := cc.Invoke(ctx, method, &grpc_testing.Empty{}, &grpc_testing.Empty{}); status.Code(err) != codes.Unimplemented {
						t.Errorf("%s: got %v", method, err)
					}
				}
			})
			if n := seen.Load(); n < 10_000 || n%1_000 < 10 {
				t.Errorf("interceptors and the stats handler counted %d", n)
			}
		})
	}
}

func TestCalls_RetryPolicy(t *testing.T) {
	for transport := range listenOn {
		t.Run(transport, func(t *testing.T) {
			var calls atomic.Int64
			server, _ := startServer(t, transport, ServerConfig{Options: []grpc.ServerOption{
				grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
					if calls.Add(1) < 3 {
						return nil, status.Error(codes.Unavailable, "not yet")
					}
					return next(ctx, req)
				}),
			}}, nil)
			client := newHost(t, transport)
			knows(client, server)
			c := grpc_testing.NewTestServiceClient(plainClient(t, client, server.ID(), grpc.WithDefaultServiceConfig(`{"methodConfig": [{
			"name": [{}], "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.01s", "maxBackoff": "0.01s",
			"backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`)))
			if _, err := c.EmptyCall(withTimeout(t, 10*time.Second), &grpc_testing.Empty{}); err != nil || calls.Load() != 3 {
				t.Errorf("%d attempts, %v", calls.Load(), err)
			}
		})
	}
}

type countingStats struct{ n *atomic.Int64 }

func (c countingStats) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (c countingStats) HandleRPC(context.Context, stats.RPCStats) { c.n.Add(1) }

func (c countingStats) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (c countingStats) HandleConn(context.Context, stats.ConnStats)                       {}
