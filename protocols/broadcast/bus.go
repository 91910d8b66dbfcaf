package broadcast

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// DefaultWait is how long [Topic.Publish] and [Query] wait for another node on the topic.
const DefaultWait = 5 * time.Second

// A Config says how a [Bus] works. Host and Network are required.
type Config struct {
	// Host returns the host, or why there is none yet. It is asked until it has returned one.
	Host func() (corehost.Host, error)
	// Network is the network's name: a node hears nothing from other networks.
	Network string
	// Allow tells whether a peer may publish on a topic, and be told what is published there; nil allows everybody. It is
	// asked for every message that is new, and when a neighbor subscribes, which is for as long as that is connected. It
	// must not block, and is called from many goroutines at once.
	Allow func(p peer.ID, topic string) bool
	// Dial tells whether an asker that is not connected may be dialed, to bring it an answer, and at which of its
	// addresses, of which the neighbor via told. nil: everybody may be, at those that reach as far as the connections to
	// via. It must not block.
	Dial func(via peer.ID, asker peer.AddrInfo) (at []ma.Multiaddr, ok bool)
	// Wait is how long Publish and Query wait for another node on the topic; 0 means [DefaultWait].
	Wait time.Duration
	// Logger gets what a person should know; nil means [slog.Default].
	Logger *slog.Logger
}

// A Bus is a node's part in the broadcasts of its network. It does nothing, and announces nothing, before the first
// [Join]. Its methods are safe for concurrent use.
type Bus struct {
	cfg    Config
	ctx    context.Context //nolint:containedctx // the life of the bus, which no call's context bounds
	cancel context.CancelFunc
	asked  questions

	mu    sync.Mutex
	mesh  *mesh // from the first Join on
	rooms map[string]*room

	// life is never held while GossipSub is asked for something: GossipSub itself begins work here.
	life   sync.Mutex
	closed bool
	work   sync.WaitGroup
}

// mesh is a running GossipSub with what surrounds it.
type mesh struct {
	host   corehost.Host
	gate   *gate
	flow   *flow
	pubsub *pubsub.PubSub
}

// New returns a bus. It opens nothing and starts nothing.
func New(cfg Config) *Bus {
	if cfg.Wait <= 0 {
		cfg.Wait = DefaultWait
	}
	if cfg.Allow == nil {
		cfg.Allow = func(peer.ID, string) bool { return true }
	}
	b := &Bus{cfg: cfg, rooms: map[string]*room{}}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	return b
}

// Close leaves all topics, ends the subscriptions and the handlers' contexts, and returns when the handlers have
// returned. The host stays open. It may be called more than once; a closed bus is not used again.
func (b *Bus) Close() error {
	b.life.Lock()
	b.closed = true
	b.life.Unlock()
	b.mu.Lock()
	m := b.mesh
	for _, r := range b.rooms {
		r.end()
	}
	b.mu.Unlock() // a handler that waits for it must be able to return
	b.cancel()
	if m != nil {
		m.host.RemoveStreamHandler(AnswerProtocol(b.cfg.Network))
		m.host.RemoveStreamHandler(MeshProtocol(b.cfg.Network))
		m.gate.close()
	}
	b.work.Wait()
	return nil
}

// background runs f, which must end with the bus, unless the bus is closed.
func (b *Bus) background(f func()) bool {
	b.life.Lock()
	defer b.life.Unlock()
	if !b.closed {
		b.work.Go(f)
	}
	return !b.closed
}

func (b *Bus) ended() bool {
	b.life.Lock()
	defer b.life.Unlock()
	return b.closed
}

// open returns the room of a topic, which it makes when there is none.
func (b *Bus) open(name string) (*room, error) {
	if err := CheckTopic(name); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended() {
		return nil, ErrClosed
	}
	r := b.rooms[name]
	if r == nil {
		if err := b.start(); err != nil {
			return nil, err
		}
		var err error
		if r, err = b.newRoom(name); err != nil {
			return nil, fmt.Errorf("broadcast: join %q: %w", name, err)
		}
		b.rooms[name] = r
	}
	r.handles++
	return r, nil
}

// start starts GossipSub, once.
func (b *Bus) start() error {
	if b.mesh != nil {
		return nil
	}
	h, err := b.cfg.Host()
	if err != nil {
		return err
	}
	m := &mesh{host: h, gate: newGate(h, newSubscribed(wireTopic(b.cfg.Network, ""), b.mayHear), b.logger()), flow: newFlow()}
	if m.gate.meet, err = newMeeting(m.gate, MeshProtocol(b.cfg.Network)); err != nil {
		return fmt.Errorf("broadcast: %w", err)
	}
	if m.pubsub, err = newPubSub(b, m); err != nil {
		return errors.Join(fmt.Errorf("broadcast: %w", err), m.gate.meet.news.Close())
	}
	if !b.background(func() { m.gate.meet.run(b.ctx) }) {
		return errors.Join(ErrClosed, m.gate.meet.news.Close())
	}
	h.SetStreamHandler(AnswerProtocol(b.cfg.Network), b.hearAnswer)
	b.mesh = m
	return nil
}

func (b *Bus) logger() *slog.Logger {
	if b.cfg.Logger != nil {
		return b.cfg.Logger
	}
	return slog.Default()
}
