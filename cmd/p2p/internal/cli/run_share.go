package cli

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/host/reach"
	"github.com/lynn9388/p2p/internal/addr"
)

const (
	// sharePatience is how long the first line waits for a relay to answer: a reservation takes a few round trips.
	sharePatience = 3 * time.Second
	// shareLook is how often it is looked whether one has.
	shareLook = 20 * time.Millisecond
)

// awaitShare waits until a node that may be behind a NAT knows how others reach it, or for a while.
func (s *session) awaitShare(ctx context.Context) {
	if s.opts.profile != profileWAN || len(s.opts.join) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, sharePatience)
	defer cancel()
	tick := time.NewTicker(shareLook)
	defer tick.Stop()
	for {
		st := s.node.Reachability()
		if st.Reachability == network.ReachabilityPublic || st.Reachability == network.ReachabilityPrivate && carrier(st) != "" {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// carrier is the first relay that carries for the node, or "".
func carrier(st reach.Status) peer.ID {
	for _, r := range st.Relays {
		if r.Reserved {
			return r.ID
		}
	}
	return ""
}

// share is what to give to somebody who is to reach this node: where it is, or through which relay.
func (s *session) share() string {
	id, st := s.node.ID().String(), s.node.Reachability()
	switch {
	case s.opts.profile != profileWAN, len(s.opts.announce) > 0, len(s.opts.join) == 0:
		return shareText(id, s.node.Addrs(), s.opts.announce)
	case st.Reachability == network.ReachabilityPublic && len(st.Reached) > 0:
		return shareText(id, st.Reached, nil)
	}
	relay := s.opts.join[0] // while none answers yet: it may be back soon
	if through := carrier(st); through != "" {
		for _, place := range s.opts.join {
			if info, err := addr.ParseJoin(place); err == nil && info.ID == through {
				relay = place
				break
			}
		}
	}
	return shareRelayed(id, relay)
}

// printShare prints how others reach the node from now on, if that is another way than was said last.
func (s *session) printShare() error {
	if s.opts.profile != profileWAN {
		return nil
	}
	now := s.share()
	if now == s.shared {
		return nil
	}
	s.shared = now
	return s.out.Printf("%s  share: %s\n", time.Now().Format(time.TimeOnly), now)
}
