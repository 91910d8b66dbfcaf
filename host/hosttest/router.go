package hosttest

import (
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p"
	corehost "github.com/libp2p/go-libp2p/core/host"

	"github.com/lynn9388/p2p/host"
)

// RouterKind says what a router does with the packets that pass it. Words are those of RFC 4787 and, for the names, of
// RFC 3489.
type RouterKind int

const (
	// Open gives each host a public address of its own and lets every packet pass.
	Open RouterKind = iota
	// Firewall gives each host a public address of its own, and lets a packet in when one has left for exactly where it
	// comes from.
	Firewall
	// FullCone maps an inside address to one outside address for all destinations, and lets every packet to it in.
	FullCone
	// Restricted maps as FullCone, and lets in what comes from an IP address to which the host has sent.
	Restricted
	// PortRestricted maps as FullCone, and lets in what comes from an IP address and port to which the host has sent.
	PortRestricted
	// Symmetric maps an inside address to another outside address for every destination, and lets in only what comes
	// from that destination.
	Symmetric
)

// String names the kind for messages.
func (k RouterKind) String() string {
	switch k {
	case Firewall:
		return "firewall"
	case FullCone:
		return "full cone"
	case Restricted:
		return "restricted"
	case PortRestricted:
		return "port-restricted"
	case Symmetric:
		return "symmetric"
	default:
		return "open"
	}
}

// translates tells whether the hosts behind such a router have private addresses.
func (k RouterKind) translates() bool { return k > Firewall }

// Router stands between hosts and the rest of a network. Hosts behind one router reach each other without it. Its
// methods are safe for concurrent use.
//
// The hosts behind every NAT have the same addresses, 192.168.1.2 and so on, as at people's homes. A NAT behind a NAT,
// as at carriers, has an address in 100.64.0.0/10 and its hosts are 192.168.2.2 and so on. What is behind a router
// belongs to the network, which closes it.
type Router struct {
	net     *Network
	kind    RouterKind
	up      *Router    // nil: the backbone
	depth   byte       // how many NATs there are from here to the backbone
	outside netip.Addr // of a NAT

	// Guarded by net.mu.
	inside   area
	hosts    byte
	routers  byte
	hairpin  bool
	timeout  time.Duration
	mappings mappings
}

// Router returns a new router on the network.
func (n *Network) Router(kind RouterKind) *Router {
	n.tb.Helper()
	return n.newRouter(kind, nil)
}

// Router returns a new router behind r.
func (r *Router) Router(kind RouterKind) *Router {
	r.net.tb.Helper()
	return r.net.newRouter(kind, r)
}

func (n *Network) newRouter(kind RouterKind, up *Router) *Router {
	n.tb.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	r := &Router{net: n, kind: kind, up: up, timeout: mappingTimeout}
	if up != nil {
		r.depth = up.depth
	}
	if kind.translates() {
		r.depth++
		r.outside = n.attach(up, r, true)
	}
	return r
}

// Host returns a new host behind the router: see [Network.Host].
func (r *Router) Host(opts ...libp2p.Option) corehost.Host {
	r.net.tb.Helper()
	return r.HostWith(host.Config{Libp2p: opts})
}

// HostWith returns a new host behind the router: see [Network.HostWith].
func (r *Router) HostWith(cfg host.Config) corehost.Host {
	r.net.tb.Helper()
	return r.net.newHost(cfg, r.Option())
}

// Option returns the option that connects one host built elsewhere to the network, at a new address behind the router:
// see [Network.Option].
func (r *Router) Option() libp2p.Option {
	r.net.tb.Helper()
	return r.station().option()
}

func (r *Router) station() *station {
	r.net.tb.Helper()
	r.net.mu.Lock()
	defer r.net.mu.Unlock()
	s := r.net.newStation(r)
	s.at = r.net.attach(r, s, false)
	return s
}

// Addr returns the address that stands for all hosts behind a NAT, as the next network sees it. For an [Open] router and
// a [Firewall] it is the zero address.
func (r *Router) Addr() netip.Addr {
	r.net.mu.Lock()
	defer r.net.mu.Unlock()
	return r.outside
}

// Renumber gives a NAT a new address outside, as a provider does from time to time. Its mappings are gone.
func (r *Router) Renumber() {
	r.net.tb.Helper()
	r.net.mu.Lock()
	defer r.net.mu.Unlock()
	if !r.kind.translates() {
		r.net.tb.Fatalf("hosttest: a router that is %s has no address of its own that could change", r.kind)
	}
	r.net.detach(r.up, r.outside)
	r.outside = r.net.attach(r.up, r, true)
	r.mappings.flush()
}

// FlushMappings makes the router forget what has left it, as a restart does. What leaves it next gets other ports.
func (r *Router) FlushMappings() {
	r.net.mu.Lock()
	defer r.net.mu.Unlock()
	r.mappings.flush()
}

// SetMappingTimeout sets after how long without a packet from inside the router forgets a destination, and a mapping
// that has no destination left. At first it is two minutes.
func (r *Router) SetMappingTimeout(d time.Duration) {
	r.net.mu.Lock()
	defer r.net.mu.Unlock()
	r.timeout = d
}

// SetHairpin sets whether hosts behind a NAT reach each other by the addresses that it maps to. At first they do not.
func (r *Router) SetHairpin(on bool) {
	r.net.mu.Lock()
	defer r.net.mu.Unlock()
	r.hairpin = on
}

// leave returns the address from which a packet leaves the router.
func (r *Router) leave(from, to netip.AddrPort) netip.AddrPort {
	if r.kind == Open {
		return from
	}
	return r.mappings.leave(r.kind, r.outside, from, to, r.timeout)
}

// admits tells whether a packet that came to the router is let in.
func (r *Router) admits(from, to netip.AddrPort) bool {
	return r.kind == Open || r.mappings.admits(r.kind, from, to, r.timeout)
}

// translate returns the address inside for one outside.
func (r *Router) translate(to netip.AddrPort) (netip.AddrPort, bool) {
	if !r.kind.translates() {
		return to, true
	}
	x := r.mappings.in[to]
	if x == nil {
		return to, false
	}
	return x.inside, true
}
