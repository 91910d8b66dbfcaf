// Package discovery finds peers and decides which of them become neighbors.
//
// A [Source] tells about peers: [Bootstrap] from the addresses that a person gave, package mdns from the local link,
// [Exchange] from the neighbors. A [Keeper] takes what the sources find, holds the number of neighbors between two
// marks, redials the lost and tells what happens as events. A [Book] is what it remembers from one run to the next.
//
// Nothing that a source says is trusted: a found address is only dialed when the way it came gives it the right (see
// [Origin]), who answers there is proven by the connection, and who does not speak the network's tunnel protocol is
// no neighbor.
package discovery

import (
	"context"
	"net/netip"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/internal/addr"
)

// Source finds peers.
//
// A source owns no goroutine: [Keeper.Follow] runs it. Run finds peers until ctx ends and then returns nil or the
// context's error; another error means "not now", and Run is called again after a while. It calls found for each peer
// it hears of, as often as it hears of it; found may be called concurrently, never blocks for long and keeps nothing
// of its argument that the source may change later. Run returns only after its last call of found.
type Source interface {
	// String names the source in logs and in [Peer]: "mdns".
	String() string
	// Run finds peers until ctx ends.
	Run(ctx context.Context, h corehost.Host, found func(peer.AddrInfo)) error
}

// Scope tells how far an address reaches; wider scopes are greater.
type Scope = addr.Scope

// The scopes. An address that is none of them is never dialed.
const (
	Loopback = addr.Loopback // this machine
	Private  = addr.Private  // the link, the site or the carrier's network
	Public   = addr.Public   // everywhere
)

// Origin tells how an address was learnt, and so which addresses are believed: those whose scope is at least as wide
// as the scope of the way they came. Somebody on the Internet cannot make a node dial into its own LAN, somebody on
// the LAN cannot make it dial its own machine. Addresses that cannot be dialed, metadata addresses of clouds among
// them, are never accepted. An address that leads through a relay makes the node connect to that relay, so Relay decides
// about it; the relay's own address must be one that may be believed, or it is left out of the address.
type Origin struct {
	// Source names the way, for logs and [Peer].
	Source string
	// Scope is the narrowest scope that is accepted: the scope of the connection, or of the interface, that the
	// addresses came over. Zero accepts public addresses only.
	Scope Scope
	// Explicit addresses were given by the node's own user, and may have any scope and lead through any relay.
	Explicit bool
	// Relay says through which relays a peer may be reached; nil: none. It must not block.
	Relay func(relay peer.ID) bool

	// onLink keeps what comes this way to the links of this machine: of the public addresses it takes those for which it is
	// true. nil: all.
	onLink func(netip.Addr) bool
	// secondhand findings say nothing of whether the peer is there now: nobody is told that it does not answer.
	secondhand bool
}

// Scoped is implemented by a [Source] that vouches for more, or less, than [OriginOf] assumes. A source that accepts
// loopback addresses only from the loopback interface by itself says Loopback.
type Scoped interface {
	// Origin is how the source's findings came here.
	Origin() Origin
}

// OriginOf is the origin of what s finds: what s says itself if it is [Scoped]; otherwise private and public addresses
// are accepted, since the node's user chose the source, and loopback ones are not.
func OriginOf(s Source) Origin {
	if sc, ok := s.(Scoped); ok {
		o := sc.Origin()
		if o.Source == "" {
			o.Source = s.String()
		}
		return o
	}
	return Origin{Source: s.String(), Scope: Private}
}
