package p2p

import (
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/addr"
)

// addrs are the node's own addresses, complete with its ID.
func (r *running) addrs() []ma.Multiaddr {
	out, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: r.host.ID(), Addrs: host.Addrs(r.host)})
	if err != nil {
		return nil
	}
	return out
}

// logStart tells a person where the node listens and to whom it is open.
func (r *running) logStart() {
	for _, a := range host.Addrs(r.host) {
		if hp, ok := addr.HostPort(a); ok {
			r.log.Debug("address", "addr", hp, "proto", a.String())
		}
	}
	listen := r.node.config.listen
	if at, ok := strings.CutSuffix(listen, ":0"); ok {
		listen = at + ":" + listenPort(r.host)
	}
	at := []any{"addr", listen, "peer", r.host.ID().String()}
	// Judged by where it listens: the addresses of now may be all loopback because the cable is out.
	local := len(r.node.config.announce) == 0 && len(r.node.config.relays) == 0 && addr.LoopbackOnly(r.host.Network().ListenAddresses())
	if local {
		at = append(at, "reach", "this machine only")
	}
	r.log.Info("listening", at...)
	r.log.Info("open", "to", r.node.config.says(local))
	if r.node.config.profile == profileRelay && !local && r.privateOnly() {
		r.log.Warn("this relay has private addresses only, so nobody beyond its own network reaches it: give WithAnnounce the address of the 1:1 NAT or forwarded port in front of it", "kind", "private relay")
	}
}

// privateOnly tells whether no address of the node is of use beyond its own network.
func (r *running) privateOnly() bool {
	return len(r.node.config.announce) == 0 && !slices.ContainsFunc(host.Addrs(r.host), func(a ma.Multiaddr) bool {
		return addr.ScopeOf(a) == addr.Public
	})
}

// listenPort is the port that the node listens at.
func listenPort(h interface{ Network() network.Network }) string {
	for _, a := range h.Network().ListenAddresses() {
		if addr.WebSocket(a) {
			continue
		}
		for _, p := range []int{ma.P_TCP, ma.P_UDP} {
			if v, err := a.ValueForProtocol(p); err == nil {
				return v
			}
		}
	}
	return ""
}

// says is in a few words who may connect and call.
func (c *config) says(local bool) string {
	switch {
	case c.listed() && c.authorize != nil:
		return "the peers of the allow list, as the authorizer decides"
	case c.listed():
		return "the peers of the allow list"
	case c.authorize != nil:
		return "those whom the authorizer lets in"
	case local:
		return "every process of this machine"
	default:
		return "every node of the network " + c.network + " that reaches this one; WithAllow closes it"
	}
}
