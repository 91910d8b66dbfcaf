//go:build unix

package grpcstream

import (
	"context"
	"runtime"
	"syscall"
	"testing"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	mocknet "github.com/libp2p/go-libp2p/p2p/net/mock"
)

// BenchmarkInstanceSet measures what each instance of a set of 200 costs, both ends together since they share the
// process: first the tunnel, by a call to each peer, then what calls by the service's name add, which is the watch of its
// health. cpu is the time that the process takes at rest afterwards, in thousandths of one CPU.
func BenchmarkInstanceSet(b *testing.B) {
	const n = 200
	net := mocknet.New()
	defer net.Close()
	gen := func() corehost.Host {
		h, err := net.GenPeer()
		if err != nil {
			b.Fatal(err)
		}
		return h
	}
	me := gen()
	ch, err := NewChannel(me, ChannelConfig{Logger: muted()})
	if err != nil {
		b.Fatal(err)
	}
	defer ch.Close()
	var hosts []corehost.Host
	for range n {
		h := gen()
		s := NewServer(ServerConfig{Logger: muted()})
		s.RegisterService(whoDesc("x.A"), &who{id: h.ID()})
		if err := s.Start(h); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = s.Shutdown(context.Background()) }) //nolint:usetesting // the benchmark's context has ended then
		if _, err := net.LinkPeers(me.ID(), h.ID()); err != nil {
			b.Fatal(err)
		}
		hosts = append(hosts, h)
	}
	time.Sleep(time.Second) // until identify tells of the services
	for _, h := range hosts {
		if _, err := net.ConnectPeers(me.ID(), h.ID()); err != nil {
			b.Fatal(err)
		}
	}
	for len(ch.Instances("x.A")) < n {
		time.Sleep(10 * time.Millisecond)
	}
	bare, bareRoutines := atRest()
	for _, h := range hosts {
		whoOnce(b, ch.Peer(h.ID().String()))
	}
	tunnels, tunnelRoutines := atRest()
	for healthy := 0; healthy < n; {
		whoOnce(b, ch)
		healthy = 0
		for _, i := range ch.Instances("x.A") {
			if i.Health == HealthServing {
				healthy++
			}
		}
	}
	watched, watchedRoutines := atRest()
	cpu, begun := cpuTime(b), time.Now()
	time.Sleep(5 * time.Second)
	rest := float64(cpuTime(b)-cpu) / float64(time.Since(begun)) * 1000
	for b.Loop() {
		whoOnce(b, ch)
	}
	b.ReportMetric(rest, "cpu")
	b.ReportMetric(float64(tunnels-bare)/n, "B/tunnel")
	b.ReportMetric(float64(tunnelRoutines-bareRoutines)/n, "goroutines/tunnel")
	b.ReportMetric(float64(watched-tunnels)/n, "B/watch")
	b.ReportMetric(float64(watchedRoutines-tunnelRoutines)/n, "goroutines/watch")
}

// atRest returns the memory and the goroutines in use when nothing is under way.
func atRest() (int64, int) {
	time.Sleep(time.Second)
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse), runtime.NumGoroutine()
}

// cpuTime is the time that the process has taken of all CPUs.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
