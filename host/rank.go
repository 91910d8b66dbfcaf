package host

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
)

// dialStep is the head start that a better address has over the next within loopback and private addresses. It is the
// connection attempt delay that RFC 8305 recommends: on a busy machine a handshake takes longer than a packet, and a
// second one beside it only adds to the load. An address that refuses costs none of it.
const dialStep = 250 * time.Millisecond

// loopbackStep is the same where all addresses are of this machine: there TCP is refused at once or answers, however
// long that takes on a busy machine.
const loopbackStep = time.Second

// RankDials orders the addresses of one dial. Between loopback and private addresses TCP is dialed first and QUIC
// later: it is faster there, and a killed process is noticed at once. Among those, loopback comes before private
// and IPv4 before IPv6, so that an address that does not answer costs one step. Public and relayed addresses are
// ranked as libp2p does: QUIC first. The groups are dialed side by side. WebSocket, which costs the most, comes after all
// that is direct. It is a [network.DialRanker].
func RankDials(addrs []ma.Multiaddr) []network.AddrDelay {
	var near, far, sockets []ma.Multiaddr
	for _, a := range addrs {
		scope := addr.ScopeOf(a)
		switch {
		case addr.WebSocket(a):
			sockets = append(sockets, a)
		case !addr.Relayed(a) && (scope == addr.Loopback || scope == addr.Private):
			near = append(near, a)
		default:
			far = append(far, a)
		}
	}
	out := append(rankNear(near), rankFar(far, len(near) > 0)...)
	return append(out, rankSockets(sockets, out)...)
}

// relayStep is the head start of addresses through relays that are connected over those through others. libp2p dials a
// peer through one relay at a time, and waits up to 5 s for one that is gone.
const relayStep = time.Second

// rank is [RankDials] for a host, which knows what relays it is connected to.
func (n *node) rank(addrs []ma.Multiaddr) []network.AddrDelay {
	if !n.ready.Load() {
		return RankDials(addrs)
	}
	return rankThrough(addrs, func(relay peer.ID) bool { return n.Network().Connectedness(relay) == network.Connected })
}

// rankThrough is [RankDials] with the addresses through relays that are not connected last, if there are others through
// relays.
func rankThrough(addrs []ma.Multiaddr, connected func(relay peer.ID) bool) []network.AddrDelay {
	var first, last []ma.Multiaddr
	through := false
	for _, a := range addrs {
		relay, _, relayed := addr.SplitRelay(a)
		if relayed && !connected(relay) {
			last = append(last, a)
			continue
		}
		through = through || relayed
		first = append(first, a)
	}
	if !through {
		return RankDials(addrs)
	}
	out := RankDials(first)
	wait := relayStep
	for _, o := range out {
		wait = max(wait, o.Delay+relayStep)
	}
	for _, a := range last {
		out = append(out, network.AddrDelay{Addr: a, Delay: wait})
	}
	return out
}

// rankSockets has WebSocket addresses wait for the direct ones of others, and for each other.
func rankSockets(sockets []ma.Multiaddr, others []network.AddrDelay) []network.AddrDelay {
	var wait time.Duration
	for _, o := range others {
		if !addr.Relayed(o.Addr) {
			wait = max(wait, o.Delay+dialStep)
		}
	}
	var out []network.AddrDelay
	for _, a := range sockets {
		out = append(out, network.AddrDelay{Addr: a, Delay: wait})
		wait += dialStep
	}
	return out
}

// rankFar ranks public and relayed addresses. Beside near ones a relayed one waits, as it does beside public ones.
func rankFar(far []ma.Multiaddr, near bool) []network.AddrDelay {
	out := swarm.DefaultDialRanker(far)
	if near && !slices.ContainsFunc(far, func(a ma.Multiaddr) bool { return !addr.Relayed(a) }) {
		for i := range out {
			out[i].Delay += swarm.RelayDelay
		}
	}
	return out
}

// rankNear ranks loopback and private addresses, which it sorts.
func rankNear(near []ma.Multiaddr) []network.AddrDelay {
	slices.SortStableFunc(near, func(a, b ma.Multiaddr) int {
		return cmp.Or(
			cmp.Compare(transportRank(a), transportRank(b)),
			cmp.Compare(addr.ScopeOf(a), addr.ScopeOf(b)),
			cmp.Compare(familyRank(a), familyRank(b)),
			cmp.Compare(portOf(a), portOf(b)),
		)
	})
	out := make([]network.AddrDelay, 0, len(near))
	step := dialStep
	if !slices.ContainsFunc(near, func(a ma.Multiaddr) bool { return addr.ScopeOf(a) != addr.Loopback }) {
		step = loopbackStep
	}
	seen := map[int]int{}
	for _, a := range near {
		rank := transportRank(a)
		delay := time.Duration(rank) * step
		if seen[rank] > 0 {
			delay += step
		}
		if seen[rank] > 2 {
			delay += step
		}
		seen[rank]++
		out = append(out, network.AddrDelay{Addr: a, Delay: delay})
	}
	if !slices.ContainsFunc(near, func(a ma.Multiaddr) bool { return transportRank(a) == 0 }) {
		for i := range out { // nothing to wait for
			out[i].Delay = max(0, out[i].Delay-step)
		}
	}
	return out
}

// transportRank is 0 for plain TCP, 1 for QUIC and 2 for the rest.
func transportRank(a ma.Multiaddr) int {
	last := 0
	if len(a) > 0 {
		last = a[len(a)-1].Protocol().Code
	}
	switch last {
	case ma.P_TCP:
		return 0
	case ma.P_QUIC_V1:
		return 1
	default:
		return 2
	}
}

func familyRank(a ma.Multiaddr) int {
	if ip, ok := addr.IP(a); ok && ip.Unmap().Is4() {
		return 0
	}
	return 1
}

func portOf(a ma.Multiaddr) int {
	for _, p := range []int{ma.P_TCP, ma.P_UDP} {
		if v, err := a.ValueForProtocol(p); err == nil {
			n, _ := strconv.Atoi(v)
			return n
		}
	}
	return 0
}
