package broadcast

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// room is a topic as the bus has it, of whatever type; the handles of [Topic] share it.
type room struct {
	bus   *Bus
	mesh  *mesh
	name  string
	wire  string
	topic *pubsub.Topic

	history *history
	pace    *rate.Limiter
	handles int // under the bus's lock

	join  sync.Mutex // serializes how many listen and whether GossipSub knows it
	quiet pubsub.RelayCancelFunc

	mu        sync.Mutex
	session   uint64
	sequence  uint64
	types     map[protoreflect.MessageType]int // how many handles have each
	listeners []listener
	ended     bool
	warned    bool // of a clock
}

// listener hears what is published. It must not block.
type listener interface {
	hear(h *heard)
	end()
}

// heard is a message that holds.
type heard struct {
	room     *room
	from     peer.ID
	via      peer.ID
	envelope *Envelope
}

// newRoom joins a topic. The bus is locked.
func (b *Bus) newRoom(name string) (_ *room, err error) {
	now := time.Now()
	r := &room{
		bus: b, mesh: b.mesh, name: name, wire: wireTopic(b.cfg.Network, name),
		history: newHistory(now), pace: rate.NewLimiter(Rate, Burst),
		session: uint64(now.UnixNano()), types: map[protoreflect.MessageType]int{},
	}
	if r.topic, err = b.mesh.pubsub.Join(r.wire); err != nil {
		return nil, err
	}
	if err := b.mesh.pubsub.RegisterTopicValidator(r.wire, r.validate, pubsub.WithValidatorInline(true)); err != nil {
		return nil, errors.Join(err, r.topic.Close())
	}
	if err := r.topic.SetScoreParams(topicScores()); err != nil {
		return nil, errors.Join(err, b.mesh.pubsub.UnregisterTopicValidator(r.wire), r.topic.Close())
	}
	return r, nil
}

// leave gives one handle back; with the last one the topic is left.
func (r *room) leave() error {
	r.bus.mu.Lock()
	defer r.bus.mu.Unlock()
	if r.handles--; r.handles > 0 || r.bus.ended() {
		return nil
	}
	delete(r.bus.rooms, r.name)
	r.end()
	return errors.Join(r.bus.mesh.pubsub.UnregisterTopicValidator(r.wire), r.topic.Close())
}

// end ends what listens.
func (r *room) end() {
	r.mu.Lock()
	gone := r.listeners
	r.listeners, r.ended = nil, true
	r.mu.Unlock()
	for _, l := range gone {
		l.end()
	}
	r.hush()
}

// validate is GossipSub's question whether a message holds. It runs before the message is heard and passed on, after its
// signature was verified. Rejected is only what every honest node rejects: GossipSub holds that against all who send the
// message, at any time. The rest is ignored, and what is wrong with it is held against whoever sent this copy.
func (r *room) validate(_ context.Context, via peer.ID, m *pubsub.Message) pubsub.ValidationResult {
	from, now := m.GetFrom(), time.Now()
	e, err := parse(m.GetData())
	if err != nil {
		return pubsub.ValidationReject
	}
	if via != r.mesh.host.ID() {
		if wrong, is := r.fault(via, from, e, len(m.GetData()), now); is {
			r.mesh.gate.strike(via, wrong, "not to be heard")
			return pubsub.ValidationIgnore
		}
	}
	m.ValidatorData = &heard{room: r, from: from, via: via, envelope: e}
	return pubsub.ValidationAccept
}

// doubtful is the fault of sending what may be meant for others, or what an honest node passes on now and then, by a clock
// that is a little behind or after it has missed something. One author at its rate is forgiven; a flood is not.
const doubtful = 0.05

// fault tells whether there is something wrong with a message, and how wrong it is of via to send it.
func (r *room) fault(via, from peer.ID, e *Envelope, size int, now time.Time) (wrong float64, is bool) {
	by := func(author, other float64) (float64, bool) { // who passes it on may not know better
		if via == from {
			return author, true
		}
		return other, true
	}
	if !r.bus.cfg.Allow(from, r.name) || !r.understands(e) {
		return by(doubtful, 0)
	}
	switch r.history.judge(from, e, size, now) {
	case early: // a neighbor may well have it in stock
		return 0, true
	case tooFast:
		return by(1, 0)
	case old:
		r.warnOfClock(from, via, e, now)
		if now.Sub(e.stamp()).Abs() > 2*MaxAge {
			return 1, true
		}
		return doubtful, true
	case repeated:
		if now.Sub(e.stamp()) < seenFor {
			return 0, true
		}
		return by(1, doubtful)
	default:
		return 0, false
	}
}

// understands tells whether the message has the type of a handle.
func (r *room) understands(e *Envelope) bool {
	r.mu.Lock()
	types := make([]protoreflect.MessageType, 0, len(r.types))
	for t := range r.types {
		types = append(types, t)
	}
	r.mu.Unlock()
	return slices.ContainsFunc(types, func(t protoreflect.MessageType) bool { return decodes(t, e.GetBody()) })
}

