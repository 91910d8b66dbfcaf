package grpcstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/protocol"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/lynn9388/p2p/internal/virtual"
)

func emptyService(name string) *grpc.ServiceDesc { return &grpc.ServiceDesc{ServiceName: name} }

// announced are the service protocols of a host, sorted.
func announced(h corehost.Host) []protocol.ID {
	pids := slices.DeleteFunc(h.Mux().Protocols(), func(pid protocol.ID) bool { return !strings.Contains(string(pid), "/svc") })
	slices.Sort(pids)
	return pids
}

func TestServer_AnnouncesTheUsersServices(t *testing.T) {
	hosts, closeAll := memoryHosts(t, 2)
	defer closeAll()
	s := NewServer(ServerConfig{Network: "lab", Logger: quiet()})
	for _, name := range []string{"b.Two", "a.One", "p2p.nodeinfo.v1.NodeInfoService"} {
		s.RegisterService(emptyService(name), nil)
	}
	if diff := cmp.Diff([]string{"a.One", "b.Two"}, s.Services()); diff != "" {
		t.Error(diff)
	}
	if err := s.Start(hosts[0]); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]protocol.ID{"/p2p/lab/svc/a.One", "/p2p/lab/svc/b.Two"}, announced(hosts[0])); diff != "" {
		t.Error(diff)
	}
	// Nothing is spoken on them.
	st, err := hosts[1].NewStream(t.Context(), hosts[0].ID(), "/p2p/lab/svc/a.One")
	if err == nil {
		_, err = st.Read(make([]byte, 1))
	}
	if err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a stream on the announcement: %v", err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if got := announced(hosts[0]); len(got) > 0 {
		t.Errorf("after the shutdown: %v", got)
	}
	if slices.Contains(hosts[0].Mux().Protocols(), TunnelProtocol("lab")) {
		t.Error("the tunnel is still served after the shutdown")
	}
}

func TestServer_AnnouncesAMarkerForManyServices(t *testing.T) {
	for n, want := range map[int]int{64: 64, 65: 1} {
		hosts, closeAll := memoryHosts(t, 1)
		s := NewServer(ServerConfig{Logger: quiet()})
		for i := range n {
			s.RegisterService(emptyService(fmt.Sprintf("many.Service%d", i)), nil)
		}
		if err := s.Start(hosts[0]); err != nil {
			t.Fatal(err)
		}
		got := announced(hosts[0])
		if len(got) != want || (want == 1 && got[0] != "/p2p/default/svc-many") {
			t.Errorf("%d services: announced %v", n, got)
		}
		stopNow(s)
		closeAll()
	}
}

func TestServer_RegisterServicePanicsWithTheName(t *testing.T) {
	hosts, closeAll := memoryHosts(t, 1)
	defer closeAll()
	panicOf := func(f func()) (text string) {
		defer func() { text = fmt.Sprint(recover()) }()
		f()
		return ""
	}
	s := NewServer(ServerConfig{Logger: quiet()})
	s.RegisterService(emptyService("my.Service"), nil)
	for why, f := range map[string]func(){
		"already registered": func() { s.RegisterService(emptyService("my.Service"), nil) },
		"does not implement": func() {
			s.RegisterService(&grpc.ServiceDesc{ServiceName: "my.Service2", HandlerType: (*grpc_testing.TestServiceServer)(nil)}, 5)
		},
		"my.Service/2": func() { s.RegisterService(emptyService("my.Service/2"), nil) },
	} {
		if got := panicOf(f); !strings.Contains(got, "my.Service") || !strings.Contains(got, why) {
			t.Errorf("%s: %q", why, got)
		}
	}
	if err := s.Start(hosts[0]); err != nil {
		t.Fatal(err)
	}
	defer stopNow(s)
	if got := panicOf(func() { s.RegisterService(emptyService("my.Late"), nil) }); !strings.Contains(got, "my.Late") || !strings.Contains(got, "was started") {
		t.Errorf("after the start: %q", got)
	}
}

func TestServer_StartsOnceOnOneHost(t *testing.T) {
	hosts, closeAll := memoryHosts(t, 2)
	defer closeAll()
	s := newTestServer(t, hosts[0], ServerConfig{})
	if err := s.Start(hosts[1]); err == nil {
		t.Error("started twice")
	}
	other := NewServer(ServerConfig{Logger: quiet()})
	if err := other.Start(hosts[0]); err == nil || !strings.Contains(err.Error(), "already serves") {
		t.Errorf("a second server on the host: %v", err)
	}
	if err := other.Start(hosts[1]); err != nil {
		t.Errorf("after a failed start: %v", err)
	}
	for range 2 {
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := s.Start(hosts[0]); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the shutdown: %v", err)
	}
	stopNow(other)
	if err := NewServer(ServerConfig{Network: "No Network"}).Start(hosts[0]); err == nil {
		t.Error("a malformed network name was taken")
	}
}

