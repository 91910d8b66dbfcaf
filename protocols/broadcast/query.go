package broadcast

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/lynn9388/p2p/internal/safetext"
)

const (
	// DefaultQueryTime is how long [Query] waits for answers when its context has no deadline.
	DefaultQueryTime = 5 * time.Second
	// answerRead bounds how long the stream of an answer may take.
	answerRead = 10 * time.Second
	// maxAnswers is how many answers are queued for the asker; those after them, one of each peer, wait for a place.
	maxAnswers = 64
)

// An Answer is what one node answered.
type Answer[A proto.Message] struct {
	// From is the one who answered, as its connection proves.
	From peer.ID
	// Body is the answer, or nil when there is an error beside it.
	Body A
}

// Query asks the nodes that called [Handle] on the topic, and yields their answers as they come, at most one from each:
// count of them, or with count 0 all that come until ctx ends; without a deadline in ctx that is [DefaultQueryTime]. A
// handler's error is yielded beside the Answer that says whose it is, as a gRPC status. Nodes that do not answer in time
// are not mentioned, and delay nothing. When the question could not be published, as with [Topic.Publish], that is the
// only error, with an empty From. The question is published when the iteration begins; nothing runs after it has ended.
//
//	for a, err := range broadcast.Query[*pb.Load](ctx, topic, &pb.LoadQuestion{}, 0) { … }
func Query[A, Q proto.Message](ctx context.Context, t *Topic[Q], q Q, count int) iter.Seq2[Answer[A], error] {
	return func(yield func(Answer[A], error) bool) {
		ctx, cancel := withDeadline(ctx)
		defer cancel()
		asked, err := t.ask(ctx, q)
		if err != nil {
			yield(Answer[A]{}, err)
			return
		}
		defer asked.end()
		for n := 0; count <= 0 || n < count; n++ {
			r, ok := asked.next(ctx)
			if !ok {
				return
			}
			answer := Answer[A]{From: r.from}
			if answer.Body, err = unpackReply[A](r.reply); !yield(answer, err) {
				return
			}
		}
	}
}

func withDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, DefaultQueryTime)
}

func unpackReply[A proto.Message](r *Reply) (A, error) {
	var zero A
	if r.GetBody() == nil {
		return zero, status.Error(codes.Code(r.GetCode()), safetext.Clean(r.GetMessage()))
	}
	a, err := unpack[A](r.GetBody())
	if err != nil {
		return zero, status.Error(codes.Internal, "broadcast: the answer has another type: "+safetext.Clean(string(r.GetBody().MessageName())))
	}
	return a, nil
}

// ask publishes a question.
func (t *Topic[Q]) ask(ctx context.Context, q Q) (*question, error) {
	body, err := pack(q)
	if err != nil {
		return nil, err
	}
	if err := t.live(); err != nil {
		return nil, err
	}
	r := t.room
	asked := r.bus.asked.add(r.bus.ctx, r)
	left := DefaultQueryTime
	if d, ok := ctx.Deadline(); ok {
		left = time.Until(d)
	}
	e := &Envelope{Body: body, Question: &Question{Id: asked.id[:], TimeoutMs: uint32(min(max(left, 0), MaxAnswerTime) / time.Millisecond)}}
	for _, a := range r.mesh.host.Addrs() {
		if b := a.Bytes(); len(b) <= maxAddrSize && len(e.Question.Addrs) < maxAddrs {
			e.Question.Addrs = append(e.Question.Addrs, b)
		}
	}
	if err := r.publish(ctx, e); err != nil {
		asked.end()
		return nil, t.wrap(err)
	}
	return asked, nil
}

// questions are those of this node that wait for answers.
type questions struct {
	mu   sync.Mutex
	open map[[questionID]byte]*question
}

// question is one that waits for answers.
type question struct {
	all     *questions
	room    *room
	id      [questionID]byte
	bus     context.Context //nolint:containedctx // the life of the bus
	answers chan reply
	done    chan struct{}
	once    sync.Once

	mu       sync.Mutex
	answered map[peer.ID]bool
}

