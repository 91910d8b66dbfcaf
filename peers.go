package p2p

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/discovery"
	"github.com/lynn9388/p2p/grpcstream"
	"github.com/lynn9388/p2p/host/reach"
	"github.com/lynn9388/p2p/internal/safetext"
)

// PeerState tells how close a peer is.
type PeerState string

// The states of a peer.
const (
	// StateKnown is a peer whose addresses are known.
	StateKnown PeerState = "known"
	// StateConnecting is a peer that is being dialed.
	StateConnecting PeerState = "connecting"
	// StateConnected is a peer with a connection that is not counted as a neighbor.
	StateConnected PeerState = "connected"
	// StateNeighbor is a peer that this node keeps a connection to.
	StateNeighbor PeerState = "neighbor"
)

// PeerInfo is what a node knows of a peer. Strings in it that the peer chose are made safe to print.
type PeerInfo struct {
	ID        peer.ID        // proven by the connection
	Name      string         // what the peer calls itself: a claim
	Pinned    string         // the name this node gave it: see Node.Pin
	Version   string         // of the peer's p2p, a claim
	State     PeerState      // how close it is
	Addrs     []ma.Multiaddr // where it is, or may be, without /p2p/ID; the connected one first
	Path      string         // "direct" or "relay" when connected, "memory" for oneself
	Relay     peer.ID        // who carries the connection when Path is "relay"
	PathSince time.Time      // since when it is reached so
	NotDirect string         // when Path is "relay": why there is no direct connection, in one line
	Transport string         // "tcp", "quic-v1" or "websocket" when connected, "memory" for oneself; over a relay, of the way to it: "tcp", "quic-v1", "ws"
	RTT       time.Duration  // round trip time last measured, or 0
	Services  []string       // offered by the peer's user, sorted
	Source    string         // who found it: "mdns", "join", "exchange", "inbound", …
	Since     time.Time      // of the state
	LastError string         // why the last dial failed, or ""

	// Attempts are the last ones to get a direct connection to a peer that was reached through a relay, the newest last.
	Attempts []reach.Attempt
}

// PeerEventKind tells what happened.
type PeerEventKind string

// The kinds of events.
const (
	// PeerFound is a peer that was not known before.
	PeerFound PeerEventKind = "found"
	// PeerJoined is a peer that became a neighbor.
	PeerJoined PeerEventKind = "joined"
	// PeerLeft is a neighbor that is one no more.
	PeerLeft PeerEventKind = "left"
	// PeerUnreachable is a peer that was found and does not answer; Err says at which address, and what to do.
	PeerUnreachable PeerEventKind = "unreachable"
	// PeerCloned is another node that has this node's identity; Err says where, and what to do.
	PeerCloned PeerEventKind = "cloned"
	// PeerChanged is a joined address at which another identity answers than before; Err names both.
	PeerChanged PeerEventKind = "changed"
	// PeerPathChanged is a connected peer that is reached directly instead of through a relay, the other way round, or
	// through another relay: see Path and Relay of the peer.
	PeerPathChanged PeerEventKind = "path changed"
	// ServiceAdded is a service that a peer began to offer.
	ServiceAdded PeerEventKind = "service added"
	// ServiceRemoved is a service that a peer no longer offers.
	ServiceRemoved PeerEventKind = "service removed"
)

// PeerEvent is a change among the peers.
type PeerEvent struct {
	Kind    PeerEventKind
	Time    time.Time
	Peer    PeerInfo // its slices are shared with other events: they are not to be changed
	Service string   // of ServiceAdded and ServiceRemoved
	Err     error    // of PeerUnreachable, PeerCloned and PeerChanged
}

// callerInfo is what the connection proves of a caller.
func callerInfo(p grpcstream.Peer) PeerInfo {
	info := PeerInfo{ID: p.ID, State: StateConnected, Path: string(p.Path), Relay: p.Relay, PathSince: p.Since, Transport: p.Transport}
	if p.Addr != nil {
		info.Addrs = []ma.Multiaddr{p.Addr}
	}
	return info
}

// peers is what is known of everybody.
func (r *running) peers() []PeerInfo {
	known := r.keeper.Peers()
	out := make([]PeerInfo, 0, len(known))
	for _, p := range known {
		out = append(out, r.peerInfo(p))
	}
	return out
}

// peerInfo joins what the keeper knows of a peer with what its connection and its services tell.
func (r *running) peerInfo(p discovery.Peer) PeerInfo {
	version, name := parseAgent(p.Agent)
	info := PeerInfo{
		ID: p.ID, State: PeerState(p.State), Addrs: p.Addrs, Source: p.Source, RTT: p.RTT, Since: p.Since,
		Name: safetext.Clean(name), Version: safetext.Clean(version), LastError: safetext.Clean(p.LastError),
	}
	if r.book != nil {
		info.Pinned = safetext.Clean(r.book.Name(p.ID))
	}
	for _, s := range r.channel.Services(p.ID) {
		info.Services = append(info.Services, safetext.Clean(s))
	}
	if at, ok := r.channel.Path(p.ID); ok {
		info.Path, info.Relay, info.PathSince, info.Transport = string(at.Path), at.Relay, at.Since, at.Transport
		if p.Path.Relay == at.Relay && !p.Path.Since.IsZero() {
			info.PathSince = p.Path.Since // the connection may have been renewed since
		}
		if at.Addr != nil {
			info.Addrs = connectedFirst(at.Addr, info.Addrs)
		}
	}
	if r.reach != nil {
		info.Attempts = r.reach.Attempts(p.ID)
		if info.Path == string(grpcstream.PathRelay) {
			info.NotDirect = safetext.Clean(r.reach.WhyRelayed(p.ID))
		}
	}
	return info
}

func connectedFirst(first ma.Multiaddr, rest []ma.Multiaddr) []ma.Multiaddr {
	out := []ma.Multiaddr{first}
	for _, a := range rest {
		if !a.Equal(first) {
			out = append(out, a)
		}
	}
	return out
}
