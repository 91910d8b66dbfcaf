//go:build linux

package natlab

import (
	"net/netip"
	"os"
	"strings"

	"github.com/lynn9388/p2p/internal/netns"
)

// A Router stands between a LAN and the Internet, or the network of a carrier.
type Router struct {
	lab    *Lab
	kind   Kind
	host   *netns.Host
	lan    *netns.Bridge
	parent *Router // nil: connected to the Internet
	homes  int     // how many LANs of homes are between this one's and the Internet, itself included
	site   int
	place  *place // nil with a parent
	addr   netip.Addr
	addr6  netip.Addr
	proxy  *proxy
}

// Router adds a site behind a router of that kind.
func (l *Lab) Router(kind Kind) *Router {
	l.tb.Helper()
	if kind == DoubleNAT {
		return l.Carrier(PortRestricted).Router(PortRestricted)
	}
	return l.add(nil, kind, 1)
}

// Carrier adds a carrier's network behind a NAT of that kind: its customers have addresses of 100.64.0.0/24, and are
// added by the method Router.
func (l *Lab) Carrier(kind Kind) *Router {
	l.tb.Helper()
	return l.add(nil, kind, 0)
}

// Router adds a router of that kind to the LAN of this one, as a carrier's customer or a second router in a house.
func (r *Router) Router(kind Kind) *Router {
	r.lab.tb.Helper()
	return r.lab.add(r, kind, r.homes+1)
}

// Host adds a host to the LAN, with the interface eth0.
func (r *Router) Host() *netns.Host {
	r.lab.tb.Helper()
	return r.lan.Host()
}

// LAN is the network behind the router.
func (r *Router) LAN() *netns.Bridge { return r.lan }

// Gateway is the router itself. Its interfaces are wan and br0.
func (r *Router) Gateway() *netns.Host { return r.host }

// Addr is the IPv4 address of the router's interface wan, which the world sees for all hosts behind a NAT without a
// carrier. It is zero without IPv4.
func (r *Router) Addr() netip.Addr { return r.addr }

// Kind is the router's kind; for a site of the kind DoubleNAT it is that of the inner router.
func (r *Router) Kind() Kind { return r.kind }

// private4 is the network of a LAN behind a NAT; homes is 0 for a carrier's.
func private4(homes int) netip.Prefix {
	if homes == 0 {
		return netip.MustParsePrefix("100.64.0.0/24")
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(homes), 0}), 24)
}

func (l *Lab) add(parent *Router, kind Kind, homes int) *Router {
	l.tb.Helper()
	r := &Router{lab: l, kind: kind, parent: parent, homes: homes, host: l.net.Host()}
	if parent == nil {
		r.site = l.number()
		r.connect()
	} else {
		r.site = parent.site
		parent.lan.Attach(r.host, "wan")
		r.addr, r.addr6 = r.host.IP("wan"), r.host.IP6("wan")
	}
	var networks []netip.Prefix
	number := l.network(r.site)
	if l.family.has4() && kind.translates() {
		networks = append(networks, private4(homes))
	} else if l.family.has4() {
		networks = append(networks, netip.PrefixFrom(netip.AddrFrom4([4]byte{5, byte(r.site), byte(number), 0}), 24))
		r.lead(networks[0])
	}
	if l.family.has6() {
		network := netip.PrefixFrom(site6(r.site, number), 64)
		networks = append(networks, network)
		r.lead(network)
	}
	r.lan = r.host.Bridge(networks...)
	r.configure()
	return r
}

// site6 is the first address of the network with that number in a site.
func site6(site, number int) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0x2a, 3: byte(site), 5: byte(number)})
}

// connect makes the router's interface wan and connects it to the Internet.
func (r *Router) connect() {
	l := r.lab
	l.tb.Helper()
	fd, err := newTUN(r.host, "wan")
	l.must(err, "router")
	r.place = l.internet.connect(fd)
	// A burst waits in the device until the Internet's thread has read it, as in a real router.
	r.host.IPRun("link", "set", "wan", "txqueuelen", "10000", "up")
	if l.family.has4() {
		r.addr = netip.AddrFrom4([4]byte{5, byte(r.site), 0, 1})
		r.host.IPRun("addr", "add", r.addr.String()+"/32", "dev", "wan")
		r.host.IPRun("-4", "route", "add", "default", "dev", "wan")
		l.internet.route(netip.PrefixFrom(r.addr, 32), r.place)
	}
	if l.family.has6() {
		r.addr6 = site6(r.site, 0).Next()
		r.host.IPRun("addr", "add", r.addr6.String()+"/128", "dev", "wan", "nodad")
		r.host.IPRun("-6", "route", "add", "default", "dev", "wan")
		l.internet.route(netip.PrefixFrom(site6(r.site, 0), 32), r.place)
	}
}

// lead sends packets for a public network of the LAN to this router.
func (r *Router) lead(network netip.Prefix) {
	r.lab.tb.Helper()
	top := r
	for top.parent != nil {
		via := top.addr
		if network.Addr().Is6() {
			via = top.addr6
		}
		top = top.parent
		top.host.IPRun("route", "add", network.String(), "via", via.String())
	}
	if network.Addr().Is4() { // of IPv6 the whole site is routed
		r.lab.internet.route(network, top.place)
	}
}

// configure makes the host a router.
func (r *Router) configure() {
	r.lab.tb.Helper()
	r.lab.must(r.host.Do(func() error {
		for name, value := range map[string]string{
			"ipv4/ip_forward":          "1",
			"ipv6/conf/all/forwarding": "1",
			// A connection begins with a SYN: a router that was started anew does not pick it up in the middle.
			"netfilter/nf_conntrack_tcp_loose": "0",
		} {
			if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0); err != nil {
				return err
			}
		}
		// What stays on the LAN does not pass the filter. The files are missing where the kernel cannot do that anyway.
		for _, name := range []string{"iptables", "ip6tables"} {
			_ = os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+name, []byte("0"), 0)
		}
		return nil
	}), "make a router")
	if text := rules(r.kind); text != "" {
		r.nft(text)
	}
	switch r.kind {
	case UPnP:
		r.startUPnP()
	case ProxyOnly:
		r.startProxy()
	default: // the rules are all
	}
}

// nft changes the router's packet filter.
func (r *Router) nft(text string) {
	r.lab.tb.Helper()
	cmd := r.host.Command(r.lab.tb.Context(), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	r.lab.must(err, "nft: %s\n%s", out, text)
}
