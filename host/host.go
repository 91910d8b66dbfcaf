// Package host builds a libp2p host the way a node needs it: keys, addresses, transports, limits and the gate.
package host

import (
	"context"
	"errors"
	"log/slog"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Config says what [New] builds. The zero value is a host with a throwaway identity that does not listen.
type Config struct {
	// Identity is the host's key. Nil makes a new Ed25519 key that is forgotten with the host.
	Identity crypto.PrivKey

	// Listen names where to listen, as [Listen] takes it. Empty, the host does not listen until Listen is called,
	// so that handlers can be set first.
	Listen []string

	// Announce names addresses, host[:port], that reach this host although no interface of it has them, as behind a
	// 1:1 NAT. Without a port the listening port is meant.
	Announce []string

	// Allow decides who may be connected, in both directions, once a peer has proved its ID and before anything else
	// is exchanged. Nil lets everyone connect.
	Allow *AllowList

	// Clone is called when somebody else proves this host's own identity, with the address it came from or was met
	// at. It must not block. Nil ignores clones.
	Clone func(remote ma.Multiaddr)

	// UserAgent is the agent version that identify tells other peers.
	UserAgent string

	// Libp2p are further options. They win: what they set, this package does not set again.
	Libp2p []libp2p.Option

	// Logger takes this package's records. Nil discards them.
	Logger *slog.Logger
}

// ErrSelf is returned by [Identify] for an address at which the asking host itself answers.
var ErrSelf = errors.New("host: the address is this host's own")

// New returns a started host. The caller closes it.
func New(cfg Config) (corehost.Host, error) { return nil, errors.New("host: not built yet") }

// Listen makes h listen at addrs, which [addr.ParseListen] describes: TCP and QUIC on the same port, port 0 for a free
// one. A port of which either half is taken is a [*PortTakenError], and then nothing listens. A missing IPv6 is no error.
func Listen(h corehost.Host, addrs ...string) error { return errors.New("host: not built yet") }

// Identify tells who answers at an address without a peer ID.
func Identify(ctx context.Context, h corehost.Host, a ma.Multiaddr) (peer.ID, error) {
	return "", errors.New("host: not built yet")
}

// Addrs returns the addresses at which h can be reached as they are now.
func Addrs(h corehost.Host) []ma.Multiaddr { return h.Addrs() }
