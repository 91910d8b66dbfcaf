package discovery

import (
	"context"
	"net/netip"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/addr"
)

// watchInterfaces keeps up with the machine's addresses.
func (k *Keeper) watchInterfaces(ctx context.Context) {
	var before map[netip.Addr]bool
	err := host.WatchInterfaces(ctx, func(interfaces []host.Interface) {
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
	k.mu.Lock()
	moved := k.moved
	k.mu.Unlock()
	for _, f := range moved {
		f()
	}
	k.input(func(c *core) {
		c.hurry()
		if !gone {
			return
		}
		for p, e := range c.peers {
			if e.conns > 0 {
				c.do(action{kind: actPing, peer: p, timeout: checkTimeout})
			}
		}
	})
}
