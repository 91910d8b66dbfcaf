package p2p_test

import (
	"runtime"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/p2ptest"
)

// BenchmarkIdleNeighbor measures what a neighbor with an open, idle channel costs a node: bytes of memory in use and
// goroutines, at both ends together, since they share this process. The baseline is a neighbor without a channel.
func BenchmarkIdleNeighbor(b *testing.B) {
	const count = 20
	for b.Loop() {
		nodes := p2ptest.Start(b, count+1, func(_ int, n *p2p.Node) { n.RegisterService(&benchDesc, nil) })
		bare, bareRoutines := inUse()
		for _, n := range nodes[1:] {
			in := wrapperspb.Bytes([]byte("x"))
			if err := nodes[0].Peer(n.ID().String()).Invoke(b.Context(), "/bench.Bench/Echo", in, new(wrapperspb.BytesValue)); err != nil {
				b.Fatal(err)
			}
		}
		full, fullRoutines := inUse()
		b.ReportMetric(float64(full-bare)/count, "B/channel")
		b.ReportMetric(float64(fullRoutines-bareRoutines)/count, "goroutines/channel")
	}
}

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
	found := slices.Concat(opts, []p2p.Option{p2p.LAN()})
	server := p2p.NewNode("127.0.0.1:0", found...)
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
		mdns = append(mdns, first(found).Seconds()*1000)
		joined = append(joined, first(opts, server.Addrs()[0].String()).Seconds()*1000)
	}
	report(b, "ms-mdns", mdns)
	report(b, "ms-joined", joined)
}
