package cli

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/addr"
)

// hostPort is a place as people write it.
type hostPort struct {
	host string
	port uint16
}

func (h hostPort) String() string { return net.JoinHostPort(h.host, strconv.Itoa(int(h.port))) }

// shareText returns ID@host:port for the address at which somebody else most likely reaches the node; the ID alone when
// there is none.
func shareText(id string, addrs []ma.Multiaddr, announce []string) string {
	best, ok := bestAddr(addrs, announce, localNet(context.Background()))
	if !ok {
		return id
	}
	return id + "@" + best.String()
}

// surroundings is what the machine's network tells about the worth of its addresses.
type surroundings struct {
	routed map[netip.Addr]bool // the source addresses of the default routes
	bridge map[netip.Addr]bool // of the machine's own bridges, for its containers and virtual machines
}

// shareRelayed returns what names a node that is reached through a relay: the relay as the user named it, and the node's
// ID before or behind it.
func shareRelayed(id, relay string) string {
	if strings.HasPrefix(relay, "/") {
		return relay + "/p2p-circuit/p2p/" + id
	}
	return id + "@" + relay
}

// localNet looks at the machine's interfaces and routes. It sends nothing.
func localNet(ctx context.Context) surroundings {
	s := surroundings{routed: make(map[netip.Addr]bool), bridge: make(map[netip.Addr]bool)}
	// Connecting a UDP socket looks up the route and sends no packet. The addresses are those of documentation.
	for _, dest := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		var d net.Dialer
		c, err := d.DialContext(ctx, "udp", dest)
		if err != nil {
			continue
		}
		if ap, err := netip.ParseAddrPort(c.LocalAddr().String()); err == nil {
			s.routed[ap.Addr().Unmap().WithZone("")] = true
		}
		_ = c.Close()
	}
	interfaces, err := host.Interfaces()
	if err != nil {
		return s
	}
	for _, i := range interfaces {
		if !i.Virtual() {
			continue
		}
		for _, p := range i.Addrs {
			s.bridge[p.Addr().Unmap().WithZone("")] = true
		}
	}
	return s
}

// bestAddr picks the address that most likely works for somebody else: an announced one, then those of the default
// routes, then other addresses of the link, IPv4 first since everybody has it.
func bestAddr(addrs []ma.Multiaddr, announce []string, s surroundings) (hostPort, bool) {
	var places []hostPort
	for _, a := range addrs {
		// host:port stands for TCP and QUIC: WebSocket's own port is no such place.
		if p, ok := placeOf(a); ok && !webSocket(a) && !slices.Contains(places, p) {
			places = append(places, p)
		}
	}
	if len(places) == 0 {
		return hostPort{}, false
	}
	if len(announce) > 0 {
		if h, port, err := addr.SplitHostPort(announce[0]); err == nil {
			return hostPort{h, port}, true
		}
		return hostPort{strings.Trim(announce[0], "[]"), places[0].port}, true
	}
	return slices.MinFunc(places, func(a, b hostPort) int {
		return cmp.Or(cmp.Compare(s.rank(a), s.rank(b)), strings.Compare(a.host, b.host))
	}), true
}

// rank orders places from the best to the worst.
func (s surroundings) rank(p hostPort) int {
	ip, err := netip.ParseAddr(p.host)
	if err != nil {
		return 0 // a name: somebody chose it
	}
	v6 := 0
	if ip.Is6() {
		v6 = 1
	}
	switch scope := addr.IPScope(ip); {
	case scope == addr.Loopback:
		return 40 + v6
	case scope == addr.Unusable:
		return 50
	case ip.IsLinkLocalUnicast():
		return 30 + v6 // of use with a zone only, which is another one at the other end
	case s.bridge[ip]:
		return 20 + v6
	case s.routed[ip]:
		return 1 + v6*10
	default:
		return 5 + v6*10
	}
}

// placeOf returns the host and port that an address begins with.
func placeOf(a ma.Multiaddr) (hostPort, bool) {
	var p hostPort
	found := false
	for _, c := range a {
		switch c.Protocol().Code {
		case ma.P_IP4, ma.P_IP6, ma.P_DNS, ma.P_DNS4, ma.P_DNS6:
			p.host = c.Value()
		case ma.P_TCP, ma.P_UDP:
			n, err := strconv.ParseUint(c.Value(), 10, 16)
			if err != nil || p.host == "" {
				return hostPort{}, false
			}
			p.port, found = uint16(n), true
		case ma.P_CIRCUIT:
			return hostPort{}, false // the relay's place, not the node's
		}
	}
	return p, found
}

// webSocket tells whether an address is of WebSocket.
func webSocket(a ma.Multiaddr) bool {
	return slices.ContainsFunc(a, func(c ma.Component) bool {
		return c.Protocol().Code == ma.P_WS || c.Protocol().Code == ma.P_WSS
	})
}

// shortAddr shows the host and port of a multiaddr, those of the relay if it leads through one, or the whole of one that
// has none.
func shortAddr(s string) string {
	a, err := ma.NewMultiaddr(s)
	if err != nil {
		return s
	}
	through := ""
	if relay, _ := ma.SplitFunc(a, func(c ma.Component) bool { return c.Protocol().Code == ma.P_CIRCUIT }); len(relay) < len(a) {
		a, through = relay, "through "
	}
	if p, ok := placeOf(a); ok {
		return through + p.String()
	}
	return s
}
