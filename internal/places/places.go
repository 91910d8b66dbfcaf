// Package places bounds what goes on at once.
package places

import (
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Places are so many places in all, of which one peer may have a part. Its methods may be called concurrently.
type Places struct {
	All, Each int // set before the first use

	mu    sync.Mutex
	taken int
	of    map[peer.ID]int
}

// Take tells whether there is a place for p, and takes it; [Places.Give] gives it back.
func (s *Places) Take(p peer.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken >= s.All || s.of[p] >= s.Each {
		return false
	}
	if s.of == nil {
		s.of = make(map[peer.ID]int)
	}
	s.taken++
	s.of[p]++
	return true
}

// Give gives back a place that p has taken.
func (s *Places) Give(p peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	if s.of[p]--; s.of[p] == 0 {
		delete(s.of, p)
	}
}
