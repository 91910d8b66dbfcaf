package host

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/virtual"
)

func newLimiter(t *testing.T) *limiter {
	t.Helper()
	return newLimiterFor(t, nil)
}

func newLimiterFor(t *testing.T, carries *RelayConfig) *limiter {
	t.Helper()
	rm, err := newResourceManager(false, carries)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rm.Close() })
	l, ok := rm.(*limiter)
	if !ok {
		t.Fatalf("%T", rm)
	}
	return l
}

// open opens n connections from an address and returns those that were let in.
func open(t *testing.T, l *limiter, at string, n int) []network.ConnManagementScope {
	t.Helper()
	var out []network.ConnManagementScope
	for range n {
		c, err := l.OpenConnection(network.DirInbound, false, ma.StringCast(at))
		if err == nil {
			out = append(out, c)
		} else if !errors.Is(err, network.ErrResourceLimitExceeded) && len(out) == 0 {
			t.Errorf("%s: %v", at, err)
		}
	}
	return out
}

func TestLimiter_PrivateAddress(t *testing.T) {
	l := newLimiter(t)
	const busy, other = "/ip4/192.168.1.2/udp/1/quic-v1", "/ip4/192.168.1.3/udp/1/quic-v1"
	var got []network.ConnManagementScope
	for range privateConns + 10 { // a handshake at a time: the transient scope has a limit of its own
		c, err := l.OpenConnection(network.DirInbound, false, ma.StringCast(busy))
		if err != nil {
			if !errors.Is(err, network.ErrResourceLimitExceeded) {
				t.Fatalf("connection %d: %v", len(got), err)
			}
			continue
		}
		if err := c.SetPeer(nobody(t)); err != nil {
			c.Done()
			t.Fatalf("connection %d: %v", len(got), err)
		}
		got = append(got, c)
		if l.Stat().System.NumConnsInbound >= privateConns {
			break
		}
	}
	if len(got) != privateConns {
		t.Errorf("%d connections from one private address, want %d", len(got), privateConns)
	}
	if _, err := l.OpenConnection(network.DirInbound, false, ma.StringCast(busy)); err == nil {
		t.Error("one more than allowed")
	}
	for _, c := range got {
		c.Done()
		c.Done() // once is enough
	}
	if got := open(t, l, other, 1); len(got) != 1 {
		t.Error("another address has no place")
	} else {
		got[0].Done()
	}
	if got := l.Stat().System; got != (network.ScopeStat{}) {
		t.Errorf("left over: %+v", got)
	}
}

func TestLimiter_PublicAddressKeepsLibp2psLimit(t *testing.T) {
	l := newLimiter(t)
	for _, c := range open(t, l, "/ip4/192.0.2.1/udp/1/quic-v1", 20) {
		defer c.Done()
	}
	if got := l.Stat().System.NumConnsInbound; got != 8 {
		t.Errorf("%d connections from one public address, want 8", got)
	}
}

func TestLimiter_LoopbackIsBoundByTheSystemOnly(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		rm, err := newResourceManager(false, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer rm.Close()
		for i := range 5000 {
			c, err := rm.OpenConnection(network.DirInbound, false, ma.StringCast("/ip4/127.0.0.1/udp/1/quic-v1"))
			if err != nil {
				t.Fatalf("connection %d: %v", i, err)
			}
			c.Done()
		}
	})
}

func TestLimiter_Rate(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		rm, err := newResourceManager(false, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer rm.Close()
		l, _ := rm.(*limiter)
		for range 2 {
			opened := 0
			for range privateBurst + 100 {
				c, err := rm.OpenConnection(network.DirInbound, false, ma.StringCast("/ip4/10.0.0.1/udp/1/quic-v1"))
				if err == nil {
					c.Done()
					opened++
				}
			}
			if opened != privateBurst {
				t.Errorf("%d at once, want %d", opened, privateBurst)
			}
			time.Sleep(time.Second)
			opened = 0
			for range 100 {
				if c, err := rm.OpenConnection(network.DirInbound, false, ma.StringCast("/ip4/10.0.0.1/udp/1/quic-v1")); err == nil {
					c.Done()
					opened++
				}
			}
			if opened != privateRate {
				t.Errorf("%d after a second, want %d", opened, privateRate)
			}
			time.Sleep(time.Minute)
		}
		if c, err := rm.OpenConnection(network.DirInbound, false, ma.StringCast("/ip4/10.0.0.1/udp/1/quic-v1")); err == nil {
			c.Done()
		}
		if len(l.addresses) > 1 {
			t.Errorf("%d addresses remembered", len(l.addresses))
		}
	})
}

func TestLimiter_TableIsBounded(t *testing.T) {
	l := newLimiter(t)
	for i := range 3 * maxAddresses {
		at := ma.StringCast(fmt.Sprintf("/ip4/10.%d.%d.1/udp/1/quic-v1", i/256, i%256))
		for range 3 { // not one: an address that has most of its burst is forgotten at once
			if c, err := l.OpenConnection(network.DirInbound, false, at); err == nil {
				c.Done()
			}
		}
	}
	if got := len(l.addresses); got > maxAddresses {
		t.Errorf("%d addresses remembered", got)
	}
}

func TestLimiter_OutgoingIsNotCounted(t *testing.T) {
	l := newLimiter(t)
	for range 2 * privateBurst {
		c, err := l.OpenConnection(network.DirOutbound, false, ma.StringCast("/ip4/10.0.0.1/udp/1/quic-v1"))
		if err != nil {
			t.Fatal(err)
		}
		c.Done()
	}
	if len(l.addresses) != 0 {
		t.Errorf("%v", l.addresses)
	}
}

func TestLimiter_VerifiesAddressesInAFlood(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		l := newLimiter(t)
		asked := 0
		for i := range 10 * privateUnverified {
			if l.VerifySourceAddress(&net.UDPAddr{IP: net.IPv4(10, 0, byte(i/256), byte(i)), Port: 1}) {
				asked++
			}
		}
		if asked < 8*privateUnverified {
			t.Errorf("%d of %d verified", asked, 10*privateUnverified)
		}
		if l.VerifySourceAddress(&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}) {
			t.Error("loopback is verified")
		}
	})
}

func TestLimiter_Concurrently(t *testing.T) {
	l := newLimiter(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 200 {
				at := ma.StringCast(fmt.Sprintf("/ip4/10.0.0.%d/udp/1/quic-v1", i%3))
				if c, err := l.OpenConnection(network.DirInbound, false, at); err == nil {
					c.Done()
				}
			}
		})
	}
	wg.Wait()
	for ip, a := range l.addresses {
		if a.conns != 0 {
			t.Errorf("%s has %d open", ip, a.conns)
		}
	}
}

func TestLimits_AreRaised(t *testing.T) {
	l := newLimiter(t)
	// Even the smallest machine takes a network of 128 that starts all at once.
	var scopes []network.ConnManagementScope
	for i := range 128 {
		c, err := l.OpenConnection(network.DirInbound, i%2 == 0, ma.StringCast(fmt.Sprintf("/ip4/10.0.1.%d/tcp/1", i)))
		if err != nil {
			t.Fatalf("handshake %d: %v", i, err)
		}
		scopes = append(scopes, c)
	}
	for _, c := range scopes {
		c.Done()
	}
	if four, six := localNetworks(); len(four) == 0 || len(six) == 0 {
		t.Error("no local networks")
	}
}

func nobody(t *testing.T) peer.ID {
	t.Helper()
	id, err := nobodysID()
	if err != nil {
		t.Fatal(err)
	}
	return id
}
