package grpcstream

import (
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/grpc"
)

// A Selector says which instances of a service calls may go to. The zero value stands for all instances of the service
// that a called method belongs to.
type Selector struct {
	// Service is the full name of the service whose instances are called, whatever service a method belongs to. "": the
	// one in the method's name.
	Service string
	// Tags are what an instance must have, each of them: see [CheckTag].
	Tags []string
	// Nearest prefers the instances with the shortest round trip, instead of all in turn.
	Nearest bool
}

// Select returns a view of the channel that calls the instances that s tells. There is nothing to close. With a name
// or a tag that cannot be one every call is InvalidArgument.
func (ch *Channel) Select(s Selector) grpc.ClientConnInterface {
	return handle{ch: ch, sel: newSelector(s)}
}

// A selector says which peers a call may go to: one peer, or instances of a service. The zero value stands for all
// instances of the service in the method's name. It is shared by all calls of a handle and never changed.
type selector struct {
	peer    peer.ID        // one peer
	addrs   []ma.Multiaddr // where that peer is to be found besides what the host knows
	service string         // the instances of this service
	tags    string         // that have these tags, sorted, one a line
	nearest bool           // the nearest of them
	err     error          // every call fails with it
}

func newSelector(s Selector) *selector {
	sel := &selector{service: s.Service, nearest: s.Nearest}
	if s.Service != "" {
		sel.err = checkService(s.Service)
	}
	if sel.err == nil {
		sel.err = checkTags(s.Tags)
	}
	if sel.err != nil {
		sel.err = badTarget(sel.err)
		return sel
	}
	sel.tags = strings.Join(set(slices.Clone(s.Tags)), "\n")
	return sel
}

// namedSelector is newSelector where a service must be named.
func namedSelector(s Selector) *selector {
	if s.Service == "" {
		return &selector{err: badTarget(checkService(""))}
	}
	return newSelector(s)
}
