package mdns

import (
	"net"
	"net/netip"
	"testing"
)

func TestSocket_HearsItsLinkOnly(t *testing.T) {
	group, own := net.IPv4(224, 0, 0, 251), net.IPv4(192, 168, 1, 2)
	from := func(ip string) net.Addr { return net.UDPAddrFromAddrPort(netip.MustParseAddrPort(ip)) }
	links := []netip.Prefix{netip.MustParsePrefix("192.168.1.2/24"), netip.MustParsePrefix("fe80::2/64")}
	for name, c := range map[string]struct {
		told  bool
		index int
		dst   net.IP
		from  net.Addr
		want  bool
	}{
		"to the group":                  {true, 3, group, from("192.168.1.9:5353"), true},
		"to the group, on another link": {true, 4, group, from("192.168.1.9:5353"), false},
		"to this host alone":            {true, 3, own, from("192.168.1.9:5353"), false},
		"untold, of the link":           {false, 0, nil, from("192.168.1.9:5353"), true},
		"untold, mapped":                {false, 0, nil, from("[::ffff:192.168.1.9]:5353"), true},
		"untold, of the link, IPv6":     {false, 0, nil, from("[fe80::9%eth0]:5353"), true},
		"untold, from elsewhere":        {false, 0, nil, from("10.0.0.9:5353"), false},
		"untold, from this machine":     {false, 0, nil, from("127.0.0.1:5353"), false},
		"untold, from nobody":           {false, 0, nil, nil, false},
	} {
		s := &socket{index: 3, told: c.told, links: links}
		if got := s.fromLink(c.index, c.dst, c.from); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
