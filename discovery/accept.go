package discovery

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
)

// maxRawAddrs bounds how many addresses of one message are looked at.
const maxRawAddrs = 256

// accepts tells whether an address that was learnt by way of o may be dialed.
func (o Origin) accepts(a ma.Multiaddr) bool {
	s := addr.ScopeOf(a)
	if s == addr.Unusable || !dialable(a) {
		return false
	}
	if o.Explicit {
		return true
	}
	scope := o.Scope
	if scope == addr.Unusable {
		scope = Public
	}
	return s >= scope
}

// dialable tells whether a is IP, port and nothing that leads further: an address through a relay makes the relay
// dial, so only those who run relays may name one.
func dialable(a ma.Multiaddr) bool {
	port := false
	for _, c := range a {
		switch c.Protocol().Code {
		case ma.P_CIRCUIT, ma.P_P2P, ma.P_DNS, ma.P_DNS4, ma.P_DNS6, ma.P_DNSADDR, ma.P_UNIX:
			return false
		case ma.P_TCP, ma.P_UDP:
			port = c.Value() != "0"
		}
	}
	return port
}

// accepted returns those of addrs that o may name, each once, without /p2p/ID, and at most MaxAddrs. An address that
// names another peer than p is dropped.
func accepted(p peer.ID, addrs []ma.Multiaddr, o Origin) []ma.Multiaddr {
	var out []ma.Multiaddr
	for i, a := range addrs {
		if i >= maxRawAddrs || len(out) >= MaxAddrs {
			break
		}
		if a == nil {
			continue
		}
		transport, id := peer.SplitAddr(a)
		if transport == nil || id != "" && id != p {
			continue
		}
		if !o.accepts(transport) || slices.ContainsFunc(out, transport.Equal) {
			continue
		}
		out = append(out, transport)
	}
	return out
}

// Accepted returns those of the addresses, said to be p's, that o may name: each once, without /p2p/ID, and at most
// [MaxAddrs]. An address that names another peer than p is dropped.
func (o Origin) Accepted(p peer.ID, addrs []ma.Multiaddr) []ma.Multiaddr {
	return accepted(p, addrs, o)
}

// connScope is the scope of what may be learnt over a connection from remote. A connection whose address says
// nothing, or that goes over a relay, gives no right to name anything but public addresses.
func connScope(remote ma.Multiaddr) Scope {
	if remote == nil {
		return Public
	}
	if _, err := remote.ValueForProtocol(ma.P_CIRCUIT); err == nil {
		return Public
	}
	if s := addr.ScopeOf(remote); s != addr.Unusable {
		return s
	}
	return Public
}

// ScopeTo is the scope of the connections between h and p: the narrowest, since whoever is on this machine or link
// may be told of it. It is Public when there is none.
func ScopeTo(n network.Network, p peer.ID) Scope {
	scope := Public
	for _, c := range n.ConnsToPeer(p) {
		scope = min(scope, connScope(c.RemoteMultiaddr()))
	}
	return scope
}
