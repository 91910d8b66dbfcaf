package mdns

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
)

// told is a plan as text: "eth0/4: /ip4/… …".
func told(plan map[linkID]planned) []string {
	var out []string
	for id, p := range plan {
		family := 4
		if id.v6 {
			family = 6
		}
		out = append(out, fmt.Sprintf("%s/%d %v", p.iface.Name, family, texts(p.addrs)))
	}
	slices.Sort(out)
	return out
}

func TestPlanLinks(t *testing.T) {
	lo, eth := iface(1, "lo", "127.0.0.1/8", "::1/128"), iface(2, "eth0", "192.168.7.1/24", "2001:db8::1/64", "fe80::1/64")
	wlan, tunnel := iface(3, "wlan0", "10.0.0.1/8"), iface(4, "wg0", "10.9.0.1/24")
	tunnel.Flags &^= net.FlagMulticast
	down := iface(5, "eth1", "10.8.0.1/24")
	down.Flags &^= net.FlagUp
	v6only := iface(6, "eth2", "fe80::2/64", "fd00::2/64")
	for name, c := range map[string]struct {
		ifaces []host.Interface
		addrs  []ma.Multiaddr
		want   []string
	}{
		"each address on its own interface": {
			[]host.Interface{lo, eth, wlan},
			addrs("/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1", "/ip4/192.168.7.1/tcp/1", "/ip4/10.0.0.1/tcp/1"),
			[]string{
				"eth0/4 [/ip4/192.168.7.1/tcp/1]", "eth0/6 [/ip4/192.168.7.1/tcp/1]",
				"lo/4 [/ip4/127.0.0.1/tcp/1 /ip6/::1/tcp/1]", "wlan0/4 [/ip4/10.0.0.1/tcp/1]",
			},
		},
		"loopback only": {
			[]host.Interface{lo, eth},
			addrs("/ip4/127.0.0.1/tcp/1"),
			[]string{"lo/4 [/ip4/127.0.0.1/tcp/1]"},
		},
		"announced addresses": {
			[]host.Interface{lo, eth},
			addrs("/ip4/127.0.0.1/tcp/1", "/ip4/192.168.7.1/tcp/1", "/ip4/203.0.113.1/tcp/1"),
			[]string{
				"eth0/4 [/ip4/192.168.7.1/tcp/1 /ip4/203.0.113.1/tcp/1]", "eth0/6 [/ip4/192.168.7.1/tcp/1 /ip4/203.0.113.1/tcp/1]",
				"lo/4 [/ip4/127.0.0.1/tcp/1]",
			},
		},
		"IPv4 first, no link-local, no relay": {
			[]host.Interface{eth},
			addrs("/ip6/fe80::1/tcp/1", "/ip6/2001:db8::1/tcp/1", "/ip4/192.168.7.1/tcp/1",
				"/ip4/203.0.113.1/tcp/1/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA/p2p-circuit"),
			[]string{
				"eth0/4 [/ip4/192.168.7.1/tcp/1 /ip6/2001:db8::1/tcp/1]", "eth0/6 [/ip4/192.168.7.1/tcp/1 /ip6/2001:db8::1/tcp/1]",
			},
		},
		"no multicast, down": {
			[]host.Interface{tunnel, down},
			addrs("/ip4/10.9.0.1/tcp/1", "/ip4/10.8.0.1/tcp/1"),
			nil,
		},
		"IPv6 only": {
			[]host.Interface{v6only},
			addrs("/ip6/fd00::2/tcp/1"),
			[]string{"eth2/6 [/ip6/fd00::2/tcp/1]"},
		},
		"a host that does not listen": {
			[]host.Interface{lo, wlan},
			nil,
			[]string{"lo/4 []", "wlan0/4 []"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, told(planLinks(c.ifaces, c.addrs))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPlanLinks_ManyInterfaces(t *testing.T) {
	var ifaces []host.Interface
	var list []ma.Multiaddr
	for i := range 300 {
		ifaces = append(ifaces, iface(i+1, fmt.Sprintf("veth%d", i), fmt.Sprintf("10.1.%d.%d/30", i/200, i%200)))
		list = append(list, ma.StringCast(fmt.Sprintf("/ip4/10.1.%d.%d/tcp/1", i/200, i%200)))
	}
	ifaces = append(ifaces, iface(999, "eth0", "192.168.7.1/24"))
	list = append(list, ma.StringCast("/ip4/192.168.7.1/tcp/1"))
	plan := planLinks(ifaces, list)
	if len(plan) > 2*maxInterfaces {
		t.Errorf("%d links; want at most %d", len(plan), 2*maxInterfaces)
	}
	if !slices.Contains(slices.Collect(maps.Keys(plan)), linkID{999, false}) {
		t.Error("the network is not among them")
	}
}
