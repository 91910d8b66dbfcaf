package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/cmd/p2p/internal/doctor"
	"github.com/lynn9388/p2p/discovery/mdns"
	"github.com/lynn9388/p2p/host/reach"
)

// joinPatience is how long joining may take before it is talked about.
const joinPatience = 5 * time.Second

// diagnose says what stands in the way of finding and reaching peers, and of being reached.
func (s *session) diagnose() []string {
	var out []string
	if private := s.privateRelay(); private != "" {
		out = append(out, private)
	}
	others := slices.DeleteFunc(s.node.Peers(), func(p p2p.PeerInfo) bool { return s.isRelay(p.ID) }) // of whom more is said
	return slices.Concat(out, s.relayReasons(), s.lonely(), s.complaints.about(others))
}

// subject is what "p2p doctor" looks at.
func (s *session) subject() doctor.Subject {
	out := doctor.Subject{
		Node: s.node, Profile: s.profile(), Announce: s.opts.announce, Mapping: s.opts.profile == profileWAN && !s.opts.noPortMapping,
		Clone: s.complaints.clone(),
	}
	if s.opts.profile == profileWAN {
		out.Relays = s.opts.join
	}
	if s.opts.profile != profileRelay {
		st := s.mdns.State()
		out.MDNS = &st
	}
	return out
}

func (s *session) relayReasons() []string {
	return relayReasons(s.node.Reachability(), time.Since(s.started))
}

// relayReasons says which relays do not carry for the node, once it has had the time to get them to.
func relayReasons(st reach.Status, running time.Duration) (out []string) {
	if running < joinPatience {
		return nil
	}
	for _, r := range st.Relays {
		var what string
		switch {
		case len(r.Connected) == 0:
			what = "is not connected, and is tried again"
		case !r.Reserved && st.Reachability != network.ReachabilityPublic:
			what = "does not carry for this node"
		default:
			continue
		}
		out = append(out, fmt.Sprintf("the relay %s %s: %s", r.ID, what, cmp.Or(r.LastError, "it has not answered yet")))
	}
	return out
}

// lonely says why nobody was found. With neighbors it names only what keeps the node from looking.
func (s *session) lonely() []string {
	if s.opts.profile == profileRelay {
		return nil // it waits for others to come
	}
	st := s.mdns.State()
	switch st.Reason {
	case mdns.Refused, mdns.NotLooped:
		return []string{st.Text}
	case mdns.Found, mdns.Starting, mdns.Stopped, mdns.NoInterface, mdns.NoAddress, mdns.LocalOnly, mdns.Container, mdns.Silent:
	}
	for _, p := range s.node.Peers() {
		if p.State == p2p.StateNeighbor {
			return nil
		}
	}
	var out []string
	if len(s.joins()) > 0 && time.Since(s.started) > joinPatience {
		out = append(out, "no neighbor yet by joining "+strings.Join(s.joins(), ", ")+": the node keeps trying")
	}
	if st.Reason != mdns.Found && st.Reason != mdns.Starting {
		out = append(out, st.Text)
	}
	return out
}
