package p2p

import (
	"context"
	"slices"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/host/reach"
	"github.com/lynn9388/p2p/internal/addr"
)

// Reachability tells how others reach this node, as far as its relays know: whether it is public, what kind of NAT is in
// between, and what each relay does for it. It is empty with the profile [LAN], and before the start.
func (n *Node) Reachability() reach.Status {
	if r := n.begun(); r != nil && r.reach != nil {
		return r.reach.Status()
	}
	return reach.Status{}
}

// openReach readies the part that keeps the node reachable across NATs.
func (r *running) openReach() (err error) {
	c := r.node.config
	if c.profile == profileLAN {
		return nil
	}
	r.reach, err = reach.New(r.host, reach.Config{
		Relays:  c.relayInfos(),
		Network: c.network,
		Allow:   r.node.access.mayConnect,
		Logger:  r.log,
		Metrics: c.metrics,
	})
	return err
}

// keepReachable runs that part, and makes the node a server of the table while it is public: others would dial one behind
// a NAT in vain.
func (r *running) keepReachable() {
	if r.reach == nil {
		return
	}
	changes := r.reach.Changes(r.ctx)
	r.background("reach", r.reach.Run)
	if r.node.config.profile != profileWAN {
		return // a relay is public, or there is no use for it
	}
	r.background("reachability", func(ctx context.Context) error {
		for {
			select {
			case <-ctx.Done(): // the channel is closed with the other part, unless the context has ended before
				return nil
			case _, ok := <-changes:
				if !ok {
					return nil
				}
				r.table.SetServer(r.reach.Status().Reachability == network.ReachabilityPublic)
			}
		}
	})
}

// mayCarry tells through which relays peers may be reached; nil: through none.
func (r *running) mayCarry() func(peer.ID) bool {
	if r.node.config.profile == profileLAN {
		return nil
	}
	return r.node.access.mayConnect
}

// relayInfos are the relays, each once with all the addresses that it was named with.
func (c *config) relayInfos() []peer.AddrInfo {
	var out []peer.AddrInfo
	for _, relay := range c.relays {
		i := slices.IndexFunc(out, func(info peer.AddrInfo) bool { return info.ID == relay.info.ID })
		if i < 0 {
			out = append(out, peer.AddrInfo{ID: relay.info.ID})
			i = len(out) - 1
		}
		out[i].Addrs = append(out[i].Addrs, relay.info.Addrs...)
	}
	return out
}

// findPeer returns where a peer may be of which nobody has told: behind one of this node's relays, each of which says at
// once whether it is; and when it is asked again, since it was not, where the table says.
func (r *running) findPeer(ctx context.Context, p peer.ID) ([]ma.Multiaddr, error) {
	if !r.node.access.mayConnect(p) {
		return nil, errUnlisted
	}
	known := r.host.Peerstore().Addrs(p)
	var out []ma.Multiaddr
	for _, relay := range r.node.config.relayIDs() {
		a, err := addr.ThroughRelay(relay, nil)
		if err == nil && relay != p && !slices.ContainsFunc(known, a.Equal) {
			out = append(out, a)
		}
	}
	if len(out) > 0 || r.table == nil {
		return out, nil
	}
	info, err := r.table.FindPeer(ctx, p)
	return info.Addrs, err
}
