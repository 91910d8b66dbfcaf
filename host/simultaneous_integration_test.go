package host_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/host"
)

// Nodes of one link find each other at the same moment, and both dial.
func TestNew_TwoThatDialEachOtherAtOnceAreConnectedOverTCP(t *testing.T) {
	for range 10 {
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
		for _, c := range hosts[0].Network().Conns() {
			if !strings.Contains(c.RemoteMultiaddr().String(), "/tcp/") {
				t.Errorf("connected over %s", c.RemoteMultiaddr())
			}
		}
		for _, h := range hosts {
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
