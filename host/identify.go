package host

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/crypto"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

// Errors of [Identify] that tell the asking host something about itself.
var (
	// ErrSelf says that the asking host itself answers at the address.
	ErrSelf = errors.New("host: the address is this host's own")

	// ErrClone says that somebody else, who has the asking host's identity, answers at the address.
	ErrClone = errors.New("host: another host has this host's identity: give each its own home, and never copy one")
)

// Identify tells who answers at an address without a peer ID, by a handshake that ends as soon as the other side has
// proved its ID; no connection is left. The answer is as good as the address: whoever answers there is believed.
//
// An address of h itself is [ErrSelf]. A foreign address at which h's own identity answers is [ErrClone], which is
// also reported to [Config.Clone].
func Identify(ctx context.Context, h corehost.Host, a ma.Multiaddr) (peer.ID, error) {
	nobody, err := nobodysID()
	if err != nil {
		return "", fmt.Errorf("host: identify %s: %w", a, err)
	}
	// The security handshake compares the proven ID with the wanted one. Nobody has the wanted one, so it ends there.
	h.Peerstore().AddAddr(nobody, a, peerstore.TempAddrTTL)
	defer func() {
		h.Peerstore().ClearAddrs(nobody)
		h.Peerstore().RemovePeer(nobody)
	}()
	c, err := h.Network().DialPeer(network.WithForceDirectDial(ctx, "identify"), nobody)
	if err == nil {
		_ = c.Close()
		return "", fmt.Errorf("host: identify %s: a peer proved an ID whose key does not exist", a)
	}
	id, at, ok := Answered(err)
	switch {
	case errors.Is(err, swarm.ErrDialToSelf), ok && id == h.ID() && ownAddr(h, at):
		return "", ErrSelf
	case ok && id == h.ID():
		if n, ok := h.(*node); ok {
			n.cloned(at)
		}
		return "", ErrClone
	case ok:
		return id, nil
	default:
		return "", fmt.Errorf("host: identify %s: %w", a, cause(err))
	}
}

// Answered tells whether a dial failed because somebody else than the wanted peer proved its ID, who it was, and at
// which address.
func Answered(err error) (id peer.ID, at ma.Multiaddr, ok bool) {
	if dial, ok := errors.AsType[*swarm.DialError](err); ok {
		for _, e := range dial.DialErrors {
			if mismatch, ok := errors.AsType[sec.ErrPeerIDMismatch](e.Cause); ok {
				return mismatch.Actual, e.Address, true
			}
		}
		return "", nil, false
	}
	if mismatch, ok := errors.AsType[sec.ErrPeerIDMismatch](err); ok {
		return mismatch.Actual, nil, true
	}
	return "", nil, false
}

// cause returns the one error of a dial to one address, without the name of the peer that does not exist.
func cause(err error) error {
	var dial *swarm.DialError
	if !errors.As(err, &dial) {
		return err
	}
	if len(dial.DialErrors) > 0 {
		return dial.DialErrors[0].Cause
	}
	if dial.Cause != nil {
		return dial.Cause
	}
	return err
}

// ownAddr tells whether a is one of h's addresses.
func ownAddr(h corehost.Host, a ma.Multiaddr) bool {
	return a != nil && slices.ContainsFunc(Addrs(h), a.Equal)
}

// nobodysID returns an ID of which nobody has the key.
func nobodysID() (peer.ID, error) {
	_, pub, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return "", err
	}
	return peer.IDFromPublicKey(pub)
}
