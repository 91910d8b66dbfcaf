package p2p

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/lynn9388/p2p/discovery"
	"github.com/lynn9388/p2p/grpcstream"
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
	case discovery.PeerPathChanged:
		return PeerPathChanged
	case discovery.PeerClone:
		return PeerCloned
	case discovery.PeerIdentityChanged, discovery.PeerIdentityRefused:
		return PeerChanged
	default:
		return ""
	}
}

// passOn passes what happens on to those who read the node's events. The sequences began before the node listens.
func (r *running) passOn(peers iter.Seq[discovery.Event], services iter.Seq[grpcstream.ServiceEvent]) {
	r.background("peer events", func(context.Context) error {
		for e := range peers {
			if e.Kind == discovery.PeerLeft {
				r.refresh()
			}
			kind := eventKind(e.Kind)
			if kind == "" {
				continue
			}
			info := r.peerInfo(e.Peer)
			if kind == PeerPathChanged {
				r.metrics.moved(e.Peer.Path.Relay != "") // as it was then: it may be on no path by now
			}
			r.events.Publish(PeerEvent{Kind: kind, Time: e.Time, Peer: info, Err: e.Err})
		}
		return nil
	})
	r.background("service events", func(context.Context) error {
		var info PeerInfo
		var offered []string // info.Services, for the reader of an event has those
		var at time.Time     // when info was made
		for e := range services {
			if e.Peer == r.host.ID() {
				r.announce()
				continue
			}
			kind := ServiceAdded
			if e.Gone {
				kind = ServiceRemoved
			}
			now, service := time.Now(), safetext.Clean(e.Service)
			_, has := slices.BinarySearch(offered, service)
			if info.ID != e.Peer || has == e.Gone || now.Sub(at) > time.Second { // a catalog of thousands is as many events
				known, _ := r.keeper.Peer(e.Peer)
				known.ID = e.Peer
				info, at = r.peerInfo(known), now
				offered = slices.Clone(info.Services)
			}
			r.events.Publish(PeerEvent{Kind: kind, Time: now, Peer: info, Service: service})
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
