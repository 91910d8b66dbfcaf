// Package addr reads the addresses that people write and tells how far an address reaches.
//
// There are three things that a person names: where to listen ([ParseListen]), a place to join ([ParseJoin]) and a
// peer ([ParsePeer]). All three take the short forms (host:port, ID@host:port, ID@RELAY@host:port) and multiaddrs. A
// place that is joined or called may be ws://host:port or wss://host:port in place of host:port, which stands for TCP and
// QUIC: WebSocket, without and with TLS around it.
package addr

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// ParsePeer reads a peer: "ID", "ID@host:port", "ID@RELAY@host:port" for one that is reached through the relay with the
// ID RELAY, or a multiaddr that ends in /p2p/ID. The addresses of the result are empty for a bare ID, and are without
// /p2p/ID otherwise.
func ParsePeer(s string) (peer.AddrInfo, error) {
	switch {
	case strings.HasPrefix(s, "/"):
		info, err := peer.AddrInfoFromString(s)
		if err != nil {
			return peer.AddrInfo{}, fmt.Errorf("peer %q: not a multiaddr that ends in /p2p/ID: %w", s, err)
		}
		return *info, nil
	case strings.Contains(s, "@"):
		name, hostport, _ := strings.Cut(s, "@")
		id, err := peer.Decode(name)
		if err != nil {
			return peer.AddrInfo{}, fmt.Errorf("peer %q: %q is not a peer ID: %w", s, name, err)
		}
		addrs, err := fromPlace(hostport)
		if err != nil {
			return peer.AddrInfo{}, fmt.Errorf("peer %q: %w", s, err)
		}
		return peer.AddrInfo{ID: id, Addrs: addrs}, nil
	default:
		id, err := peer.Decode(s)
		if err != nil {
			return peer.AddrInfo{}, fmt.Errorf("peer %q: not a peer ID, ID@host:port or multiaddr: %w", s, err)
		}
		return peer.AddrInfo{ID: id}, nil
	}
}

// ParseJoin reads a place to join: what [ParsePeer] reads except a bare ID, and also "host:port" and a multiaddr
// without a peer ID, for which the ID of the result is empty.
func ParseJoin(s string) (peer.AddrInfo, error) {
	switch {
	case strings.HasPrefix(s, "/"):
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			return peer.AddrInfo{}, fmt.Errorf("address %q: %w", s, err)
		}
		if _, err := a.ValueForProtocol(ma.P_P2P); err == nil {
			info, err := ParsePeer(s)
			if err == nil && len(info.Addrs) == 0 {
				return peer.AddrInfo{}, fmt.Errorf("address %q: a peer ID alone names no place: write %s@host:port", s, info.ID)
			}
			return info, err
		}
		return peer.AddrInfo{Addrs: []ma.Multiaddr{a}}, nil
	case strings.Contains(s, "@"):
		return ParsePeer(s)
	default:
		if _, err := peer.Decode(s); err == nil {
			return peer.AddrInfo{}, fmt.Errorf("address %q: a peer ID alone names no place: write %s@host:port", s, s)
		}
		addrs, err := fromHostPort(s)
		if err != nil {
			return peer.AddrInfo{}, fmt.Errorf("address %q: %w", s, err)
		}
		return peer.AddrInfo{Addrs: addrs}, nil
	}
}

// fromPlace returns the addresses of host:port, or of RELAY@host:port: through the relay that is there.
func fromPlace(s string) ([]ma.Multiaddr, error) {
	name, hostport, relayed := strings.Cut(s, "@")
	if !relayed {
		return fromHostPort(s)
	}
	relay, err := peer.Decode(name)
	if err != nil {
		return nil, fmt.Errorf("relay %q is not a peer ID: %w", name, err)
	}
	addrs, err := fromHostPort(hostport)
	if err != nil {
		return nil, fmt.Errorf("relay %s: %w", relay, err)
	}
	circuit, err := ma.NewMultiaddr("/p2p/" + relay.String() + "/p2p-circuit")
	if err != nil {
		return nil, err
	}
	for i, a := range addrs {
		addrs[i] = a.Encapsulate(circuit)
	}
	return addrs, nil
}

// fromHostPort returns the TCP and the QUIC address of host:port, or the WebSocket address of ws://host:port.
func fromHostPort(s string) ([]ma.Multiaddr, error) {
	s, secure := strings.CutPrefix(s, "wss://")
	s, plain := strings.CutPrefix(s, "ws://")
	host, port, err := SplitHostPort(s)
	if err != nil {
		return nil, err
	}
	if host == "" {
		return nil, errors.New("the host before the port is missing")
	}
	if port == 0 {
		return nil, errors.New("port 0 cannot be dialed")
	}
	if ip, err := netip.ParseAddr(host); err == nil && (ip.Unmap().IsUnspecified() || ip.IsMulticast()) {
		return nil, fmt.Errorf("%s names no host that can be dialed", ip)
	}
	prefix, err := hostComponent(host)
	if err != nil {
		return nil, err
	}
	format := "/tcp/%d/ws"
	switch {
	case secure && plain:
		return nil, errors.New("write one of ws:// and wss://")
	case secure:
		format = "/tcp/%d/tls/ws"
	case !plain:
		return Transports(prefix, port, port)
	}
	socket, err := ma.NewMultiaddr(fmt.Sprintf(format, port))
	if err != nil {
		return nil, err
	}
	return []ma.Multiaddr{prefix.Encapsulate(socket)}, nil
}

// SplitHostPort splits "host:port"; the port must be a number from 0 to 65535.
func SplitHostPort(s string) (host string, port uint16, err error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		if ae, ok := errors.AsType[*net.AddrError](err); ok {
			return "", 0, fmt.Errorf("%s: write host:port, for example localhost:9388 or [::1]:9388", ae.Err)
		}
		return "", 0, err
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q is not a number from 0 to 65535", p)
	}
	return host, uint16(n), nil
}

// hostComponent turns an IP address or a host name into the first component of a multiaddr. "localhost" is
// 127.0.0.1: a name server has no say in it.
func hostComponent(host string) (ma.Multiaddr, error) {
	if strings.EqualFold(host, "localhost") {
		host = "127.0.0.1"
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ipComponent(ip)
	}
	if !HostName(host) {
		return nil, fmt.Errorf("%q is neither an IP address nor a host name", host)
	}
	a, err := ma.NewMultiaddr("/dns/" + host)
	if err != nil {
		return nil, fmt.Errorf("%q is not a host name: %w", host, err)
	}
	return a, nil
}

// HostName tells whether s may name a host: labels of letters, digits, - and _, the last of which is no number, so
// that a mistyped IP address is not looked up.
func HostName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if len(s) > 253 {
		return false
	}
	last := ""
	for last = range strings.SplitSeq(s, ".") {
		if last == "" || len(last) > 63 || strings.ContainsFunc(last, func(r rune) bool {
			return r == utf8.RuneError || r != '-' && r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r)
		}) {
			return false
		}
	}
	_, err := strconv.ParseUint(last, 0, 64)
	return err != nil
}

func ipComponent(ip netip.Addr) (ma.Multiaddr, error) {
	ip = ip.Unmap()
	s := "/ip4/" + ip.WithZone("").String()
	if ip.Is6() {
		s = "/ip6/" + ip.WithZone("").String()
		if ip.Zone() != "" {
			s = "/ip6zone/" + ip.Zone() + s
		}
	}
	return ma.NewMultiaddr(s)
}
