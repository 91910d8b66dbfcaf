package grpcstream

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// rawMessage is sent as it is, so that a test sees whether the server decodes it.
type rawMessage []byte

type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }
func (rawCodec) Marshal(v any) ([]byte, error) {
	if m, ok := v.(rawMessage); ok {
		return m, nil
	}
	return nil, fmt.Errorf("not a rawMessage: %T", v)
}
func (rawCodec) Unmarshal([]byte, any) error { return nil }

// undecodable is not a protobuf message: decoding it fails with Internal.
var undecodable = rawMessage{0xff, 0xff, 0xff}

// callAny calls a method in the streaming way, which can send anything to anything.
func callAny(ctx context.Context, cc *grpc.ClientConn, method string) error {
	s, err := cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method, grpc.ForceCodec(rawCodec{}))
	if err != nil {
		return err
	}
	_ = s.SendMsg(undecodable)
	_ = s.CloseSend()
	return s.RecvMsg(new(rawMessage))
}

// everyMethod lists what a server offers.
func everyMethod(s *Server) (methods []string) {
	for service, info := range s.GetServiceInfo() {
		for _, m := range info.Methods {
			methods = append(methods, "/"+service+"/"+m.Name)
		}
	}
	slices.Sort(methods)
	return methods
}

// memoryServer is a started server and the host of a caller.
func memoryServer(t *testing.T, cfg ServerConfig) (s *Server, server, client corehost.Host) {
	t.Helper()
	hosts, closeAll := memoryHosts(t, 2)
	t.Cleanup(closeAll)
	s = newTestServer(t, hosts[0], cfg)
	t.Cleanup(func() { stopNow(s) })
	return s, hosts[0], hosts[1]
}

func TestAuthorize_EveryMethodIsDecidedBeforeItsRequestIsDecoded(t *testing.T) {
	s, server, client := memoryServer(t, ServerConfig{
		Authorize: func(context.Context, Call) error { return fmt.Errorf("a secret reason") },
	})
	cc := plainClient(t, client, server.ID())
	methods := everyMethod(s)
	if len(methods) < 10 {
		t.Fatalf("only %v", methods)
	}
	odd := []string{
		"/no.Such/Method", "/grpc.testing.TestService/NoSuch", "//grpc.testing.TestService/EmptyCall",
		"/grpc.testing.TestService//EmptyCall", "/grpc.testing.TestService/EmptyCall/", "/grpc.testing.TestService%2fEmptyCall",
		"/GRPC.testing.TestService/EmptyCall", "/", "//", "/x",
	}
	answers := map[string][]string{}
	for _, method := range append(methods, odd...) {
		st := status.Convert(callAny(t.Context(), cc, method))
		answer := fmt.Sprintf("%v %s %v", st.Code(), st.Message(), st.Details())
		if strings.Contains(answer, "secret") {
			t.Errorf("%s: the caller is told %s", method, answer)
		}
		// gRPC answers what cannot be a method name by itself, whatever is registered.
		if malformed := fmt.Sprintf("malformed method name: %q", method); strings.Count(method, "/") < 2 && st.Message() == malformed {
			continue
		}
		answers[answer] = append(answers[answer], method)
		if st.Code() != codes.PermissionDenied {
			t.Errorf("%s: got %v", method, st)
		}
	}
	if len(answers) != 1 {
		t.Errorf("a stranger gets different answers: %v", answers)
	}
	if got := ReasonOf(callAny(t.Context(), cc, methods[0])); got != ReasonRefused {
		t.Errorf("reason %q", got)
	}
}

