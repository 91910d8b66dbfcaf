package grpcstream

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// A resumer is two hosts, of which a calls b's TestService by generated code.
type resumer struct {
	*office
	a, b   corehost.Host
	server *Server
	ch     *Channel
	client grpc_testing.TestServiceClient
}

func inResumer(t *testing.T, cfg ServerConfig, test func(t *testing.T, r *resumer)) {
	t.Helper()
	inOffice(t, func(t *testing.T, o *office) {
		r := &resumer{office: o, a: o.host(), b: o.host()}
		r.server = newTestServer(t, r.b, cfg)
		o.end = append(o.end, func() { stopNow(r.server) })
		r.ch = o.channel(r.a, ChannelConfig{})
		o.connect(r.a, r.b)
		r.client = grpc_testing.NewTestServiceClient(r.ch.Peer(r.b.ID().String()))
		test(t, r)
	})
}

// snap breaks the connection; the next call makes another one.
func (r *resumer) snap() {
	r.t.Helper()
	synctest.Wait()
	if err := r.a.Network().ClosePeer(r.b.ID()); err != nil {
		r.t.Fatal(err)
	}
	synctest.Wait()
}

func sized(n ...int) *grpc_testing.StreamingOutputCallRequest {
	req := new(grpc_testing.StreamingOutputCallRequest)
	for _, size := range n {
		req.ResponseParameters = append(req.ResponseParameters, &grpc_testing.ResponseParameters{Size: int32(size)})
	}
	return req
}

func TestResumable_Kinds(t *testing.T) {
	t.Run("answers to one request", func(t *testing.T) {
		inResumer(t, ServerConfig{}, func(t *testing.T, r *resumer) {
			s, err := r.client.StreamingOutputCall(t.Context(), sized(1, 2, 1<<20, 0), Resumable())
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []int{1, 2, 1 << 20, 0} {
				r.snap()
				m, err := s.Recv()
				if err != nil || len(m.GetPayload().GetBody()) != want {
					t.Fatalf("got %d bytes, %v, want %d", len(m.GetPayload().GetBody()), err, want)
				}
			}
			r.snap()
			if _, err := s.Recv(); !errors.Is(err, io.EOF) {
				t.Error(err)
			}
		})
	})
	t.Run("one answer", func(t *testing.T) {
		inResumer(t, ServerConfig{}, func(t *testing.T, r *resumer) {
			s, err := r.client.StreamingInputCall(t.Context(), Resumable())
			if err != nil {
				t.Fatal(err)
			}
			for range 10 {
				if err := s.Send(&grpc_testing.StreamingInputCallRequest{Payload: payload(1000)}); err != nil {
					t.Fatal(err)
				}
				r.snap()
			}
			if m, err := s.CloseAndRecv(); err != nil || m.GetAggregatedPayloadSize() != 10_000 {
				t.Errorf("got %v, %v", m, err)
			}
		})
	})
	t.Run("no answer", func(t *testing.T) {
		inResumer(t, ServerConfig{Authorize: nil}, func(t *testing.T, r *resumer) {
			s, err := r.client.StreamingOutputCall(asking(t.Context(), "fail"), sized(1), Resumable())
			if err != nil {
				t.Fatal(err)
			}
			r.snap()
			_, err = s.Recv()
			st := status.Convert(err)
			if st.Code() != codes.FailedPrecondition || st.Message() != "as asked" || len(st.Details()) != 1 {
				t.Errorf("got %v", err)
			} else if d, ok := st.Details()[0].(*errdetails.RetryInfo); !ok || d.GetRetryDelay().AsDuration() != time.Second {
				t.Errorf("details %v", st.Details())
			}
		})
	})
	t.Run("a panic", func(t *testing.T) {
		inResumer(t, ServerConfig{}, func(t *testing.T, r *resumer) {
			s, err := r.client.StreamingOutputCall(asking(t.Context(), "panic"), sized(1), Resumable())
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Recv()
			wantReason(t, err, ReasonPanic)
		})
	})
	t.Run("a unary call", func(t *testing.T) {
		inResumer(t, ServerConfig{}, func(t *testing.T, r *resumer) {
			_, err := r.client.EmptyCall(t.Context(), new(grpc_testing.Empty), Resumable())
			wantReason(t, err, ReasonBadTarget)
		})
	})
}