func TestServer_AUsersHealthServiceReplacesOurs(t *testing.T) {
	hosts, closeAll := memoryHosts(t, 2)
	defer closeAll()
	s := NewServer(ServerConfig{Logger: quiet()})
	own := health.NewServer()
	own.SetServingStatus("mine", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(s, own)
	if err := s.Start(hosts[0]); err != nil {
		t.Fatal(err)
	}
	defer stopNow(s)
	c := healthpb.NewHealthClient(plainClient(t, hosts[1], hosts[0].ID()))
	if got, err := c.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "mine"}); err != nil || got.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestServer_SetServingAndShutdownReachThoseWhoWatch(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		hosts, closeAll := memoryHosts(t, 2)
		defer closeAll()
		s := newTestServer(t, hosts[0], ServerConfig{})
		cc := plainClient(t, hosts[1], hosts[0].ID())
		defer cc.Close()
		watch, err := healthpb.NewHealthClient(cc).Watch(t.Context(), &healthpb.HealthCheckRequest{Service: "grpc.testing.TestService"})
		if err != nil {
			t.Fatal(err)
		}
		expect := func(want healthpb.HealthCheckResponse_ServingStatus) {
			t.Helper()
			if got, err := watch.Recv(); err != nil || got.GetStatus() != want {
				t.Fatalf("got %v, %v, want %v", got, err, want)
			}
		}
		expect(healthpb.HealthCheckResponse_SERVING)
		s.SetServing("grpc.testing.TestService", false)
		expect(healthpb.HealthCheckResponse_NOT_SERVING)
		s.SetServing("grpc.testing.TestService", true)
		expect(healthpb.HealthCheckResponse_SERVING)

		start := time.Now()
		done := make(chan error)
		go func() { done <- s.Shutdown(t.Context()) }()
		expect(healthpb.HealthCheckResponse_NOT_SERVING)
		if err := <-done; err != nil || time.Since(start) > time.Second {
			t.Errorf("the watch held up the shutdown for %v: %v", time.Since(start), err)
		}
	})
}

// gRPC keeps the name while the watch lasts, and a peer may have many.
func TestServer_AWatchOfALongNameIsRefused(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		hosts, closeAll := memoryHosts(t, 2)
		defer closeAll()
		s := newTestServer(t, hosts[0], ServerConfig{})
		cc := plainClient(t, hosts[1], hosts[0].ID())
		defer cc.Close()
		for n, want := range map[int]codes.Code{maxServiceLen: codes.OK, maxServiceLen + 1: codes.InvalidArgument} {
			ctx, cancel := context.WithCancel(t.Context())
			watch, err := healthpb.NewHealthClient(cc).Watch(ctx, &healthpb.HealthCheckRequest{Service: strings.Repeat("x", n)})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := watch.Recv(); status.Code(err) != want {
				t.Errorf("%d bytes: %v, want %v", n, err, want)
			}
			cancel()
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestServer_SetServingBeforeTheStartIsKept(t *testing.T) {
	hosts, closeAll := memoryHosts(t, 2)
	defer closeAll()
	const service = "grpc.testing.TestService"
	s := NewServer(ServerConfig{Logger: muted()})
	s.SetServing("", false)
	s.SetServing(service, false)
	grpc_testing.RegisterTestServiceServer(s, &testService{})
	if err := s.Start(hosts[0]); err != nil {
		t.Fatal(err)
	}
	defer stopNow(s)
	c := healthpb.NewHealthClient(plainClient(t, hosts[1], hosts[0].ID()))
	for name, want := range map[string]healthpb.HealthCheckResponse_ServingStatus{
		"":      healthpb.HealthCheckResponse_NOT_SERVING,
		service: healthpb.HealthCheckResponse_NOT_SERVING,
	} {
		if got, err := c.Check(t.Context(), &healthpb.HealthCheckRequest{Service: name}); err != nil || got.GetStatus() != want {
			t.Errorf("%q: got %v, %v, want %v", name, got.GetStatus(), err, want)
		}
	}
}

func TestServer_ShutdownLetsCallsEndAndThenCancelsThem(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		hosts, closeAll := memoryHosts(t, 2)
		defer closeAll()
		s := newTestServer(t, hosts[0], ServerConfig{})
		cc := plainClient(t, hosts[1], hosts[0].ID())
		defer cc.Close()
		c := grpc_testing.NewTestServiceClient(cc)
		call, err := c.FullDuplexCall(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		echo := func() error {
			if err := call.Send(&grpc_testing.StreamingOutputCallRequest{}); err != nil {
				return err
			}
			_, err := call.Recv()
			return err
		}
		if err := echo(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		start := time.Now()
		done := make(chan error)
		go func() { done <- s.Shutdown(ctx) }()
		time.Sleep(5 * time.Second)
		if err := echo(); err != nil {
			t.Errorf("a running call during the shutdown: %v", err)
		}
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if d := time.Since(start); d > 11*time.Second {
			t.Errorf("the shutdown took %v", d)
		}
		if err := echo(); err == nil {
			t.Error("the call outlived the shutdown")
		}
	})
}

func TestServer_ShutdownIsBoundedWithSilentTunnelsAndDeafHandlers(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		hosts, closeAll := memoryHosts(t, 2)
		defer closeAll()
		deaf := make(chan struct{})
		s := newTestServer(t, hosts[0], ServerConfig{Options: []grpc.ServerOption{
			grpc.UnaryInterceptor(func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
				<-deaf
				return nil, status.Error(codes.Aborted, "at last")
			}),
		}})
		silent := openRaw(t, hosts[1], hosts[0])
		silent.send([]byte(http2.ClientPreface))
		synctest.Wait()
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		cc := plainClient(t, hosts[1], hosts[0].ID())
		defer cc.Close()
		answer := make(chan error)
		go func() {
			_, err := grpc_testing.NewTestServiceClient(cc).EmptyCall(t.Context(), &grpc_testing.Empty{})
			answer <- err
		}()
		synctest.Wait()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "handlers still run") {
			t.Errorf("got %v", err)
		}
		if d := time.Since(start); d > time.Second+stopGrace {
			t.Errorf("the shutdown took %v", d)
		}
		if err := <-answer; status.Code(err) != codes.Unavailable {
			t.Errorf("the caller got %v", err)
		}
		silent.ended()
		close(deaf)
	})
}

