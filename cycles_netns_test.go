//go:build linux

package p2p_test

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	connrate "github.com/libp2p/go-libp2p/x/rate"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p"
	pb "github.com/lynn9388/p2p/examples/hello/greeter"
	"github.com/lynn9388/p2p/grpcstream"
	"github.com/lynn9388/p2p/internal/netns"
	"github.com/lynn9388/p2p/internal/nodetest"
	"github.com/lynn9388/p2p/internal/pace"
	"github.com/lynn9388/p2p/internal/poll"
	"github.com/lynn9388/p2p/p2ptest"
)

// inHost runs the test as a process in a network namespace that has an interface besides loopback, and returns true
// there.
func inHost(t *testing.T, within time.Duration) bool {
	t.Helper()
	if part() != "" {
		return true
	}
	await(t, play(t, netns.New(t).Bridge().Host(), "host"), within)
	return false
}

// await logs what a player says until it ends.
func await(t *testing.T, p *player, within time.Duration) {
	t.Helper()
	deadline := time.After(within)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				p.finish(time.Second)
				return
			}
			t.Log(line)
		case <-deadline:
			t.Fatalf("it takes more than %v", within)
		}
	}
}

// unlimited is a resource manager that counts and refuses nothing.
func unlimited(t *testing.T) network.ResourceManager {
	t.Helper()
	any4 := rcmgr.NetworkPrefixLimit{Network: netip.MustParsePrefix("0.0.0.0/0"), ConnCount: math.MaxInt}
	any6 := rcmgr.NetworkPrefixLimit{Network: netip.MustParsePrefix("::/0"), ConnCount: math.MaxInt}
	rm, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(rcmgr.InfiniteLimits), rcmgr.WithMetricsDisabled(),
		rcmgr.WithNetworkPrefixLimit([]rcmgr.NetworkPrefixLimit{any4}, []rcmgr.NetworkPrefixLimit{any6}),
		rcmgr.WithConnRateLimiters(&connrate.Limiter{}))
	if err != nil {
		t.Fatal(err)
	}
	return rm
}

// counted is what a node uses of libp2p's resources.
func counted(rm network.ResourceManager) (stat network.ScopeStat) {
	_ = rm.ViewSystem(func(s network.ResourceScope) error {
		stat = s.Stat()
		return nil
	})
	return stat
}

// descriptors is how many this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// over returns the full address of a node that is not loopback and goes over a transport.
func over(t *testing.T, n *p2p.Node, transport string) string {
	t.Helper()
	for _, a := range n.Addrs() {
		if s := a.String(); strings.HasPrefix(s, "/ip4/10.") && strings.Contains(s, "/"+transport) {
			return s
		}
	}
	t.Fatalf("no address over %s: %v", transport, n.Addrs())
	return ""
}

func TestCycles_NothingIsLeft(t *testing.T) {
	if transport := part(); transport != "" {
		cycles(t, transport, pace.Of(1000, 100))
		return
	}
	t.Parallel()
	bridge := netns.New(t).Bridge()
	players := []*player{play(t, bridge.Host(), "tcp"), play(t, bridge.Host(), "quic-v1")}
	for _, p := range players {
		await(t, p, 5*time.Minute)
	}
}