// A wrapped stream is what interceptors of a server see, and the metadata that they set arrives.
func TestResumable_InterceptorsAndMetadata(t *testing.T) {
	var mu sync.Mutex
	var seen, decided []string
	cfg := ServerConfig{
		Options: []grpc.ServerOption{grpc.ChainStreamInterceptor(
			func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
				path, _ := grpc.MethodFromServerStream(ss)
				p, _ := PeerFromContext(ss.Context())
				mu.Lock()
				seen = append(seen, info.FullMethod, path, p.ID.String(), metadata.ValueFromIncomingContext(ss.Context(), "x-caller")[0])
				mu.Unlock()
				if err := errors.Join(ss.SetHeader(metadata.Pairs("x-header", "1")), grpc.SetHeader(ss.Context(), metadata.Pairs("x-header", "2"))); err != nil {
					return err
				}
				if err := ss.SendHeader(nil); err != nil {
					return err
				}
				if ss.SendHeader(nil) == nil || grpc.SetHeader(ss.Context(), metadata.Pairs("x-header", "3")) == nil {
					t.Error("a header goes out twice")
				}
				ss.SetTrailer(metadata.Pairs("x-trailer-bin", "\x00\xff"))
				_ = grpc.SetTrailer(ss.Context(), metadata.Pairs("x-trailer", "t"))
				return next(srv, ss)
			})},
		Authorize: func(_ context.Context, c Call) error {
			mu.Lock()
			defer mu.Unlock()
			decided = append(decided, c.Method)
			return nil
		},
	}
	inResumer(t, cfg, func(t *testing.T, r *resumer) {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-caller", "c")
		s, err := r.client.FullDuplexCall(ctx, Resumable())
		if err != nil {
			t.Fatal(err)
		}
		r.snap()
		if md, err := s.Header(); err != nil || !slices.Equal(md["x-header"], []string{"1", "2"}) {
			t.Errorf("header %v, %v", md, err)
		}
		r.snap()
		if err := s.CloseSend(); err != nil {
			t.Error(err)
		}
		if _, err := s.Recv(); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		if md := s.Trailer(); !slices.Equal(md["x-trailer"], []string{"t"}) || !slices.Equal(md["x-trailer-bin"], []string{"\x00\xff"}) {
			t.Errorf("trailer %v", md)
		}
		const method = "/grpc.testing.TestService/FullDuplexCall"
		if want := []string{method, method, r.a.ID().String(), "c"}; !slices.Equal(seen, want) {
			t.Errorf("the interceptor saw %q, want %q", seen, want)
		}
		if len(decided) < 2 || slices.ContainsFunc(decided, func(m string) bool { return m != method }) {
			t.Errorf("decided on %q", decided)
		}
		if st := r.server.Stats(); len(st) != 1 || st[0].Method != method || st[0].Calls != 1 || st[0].Errors != nil {
			t.Errorf("account %+v", st)
		}
	})
}

// A peer that may no longer call does not go on with what it has begun.
func TestResumable_RefusedMeanwhile(t *testing.T) {
	allowed := true
	inResumer(t, ServerConfig{Authorize: func(context.Context, Call) error {
		if !allowed {
			return errors.New("no")
		}
		return nil
	}}, func(t *testing.T, r *resumer) {
		s, err := r.client.FullDuplexCall(t.Context(), Resumable())
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		allowed = false
		r.snap()
		_, err = s.Recv()
		wantReason(t, err, ReasonRefused)
	})
}

// What is no server of this package does not take frames for messages.
func TestResumable_PlainServer(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		l, err := Listen(b, TunnelProtocol(DefaultNetwork))
		if err != nil {
			t.Fatal(err)
		}
		s := grpc.NewServer(grpc.Creds(NewCredentials()))
		grpc_testing.RegisterTestServiceServer(s, testService{})
		var serving sync.WaitGroup
		serving.Go(func() { _ = s.Serve(l) })
		o.end = append(o.end, func() { s.Stop(); serving.Wait() })
		o.connect(a, b)
		client := grpc_testing.NewTestServiceClient(o.channel(a, ChannelConfig{}).Peer(b.ID().String()))
		stream, err := client.FullDuplexCall(t.Context(), Resumable())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.Unimplemented {
			t.Errorf("got %v", err)
		}
	})
}

// A server that shuts down lets the streams that are carried end, and those that are not are over.
func TestResumable_Shutdown(t *testing.T) {
	inResumer(t, ServerConfig{}, func(t *testing.T, r *resumer) {
		s, err := r.client.FullDuplexCall(t.Context(), Resumable())
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		time.AfterFunc(time.Second, func() { _ = s.CloseSend() })
		began := time.Now()
		if err := r.server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < time.Second || took > 2*time.Second {
			t.Errorf("it took %v", took)
		}
		if _, err := s.Recv(); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	})
	inResumer(t, ServerConfig{}, func(t *testing.T, r *resumer) {
		s, err := r.client.FullDuplexCall(t.Context(), Resumable())
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.server.Shutdown(ctx); err == nil {
			t.Error("a running stream was no obstacle")
		}
		_, err = s.Recv()
		wantReason(t, err, ReasonNotResumed)
	})
}

// The channel's end is that of its streams, at once.
func TestResumable_Close(t *testing.T) {
	inResumer(t, ServerConfig{}, func(t *testing.T, r *resumer) {
		s, err := r.client.FullDuplexCall(t.Context(), Resumable())
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		began := time.Now()
		_ = r.ch.Close()
		if _, err := s.Recv(); err == nil {
			t.Error("it goes on")
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("closing took %v", took)
		}
	})
}
