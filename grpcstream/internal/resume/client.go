package resume

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	firstPause   = 100 * time.Millisecond // before an RPC is made again for the second time, doubled each time
	longestPause = 2 * time.Second        // and at most; an RPC that lasted longer was none in vain

	// goodbye is how long the last word to the server may take.
	goodbye = time.Second
)

// A Caller says how a stream is carried.
type Caller struct {
	Desc   *grpc.StreamDesc                                     // of the stream
	Open   func(ctx context.Context) (grpc.ClientStream, error) // begins an RPC
	Closed <-chan struct{}                                      // there will be no more RPCs
	Errors Errors
}

// stream is the caller's end of a stream.
type stream struct {
	flow
	Caller
	ctx context.Context //nolint:containedctx // a ClientStream carries its context
	id  [16]byte

	carried uint32      // the last RPC in which the server took part; 0: none; guarded by mu
	header  metadata.MD // nil: not yet; guarded by mu

	closed bool // used by the one who sends

	// Used by the one who receives.
	ended    error // what RecvMsg returns from now on
	answered bool  // of a stream with one answer
	trailer  metadata.MD
}

// NewStream begins a stream that ends with ctx. run must be called once, and returns when the stream has ended.
func NewStream(ctx context.Context, c Caller) (cs grpc.ClientStream, run func(), err error) {
	s := &stream{Caller: c, ctx: ctx}
	_, _ = rand.Read(s.id[:]) // never fails
	rpc, end, err := s.begin(1)
	if err != nil {
		return nil, nil, err
	}
	return s, func() { s.run(rpc, end) }, nil
}

// begin begins an RPC. Its context is not the stream's: it lasts for a goodbye longer.
func (s *stream) begin(attempt uint32) (grpc.ClientStream, context.CancelFunc, error) {
	s.mu.Lock()
	a := &Attach{Stream: s.id[:], Attempt: attempt, Received: s.received, Known: s.carried > 0}
	s.mu.Unlock()
	b, err := proto.Marshal(a)
	if err != nil {
		return nil, nil, err
	}
	ctx, end := detached(s.ctx)
	stop := context.AfterFunc(s.ctx, end)
	rpc, err := s.Open(metadata.AppendToOutgoingContext(ctx, metadataKey, string(b)))
	stop()
	if err != nil {
		end()
		return nil, nil, err
	}
	return rpc, end, nil
}

// run has the stream carried until it has ended.
func (s *stream) run(rpc grpc.ClientStream, end context.CancelFunc) {
	defer context.AfterFunc(s.ctx, func() { s.fail(status.FromContextError(s.ctx.Err()).Err()) })()
	lost, pause := time.Now(), time.Duration(0)
	for attempt := uint32(1); ; attempt++ {
		var err error
		if rpc == nil {
			rpc, end, err = s.begin(attempt)
		}
		begun, failed := time.Now(), err != nil
		if !failed {
			err = s.carry(rpc, end, attempt)
			rpc = nil
		}
		if s.carriedBy(attempt) {
			lost = time.Now()
		}
		if lost.Sub(begun) > longestPause {
			pause = 0
		}
		switch {
		case err == nil, s.failed() != nil:
			return
		case expired(s.ctx):
			s.fail(errExpired)
			return
		case failed && s.carriedBy(0), s.isFinal(err):
			s.fail(err)
			return
		case time.Since(lost) >= Within:
			s.fail(s.Errors.NotResumed(codes.Unavailable, fmt.Sprintf("the stream was not carried for %v: %v", Within, err), err))
			return
		}
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
		case <-s.Closed:
			s.fail(err)
			return
		}
		pause = min(max(2*pause, firstPause), longestPause)
	}
}

// carriedBy tells whether an RPC was the last one in which the server took part; 0: it never did.
func (s *stream) carriedBy(attempt uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.carried == attempt
}

// isFinal tells whether an error of an RPC is the end of the stream: asking again would not change it.
func (s *stream) isFinal(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch status.Code(err) {
	case codes.Unimplemented, codes.PermissionDenied, codes.Unauthenticated, codes.InvalidArgument, codes.Aborted,
		codes.DeadlineExceeded: // the stream's: an RPC has no other
		return true
	case codes.ResourceExhausted: // no room for the stream, no room for the moment, or a message that is too large
		return s.carried == 0 || !s.Errors.IsBusy(err)
	default:
		return false
	}
}

