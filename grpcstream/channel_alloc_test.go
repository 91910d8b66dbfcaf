package grpcstream

import (
	"context"
	"math"
	"net"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	mocknet "github.com/libp2p/go-libp2p/p2p/net/mock"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

// allocAtMost is how many more objects a call may take than one over plain gRPC with the same server.
const allocAtMost = 10

// overBufconn is the baseline: plain gRPC in memory, with the windows, buffers and workers of this package.
func overBufconn(tb testing.TB) grpc.ClientConnInterface {
	tb.Helper()
	s := grpc.NewServer(grpc.StaticStreamWindowSize(streamWindow), grpc.StaticConnWindowSize(tunnelWindow))
	s.RegisterService(whoDesc("x.A"), &who{id: "me"})
	l := bufconn.Listen(memoryBuffer)
	go func() { _ = s.Serve(l) }()
	tb.Cleanup(s.Stop)
	cc, err := grpc.NewClient("passthrough:///bufconn", append(defaultOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
	)...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = cc.Close() })
	return cc
}

// overChannel is a channel with a node's own server, in memory.
func overChannel(tb testing.TB) (*Channel, peer.ID) {
	tb.Helper()
	net := mocknet.New()
	tb.Cleanup(func() { _ = net.Close() })
	h, err := net.GenPeer()
	if err != nil {
		tb.Fatal(err)
	}
	s := NewServer(ServerConfig{Logger: muted()})
	s.RegisterService(whoDesc("x.A"), &who{id: h.ID()})
	if err := s.Start(h); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Shutdown(context.Background()) }) //nolint:usetesting // the test's context has ended
	ch, err := NewChannel(h, ChannelConfig{Self: s, Logger: muted()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = ch.Close() })
	return ch, h.ID()
}

// whoOnce calls Who and wants no error.
func whoOnce(tb testing.TB, cc grpc.ClientConnInterface) {
	tb.Helper()
	in, out := nothing(), nothing()
	if err := cc.Invoke(tb.Context(), "/x.A/Who", in, out); err != nil {
		tb.Fatal(err)
	}
}

func TestChannel_Allocations(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	count := func(cc grpc.ClientConnInterface) float64 {
		for range 100 {
			whoOnce(t, cc)
		}
		least := math.Inf(1)
		for range 3 { // what else the process makes counts, too
			least = min(least, testing.AllocsPerRun(500, func() { whoOnce(t, cc) }))
		}
		return least
	}
	base := count(overBufconn(t))
	ch, id := overChannel(t)
	for name, cc := range map[string]grpc.ClientConnInterface{
		"any instance": ch,
		"a service":    ch.Service("x.A"),
		"a peer":       ch.Peer(id.String()),
	} {
		got := count(cc)
		t.Logf("%s: %.1f objects a call, plain gRPC %.1f", name, got, base)
		if got > base+allocAtMost {
			t.Errorf("%s: %.1f objects a call over plain gRPC, want at most %d", name, got-base, allocAtMost)
		}
	}
}

func BenchmarkUnaryInMemory(b *testing.B) {
	ch, id := overChannel(b)
	for _, arm := range []struct {
		name string
		cc   grpc.ClientConnInterface
	}{
		{"bufconn", overBufconn(b)},
		{"channel", ch},
		{"peer", ch.Peer(id.String())},
	} {
		b.Run(arm.name, func(b *testing.B) {
			b.ReportAllocs()
			whoOnce(b, arm.cc)
			for b.Loop() {
				whoOnce(b, arm.cc)
			}
		})
	}
}

func BenchmarkPick(b *testing.B) {
	for _, n := range []int{1, 20, 200} {
		h, w := newFakeHub()
		for i := range n {
			h.offers(peer.ID(rune(i)), offer{node: true, services: []string{"x.A"}})
		}
		for range n + 1 {
			h.pick(newCall(selector{}), who1)
			w.upAll()
		}
		sel := &selector{}
		b.Run(map[int]string{1: "1", 20: "20", 200: "200"}[n], func(b *testing.B) {
			b.ReportAllocs()
			c := &call{Context: b.Context()}
			for b.Loop() {
				*c = call{Context: c.Context, sel: sel}
				l, v := h.pick(c, who1)
				if v != picked {
					b.Fatal(v)
				}
				l.done(false)
			}
		})
	}
}
