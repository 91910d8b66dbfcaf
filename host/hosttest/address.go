package hosttest

import "net/netip"

// firstPublic is the first of the public addresses, which are in networks of their own, each of 16 bits, so that none
// stands for its neighbors where addresses are counted by network.
const firstPublic = 20

// attach gives x, a router or a station, a new address behind r, or on the backbone when r is nil.
func (n *Network) attach(r *Router, x any, router bool) netip.Addr {
	n.tb.Helper()
	var ip netip.Addr
	switch {
	case r == nil:
		if n.public == (100-firstPublic)<<8 {
			n.tb.Fatal("hosttest: all public addresses are given away")
		}
		ip = netip.AddrFrom4([4]byte{byte(firstPublic + n.public>>8), byte(n.public), 0, 1})
		n.public++
		n.backbone.put(ip, x)
		return ip
	case !r.kind.translates():
		ip = n.attach(r.up, r, router) // from outside, r leads to it
	case router:
		r.routers++
		ip = netip.AddrFrom4([4]byte{100, 63 + r.depth, r.routers, 1})
	default:
		r.hosts++
		ip = netip.AddrFrom4([4]byte{192, 168, r.depth, 1 + r.hosts})
	}
	if r.routers == 255 || r.hosts == 254 {
		n.tb.Fatal("hosttest: all addresses behind the router are given away")
	}
	r.inside.put(ip, x)
	return ip
}

// detach takes an address back.
func (n *Network) detach(r *Router, ip netip.Addr) {
	for ; r != nil; r = r.up {
		delete(r.inside.at, ip)
		if r.kind.translates() {
			return
		}
	}
	delete(n.backbone.at, ip)
}
