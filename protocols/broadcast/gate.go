package broadcast

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/event"
	corehost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

const (
	// A neighbor is read as fast as it sends up to this rate, in units as of [Rate], and no faster: what it sends beyond
	// waits at its side.
	readRate  = 16 * Rate
	readBurst = 2 * readRate
	// A neighbor may send this many invalid messages at once, and as many a second, before it is cut off. Signatures
	// are verified for them.
	maxStrikes    = 100
	forgiven      = 10
	brokenStrikes = 10 // for what ends a stream: not GossipSub, or too large
	// cutFor is how long a neighbor is cut off; each further time it is twice as long, up to maxCut. Meanwhile there is no
	// stream in either direction; then this one opens one, to which the other answers.
	cutFor    = time.Minute
	maxCut    = time.Hour
	maxGuests = 4096
)

var errCut = errors.New("broadcast: the peer is cut off")

// gate is the host as GossipSub sees it: it knows GossipSub's streams, so that they end with the bus; it reads each
// neighbor at a bounded rate, and cuts off who sends what does not hold.
type gate struct {
	corehost.Host
	topics *subscribed
	meet   *meeting
	log    *slog.Logger

	mu       sync.Mutex
	closed   bool
	streams  map[*stream]struct{}
	guests   map[peer.ID]*guest
	handlers sync.WaitGroup
}

// guest is what the gate knows of a neighbor.
type guest struct {
	reading bucket
	strikes bucket
	streams int
	until   time.Time // it is cut off
	cuts    int
	away    bool // it was cut off, and not asked since

	outbound int       // of the streams
	asks     int       // how often in a row it was asked for a stream to it
	again    time.Time // it may be asked
}

// stream is one of GossipSub's streams.
type stream struct {
	network.Stream
	gate    *gate
	guest   *guest
	inbound bool
	done    chan struct{}
	once    sync.Once

	mu     sync.Mutex
	failed bool // a read failed
}

func newGate(h corehost.Host, topics *subscribed, log *slog.Logger) *gate {
	g := &gate{Host: h, topics: topics, log: log, streams: map[*stream]struct{}{}, guests: map[peer.ID]*guest{}}
	topics.here = g.here
	return g
}

// EventBus implements [corehost.Host]. What GossipSub follows there is who takes part, and that is told by the meeting.
func (g *gate) EventBus() event.Bus { return g.meet.bus }

// SetStreamHandler implements [corehost.Host].
func (g *gate) SetStreamHandler(id protocol.ID, handle network.StreamHandler) {
	g.Host.SetStreamHandler(id, func(raw network.Stream) {
		s, err := g.enter(raw, true)
		if err != nil {
			_ = raw.Reset()
			return
		}
		defer g.handlers.Done()
		defer g.leave(s)
		handle(s)
	})
}

// Network implements [corehost.Host].
func (g *gate) Network() network.Network { return relayedToo{g.Host.Network()} }

// relayedToo is a network on which a relayed connection is as good as a direct one: GossipSub would leave those alone that
// are reached through a relay only.
type relayedToo struct{ network.Network }

// Connectedness implements [network.Network].
func (n relayedToo) Connectedness(p peer.ID) network.Connectedness {
	c := n.Network.Connectedness(p)
	if c == network.Limited {
		return network.Connected
	}
	return c
}

// NewStream implements [corehost.Host].
func (g *gate) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	raw, err := g.Host.NewStream(network.WithAllowLimitedConn(ctx, "broadcast"), p, ids...)
	if err != nil {
		return nil, err
	}
	s, err := g.enter(raw, false)
	if err != nil {
		_ = raw.Reset()
		return nil, err
	}
	return s, nil
}

// enter begins to follow a stream. An inbound one is a handler's.
func (g *gate) enter(raw network.Stream, inbound bool) (*stream, error) {
	p, now := raw.Conn().RemotePeer(), time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, ErrClosed
	}
	guest := g.guest(p, now)
	if now.Before(guest.until) {
		return nil, errCut
	}
	s := &stream{Stream: raw, gate: g, guest: guest, inbound: inbound, done: make(chan struct{})}
	g.streams[s] = struct{}{}
	guest.streams++
	if inbound {
		g.handlers.Add(1)
		g.meet.came()
	} else {
		guest.outbound++
	}
	return s, nil
}

