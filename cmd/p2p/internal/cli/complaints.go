package cli

import (
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p"
)

// maxComplaints bounds what is kept: many more than a person reads.
const maxComplaints = 256

// complaints is what was said last of peers that were found and do not answer, and of one with this node's identity. The zero value is empty; its methods may
// be called concurrently.
type complaints struct {
	mu     sync.Mutex
	said   map[peer.ID]string
	cloned string    // what was said last of another node with this identity
	when   time.Time // and when
}

// note keeps what an event says of its peer.
func (c *complaints) note(e p2p.PeerEvent) {
	if e.Err == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.Kind == p2p.PeerCloned {
		c.cloned, c.when = e.Err.Error(), e.Time
		return
	}
	if c.said == nil || len(c.said) >= maxComplaints {
		c.said = make(map[peer.ID]string)
	}
	c.said[e.Peer.ID] = e.Err.Error()
}

// cloneHolds is for how long somebody who was met with this node's identity is believed to be there.
const cloneHolds = time.Hour

// clone is what was said of another node with this identity that was met lately; empty: none was.
func (c *complaints) clone() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.when) > cloneHolds {
		return ""
	}
	return c.cloned
}

// about returns a line for each of the known peers that does not answer, also while it is dialed once more, and forgets
// what was said of the others.
func (c *complaints) about(peers []p2p.PeerInfo) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	held := make(map[peer.ID]string)
	for _, p := range peers {
		if p.LastError == "" || p.State != p2p.StateKnown && p.State != p2p.StateConnecting {
			continue
		}
		said, ok := c.said[p.ID]
		if !ok {
			out = append(out, fmt.Sprintf("found %s, which does not answer: %s", p.ID, p.LastError))
			continue
		}
		held[p.ID] = said
		out = append(out, said)
	}
	c.said = held
	return out
}
