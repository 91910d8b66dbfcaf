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
	mu     sync.Mutex
	nodes  []*p2p.Node
	joined []time.Duration // since the start of the process
}

// gather starts count nodes with the options of a setup. It returns when all have started.
func (c *crowd) gather(s setup, count int) error {
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

// look notes which nodes are reachable through a relay and have a neighbor.
func (c *crowd) look(now time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes = slices.DeleteFunc(c.nodes, func(n *p2p.Node) bool {
		reserved := slices.ContainsFunc(n.Addrs(), func(a ma.Multiaddr) bool {
			_, err := a.ValueForProtocol(ma.P_CIRCUIT)
			return err == nil
		})
		neighbor := slices.ContainsFunc(n.Peers(), func(i p2p.PeerInfo) bool { return i.State == p2p.StateNeighbor })
		if reserved && neighbor {
			c.joined = append(c.joined, now)
		}
		return reserved && neighbor
	})
}

// Joined waits until all of the crowd have joined, at most so long, and tells when each had.
func (o orders) Joined(limit time.Duration, out *[]time.Duration) error {
	p := o.p
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for begin := time.Now(); time.Since(begin) < limit; <-ticker.C {
		p.crowd.look(p.since())
		p.crowd.mu.Lock()
		*out = p.crowd.joined
		p.crowd.mu.Unlock()
		if len(*out) == p.setup.Crowd {
			return nil
		}
	}
	return nil
}