func (g *gate) leave(s *stream) {
	g.mu.Lock()
	_, ok := g.streams[s]
	if ok {
		delete(g.streams, s)
		s.guest.streams--
		if !s.inbound {
			s.guest.outbound--
		}
	}
	last := ok && s.guest.streams == 0
	g.mu.Unlock()
	if last {
		g.topics.gone(s.Conn().RemotePeer())
	}
}

// here tells whether a peer has a stream.
func (g *gate) here(p peer.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	guest := g.guests[p]
	return guest != nil && guest.streams > 0
}

// guest returns what is known of a peer, and makes room for it.
func (g *gate) guest(p peer.ID, now time.Time) *guest {
	if known := g.guests[p]; known != nil {
		return known
	}
	if len(g.guests) >= maxGuests {
		for id, other := range g.guests {
			if other.streams == 0 && now.After(other.until) {
				delete(g.guests, id)
			}
		}
	}
	made := &guest{
		reading: bucket{rate: readRate, burst: readBurst, tokens: readBurst, at: now},
		strikes: bucket{rate: forgiven, burst: maxStrikes, tokens: maxStrikes, at: now},
	}
	g.guests[p] = made
	return made
}

// inspect sees each RPC before GossipSub does. What a cut-off neighbor had under way is dropped.
func (g *gate) inspect(from peer.ID, rpc *pubsub.RPC) error {
	units := 1
	for _, m := range rpc.GetPublish() {
		units += cost(len(m.GetData()))
	}
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	guest := g.guest(from, now)
	if now.Before(guest.until) {
		return errCut
	}
	guest.reading.charge(float64(units), now)
	return nil
}

// strike counts against a neighbor, and cuts it off when it was too much.
func (g *gate) strike(p peer.ID, n float64, why string) {
	now := time.Now()
	g.mu.Lock()
	guest := g.guests[p]
	if g.closed || guest == nil || now.Before(guest.until) || guest.strikes.take(n, now) {
		g.mu.Unlock()
		return
	}
	d := min(cutFor<<min(guest.cuts, 10), maxCut)
	guest.cuts++
	guest.until, guest.away = now.Add(d), true
	guest.strikes.tokens = maxStrikes
	var cut []*stream
	for s := range g.streams {
		if s.guest == guest {
			cut = append(cut, s)
		}
	}
	g.mu.Unlock()
	for _, s := range cut {
		s.end()
	}
	g.log.Warn("a peer's broadcasts are refused for a while: too many of them are invalid", "peer", p, "for", d, "reason", why)
}

// close ends all streams and waits for their handlers. GossipSub's context has ended before.
func (g *gate) close() {
	g.mu.Lock()
	g.closed = true
	streams := make([]*stream, 0, len(g.streams))
	for s := range g.streams {
		streams = append(streams, s)
	}
	g.mu.Unlock()
	for _, s := range streams {
		s.end()
	}
	g.handlers.Wait()
}

// end resets the stream without it being anybody's fault.
func (s *stream) end() {
	s.once.Do(func() { close(s.done) })
	_ = s.Stream.Reset()
}

// Read implements [network.Stream]. It waits while the neighbor has sent more than its rate.
func (s *stream) Read(p []byte) (int, error) {
	if s.inbound {
		s.pace()
	}
	n, err := s.Stream.Read(p)
	if err != nil {
		s.mu.Lock()
		s.failed = true
		s.mu.Unlock()
	}
	return n, err
}

func (s *stream) pace() {
	s.gate.mu.Lock()
	d := s.guest.reading.wait(time.Now())
	s.gate.mu.Unlock()
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.done:
	}
}

// Reset implements [network.MuxedStream]. GossipSub resets a stream that it cannot read, and one on which it read what
// is not GossipSub or is too large.
func (s *stream) Reset() error {
	s.mu.Lock()
	broken := s.inbound && !s.failed
	s.mu.Unlock()
	select {
	case <-s.done:
		broken = false
	default:
	}
	s.once.Do(func() { close(s.done) })
	err := s.Stream.Reset()
	if broken {
		s.gate.strike(s.Conn().RemotePeer(), brokenStrikes, "not a message, or too large")
	}
	if !s.inbound {
		s.gate.leave(s)
	}
	return err
}
