package host

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/virtual"
)

const relayedFrom = "/ip4/192.0.2.1/udp/1/quic-v1/p2p/12D3KooWKdw5bCAeE6WcvdcWddRgrqEhghjuoyigFm8xg8ni8M5z/p2p-circuit"

// openAs opens n connections, each of a peer of its own, and returns how many were let in. They stay open.
func openAs(t *testing.T, l *limiter, dir network.Direction, at string, n int) int {
	t.Helper()
	opened := 0
	for range n {
		c, err := l.OpenConnection(dir, true, ma.StringCast(at))
		if err != nil {
			continue
		}
		t.Cleanup(c.Done)
		if c.SetPeer(nobody(t)) == nil {
			opened++
		}
	}
	return opened
}

func TestLimits_OfARelay(t *testing.T) {
	virtual.Test(t, func(t *testing.T) {
		carries, err := RelayConfig{}.complete()
		if err != nil {
			t.Fatal(err)
		}
		for name, tc := range map[string]struct {
			at   string
			want int
		}{
			"an office behind one public address": {"/ip4/192.0.2.1/tcp/1", relayConnBurst},
			"an office with IPv6":                 {"/ip6/2001:db9::1/tcp/1", relayConnBurst},
		} {
			l := newLimiterFor(t, &carries)
			if got := openAs(t, l, network.DirInbound, tc.at, relayConnBurst); got != tc.want {
				t.Errorf("%s: %d connections, want %d", name, got, tc.want)
			}
			if got := openAs(t, l, network.DirInbound, tc.at, 100); got > 50 {
				t.Errorf("%s: %d more at once", name, got)
			}
		}
	})
}

func TestLimiter_DialsAreNotLimitedByAddress(t *testing.T) {
	l := newLimiter(t)
	if got := openAs(t, l, network.DirOutbound, "/ip4/192.0.2.1/udp/1/quic-v1", 100); got != 100 {
		t.Errorf("%d dials of one public address", got)
	}
}

func TestLimiter_RelayedConnectionsAreNotHeldToTheRelaysAddress(t *testing.T) {
	l := newLimiter(t)
	if got := openAs(t, l, network.DirInbound, relayedFrom, 100); got != 100 {
		t.Errorf("%d relayed connections", got)
	}
	if got := openAs(t, l, network.DirInbound, relayedFrom, privateConns); got > privateConns-100 {
		t.Errorf("%d more relayed connections: no limit", got)
	}
	if got := openAs(t, l, network.DirInbound, "/ip4/192.0.2.1/udp/1/quic-v1", 4); got != 4 {
		t.Errorf("%d connections of the relay itself, which relayed ones have taken the place of", got)
	}
}
