//go:build linux

package host_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
)

// A relay probes public addresses only, so this needs some.
func TestProbe(t *testing.T) {
	t.Parallel()
	if !namespace(t) {
		return
	}
	for _, ip := range []string{"5.0.0.1", "5.0.0.2", "5.0.0.3"} {
		run(t, "ip", "address", "add", ip+"/32", "dev", "lo")
	}
	relay := newHost(t, host.Config{Listen: []string{"5.0.0.1:9388"}, Relay: &host.RelayConfig{}})
	h := newHost(t, host.Config{Listen: []string{"5.0.0.2:9388"}, WAN: true, Allow: only(t), Relays: []peer.ID{relay.ID()}})
	if err := h.Connect(t.Context(), peer.AddrInfo{ID: relay.ID(), Addrs: relay.Addrs()}); err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]bool{
		"/ip4/5.0.0.2/tcp/9388":         true,
		"/ip4/5.0.0.2/udp/9388/quic-v1": true,
		"/ip4/5.0.0.2/tcp/9389":         false,
		"/ip4/5.0.0.3/tcp/9388":         false, // for which the relay wants data first
		"/ip4/5.0.0.1/tcp/9388":         false, // the relay itself answers there
	} {
		begun := time.Now()
		got, err := host.Probe(t.Context(), h, relay.ID(), ma.StringCast(address))
		if err != nil || got != want {
			t.Errorf("%s: %v, error %v, want %v", address, got, err, want)
		}
		t.Logf("%s: %v after %v", address, got, time.Since(begun))
	}
	if n := len(h.Network().Conns()); n != 1 {
		t.Errorf("%d connections are left, want the one to the relay", n)
	}
	if _, err := host.Probe(t.Context(), h, relay.ID(), ma.StringCast("/ip4/10.0.0.1/tcp/9388")); !errors.Is(err, host.ErrProbeRefused) {
		t.Errorf("a private address: error %v", err)
	}
}

// A relay dials for those whom it lets in, not for those whom it merely uses.
func TestProbe_OnlyForThoseOfTheAllowList(t *testing.T) {
	if !namespace(t) {
		return
	}
	run(t, "ip", "address", "add", "5.0.0.1/32", "dev", "lo")
	h := newHost(t, host.Config{Listen: []string{"5.0.0.1:9388"}, WAN: true})
	var refused refusals
	relay := newHost(t, host.Config{
		Listen: []string{"5.0.0.1:9389"}, Relay: &host.RelayConfig{},
		Allow: only(t), Relays: []peer.ID{h.ID()}, Refused: refused.add,
	})
	if err := h.Connect(t.Context(), peer.AddrInfo{ID: relay.ID(), Addrs: relay.Addrs()}); err != nil {
		t.Fatal(err)
	}
	if reached, err := host.Probe(t.Context(), h, relay.ID(), ma.StringCast("/ip4/5.0.0.1/tcp/9388")); err == nil {
		t.Errorf("probed: %v", reached)
	}
	if got := refused.of(h.ID()); !slices.Equal(got, []string{"probe: not on the allow list"}) {
		t.Errorf("refusals: %q", got)
	}
}