type reply struct {
	from  peer.ID
	reply *Reply
}

func (a *questions) add(bus context.Context, r *room) *question {
	q := &question{
		all: a, room: r, bus: bus, answers: make(chan reply, maxAnswers), done: make(chan struct{}), answered: map[peer.ID]bool{},
	}
	_, _ = rand.Read(q.id[:]) // never fails
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open == nil {
		a.open = map[[questionID]byte]*question{}
	}
	a.open[q.id] = q
	return q
}

func (a *questions) find(id []byte) *question {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.open[[questionID]byte(id)]
}

func (q *question) end() {
	q.once.Do(func() {
		close(q.done)
		q.all.mu.Lock()
		defer q.all.mu.Unlock()
		delete(q.all.open, q.id)
	})
}

// next waits for an answer. One that is there is taken, also when the time is over.
func (q *question) next(ctx context.Context) (reply, bool) {
	select {
	case r := <-q.answers:
		return r, true
	default:
	}
	select {
	case r := <-q.answers:
		return r, true
	case <-ctx.Done():
	case <-q.bus.Done():
	}
	return reply{}, false
}

// claim tells whether p may answer: once, and only if it may publish on the topic.
func (q *question) claim(p peer.ID) bool {
	if !q.room.bus.cfg.Allow(p, q.room.name) {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	first := !q.answered[p]
	q.answered[p] = true
	return first
}

// give hands an answer to the asker, and waits while it has others to take first.
func (q *question) give(from peer.ID, r *Reply) {
	select {
	case q.answers <- reply{from: from, reply: r}:
	case <-q.done:
	case <-q.bus.Done(): // the asker may be the one who closes the bus
	}
}

var errAnswer = errors.New("not an answer to a question of this node")

// hearAnswer handles a stream that carries an answer.
func (b *Bus) hearAnswer(s network.Stream) {
	if !b.background(func() { b.readAnswer(s) }) {
		_ = s.Reset()
	}
}

func (b *Bus) readAnswer(s network.Stream) {
	stop := context.AfterFunc(b.ctx, func() { _ = s.Reset() })
	defer stop()
	_ = s.SetDeadline(time.Now().Add(answerRead))
	q, r, err := b.parseAnswer(s)
	if err != nil {
		b.logger().Debug("an answer was refused", "peer", s.Conn().RemotePeer(), "err", err)
		_ = s.Reset()
		return
	}
	_ = s.Close()
	q.give(s.Conn().RemotePeer(), r)
}

// parseAnswer reads the answer to an open question. Nothing but the question's ID is read for others.
func (b *Bus) parseAnswer(s network.Stream) (*question, *Reply, error) {
	id := make([]byte, questionID)
	if _, err := io.ReadFull(s, id); err != nil {
		return nil, nil, err
	}
	q := b.asked.find(id)
	if q == nil || !q.claim(s.Conn().RemotePeer()) {
		return nil, nil, errAnswer
	}
	stop := make(chan struct{})
	defer close(stop)
	go func() { // an asker that has what it wanted does not wait for the rest
		select {
		case <-q.done:
			_ = s.Reset()
		case <-stop:
		}
	}()
	data, err := io.ReadAll(io.LimitReader(s, MaxMessage+overhead+1))
	if err != nil {
		return nil, nil, err
	}
	r, err := parseReply(data)
	return q, r, err
}

// parseReply reads and checks a reply.
func parseReply(data []byte) (*Reply, error) {
	if len(data) > MaxMessage+overhead {
		return nil, ErrTooLarge
	}
	var r Reply
	if err := proto.Unmarshal(data, &r); err != nil {
		return nil, err
	}
	switch {
	case r.GetBody() != nil && !r.GetBody().MessageName().IsValid():
		return nil, errors.New("an answer without a type")
	case r.GetBody() == nil && (r.GetCode() == 0 || r.GetCode() > uint32(codes.Unauthenticated)):
		return nil, fmt.Errorf("neither an answer nor an error: code %d", r.GetCode())
	}
	return &r, nil
}
