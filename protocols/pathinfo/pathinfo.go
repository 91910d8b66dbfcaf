// Package pathinfo is the service by which two nodes find out together what is between them:
// p2p.pathinfo.v1.PathInfoService, defined in pathinfo.proto. Whether a firewall lets packets in can only be said by who
// sends them.
//
// [Register] serves it from a [Looker], [Look] asks. What a node answers is its word. The texts are returned as they came:
// clean them before they reach a log or a terminal.
package pathinfo

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// The protocol's limits. A server cuts its answers to them, and a client what it gets.
const (
	// MaxText is the longest text, in bytes.
	MaxText = 512
	// MaxDialed is the largest number of addresses that are dialed for one question.
	MaxDialed = 16
	// maxAnswer bounds an answer on the wire, in bytes.
	maxAnswer = 64 << 10
)

// A View is how a node sees the peer that asks.
type View struct {
	// Time is the node's clock when it answered.
	Time time.Time
	// Path is "direct" or "relay", Relay the relay's ID as text, and Transport as in [grpcstream.Peer].
	Path, Relay, Transport string
	// SeenAt is the multiaddr of the other end of the connection.
	SeenAt string
	// NotDirect says why there is no direct connection; empty when there is one.
	NotDirect string
	// Reachability is "public" or "private", and UDPMapping and TCPMapping are the kinds of the NAT in front of the node in
	// words; empty when it does not know.
	Reachability, UDPMapping, TCPMapping string
	// Dialed is what the addresses of the asker met.
	Dialed []Met
}

// Met is what a dial to an address met.
type Met struct {
	Addr string        // a multiaddr
	Took time.Duration // until the answer or the failure
	Err  string        // empty when the asker answered there
}

// A Looker knows what a node sees of a peer. Its method is called concurrently; with dial it dials the peer's addresses, at
// most MaxDialed of those that the node would dial anyhow, and returns when that has ended or ctx has. Time is set by
// the caller.
type Looker interface {
	Look(ctx context.Context, asker peer.ID, dial bool) View
}
