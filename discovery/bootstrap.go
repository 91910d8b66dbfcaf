package discovery

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"
	madns "github.com/multiformats/go-multiaddr-dns"

	"github.com/lynn9388/p2p/host"
	"github.com/lynn9388/p2p/internal/addr"
	"github.com/lynn9388/p2p/internal/safetext"
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

	// identify is host.Identify, unless a test has another.
	identify func(context.Context, corehost.Host, ma.Multiaddr) (peer.ID, error)
}

// Bootstrap is the [Source] of the addresses that a node was told to join. It tries each of them for ever, so that the
// order in which nodes start does not matter and a node that comes back is found again: each 100 ms at first, then
// up to each 2 s for a minute, then each 30 s (10 s on this machine or link).
//
// An address without a peer ID names nobody: whoever answers there first is trusted, and with a [Book] it is the only
// one who is from then on (a pin). Addresses that end in /p2p/ID, or ID@host:port, need no such trust. A name that
// resolves to several addresses is joined at all of them. An address at which the node itself answers is ignored.
type Bootstrap struct {
	cfg BootstrapConfig
	log *slog.Logger

	mu     sync.Mutex
	joined map[string]*joint
	start  func(*joint) // while Run runs
}

// joint is one joined address.
type joint struct {
	text   string
	info   peer.AddrInfo
	wake   chan struct{}      // somebody connected or left
	kick   chan struct{}      // begin anew
	cancel context.CancelFunc // while Run runs

	// What follows belongs to the goroutine that tries the address.
	seen   map[string]peer.ID // who answered last, by address
	warned map[string]bool    // what was said already
	tries  int                // since the last change
	since  time.Time          // of the last change
}

// NewBootstrap returns a bootstrap with nothing to join.
func NewBootstrap(cfg BootstrapConfig) *Bootstrap {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Resolver == nil {
		cfg.Resolver = madns.DefaultResolver
	}
	if cfg.identify == nil {
		cfg.identify = host.Identify
	}
	return &Bootstrap{cfg: cfg, log: cfg.Logger, joined: make(map[string]*joint)}
}

// Join adds addresses: "host:port", "ID@host:port" or multiaddrs, with or without /p2p/ID, /dnsaddr among them. It
// opens nothing and may be called before Run and while it runs. A malformed address is an error, and then none of them
// is added; one that was added before is tried at once.
func (b *Bootstrap) Join(addrs ...string) error {
	infos := make([]peer.AddrInfo, len(addrs))
	for i, s := range addrs {
		info, err := addr.ParseJoin(s)
		if err != nil {
			return fmt.Errorf("discovery: join: %w", err)
		}
		infos[i] = info
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, s := range addrs {
		if j := b.joined[s]; j != nil {
			signal(j.kick)
			continue
		}
		j := &joint{
			text: s, info: infos[i], wake: make(chan struct{}, 1), kick: make(chan struct{}, 1),
			seen: make(map[string]peer.ID), warned: make(map[string]bool),
		}
		b.joined[s] = j
		if b.start != nil {
			b.start(j)
		}
	}
	return nil
}

// Leave removes addresses that Join added; unknown ones are ignored. Connections stay.
func (b *Bootstrap) Leave(addrs ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range addrs {
		if j := b.joined[s]; j != nil {
			delete(b.joined, s)
			if j.cancel != nil {
				j.cancel()
			}
		}
	}
}

// Joined returns the addresses that were given to Join and not to Leave, sorted.
func (b *Bootstrap) Joined() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]string, 0, len(b.joined))
	for s := range b.joined {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

// String returns "join".
func (b *Bootstrap) String() string { return "join" }

// Origin says that the addresses are explicit.
func (b *Bootstrap) Origin() Origin { return Origin{Source: "join", Explicit: true} }

// Run tries the addresses until ctx ends.
func (b *Bootstrap) Run(ctx context.Context, h corehost.Host, found func(peer.AddrInfo)) error {
	sub, err := h.EventBus().Subscribe(new(event.EvtPeerConnectednessChanged),
		eventbus.BufSize(256), eventbus.Name("discovery.Bootstrap"))
	if err != nil {
		return fmt.Errorf("discovery: follow the host's connections: %w", err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() { _ = sub.Close() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := func(j *joint) {
		jctx, jcancel := context.WithCancel(ctx)
		j.cancel = jcancel
		wg.Go(func() {
			defer jcancel()
			b.keepTrying(jctx, h, j, found)
		})
	}
	b.mu.Lock()
	b.start = start
	for _, j := range b.joined {
		start(j)
	}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.start = nil
		b.mu.Unlock()
	}()
	if k := b.cfg.Keeper; k != nil {
		k.onMove(func() { b.signal(func(j *joint) chan struct{} { return j.kick }) })
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-sub.Out():
			if !ok {
				return nil
			}
			b.signal(func(j *joint) chan struct{} { return j.wake })
		}
	}
}

// signal signals one of its channels to every joined address.
func (b *Bootstrap) signal(which func(*joint) chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, j := range b.joined {
		signal(which(j))
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// once tells whether it is the first time that key is to be said.
func (j *joint) once(key string) bool {
	if j.warned[key] {
		return false
	}
	j.warned[key] = true
	return true
}

func (b *Bootstrap) warn(j *joint, kind EventKind, now, old peer.ID, at ma.Multiaddr, err error) {
	if k := b.cfg.Keeper; k != nil {
		k.input(func(c *core) { // which logs it
			c.tell(Event{Kind: kind, Peer: Peer{ID: now, Source: b.String()}, Old: old, Addr: at, Err: err, Time: c.now})
		})
		return
	}
	b.log.Warn("joining", "addr", j.text, "err", err)
}

// key is what a pin at address a of j is remembered by: what the user wrote if that is one place, and each place on its
// own if a name stands for several.
func (j *joint) key(a ma.Multiaddr, several bool) string {
	hp, ok := addr.HostPort(a)
	switch {
	case !ok:
		return a.String()
	case strings.HasPrefix(j.text, "/"):
		return hp
	case several:
		return j.text + " at " + hp
	default:
		return j.text
	}
}

// onePerPlace groups addresses by IP address and port: who answers there over TCP answers over QUIC.
func onePerPlace(addrs []ma.Multiaddr) map[string][]ma.Multiaddr {
	out := make(map[string][]ma.Multiaddr)
	for _, a := range addrs {
		at := placeOf(a)
		out[at] = append(out[at], a)
	}
	return out
}

// placeOf returns the "host:port" of an address, or the whole of one that has none.
func placeOf(a ma.Multiaddr) string {
	if hp, ok := addr.HostPort(a); ok {
		return hp
	}
	return a.String()
}

func clean(err error) string { return safetext.Clean(oneLine(err)) }
