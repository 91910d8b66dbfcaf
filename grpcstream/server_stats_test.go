package grpcstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// statsOf is the account of one method; an empty one when there is none.
func statsOf(s *Server, method string) MethodStats {
	for _, m := range s.Stats() {
		if m.Method == method {
			return m
		}
	}
	return MethodStats{Method: method}
}

const (
	emptyCall  = "/grpc.testing.TestService/EmptyCall"
	unaryCall  = "/grpc.testing.TestService/UnaryCall"
	duplexCall = "/grpc.testing.TestService/FullDuplexCall"
)

func TestStats_CountsCallsAndErrors(t *testing.T) {
	s, server, client := memoryServer(t, ServerConfig{})
	c := grpc_testing.NewTestServiceClient(plainClient(t, client, server.ID()))
	if got := s.Stats(); len(got) != 0 {
		t.Errorf("before the first call: %v", got)
	}
	for _, do := range []string{"", "", "", "fail", "panic", "fail"} {
		_, _ = c.EmptyCall(asking(t.Context(), do), &grpc_testing.Empty{})
	}
	got := statsOf(s, emptyCall)
	if got.P50 <= 0 || got.P50 > got.P90 || got.P90 > got.P99 || got.P99 > got.Max {
		t.Errorf("latencies %v, %v, %v, %v", got.P50, got.P90, got.P99, got.Max)
	}
	want := MethodStats{Method: emptyCall, Calls: 6, Errors: map[codes.Code]uint64{codes.FailedPrecondition: 2, codes.Internal: 1}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(MethodStats{}, "P50", "P90", "P99", "Max")); diff != "" {
		t.Error(diff)
	}
}

func TestStats_CountsBytes(t *testing.T) {
	s, server, client := memoryServer(t, ServerConfig{})
	c := grpc_testing.NewTestServiceClient(plainClient(t, client, server.ID()))
	req := &grpc_testing.SimpleRequest{Payload: payload(1000)}
	res, err := c.UnaryCall(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if got := statsOf(s, unaryCall); got.BytesIn != uint64(proto.Size(req)) || got.BytesOut != uint64(proto.Size(res)) {
		t.Errorf("%d and %d bytes, want %d and %d", got.BytesIn, got.BytesOut, proto.Size(req), proto.Size(res))
	}

	stream, err := c.FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	in, out := 0, 0
	for n := range 3 {
		req := &grpc_testing.StreamingOutputCallRequest{Payload: payload(100 * n)}
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
		res, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		in, out = in+proto.Size(req), out+proto.Size(res)
	}
	_ = stream.CloseSend()
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if got := statsOf(s, duplexCall); got.Calls != 1 || got.BytesIn != uint64(in) || got.BytesOut != uint64(out) {
		t.Errorf("%+v, want %d and %d bytes", got, in, out)
	}
}

// Strangers cannot make the accounts grow: what is not registered has one of them all.
func TestStats_UnknownMethodsShareAnAccount(t *testing.T) {
	s, server, client := memoryServer(t, ServerConfig{})
	cc := plainClient(t, client, server.ID())
	for i := range 50 {
		_ = callAny(t.Context(), cc, fmt.Sprintf("/no.Such%d/Method", i))
	}
	want := []MethodStats{{Calls: 50, Errors: map[codes.Code]uint64{codes.Unimplemented: 50}}}
	if diff := cmp.Diff(want, s.Stats(), cmpopts.IgnoreFields(MethodStats{}, "P50", "P90", "P99", "Max")); diff != "" {
		t.Error(diff)
	}
}

// Refused calls are counted, and do not make the others look quick.
func TestStats_RefusedCalls(t *testing.T) {
	s, server, client := memoryServer(t, ServerConfig{Authorize: func(context.Context, Call) error { return errors.New("no") }})
	cc := plainClient(t, client, server.ID())
	for _, method := range []string{emptyCall, duplexCall, "/no.Such/Method"} {
		if err := callAny(t.Context(), cc, method); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v", method, err)
		}
	}
	refused := map[codes.Code]uint64{codes.PermissionDenied: 1}
	want := []MethodStats{{Calls: 1, Errors: refused}, {Method: emptyCall, Calls: 1, Errors: refused}, {Method: duplexCall, Calls: 1, Errors: refused}}
	if diff := cmp.Diff(want, s.Stats()); diff != "" {
		t.Error(diff)
	}
}

func TestStats_OversizedRequestsAreErrors(t *testing.T) {
	s, server, client := memoryServer(t, ServerConfig{MaxMessageSize: 1000})
	c := grpc_testing.NewTestServiceClient(plainClient(t, client, server.ID()))
	_, err := c.UnaryCall(t.Context(), &grpc_testing.SimpleRequest{Payload: payload(1000)})
	if got := statsOf(s, unaryCall); status.Code(err) != codes.ResourceExhausted || got.Errors[codes.ResourceExhausted] != 1 || got.BytesIn != 0 {
		t.Errorf("%v: %+v", err, got)
	}
}

func TestStats_NoCallIsLost(t *testing.T) {
	var c callStats
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 1000 {
				err := error(nil)
				if i%10 == 0 {
					err = context.Canceled
				}
				c.ended(time.Now().Add(-time.Millisecond), &err)
			}
		})
	}
	wg.Wait()
	got := c.read()
	if got.Calls != 8000 || got.Errors[codes.Canceled] != 800 || got.P50 < time.Millisecond || got.P50 > got.Max {
		t.Errorf("%+v", got)
	}
}

func TestStats_CodesAreGRPCs(t *testing.T) {
	for err, want := range map[error]codes.Code{
		nil:                                   codes.OK,
		errors.New("x"):                       codes.Unknown,
		context.DeadlineExceeded:              codes.DeadlineExceeded,
		fmt.Errorf("x: %w", context.Canceled): codes.Canceled,
		fmt.Errorf("x: %w", status.Error(codes.NotFound, "")): codes.NotFound,
		status.Error(999, ""): codes.Unknown,
	} {
		if got := codeOf(err); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}

func BenchmarkStats(b *testing.B) {
	var c callStats
	req, res := &grpc_testing.SimpleRequest{Payload: payload(64)}, &grpc_testing.SimpleResponse{Payload: payload(64)}
	decode := func(any) error { return nil }
	b.ReportAllocs()
	for b.Loop() {
		var err error
		begin := time.Now()
		_ = c.receiving(decode)(req)
		c.sent(res)
		c.ended(begin, &err)
	}
}
