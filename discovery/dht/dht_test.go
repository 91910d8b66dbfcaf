package dht

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

const service = "a.Service"

func TestDHT_FindsAcrossALine(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		nodes := b.line(8)
		first, last := nodes[0], nodes[len(nodes)-1]
		last.dht.Announce([]string{service})
		took := b.within(5*time.Second, func() string {
			if info, ok := b.find(first, service)[last.host.ID()]; !ok || len(info.Addrs) == 0 {
				return "the first does not find the last"
			}
			return ""
		})
		t.Logf("found after %v", took)
		if got := b.find(first, "another.Service"); len(got) != 0 {
			t.Errorf("found %v for a service that nobody offers", got)
		}
		if got := b.find(last, service); len(got) != 0 {
			t.Errorf("a node found itself: %v", got)
		}
		if info, err := first.dht.FindPeer(t.Context(), last.host.ID()); err != nil || len(info.Addrs) == 0 {
			t.Errorf("by its ID: %v, %v", info, err)
		}
		// The connections that were made for it are let go.
		b.within(time.Minute, func() string {
			if got := len(first.host.Network().Peers()); got != 1 {
				return fmt.Sprintf("the first is connected to %d peers, want the one that it joined", got)
			}
			return ""
		})
	})
}

func TestDHT_AClientAsksAndAnnounces(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		a, c := b.node(), b.node(func(c *settings) { c.Client = true })
		d := b.node()
		b.connect(c, a)
		b.connect(d, a)
		c.dht.Announce([]string{service})
		b.within(5*time.Second, func() string {
			if _, ok := b.find(d, service)[c.host.ID()]; !ok {
				return "the client is not found"
			}
			return ""
		})
		for _, p := range append(a.dht.Peers(), d.dht.Peers()...) {
			if p == c.host.ID() {
				t.Error("the client is in a table")
			}
		}
	})
}

func TestDHT_RecordsLastWhileTheirNodeDoes(t *testing.T) {
	const lifetime = time.Minute
	inBubble(t, func(t *testing.T, b *bubble) {
		nodes := b.line(4, func(c *settings) { c.Lifetime = lifetime })
		first, last := nodes[0], nodes[3]
		last.dht.Announce([]string{service})
		for i := range 10 {
			time.Sleep(lifetime / 2)
			if _, ok := b.find(first, service)[last.host.ID()]; !ok {
				t.Errorf("not found after %v", time.Duration(i+1)*lifetime/2)
			}
		}
		if err := last.dht.Close(); err != nil {
			t.Error(err)
		}
		if err := last.host.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(lifetime + time.Second)
		if got := b.find(first, service); len(got) != 0 {
			t.Errorf("a lifetime after its end %v is found", got)
		}
	})
}

func TestDHT_AWithdrawnServiceIsForgotten(t *testing.T) {
	const lifetime = 30 * time.Second
	inBubble(t, func(t *testing.T, b *bubble) {
		nodes := b.line(3, func(c *settings) { c.Lifetime = lifetime })
		nodes[2].dht.Announce([]string{service, "b.Service"})
		time.Sleep(2 * time.Second)
		nodes[2].dht.Announce([]string{"b.Service"})
		time.Sleep(lifetime + 2*time.Second)
		if got := b.find(nodes[0], service); len(got) != 0 {
			t.Errorf("found %v", got)
		}
		if got := b.find(nodes[0], "b.Service"); len(got) != 1 {
			t.Errorf("the service that is left is offered by %v", got)
		}
	})
}

func TestDHT_AnnouncesInBounds(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		nodes := b.line(2)
		time.Sleep(time.Minute)
		asked := func() int {
			nodes[0].dht.door.mu.Lock()
			defer nodes[0].dht.door.mu.Unlock()
			return nodes[0].dht.door.total
		}
		before := asked()
		for i := range 600 { // services that come and go for a minute
			nodes[1].dht.Announce([]string{service}[:i%2])
			time.Sleep(100 * time.Millisecond)
		}
		// At most roundBurst and then one each roundEvery, of a handful of requests each.
		if got, most := asked()-before, 5*(roundBurst+int(time.Minute/roundEvery)+1); got > most {
			t.Errorf("%d requests in a minute, want at most %d", got, most)
		}
	})
}

func TestDHT_OthersThanMembersTakeNoPart(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		nodes := b.line(3)
		stranger := b.nodeOn(b.net.Host()) // it does not speak the network's protocol
		b.connect(stranger, nodes[1])
		stranger.dht.Announce([]string{service})
		time.Sleep(30 * time.Second)
		for i, n := range nodes {
			for _, p := range n.dht.Peers() {
				if p == stranger.host.ID() {
					t.Errorf("the stranger is in the table of node %d", i)
				}
			}
			if got := b.find(n, service); len(got) != 0 {
				t.Errorf("node %d found %v", i, got)
			}
		}
		if n := nodes[1].dht.store.len(); n != 0 {
			t.Errorf("%d records of the stranger are kept", n)
		}
	})
}

