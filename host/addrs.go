package host

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/lynn9388/p2p/internal/addr"
)

// announced is an address that the configuration adds to those of the interfaces. Port 0 stands for the listening
// port.
type announced struct {
	host ma.Multiaddr
	port uint16
}

func parseAnnounce(in []string) ([]announced, error) {
	var out []announced
	for _, s := range in {
		host, port, err := addr.ParseAnnounce(s)
		if err != nil {
			return nil, err
		}
		out = append(out, announced{host, port})
	}
	return out, nil
}

// Addrs returns the addresses at which h can be reached, as they are at this moment: the listening addresses, with
// all addresses of the interfaces in place of the unspecified ones, and the announced ones, sorted. libp2p's own list
// is up to a minute old. Public and relayed addresses that libp2p has learned otherwise are included.
func Addrs(h corehost.Host) []ma.Multiaddr {
	n, ok := h.(*node)
	if !ok {
		return freshAddrs(h, nil, nil, h.Addrs())
	}
	return n.Addrs()
}

// Addrs implements [corehost.Host] without libp2p's cache: its list goes through fresh.
func (n *node) Addrs() []ma.Multiaddr { return n.Host.Addrs() }

// fresh is the host's address factory: libp2p asks it whenever it wants to know the addresses, at least every 5 s,
// so identify and the signed peer record follow a change soon.
func (n *node) fresh(known []ma.Multiaddr) []ma.Multiaddr {
	if !n.ready.Load() {
		return known
	}
	return freshAddrs(n.Host, n.announce, n.tableOf.local(), known)
}

// freshAddrs returns the addresses of h. local are the addresses of this machine's interfaces; nil: look.
func freshAddrs(h corehost.Host, announce []announced, local []netip.Addr, known []ma.Multiaddr) []ma.Multiaddr {
	if local == nil {
		local = localAddrs()
	}
	listen := h.Network().ListenAddresses()
	var out []ma.Multiaddr
	for _, a := range listen {
		out = append(out, expand(a, local)...)
	}
	for _, a := range announce {
		out = append(out, a.complete(listen)...)
	}
	for _, a := range known { // what a relay, a router or AutoNAT has taught libp2p
		if _, err := a.ValueForProtocol(ma.P_CIRCUIT); err == nil || addr.ScopeOf(a) == addr.Public {
			out = append(out, a)
		}
	}
	out = ma.Unique(out)
	slices.SortFunc(out, ma.Multiaddr.Compare)
	return out
}

// expand returns a with each local address of its family in place of an unspecified one. Link-local IPv6 addresses
// are left out: without a zone, which means nothing elsewhere, they cannot be dialed.
func expand(a ma.Multiaddr, local []netip.Addr) []ma.Multiaddr {
	if !manet.IsIPUnspecified(a) {
		if len(a) == 0 || a[0].Protocol().Code == ma.P_CIRCUIT {
			return nil
		}
		return []ma.Multiaddr{a}
	}
	ip, _ := addr.IP(a)
	var out []ma.Multiaddr
	for _, l := range local {
		if l.Is4() != ip.Is4() || l.Is6() && l.IsLinkLocalUnicast() {
			continue
		}
		first, err := manet.FromIP(l.AsSlice())
		if err != nil {
			continue
		}
		out = append(out, first.Encapsulate(a[1:]))
	}
	return out
}

// complete returns the announced address with the ports of the listening addresses, each transport with its own. A port
// that was announced stands for TCP and QUIC, and for WebSocket where that shares the port of TCP.
func (a announced) complete(listen []ma.Multiaddr) []ma.Multiaddr {
	var plain, sockets []ma.Multiaddr
	for _, l := range listen {
		if addr.WebSocket(l) {
			sockets = append(sockets, l)
		} else {
			plain = append(plain, l)
		}
	}
	tcp, udp, socket := firstPort(plain, ma.P_TCP), firstPort(plain, ma.P_UDP), firstPort(sockets, ma.P_TCP)
	if a.port != 0 {
		if socket == tcp && socket != 0 {
			socket = a.port
		}
		if tcp != 0 {
			tcp = a.port
		}
		if udp != 0 {
			udp = a.port
		}
	}
	out, err := addr.Transports(a.host, tcp, udp)
	if err != nil {
		return nil
	}
	if socket == 0 {
		return out
	}
	over, err := ma.NewMultiaddr(fmt.Sprintf("/tcp/%d/ws", socket))
	if err != nil {
		return nil
	}
	return append(out, a.host.Encapsulate(over))
}

// firstPort returns the port of the first address with the protocol, or 0.
func firstPort(addrs []ma.Multiaddr, protocol int) uint16 {
	for _, a := range addrs {
		v, err := a.ValueForProtocol(protocol)
		if err != nil {
			continue
		}
		var port uint16
		if _, err := fmt.Sscan(v, &port); err == nil && port != 0 {
			return port
		}
	}
	return 0
}

// tableAge is how long the addresses of the interfaces are taken to be the same: many connections at once ask for
// them at once.
const tableAge = 250 * time.Millisecond

// addressTable remembers the addresses of the interfaces for a moment.
type addressTable struct {
	mu    sync.Mutex
	until time.Time
	addrs []netip.Addr
}

func (t *addressTable) local() []netip.Addr {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); now.After(t.until) {
		t.addrs, t.until = localAddrs(), now.Add(tableAge)
	}
	return t.addrs
}

// localAddrs returns the addresses of the interfaces that are up; never nil.
func localAddrs() []netip.Addr {
	out := []netip.Addr{}
	all, err := Interfaces()
	if err != nil {
		return out
	}
	for _, i := range all {
		for _, p := range i.Addrs {
			out = append(out, p.Addr())
		}
	}
	return out
}
