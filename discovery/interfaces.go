package discovery

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/addr"
)

// watchInterfaces keeps up with the machine's addresses.
func (k *Keeper) watchInterfaces(ctx context.Context) {
	var before map[netip.Addr]bool
	err := host.WatchInterfaces(ctx, func(interfaces []host.Interface) {
		k.setLinks(interfaces)
		now := make(map[netip.Addr]bool)
		for _, i := range interfaces {
			for _, p := range i.Addrs {
				now[p.Addr().Unmap().WithZone("")] = true
			}
		}
		if before != nil {
			k.networkChanged(before, now)
		}
		before = now
	})
	if err != nil && ctx.Err() == nil {
		k.log.Warn("cannot follow the network interfaces: address changes are noticed late", "err", err)
	}
}

// setLinks takes which networks are on the machine's links.
func (k *Keeper) setLinks(interfaces []host.Interface) []netip.Prefix {
	var links []netip.Prefix
	for _, i := range interfaces {
		links = append(links, i.Addrs...)
	}
	k.links.Store(&links)
	return links
}

// onLink tells whether an IP address is of a link of this machine.
func (k *Keeper) onLink(ip netip.Addr) bool {
	links := k.links.Load()
	if links == nil { // Run has not begun
		interfaces, err := host.Interfaces()
		if err != nil {
			return false
		}
		now := k.setLinks(interfaces)
		links = &now
	}
	return slices.ContainsFunc(*links, func(p netip.Prefix) bool { return p.Contains(ip.Unmap().WithZone("")) })
}

// ledTo tells whether this node has dialed p beyond its links.
func (k *Keeper) ledTo(p peer.ID) bool {
	return slices.ContainsFunc(k.h.Network().ConnsToPeer(p), func(c network.Conn) bool {
		ip, ok := addr.IP(c.RemoteMultiaddr())
		return ok && c.Stat().Direction == network.DirOutbound && addr.IPScope(ip) == Public && !k.onLink(ip)
	})
}

// networkChanged closes the connections from addresses that are gone, looks whether the others still work, and makes
// all that waits to be dialed due.
func (k *Keeper) networkChanged(before, now map[netip.Addr]bool) {
	gone := false
	for ip := range before {
		gone = gone || !now[ip]
	}
	if gone {
		for _, c := range k.h.Network().Conns() {
			ip, ok := addr.IP(c.LocalMultiaddr())
			if ip = ip.Unmap().WithZone(""); ok && before[ip] && !now[ip] {
				_ = c.Close() // it is dead
			}
		}
	}
	k.tellMoved()
	k.input(func(c *core) {
		c.hurry()
		if !gone {
			return
		}
		for p, e := range c.peers {
			if e.conns > 0 {
				c.do(action{kind: actPing, peer: p, look: lookDoubt, timeout: checkTimeout})
			}
		}
	})
}

// tellMoved tells those who want to know that the network changed.
func (k *Keeper) tellMoved() {
	k.mu.Lock()
	moved := k.moved
	k.mu.Unlock()
	for _, f := range moved {
		f()
	}
}

const (
	// clockEvery is how often the clock is looked at.
	clockEvery = time.Second
	// asleep is by how much it must have gone on from one look to the next before the machine, or this process, is taken
	// to have slept. Routers and other nodes may have forgotten it by then.
	asleep = 5 * time.Second
)

// watchClock notices that the machine slept: its monotonic clock stood still or its timers came late.
func (k *Keeper) watchClock(ctx context.Context, now func() time.Time) {
	tick := time.NewTicker(clockEvery)
	defer tick.Stop()
	for last := now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		before := last
		last = now()
		if d := max(last.Sub(before), last.Round(0).Sub(before.Round(0))); d > clockEvery+asleep {
			k.log.Debug("this machine slept", "for", d)
			k.tellMoved()
			k.input((*core).resumed)
		}
	}
}
