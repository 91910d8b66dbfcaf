package p2p

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/grpcstream"
	"github.com/lynn9388/p2p/host"
)

// access decides who may call a node: the peers of the allow list, as the authorizer decides. The host lets the same
// peers connect, and beside them the relays that were named, which carry and do not call.
type access struct {
	authorize Authorizer
	listed    bool // there is an allow list
	refused   *refusals
	list      atomic.Pointer[host.AllowList] // from the start on
	relays    map[peer.ID]bool               // the relays that were named
}

var (
	errUnlisted = errors.New("it is not on the allow list")
	errCarrier  = errors.New("it is a relay of this node, which may carry; to let it call, put it on the allow list")
)

func newAccess(n *Node, c *config) *access {
	a := &access{authorize: c.authorize, listed: c.listed(), refused: newRefusals(n.logger), relays: make(map[peer.ID]bool)}
	for _, id := range c.relayIDs() {
		a.relays[id] = true
	}
	return a
}

// carrier tells whether a peer is a relay that was named.
func (a *access) carrier(p peer.ID) bool { return a.relays[p] }

// mayConnect tells whether a peer may be connected.
func (a *access) mayConnect(p peer.ID) bool { return a.relays[p] || a.unlisted(p) == nil }

// mayCall tells whether a peer of which nothing but the ID is known may call a method.
func (a *access) mayCall(p peer.ID, method string) bool {
	return a.unlisted(p) == nil && (a.authorize == nil || a.authorize(context.Background(), PeerInfo{ID: p}, method) == nil)
}

// decide is the decision on each call, as the server asks for it. A node may always call itself.
func (a *access) decide(ctx context.Context, call grpcstream.Call) error {
	if call.Peer.Path == grpcstream.PathMemory {
		return nil
	}
	err := a.unlisted(call.Peer.ID)
	if err == nil && a.authorize != nil {
		err = a.authorize(ctx, callerInfo(call.Peer), call.Method)
	}
	if err != nil {
		a.refused.call(call, err)
	}
	return err
}

// unlisted is why the allow list lets a peer do nothing, or nil. Before the start nobody is let in.
func (a *access) unlisted(p peer.ID) error {
	if !a.listed {
		return nil
	}
	list := a.list.Load()
	switch {
	case list != nil && list.Allows(p):
		return nil
	case a.relays[p]:
		return errCarrier
	default:
		return errUnlisted
	}
}
