package host_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/host"
)

// Nodes of one link find each other at the same moment, and both dial. On a machine that is busy for a second, QUIC may
// overtake TCP once in a while.
func TestNew_TwoThatDialEachOtherAtOnceAreConnectedOverTCP(t *testing.T) {
	const rounds = 10
	over := map[bool]int{}
	for range rounds {
		var hosts [2]corehost.Host
		for i := range hosts {
			h, err := host.New(host.Config{Listen: []string{"127.0.0.1:0"}})
			if err != nil {
				t.Fatal(err)
			}
			hosts[i] = h
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		var wg sync.WaitGroup
		for i, h := range hosts {
			wg.Go(func() {
				other := hosts[1-i]
				if err := h.Connect(ctx, peer.AddrInfo{ID: other.ID(), Addrs: other.Addrs()}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		cancel()
		over[slices.ContainsFunc(hosts[0].Network().Conns(), func(c network.Conn) bool {
			return strings.Contains(c.RemoteMultiaddr().String(), "/tcp/")
		})]++
		for _, h := range hosts {
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if over[true] < rounds/2 {
		t.Errorf("%d of %d pairs are connected over TCP", over[true], rounds)
	}
}
