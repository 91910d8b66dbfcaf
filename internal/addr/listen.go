package addr

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	ma "github.com/multiformats/go-multiaddr"
)

// ParseListen reads an address to listen at: "localhost:9388" (127.0.0.1 and ::1), ":9388" (all addresses),
// "192.0.2.1:9388", "[::1]:9388", each with TCP and QUIC on the one port, or a multiaddr, which is taken as it is.
// Port 0 stands for any free port. A host name other than localhost is refused: what it resolves to would decide who
// can reach the node.
func ParseListen(s string) ([]ma.Multiaddr, error) {
	return parseListen(s, "/tcp/%d", "/udp/%d/quic-v1")
}

// ParseListenWebSocket reads an address to listen at for WebSocket: what [ParseListen] reads, and a multiaddr must be one
// of WebSocket.
func ParseListenWebSocket(s string) ([]ma.Multiaddr, error) {
	out, err := parseListen(s, "/tcp/%d/ws")
	if err == nil && !WebSocket(out[0]) {
		return nil, fmt.Errorf("listen address %q: not one of WebSocket, which ends in /tcp/PORT/ws", s)
	}
	return out, err
}

// WebSocket tells whether a is an address of WebSocket, over TLS or not, that leads through no relay.
func WebSocket(a ma.Multiaddr) bool {
	return !Relayed(a) && slices.ContainsFunc(a, func(c ma.Component) bool {
		return c.Protocol().Code == ma.P_WS || c.Protocol().Code == ma.P_WSS
	})
}

// parseListen reads an address to listen at, with each of the transports where it is no multiaddr.
func parseListen(s string, transports ...string) ([]ma.Multiaddr, error) {
	if strings.HasPrefix(s, "/") {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			return nil, fmt.Errorf("listen address %q: %w", s, err)
		}
		if _, err := a.ValueForProtocol(ma.P_P2P); err == nil {
			return nil, fmt.Errorf("listen address %q: leave out /p2p/…: a node listens with its own identity", s)
		}
		return []ma.Multiaddr{a}, nil
	}
	host, port, err := SplitHostPort(s)
	if err != nil {
		return nil, fmt.Errorf("listen address %q: %w", s, err)
	}
	var ips []netip.Addr
	switch strings.ToLower(host) {
	case "":
		ips = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	case "localhost":
		ips = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	default:
		ip, err := netip.ParseAddr(host)
		if err != nil {
			return nil, fmt.Errorf("listen address %q: %q is neither an IP address nor localhost: write :%d for all addresses", s, host, port)
		}
		ips = []netip.Addr{ip}
	}
	var out []ma.Multiaddr
	for _, ip := range ips {
		prefix, err := ipComponent(ip)
		if err != nil {
			return nil, fmt.Errorf("listen address %q: %w", s, err)
		}
		for _, format := range transports {
			t, err := ma.NewMultiaddr(fmt.Sprintf(format, port))
			if err != nil {
				return nil, fmt.Errorf("listen address %q: %w", s, err)
			}
			out = append(out, prefix.Encapsulate(t))
		}
	}
	return out, nil
}
