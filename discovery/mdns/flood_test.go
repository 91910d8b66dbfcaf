package mdns

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/virtual"
)

// TestRun_SpoofedFlood is T17: the work stays bounded, and honest nodes are still found.
func TestRun_SpoofedFlood(t *testing.T) {
	id := newID(t)
	var ids []peer.ID
	for range 100 {
		ids = append(ids, newID(t))
	}
	virtual.Test(t, func(t *testing.T) {
		lan := &segment{}
		a, b := newSim(t, lan, 1), newSim(t, lan, 2)
		a.start(t, "")
		pass(time.Minute)
		idle := runtime.NumGoroutine()
		most := 0
		sentBefore, _ := a.sent()
		begin := time.Now()
		for i := range 10_000 {
			ip := fmt.Sprintf("/ip4/10.%d.%d.%d/tcp/1", rand.N(250), rand.N(250), rand.N(250))
			p, _, err := a.source.names.packAnswer(fmt.Sprintf("spoof%d", i), ids[i%len(ids)], []ma.Multiaddr{ma.StringCast(ip)}, false)
			if err != nil {
				t.Fatal(err)
			}
			lan.send(p)
			q, err := a.source.names.packQuery(nil)
			if err != nil {
				t.Fatal(err)
			}
			lan.send(q)
			if i%10 == 0 {
				pass(10 * time.Millisecond) // when it is over, the simulated link has no goroutines on the way
				most = max(most, runtime.NumGoroutine())
			}
			if i == 5000 {
				b.host.id = id
				b.start(t, "")
				pass(0)
				idle += most - idle // b has its own goroutines
				most = 0
			}
		}
		pass(5 * time.Second)
		took := time.Since(begin)
		if n, limit := a.total(), passBurst+passRate*int(took.Seconds()+1); n > limit {
			t.Errorf("%d findings passed on in %v; want at most %d", n, took, limit)
		}
		if most > idle+10 {
			t.Errorf("%d goroutines in the flood, %d before", most, idle)
		}
		sentAfter, _ := a.sent()
		if n, limit := sentAfter-sentBefore, int(took/answerGap)+20; n > limit {
			t.Errorf("%d packets sent in the flood of queries; want at most %d", n, limit)
		}
		if len(a.finds(id, begin)) == 0 || len(b.finds(a.host.id, begin)) == 0 {
			t.Error("the honest node was not found")
		}
	})
}

// TestRun_FoundThatBlocks holds that packets that nobody takes are dropped, and wait in no goroutine.
func TestRun_FoundThatBlocks(t *testing.T) {
	id := newID(t)
	virtual.Test(t, func(t *testing.T) {
		lan := &segment{}
		n := newSim(t, lan, 1)
		n.source = New(Config{})
		n.source.net = n.fakeMachine
		ctx, cancel := context.WithCancel(t.Context())
		release, done := make(chan struct{}), make(chan error, 1)
		go func() { done <- n.source.Run(ctx, n.host, func(peer.AddrInfo) { <-release }) }()
		defer func() {
			close(release)
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		pass(time.Minute)
		before := runtime.NumGoroutine()
		for i := range 2000 {
			p, _, err := n.source.names.packAnswer(fmt.Sprintf("spoof%d", i), id, addrs("/ip4/10.0.0.1/tcp/1"), false)
			if err != nil {
				t.Fatal(err)
			}
			lan.send(p)
			pass(2 * time.Millisecond)
		}
		if after := runtime.NumGoroutine(); after > before {
			t.Errorf("%d goroutines while found blocks, %d before", after, before)
		}
	})
}

// TestRun_AddressesOfTheWrongInterface is T14: nobody on the link makes a node dial its own machine.
func TestRun_AddressesOfTheWrongInterface(t *testing.T) {
	id := newID(t)
	virtual.Test(t, func(t *testing.T) {
		lan := &segment{}
		n := newSim(t, lan, 1)
		n.start(t, "")
		pass(time.Minute)
		send := func(s *segment, instance string, at ...string) {
			p, _, err := n.source.names.packAnswer(instance, id, addrs(at...), false)
			if err != nil {
				t.Fatal(err)
			}
			s.send(p)
			pass(time.Second)
		}
		send(lan, "a", "/ip4/127.0.0.1/tcp/22", "/ip6/::1/tcp/22")
		send(n.segments["lo"], "b", "/ip4/192.168.7.9/tcp/22")
		if n.total() != 0 {
			t.Errorf("%d findings passed on; want none", n.total())
		}
		send(lan, "c", "/ip4/127.0.0.1/tcp/22", "/ip4/192.168.7.9/tcp/1")
		if n.total() != 1 || len(n.found[0].info.Addrs) != 1 {
			t.Errorf("%d findings passed on; want one with one address", n.total())
		}
	})
}
