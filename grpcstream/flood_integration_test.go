package grpcstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// heapPeak samples the heap while f runs, and returns by how much it grew at most.
func heapPeak(f func()) uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	start, peak := m.HeapInuse+m.StackInuse, uint64(0)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse+m.StackInuse)
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	f()
	close(stop)
	<-done
	return max(peak, start) - start
}

// manyCalls is ten times the calls of a peer that run at once, or three times that under the race detector, which takes
// minutes for more on a busy machine.
func manyCalls() int {
	if raceDetector {
		return 3 * defaultMaxCallsPerPeer
	}
	return 10 * defaultMaxCallsPerPeer
}

func TestFlood_TenThousandCallsThroughOneChannel(t *testing.T) {
	const limit = 300 << 20
	calls := manyCalls()
	for transport := range listenOn {
		t.Run(transport, func(t *testing.T) {
			var running, most atomic.Int64
			server, _ := startServer(t, transport, ServerConfig{Options: []grpc.ServerOption{
				grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
					n := running.Add(1)
					defer running.Add(-1)
					for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
					}
					time.Sleep(10 * time.Millisecond)
					return next(ctx, req)
				}),
			}}, nil)
			client := newHost(t, transport)
			knows(client, server)
			c := grpc_testing.NewTestServiceClient(plainClient(t, client, server.ID()))
			ctx := withTimeout(t, time.Minute)
			var failed atomic.Int64
			grown := heapPeak(func() {
				var wg sync.WaitGroup
				for range calls {
					wg.Go(func() {
						if err := unaryOver(ctx, c, 1000); err != nil && failed.Add(1) < 5 {
							t.Error(err)
						}
					})
				}
				wg.Wait()
			})
			t.Logf("%d calls: at most %d handlers at once, memory grew by %d MiB", calls, most.Load(), grown>>20)
			if failed.Load() > 0 || most.Load() > defaultMaxCallsPerPeer || grown > limit {
				t.Errorf("%d failed, %d handlers at once, memory grew by %d MiB", failed.Load(), most.Load(), grown>>20)
			}
		})
	}
}

// A peer that spreads its calls over many tunnels is held to the same cap, and told so.
func TestFlood_OverManyTunnels(t *testing.T) {
	const tunnels, limit = 4, 50
	var running, most atomic.Int64
	server, _ := startServer(t, "tcp", ServerConfig{MaxCallsPerPeer: limit, BusyWait: 50 * time.Millisecond, Options: []grpc.ServerOption{
		grpc.UnaryInterceptor(func(ctx context.Context, _ any, _ *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
			n := running.Add(1)
			defer running.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}),
	}}, nil)
	client := newHost(t, "tcp")
	knows(client, server)
	ctx, cancel := context.WithCancel(withTimeout(t, 20*time.Second))
	defer cancel()
	var busy atomic.Int64
	var wg sync.WaitGroup
	for range tunnels {
		c := grpc_testing.NewTestServiceClient(plainClient(t, client, server.ID()))
		for range limit {
			wg.Go(func() {
				if _, err := c.EmptyCall(ctx, &grpc_testing.Empty{}); ReasonOf(err) == ReasonBusy && busy.Add(1) == (tunnels-1)*limit {
					cancel() // the others run
				}
			})
		}
	}
	wg.Wait()
	if most.Load() != limit || busy.Load() != (tunnels-1)*limit {
		t.Errorf("%d handlers at once, %d calls told BUSY", most.Load(), busy.Load())
	}
}

// One peer that never reads does not pin its handler, and does not hold up the others.
func TestFlood_ACallerThatNeverReads(t *testing.T) {
	t.Parallel()
	for transport := range listenOn {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			ended := make(chan error, 1)
			server, _ := startServer(t, transport, ServerConfig{WriteStall: time.Second, Options: []grpc.ServerOption{
				grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
					err := next(srv, ss)
					ended <- err
					return err
				}),
			}}, nil)
			client := newHost(t, transport)
			knows(client, server)
			r := openRaw(t, client, server)
			sizes := make([]*grpc_testing.ResponseParameters, 200)
			for i := range sizes {
				sizes[i] = &grpc_testing.ResponseParameters{Size: 1 << 20}
			}
			r.send(preface())
			r.send(beginCall("/grpc.testing.TestService/StreamingOutputCall"))
			r.send(message(t, &grpc_testing.StreamingOutputCallRequest{ResponseParameters: sizes}))
			start := time.Now()

			honest := newHost(t, transport)
			knows(honest, server)
			c := grpc_testing.NewTestServiceClient(plainClient(t, honest, server.ID()))
			if err := unaryOver(withTimeout(t, 5*time.Second), c, 1000); err != nil {
				t.Errorf("an honest caller: %v", err)
			}
			select {
			case err := <-ended:
				if err == nil {
					t.Error("the handler sent everything to a caller that does not read")
				}
			case <-time.After(10 * time.Second):
				t.Error("the handler is pinned")
			}
			t.Logf("let go after %v", time.Since(start))
			_ = r.Reset()
		})
	}
}

