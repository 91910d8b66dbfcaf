package grpcstream

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/lynn9388/p2p/internal/virtual"
)

func TestCallLimits_AboveTheCapACallWaitsThenIsBusy(t *testing.T) {
	for name, cfg := range map[string]ServerConfig{
		"of a peer": {MaxCallsPerPeer: 2, MaxCalls: 100},
		"of all":    {MaxCallsPerPeer: 100, MaxCalls: 2},
	} {
		t.Run(name, func(t *testing.T) {
			virtual.Test(t, func(t *testing.T) {
				l := newCallLimits(cfg.withDefaults())
				p, _ := l.addTunnel("a")
				for range 2 {
					if err := l.acquire(t.Context(), p, ordinaryCall); err != nil {
						t.Fatal(err)
					}
				}
				start := time.Now()
				err := l.acquire(t.Context(), p, ordinaryCall)
				if time.Since(start) != time.Second || status.Code(err) != codes.ResourceExhausted || ReasonOf(err) != ReasonBusy {
					t.Errorf("after %v: %v", time.Since(start), err)
				}
				retry := false
				for _, d := range status.Convert(err).Details() {
					_, ok := d.(*errdetails.RetryInfo)
					retry = retry || ok
				}
				if !retry {
					t.Error("no RetryInfo")
				}

				time.AfterFunc(time.Second/2, func() { l.release(p, ordinaryCall) })
				if err := l.acquire(t.Context(), p, ordinaryCall); err != nil {
					t.Errorf("with a place after half a second: %v", err)
				}

				short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
				defer cancel()
				if err := l.acquire(short, p, ordinaryCall); status.Code(err) != codes.DeadlineExceeded {
					t.Errorf("with a call that ends before its turn: %v", err)
				}
			})
		})
	}
}

func TestCallLimits_AsManyWaitAsMayRun(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		l := newCallLimits(ServerConfig{MaxCallsPerPeer: 3}.withDefaults())
		p, _ := l.addTunnel("a")
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() { _ = l.acquire(t.Context(), p, ordinaryCall) })
		}
		synctest.Wait()
		start := time.Now()
		if err := l.acquire(t.Context(), p, ordinaryCall); ReasonOf(err) != ReasonBusy || time.Since(start) != 0 {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		wg.Wait()
	})
}

func TestCallLimits_AWatchCountsForItsPeerOnly(t *testing.T) {
	l := newCallLimits(ServerConfig{MaxCalls: 1, MaxCallsPerPeer: 3}.withDefaults())
	p, _ := l.addTunnel("a")
	for _, kind := range []callKind{ordinaryCall, watchCall, watchCall} {
		if err := l.acquire(t.Context(), p, kind); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := l.acquire(ctx, p, watchCall); err == nil {
		t.Error("a fourth call of the peer was let in")
	}
}

func TestCallLimits_RememberAPeerWhileItHasCallsOrTunnels(t *testing.T) {
	l := newCallLimits(ServerConfig{MaxTunnelsPerPeer: 1, MaxCallsPerPeer: 1}.withDefaults())
	p, _ := l.addTunnel("a")
	if _, ok := l.addTunnel("a"); ok {
		t.Error("a second tunnel was let in")
	}
	if err := l.acquire(t.Context(), p, ordinaryCall); err != nil {
		t.Fatal(err)
	}
	l.removeTunnel(p)
	again, ok := l.addTunnel("a")
	if !ok || again != p {
		t.Error("a peer that reconnects while its call runs starts afresh")
	}
	l.removeTunnel(again)
	l.release(p, ordinaryCall)
	if len(l.peers) != 0 {
		t.Errorf("%d peers left", len(l.peers))
	}
}

// A peer that calls again and again is in use in between, too.
func TestServer_InUseBetweenCalls(t *testing.T) {
	inOffice(t, func(t *testing.T, o *office) {
		a, b := o.host(), o.host()
		s := o.serve(b, "x.A")
		o.connect(a, b)
		ch := o.channel(a, ChannelConfig{})
		cc := ch.Peer(b.ID().String())
		time.Sleep(time.Minute)
		if s.InUse(a.ID()) {
			t.Error("in use before the first call")
		}
		for range 3 {
			if _, err := askWho(t.Context(), cc, "x.A"); err != nil {
				t.Fatal(err)
			}
			if time.Sleep(callPause - time.Second); !s.InUse(a.ID()) {
				t.Fatal("not in use between two calls")
			}
		}
		if time.Sleep(2 * time.Second); s.InUse(a.ID()) {
			t.Error("in use long after the last call")
		}
		if _, err := askWho(t.Context(), cc, "x.A"); err != nil {
			t.Fatal(err)
		}
		if !s.InUse(a.ID()) {
			t.Error("not in use right after a call")
		}
		_ = ch.Close()
		if synctest.Wait(); s.InUse(a.ID()) {
			t.Error("in use without a tunnel")
		}
	})
}

// scopeStub is a resource scope with a limit.
type scopeStub struct {
	limit, held int
	asked       int
}

func (s *scopeStub) ReserveMemory(size int, prio uint8) error {
	s.asked++
	if s.held+size > s.limit*(1+int(prio))/256 {
		return network.ErrResourceLimitExceeded
	}
	s.held += size
	return nil
}
func (s *scopeStub) ReleaseMemory(size int) { s.held -= size }

func TestReservation(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		for limit, want := range map[int]int{64 << 20: 8 << 20, 4 << 20: 2 << 20, 1 << 20: 1 << 20} {
			scope := &scopeStub{limit: limit}
			r := reservation{scope: scope}
			for range 100 { // one call after the other
				if err := r.begin(); err != nil {
					t.Fatal(err)
				}
				r.end()
			}
			asked := scope.asked
			if scope.held != want {
				t.Errorf("of %d: %d reserved, want %d", limit, scope.held, want)
			}
			if err := r.begin(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			if scope.held != want || scope.asked != asked {
				t.Errorf("of %d: %d reserved with a call under way", limit, scope.held)
			}
			r.end()
			time.Sleep(3 * reserveKeep)
			synctest.Wait()
			if scope.held != 0 {
				t.Errorf("of %d: %d reserved when idle", limit, scope.held)
			}
			if err := r.begin(); err != nil || scope.held != want {
				t.Errorf("of %d: %d reserved again, %v", limit, scope.held, err)
			}
			r.end()
			r.close()
		}
		if err := (&reservation{scope: &scopeStub{limit: 1000}}).begin(); !errors.Is(err, network.ErrResourceLimitExceeded) {
			t.Errorf("without memory: %v", err)
		}
	})
}

