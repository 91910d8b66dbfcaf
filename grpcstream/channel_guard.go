package grpcstream

import (
	"fmt"
	"sync"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
)

// A guard protects from the connection manager the connections under its tunnels, and counts them, since protecting
// twice is undone by unprotecting once.
type guard struct {
	host corehost.Host
	tag  string

	mu sync.Mutex
	n  map[peer.ID]int
}

func newGuard(h corehost.Host) *guard {
	g := &guard{host: h, n: map[peer.ID]int{}}
	g.tag = fmt.Sprintf("grpcstream-%p", g) // one of its own for each channel of a host
	return g
}

// hold protects a peer's connections until the function returned is called, which may be more than once.
func (g *guard) hold(id peer.ID) (release func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n[id]++; g.n[id] == 1 && id != g.host.ID() {
		g.host.ConnManager().Protect(id, g.tag)
	}
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.n[id] == 0 {
			return // released with all
		}
		if g.n[id]--; g.n[id] == 0 {
			delete(g.n, id)
			g.host.ConnManager().Unprotect(id, g.tag)
		}
	})
}

// holds tells whether the guard protects a peer's connections now.
func (g *guard) holds(id peer.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.n[id] > 0
}

// releaseAll ends all protection.
func (g *guard) releaseAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id := range g.n {
		g.host.ConnManager().Unprotect(id, g.tag)
	}
	clear(g.n)
}