// carry goes on over an RPC. It returns nil when both ends have everything, and else why the RPC has ended.
func (s *stream) carry(rpc grpc.ClientStream, end context.CancelFunc, attempt uint32) error {
	defer end()
	defer context.AfterFunc(s.ctx, func() { time.AfterFunc(goodbye, end) })()
	received := uint64(0)
	if attempt > 1 {
		var err error
		if received, err = s.attached(rpc, attempt); err != nil {
			return err
		}
	}
	if _, err := s.attach(attempt, received); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if attempt == 1 { // nothing can have come before: what there is to send does not wait for the answer
			if _, err := s.attached(rpc, attempt); err != nil {
				s.lost(attempt, err)
				return
			}
		}
		s.read(rpc, attempt, s.control)
	}()
	err := s.write(rpc, attempt)
	switch {
	case s.ctx.Err() != nil:
		_ = rpc.SendMsg(&Frame{Kind: &Frame_Cancel{Cancel: true}})
		fallthrough
	case err == nil:
		_ = rpc.CloseSend()
		defer time.AfterFunc(goodbye, end).Stop()
	default:
		end()
	}
	<-done
	return err
}

// attached waits for the server to take part, and returns how much it has received.
func (s *stream) attached(rpc grpc.ClientStream, attempt uint32) (received uint64, err error) {
	md, err := rpc.Header()
	if err != nil {
		return 0, err
	}
	values := md.Get(metadataKey)
	if len(values) == 0 {
		return 0, rpc.RecvMsg(new(Frame)) // it has ended with a status and nothing else
	}
	a := new(Attached)
	if err := proto.Unmarshal([]byte(values[0]), a); err != nil {
		return 0, errProtocol("an answer that cannot be read")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.carried = attempt
	return a.GetReceived(), nil
}

// control looks at a frame before it is accepted.
func (s *stream) control(f *Frame) error {
	switch k := f.GetKind().(type) {
	case *Frame_HalfClose, *Frame_Cancel:
		return errProtocol("a frame that only a caller sends")
	case *Frame_Header:
		s.head(mdOf(k.Header))
	case *Frame_End:
		s.head(metadata.MD{})
	}
	return nil
}

// head keeps the first header.
func (s *stream) head(md metadata.MD) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.header == nil {
		s.header = md
		s.notifyLocked()
	}
}

// Header implements grpc.ClientStream.
func (s *stream) Header() (metadata.MD, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.header == nil {
		if s.err != nil {
			return nil, s.err
		}
		if !s.waitLocked(s.ctx.Done()) {
			return nil, status.FromContextError(s.ctx.Err()).Err()
		}
	}
	return s.header, nil
}

// Trailer implements grpc.ClientStream.
func (s *stream) Trailer() metadata.MD { return s.trailer }

// Context implements grpc.ClientStream.
func (s *stream) Context() context.Context { return s.ctx }

// CloseSend implements grpc.ClientStream.
func (s *stream) CloseSend() error {
	if !s.closed {
		s.closed = true
		_ = s.send(s.ctx, &Frame{Kind: &Frame_HalfClose{HalfClose: true}}) // RecvMsg tells what became of the stream
	}
	return nil
}

// SendMsg implements grpc.ClientStream.
func (s *stream) SendMsg(m any) error {
	if s.closed {
		return status.Error(codes.Internal, "grpcstream: SendMsg after CloseSend")
	}
	f, err := encode(m)
	if err != nil {
		return err
	}
	if s.send(s.ctx, f) != nil {
		return io.EOF // RecvMsg tells what became of the stream
	}
	return nil
}

// RecvMsg implements grpc.ClientStream.
func (s *stream) RecvMsg(m any) error {
	for s.ended == nil {
		f, err := s.recv(s.ctx)
		if err != nil {
			s.ended = err
			break
		}
		switch k := f.GetKind().(type) {
		case *Frame_Message:
			if err := s.answer(f, m); err != nil || s.Desc.ServerStreams {
				return err
			}
		case *Frame_End:
			s.trailer = mdOf(k.End.GetTrailer())
			s.ended = statusOf(k.End)
			if s.ended == nil {
				s.ended = io.EOF
				if s.answered {
					return nil
				}
			}
		}
	}
	return s.ended
}

// answer takes a message, of which a stream of the caller's messages alone gets one.
func (s *stream) answer(f *Frame, m any) error {
	if s.answered {
		s.ended = status.Error(codes.Internal, "grpcstream: a second answer to a call that has one")
		return s.ended
	}
	s.answered = !s.Desc.ServerStreams
	return decode(f, m)
}
