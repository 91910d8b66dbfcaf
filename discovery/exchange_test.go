package discovery

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
	"github.com/lynn9388/p2p/internal/virtual"
)

// asker asks keepers of a bubble without gRPC.
type asker struct {
	mu      sync.Mutex
	keepers map[peer.ID]*Keeper
	asked   map[peer.ID]int
	fail    bool
}

func (a *asker) ask(from corehost.Host) Ask {
	return func(_ context.Context, p peer.ID) ([][]byte, error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.asked == nil {
			a.asked = make(map[peer.ID]int)
		}
		a.asked[p]++
		if a.fail || a.keepers[p] == nil {
			return nil, errors.New("not now")
		}
		return a.keepers[p].Records(MaxRecords, from.ID(), ScopeTo(a.keepers[p].h.Network(), from.ID())), nil
	}
}

func TestExchange_NeighborsOfNeighborsBecomeNeighbors(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		var as asker
		as.keepers = make(map[peer.ID]*Keeper)
		var all []*Keeper
		var hosts []corehost.Host
		for range 6 {
			h, k := b.keeper(KeeperConfig{})
			as.keepers[h.ID()] = k
			all, hosts = append(all, k), append(hosts, h)
			b.wg.Go(func() { _ = k.Follow(b.ctx, NewExchange(k, as.ask(h))) })
		}
		for i, k := range all[1:] {
			k.Found(peer.AddrInfo{ID: hosts[i].ID(), Addrs: simAddrs(hosts[i])}, lanOrigin) // a chain
		}
		t.Logf("all know all after %v", b.within(10*time.Minute, func() string { // whom it asks is chance, and the questions become rare
			for _, k := range all {
				if got := len(k.Neighbors()); got != len(all)-1 {
					return fmt.Sprintf("a node has %d neighbors, want %d; it knows %+v", got, len(all)-1, k.Peers())
				}
			}
			return ""
		}))
	})
}

func TestExchange_AsksWithinBounds(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		var as asker
		as.fail = true
		ah, a := b.keeper(KeeperConfig{})
		bh, _ := b.keeper(KeeperConfig{})
		b.wg.Go(func() { _ = a.Follow(b.ctx, NewExchange(a, as.ask(ah))) })
		a.Found(peer.AddrInfo{ID: bh.ID(), Addrs: simAddrs(bh)}, lanOrigin)
		time.Sleep(time.Minute)
		as.mu.Lock()
		defer as.mu.Unlock()
		if n := as.asked[bh.ID()]; n < 2 || n > 21 {
			t.Errorf("asked %d times in a minute, want at most each %v", n, askAgain)
		}
	})
}

func TestKeeper_AddressChangeClosesAndRedials(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		ah, a := b.keeper(KeeperConfig{})
		bh, bk := b.keeper(KeeperConfig{})
		a.Found(peer.AddrInfo{ID: bh.ID(), Addrs: simAddrs(bh)}, lanOrigin)
		b.within(time.Second, has1(a))
		time.Sleep(time.Minute)
		old := ah.Network().ConnsToPeer(bh.ID())
		var moved int
		a.onMove(func() { moved++ })
		gone := netip.MustParseAddr("10.0.0.1")
		ip, _ := addr.IP(old[0].LocalMultiaddr())
		a.networkChanged(map[netip.Addr]bool{ip.Unmap(): true, gone: true}, map[netip.Addr]bool{})
		synctest.Wait()
		if moved != 1 {
			t.Errorf("others were told %d times", moved)
		}
		if ip.Unmap() == gone && !old[0].IsClosed() {
			t.Error("a connection from an address that is gone is open")
		}
		b.within(3*time.Second, func() string { return has1(a)() + has1(bk)() })
	})
}

func TestKeeper_PingFindsTheDeadAndSparesTheSlow(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		ah, a := b.keeper(KeeperConfig{})
		bh, _ := b.keeper(KeeperConfig{})
		b.net.SetLatency(ah, bh, 100*time.Millisecond)
		a.Found(peer.AddrInfo{ID: bh.ID(), Addrs: simAddrs(bh)}, lanOrigin)
		b.within(3*time.Second, has1(a))
		time.Sleep(30 * time.Second)
		p, ok := a.Peer(bh.ID())
		if !ok || p.State != Neighbor || p.RTT < 200*time.Millisecond || p.RTT > time.Second {
			t.Errorf("the slow peer is %+v", p)
		}
		conn := ah.Network().ConnsToPeer(bh.ID())[0]
		b.net.Cut(ah, bh)
		start := time.Now()
		a.pingConn(t.Context(), look{conn, lookDoubt}, checkTimeout)
		if d := time.Since(start); !conn.IsClosed() || d > 2*time.Second {
			t.Errorf("closed %v after %v", conn.IsClosed(), d)
		}
	})
}

func TestKeeper_NothingOfRunIsLeft(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		h := quietHost(t)
		k := NewKeeper(h, KeeperConfig{Logger: quiet()})
		events := k.Events(t.Context())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- k.Run(ctx) }()
		synctest.Wait()
		if err := k.Run(ctx); err == nil {
			t.Error("it ran twice")
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("error %v", err)
		}
		for range events {
			t.Error("an event of nothing")
		}
		_ = h.Close()
	})
}

func TestPlain_OneLineAndKinds(t *testing.T) {
	want, got := testID(t), testID(t)
	at, other := addrOf("/ip4/10.0.0.1/tcp/9388"), addrOf("/ip4/10.0.0.1/udp/9388/quic-v1")
	wrong := plain(want, &swarm.DialError{Peer: want, DialErrors: []swarm.TransportError{
		{Address: other, Cause: errors.New("timeout")},
		{Address: at, Cause: sec.ErrPeerIDMismatch{Expected: want, Actual: got}},
	}})
	var w *wrongPeerError
	if !errors.As(wrong, &w) || w.got != got || len(w.addrs) != 1 || !w.addrs[0].Equal(at) {
		t.Errorf("a wrong peer is %v", wrong)
	}
	mixed := plain(want, &swarm.DialError{Peer: want, DialErrors: []swarm.TransportError{
		{Address: at, Cause: errors.New("dial tcp: connect: connection refused\x1b[0m\nmore")},
	}})
	if s := mixed.Error(); s != at.String()+`: connection refused\x1b[0m more` {
		t.Errorf("got %q", s)
	}
	if s := plain(want, errors.New("no\naddresses")).Error(); s != "no addresses" {
		t.Errorf("got %q", s)
	}
}

func TestBeforeQUIC(t *testing.T) {
	tcp, quic := addrOf("/ip4/10.0.0.1/tcp/1"), addrOf("/ip4/10.0.0.1/udp/1/quic-v1")
	only, pubT, pubQ := addrOf("/ip4/10.0.0.2/udp/1/quic-v1"), addrOf("/ip4/9.9.9.9/tcp/1"), addrOf("/ip4/9.9.9.9/udp/1/quic-v1")
	got := beforeQUIC([]ma.Multiaddr{quic, tcp, only, pubQ, pubT})
	if len(got) != 4 || !got[0].Equal(tcp) || !got[1].Equal(only) || !got[2].Equal(pubQ) {
		t.Errorf("got %v", got)
	}
}

func TestReasons(t *testing.T) {
	for _, r := range []closeReason{closedFull, closedNotMember, closedNotAllow, closedUnknown} {
		if got := reasonOf(r.code()); got != r {
			t.Errorf("reason %v is understood as %v", r, got)
		}
	}
	if got := reasonOf(network.ConnShutdown); got != closedUnknown {
		t.Errorf("a shutdown is understood as %v", got)
	}
}
