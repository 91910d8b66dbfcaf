package p2p

import (
	"context"
	"errors"
	"fmt"
	"iter"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lynn9388/p2p/internal/addr"
)

// JoinNetwork names places where other nodes are: "host:port", "ID@host:port" or a multiaddr, /dnsaddr/… included. It
// may be called before and after the start and returns at once; the node keeps trying until somebody answers there, and
// again when the connection is lost, so the order of starts does not matter. Its own address among them is ignored. At
// a place without an ID the node trusts who answers first. It returns an error for what cannot be a place.
func (n *Node) JoinNetwork(places ...string) error {
	for _, p := range places {
		if _, err := addr.ParseJoin(p); err != nil {
			return fmt.Errorf("p2p: join: %w", err)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.state == closing:
		return ErrClosed
	case n.err != nil:
		return n.err
	case n.state == idle:
		n.joins = append(n.joins, places...)
		return nil
	}
	return n.running.bootstrap.Join(places...)
}

// Disconnect closes the connections to a peer (ID, ID@host:port or multiaddr). While it runs, the node does not dial the
// peer again by itself, also when others name it: a call to it or [Node.Connect] does. The peer may come back by itself; an
// allow list keeps it out. At most 1,000 peers are remembered so, and the relays named to [WAN] are dialed again all the
// same. A peer that is not known is an error.
func (n *Node) Disconnect(target string) error {
	r, id, err := n.target("disconnect", target)
	if err != nil {
		return err
	}
	defer r.channel.Drop(id) // no call begins on a tunnel that is about to end
	return r.keeper.Disconnect(id)
}

// Forget is [Node.Disconnect], and drops all that is remembered of the peer: its addresses, the names that [Node.Pin] gave
// it, and that it answered at a joined address. It is an error when nothing is known of it.
func (n *Node) Forget(target string) error {
	r, id, err := n.target("forget", target)
	if err != nil {
		return err
	}
	defer r.channel.Drop(id)
	return r.keeper.Forget(id)
}

// Pin gives a peer (ID, ID@host:port or multiaddr) a name of this node's own choosing, in place of an older one for the
// name: a name that a peer claims is never used to find it. It is kept in the node's home, without which it is an error.
// A name has 1 to 64 bytes, can be printed, has no space, '/', '@' or ':', and is no peer ID; at most 1,000 are kept.
func (n *Node) Pin(name, target string) error {
	r, id, err := n.target("pin", target)
	if err != nil {
		return err
	}
	if r.book == nil {
		return errors.New("p2p: pin: the node has no home to keep names in: use WithHome")
	}
	return r.book.PinName(name, id)
}

// Pinned returns the peer that [Node.Pin] gave the name to. It reports false when there is none, and while the node does not
// run or has no home.
func (n *Node) Pinned(name string) (peer.ID, bool) {
	r, err := n.live()
	if err != nil || r.book == nil {
		return "", false
	}
	return r.book.ByName(name)
}

func (n *Node) target(verb, target string) (*running, peer.ID, error) {
	info, err := addr.ParsePeer(target)
	if err != nil {
		return nil, "", fmt.Errorf("p2p: %s: %w", verb, err)
	}
	r, err := n.live()
	return r, info.ID, err
}

// Connect dials a peer (ID, ID@host:port, ID@RELAY@host:port or multiaddr) and keeps it as a neighbor until
// [Node.Disconnect]: it is redialed whenever it is lost. It returns when the peer has shown that it is of this network, or
// with what was tried. For an ID alone an address must be known already. Nobody needs it before a call: calls dial by
// themselves.
func (n *Node) Connect(ctx context.Context, target string) error {
	info, err := addr.ParsePeer(target)
	if err != nil {
		return fmt.Errorf("p2p: connect: %w", err)
	}
	r, err := n.live()
	if err != nil {
		return err
	}
	return r.keeper.Connect(ctx, info)
}

// AwaitPeers blocks until the node has at least count neighbors, or ctx ends. Tests want it; a call does not need it.
func (n *Node) AwaitPeers(ctx context.Context, count int) error {
	r, err := n.live()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)()
	events := r.events.Follow(ctx)
	enough := func() bool { return len(r.keeper.Neighbors()) >= count }
	if enough() {
		return nil
	}
	for range events {
		if enough() {
			return nil
		}
	}
	if r.ctx.Err() != nil {
		return ErrClosed
	}
	return fmt.Errorf("p2p: waiting for %d neighbors: %d are there: %w", count, len(r.keeper.Neighbors()), ctx.Err())
}

// Peers returns every peer that the node knows, in the order of their IDs.
func (n *Node) Peers() []PeerInfo {
	r, err := n.live()
	if err != nil {
		return nil
	}
	return r.peers()
}

// PeerEvents yields what happens among the peers from now on, until ctx ends or the node is closed. The sequence may be
// ranged over once. A reader that falls more than 1,024 events behind misses the oldest of them.
func (n *Node) PeerEvents(ctx context.Context) iter.Seq[PeerEvent] {
	r, err := n.live()
	if err != nil {
		return func(func(PeerEvent) bool) {}
	}
	return r.events.Follow(ctx)
}

// ID returns the node's identity, or "" before it has started. It never waits: a logger may call it.
func (n *Node) ID() peer.ID {
	if id := n.id.Load(); id != nil {
		return *id
	}
	return ""
}

// Addrs returns the addresses at which the node can be dialed, complete with /p2p/ID, or nil before it has started.
func (n *Node) Addrs() []ma.Multiaddr {
	if r := n.begun(); r != nil {
		return r.addrs()
	}
	return nil
}

// Host returns the libp2p host underneath, for what the node does not offer, or nil before it has started. The node
// closes it.
func (n *Node) Host() corehost.Host {
	if r := n.begun(); r != nil {
		return r.host
	}
	return nil
}