func TestAuthorize_TheRegisteredMethodIsDecidedOn(t *testing.T) {
	var mu sync.Mutex
	var calls []string
	s, server, client := memoryServer(t, ServerConfig{Authorize: func(ctx context.Context, c Call) error {
		if p, ok := PeerFromContext(ctx); !ok || p.ID != c.Peer.ID {
			t.Errorf("the context has %v, the call %v", p.ID, c.Peer.ID)
		}
		mu.Lock()
		defer mu.Unlock()
		calls = append(calls, c.Method)
		return nil
	}})
	cc := plainClient(t, client, server.ID())
	want := everyMethod(s)
	for _, method := range want {
		ctx, cancel := context.WithCancel(t.Context())
		_ = callAny(ctx, cc, method)
		cancel()
	}
	for _, method := range []string{"/no.Such/Method", "//grpc.testing.TestService/EmptyCall", "/grpc.testing.TestService/emptycall"} {
		want = append(want, "")
		if err := callAny(t.Context(), cc, method); status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: got %v", method, err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff(want, calls); diff != "" {
		t.Error(diff)
	}
}

func TestAuthorize_AnOwnStatusIsPassedOn(t *testing.T) {
	_, server, client := memoryServer(t, ServerConfig{Authorize: func(context.Context, Call) error {
		return status.Error(codes.Unauthenticated, "who are you")
	}})
	err := callAny(t.Context(), plainClient(t, client, server.ID()), "/grpc.testing.TestService/EmptyCall")
	if st := status.Convert(err); st.Code() != codes.Unauthenticated || st.Message() != "who are you" {
		t.Errorf("got %v", err)
	}
}

// A random policy of allow rules, against the same policy kept in a map.
func TestAuthorize_Model(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // reproducible on purpose
	type rule struct {
		peer   peer.ID
		method string
	}
	var mu sync.Mutex
	policy := map[rule]bool{}
	hosts, closeAll := memoryHosts(t, 4)
	defer closeAll()
	s := newTestServer(t, hosts[0], ServerConfig{Authorize: func(_ context.Context, c Call) error {
		mu.Lock()
		defer mu.Unlock()
		if policy[rule{c.Peer.ID, c.Method}] {
			return nil
		}
		return fmt.Errorf("no rule")
	}})
	defer stopNow(s)
	methods := slices.DeleteFunc(everyMethod(s), func(m string) bool { return m == healthWatch })
	var channels []*grpc.ClientConn
	for _, h := range hosts[1:] {
		channels = append(channels, plainClient(t, h, hosts[0].ID()))
	}
	for range 300 {
		who, method := rng.IntN(len(channels)), methods[rng.IntN(len(methods))]
		r := rule{hosts[1+who].ID(), method}
		mu.Lock()
		if rng.IntN(2) == 0 {
			policy[r] = !policy[r]
		}
		want := policy[r]
		mu.Unlock()
		err := callAny(t.Context(), channels[who], method)
		if allowed := status.Code(err) != codes.PermissionDenied; allowed != want {
			t.Fatalf("%s by %d: allowed %v, want %v: %v", method, who, allowed, want, err)
		}
	}
}

func TestMetadata_ReservedKeysAreStripped(t *testing.T) {
	seen := make(chan metadata.MD, 2)
	note := func(ctx context.Context) {
		md, _ := metadata.FromIncomingContext(ctx)
		seen <- md
	}
	_, server, client := memoryServer(t, ServerConfig{Options: []grpc.ServerOption{
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			note(ctx)
			return next(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			note(ss.Context())
			return next(srv, ss)
		}),
	}})
	c := grpc_testing.NewTestServiceClient(plainClient(t, client, server.ID()))
	ctx := metadata.AppendToOutgoingContext(t.Context(), "p2p-peer", "forged", "P2P-Anything", "forged", "p2p-x-bin", "forged",
		"sender", "forged", "x-own", "kept")
	got, err := c.UnaryCall(ctx, &grpc_testing.SimpleRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got.GetUsername() != client.ID().String() || got.GetHostname() != "x-own" {
		t.Errorf("the handler saw peer %s, metadata %s", got.GetUsername(), got.GetHostname())
	}
	stream, err := c.StreamingOutputCall(ctx, &grpc_testing.StreamingOutputCallRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = stream.Recv()
	for range 2 {
		for key, values := range <-seen {
			if strings.HasPrefix(key, "p2p-") {
				t.Errorf("metadata %s: %v", key, values)
			}
		}
	}
}

func TestServer_AStreamInterceptorBeforeTheDecisionIsAnError(t *testing.T) {
	hosts, closeAll := memoryHosts(t, 1)
	defer closeAll()
	s := NewServer(ServerConfig{Options: []grpc.ServerOption{
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			return next(srv, ss)
		}),
	}})
	if err := s.Start(hosts[0]); err == nil || !strings.Contains(err.Error(), "ChainStreamInterceptor") {
		t.Errorf("got %v", err)
	}
}

