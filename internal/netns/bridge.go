package netns

import (
	"fmt"
	"net/netip"
	"sync"
)

// A Bridge is an Ethernet segment.
type Bridge struct {
	lab    *Lab
	ns     string // the namespace that the bridge stands in
	prefix []netip.Prefix
	router *iface // of the host that the bridge stands in, if that one is a router

	mu    sync.Mutex
	ports int
	last  byte // the last host number given out
}

// Bridge adds an Ethernet segment whose hosts have addresses of 10.77.n.0/24 and fd77:0:0:n::/64.
func (l *Lab) Bridge() *Bridge {
	l.tb.Helper()
	l.mu.Lock()
	l.bridges++
	n := byte(l.bridges)
	l.mu.Unlock()
	b := &Bridge{lab: l, ns: l.namespace(), prefix: []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, n, 0}), 24),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x77, 7: n}), 64),
	}}
	b.up()
	return b
}

// Bridge adds an Ethernet segment whose router the host is: the bridge is the host's interface br0, which has the first
// address of each of the networks, and hosts on the bridge have their default routes to it. There may be one network of
// each IP version, with at least 8 bits for the hosts' numbers. A host routes to one bridge only.
func (h *Host) Bridge(networks ...netip.Prefix) *Bridge {
	h.lab.tb.Helper()
	b := &Bridge{lab: h.lab, ns: h.name, prefix: networks}
	b.up()
	ip4, ip6 := b.next()
	b.router = &iface{bridge: b, ip4: ip4, ip6: ip6}
	h.mu.Lock()
	h.ifaces["br0"] = b.router
	h.ordered = append(h.ordered, "br0")
	h.mu.Unlock()
	b.address(h, "br0", ip4, ip6)
	return b
}

func (b *Bridge) up() {
	b.lab.tb.Helper()
	b.lab.must("-n", b.ns, "link", "add", "br0", "type", "bridge")
	b.lab.must("-n", b.ns, "link", "set", "br0", "up")
}

// next gives out the next address of each network; an address is zero if the bridge has no network of its version.
func (b *Bridge) next() (ip4, ip6 netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last == 254 {
		b.lab.tb.Fatal("netns: the bridge has no address left")
	}
	b.last++
	for _, p := range b.prefix {
		bytes := p.Masked().Addr().AsSlice()
		bytes[len(bytes)-1] |= b.last
		if ip, _ := netip.AddrFromSlice(bytes); ip.Is4() {
			ip4 = ip
		} else {
			ip6 = ip
		}
	}
	return ip4, ip6
}

// address gives an interface of a host its addresses on the bridge, and the default routes.
func (b *Bridge) address(h *Host, ifname string, ips ...netip.Addr) {
	b.lab.tb.Helper()
	for _, ip := range ips {
		if !ip.IsValid() {
			continue
		}
		args := []string{"addr", "add", b.within(ip), "dev", ifname}
		if ip.Is4() {
			args = append(args, "brd", "+")
		} else {
			args = append(args, "nodad")
		}
		h.IPRun(args...)
	}
}

// route gives a host its default routes, over an interface that is up.
func (b *Bridge) route(h *Host, ifname string) {
	b.lab.tb.Helper()
	if b.router == nil {
		return
	}
	for _, ip := range []netip.Addr{b.router.ip4, b.router.ip6} {
		if ip.IsValid() {
			h.IPRun("route", "replace", "default", "via", ip.String(), "dev", ifname)
		}
	}
}

// within writes an address of the bridge with the length of its network's prefix.
func (b *Bridge) within(ip netip.Addr) string {
	for _, p := range b.prefix {
		if p.Contains(ip) {
			return fmt.Sprintf("%s/%d", ip, p.Bits())
		}
	}
	return ip.String()
}

// Host adds a host with the interface eth0 on the bridge, with an address of each of its networks.
func (b *Bridge) Host() *Host {
	b.lab.tb.Helper()
	h := b.lab.Host()
	b.Attach(h, "eth0")
	return h
}

// Attach gives a host one more interface of that name, on the bridge, with an address of each of its networks.
func (b *Bridge) Attach(h *Host, ifname string) {
	b.lab.tb.Helper()
	b.mu.Lock()
	b.ports++
	port := fmt.Sprintf("port%d", b.ports)
	b.mu.Unlock()
	ip4, ip6 := b.next()
	h.mu.Lock()
	h.ifaces[ifname] = &iface{bridge: b, port: port, ip4: ip4, ip6: ip6}
	h.ordered = append(h.ordered, ifname)
	h.mu.Unlock()

	must := b.lab.must
	must("link", "add", ifname, "netns", h.name, "type", "veth", "peer", "name", port, "netns", b.ns)
	must("-n", b.ns, "link", "set", port, "master", "br0", "up")
	b.address(h, ifname, ip4, ip6)
	h.IPRun("link", "set", ifname, "up")
	b.route(h, ifname)
}