func cycles(t *testing.T, transport string, times int) {
	var mu sync.Mutex
	used := map[string]int{} // calls by transport
	counter := grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if caller, ok := p2p.Caller(ctx); ok && info.FullMethod == "/bench.Bench/Echo" {
			mu.Lock()
			used[caller.Transport]++
			mu.Unlock()
		}
		return next(ctx, req)
	})
	name := p2ptest.Network()
	listen := map[string]string{"tcp": "/ip4/0.0.0.0/tcp/0", "quic-v1": "/ip4/0.0.0.0/udp/0/quic-v1"}[transport]
	nodeOf := func() (*p2p.Node, network.ResourceManager) {
		rm := unlimited(t)
		n := p2p.NewNode(listen, append(p2ptest.Options(name), p2p.WithLibp2pOptions(libp2p.ResourceManager(rm)), p2p.WithServerOptions(counter))...)
		n.RegisterService(&benchDesc, nil)
		if err := n.StartServer(); err != nil {
			t.Fatal(err)
		}
		return n, rm
	}
	server, serverCounts := nodeOf()
	defer server.Close()
	target := over(t, server, transport)
	call := func(n *p2p.Node) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := n.Peer(target).Invoke(ctx, "/bench.Bench/Echo", wrapperspb.Bytes(make([]byte, 1024)), new(wrapperspb.BytesValue)); err != nil {
			t.Fatal(err)
		}
	}
	run := func(times int) {
		t.Helper()
		client, counts := nodeOf()
		for range times {
			call(client)
			if err := client.Disconnect(server.ID().String()); err != nil {
				t.Fatal(err)
			}
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
		// A connection that was on its way in when the node closed is counted until its handshake has failed.
		poll.Until(t, 10*time.Second, func() string {
			if got := counted(counts); got != (network.ScopeStat{}) {
				return fmt.Sprintf("the client's resource manager counts %+v after its end", got)
			}
			return ""
		})
	}
	fresh := func(times int) {
		t.Helper()
		for range times {
			client, _ := nodeOf()
			call(client)
			if err := client.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	// What is left of the last connections goes away by itself, or not: the least that is seen counts.
	idle := func(enough func(routines, fds, counts int) bool) (routines, fds, counts int) {
		for _, p := range server.Peers() { // else it goes on looking for those that have ended
			_ = server.Forget(p.ID.String()) // some it forgets by itself meanwhile
		}
		routines, fds, counts = math.MaxInt, math.MaxInt, math.MaxInt
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end) && !enough(routines, fds, counts); time.Sleep(50 * time.Millisecond) {
			s := counted(serverCounts)
			routines, fds = min(routines, runtime.NumGoroutine()), min(fds, descriptors(t))
			counts = min(counts, s.NumConnsInbound+s.NumConnsOutbound+s.NumStreamsInbound+s.NumStreamsOutbound+s.NumFD+int(s.Memory))
		}
		return routines, fds, counts
	}
	run(3)
	fresh(3)
	settled := time.Now().Add(2 * time.Second)
	routines, fds, _ := idle(func(_, _, counts int) bool { return counts == 0 && time.Now().After(settled) })
	began := time.Now()
	run(times)
	took := time.Since(began)
	fresh(max(times/10, 10))
	left, fdsLeft, counts := idle(func(n, m, counts int) bool { return n <= routines && m <= fds && counts == 0 })
	say("%s: %d cycles in %v (calls by transport: %v), %d more with new nodes; goroutines %d before, %d after; descriptors %d, %d; connections, streams and bytes counted: %d",
		transport, times, took.Round(time.Millisecond), used, max(times/10, 10), routines, left, fds, fdsLeft, counts)
	if left > routines || fdsLeft > fds || counts > 0 {
		t.Errorf("something is left: goroutines %d, before %d; descriptors %d, before %d; counted %d", left, routines, fdsLeft, fds, counts)
		_ = pprof.Lookup("goroutine").WriteTo(os.Stdout, 1)
	}
	for other, calls := range used {
		if other != transport {
			t.Errorf("%d calls went over %s", calls, other)
		}
	}
}

// T11: one private address opens as many connections as it can, which are let in up to the limit; a peer that was
// connected before does not feel it.
func TestCycles_AFloodFromOneAddressIsBounded(t *testing.T) {
	if part() == "" {
		t.Parallel()
	}
	if !inHost(t, time.Minute) {
		return
	}
	const limit, tries = 256, 300
	name := p2ptest.Network()
	// It would take them all for neighbors, so that nothing but the limit lets go of any.
	server := p2p.NewNode(":0", append(p2ptest.Options(name), p2p.WithNeighbors(15, 2*tries))...)
	pb.RegisterGreeterServiceServer(server, nodetest.Greeter{Who: "x"})
	start(t, server)
	friend := p2p.NewNode("localhost:0", p2ptest.Options(name)...)
	start(t, friend)
	mustGreet(t, friend.Peer(over(t, server, "tcp")))
	stop := callOn(t, friend, server)

	var peak most
	server.Host().Network().Notify(&network.NotifyBundle{ConnectedF: func(n network.Network, _ network.Conn) {
		peak.see(int64(counted(n.ResourceManager()).NumConnsInbound))
	}})
	target, err := peer.AddrInfoFromString(over(t, server, "tcp"))
	if err != nil {
		t.Fatal(err)
	}
	hosts := make([]corehost.Host, tries)
	for i := range hosts {
		h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.DisableRelay(), libp2p.NoTransports, libp2p.Transport(tcp.NewTCPTransport))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.Close() })
		h.SetStreamHandler(grpcstream.TunnelProtocol(name), func(s network.Stream) { _ = s.Reset() })
		hosts[i] = h
	}
	var wg sync.WaitGroup
	var refused most
	limiter := make(chan struct{}, 32)
	var mu sync.Mutex
	began := time.Now()
	for _, h := range hosts {
		limiter <- struct{}{}
		wg.Go(func() {
			defer func() { <-limiter }()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := h.Connect(ctx, *target); err != nil {
				mu.Lock()
				refused.see(refused.Load() + 1)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	open := counted(server.Host().Network().ResourceManager()).NumConnsInbound
	calls, longest := stop()
	say("%d connections tried in %v: %d refused at once, at most %d open at once, %d at the end; a friend's %d calls went on, the longest took %v",
		tries, took.Round(time.Millisecond), refused.Load(), peak.Load(), open, calls, longest.Round(time.Millisecond))
	if peak.Load() > limit || open < limit/2 {
		t.Errorf("%d connections of one address were open at once, %d at the end, want at most %d and no less than half of it", peak.Load(), open, limit)
	}
	if calls < 20 || longest > slowestHonest() {
		t.Errorf("the friend got %d answers, the slowest after %v", calls, longest)
	}
}