// A user's handler for unknown services, such as a proxy, comes after the decision too.
func TestAuthorize_CoversAnUnknownServiceHandlerOfTheUsers(t *testing.T) {
	reached := false
	_, server, client := memoryServer(t, ServerConfig{
		Authorize: func(context.Context, Call) error { return fmt.Errorf("no") },
		Options: []grpc.ServerOption{grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
			reached = true
			return nil
		})},
	})
	err := callAny(t.Context(), plainClient(t, client, server.ID()), "/no.Such/Method")
	if status.Code(err) != codes.PermissionDenied || reached {
		t.Errorf("got %v, reached %v", err, reached)
	}
}

func TestServer_APanicEndsOneCallOnly(t *testing.T) {
	overCalls := func(t *testing.T, fail func(ctx context.Context, c grpc_testing.TestServiceClient) error) {
		t.Helper()
		var log strings.Builder
		_, server, client := memoryServer(t, ServerConfig{Logger: textLogger(&log)})
		c := grpc_testing.NewTestServiceClient(plainClient(t, client, server.ID()))
		other, err := c.FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := fail(asking(t.Context(), "panic"), c); status.Code(err) != codes.Internal || strings.Contains(err.Error(), "as asked") {
			t.Errorf("got %v", err)
		}
		if err := other.Send(&grpc_testing.StreamingOutputCallRequest{}); err != nil {
			t.Fatal(err)
		}
		if _, err := other.Recv(); err != nil {
			t.Errorf("the other call: %v", err)
		}
		if !strings.Contains(log.String(), "as asked") || !strings.Contains(log.String(), "service_test.go") {
			t.Errorf("log: %s", log.String())
		}
	}
	t.Run("unary", func(t *testing.T) {
		overCalls(t, func(ctx context.Context, c grpc_testing.TestServiceClient) error {
			_, err := c.EmptyCall(ctx, &grpc_testing.Empty{})
			return err
		})
	})
	t.Run("stream", func(t *testing.T) {
		overCalls(t, func(ctx context.Context, c grpc_testing.TestServiceClient) error {
			s, err := c.StreamingOutputCall(ctx, &grpc_testing.StreamingOutputCallRequest{})
			if err != nil {
				return err
			}
			_, err = s.Recv()
			return err
		})
	})
}

func TestAuthorize_APanicOfItRefusesTheCall(t *testing.T) {
	var raw strings.Builder
	_, server, client := memoryServer(t, ServerConfig{
		Logger:    slog.New(slog.NewJSONHandler(&raw, nil)), // it escapes nothing but control characters
		Authorize: func(context.Context, Call) error { panic("a \u202etrick") },
	})
	c := grpc_testing.NewTestServiceClient(plainClient(t, client, server.ID()))
	if _, err := c.EmptyCall(t.Context(), &grpc_testing.Empty{}); status.Code(err) != codes.Internal {
		t.Errorf("a unary call: %v", err)
	}
	s, err := c.StreamingOutputCall(t.Context(), &grpc_testing.StreamingOutputCallRequest{})
	if err == nil {
		_, err = s.Recv()
	}
	if status.Code(err) != codes.Internal {
		t.Errorf("a stream: %v", err)
	}
	if got := raw.String(); !strings.Contains(got, "trick") || strings.Contains(got, "\u202e") {
		t.Errorf("log: %q", got)
	}
}
