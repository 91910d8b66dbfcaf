package control

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lynn9388/p2p"
	"github.com/lynn9388/p2p/host/reach"
	"github.com/lynn9388/p2p/internal/safetext"
)

// reachability puts how others reach the node into its message.
func (s *Server) reachability() *Reachability {
	st := s.cfg.Node.Reachability()
	out := &Reachability{
		State: stateOf(st.Reachability), UdpMapping: st.UDP.String(), TcpMapping: st.TCP.String(), Filtering: st.Filtering.String(),
		Observed: texts(st.Observed), Reached: texts(st.Reached),
	}
	var relays []*Sender
	for _, r := range st.Relays {
		relay := &Relay{
			Peer: relaySender(r.ID), Addrs: texts(r.Addrs), Connected: r.Connected, Since: momentOf(r.Since), Rtt: lengthOf(r.RTT),
			Reserved: r.Reserved, Expires: momentOf(r.Expires), LimitData: r.LimitData, LimitDuration: lengthOf(r.LimitDuration),
			LastError: r.LastError,
		}
		out.Relays = append(out.Relays, relay)
		relays = append(relays, relay.GetPeer())
	}
	s.name(relays...)
	return out
}

func stateOf(r network.Reachability) string {
	switch r {
	case network.ReachabilityPublic:
		return "public"
	case network.ReachabilityPrivate:
		return "private"
	default:
		return "unknown"
	}
}

// attemptsOf puts the attempts to get a direct connection into their messages.
func attemptsOf(all []reach.Attempt) (out []*Attempt) {
	for _, a := range all {
		attempt := &Attempt{Time: momentOf(a.Time), Took: durationpb.New(a.Took), Role: string(a.Role), Error: a.Err}
		for _, m := range a.Met {
			attempt.Met = append(attempt.Met, &Met{Addr: safetext.Clean(m.Addr.String()), How: m.How, Took: durationpb.New(m.Took), Error: m.Err})
		}
		out = append(out, attempt)
	}
	return out
}

// relaySender says who relays, by ID alone; nil when nobody does.
func relaySender(id peer.ID) *Sender {
	if id == "" {
		return nil
	}
	return &Sender{Id: id.String()}
}

// name completes senders that have an ID alone; nil ones are left alone.
func (s *Server) name(senders ...*Sender) {
	senders = slices.DeleteFunc(senders, func(s *Sender) bool { return s == nil })
	if len(senders) == 0 {
		return
	}
	known := make(map[string]p2p.PeerInfo)
	for _, p := range s.cfg.Node.Peers() {
		known[p.ID.String()] = p
	}
	for _, who := range senders {
		p := known[who.GetId()]
		who.Name, who.PinnedName = p.Name, p.Pinned
	}
}

// texts are the texts of addresses, which may have any bytes of their peers' in them; a message takes only UTF-8.
func texts(addrs []ma.Multiaddr) (out []string) {
	for _, a := range addrs {
		out = append(out, safetext.Clean(a.String()))
	}
	return out
}

// momentOf leaves out a time that is not known.
func momentOf(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// lengthOf leaves out a duration that is not known.
func lengthOf(d time.Duration) *durationpb.Duration {
	if d <= 0 {
		return nil
	}
	return durationpb.New(d)
}
