package addr_test

import (
	"net/netip"
	"testing"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
)

func TestIPScope(t *testing.T) {
	for want, ips := range map[addr.Scope][]string{
		addr.Unusable: {
			"0.0.0.0", "0.1.2.3", "::", "224.0.0.251", "239.255.255.255", "ff02::fb", "255.255.255.255", "240.0.0.1",
			"169.254.169.254", "::ffff:169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192",
			"169.254.170.23", "169.254.0.23", "168.63.129.16",
			"fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:c1::a9fe:a9fe", "::1.2.3.4", "::ffff:0:169.254.169.254",
			"64:ff9b:1::169.254.169.254", "64:ff9b:1:fffe::10.0.0.1", "2001:0:a9fe:a9fe::1",
			"64:ff9b::169.254.169.254", "64:ff9b::10.0.0.1", "64:ff9b::127.0.0.1", "2002:a9fe:a9fe::1", "2002:7f00:1::",
		},
		addr.Loopback: {"127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1"},
		addr.Private: {
			"10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "169.254.1.1", "100.64.0.1",
			"100.127.255.255", "fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%eth0", "febf::1", "fec0::1", "::ffff:10.0.0.1",
		},
		addr.Public: {
			"1.1.1.1", "172.15.255.255", "172.32.0.1", "192.167.255.255", "192.169.0.1", "100.63.255.255", "100.128.0.1",
			"169.253.1.1", "223.255.255.255", "2001:db8::1", "2a00::1", "64:ff9b::1.1.1.1", "2002:101:101::1",
		},
	} {
		for _, ip := range ips {
			if got := addr.IPScope(netip.MustParseAddr(ip)); got != want {
				t.Errorf("%s is %v, want %v", ip, got, want)
			}
		}
	}
	if got := addr.IPScope(netip.Addr{}); got != addr.Unusable {
		t.Errorf("no address is %v", got)
	}
}

func TestIPScope_AllocatesNothing(t *testing.T) {
	ips := []netip.Addr{netip.MustParseAddr("192.168.0.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("fe80::1")}
	if n := testing.AllocsPerRun(100, func() {
		for _, ip := range ips {
			addr.IPScope(ip)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestScopeOf(t *testing.T) {
	for a, want := range map[string]addr.Scope{
		"/ip4/127.0.0.1/tcp/1":               addr.Loopback,
		"/ip4/10.0.0.1/udp/1/quic-v1":        addr.Private,
		"/ip6zone/eth0/ip6/fe80::1/tcp/1":    addr.Private,
		"/ip6/2001:db8::1/tcp/1":             addr.Public,
		"/dns/localhost/tcp/1":               addr.Unusable,
		"/p2p/" + someID:                     addr.Unusable,
		"/ip4/169.254.169.254/tcp/80":        addr.Unusable,
		"/ip6/::ffff:127.0.0.1/tcp/1":        addr.Loopback,
		"/ip4/1.1.1.1/tcp/1/p2p/" + someID:   addr.Public,
		"/unix/tmp/socket":                   addr.Unusable,
		"/dnsaddr/example.org/p2p/" + someID: addr.Unusable,
	} {
		if got := addr.ScopeOf(ma.StringCast(a)); got != want {
			t.Errorf("%s is %v, want %v", a, got, want)
		}
	}
	if got := addr.ScopeOf(nil); got != addr.Unusable {
		t.Errorf("nil is %v", got)
	}
}

func TestScope_WiderIsGreater(t *testing.T) {
	if !(addr.Unusable < addr.Loopback && addr.Loopback < addr.Private && addr.Private < addr.Public) {
		t.Error("the scopes are not in order")
	}
	for s, want := range map[addr.Scope]string{addr.Unusable: "unusable", addr.Loopback: "loopback", addr.Private: "private", addr.Public: "public"} {
		if s.String() != want {
			t.Errorf("%d is %q", s, s)
		}
	}
}

func TestHostPort(t *testing.T) {
	tests := map[string]string{
		"/ip4/192.0.2.1/tcp/9388":              "192.0.2.1:9388",
		"/ip4/192.0.2.1/udp/9388/quic-v1":      "192.0.2.1:9388",
		"/ip6/2001:db8::1/tcp/1/p2p/" + someID: "[2001:db8::1]:1",
		"/ip6/::ffff:192.0.2.1/tcp/1":          "192.0.2.1:1",
		"/dns/node.example.org/tcp/4001":       "node.example.org:4001",
		"/dns4/node.example.org/udp/1/quic-v1": "node.example.org:1",
		"/dnsaddr/example.org":                 "",
		"/ip4/192.0.2.1":                       "",
		"/p2p/" + someID:                       "",
		"/ip4/192.0.2.1/tcp/1/p2p-circuit":     "",
		"/dns/\x1b[2J/tcp/1":                   "",

		"/ip4/192.0.2.1/tcp/1/p2p/" + someID + "/p2p-circuit/p2p/" + someID: "",
	}
	for a, want := range tests {
		got, ok := addr.HostPort(ma.StringCast(a))
		if got != want || ok != (want != "") {
			t.Errorf("%s: %q, %v", a, got, ok)
		}
	}
	if _, ok := addr.HostPort(nil); ok {
		t.Error("nil has a place")
	}
}

func TestIP(t *testing.T) {
	if ip, ok := addr.IP(ma.StringCast("/ip6/2001:db8::1/tcp/1")); !ok || ip != netip.MustParseAddr("2001:db8::1") {
		t.Errorf("%v, %v", ip, ok)
	}
	for _, a := range []ma.Multiaddr{nil, ma.StringCast("/dns/x/tcp/1")} {
		if ip, ok := addr.IP(a); ok {
			t.Errorf("%v has the IP address %v", a, ip)
		}
	}
}

// A node that listens on all addresses is open to the link as soon as there is one, and says so.
func TestLoopbackOnly(t *testing.T) {
	for want, lists := range map[bool][][]string{
		true:  {{"/ip4/127.0.0.1/tcp/1", "/ip6/::1/udp/1/quic-v1"}, {"/ip4/127.0.0.1/tcp/1", "/p2p-circuit"}},
		false: {{"/ip4/0.0.0.0/tcp/1"}, {"/ip6/::/udp/1/quic-v1"}, {"/ip4/127.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1"}},
	} {
		for _, list := range lists {
			var listen []ma.Multiaddr
			for _, a := range list {
				listen = append(listen, ma.StringCast(a))
			}
			if got := addr.LoopbackOnly(listen); got != want {
				t.Errorf("%q: %v", list, got)
			}
		}
	}
}
