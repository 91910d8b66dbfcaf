package mdns

import (
	"net"
	"slices"
	"time"

	corenet "github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
)

// hear takes in what a link has heard.
func (r *run) hear(p packet, now time.Time) {
	l := p.link
	if l.conn == nil || r.links[l.id] != l { // it came while the link was closed
		return
	}
	own := r.instance
	if p.asks && !slices.Contains(p.known, own) {
		l.answer(now)
	}
	if p.asks && len(p.known) > 0 && p.known[0] == own { // our own question
		l.looped = true
	}
	for _, a := range p.found {
		if a.instance == own {
			l.looped = true
			continue
		}
		r.hearOne(l, a, now)
	}
	for _, instance := range p.gone {
		if instance != own {
			r.table.goodbye(instance, l.id.index)
		}
	}
}

func (r *run) hearOne(l *link, a announced, now time.Time) {
	a.info.Addrs = believable(a.info.Addrs, l.iface.Flags&net.FlagLoopback != 0)
	if a.info.ID == r.self {
		// Somebody else has our identity. At our own addresses it is only an echo of ourselves.
		a.info.Addrs = slices.DeleteFunc(a.info.Addrs, func(x ma.Multiaddr) bool { return slices.ContainsFunc(r.addrs, x.Equal) })
	}
	if len(a.info.Addrs) == 0 {
		return
	}
	connected := r.host.Network().Connectedness(a.info.ID) == corenet.Connected
	if info, ok := r.table.hear(a, l.id.index, connected, now); ok {
		r.log.Debug("heard", "peer", info.ID, "interface", l.iface.Name, "addr", info.Addrs)
		r.found(info)
	}
}

// believable keeps the addresses that may come from an interface: loopback addresses come over loopback only.
func believable(addrs []ma.Multiaddr, loopback bool) []ma.Multiaddr {
	return slices.DeleteFunc(addrs, func(a ma.Multiaddr) bool {
		scope := addr.ScopeOf(a)
		return scope == addr.Unusable || (scope == addr.Loopback) != loopback
	})
}
