package dht

import (
	"sync"

	"github.com/libp2p/go-libp2p-kbucket/peerdiversity"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
)

// maxPerGroup is how many peers of one group a bucket takes: half of it, so that no group fills one. libp2p's own limit,
// three in the whole table, would keep a LAN or a data center out.
const maxPerGroup = bucketSize / 2

// diversity bounds how many peers of one address, or of one public network, are in each bucket of the table. Loopback
// addresses, which are of this machine, have no bound.
type diversity struct {
	network network.Network

	mu     sync.Mutex
	groups map[peer.ID]group
	count  map[group]int
}

// A group is what peers of a bucket share.
type group struct {
	bucket int
	of     string
}

func newDiversity(n network.Network) *diversity {
	return &diversity{network: n, groups: make(map[peer.ID]group), count: make(map[group]int)}
}

var _ peerdiversity.PeerIPGroupFilter = (*diversity)(nil)

// PeerAddresses implements [peerdiversity.PeerIPGroupFilter]: where a peer is connected counts, not what it says.
func (v *diversity) PeerAddresses(p peer.ID) []ma.Multiaddr {
	for _, c := range v.network.ConnsToPeer(p) {
		if _, ok := addr.IP(c.RemoteMultiaddr()); ok {
			return []ma.Multiaddr{c.RemoteMultiaddr()}
		}
	}
	return nil
}

// Allow implements [peerdiversity.PeerIPGroupFilter].
func (v *diversity) Allow(info peerdiversity.PeerGroupInfo) bool {
	g := v.group(info)
	v.mu.Lock()
	defer v.mu.Unlock()
	return g.of == "" || v.count[g] < maxPerGroup
}

// Increment implements [peerdiversity.PeerIPGroupFilter].
func (v *diversity) Increment(info peerdiversity.PeerGroupInfo) {
	g := v.group(info)
	v.mu.Lock()
	defer v.mu.Unlock()
	if g.of != "" {
		v.groups[info.Id] = g
		v.count[g]++
	}
}

// Decrement implements [peerdiversity.PeerIPGroupFilter].
func (v *diversity) Decrement(info peerdiversity.PeerGroupInfo) {
	v.mu.Lock()
	defer v.mu.Unlock()
	g, ok := v.groups[info.Id]
	if !ok {
		return
	}
	delete(v.groups, info.Id)
	if v.count[g]--; v.count[g] == 0 {
		delete(v.count, g)
	}
}

func (v *diversity) group(info peerdiversity.PeerGroupInfo) group {
	for _, a := range v.PeerAddresses(info.Id) {
		ip, _ := addr.IP(a)
		switch addr.IPScope(ip) {
		case addr.Loopback:
			return group{}
		case addr.Public:
			return group{info.Cpl, string(info.IPGroupKey)}
		default:
			return group{info.Cpl, ip.Unmap().WithZone("").String()}
		}
	}
	return group{info.Cpl, string(info.IPGroupKey)}
}