func TestDHT_TheAllowListHolds(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		stranger := b.node()
		careful := func(c *settings) { c.Allow = func(p peer.ID) bool { return p != stranger.host.ID() } }
		a, open := b.node(careful), b.node()
		for _, n := range []*node{a, open} {
			b.connect(stranger, n)
		}
		b.connect(a, open)
		stranger.dht.Announce([]string{service})
		time.Sleep(10 * time.Second)
		if len(b.find(open, service)) != 1 {
			t.Fatal("the stranger is not found by who lets it in")
		}
		if got := b.find(a, service); len(got) != 0 {
			t.Errorf("who does not let it in found %v", got)
		}
		for _, p := range a.dht.Peers() {
			if p == stranger.host.ID() {
				t.Error("it is in the table of who does not let it in")
			}
		}
		if _, err := a.dht.FindPeer(t.Context(), stranger.host.ID()); err == nil {
			t.Error("it was looked up by who does not let it in")
		}
	})
}

func TestDHT_NetworksDoNotMix(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		a := b.node()
		other := b.node(func(c *settings) { c.Network = "other" })
		b.connect(other, a)
		other.dht.Announce([]string{service})
		time.Sleep(30 * time.Second)
		if len(a.dht.Peers())+len(other.dht.Peers()) > 0 {
			t.Error("nodes of two networks are in one table")
		}
	})
}

func TestDHT_FindEndsWithItsContextWhileNobodyIsThere(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		n := b.node()
		start := time.Now()
		if got := b.findErr(n, service); got == nil {
			t.Error("no error")
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// Who takes long with what was found, as one does who connects and asks, holds nobody else up.
func TestDHT_SlowReadersTakeNoPlaceAmongTheLookups(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		nodes := b.line(4)
		first, last := nodes[0], nodes[3]
		last.dht.Announce([]string{service})
		b.within(5*time.Second, func() string {
			if len(b.find(first, service)) == 0 {
				return "nobody is found"
			}
			return ""
		})
		ctx, cancel := context.WithCancel(b.ctx)
		var readers sync.WaitGroup
		for range 2 * lookupsAtOnce {
			readers.Go(func() {
				for range first.dht.Find(ctx, service) { //nolint:errcheck // it is cut off
					<-ctx.Done()
				}
			})
		}
		time.Sleep(time.Second)
		soon, end := context.WithTimeout(ctx, time.Second)
		defer end()
		if _, err := first.dht.FindPeer(soon, last.host.ID()); err != nil {
			t.Error(err)
		}
		cancel()
		readers.Wait()
	})
}

// On a busy machine a peer that has answered comes into the table seconds later, and nothing tells of that.
func TestDHT_NoticesWhoComesIntoTheTableLate(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		n, late := b.node(), &node{host: b.net.Host()}
		b.connect(late, n)
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		ready := make(chan error, 1)
		go func() { ready <- n.dht.awaitReady(ctx) }()
		n.dht.answered(late.host.ID())
		time.Sleep(10 * time.Second)
		if _, err := n.dht.kad.RoutingTable().TryAddPeer(late.host.ID(), true, false); err != nil {
			t.Fatal(err)
		}
		if err := <-ready; err != nil {
			t.Error(err)
		}
	})
}

func TestDHT_CloseLeavesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		nodes := b.line(4)
		nodes[3].dht.Announce([]string{service})
		n := nodes[0].dht
		go func() {
			for range n.Find(b.ctx, service) { //nolint:errcheck // it is cut off
				continue
			}
		}()
		time.Sleep(time.Millisecond)
		for range 2 {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		}
		for _, pid := range nodes[0].host.Mux().Protocols() {
			if pid == n.proto {
				t.Error("it is still offered")
			}
		}
		if _, err := n.FindPeer(t.Context(), nodes[3].host.ID()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a closed one looked for a peer: %v", err)
		}
		synctest.Wait()
	})
}

func TestNew_NeedsANetwork(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		h := b.net.Host()
		for _, cfg := range []Config{{}, {Network: "test"}, {Member: testMember}} {
			if _, err := New(h, cfg); err == nil {
				t.Errorf("no error for %+v", cfg)
			}
		}
		if got := h.Network().Connectedness(h.ID()); got != network.NotConnected {
			t.Errorf("connected: %v", got)
		}
	})
}
