package reach

import (
	"net/netip"
	"slices"
	"strconv"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
)

// kind is the transport of an address or a connection.
type kind int

const (
	kindNone kind = iota // circuits, and what the host does not speak
	kindQUIC
	kindTCP
	kindWebSocket
	kinds // how many there are
)

// String names the kind for [RelayStatus.Connected].
func (k kind) String() string {
	switch k {
	case kindQUIC:
		return "quic"
	case kindTCP:
		return "tcp"
	case kindWebSocket:
		return "websocket"
	default:
		return "none"
	}
}

// port is one that the host listens at.
type port struct {
	kind   kind
	number uint16
}

// kindOf tells the transport of an address, with or without /p2p/ID at its end.
func kindOf(a ma.Multiaddr) kind {
	k := kindNone
	for _, c := range a {
		switch c.Protocol().Code {
		case ma.P_TCP:
			k = kindTCP
		case ma.P_QUIC_V1:
			k = kindQUIC
		case ma.P_WS, ma.P_WSS:
			k = kindWebSocket
		case ma.P_CIRCUIT, ma.P_WEBTRANSPORT, ma.P_WEBRTC_DIRECT:
			return kindNone
		}
	}
	return k
}

// plain tells whether a is an IP address and a port of TCP or QUIC and nothing else: what one host can dial of another.
func plain(a ma.Multiaddr) bool {
	switch k := kindOf(a); {
	case len(a) < 2 || a[0].Protocol().Code != ma.P_IP4 && a[0].Protocol().Code != ma.P_IP6:
		return false
	case k == kindTCP:
		return len(a) == 2
	case k == kindQUIC:
		return len(a) == 3 && a[1].Protocol().Code == ma.P_UDP
	default:
		return false
	}
}

// named tells whether a is plain but for a name in place of the IP address, as a person may announce it.
func named(a ma.Multiaddr) bool {
	if len(a) < 2 {
		return false
	}
	switch a[0].Protocol().Code {
	case ma.P_DNS, ma.P_DNS4, ma.P_DNS6:
		return kindOf(a) == kindTCP && len(a) == 2 || kindOf(a) == kindQUIC && len(a) == 3
	default:
		return false
	}
}

// portOf returns the TCP or UDP port of an address, 0 without one.
func portOf(a ma.Multiaddr) uint16 {
	for _, p := range []int{ma.P_TCP, ma.P_UDP} {
		if v, err := a.ValueForProtocol(p); err == nil {
			n, _ := strconv.ParseUint(v, 10, 16) // the multiaddr holds 16 bits
			return uint16(n)
		}
	}
	return 0
}

// ipOf returns the IP address that a begins with; the zero Addr without one.
func ipOf(a ma.Multiaddr) netip.Addr {
	ip, _ := addr.IP(a)
	return ip.Unmap()
}

// throughRelay tells whether a connection's address leads through a relay, through which, and how far the relay's own
// address reaches: a proxied or named one counts as public.
func throughRelay(a ma.Multiaddr) (relay peer.ID, realm addr.Scope, ok bool) {
	for i, c := range a {
		if c.Protocol().Code != ma.P_CIRCUIT {
			continue
		}
		realm = addr.ScopeOf(a)
		if realm == addr.Unusable {
			realm = addr.Public
		}
		if i > 0 && a[i-1].Protocol().Code == ma.P_P2P {
			relay = peer.ID(a[i-1].RawValue())
		}
		return relay, realm, true
	}
	return "", addr.Unusable, false
}

// Bounds on the addresses of one exchange: a host has a few interfaces and relays, each with a TCP and a QUIC address.
// What a peer names is dialed, so these bound what it can make this host send to third parties.
const (
	maxAddrs = 8
	maxIPs   = 4
)

// usable tells whether a may be dialed because a peer named it, when it must reach at least as far as realm: an IP
// address that names one host, no link-local one, which means nothing elsewhere, and a port.
func usable(a ma.Multiaddr, realm addr.Scope) bool {
	ip := ipOf(a)
	return plain(a) && portOf(a) != 0 && !ip.IsLinkLocalUnicast() && addr.IPScope(ip) != addr.Unusable && addr.IPScope(ip) >= realm
}

// pick returns the addresses that may be dialed, none of own, in their order: at most maxAddrs, of at most maxIPs hosts.
func pick(addrs []ma.Multiaddr, realm addr.Scope, own []ma.Multiaddr) []ma.Multiaddr {
	var out []ma.Multiaddr
	var ips []netip.Addr
	for _, a := range addrs {
		if !usable(a, realm) || slices.ContainsFunc(own, a.Equal) || slices.ContainsFunc(out, a.Equal) {
			continue
		}
		if ip := ipOf(a); !slices.Contains(ips, ip) {
			if len(ips) == maxIPs {
				continue
			}
			ips = append(ips, ip)
		}
		if out = append(out, a); len(out) == maxAddrs {
			break
		}
	}
	return out
}

// sameNAT tells whether two hosts show one IP address: then they are behind one NAT, or on one machine.
func sameNAT(a, b []ma.Multiaddr) bool {
	return slices.ContainsFunc(a, func(x ma.Multiaddr) bool {
		ip := ipOf(x)
		return ip.IsValid() && slices.ContainsFunc(b, func(y ma.Multiaddr) bool { return ipOf(y) == ip })
	})
}
