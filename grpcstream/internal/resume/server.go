package resume

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Sessions are the streams of a server.
type Sessions struct {
	errors   Errors
	handlers sync.WaitGroup

	mu        sync.Mutex
	sessions  map[sessionID]*session
	perCaller map[string]int
	closing   bool
}

// A sessionID names a stream: what its caller calls it, and who that is.
type sessionID struct {
	caller string
	id     [16]byte
}

// NewSessions returns the streams of a server, of which there are none yet.
func NewSessions(e Errors) *Sessions {
	return &Sessions{errors: e, sessions: map[sessionID]*session{}, perCaller: map[string]int{}}
}

// Carry has an RPC carry a stream of a method until the RPC or the stream has ended. A stream that is new is begun: handle
// is called once, with it, and returns how it ends. Who calls must be proven: nobody else's stream is gone on with.
func (r *Sessions) Carry(caller, method string, rpc grpc.ServerStream, handle func(grpc.ServerStream) error) error {
	a := new(Attach)
	values := metadata.ValueFromIncomingContext(rpc.Context(), metadataKey)
	if len(values) != 1 || proto.Unmarshal([]byte(values[0]), a) != nil || len(a.GetStream()) != len(sessionID{}.id) {
		return errProtocol("metadata that cannot be read")
	}
	s, received, err := r.attach(sessionID{caller, [16]byte(a.GetStream())}, method, a, rpc, handle)
	if err != nil {
		return err
	}
	defer r.left(s, a.GetAttempt())
	b, err := proto.Marshal(&Attached{Received: received})
	if err != nil {
		return err
	}
	if err := rpc.SendHeader(metadata.Pairs(metadataKey, string(b))); err != nil {
		return err
	}
	go s.read(rpc, a.GetAttempt(), s.control) // ends with the RPC
	return s.write(rpc, a.GetAttempt())
}

// attach finds the stream that an RPC is for, or begins it.
func (r *Sessions) attach(id sessionID, method string, a *Attach, rpc grpc.ServerStream, handle func(grpc.ServerStream) error) (*session, uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.sessions[id]
	switch {
	case s != nil && s.method != method:
		return nil, 0, errProtocol("a stream of another method")
	case s != nil && r.closing: // what carried it is lost, whether or not that was noticed here yet
		return nil, 0, r.errors.NotResumed(codes.Aborted, "the peer is shutting down", nil)
	case s != nil:
	case a.GetKnown():
		return nil, 0, r.errors.NotResumed(codes.Aborted, "the peer does not know the stream: it was started anew, or has waited for too long", nil)
	case r.closing:
		return nil, 0, status.Error(codes.Unavailable, "grpcstream: the server is shutting down")
	case r.perCaller[id.caller] >= MaxPerCaller:
		return nil, 0, r.errors.Busy(fmt.Sprintf("this node keeps %d resumable streams of one peer", MaxPerCaller))
	case len(r.sessions) >= maxStreams:
		return nil, 0, r.errors.Busy(fmt.Sprintf("this node keeps %d resumable streams", maxStreams))
	default:
		return r.begin(newSession(id, method, rpc), a, handle)
	}
	received, err := s.attach(a.GetAttempt(), a.GetReceived())
	if err == nil && s.expiry != nil {
		s.expiry.Stop()
		s.expiry = nil
	}
	return s, received, err
}

// begin begins a stream, unless its first RPC cannot be: there would be nobody to end it.
func (r *Sessions) begin(s *session, a *Attach, handle func(grpc.ServerStream) error) (*session, uint64, error) {
	received, err := s.attach(a.GetAttempt(), a.GetReceived())
	if err != nil {
		s.cancel()
		return nil, 0, err
	}
	r.sessions[s.id] = s
	r.perCaller[s.id.caller]++
	r.handlers.Go(func() { r.handle(s, handle) })
	return s, received, nil
}

// handle runs the handler of a stream, and sends how it ended.
func (r *Sessions) handle(s *session, handle func(grpc.ServerStream) error) {
	err := handle(s)
	s.meta.Lock()
	trailer := s.trailer
	s.meta.Unlock()
	_ = s.send(s.ctx, endOf(err, trailer)) // fails if nobody is to hear it
	if s.ctx.Err() != nil {                // so it is
		if expired(s.ctx) {
			s.fail(errExpired)
		}
		r.remove(s)
	}
	s.cancel()
}

// left says that an RPC carries a stream no longer.
func (r *Sessions) left(s *session, attempt uint32) {
	r.mu.Lock() // first, so that no other RPC takes over in between
	defer r.mu.Unlock()
	s.mu.Lock()
	current, complete := s.attempt == attempt, s.complete
	s.mu.Unlock()
	switch {
	case complete, current && r.closing:
		r.removeLocked(s)
	case current && r.sessions[s.id] == s && s.expiry == nil:
		var expiry *time.Timer
		expiry = time.AfterFunc(Within+slack, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			if s.expiry == expiry { // else it was taken up again just now
				r.removeLocked(s)
			}
		})
		s.expiry = expiry
	}
}