func TestServer_ShutdownAtOnceWithoutCallsIsNoError(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		hosts, closeAll := memoryHosts(t, 2)
		defer closeAll()
		s := newTestServer(t, hosts[0], ServerConfig{})
		cc := plainClient(t, hosts[1], hosts[0].ID())
		defer cc.Close()
		if _, err := grpc_testing.NewTestServiceClient(cc).EmptyCall(t.Context(), &grpc_testing.Empty{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("no call was canceled: %v", err)
		}
	})
}

func TestServer_ASilentTunnelDoesNotHoldUpAGracefulShutdown(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		hosts, closeAll := memoryHosts(t, 2)
		defer closeAll()
		s := newTestServer(t, hosts[0], ServerConfig{})
		silent := openRaw(t, hosts[1], hosts[0])
		silent.send([]byte(http2.ClientPreface))
		synctest.Wait()
		start := time.Now()
		if err := s.Shutdown(t.Context()); err != nil || time.Since(start) > time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		silent.ended()
	})
}

func TestServer_DialMemory(t *testing.T) {
	hosts, closeAll := memoryHosts(t, 1)
	defer closeAll()
	s := NewServer(ServerConfig{Logger: quiet()})
	grpc_testing.RegisterTestServiceServer(s, testService{})
	if _, err := s.DialMemory(t.Context()); !errors.Is(err, ErrNotStarted) {
		t.Errorf("before the start: %v", err)
	}
	if err := s.Start(hosts[0]); err != nil {
		t.Fatal(err)
	}
	cc, err := grpc.NewClient("passthrough:///"+hosts[0].ID().String(), grpc.WithTransportCredentials(NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.DialMemory(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	got, err := grpc_testing.NewTestServiceClient(cc).UnaryCall(t.Context(), &grpc_testing.SimpleRequest{Payload: payload(1 << 20)})
	if err != nil {
		t.Fatal(err)
	}
	if got.GetUsername() != hosts[0].ID().String() || got.GetServerId() != "memory memory" || len(got.GetPayload().GetBody()) != 1<<20 {
		t.Errorf("got %s over %s", got.GetUsername(), got.GetServerId())
	}
	_ = cc.Close()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := s.DialMemory(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the shutdown: %v", err)
	}
}

func TestServer_NothingIsKeptOfPeersThatLeft(t *testing.T) {
	s, server, client := memoryServer(t, ServerConfig{})
	for range 20 {
		cc := plainClient(t, client, server.ID())
		if _, err := grpc_testing.NewTestServiceClient(cc).EmptyCall(t.Context(), &grpc_testing.Empty{}); err != nil {
			t.Fatal(err)
		}
		_ = cc.Close()
	}
	stopNow(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits.mu.Lock()
	defer s.limits.mu.Unlock()
	if len(s.tunnels) > 0 || len(s.limits.peers) > 0 {
		t.Errorf("%d tunnels and %d peers left", len(s.tunnels), len(s.limits.peers))
	}
}
