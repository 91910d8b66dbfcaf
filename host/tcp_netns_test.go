//go:build linux

package host_test

import (
	"testing"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
)

// A router gives a host the outside port of its inside one: which dials leave from the listening port decides whether
// others get in where a relay says that they do.
func TestTCP_DialsBeyondTheSiteLeaveFromTheListeningPort(t *testing.T) {
	if !namespace(t) {
		return
	}
	for _, ip := range []string{"5.0.0.1", "10.0.0.1"} {
		run(t, "ip", "address", "add", ip+"/32", "dev", "lo")
	}
	public := newHost(t, host.Config{Listen: []string{"5.0.0.1:9388"}})
	private := newHost(t, host.Config{Listen: []string{"10.0.0.1:9388"}})
	relay := newHost(t, host.Config{Listen: []string{"10.0.0.1:9389"}, Relay: &host.RelayConfig{}})
	for name, tc := range map[string]struct {
		to    corehost.Host
		punch bool
		relay bool // the one that dials is a relay itself
		want  bool
	}{
		"public":               {to: public, want: true},
		"public, by a relay":   {to: public, relay: true},
		"private":              {to: private},
		"private, its relay":   {to: relay, want: true},
		"private, hole punch":  {to: private, punch: true, want: true},
		"hole punch, by relay": {to: public, punch: true, relay: true},
	} {
		cfg := host.Config{Listen: []string{":0"}, WAN: true, Relays: []peer.ID{relay.ID()}}
		if tc.relay {
			cfg.Relay = &host.RelayConfig{}
		}
		h := newHost(t, cfg)
		ctx := t.Context()
		if tc.punch {
			ctx = network.WithSimultaneousConnect(ctx, true, "test")
		}
		c, err := host.DialVia(ctx, h, peer.AddrInfo{ID: tc.to.ID(), Addrs: addrsOf(tc.to, ma.P_TCP)})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		from, listens := portOf(t, c.LocalMultiaddr(), ma.P_TCP), portOf(t, addrsOf(h, ma.P_TCP)[0], ma.P_TCP)
		if (from == listens) != tc.want {
			t.Errorf("%s: from port %s, listening at %s", name, from, listens)
		}
	}
}
