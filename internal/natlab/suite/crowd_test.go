//go:build linux

package suite

import (
	"crypto/rand"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p"
)

// crowd is the further nodes of a process, each with an identity of its own and a free port.
type crowd struct {
	mu                  sync.Mutex
	nodes               []*p2p.Node
	reachable, neighbor map[int]bool
	state               Gathering
}

// gather starts count nodes with the options of a setup. It returns when all have started.
func (c *crowd) gather(s setup, count int) error {
	c.reachable, c.neighbor = map[int]bool{}, map[int]bool{}
	failed := make(chan error, count)
	for range count {
		go func() { failed <- c.add(s) }()
	}
	var err error
	for range count {
		if e := <-failed; e != nil {
			err = e
		}
	}
	c.state.Started = time.Since(s.Began)
	return err
}

func (c *crowd) add(s setup) error {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return err
	}
	if s.Key, err = crypto.MarshalPrivateKey(key); err != nil {
		return err
	}
	opts, err := s.options()
	if err != nil {
		return err
	}
	n := p2p.NewNode(":0", opts...)
	if err := n.StartServer(); err != nil {
		return err
	}
	c.mu.Lock()
	c.nodes = append(c.nodes, n)
	c.mu.Unlock()
	return nil
}

// Gathering is how far a crowd has come. The times are since the start of the process.
type Gathering struct {
	Started   time.Duration   // all of them
	Reachable []time.Duration // through a relay, first
	Neighbors []time.Duration // the first neighbor
	Lost      int             // are not reachable, or have no neighbor, at the end
}

// look notes how far the nodes are.
func (c *crowd) look(now time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state.Lost = 0
	for i, n := range c.nodes {
		reachable := slices.ContainsFunc(n.Addrs(), func(a ma.Multiaddr) bool {
			_, err := a.ValueForProtocol(ma.P_CIRCUIT)
			return err == nil
		})
		neighbor := slices.ContainsFunc(n.Peers(), func(i p2p.PeerInfo) bool { return i.State == p2p.StateNeighbor })
		if reachable && !c.reachable[i] {
			c.reachable[i] = true
			c.state.Reachable = append(c.state.Reachable, now)
		}
		if neighbor && !c.neighbor[i] {
			c.neighbor[i] = true
			c.state.Neighbors = append(c.state.Neighbors, now)
		}
		if !reachable || !neighbor {
			c.state.Lost++
		}
	}
}

// Gathered waits until all of the crowd are reachable through a relay and have a neighbor, at most so long.
func (o orders) Gathered(limit time.Duration, out *Gathering) error {
	p := o.p
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for begin := time.Now(); ; <-ticker.C {
		p.crowd.look(p.since())
		*out = p.crowd.state
		if time.Since(begin) > limit || len(out.Reachable) == p.setup.Crowd && len(out.Neighbors) == p.setup.Crowd && out.Lost == 0 {
			return nil
		}
	}
}
