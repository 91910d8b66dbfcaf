package p2p

import (
	"context"
	"iter"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/discovery"
	"github.com/lynn9388/p2p/grpcstream"
	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/addr"
	"github.com/lynn9388/p2p/internal/safetext"
)

// eventKind says which of the keeper's events the node passes on, and under which name.
func eventKind(k discovery.EventKind) PeerEventKind {
	switch k {
	case discovery.PeerFound:
		return PeerFound
	case discovery.PeerNeighbor:
		return PeerJoined
	case discovery.PeerLeft:
		return PeerLeft
	case discovery.PeerUnreachable:
		return PeerUnreachable
	case discovery.PeerClone:
		return PeerCloned
	case discovery.PeerIdentityChanged, discovery.PeerIdentityRefused:
		return PeerChanged
	default:
		return ""
	}
}

// relay passes what happens on to those who read the node's events. Both sequences began before the node listens.
func (r *running) relay(peers iter.Seq[discovery.Event], services iter.Seq[grpcstream.ServiceEvent]) {
	r.background("peer events", func(context.Context) error {
		for e := range peers {
			if e.Kind == discovery.PeerLeft {
				r.refresh()
			}
			if kind := eventKind(e.Kind); kind != "" {
				r.events.Publish(PeerEvent{Kind: kind, Time: e.Time, Peer: r.peerInfo(e.Peer), Err: e.Err})
			}
		}
		return nil
	})
	r.background("service events", func(context.Context) error {
		for e := range services {
			if e.Peer == r.host.ID() {
				r.announce()
				continue
			}
			kind := ServiceAdded
			if e.Gone {
				kind = ServiceRemoved
			}
			known, _ := r.keeper.Peer(e.Peer)
			known.ID = e.Peer
			r.events.Publish(PeerEvent{Kind: kind, Time: time.Now(), Peer: r.peerInfo(known), Service: safetext.Clean(e.Service)})
		}
		return nil
	})
}

// refresh makes the sources that can, look again at once: a neighbor that was lost may be back at another address.
func (r *running) refresh() {
	for _, s := range r.sources {
		if again, ok := s.(interface{ Refresh() }); ok {
			again.Refresh()
		}
	}
}

// peers is what is known of everybody.
func (r *running) peers() []PeerInfo {
	known := r.keeper.Peers()
	out := make([]PeerInfo, 0, len(known))
	for _, p := range known {
		out = append(out, r.peerInfo(p))
	}
	return out
}

// peerInfo joins what the keeper knows of a peer with what its connection and its services tell.
func (r *running) peerInfo(p discovery.Peer) PeerInfo {
	version, name := parseAgent(p.Agent)
	info := PeerInfo{
		ID: p.ID, State: PeerState(p.State), Addrs: p.Addrs, Source: p.Source, RTT: p.RTT, Since: p.Since,
		Name: safetext.Clean(name), Version: safetext.Clean(version), LastError: safetext.Clean(p.LastError),
	}
	if r.book != nil {
		info.Pinned = safetext.Clean(r.book.Name(p.ID))
	}
	for _, s := range r.channel.Services(p.ID) {
		info.Services = append(info.Services, safetext.Clean(s))
	}
	if c := connTo(r.host.Network(), p.ID); c != nil {
		at := grpcstream.PeerOf(c)
		info.Path, info.Transport = string(at.Path), at.Transport
		info.Addrs = connectedFirst(c.RemoteMultiaddr(), info.Addrs)
	}
	return info
}

// connTo returns the connection to a peer that lasts the longest: a direct one if there is any.
func connTo(n network.Network, p peer.ID) network.Conn {
	var best network.Conn
	for _, c := range n.ConnsToPeer(p) {
		if best == nil || best.Stat().Limited && !c.Stat().Limited {
			best = c
		}
	}
	return best
}

func connectedFirst(first ma.Multiaddr, rest []ma.Multiaddr) []ma.Multiaddr {
	out := []ma.Multiaddr{first}
	for _, a := range rest {
		if !a.Equal(first) {
			out = append(out, a)
		}
	}
	return out
}

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
	local := len(r.node.config.announce) == 0 && addr.LoopbackOnly(r.host.Network().ListenAddresses())
	if local {
		at = append(at, "reach", "this machine only")
	}
	r.log.Info("listening", at...)
	r.log.Info("open", "to", r.node.config.access(local))
}

// access says in a few words who may connect and call.
func (c *config) access(local bool) string {
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

// listenPort is the port that the node listens at.
func listenPort(h interface{ Network() network.Network }) string {
	for _, a := range h.Network().ListenAddresses() {
		for _, p := range []int{ma.P_TCP, ma.P_UDP} {
			if v, err := a.ValueForProtocol(p); err == nil {
				return v
			}
		}
	}
	return ""
}
