package discovery

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// State is how close a peer is.
type State string

// The states of a peer.
const (
	// Known peers were found and are not connected.
	Known State = "known"
	// Connecting peers are being dialed.
	Connecting State = "connecting"
	// Connected peers have a connection: not identified yet, of no use as a neighbor, or more than the node keeps.
	Connected State = "connected"
	// Neighbor is a connected peer of this network that the keeper keeps connected.
	Neighbor State = "neighbor"
)

// Peer is what is known of a peer at one moment. Strings that the peer chose are as it sent them: clean them before
// they are printed. The slices are the receiver's.
type Peer struct {
	ID        peer.ID
	State     State
	Addrs     []ma.Multiaddr // accepted addresses without /p2p/ID
	Source    string         // where it was found first: "mdns", "join", "inbound", "book", …
	Agent     string         // identify's agent version; chosen by the peer
	RTT       time.Duration  // the last round trip; 0 when none was measured
	Since     time.Time      // when it came into its state
	LastError string         // why the last dial failed; empty after a connection
	Member    bool           // it speaks the network's tunnel protocol, as identify said last
	Outbound  bool           // the connection was dialed from here
	Path      Path           // how it is reached; zero unless it is connected
}

// Path is how a connected peer is reached: its best connection, a direct one if there is any.
type Path struct {
	// Addr is the other end's address, as the connection has it.
	Addr ma.Multiaddr
	// Relay is the relay that carries the connection; empty: it is direct.
	Relay peer.ID
	// Since is when the peer began to be reached directly, or through this relay.
	Since time.Time
}

// EventKind tells what happened.
type EventKind string

// The kinds of events.
const (
	// PeerFound is the first time that a source names a peer.
	PeerFound EventKind = "found"
	// PeerConnected is the first moment that a peer is known to speak this network's protocol on a live connection.
	PeerConnected EventKind = "connected"
	// PeerNeighbor means that the peer became a neighbor.
	PeerNeighbor EventKind = "neighbor"
	// PeerPathChanged means that a connected member is reached directly instead of through a relay, the other way round, or
	// through another relay: see [Peer]'s Path.
	PeerPathChanged EventKind = "path-changed"
	// PeerLeft means that a neighbor is one no more; Err says why, if that is known.
	PeerLeft EventKind = "left"
	// PeerUnreachable means that a peer was found but does not answer; Err says where, and what to do.
	PeerUnreachable EventKind = "unreachable"
	// PeerClone means that another host has this node's identity; Addr is where, Err what to do.
	PeerClone EventKind = "clone"
	// PeerIdentityChanged means that another peer than before answers at a joined address: Peer is the one there now,
	// Old the one before.
	PeerIdentityChanged EventKind = "identity-changed"
	// PeerIdentityRefused means that the one who answers at a joined address is not the one who was expected there,
	// and was refused; Old is who was expected, Err what to do.
	PeerIdentityRefused EventKind = "identity-refused"
)

// Event is something that happened to a peer.
type Event struct {
	Kind EventKind
	Peer Peer         // the peer as it was right after
	Old  peer.ID      // see PeerIdentityChanged
	Addr ma.Multiaddr // where it happened, if that says something
	Err  error        // what went wrong; its text is one line, clean, and says what to do
	Time time.Time
}
