package grpcstream

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/lynn9388/p2p/internal/addr"
)

func newChannel(tb testing.TB, h corehost.Host, cfg ChannelConfig) *Channel {
	tb.Helper()
	cfg.Logger = quiet()
	ch, err := NewChannel(h, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = ch.Close() })
	return ch
}

// hostPort is where h listens with TCP, as people write it.
func hostPort(tb testing.TB, h corehost.Host) string {
	tb.Helper()
	for _, a := range h.Addrs() {
		if hp, ok := addr.HostPort(a); ok {
			return hp
		}
	}
	tb.Fatal("no address")
	return ""
}

func TestChannel_Targets(t *testing.T) {
	for transport := range listenOn {
		t.Run(transport, func(t *testing.T) {
			server, _ := startServer(t, transport, ServerConfig{}, nil)
			hp := hostPort(t, server)
			_, port, err := net.SplitHostPort(hp)
			if err != nil {
				t.Fatal(err)
			}
			id := server.ID().String()
			targets := []string{
				id + "@" + hp,
				id + "@localhost:" + port,
				server.Addrs()[0].String() + "/p2p/" + id,
				strings.Replace(server.Addrs()[0].String(), "/ip4/127.0.0.1", "/dns/localhost", 1) + "/p2p/" + id,
			}
			for _, target := range targets {
				ctx := withTimeout(t, 20*time.Second)
				ch := newChannel(t, newHost(t, transport), ChannelConfig{})
				if _, err := grpc_testing.NewTestServiceClient(ch.Peer(target)).EmptyCall(ctx, &grpc_testing.Empty{}); err != nil {
					t.Errorf("%s: %v", target, err)
				}
				cc, err := NewClient(newHost(t, transport), target)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := grpc_testing.NewTestServiceClient(cc).EmptyCall(ctx, &grpc_testing.Empty{}); err != nil {
					t.Errorf("own client, %s: %v", target, err)
				}
				_ = cc.Close()
			}
		})
	}
}

func TestChannel_WrongPeerIsNamed(t *testing.T) {
	t.Parallel()
	for transport := range listenOn {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			server, _ := startServer(t, transport, ServerConfig{}, nil)
			other := newHost(t, transport)
			ch := newChannel(t, newHost(t, transport), ChannelConfig{})
			target := other.ID().String() + "@" + hostPort(t, server)
			_, err := grpc_testing.NewTestServiceClient(ch.Peer(target)).EmptyCall(withTimeout(t, 20*time.Second), &grpc_testing.Empty{})
			wantReason(t, err, ReasonWrongPeer)
			if !strings.Contains(err.Error(), server.ID().String()) || !strings.Contains(err.Error(), other.ID().String()) {
				t.Errorf("it does not name both: %v", err)
			}
		})
	}
}

func TestChannel_NobodyThere(t *testing.T) {
	t.Parallel()
	for transport := range listenOn {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			ch := newChannel(t, newHost(t, transport), ChannelConfig{})
			gone := newHost(t, transport)
			target := gone.ID().String() + "@" + hostPort(t, gone)
			_ = gone.Close()
			start := time.Now()
			_, err := grpc_testing.NewTestServiceClient(ch.Peer(target)).EmptyCall(withTimeout(t, 30*time.Second), &grpc_testing.Empty{})
			wantReason(t, err, ReasonNoRoute)
			if d := time.Since(start); d > 2*connectTimeout {
				t.Errorf("after %v", d)
			}
		})
	}
}

// The peer's process ends and comes back with its identity: the channel calls it as soon as it is connected.
func TestChannel_PeerRestarts(t *testing.T) {
	for transport := range listenOn {
		t.Run(transport, func(t *testing.T) {
			ctx := withTimeout(t, 60*time.Second)
			a := newHost(t, transport)
			ch := newChannel(t, a, ChannelConfig{})
			key := newHost(t, transport)
			private := key.Peerstore().PrivKey(key.ID())
			_ = key.Close()
			client := grpc_testing.NewTestServiceClient(ch)
			byID := grpc_testing.NewTestServiceClient(ch.Peer(key.ID().String()))
			for range 3 {
				b := newHostWithKey(t, transport, private)
				s := NewServer(ServerConfig{Logger: quiet()})
				grpc_testing.RegisterTestServiceServer(s, testService{})
				if err := s.Start(b); err != nil {
					t.Fatal(err)
				}
				if err := b.Connect(ctx, peer.AddrInfo{ID: a.ID(), Addrs: a.Addrs()}); err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				for _, c := range []grpc_testing.TestServiceClient{byID, client} {
					if _, err := c.EmptyCall(ctx, &grpc_testing.Empty{}); err != nil {
						t.Fatal(err)
					}
				}
				if d := time.Since(start); d > 10*time.Second {
					t.Errorf("back after %v", d)
				}
				stopped, cancel := context.WithCancel(ctx)
				cancel()
				_ = s.Shutdown(stopped)
				_ = b.Close()
				for (a.Network().Connectedness(b.ID()) == network.Connected || linked(ch, b.ID())) && ctx.Err() == nil {
					runtime.Gosched()
				}
			}
		})
	}
}

