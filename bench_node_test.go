package p2p_test

import (
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/p2ptest"
)

// BenchmarkIdleNeighbor measures what a neighbor with an open, idle channel costs a node at its own end; the baseline is
// an idle connection of plain gRPC over TLS.
func BenchmarkIdleNeighbor(b *testing.B) {
	srv := startBenchServer(b)
	n := p2p.NewNode("127.0.0.1:0", p2ptest.Options(srv.Network)...)
	if err := n.StartServer(); err != nil {
		b.Fatal(err)
	}
	defer n.Close()
	b.Run("grpc-tls", func(b *testing.B) {
		measureIdle(b, func(int) grpc.ClientConnInterface { return srv.dialPlain(b, srv.Same, benchDialOptions()...) })
	})
	b.Run("node", func(b *testing.B) {
		measureIdle(b, func(i int) grpc.ClientConnInterface { return n.Peer(srv.Idle[i]) })
	})
}

// measureIdle opens idleNeighbors connections with a call on each, and reports what one of them holds afterwards. What
// is open already measures nothing, so the first run counts, however many are asked for.
func measureIdle(b *testing.B, dial func(i int) grpc.ClientConnInterface) {
	b.Helper()
	if b.N == 1 {
		before, routines := inUse()
		for i := range idleNeighbors {
			if err := dial(i).Invoke(b.Context(), "/bench.Bench/Echo", wrapperspb.Bytes(nil), new(wrapperspb.BytesValue)); err != nil {
				b.Fatal(err)
			}
		}
		after, routinesAfter := inUse()
		idleCost[b.Name()] = [2]float64{float64(after-before) / idleNeighbors, float64(routinesAfter-routines) / idleNeighbors}
	}
	b.ReportMetric(idleCost[b.Name()][0], "B")
	b.ReportMetric(idleCost[b.Name()][1], "goroutines")
	b.ReportMetric(0, "ns/op")
}

// idleCost is what measureIdle measured, by the benchmark's name.
var idleCost = map[string][2]float64{}

// inUse is the memory and the number of goroutines in use after a collection.
func inUse() (int64, int) {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse), runtime.NumGoroutine()
}

// BenchmarkFirstCall measures the time from StartServer of a client to the answer to its first call, of a server that
// mDNS finds on the loopback interface; the baseline is the same with the server's address given.
func BenchmarkFirstCall(b *testing.B) {
	network := p2ptest.Network()
	opts := p2ptest.Options(network)
	server := p2p.NewNode("127.0.0.1:0", foundByMDNS(network)...)
	server.RegisterService(&benchDesc, nil)
	if err := server.StartServer(); err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	first := func(opts []p2p.Option, places ...string) time.Duration {
		n := p2p.NewNode("127.0.0.1:0", opts...)
		defer n.Close()
		if err := n.JoinNetwork(places...); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		if err := n.StartServer(); err != nil {
			b.Fatal(err)
		}
		if err := n.Invoke(b.Context(), "/bench.Bench/Echo", wrapperspb.Bytes(nil), new(wrapperspb.BytesValue)); err != nil {
			b.Fatal(err)
		}
		return time.Since(began)
	}
	var mdns, joined []float64
	for b.Loop() {
		mdns = append(mdns, first(foundByMDNS(network)).Seconds()*1000)
		joined = append(joined, first(opts, server.Addrs()[0].String()).Seconds()*1000)
	}
	report(b, "ms-mdns", mdns)
	report(b, "ms-joined", joined)
}