func TestWatchdog(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		var bitten []time.Duration
		start := time.Now()
		w := newWatchdog(5*time.Second, func() { bitten = append(bitten, time.Since(start)) })
		for range 100 {
			w.begin()
			time.Sleep(4 * time.Second)
			w.end()
			time.Sleep(time.Second / 2)
		}
		synctest.Wait()
		if len(bitten) > 0 {
			t.Fatalf("bit at %v while things went on", bitten)
		}
		start = time.Now()
		w.begin()
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(bitten) != 1 || bitten[0] != 5*time.Second {
			t.Errorf("bit at %v", bitten)
		}
		w.stop()
	})
}

func TestServer_TunnelsOfOnePeerAreLimited(t *testing.T) {
	_, server, client := memoryServer(t, ServerConfig{MaxTunnelsPerPeer: 3})
	var streams []rawTunnel
	for range 5 {
		streams = append(streams, openRaw(t, client, server))
	}
	ended := make(chan error)
	for _, r := range streams {
		go func() {
			_, err := io.Copy(io.Discard, r)
			ended <- err
		}()
	}
	for range 2 {
		if err := <-ended; err == nil {
			t.Error("a tunnel above the limit ended without an error")
		}
	}
	for _, r := range streams {
		_ = r.Reset()
	}
	// How these end, by the reset or by the server that closes in answer to it, is a race.
	for range 3 {
		t.Logf("one of the others ended with %v", <-ended)
	}
}

// unaryOver is one call with a payload, compressed or not.
func unaryOver(ctx context.Context, c grpc_testing.TestServiceClient, size int, opts ...grpc.CallOption) error {
	_, err := c.UnaryCall(ctx, &grpc_testing.SimpleRequest{Payload: payload(size)}, opts...)
	return err
}

// fits is the largest payload whose message has exactly the size of limit.
func fits(limit int) int {
	size := limit - 16
	for protoSize(size+1) <= limit {
		size++
	}
	return size
}

func protoSize(n int) int {
	b, _ := proto.Marshal(&grpc_testing.SimpleRequest{Payload: payload(n)})
	return len(b)
}

func TestLimits_OneByteOverIsResourceExhaustedAndTheTunnelIsKept(t *testing.T) {
	const limit = 4 << 20
	tunnels := make(chan Peer, 100)
	_, server, client := memoryServer(t, ServerConfig{Options: []grpc.ServerOption{grpc.StatsHandler(connCounter{tunnels})}})
	c := grpc_testing.NewTestServiceClient(plainClient(t, client, server.ID(),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(64<<20), grpc.MaxCallRecvMsgSize(64<<20))))
	ctx := t.Context()

	n := fits(limit)
	respond := func(size int) error {
		s, err := c.StreamingOutputCall(ctx, &grpc_testing.StreamingOutputCallRequest{
			ResponseParameters: []*grpc_testing.ResponseParameters{{Size: int32(size)}},
		})
		if err != nil {
			return err
		}
		_, err = s.Recv()
		return err
	}
	header := func(size int) error {
		// name, value and 32 bytes for each field; gRPC adds content-type, :authority, user-agent and te.
		_, err := c.EmptyCall(metadata.AppendToOutgoingContext(ctx, "x-long", strings.Repeat("x", size)), &grpc_testing.Empty{})
		return err
	}
	cases := []struct {
		name string
		err  error
		want codes.Code
	}{
		{"a request at the limit", unaryOver(ctx, c, n-64), codes.OK}, // the answer has more fields
		{"a request over the limit", unaryOver(ctx, c, n+1), codes.ResourceExhausted},
		{"a compressed request over the limit", unaryOver(ctx, c, n+1, grpc.UseCompressor("gzip")), codes.ResourceExhausted},
		{"a thousandfold request", unaryOver(ctx, c, 60<<20, grpc.UseCompressor("gzip")), codes.ResourceExhausted},
		{"an answer at the limit", respond(n), codes.OK},
		{"an answer over the limit", respond(n + 1), codes.ResourceExhausted},
		{"a header under the limit", header(15 << 10), codes.OK},
		{"a header over the limit", header(16 << 10), codes.ResourceExhausted},
	}
	for _, c := range cases {
		if status.Code(c.err) != c.want {
			t.Errorf("%s: got %v, want %v", c.name, c.err, c.want)
		}
	}
	if len(tunnels) != 1 {
		t.Errorf("%d tunnels were needed", len(tunnels))
	}
}

// connCounter notes the tunnels that begin.
type connCounter struct{ begun chan<- Peer }

func (c connCounter) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (c connCounter) HandleRPC(context.Context, stats.RPCStats)                         {}
func (c connCounter) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (c connCounter) HandleConn(ctx context.Context, s stats.ConnStats) {
	if _, ok := s.(*stats.ConnBegin); ok {
		p, _ := PeerFromContext(ctx)
		c.begun <- p
	}
}
