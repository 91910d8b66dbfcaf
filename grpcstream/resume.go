package grpcstream

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/lynn9388/p2p/grpcstream/internal/resume"
	"github.com/lynn9388/p2p/internal/safetext"
)

// Resumable makes a stream of a [Channel] outlive the connection that carries it. When that is lost, or gives way to a
// better path, the stream goes on over the next one: the caller sees one stream, and so does the handler. It is for every
// kind of stream that generated code makes, and a [Server] needs nothing for it. A unary call with it is InvalidArgument:
// [Repeatable] is for those.
//
// What holds as long as both processes live, and are cut off from each other for less than a minute at a time:
//
//   - each message that was sent arrives, once and in order, in both directions;
//   - the handler is called once, its context ends with the stream and not with a connection, and all of the stream comes
//     from the peer that began it, as each connection proves;
//   - header, trailer and status arrive, and so do the end of sending and the end of the caller's context. The deadline is
//     one for all.
//
// A stream that cannot go on ends with the reason NOT_RESUMED: the peers were cut off for too long (Unavailable, and the
// handler's context is canceled), or the peer was started anew meanwhile and does not know the stream (Aborted). Which of
// the last messages were handled is not known then.
//
// What does not hold: that a message was handled when SendMsg returns, as with every stream; anything across a restart of
// either program; that a stream to a service goes on at another instance.
//
// At most 256 KiB a direction are under way or unread, or one larger message, and each end keeps that much: SendMsg blocks
// when the other end does not read. While no connection is there it blocks when that is full. Messages are protobuf, and the
// largest may be a few bytes smaller than those of other streams. The call options grpc.Header, grpc.Trailer and
// grpc.OnFinish have no effect; the methods of the stream tell. The path that a handler's [PeerFromContext] tells is the
// first one. A server keeps at most 64 such streams of one peer.
func Resumable() grpc.CallOption { return resumable{} }

type resumable struct{ grpc.EmptyCallOption }

// resume begins a stream that is resumable. It lives at the peer that its first RPC goes to.
func (ch *Channel) resume(ctx context.Context, c *call, desc *grpc.StreamDesc, open func(context.Context) (grpc.ClientStream, error)) (grpc.ClientStream, error) {
	s, run, err := resume.NewStream(ctx, resume.Caller{
		Desc: desc, Closed: ch.quit, Errors: resumeErrors(),
		Open: func(ctx context.Context) (grpc.ClientStream, error) {
			next := c
			if c.link != nil {
				next = &call{Context: ctx, sel: &selector{peer: c.link.peer.id, addrs: c.sel.addrs}}
				next.taken.Store(true)
				ctx = next
			}
			s, err := open(ctx)
			return s, next.cause(err)
		},
	})
	if err != nil {
		return nil, err
	}
	if !ch.hub.begin(run) {
		run() // which ends at once: the channel was closed since the RPC began
	}
	return s, nil
}

// carrierOptions are the options of a stream that make sense for the RPCs that carry it.
func carrierOptions(opts []grpc.CallOption) (out []grpc.CallOption) {
	for _, o := range opts {
		switch o.(type) {
		case grpc.HeaderCallOption, grpc.TrailerCallOption, grpc.OnFinishCallOption:
		default:
			out = append(out, o)
		}
	}
	return out
}

// notResumable is the error of a unary call that is to be resumed.
func notResumable(method string) error {
	return &Error{
		Code: codes.InvalidArgument, Reason: ReasonBadTarget,
		Message: safetext.Clean(method) + " is no stream, which alone can be resumed",
		Remedy:  "leave Resumable out, or use Repeatable if the call may be made twice",
	}
}

func resumeErrors() resume.Errors {
	return resume.Errors{
		NotResumed: func(code codes.Code, text string, cause error) error {
			return &Error{
				Code: code, Reason: ReasonNotResumed, Err: cause, Message: safetext.Clean(text),
				Remedy: "find out what of it was handled, and begin another one",
			}
		},
		Busy:   busy,
		IsBusy: func(err error) bool { return ReasonOf(err) == ReasonBusy },
	}
}

// resumed has an RPC carry a stream that is resumable. next calls the handler.
func (s *Server) resumed(t *tunnel, m *method, ss grpc.ServerStream, next func(grpc.ServerStream) error) error {
	return s.resumes.Carry(string(t.peer.ID), m.name, ss, func(ss grpc.ServerStream) (err error) {
		defer m.stats.ended(time.Now(), &err)
		defer s.recovered(t, m.name, &err)
		return next(countedStream{ss, &m.stats})
	})
}
