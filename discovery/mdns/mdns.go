package mdns

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"

	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lynn9388/p2p/discovery"
)

// Config says which network's nodes a [Source] finds.
type Config struct {
	// Network is the name of the network; nodes of other networks are not heard. Empty means "default".
	Network string
	// Logger gets the reasons for finding nobody (Info or Warn, once per change) and the rest at Debug; nil means
	// [slog.Default].
	Logger *slog.Logger
}

// A Source finds the nodes of a network on the links of this machine, and on this machine itself over the loopback
// interface. It implements [discovery.Source] and [discovery.Scoped]. Its methods may be called concurrently, before,
// while and after it runs.
type Source struct {
	names names
	log   *slog.Logger
	net   network

	refresh chan struct{}

	mu      sync.Mutex
	running bool
	state   State
}

var (
	_ discovery.Source = (*Source)(nil)
	_ discovery.Scoped = (*Source)(nil)
)

// New returns a source. It does no I/O: [Source.Run] opens the sockets.
func New(cfg Config) *Source {
	log := cfg.Logger
	if log == nil {
		log = slog.Default()
	}
	return &Source{
		names:   newNames(cmp.Or(cfg.Network, "default")),
		log:     log.With("source", "mdns"),
		net:     machine{},
		refresh: make(chan struct{}, 1),
		state:   State{Reason: Stopped, Text: textStopped},
	}
}

// String returns "mdns".
func (s *Source) String() string { return "mdns" }

// Origin vouches for loopback addresses: they are passed on only when they were heard on the loopback interface, where
// only this machine can speak. What is heard elsewhere is passed on without them.
func (s *Source) Origin() discovery.Origin {
	return discovery.Origin{Source: s.String(), Scope: discovery.Loopback}
}

var errRunning = errors.New("mdns: already running")

// Run announces h on every usable interface and calls found for the nodes it hears, until ctx ends; then it says
// goodbye, closes its sockets and returns nil. It follows changes of interfaces and addresses; sockets that cannot be
// opened are no error but a [State], and are tried again.
//
// found is called for a node that is new, was silent or lost, or has new addresses, and now and then for one that h
// is not connected to; never concurrently. An entry that has h's own peer ID but was not made by this run is passed on
// as well, for it betrays a clone. What comes in cannot make more than about 32 calls a second.
//
// A second Run at the same time fails.
func (s *Source) Run(ctx context.Context, h corehost.Host, found func(peer.AddrInfo)) error {
	s.mu.Lock()
	if s.running {
		s.mu.Unlock()
		return errRunning
	}
	s.running = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.running = false
		s.mu.Unlock()
	}()
	r, err := newRun(s, h, found)
	if err != nil {
		return err
	}
	return r.loop(ctx)
}

// Refresh makes a running source ask the links at once, as after the loss of a peer. It never blocks; several calls
// in a short time count as one.
func (s *Source) Refresh() {
	select {
	case s.refresh <- struct{}{}:
	default:
	}
}

// State tells how the search goes now, and why it finds nobody.
func (s *Source) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}
