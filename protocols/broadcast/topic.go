package broadcast

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// A Topic is a name under which nodes publish messages of one type. Its methods are safe for concurrent use.
type Topic[T proto.Message] struct {
	room  *room
	mt    protoreflect.MessageType
	close func() error

	mu   sync.Mutex
	subs map[listener]struct{} // what ends with this handle
	done bool
}

// Join returns a handle for a topic of a bus, by which messages of type T are published and heard. T is a pointer to a
// generated message, such as *chatpb.Line. A topic of type *anypb.Any hears and says messages of every type: what one
// node publishes as an Any that holds a Line, another hears as a Line. Messages of other types than those that this node
// joined the topic with are refused.
//
// A topic may be joined several times, also with different types. The first join on a bus starts its protocols; joining
// alone subscribes to nothing. See [CheckTopic] for names.
func Join[T proto.Message](b *Bus, name string) (*Topic[T], error) {
	var zero T
	r, err := b.open(name)
	if err != nil {
		return nil, err
	}
	t := &Topic[T]{room: r, mt: zero.ProtoReflect().Type(), subs: map[listener]struct{}{}}
	r.mu.Lock()
	r.types[t.mt]++
	r.mu.Unlock()
	t.close = sync.OnceValue(t.leave)
	return t, nil
}

// Name returns the topic's name.
func (t *Topic[T]) Name() string { return t.room.name }

// Close ends the handle, its subscriptions and its handlers. With its last handle the node leaves the topic. It may be
// called more than once.
func (t *Topic[T]) Close() error { return t.close() }

func (t *Topic[T]) leave() error {
	t.mu.Lock()
	subs := t.subs
	t.subs, t.done = nil, true
	t.mu.Unlock()
	for l := range subs {
		t.room.unlisten(l)
		l.end()
	}
	t.room.mu.Lock()
	if t.room.types[t.mt]--; t.room.types[t.mt] == 0 {
		delete(t.room.types, t.mt)
	}
	t.room.mu.Unlock()
	return t.room.leave()
}

// Peers returns the connected nodes that listen on the topic. Further ones are reached through them.
func (t *Topic[T]) Peers() []peer.ID { return t.room.peers() }

// Publish says m to every node that listens on the topic, this one included. It returns when m is on its way to the
// neighbors. It waits while nobody else listens, at most [Config.Wait], and then fails with [ErrNoPeers]; while this node
// has published more than [Rate] allows; and while the neighbors take messages more slowly than they are published. It
// sends nothing if ctx ends before, or m is larger than [MaxMessage].
//
// Nobody confirms that a message was heard: a node that is cut off for longer than some seconds misses it.
func (t *Topic[T]) Publish(ctx context.Context, m T) error {
	body, err := pack(m)
	if err != nil {
		return err
	}
	if err := t.live(); err != nil {
		return err
	}
	return t.wrap(t.room.publish(ctx, &Envelope{Body: body}))
}

func (t *Topic[T]) live() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done {
		return ErrClosed
	}
	return nil
}

func (t *Topic[T]) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("broadcast: publish on %q: %w", t.room.name, err)
}

// add makes l listen until the handle ends.
func (t *Topic[T]) add(l listener) error {
	t.mu.Lock()
	if t.done {
		t.mu.Unlock()
		return ErrClosed
	}
	t.subs[l] = struct{}{}
	t.mu.Unlock()
	err := t.room.listen(l)
	if err == nil {
		err = t.live() // or it was closed meanwhile
	}
	if err != nil {
		t.remove(l)
	}
	return err
}

func (t *Topic[T]) remove(l listener) {
	t.mu.Lock()
	delete(t.subs, l)
	t.mu.Unlock()
	t.room.unlisten(l)
	l.end()
}

// A Message is what was heard.
type Message[T proto.Message] struct {
	// From is the author, by whose key the message is signed.
	From peer.ID
	// Time is when it was published, by the author's clock, which differs from this node's by at most [MaxAge].
	Time time.Time
	// Body is the message, which is the subscription's own.
	Body T
	// Missed is how many messages were lost just before this one, because the subscriber was too slow.
	Missed uint64
}

// A Subscription is one listener's queue. Its methods are safe for concurrent use.
type Subscription[T proto.Message] struct {
	topic  *Topic[T]
	c      chan Message[T]
	missed atomic.Uint64

	mu    sync.Mutex
	lost  uint64 // since the last message
	ended bool
}

// DefaultBuffer is how many messages wait for a subscriber that asked for no number.
const DefaultBuffer = 256

// Subscribe begins to hear what is published on the topic from now on, by this node as well. Up to buffer messages wait
// for the subscriber, 0 meaning [DefaultBuffer]; those that come when it is full are lost to this subscription alone,
// which is told how many they were. The subscription ends with Close, with the topic and with the bus.
func (t *Topic[T]) Subscribe(buffer int) (*Subscription[T], error) {
	if buffer <= 0 {
		buffer = DefaultBuffer
	}
	s := &Subscription[T]{topic: t, c: make(chan Message[T], buffer)}
	if err := t.add(s); err != nil {
		return nil, fmt.Errorf("broadcast: subscribe to %q: %w", t.room.name, err)
	}
	return s, nil
}

// C returns the channel of the messages, which is closed when the subscription ends. See also [Subscription.Messages].
func (s *Subscription[T]) C() <-chan Message[T] { return s.c }

// Messages yields the messages as they come, until ctx or the subscription ends.
func (s *Subscription[T]) Messages(ctx context.Context) iter.Seq[Message[T]] {
	return func(yield func(Message[T]) bool) {
		for ctx.Err() == nil {
			select {
			case m, ok := <-s.c:
				if !ok || !yield(m) {
					return
				}
			case <-ctx.Done():
			}
		}
	}
}

// Missed returns how many messages this subscription has lost so far.
func (s *Subscription[T]) Missed() uint64 { return s.missed.Load() }

// Close ends the subscription. It may be called more than once.
func (s *Subscription[T]) Close() { s.topic.remove(s) }

// hear implements listener.
func (s *Subscription[T]) hear(h *heard) {
	if h.envelope.GetQuestion() != nil {
		return
	}
	body, err := unpack[T](proto.CloneOf(h.envelope.GetBody()))
	if err != nil {
		return // another handle's type
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	select {
	case s.c <- Message[T]{From: h.from, Time: h.envelope.stamp(), Body: body, Missed: s.lost}:
		s.lost = 0
	default:
		s.lost++
		s.missed.Add(1)
	}
}

// end implements listener.
func (s *Subscription[T]) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.ended = true
		close(s.c)
	}
}
