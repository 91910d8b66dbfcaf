package cli

import (
	"fmt"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p"
)

// maxComplaints bounds what is kept: many more than a person reads.
const maxComplaints = 256

// complaints is what was said last of peers that were found and do not answer. The zero value is empty; its methods may
// be called concurrently.
type complaints struct {
	mu   sync.Mutex
	said map[peer.ID]string
}

// note keeps what an event says of its peer.
func (c *complaints) note(e p2p.PeerEvent) {
	if e.Err == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.said == nil || len(c.said) >= maxComplaints {
		c.said = make(map[peer.ID]string)
	}
	c.said[e.Peer.ID] = e.Err.Error()
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
