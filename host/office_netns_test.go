//go:build linux

package host_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/poll"
)

// libp2p's own limits let eight of them in, and one more every 5 s.
func TestRelay_AHundredBehindOnePublicAddressJoinAtOnce(t *testing.T) {
	if !namespace(t) {
		return
	}
	const nodes = 100
	for _, ip := range []string{"5.0.0.1", "5.0.0.2"} {
		run(t, "ip", "address", "add", ip+"/32", "dev", "lo")
	}
	relay := newHost(t, host.Config{Listen: []string{"5.0.0.1:9388"}, Relay: &host.RelayConfig{}})
	begun := time.Now()
	var joining sync.WaitGroup
	for i := range nodes {
		h := newHost(t, host.Config{Listen: []string{fmt.Sprintf("5.0.0.2:%d", 20000+i)}, WAN: true})
		joining.Go(func() {
			for _, protocol := range []int{ma.P_QUIC_V1, ma.P_TCP} {
				if _, err := host.DialVia(t.Context(), h, peer.AddrInfo{ID: relay.ID(), Addrs: addrsOf(relay, protocol)}); err != nil {
					t.Errorf("node %d: %v", i, err)
					return
				}
			}
			if _, err := client.Reserve(t.Context(), h, peer.AddrInfo{ID: relay.ID()}); err != nil {
				t.Errorf("node %d: %v", i, err)
			}
		})
	}
	joining.Wait()
	if took := time.Since(begun); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
	poll.Until(t, 5*time.Second, func() string { // who dialed has a connection before the relay does
		conns := relay.Network().Conns()
		byAddress := map[string]int{}
		for _, c := range conns {
			byAddress[c.RemoteMultiaddr()[0].Value()]++
		}
		if len(byAddress) != 1 || len(conns) != 2*nodes {
			return fmt.Sprintf("connections by address: %v, want %d of one", byAddress, 2*nodes)
		}
		return ""
	})
	t.Logf("all are there after %v", time.Since(begun))
}