// linked tells whether the channel still has a tunnel to a peer: a call that goes over one whose end has not been noticed
// may have been sent, so it fails.
func linked(ch *Channel, id peer.ID) bool {
	ch.hub.mu.RLock()
	defer ch.hub.mu.RUnlock()
	p := ch.hub.peers[id]
	return p != nil && p.link.Load() != nil
}

// 10,000 calls at once to one peer over one channel: they queue at this end, and none fails.
func TestChannel_TenThousandCallsAtOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	n := manyCalls()
	for transport := range listenOn {
		t.Run(transport, func(t *testing.T) {
			ctx := withTimeout(t, 100*time.Second)
			server, _ := startServer(t, transport, ServerConfig{}, nil)
			h := newHost(t, transport)
			knows(h, server)
			ch := newChannel(t, h, ChannelConfig{})
			client := grpc_testing.NewTestServiceClient(ch.Peer(server.ID().String()))
			var before, during runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			var failed atomic.Int64
			var first atomic.Pointer[error]
			var wg sync.WaitGroup
			for range n {
				wg.Go(func() {
					if _, err := client.EmptyCall(ctx, &grpc_testing.Empty{}); err != nil {
						failed.Add(1)
						first.CompareAndSwap(nil, &err)
					}
				})
			}
			var peak uint64
			done := make(chan struct{})
			go func() { wg.Wait(); close(done) }()
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for running := true; running; {
				select {
				case <-done:
					running = false
				case <-tick.C:
				}
				runtime.ReadMemStats(&during)
				peak = max(peak, during.HeapAlloc+during.StackInuse)
			}
			if failed.Load() != 0 {
				t.Errorf("%d of %d calls failed, for example: %v", failed.Load(), n, *first.Load())
			}
			grown := int64(peak) - int64(before.HeapAlloc+before.StackInuse)
			t.Logf("memory grew by %d MiB at most", grown>>20)
			if grown > 300<<20 {
				t.Errorf("memory grew by %d MiB", grown>>20)
			}
		})
	}
}

// Tunnels come and go, and leave nothing behind.
func TestChannel_LeavesNothingBehind(t *testing.T) {
	for transport := range listenOn {
		t.Run(transport, func(t *testing.T) {
			ctx := withTimeout(t, 60*time.Second)
			server, _ := startServer(t, transport, ServerConfig{}, nil)
			h := newHost(t, transport)
			knows(h, server)
			ch := newChannel(t, h, ChannelConfig{})
			client := grpc_testing.NewTestServiceClient(ch.Peer(server.ID().String()))
			base := 0
			for i := range 30 {
				if _, err := client.EmptyCall(ctx, &grpc_testing.Empty{}); err != nil {
					t.Fatalf("round %d: %v", i, err)
				}
				if err := h.Network().ClosePeer(server.ID()); err != nil {
					t.Fatal(err)
				}
				for ch.InUse(server.ID()) && ctx.Err() == nil {
					time.Sleep(time.Millisecond)
				}
				if i == 5 {
					base = runtime.NumGoroutine()
				}
			}
			if ch.InUse(server.ID()) {
				t.Error("still in use")
			}
			for runtime.NumGoroutine() > base+10 && ctx.Err() == nil {
				time.Sleep(10 * time.Millisecond)
			}
			if n := runtime.NumGoroutine(); n > base+10 {
				t.Errorf("%d goroutines, %d after the first rounds", n, base)
			}
		})
	}
}

// A handler's own deadline, status and details are not touched on their way through the channel.
func TestChannel_PassesStatusOn(t *testing.T) {
	ctx := withTimeout(t, 20*time.Second)
	server, _ := startServer(t, "tcp", ServerConfig{}, nil)
	h := newHost(t, "tcp")
	knows(h, server)
	client := grpc_testing.NewTestServiceClient(newChannel(t, h, ChannelConfig{}).Peer(server.ID().String()))
	_, err := client.EmptyCall(asking(ctx, "fail"), &grpc_testing.Empty{})
	if st := status.Convert(err); st.Code() != codes.FailedPrecondition || len(st.Details()) != 1 {
		t.Errorf("%v with %v", err, st.Details())
	}
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if _, err := client.EmptyCall(asking(short, "hang"), &grpc_testing.Empty{}); status.Code(err) != codes.DeadlineExceeded {
		t.Error(fmt.Errorf("a hanging call: %w", err))
	}
}

func newHostWithKey(tb testing.TB, transport string, key crypto.PrivKey) corehost.Host {
	tb.Helper()
	h, err := libp2p.New(libp2p.Identity(key), libp2p.ListenAddrStrings(listenOn[transport]), libp2p.DisableRelay(), libp2p.DisableMetrics())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = h.Close() })
	return h
}
