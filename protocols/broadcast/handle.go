package broadcast

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/lynn9388/p2p/internal/addr"
	"github.com/lynn9388/p2p/internal/places"
)

// maxHandlers is how many questions a handler works on at once, and how many of one asker; the rest are answered by
// ResourceExhausted.
const (
	maxHandlers     = 64
	maxHandlersEach = maxHandlers / 4
)

// maxBusy is how many refusals are under way at once; questions beyond them get no answer.
const maxBusy = 64

// Handle answers the questions that others, and this node, ask on the topic by [Query]. The handler is called from
// many goroutines at once, at most 64 and 16 for one asker, with the asker as its signature proves and with a context that
// ends when the asker no longer waits, after [MaxAnswerTime], and when the bus is closed; it must return then. What it
// returns goes directly to the asker, to whom a connection is made if there is none and [Config.Dial] lets it. An error is
// sent as its gRPC status, or else as Unknown with its text; a panic as Internal.
//
// The function returned ends it; so do the ends of the topic and the bus.
func Handle[Q, A proto.Message](t *Topic[Q], handler func(ctx context.Context, from peer.ID, q Q) (A, error)) (stop func(), err error) {
	a := &answerer{room: t.room, places: places.Places{All: maxHandlers, Each: maxHandlersEach}, busy: make(chan struct{}, maxBusy)}
	a.answer = func(ctx context.Context, h *heard) *Reply {
		q, err := unpack[Q](proto.CloneOf(h.envelope.GetBody()))
		if err != nil {
			return nil // another handle's type
		}
		return call(a.room.bus.logger(), func() (proto.Message, error) { return handler(ctx, h.from, q) })
	}
	if err := t.add(a); err != nil {
		return nil, fmt.Errorf("broadcast: handle %q: %w", t.room.name, err)
	}
	return func() { t.remove(a) }, nil
}

// call is what the handler answers.
func call(log *slog.Logger, handler func() (proto.Message, error)) (r *Reply) {
	defer func() {
		if p := recover(); p != nil {
			log.Error("a handler of questions panicked", "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			r = failure(status.New(codes.Internal, "the handler failed"))
		}
	}()
	m, err := handler()
	if err != nil {
		return failure(status.Convert(err))
	}
	body, err := pack(m)
	if err != nil {
		return failure(status.New(codes.Internal, err.Error()))
	}
	return &Reply{Body: body}
}

func failure(s *status.Status) *Reply {
	code := s.Code()
	if code == codes.OK || code > codes.Unauthenticated {
		code = codes.Unknown
	}
	text := strings.ToValidUTF8(s.Message(), "\ufffd") // the handler may have put anything into it
	return &Reply{Code: uint32(code), Message: strings.ToValidUTF8(text[:min(len(text), overhead/2)], "")}
}

// answerer is the listener that answers questions.
type answerer struct {
	room   *room
	answer func(context.Context, *heard) *Reply
	places places.Places // of questions
	busy   chan struct{} // refusals under way
}

// hear implements listener.
func (a *answerer) hear(h *heard) {
	q := h.envelope.GetQuestion()
	if q == nil {
		return
	}
	answer, done := a.answer, func() { a.places.Give(h.from) }
	if !a.places.Take(h.from) {
		answer = func(context.Context, *heard) *Reply {
			return failure(status.New(codes.ResourceExhausted, "too many questions at once"))
		}
		select {
		case a.busy <- struct{}{}:
			done = func() { <-a.busy }
		default:
			return
		}
	}
	if !a.room.bus.background(func() {
		defer done()
		a.work(h, q, answer)
	}) {
		done()
	}
}

// end implements listener.
func (*answerer) end() {}

func (a *answerer) work(h *heard, q *Question, answer func(context.Context, *heard) *Reply) {
	b := a.room.bus
	limit := min(time.Duration(q.GetTimeoutMs())*time.Millisecond, MaxAnswerTime)
	ctx, cancel := context.WithTimeout(b.ctx, limit)
	defer cancel()
	r := answer(ctx, h)
	if r == nil {
		return
	}
	if h.from == a.room.mesh.host.ID() {
		if own := b.asked.find(q.GetId()); own != nil && own.claim(h.from) {
			own.give(h.from, r)
		}
		return
	}
	if err := a.send(ctx, h, q, r); err != nil {
		b.logger().Debug("an answer was not delivered", "peer", h.from, "err", err)
	}
}

// errNotDialed is why an asker gets no answer.
var errNotDialed = errors.New("it is not connected, and not to be dialed")

// send brings an answer to the asker.
func (a *answerer) send(ctx context.Context, h *heard, q *Question, r *Reply) error {
	host := a.room.mesh.host
	data, err := proto.Marshal(r)
	if err != nil {
		return err
	}
	ctx = network.WithAllowLimitedConn(ctx, "answer")
	if host.Network().Connectedness(h.from) == network.NotConnected {
		at, ok := a.dialable(h, q)
		if !ok {
			return errNotDialed
		}
		if err := host.Connect(ctx, peer.AddrInfo{ID: h.from, Addrs: at}); err != nil {
			return err
		}
	}
	s, err := host.NewStream(ctx, h.from, AnswerProtocol(a.room.bus.cfg.Network))
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	if d, ok := ctx.Deadline(); ok {
		_ = s.SetDeadline(d)
	}
	if _, err := s.Write(slices.Concat(q.GetId(), data)); err != nil {
		return errors.Join(err, s.Reset())
	}
	return s.Close()
}

// dialable tells whether the asker may be dialed, and at which of its addresses. A stranger's word makes nobody dial into a
// network that the stranger is not in.
func (a *answerer) dialable(h *heard, q *Question) (at []ma.Multiaddr, ok bool) {
	var named []ma.Multiaddr
	for _, b := range q.GetAddrs() {
		if m, err := ma.NewMultiaddrBytes(b); err == nil {
			named = append(named, m)
		}
	}
	if dial := a.room.bus.cfg.Dial; dial != nil {
		return dial(h.via, peer.AddrInfo{ID: h.from, Addrs: named})
	}
	scope := addr.Public
	for _, c := range a.room.mesh.host.Network().ConnsToPeer(h.via) {
		scope = min(scope, addr.ScopeOf(c.RemoteMultiaddr()))
	}
	return slices.DeleteFunc(named, func(m ma.Multiaddr) bool { return scope == addr.Unusable || addr.ScopeOf(m) < scope }), true
}
