package dht

import (
	"slices"
	"sync"
	"time"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"
)

// inRecord marks addresses that came in a record, among those that the library puts into the peerstore. As a time to live
// nobody else uses it.
const inRecord = peerstore.PermanentAddrTTL - 4217

// A homes is the host's peerstore as the library sees it. Where the owners of records say that they are is kept here and
// nowhere else: the host's peerstore has what this node itself would dial, and loses it when a peer leaves.
type homes struct {
	peerstore.Peerstore
	lifetime time.Duration

	mu sync.Mutex
	of map[peer.ID]home
}

type home struct {
	addrs []ma.Multiaddr
	until time.Time
}

func newHomes(h corehost.Host, lifetime time.Duration) *homes {
	return &homes{Peerstore: h.Peerstore(), lifetime: lifetime, of: make(map[peer.ID]home)}
}

// AddAddrs implements [peerstore.AddrBook]. What a record says takes the place of what an earlier one said.
func (s *homes) AddAddrs(p peer.ID, addrs []ma.Multiaddr, ttl time.Duration) {
	if ttl != inRecord {
		s.Peerstore.AddAddrs(p, addrs, ttl)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.of[p]; !known && len(s.of) >= MaxRecords {
		s.makeRoomLocked()
	}
	s.of[p] = home{addrs: slices.Clone(addrs), until: time.Now().Add(s.lifetime)}
}

// makeRoomLocked drops what is too old, or else a home by lot (a map's order), so that a flood cannot aim. It looks at a
// few: those that are over are found sooner or later.
func (s *homes) makeRoomLocked() {
	now, looked := time.Now(), 0
	for p, h := range s.of {
		if looked++; now.After(h.until) || looked > 64 {
			delete(s.of, p)
			return
		}
	}
}

// PeerInfo implements [peerstore.Peerstore].
func (s *homes) PeerInfo(p peer.ID) peer.AddrInfo {
	info := s.Peerstore.PeerInfo(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.of[p]
	if ok && time.Now().After(h.until) {
		delete(s.of, p)
		ok = false
	}
	if ok {
		info.Addrs = ma.Unique(slices.Concat(info.Addrs, h.addrs))
	}
	return info
}

func (s *homes) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.of)
}