// A message of 1 GiB is refused at its length prefix; what was sent of it takes no memory.
func TestFlood_AGiantLengthPrefix(t *testing.T) {
	server, _ := startServer(t, "tcp", ServerConfig{}, nil)
	client := newHost(t, "tcp")
	knows(client, server)
	for _, compressed := range []byte{0, 1} {
		r := openRaw(t, client, server)
		var header []hpack.HeaderField
		if compressed == 1 {
			header = append(header, hpack.HeaderField{Name: "grpc-encoding", Value: "gzip"})
		}
		r.send(preface())
		r.send(beginCall("/grpc.testing.TestService/UnaryCall", header...))
		var data bytes.Buffer
		_ = http2.NewFramer(&data, nil).WriteData(1, false, messagePrefix(compressed, 1<<30))
		grown := heapPeak(func() {
			r.send(data.Bytes())
			if code := r.status(); code != codes.ResourceExhausted {
				t.Errorf("compressed %d: got %v", compressed, code)
			}
		})
		if grown > 32<<20 {
			t.Errorf("compressed %d: memory grew by %d MiB", compressed, grown>>20)
		}
		_ = r.Reset()
	}
}

// status reads until the trailers of a call and returns its code.
func (r rawTunnel) status() codes.Code {
	r.tb.Helper()
	f := http2.NewFramer(io.Discard, r)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			r.tb.Fatal(err)
		}
		h, ok := frame.(*http2.MetaHeadersFrame)
		if !ok || !h.StreamEnded() {
			continue
		}
		for _, field := range h.Fields {
			if field.Name == "grpc-status" {
				var code codes.Code
				if err := code.UnmarshalJSON([]byte(field.Value)); err != nil {
					r.tb.Fatal(err)
				}
				return code
			}
		}
	}
}

// After tunnels and connections come and go nothing is left of them.
func TestFlood_ComingAndGoingLeavesNothing(t *testing.T) {
	const cycles = 50
	for transport := range listenOn {
		t.Run(transport, func(t *testing.T) {
			server, s := startServer(t, transport, ServerConfig{}, nil)
			client := newHost(t, transport)
			cycle := func() {
				knows(client, server)
				cc := plainClient(t, client, server.ID())
				if err := unaryOver(withTimeout(t, 10*time.Second), grpc_testing.NewTestServiceClient(cc), 1000); err != nil {
					t.Fatal(err)
				}
				_ = cc.Close()
				_ = client.Network().ClosePeer(server.ID())
			}
			cycle()
			before := runtime.NumGoroutine()
			for range cycles {
				cycle()
			}
			after := settled(runtime.NumGoroutine, before)
			if after > before+5 {
				t.Errorf("%d goroutines, %d before", after, before)
			}
			left := settled(func() int {
				s.mu.Lock()
				defer s.mu.Unlock()
				return len(s.tunnels)
			}, 0)
			streams := settled(func() (n int) {
				_ = server.Network().ResourceManager().ViewSystem(func(scope network.ResourceScope) error {
					n = scope.Stat().NumStreamsInbound
					return nil
				})
				return n
			}, 0)
			if left > 0 || streams > 0 {
				t.Errorf("%d tunnels and %d streams left", left, streams)
			}
		})
	}
}

// settled polls a count until it is at most want, for 5 seconds at most, and returns it.
func settled(count func() int, want int) int {
	n := count()
	for end := time.Now().Add(5 * time.Second); n > want && time.Now().Before(end); n = count() {
		time.Sleep(20 * time.Millisecond)
	}
	return n
}

// A refused call does not end its tunnel: the next one is served.
func TestFlood_ABusyAnswerKeepsTheTunnel(t *testing.T) {
	server, _ := startServer(t, "tcp", ServerConfig{MaxCallsPerPeer: 2, MaxCalls: 1, BusyWait: time.Millisecond}, nil)
	client := newHost(t, "tcp")
	knows(client, server)
	c := grpc_testing.NewTestServiceClient(plainClient(t, client, server.ID()))
	ctx, cancel := context.WithCancel(withTimeout(t, 10*time.Second))
	hanging := make(chan error, 1)
	go func() {
		err := error(nil)
		for again := true; again; again = ReasonOf(err) == ReasonBusy { // a call from below may be first
			_, err = c.EmptyCall(asking(ctx, "hang"), &grpc_testing.Empty{})
		}
		hanging <- err
	}()
	var err error
	for ReasonOf(err) != ReasonBusy && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = unaryOver(t.Context(), c, 1)
	}
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v", err)
	}
	cancel()
	if err := <-hanging; status.Code(err) != codes.Canceled {
		t.Errorf("the canceled call: %v", err)
	}
	for err != nil && ReasonOf(err) == ReasonBusy {
		err = unaryOver(t.Context(), c, 1)
	}
	if err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// A tunnel with calls has memory reserved at the resource manager of the node that is called.
func TestFlood_ATunnelReservesMemory(t *testing.T) {
	server, _ := startServer(t, "tcp", ServerConfig{}, nil)
	client := newHost(t, "tcp")
	knows(client, server)
	c := grpc_testing.NewTestServiceClient(plainClient(t, client, server.ID()))
	if err := unaryOver(withTimeout(t, 10*time.Second), c, 1); err != nil {
		t.Fatal(err)
	}
	var reserved int64
	_ = server.Network().ResourceManager().ViewProtocol(TunnelProtocol(DefaultNetwork), func(scope network.ProtocolScope) error {
		reserved = scope.Stat().Memory
		return nil
	})
	if reserved < reserveMin {
		t.Errorf("%d bytes are reserved", reserved)
	}
}
