package discovery

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
)

// Limits on the addresses of one peer in one message.
const (
	// maxRawAddrs bounds how many are looked at.
	maxRawAddrs = 256
	// maxCircuits bounds how many lead through relays, so that they leave room for direct ones; maxRelays through how many
	// relays, since each may cost a connection to it. A node needs one relay and is better off with two.
	maxCircuits = MaxAddrs / 2
	maxRelays   = 3
)

// accepts tells whether an address that was learnt by way of o, and leads through no relay, may be dialed.
func (o Origin) accepts(a ma.Multiaddr) bool {
	s := addr.ScopeOf(a)
	if s == addr.Unusable || !dialable(a) {
		return false
	}
	if o.Explicit {
		return true
	}
	if s == Public && o.onLink != nil {
		ip, ok := addr.IP(a)
		return ok && o.onLink(ip)
	}
	scope := o.Scope
	if scope == addr.Unusable {
		scope = Public
	}
	return s >= scope
}

// circuit returns an address of p's that leads through a relay in the form in which it may be dialed, and the relay. Of
// a relay that o lets through, an address that o may not name is left out: what is known of the relay otherwise counts.
func (o Origin) circuit(p peer.ID, a ma.Multiaddr) (ma.Multiaddr, peer.ID, bool) {
	relay, at, ok := addr.SplitRelay(a)
	if !ok || relay == p || !o.Explicit && (o.Relay == nil || !o.Relay(relay)) {
		return nil, "", false
	}
	switch {
	case at != nil && o.accepts(at):
		return a, relay, true
	case at != nil && o.Explicit:
		return nil, "", false // it was meant
	}
	short, err := addr.ThroughRelay(relay, nil)
	return short, relay, err == nil
}

// dialable tells whether a is IP, port and nothing that leads further, nor a name that is none.
func dialable(a ma.Multiaddr) bool {
	port := false
	for _, c := range a {
		switch c.Protocol().Code {
		case ma.P_CIRCUIT, ma.P_P2P, ma.P_DNS, ma.P_DNS4, ma.P_DNS6, ma.P_DNSADDR, ma.P_UNIX:
			return false
		case ma.P_SNI:
			if !addr.HostName(c.Value()) { // it may be any bytes
				return false
			}
		case ma.P_TCP, ma.P_UDP:
			port = c.Value() != "0"
		}
	}
	return port
}

// accepted returns those of addrs that o may name, each once, without /p2p/ID, and at most MaxAddrs: the direct ones
// first. An address that names another peer than p is dropped.
func accepted(p peer.ID, addrs []ma.Multiaddr, o Origin) []ma.Multiaddr {
	var direct, circuits []ma.Multiaddr
	var relays []peer.ID
	for _, a := range addrs[:min(len(addrs), maxRawAddrs)] {
		if a == nil {
			continue
		}
		transport, id := peer.SplitAddr(a)
		if transport == nil || id != "" && id != p {
			continue
		}
		if !addr.Relayed(transport) {
			if len(direct) < MaxAddrs && o.accepts(transport) && !slices.ContainsFunc(direct, transport.Equal) {
				direct = append(direct, transport)
			}
			continue
		}
		c, relay, ok := o.circuit(p, transport)
		if !ok || len(circuits) >= maxCircuits || slices.ContainsFunc(circuits, c.Equal) {
			continue
		}
		if !slices.Contains(relays, relay) {
			if len(relays) >= maxRelays {
				continue
			}
			relays = append(relays, relay)
		}
		circuits = append(circuits, c)
	}
	return append(direct[:min(len(direct), MaxAddrs-len(circuits))], circuits...)
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