// warnOfClock says once that a neighbor's own messages have a wrong time: then nothing of it is heard, and nobody else
// would say why.
func (r *room) warnOfClock(from, via peer.ID, e *Envelope, now time.Time) {
	r.mu.Lock()
	said := r.warned || from != via
	r.warned = r.warned || !said
	r.mu.Unlock()
	if !said {
		r.bus.logger().Warn("a peer's broadcasts are refused: it sent old ones, or its clock and this node's do not agree",
			"peer", from, "apart", now.Sub(e.stamp()).Round(time.Second), "allowed", MaxAge)
	}
}

// deliver hands a message to all who listen.
func (r *room) deliver(h *heard) {
	r.mu.Lock()
	all := slices.Clone(r.listeners)
	r.mu.Unlock()
	for _, l := range all {
		l.hear(h)
	}
}

// listen adds a listener; the first one makes GossipSub subscribe.
func (r *room) listen(l listener) error {
	r.join.Lock()
	defer r.join.Unlock()
	r.mu.Lock()
	ended := r.ended
	if !ended {
		r.listeners = append(slices.Clone(r.listeners), l)
	}
	r.mu.Unlock()
	if ended {
		return ErrClosed
	}
	if r.quiet != nil {
		return nil
	}
	// A relay of GossipSub is a subscription without a queue of its own.
	quiet, err := r.topic.Relay()
	if err != nil {
		return ErrClosed
	}
	r.quiet = quiet
	return nil
}

// unlisten removes a listener; with the last one GossipSub unsubscribes.
func (r *room) unlisten(l listener) {
	r.mu.Lock()
	r.listeners = slices.DeleteFunc(slices.Clone(r.listeners), func(other listener) bool { return other == l })
	left := len(r.listeners)
	r.mu.Unlock()
	if left == 0 {
		r.hush()
	}
}

func (r *room) hush() {
	r.join.Lock()
	defer r.join.Unlock()
	r.mu.Lock()
	left := len(r.listeners)
	r.mu.Unlock()
	if left == 0 && r.quiet != nil {
		r.quiet()
		r.quiet = nil
	}
}

// peers are the connected nodes that subscribed, and may, and can be told.
func (r *room) peers() []peer.ID {
	all := r.topic.ListPeers()
	return slices.DeleteFunc(all, func(p peer.ID) bool { return !r.bus.cfg.Allow(p, r.name) || !r.mesh.gate.reaches(p) })
}

// publish sends an envelope with a body, when somebody is there to hear it, its turn at the author's rate has come, and
// the neighbors take what is sent.
func (r *room) publish(ctx context.Context, e *Envelope) error {
	if err := r.await(ctx); err != nil {
		return err
	}
	if err := r.pace.WaitN(ctx, cost(proto.Size(e)+maxHeader)); err != nil {
		if ctx.Err() == nil && r.bus.ctx.Err() == nil {
			err = fmt.Errorf("its turn comes later: at most %d messages a second: %w", Rate, context.DeadlineExceeded)
		}
		return r.ending(ctx, err)
	}
	if err := r.mesh.flow.wait(ctx, r.topic.ListPeers); err != nil {
		return r.ending(ctx, err)
	}
	r.mu.Lock()
	ended := r.ended
	r.sequence++
	e.Session, e.Sequence, e.Time = r.session, r.sequence, time.Now().UnixNano()
	r.mu.Unlock()
	if ended {
		return ErrClosed
	}
	data, err := proto.Marshal(e)
	if err != nil {
		return err
	}
	if err := r.topic.Publish(ctx, data); err != nil {
		return r.ending(ctx, err)
	}
	self := r.mesh.host.ID() // GossipSub tells nothing of one's own messages
	r.deliver(&heard{room: r, from: self, via: self, envelope: e})
	return nil
}

// maxHeader is more than session, sequence and time take in an envelope.
const maxHeader = 32

// await waits until another node has subscribed.
func (r *room) await(ctx context.Context) error {
	if len(r.peers()) > 0 {
		return nil
	}
	late := time.NewTimer(r.bus.cfg.Wait)
	defer late.Stop()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		select {
		case <-again.C:
			if len(r.peers()) > 0 {
				return nil
			}
		case <-late.C:
			return ErrNoPeers
		case <-ctx.Done():
			return errors.Join(ErrNoPeers, ctx.Err())
		case <-r.bus.ctx.Done():
			return ErrClosed
		}
	}
}

// ending names an error that comes from the end of the bus or of the topic.
func (r *room) ending(ctx context.Context, err error) error {
	if err != nil && ctx.Err() == nil && (r.bus.ctx.Err() != nil || errors.Is(err, pubsub.ErrTopicClosed)) {
		return ErrClosed
	}
	return err
}
