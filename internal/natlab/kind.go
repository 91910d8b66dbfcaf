//go:build linux

package natlab

// A Kind is what a site's router does to its packets. How a NAT maps and filters is named as in RFC 3489, with the words
// of RFC 4787 in the comments. What is said of UDP holds for TCP.
type Kind int

// The kinds.
const (
	// None routes public addresses and filters nothing.
	None Kind = iota
	// Firewall routes public addresses and drops what is no answer.
	Firewall
	// FullCone maps and filters independently of the endpoint: whoever knows a mapped port gets in.
	FullCone
	// Restricted maps independently of the endpoint and filters by address: in gets who was sent something.
	Restricted
	// PortRestricted maps independently of the endpoint and filters by address and port.
	PortRestricted
	// Symmetric maps and filters by address and port: each destination sees another, random port.
	Symmetric
	// OneToOne maps every port of the outside address to the first host and back, as clouds do: that host is public, but its
	// own address is private.
	OneToOne
	// UDPBlocked is PortRestricted, and drops all UDP.
	UDPBlocked
	// TCPBlocked is PortRestricted, and drops all TCP.
	TCPBlocked
	// DoubleNAT is PortRestricted behind a carrier's PortRestricted: the site's router has no public address.
	DoubleNAT
	// UPnP is PortRestricted and opens ports for who asks by UPnP or NAT-PMP; it needs miniupnpd.
	UPnP
	// ProxyOnly lets nothing through. Its HTTP proxy connects to port 443 of any host; see [Router.Proxy].
	ProxyOnly
)

// Kinds lists all kinds, in the order of the constants.
func Kinds() []Kind {
	return []Kind{None, Firewall, FullCone, Restricted, PortRestricted, Symmetric, OneToOne, UDPBlocked, TCPBlocked, DoubleNAT, UPnP, ProxyOnly}
}

// String names the kind, for grids and subtests.
func (k Kind) String() string {
	switch k {
	case None:
		return "none"
	case Firewall:
		return "firewall"
	case FullCone:
		return "full-cone"
	case Restricted:
		return "restricted"
	case PortRestricted:
		return "port-restricted"
	case Symmetric:
		return "symmetric"
	case OneToOne:
		return "one-to-one"
	case UDPBlocked:
		return "udp-blocked"
	case TCPBlocked:
		return "tcp-blocked"
	case DoubleNAT:
		return "double-nat"
	case UPnP:
		return "upnp"
	case ProxyOnly:
		return "proxy-only"
	default:
		return "unknown"
	}
}

// translates tells whether the hosts behind the router have private IPv4 addresses.
func (k Kind) translates() bool { return k != None && k != Firewall }
