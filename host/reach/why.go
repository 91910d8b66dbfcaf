package reach

import (
	"fmt"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
)

// explain says in one line why an attempt failed, by what both sides know of their NATs and by what the dials met.
func explain(ex exchanged, met []Met) string {
	mine, theirs := ex.mine, ex.theirs
	const newPort = "gives out a new port for each destination (symmetric)"
	switch {
	case len(met) == 0 && len(mine.addrs) == 0:
		return "neither side knows an address of its own that the other could dial"
	case len(met) == 0:
		return "the peer knows no address of its own that this node could dial"
	case mine.symmetric() && theirs.symmetric():
		return "the NATs of both sides give out a new port for each destination (symmetric)"
	case mine.symmetric():
		return "this node's NAT " + newPort + ", and the peer's lets in only ports that it knows"
	case theirs.symmetric():
		return "the peer's NAT " + newPort + ", and this node's lets in only ports that it knows"
	case theirs.public:
		return "the peer says it is public, but: " + metText(met)
	}
	text := metText(met)
	switch here, there := mine.untold(), theirs.untold(); {
	case here && there:
		text += "; one of the NATs may give out a new port for each destination, which a second relay would tell"
	case here:
		text += "; this node's NAT may give out a new port for each destination, which a second relay would tell"
	case there:
		text += "; the peer's NAT may give out a new port for each destination, which a second relay of its would tell"
	}
	return text
}

// metText sums up what the addresses met. The peer is told of it, too, and chose the addresses: it must not learn what
// answers in this host's own network.
func metText(met []Met) string {
	var texts []string
	var count []int
	for _, m := range met {
		text := m.Err
		if m.How == "lan" {
			text = "nobody was met"
		}
		if i := slices.Index(texts, text); i >= 0 {
			count[i]++
			continue
		}
		texts, count = append(texts, text), append(count, 1)
	}
	for i := range texts {
		texts[i] = fmt.Sprintf("%s at %s", texts[i], plural(count[i], "address", "addresses"))
	}
	return strings.Join(texts, ", ")
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// WhyRelayed says in one line, for a person, why p is connected through a relay only. It is empty when p is connected
// directly or not at all.
func (r *Reach) WhyRelayed(p peer.ID) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, t := r.core, r.core.peers[p]
	if t == nil || t.direct > 0 || len(t.relayed) == 0 {
		return ""
	}
	failed := t.failures()
	switch {
	case c.allow != nil && !c.allow(p):
		return "it is not on the allow list: no addresses are exchanged with it"
	case failed == 0 && !t.running && !c.offers(t):
		return "no relay has told yet where this node is seen from outside"
	case failed == 0:
		return "a direct connection is being tried"
	default:
		text := t.attempts[len(t.attempts)-1].Err
		if c.webSocketOnly() {
			text = "only WebSocket gets out of this node's network; " + text
		}
		return fmt.Sprintf("%s failed: %s", plural(failed, "attempt", "attempts"), text)
	}
}

// webSocketOnly tells whether relays are connected, and all over WebSocket.
func (c *core) webSocketOnly() bool {
	joined := false
	for _, r := range c.relays {
		if c.near(r) {
			return false
		}
		joined = joined || c.joined(r)
	}
	return joined
}
