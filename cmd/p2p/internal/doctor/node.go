package doctor

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/discovery/mdns"
	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/addr"
	"github.com/lynn9388/p2p/internal/sockets"
	"github.com/lynn9388/p2p/protocols/pathinfo"
)

const (
	nameIdentity = "identity"
	// maxAsked is how many neighbors are asked something, and askTimeout how long they may take; dialTimeout, when they are
	// to dial.
	maxAsked    = 5
	askTimeout  = 3 * time.Second
	dialTimeout = 8 * time.Second
)

// A Subject is a running node, and what it was told to do.
type Subject struct {
	Node     *p2p.Node
	Profile  string      // lan, wan or relay
	Relays   []string    // the relays' places, as they were named
	Announce []string    // see p2p.WithAnnounce
	Mapping  bool        // the router is asked to map ports
	MDNS     *mdns.State // nil: the node does not search the links
	Clone    string      // what was said of another node with this identity; empty: none was met
}

// Examine looks at the node from inside its process, and contacts nobody but its relays and neighbors.
func (s Subject) Examine(ctx context.Context) []Check {
	h, st := s.Node.Host(), s.Node.Reachability()
	all, err := host.Interfaces()
	out := []Check{s.identity(), Interfaces(all, err)}
	if s.MDNS != nil {
		out = append(out, Multicast(*s.MDNS))
	}
	own, err := sockets.Own()
	out = append(out, Ports(h.Network().ListenAddresses(), s.MDNS != nil, own, err))
	out = append(out, Announced(s.Node.Addrs(), s.Announce, s.Profile == "relay"))
	if s.Profile == "wan" {
		out = append(out, Relays(s.knock(ctx), st)...)
		out = append(out, NAT(st), Mapping(s.Mapping, mapped(s.allAddrs(), all)))
	}
	if s.Profile == "relay" {
		out = append(out, Reached(s.askedToDial(ctx)))
	}
	out = append(out, Clock(time.Now(), s.offsets(ctx)))
	limits := Machine()
	if cm, ok := h.ConnManager().(interface{ GetInfo() connmgr.CMInfo }); ok {
		info := cm.GetInfo()
		limits.Connections, limits.MaxConnections = info.ConnCount, info.HighWater
	}
	return append(out, limits.Judge()...)
}

// identity tells whether somebody else has the node's identity.
func (s Subject) identity() Check {
	if s.Clone != "" {
		return fail(nameIdentity, "%s", s.Clone).todo("give each node a home of its own, and never copy one")
	}
	return pass(nameIdentity, "nobody else was met with the identity of this node")
}

// knock asks who answers at the relays' places.
func (s Subject) knock(ctx context.Context) []Door {
	doors := make([]Door, len(s.Relays))
	var wg sync.WaitGroup
	for i, place := range s.Relays {
		wg.Go(func() {
			d, err := KnockAt(ctx, s.Node.Host(), place)
			if err != nil {
				d = Door{Place: place}
			}
			doors[i] = d
		})
	}
	wg.Wait()
	return doors
}

// allAddrs are the addresses that the host has found, those that it does not tell others included.
func (s Subject) allAddrs() []ma.Multiaddr {
	if h, ok := s.Node.Host().(interface{ AllAddrs() []ma.Multiaddr }); ok {
		return h.AllAddrs()
	}
	return nil
}

// mapped are the public addresses that belong to no interface: the router's.
func mapped(addrs []ma.Multiaddr, interfaces []host.Interface) []ma.Multiaddr {
	return slices.DeleteFunc(slices.Clone(addrs), func(a ma.Multiaddr) bool {
		ip, ok := addr.IP(a)
		if !ok || addr.ScopeOf(a) != addr.Public {
			return true
		}
		for _, i := range interfaces {
			for _, p := range i.Addrs {
				if p.Addr() == ip {
					return true
				}
			}
		}
		return false
	})
}

// neighbors are some of those that the node keeps connected: the relays are among them.
func (s Subject) neighbors(most int) []peer.ID {
	var ids []peer.ID
	for _, p := range s.Node.Peers() {
		if p.State == p2p.StateNeighbor && len(ids) < most {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

// look asks peers how they see this node, all at once, and returns what those say that answer.
func (s Subject) look(ctx context.Context, ids []peer.ID, dial bool, timeout time.Duration, each func(id peer.ID, v pathinfo.View, ahead time.Duration)) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, id := range ids {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			v, ahead, err := pathinfo.Look(ctx, s.Node.Peer(id.String()), dial)
			if err != nil {
				return // it is of another version, or does not let this node call: others may say it
			}
			mu.Lock()
			defer mu.Unlock()
			each(id, v, ahead)
		})
	}
	wg.Wait()
}

// offsets asks neighbors for their time.
func (s Subject) offsets(ctx context.Context) (out []Offset) {
	s.look(ctx, s.neighbors(maxAsked), false, askTimeout, func(id peer.ID, v pathinfo.View, ahead time.Duration) {
		if !v.Time.IsZero() {
			out = append(out, Offset{Peer: id.String(), Ahead: ahead})
		}
	})
	return out
}

// askedToDial has neighbors dial this node.
func (s Subject) askedToDial(ctx context.Context) (out []pathinfo.View) {
	s.look(ctx, s.neighbors(maxAsked), true, dialTimeout, func(_ peer.ID, v pathinfo.View, _ time.Duration) {
		out = append(out, v)
	})
	return out
}
