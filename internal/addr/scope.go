package addr

import (
	"net/netip"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Scope tells how far an address reaches. Wider scopes are greater.
type Scope int

// The scopes, from none to the whole Internet.
const (
	// Unusable addresses cannot name one host, or must never be dialed: unspecified, multicast, broadcast, the cloud
	// metadata addresses, and names, which say nothing until they are resolved.
	Unusable Scope = iota
	// Loopback addresses reach this machine only.
	Loopback
	// Private addresses reach a link, a site or a carrier's network: RFC 1918, RFC 4193, RFC 6598, link-local.
	Private
	// Public addresses reach everywhere.
	Public
)

var (
	metadata4 = netip.AddrFrom4([4]byte{169, 254, 169, 254})
	metadata6 = netip.AddrFrom16([16]byte{0xfd, 0x00, 0x0e, 0xc2, 14: 0x02, 15: 0x54}) // fd00:ec2::254
	carrier   = netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, 0, 0}), 10)
	thisNet   = netip.PrefixFrom(netip.AddrFrom4([4]byte{}), 8)
	reserved  = netip.PrefixFrom(netip.AddrFrom4([4]byte{240, 0, 0, 0}), 4)
)

// IPScope tells the scope of an IP address.
func IPScope(ip netip.Addr) Scope {
	ip = ip.Unmap().WithZone("")
	switch {
	case !ip.IsValid(), ip.IsUnspecified(), ip.IsMulticast(), ip == metadata4, ip == metadata6,
		thisNet.Contains(ip), reserved.Contains(ip):
		return Unusable
	case ip.IsLoopback():
		return Loopback
	case ip.IsPrivate(), ip.IsLinkLocalUnicast(), carrier.Contains(ip):
		return Private
	default:
		return Public
	}
}

// IP returns the IP address that a begins with.
func IP(a ma.Multiaddr) (netip.Addr, bool) {
	if a == nil {
		return netip.Addr{}, false
	}
	ip, err := manet.ToIP(a)
	if err != nil {
		return netip.Addr{}, false
	}
	return netip.AddrFromSlice(ip)
}

// ScopeOf tells the scope of a multiaddr by the IP address it begins with; without one it is [Unusable].
func ScopeOf(a ma.Multiaddr) Scope {
	ip, ok := IP(a)
	if !ok {
		return Unusable
	}
	return IPScope(ip)
}

// String names the scope for logs.
func (s Scope) String() string {
	switch s {
	case Loopback:
		return "loopback"
	case Private:
		return "private"
	case Public:
		return "public"
	default:
		return "unusable"
	}
}

// HostPort returns "host:port" of a multiaddr's IP address and its TCP or UDP port, as people write it, and false
// when the multiaddr has no such pair.
func HostPort(a ma.Multiaddr) (string, bool) {
	ip, ok := IP(a)
	if !ok {
		return "", false
	}
	for _, p := range []int{ma.P_TCP, ma.P_UDP} {
		if v, err := a.ValueForProtocol(p); err == nil {
			return joinHostPort(ip, v), true
		}
	}
	return "", false
}

func joinHostPort(ip netip.Addr, port string) string {
	if ip = ip.Unmap(); ip.Is6() {
		return "[" + ip.String() + "]:" + port
	}
	return ip.String() + ":" + port
}
