package reach

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/addr"
)

// look tells the core of the host's own addresses.
func (r *Reach) look() {
	var machine []netip.Addr
	var listening []port
	all, err := host.Interfaces()
	if err != nil {
		r.log.Debug("look at the interfaces", "err", err)
		return
	}
	for _, a := range r.h.Network().ListenAddresses() {
		if !plain(a) {
			continue
		}
		listening = append(listening, port{kindOf(a), portOf(a)})
		if !manet.IsIPUnspecified(a) {
			machine = append(machine, ipOf(a))
			continue
		}
		for _, i := range all {
			for _, p := range i.Addrs {
				machine = append(machine, p.Addr().Unmap())
			}
		}
	}
	slices.SortFunc(machine, netip.Addr.Compare)
	slices.SortFunc(listening, func(a, b port) int { return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.number, b.number)) })
	addrs := host.Addrs(r.h)
	if n, ok := r.h.(interface{ AllAddrs() []ma.Multiaddr }); ok { // with port mappings, which libp2p hides while it is private
		addrs = append(addrs, n.AllAddrs()...)
	}
	addrs = slices.DeleteFunc(addrs, func(a ma.Multiaddr) bool { return !named(a) && (!plain(a) || addr.ScopeOf(a) == addr.Unusable) })
	addrs = ma.Unique(addrs)
	slices.SortFunc(addrs, ma.Multiaddr.Compare)
	r.input(func(c *core) { c.situation(slices.Compact(machine), slices.Compact(listening), addrs) })
}

// sleep notices that the machine was suspended: the clock on the wall went on, the one that timers go by did not.
type sleep struct{ last time.Time }

// slack is by how much the clocks may differ for other reasons, such as being set.
const slack = 2 * time.Second

func (s *sleep) since(now time.Time) bool {
	last := s.last
	if s.last = now; last.IsZero() {
		return false
	}
	return slept(now.Sub(last), now.Round(0).Sub(last.Round(0)))
}

// slept tells whether the machine slept while timers and the wall clock went on by so much.
func slept(timers, wall time.Duration) bool { return wall-timers > slack }
