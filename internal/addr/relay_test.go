package addr_test

import (
	"testing"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
)

func TestSplitRelay(t *testing.T) {
	for in, want := range map[string]string{
		"/ip4/9.9.9.9/tcp/1/p2p/" + someID + "/p2p-circuit":                 "/ip4/9.9.9.9/tcp/1",
		"/ip4/9.9.9.9/tcp/1/p2p/" + someID + "/p2p-circuit/p2p/" + otherID:  "/ip4/9.9.9.9/tcp/1",
		"/ip4/9.9.9.9/udp/1/quic-v1/p2p/" + someID + "/p2p-circuit":         "/ip4/9.9.9.9/udp/1/quic-v1",
		"/dns4/relay.example/tcp/443/tls/ws/p2p/" + someID + "/p2p-circuit": "/dns4/relay.example/tcp/443/tls/ws",
		"/p2p/" + someID + "/p2p-circuit":                                   "",
		"/p2p/" + someID + "/p2p-circuit/p2p/" + otherID:                    "",
	} {
		relay, at, ok := addr.SplitRelay(ma.StringCast(in))
		if got := at.String(); !ok || relay.String() != someID || at != nil && got != want || at == nil && want != "" {
			t.Errorf("%s: relay %s at %v, %v", in, relay, at, ok)
			continue
		}
		again, err := addr.ThroughRelay(relay, at)
		if err != nil || in != again.String() && in != again.String()+"/p2p/"+otherID {
			t.Errorf("%s: put together again it is %v, %v", in, again, err)
		}
	}
	for _, in := range []string{
		"/ip4/9.9.9.9/tcp/1", "/p2p/" + someID, "/p2p-circuit", "/p2p-circuit/p2p/" + someID, "/ip4/9.9.9.9/tcp/1/p2p-circuit",
		"/ip4/9.9.9.9/tcp/1/p2p/" + someID + "/p2p-circuit/p2p/" + otherID + "/p2p-circuit",
		"/ip4/9.9.9.9/tcp/1/p2p/" + someID + "/p2p-circuit/ip4/10.0.0.1/tcp/1",
		"/ip4/9.9.9.9/tcp/1/p2p/" + someID + "/tcp/2/p2p/" + otherID + "/p2p-circuit",
		"/p2p/" + otherID + "/p2p/" + someID + "/p2p-circuit",
	} {
		if relay, at, ok := addr.SplitRelay(ma.StringCast(in)); ok {
			t.Errorf("%s: relay %s at %v", in, relay, at)
		}
	}
	if _, _, ok := addr.SplitRelay(nil); ok || addr.Relayed(nil) {
		t.Error("nothing leads through a relay")
	}
}
