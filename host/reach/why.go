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
	switch {
	case len(met) == 0 && len(mine.addrs) == 0:
		return "neither side knows an address of its own that the other could dial"
	case len(met) == 0:
		return "the peer knows no address of its own that this node could dial"
	case mine.symmetric() && theirs.symmetric():
		return "both sides are behind symmetric NATs"
	case mine.symmetric():
		return "this node is behind a symmetric NAT, and the peer's lets nobody in from a port that it does not know"
	case theirs.symmetric():
		return "the peer is behind a symmetric NAT, and this node's lets nobody in from a port that it does not know"
	case theirs.public:
		return "the peer says it is public, but " + metText(met)
	default:
		return metText(met)
	}
}

// metText sums up what the addresses met.
func metText(met []Met) string {
	var texts []string
	var count []int
	for _, m := range met {
		if i := slices.Index(texts, m.Err); i >= 0 {
			count[i]++
			continue
		}
		texts, count = append(texts, m.Err), append(count, 1)
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
	t := r.core.peers[p]
	switch {
	case t == nil, t.direct > 0, len(t.relayed) == 0:
		return ""
	case len(t.attempts) == 0 && r.core.allow != nil && !r.core.allow(p):
		return "it is not on the allow list: no addresses are exchanged with it"
	case len(t.attempts) == 0 && !t.running && !r.core.offers(t):
		return "no relay has told yet where this node is seen from outside"
	case len(t.attempts) == 0:
		return "a direct connection is being tried"
	default:
		last := t.attempts[len(t.attempts)-1]
		return fmt.Sprintf("%s failed: %s", plural(t.try, "attempt", "attempts"), last.Err)
	}
}
