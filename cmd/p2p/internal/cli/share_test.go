package cli

import (
	"net/netip"
	"testing"

	ma "github.com/multiformats/go-multiaddr"
)

func addrsOf(t *testing.T, in ...string) []ma.Multiaddr {
	t.Helper()
	var out []ma.Multiaddr
	for _, s := range in {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, a)
	}
	return out
}

func TestBestAddr(t *testing.T) {
	ip := func(s string) map[netip.Addr]bool { return map[netip.Addr]bool{netip.MustParseAddr(s): true} }
	const (
		lo4, lo6   = "/ip4/127.0.0.1/tcp/9388", "/ip6/::1/tcp/9388"
		lan, other = "/ip4/192.168.1.7/udp/9388/quic-v1", "/ip4/10.0.0.7/tcp/9388"
		docker     = "/ip4/172.17.0.1/tcp/9388"
		link       = "/ip6/fe80::1/tcp/9388"
		ula        = "/ip6/fd00::7/tcp/9388"
		name       = "/dns/node.example/tcp/443"
		relayed    = "/ip4/203.0.113.1/tcp/1/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA/p2p-circuit"
	)
	around := surroundings{routed: ip("192.168.1.7"), bridge: ip("172.17.0.1")}
	for _, tc := range []struct {
		name     string
		addrs    []string
		announce []string
		around   surroundings
		want     string
	}{
		{name: "the default route's", addrs: []string{lo4, docker, other, lan, ula}, around: around, want: "192.168.1.7:9388"},
		{name: "no route: not the bridge's", addrs: []string{lo4, docker, other}, around: around, want: "10.0.0.7:9388"},
		{name: "IPv6 of the link before a bridge", addrs: []string{docker, ula, lo4}, around: around, want: "[fd00::7]:9388"},
		{name: "a bridge before link-local", addrs: []string{link, docker, lo4}, around: around, want: "172.17.0.1:9388"},
		{name: "link-local before loopback", addrs: []string{lo4, link}, want: "[fe80::1]:9388"},
		{name: "loopback", addrs: []string{lo6, lo4}, want: "127.0.0.1:9388"},
		{name: "a name that was announced", addrs: []string{lan, name}, around: around, want: "node.example:443"},
		{name: "announced without port", addrs: []string{lan}, announce: []string{"203.0.113.9"}, around: around, want: "203.0.113.9:9388"},
		{name: "announced IPv6 without port", addrs: []string{lan}, announce: []string{"2001:db8::9"}, around: around, want: "[2001:db8::9]:9388"},
		{name: "announced with port", addrs: []string{lan}, announce: []string{"203.0.113.9:1"}, around: around, want: "203.0.113.9:1"},
		{name: "never a relay's place", addrs: []string{relayed, lo4}, want: "127.0.0.1:9388"},
		{name: "not WebSocket's port", addrs: []string{"/ip4/192.168.1.7/tcp/443/ws", lan}, around: around, want: "192.168.1.7:9388"},
		{name: "nothing", addrs: []string{relayed}, want: ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, ok := bestAddr(addrsOf(t, tc.addrs...), tc.announce, tc.around)
			if ok != (tc.want != "") || ok && got.String() != tc.want {
				t.Errorf("got %v, %v, want %q", got, ok, tc.want)
			}
		})
	}
}

func TestShortAddr(t *testing.T) {
	for in, want := range map[string]string{
		"/ip4/192.0.2.1/tcp/9388":           "192.0.2.1:9388",
		"/ip6/2001:db8::1/udp/9388/quic-v1": "[2001:db8::1]:9388",
		"/dns4/node.example/tcp/1":          "node.example:1",
		"/memory/1":                         "/memory/1",
		"/ip4/203.0.113.1/udp/9388/quic-v1/p2p/" + someID + "/p2p-circuit": "through 203.0.113.1:9388",
		"/p2p/" + someID + "/p2p-circuit":                                  "/p2p/" + someID + "/p2p-circuit",
		"nonsense":                                                         "nonsense",
	} {
		if got := shortAddr(in); got != want {
			t.Errorf("shortAddr(%q) = %q, want %q", in, got, want)
		}
	}
}
