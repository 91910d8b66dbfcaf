package reach

import (
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// warnAfter is how long a relay must be of no use before a person is told: one that is restarted is back sooner.
const warnAfter = 5 * time.Second

// teller tells the log what a person wants to know: that the host is reachable or no longer, and what is wrong with a
// relay. It belongs to the loop.
type teller struct {
	last   Status
	lost   map[peer.ID]time.Time // when a relay was last of use, or first looked at
	warned map[peer.ID]bool
}

func (j *job) tell(now time.Time) {
	t, s := &j.teller, j.Status()
	if t.lost == nil {
		t.lost, t.warned = map[peer.ID]time.Time{}, map[peer.ID]bool{}
	}
	public, was := s.Reachability == network.ReachabilityPublic, t.last.Reachability == network.ReachabilityPublic
	switch {
	case public && !was:
		j.log.Info("reachable from outside: no relay is needed", "addr", s.Reached)
	case was && !public:
		j.log.Info("no longer reachable from outside: the relays are needed")
	}
	for i, r := range s.Relays {
		before := i < len(t.last.Relays) && t.last.Relays[i].Reserved
		if t.lost[r.ID].IsZero() || r.Reserved || public {
			t.lost[r.ID] = now
		}
		j.tellOf(r, before, public, now.Sub(t.lost[r.ID]))
	}
	t.last = s
}

// tellOf tells of one relay, which was of use before or not, and has been of none for so long.
func (j *job) tellOf(r RelayStatus, before, public bool, useless time.Duration) {
	switch {
	case r.Reserved && !before:
		j.log.Info("reachable through a relay", "peer", r.ID)
		j.teller.warned[r.ID] = false
	case before && !r.Reserved && !public:
		j.log.Info("no longer reachable through a relay", "peer", r.ID)
	case !r.Reserved && r.LastError != "" && !j.teller.warned[r.ID] && useless > warnAfter:
		j.log.Warn("a relay is of no use", "peer", r.ID, "err", r.LastError)
		j.teller.warned[r.ID] = true
	}
}
