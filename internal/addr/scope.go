package addr

import (
	"net"
	"net/netip"
	"slices"

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

// metadata4 tells whether a cloud hands out credentials at the address to whoever asks from inside.
func metadata4(b [4]byte) bool {
	switch b {
	case [4]byte{169, 254, 169, 254}, [4]byte{169, 254, 170, 2}, [4]byte{169, 254, 170, 23}, [4]byte{169, 254, 0, 23},
		[4]byte{100, 100, 100, 200}, [4]byte{192, 0, 0, 192}, [4]byte{168, 63, 129, 16}:
		return true
	}
	return false
}

// metadata6 is metadata4 for IPv6: fd00:ec2::254, fd00:ec2::23, fd20:ce::254 and fd00:c1::a9fe:a9fe.
func metadata6(b [16]byte) bool {
	switch b {
	case [16]byte{0xfd, 0x00, 0x0e, 0xc2, 14: 0x02, 15: 0x54}, [16]byte{0xfd, 0x00, 0x0e, 0xc2, 15: 0x23},
		[16]byte{0xfd, 0x20, 0x00, 0xce, 14: 0x02, 15: 0x54}, [16]byte{0xfd, 0x00, 0x00, 0xc1, 12: 0xa9, 13: 0xfe, 14: 0xa9, 15: 0xfe}:
		return true
	}
	return false
}

// IPScope tells the scope of an IP address. An IPv6 address that leads to an IPv4 address, through NAT64 or 6to4,
// is public if that one is, and unusable otherwise, as are those that hide where they lead: NAT64 with a prefix of its
// own (RFC 8215), SIIT and Teredo.
func IPScope(ip netip.Addr) Scope {
	ip = ip.Unmap().WithZone("")
	switch {
	case !ip.IsValid(), ip.IsUnspecified(), ip.IsMulticast():
		return Unusable
	case ip.IsLoopback():
		return Loopback
	case ip.Is4():
		return scope4(ip.As4(), ip)
	default:
		return scope6(ip.As16(), ip)
	}
}

func scope4(b [4]byte, ip netip.Addr) Scope {
	switch {
	case metadata4(b), b[0] == 0, b[0] >= 240: // "this network", reserved and broadcast
		return Unusable
	case ip.IsPrivate(), ip.IsLinkLocalUnicast(), b[0] == 100 && b[1]&0xc0 == 64: // 100.64.0.0/10, a carrier's
		return Private
	default:
		return Public
	}
}

func scope6(b [16]byte, ip netip.Addr) Scope {
	switch {
	case metadata6(b), [12]byte(b[:12]) == [12]byte{}: // ::/96, IPv4-compatible
		return Unusable
	case [12]byte(b[:12]) == [12]byte{8: 0xff, 9: 0xff}, [6]byte(b[:6]) == [6]byte{0x00, 0x64, 0xff, 0x9b, 0x00, 0x01},
		[4]byte(b[:4]) == [4]byte{0x20, 0x01}: // ::ffff:0:0:0/96, 64:ff9b:1::/48, 2001::/32
		return Unusable
	case [12]byte(b[:12]) == [12]byte{0x00, 0x64, 0xff, 0x9b}: // 64:ff9b::/96, NAT64
		return onlyPublic([4]byte(b[12:]))
	case b[0] == 0x20 && b[1] == 0x02: // 2002::/16, 6to4
		return onlyPublic([4]byte(b[2:6]))
	case ip.IsPrivate(), ip.IsLinkLocalUnicast(), b[0] == 0xfe && b[1]&0xc0 == 0xc0: // fec0::/10, site-local
		return Private
	default:
		return Public
	}
}

func onlyPublic(b [4]byte) Scope {
	if IPScope(netip.AddrFrom4(b)) == Public {
		return Public
	}
	return Unusable
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

// LoopbackOnly tells whether addresses to listen at are of this machine alone, whatever interfaces come up; an
// unspecified one is not. That relayed connections are taken, /p2p-circuit, says nothing: it takes a relay.
func LoopbackOnly(listen []ma.Multiaddr) bool {
	return !slices.ContainsFunc(listen, func(a ma.Multiaddr) bool { return ScopeOf(a) != Loopback && !Relayed(a) })
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

// HostPort returns "host:port" of a multiaddr's IP address or host name and its TCP or UDP port, as people write it.
// It returns false when the multiaddr has no such pair, or leads through a relay, whose pair it would be.
func HostPort(a ma.Multiaddr) (string, bool) {
	if a == nil {
		return "", false
	}
	if _, err := a.ValueForProtocol(ma.P_CIRCUIT); err == nil {
		return "", false
	}
	host, ok := "", false
	if ip, isIP := IP(a); isIP {
		host, ok = ip.Unmap().String(), true
	} else if len(a) > 0 {
		switch a[0].Protocol().Code {
		case ma.P_DNS, ma.P_DNS4, ma.P_DNS6:
			host = a[0].Value()
			ok = HostName(host) // a peer may have made it up
		}
	}
	for _, p := range []int{ma.P_TCP, ma.P_UDP} {
		if v, err := a.ValueForProtocol(p); err == nil && ok {
			return net.JoinHostPort(host, v), true
		}
	}
	return "", false
}
