package mdns

import (
	"cmp"
	"net"
	"net/netip"
	"slices"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/addr"
)

// maxInterfaces bounds the sockets and the readers: a machine full of containers has hundreds of interfaces.
const maxInterfaces = 16

// A linkID names a place to send and listen at: an interface and a family of addresses.
type linkID struct {
	index int // of the interface
	v6    bool
}

// A planned link is one that the source should have, and what to announce there.
type planned struct {
	iface host.Interface
	addrs []ma.Multiaddr
}

// planLinks decides where to send and listen, and what is announced there: loopback addresses on the loopback
// interface only, any other on its own interface only, and addresses that no interface has (announced ones, of hosts
// behind a 1:1 NAT) on all but loopback. An interface without an address to announce is not used, so of a node that
// listens on loopback only nothing leaves the machine; a node that does not listen at all asks on all of them.
func planLinks(ifaces []host.Interface, addrs []ma.Multiaddr) map[linkID]planned {
	perIface, foreign := assign(ifaces, addrs)
	plan := map[linkID]planned{}
	used := 0
	for _, i := range sorted(ifaces) {
		own := perIface[i.Index]
		if !usable(i) || len(addrs) > 0 && len(own) == 0 {
			continue
		}
		if used++; used > maxInterfaces {
			break
		}
		p := planned{iface: i, addrs: own}
		if i.Flags&net.FlagLoopback == 0 {
			p.addrs = append(p.addrs, foreign...)
		}
		v4, v6 := families(i)
		if v4 {
			plan[linkID{i.Index, false}] = p
		}
		if v6 {
			plan[linkID{i.Index, true}] = p
		}
	}
	return plan
}

// assign tells which address belongs to which interface, and which belong to none. IPv6 link-local addresses are
// left out: libp2p cannot dial them.
func assign(ifaces []host.Interface, addrs []ma.Multiaddr) (perIface map[int][]ma.Multiaddr, foreign []ma.Multiaddr) {
	owner := map[netip.Addr]int{}
	loopback := 0
	for _, i := range ifaces {
		if i.Flags&net.FlagLoopback != 0 {
			loopback = cmp.Or(loopback, i.Index)
			continue
		}
		for _, p := range i.Addrs {
			owner[p.Addr().Unmap().WithZone("")] = i.Index
		}
	}
	perIface = map[int][]ma.Multiaddr{}
	for _, a := range addrs {
		ip, ok := addr.IP(a)
		if !ok || !direct(a) {
			continue
		}
		ip = ip.Unmap().WithZone("")
		switch index, owned := owner[ip]; {
		case ip.Is6() && ip.IsLinkLocalUnicast():
		case ip.IsLoopback():
			perIface[loopback] = append(perIface[loopback], a)
		case owned:
			perIface[index] = append(perIface[index], a)
		default:
			foreign = append(foreign, a)
		}
	}
	for _, list := range perIface {
		slices.SortStableFunc(list, compareAddrs)
	}
	return perIface, foreign
}

// compareAddrs puts IPv4 before IPv6: what does not fit into a packet should be the least useful.
func compareAddrs(a, b ma.Multiaddr) int {
	ipA, _ := addr.IP(a)
	ipB, _ := addr.IP(b)
	return cmp.Compare(ipA.Unmap().BitLen(), ipB.Unmap().BitLen())
}

// sorted puts loopback first, then the interfaces of networks, then the bridges of containers.
func sorted(ifaces []host.Interface) []host.Interface {
	rank := func(i host.Interface) int {
		switch {
		case i.Flags&net.FlagLoopback != 0:
			return 0
		case !i.Virtual():
			return 1
		default:
			return 2
		}
	}
	return slices.SortedStableFunc(slices.Values(ifaces), func(a, b host.Interface) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.Index, b.Index))
	})
}

// usable tells whether an interface can carry multicast. Linux' loopback interface can, though it does not say so.
func usable(i host.Interface) bool {
	return i.Flags&net.FlagUp != 0 && i.Flags&(net.FlagMulticast|net.FlagLoopback) != 0
}

// families tells over which families of addresses an interface can be used. Loopback uses IPv4 where it can: one is
// enough to find the nodes of one machine, and Linux has no IPv6 multicast there.
func families(i host.Interface) (v4, v6 bool) {
	for _, p := range i.Addrs {
		if p.Addr().Unmap().Is4() {
			v4 = true
		} else {
			v6 = true
		}
	}
	if v4 && i.Flags&net.FlagLoopback != 0 {
		v6 = false
	}
	return v4, v6
}
