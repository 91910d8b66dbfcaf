package p2p_test

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/discovery/mdns"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/grpcstream"
	"github.com/lynn9388/p2p/internal/nodetest"
	"github.com/lynn9388/p2p/internal/pace"
	"github.com/lynn9388/p2p/internal/poll"
	"github.com/lynn9388/p2p/p2ptest"
)

// most keeps the highest of the values it is shown.
type most struct{ atomic.Int64 }

func (m *most) see(n int64) {
	for old := m.Load(); n > old && !m.CompareAndSwap(old, n); old = m.Load() {
	}
}

// memoryPeak samples the memory in use while f runs, and returns by how many bytes it grew at most.
func memoryPeak(f func()) int64 {
	inUse := func() int64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapInuse + m.StackInuse)
	}
	runtime.GC()
	var peak most
	before := inUse()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			peak.see(inUse())
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	f()
	close(stop)
	<-done
	return peak.Load() - before
}

// T11: two nodes with default options, and more calls at once than the other end runs at once.
func TestLoad_TenThousandCallsAtOnce(t *testing.T) {
	const handlers, memory = 1000, 300 << 20 // the default cap of a peer
	var running atomic.Int64
	var peak most
	interceptor := grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if info.FullMethod != "/bench.Bench/Echo" {
			return next(ctx, req)
		}
		peak.see(running.Add(1))
		defer running.Add(-1)
		select { // so long that calls pile up
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
		return next(ctx, req)
	})
	nodes := p2ptest.Start(t, 2, func(i int, n *p2p.Node) { n.RegisterService(&benchDesc, nil) }, p2p.WithServerOptions(interceptor))
	cc := nodes[0].Peer(nodes[1].ID().String())
	call := func() error {
		return cc.Invoke(t.Context(), "/bench.Bench/Echo", wrapperspb.Bytes(make([]byte, 1024)), new(wrapperspb.BytesValue))
	}
	if err := call(); err != nil {
		t.Fatal(err)
	}
	var failed atomic.Int64
	began := time.Now()
	grown := memoryPeak(func() {
		var wg sync.WaitGroup
		for range callsAtOnce {
			wg.Go(func() {
				if err := call(); err != nil && failed.Add(1) <= 5 {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
	t.Logf("%d calls in %v: %d failed, at most %d handlers at once, memory grew by %d MiB",
		callsAtOnce, time.Since(began).Round(time.Millisecond), failed.Load(), peak.Load(), grown>>20)
	if failed.Load() > 0 || peak.Load() > handlers || grown > memory {
		t.Errorf("%d calls failed, %d handlers at once (want at most %d), memory grew by %d MiB (want at most %d)",
			failed.Load(), peak.Load(), handlers, grown>>20, memory>>20)
	}
}

// Nodes that find one another by multicast on this machine; the client's only call is made a second before there is a
// server.
func TestLoad_TheFirstCallASecondBeforeItsServer(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	var failed atomic.Int64
	var slowest most
	limit := make(chan struct{}, 5)
	times := pace.Of(50, 5)
	for range times {
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			wait, err := firstCall(t)
			if err != nil {
				failed.Add(1)
				t.Error(err)
			}
			slowest.see(int64(wait))
		})
	}
	wg.Wait()
	t.Logf("%d first calls, %d failed; from the server's start to the answer it took %v at most", times, failed.Load(), time.Duration(slowest.Load()))
}

// foundByMDNS are the options of a node of a test that multicast DNS finds.
func foundByMDNS(network string) []p2p.Option {
	return append(p2ptest.Options(network), p2p.WithDiscovery(mdns.New(mdns.Config{Network: network, Logger: slog.New(slog.DiscardHandler)})))
}

// firstCall tells how long after its server's start a client's first call was answered.
func firstCall(t *testing.T) (time.Duration, error) {
	network := p2ptest.Network()
	patience := p2p.WithDiscoveryTimeout(pace.Of(5*time.Second, 20*time.Second)) // five is the default
	client := p2p.NewNode("localhost:0", append(foundByMDNS(network), patience)...)
	defer client.Close()
	if err := client.StartServer(); err != nil {
		return 0, err
	}
	answer := make(chan error, 1)
	go func() {
		_, err := nodetest.Greet(t, client)
		answer <- err
	}()
	select {
	case err := <-answer:
		return 0, err
	case <-time.After(time.Second):
	}
	server := p2p.NewNode("localhost:0", foundByMDNS(network)...)
	pb.RegisterGreeterServiceServer(server, nodetest.Greeter{Who: "late"})
	defer server.Close()
	began := time.Now()
	if err := server.StartServer(); err != nil {
		return 0, err
	}
	err := <-answer
	return time.Since(began), err
}

// A bare host that speaks another network's tunnel, whose own signed record is as good as any.
func TestLoad_APeerOfAnotherNetworkHandsInNothing(t *testing.T) {
	t.Parallel()
	nodes := p2ptest.Start(t, 2, func(_ int, n *p2p.Node) { pb.RegisterGreeterServiceServer(n, nodetest.Greeter{}) },
		p2p.WithDiscoveryTimeout(time.Second))
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	other := p2ptest.Network()
	h.SetStreamHandler(grpcstream.TunnelProtocol(other), func(s network.Stream) { _ = s.Reset() })
	h.SetStreamHandler(grpcstream.ServiceProtocol(other, "hello.v1.GreeterService"), func(s network.Stream) { _ = s.Reset() })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := h.Connect(ctx, peer.AddrInfo{ID: nodes[0].ID(), Addrs: nodes[0].Host().Addrs()}); err != nil {
		t.Fatal(err)
	}
	if c, err := grpcstream.Dial(ctx, h, nodes[0].ID(), grpcstream.TunnelProtocol(other)); err == nil {
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a tunnel of another network is served")
		}
		_ = c.Close()
	}
	poll.Until(t, 10*time.Second, func() string {
		if len(h.Network().ConnsToPeer(nodes[0].ID())) > 0 {
			return "the peer of another network was not let go"
		}
		return ""
	})
	for i, n := range nodes {
		for _, p := range n.Peers() {
			if p.ID == h.ID() && (i > 0 || p.State == p2p.StateNeighbor || len(p.Services) > 0) {
				t.Errorf("node %d knows the peer of another network as %+v", i, p)
			}
		}
		if got := known(n, "hello.v1.GreeterService"); len(got) != 2 {
			t.Errorf("node %d knows the instances %v, want the two of its network", i, got)
		}
	}
	if _, err := nodetest.Greet(t, nodes[0].Peer(h.ID().String())); status.Code(err) != codes.Unavailable {
		t.Errorf("a call to a peer of another network: %v", err)
	}
}
