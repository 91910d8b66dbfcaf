package addr

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	ma "github.com/multiformats/go-multiaddr"
)

// ParseAnnounce reads an address to announce: "host" or "host:port", with an IP address or a host name, IPv6 addresses
// with or without brackets. It returns the address without a port, to be completed by [Transports], and the port,
// which is 0 when none was named.
func ParseAnnounce(s string) (host ma.Multiaddr, port uint16, err error) {
	name := s
	if ip, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		name = ip.String()
	} else if _, _, err := net.SplitHostPort(s); err == nil {
		if name, port, err = SplitHostPort(s); err != nil {
			return nil, 0, fmt.Errorf("announced address %q: %w", s, err)
		}
		if port == 0 {
			return nil, 0, fmt.Errorf("announced address %q: port 0 cannot be dialed: leave the port out to announce the listening port", s)
		}
	}
	if name == "" {
		return nil, 0, fmt.Errorf("announced address %q: the host is missing", s)
	}
	if ip, err := netip.ParseAddr(name); err == nil && IPScope(ip) == Unusable {
		return nil, 0, fmt.Errorf("announced address %q: %s names no host", s, ip)
	}
	host, err = hostComponent(name)
	if err != nil {
		return nil, 0, fmt.Errorf("announced address %q: %w", s, err)
	}
	return host, port, nil
}

// Transports returns the TCP and the QUIC address of a host, an address such as [ParseAnnounce] returns. A port of 0
// leaves its transport out.
func Transports(host ma.Multiaddr, tcp, udp uint16) ([]ma.Multiaddr, error) {
	var out []ma.Multiaddr
	for _, t := range []struct {
		port   uint16
		format string
	}{{tcp, "/tcp/%d"}, {udp, "/udp/%d/quic-v1"}} {
		if t.port == 0 {
			continue
		}
		a, err := ma.NewMultiaddr(fmt.Sprintf(t.format, t.port))
		if err != nil {
			return nil, err
		}
		out = append(out, host.Encapsulate(a))
	}
	return out, nil
}