// remove ends a stream.
func (r *Sessions) remove(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.removeLocked(s)
}

func (r *Sessions) removeLocked(s *session) {
	if r.sessions[s.id] != s {
		return
	}
	delete(r.sessions, s.id)
	if r.perCaller[s.id.caller]--; r.perCaller[s.id.caller] == 0 {
		delete(r.perCaller, s.id.caller)
	}
	if s.expiry != nil {
		s.expiry.Stop()
	}
	s.fail(errRemoved)
	s.cancel()
}

// Close has no stream begin any longer, and ends each that nothing carries or that loses what carries it: nobody could go
// on with it here.
func (r *Sessions) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closing = true
	for _, s := range r.sessions {
		if s.expiry != nil {
			r.removeLocked(s)
		}
	}
}

// Wait waits for the handlers to return, and tells whether they have within the limit.
func (r *Sessions) Wait(limit time.Duration) bool {
	done := make(chan struct{})
	go func() { r.handlers.Wait(); close(done) }()
	select {
	case <-done:
		return true
	case <-time.After(limit):
		return false
	}
}

// A session is the server's end of a stream, and the handler's grpc.ServerStream.
type session struct {
	flow
	id     sessionID
	method string
	ctx    context.Context //nolint:containedctx // a ServerStream carries its context
	cancel context.CancelFunc
	expiry *time.Timer // nil while it is carried; guarded by Sessions.mu
	closed bool        // the caller sends no more; used by the one who receives

	meta    sync.Mutex
	header  metadata.MD
	headed  bool // header was sent
	trailer metadata.MD
}

func newSession(id sessionID, method string, rpc grpc.ServerStream) *session {
	s := &session{id: id, method: method}
	s.ctx, s.cancel = detached(rpc.Context())
	s.ctx = grpc.NewContextWithServerTransportStream(s.ctx, transport{s})
	return s
}

// control looks at a frame before it is accepted.
func (s *session) control(f *Frame) error {
	switch f.GetKind().(type) {
	case *Frame_Header, *Frame_End:
		return errProtocol("a frame that only a server sends")
	case *Frame_Cancel:
		if expired(s.ctx) {
			s.fail(errExpired)
		}
		s.fail(errCanceled)
		s.cancel()
		return errCanceled
	}
	return nil
}

// Context implements grpc.ServerStream.
func (s *session) Context() context.Context { return s.ctx }

// SetHeader implements grpc.ServerStream.
func (s *session) SetHeader(md metadata.MD) error {
	s.meta.Lock()
	defer s.meta.Unlock()
	if s.headed {
		return status.Error(codes.Internal, "grpcstream: the header was sent before")
	}
	s.header = metadata.Join(s.header, md)
	return nil
}

// SendHeader implements grpc.ServerStream.
func (s *session) SendHeader(md metadata.MD) error {
	if err := s.SetHeader(md); err != nil {
		return err
	}
	return s.sendHeader()
}

// sendHeader sends the header unless it was.
func (s *session) sendHeader() error {
	s.meta.Lock()
	defer s.meta.Unlock()
	if s.headed {
		return nil
	}
	s.headed = true
	return s.send(s.ctx, &Frame{Kind: &Frame_Header{Header: fieldsOf(s.header)}})
}

// SetTrailer implements grpc.ServerStream.
func (s *session) SetTrailer(md metadata.MD) {
	s.meta.Lock()
	defer s.meta.Unlock()
	s.trailer = metadata.Join(s.trailer, md)
}

// SendMsg implements grpc.ServerStream.
func (s *session) SendMsg(m any) error {
	f, err := encode(m)
	if err != nil {
		return err
	}
	if err := s.sendHeader(); err != nil {
		return err
	}
	return s.send(s.ctx, f)
}

// RecvMsg implements grpc.ServerStream.
func (s *session) RecvMsg(m any) error {
	if s.closed {
		return io.EOF
	}
	f, err := s.recv(s.ctx)
	switch {
	case err != nil:
		return err
	case f.GetHalfClose():
		s.closed = true
		return io.EOF
	}
	return decode(f, m)
}

// transport is what grpc.SetHeader and its like find in the context of a handler.
type transport struct{ *session }

// Method implements grpc.ServerTransportStream.
func (t transport) Method() string { return t.method }

// SetTrailer implements grpc.ServerTransportStream.
func (t transport) SetTrailer(md metadata.MD) error {
	t.session.SetTrailer(md)
	return nil
}
