package cli

import (
	"strings"
	"time"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/discovery/mdns"
)

// joinPatience is how long joining may take before it is talked about.
const joinPatience = 5 * time.Second

// diagnose says what stands in the way of finding and reaching peers.
func (s *session) diagnose() []string {
	return append(s.reasons(), s.complaints.about(s.node.Peers())...)
}

// reasons says why nobody was found. With neighbors it names only what keeps the node from looking.
func (s *session) reasons() []string {
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
	if len(s.opts.join) > 0 && time.Since(s.started) > joinPatience {
		out = append(out, "no neighbor yet by joining "+strings.Join(s.opts.join, ", ")+": the node keeps trying")
	}
	if st.Reason != mdns.Found && st.Reason != mdns.Starting {
		out = append(out, st.Text)
	}
	return out
}
