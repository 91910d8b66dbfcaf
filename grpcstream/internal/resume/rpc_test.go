package resume

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// A link makes RPCs between a caller and Sessions, in memory, which the test can break.
type link struct {
	t        *testing.T
	sessions *Sessions
	handle   func(grpc.ServerStream) error
	caller   string
	method   string
	rpcs     sync.WaitGroup

	mu     sync.Mutex
	open   map[*rpc]struct{}
	down   error // what an RPC fails with that is begun now
	silent int   // the answers of so many RPCs are lost
}

func newLink(t *testing.T, handle func(grpc.ServerStream) error) *link {
	t.Helper()
	return &link{
		t: t, sessions: NewSessions(testErrors()), handle: handle, caller: "me", method: "/x.A/Chat", open: map[*rpc]struct{}{},
	}
}

// A lost error is one of testErrors.
type lost struct {
	code codes.Code
	text string
}

func (l lost) Error() string              { return l.text }
func (l lost) GRPCStatus() *status.Status { return status.New(l.code, l.text) }

func testErrors() Errors {
	return Errors{
		NotResumed: func(code codes.Code, text string, _ error) error { return lost{code, text} },
		Busy:       func(text string) error { return lost{codes.ResourceExhausted, text} },
		IsBusy:     func(err error) bool { return false },
	}
}

// dial is how a caller begins an RPC.
func (l *link) dial(ctx context.Context) (grpc.ClientStream, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down != nil {
		return nil, l.down
	}
	r := &rpc{up: make(chan []byte, 4), back: make(chan []byte, 4), header: make(chan metadata.MD, 1), halfClosed: make(chan struct{})}
	r.ctx, r.end = context.WithCancelCause(context.Background())
	stop := context.AfterFunc(ctx, func() { r.end(status.FromContextError(ctx.Err()).Err()) })
	l.open[r] = struct{}{}
	if l.silent > 0 {
		l.silent--
		r.lost = true
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	l.rpcs.Go(func() {
		in, cancel := context.WithCancel(metadata.NewIncomingContext(r.ctx, md))
		if d, ok := ctx.Deadline(); ok {
			in, cancel = context.WithDeadline(in, d)
		}
		defer cancel()
		err := l.sessions.Carry(l.caller, l.method, serverEnd{r, in}, l.handle)
		if err == nil {
			err = io.EOF
		}
		close(r.header)
		r.end(err)
		stop()
		l.mu.Lock()
		delete(l.open, r)
		l.mu.Unlock()
	})
	return clientEnd{r}, nil
}

// cut breaks all RPCs of now, and those to come fail with err, if it is not nil.
func (l *link) cut(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = err
	for r := range l.open {
		r.end(status.Error(codes.Unavailable, "broken"))
	}
}

// kept returns the streams that the server has.
func (l *link) kept() []*session {
	l.sessions.mu.Lock()
	defer l.sessions.mu.Unlock()
	return slices.Collect(maps.Values(l.sessions.sessions))
}

// try begins a stream, and returns how it ends.
func (l *link) try(ctx context.Context) (grpc.ClientStream, error) {
	cs, _, wait := l.stream(ctx)
	defer wait()
	return cs, cs.RecvMsg(new(wrapperspb.BytesValue))
}

// stream begins a stream. When closed is closed there are no more RPCs, and wait waits for its end.
func (l *link) stream(ctx context.Context) (cs grpc.ClientStream, closed chan struct{}, wait func()) {
	l.t.Helper()
	closed = make(chan struct{})
	cs, run, err := NewStream(ctx, Caller{
		Desc: &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, Open: l.dial, Closed: closed, Errors: testErrors(),
	})
	if err != nil {
		l.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(run)
	return cs, closed, wg.Wait
}

// An rpc carries encoded frames.
type rpc struct {
	ctx        context.Context //nolint:containedctx // its life
	end        context.CancelCauseFunc
	up, back   chan []byte
	header     chan metadata.MD
	halfClosed chan struct{}
	once       sync.Once
	lost       bool // what the server says does not arrive, and it is broken then
}

func (r *rpc) put(c chan []byte, m any) error {
	p, _ := m.(proto.Message)
	b, err := proto.Marshal(p)
	if err != nil {
		return err
	}
	select {
	case <-r.ctx.Done():
		return io.EOF
	case c <- b:
		return nil
	}
}

func (r *rpc) take(c chan []byte, m any, eof <-chan struct{}) error {
	p, _ := m.(proto.Message)
	select {
	case b := <-c:
		return proto.Unmarshal(b, p)
	default:
	}
	select {
	case b := <-c:
		return proto.Unmarshal(b, p)
	case <-eof:
		return io.EOF
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
}

type clientEnd struct{ *rpc }

func (c clientEnd) Header() (metadata.MD, error) {
	select {
	case md := <-c.header:
		return md, nil
	case <-c.ctx.Done():
		if err := context.Cause(c.ctx); !errors.Is(err, io.EOF) {
			return nil, err
		}
		return nil, nil
	}
}
func (c clientEnd) Trailer() metadata.MD     { return nil }
func (c clientEnd) CloseSend() error         { c.once.Do(func() { close(c.halfClosed) }); return nil }
func (c clientEnd) Context() context.Context { return c.ctx }
func (c clientEnd) SendMsg(m any) error      { return c.put(c.up, m) }
func (c clientEnd) RecvMsg(m any) error      { return c.take(c.back, m, nil) }

type serverEnd struct {
	*rpc
	in context.Context //nolint:containedctx // a ServerStream carries its context
}

func (s serverEnd) SetHeader(metadata.MD) error { return nil }
func (s serverEnd) SendHeader(md metadata.MD) error {
	if s.lost {
		s.end(status.Error(codes.Unavailable, "broken"))
		return nil
	}
	s.header <- md
	return nil
}
func (s serverEnd) SetTrailer(metadata.MD)   {}
func (s serverEnd) Context() context.Context { return s.in }
func (s serverEnd) SendMsg(m any) error {
	if s.put(s.back, m) != nil {
		return status.Error(codes.Canceled, "the RPC has ended")
	}
	return nil
}
func (s serverEnd) RecvMsg(m any) error { return s.take(s.up, m, s.halfClosed) }
