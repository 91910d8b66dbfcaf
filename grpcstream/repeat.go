package grpcstream

import (
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// repeatMax is how often a repeatable call is made again.
const repeatMax = 2

// Repeatable says that a call may be made more than once, because to do so does no harm. Without it a call that may
// have reached an instance is made once: it fails when that instance dies. With it a call that failed with Unavailable
// is made again, on an instance that it has not tried if there is one, at most three times in all and within its
// deadline. That holds for unary calls, and for streams of answers to one request until the first of them or the header
// was read: the request must not be changed until then. The other streams carry what cannot be sent again, and only
// their beginning is repeated.
func Repeatable() grpc.CallOption { return repeatable{} }

type repeatable struct{ grpc.EmptyCallOption }

// repeat tells whether the call is to be made again after an error, and makes it ready for that.
func (c *call) repeat(err error) bool {
	if c.repeats == 0 || c.hold != notHeld || status.Code(err) != codes.Unavailable || c.Err() != nil {
		return false
	}
	c.repeats--
	c.since = time.Time{}
	return true
}

// A repeatStream is a stream of answers to one request that is made again when it fails before the first of them. Like
// every stream it may be used by one goroutine that sends and one that receives.
type repeatStream struct {
	grpc.ClientStream // the first one; its context is that of all
	call              *call
	again             func() (grpc.ClientStream, error)

	mu      sync.Mutex
	next    grpc.ClientStream // in place of the first one; nil: none yet
	request any
	sent    bool
	closed  bool
	settled bool // an answer or the header was read
}

// current returns the stream that is in use.
func (s *repeatStream) current() grpc.ClientStream {
	if s.next != nil {
		return s.next
	}
	return s.ClientStream
}

// SendMsg implements grpc.ClientStream.
func (s *repeatStream) SendMsg(m any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.request, s.sent = m, true
	if err := s.current().SendMsg(m); !errors.Is(err, io.EOF) {
		return err
	}
	return nil // the stream has failed: RecvMsg sees why, and makes it again
}

// CloseSend implements grpc.ClientStream.
func (s *repeatStream) CloseSend() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.current().CloseSend()
}

// RecvMsg implements grpc.ClientStream.
func (s *repeatStream) RecvMsg(m any) error {
	for {
		s.mu.Lock()
		cs := s.current()
		s.mu.Unlock()
		err := cs.RecvMsg(m)
		s.mu.Lock()
		again := err != nil && !s.settled && s.call.repeat(err)
		s.settled = s.settled || err == nil
		if again {
			err = s.renewLocked()
		}
		s.mu.Unlock()
		if !again || err != nil {
			return err
		}
	}
}

// renewLocked makes the call again.
func (s *repeatStream) renewLocked() error {
	cs, err := s.again()
	if err != nil {
		return err
	}
	s.next = cs
	if s.sent {
		if err := cs.SendMsg(s.request); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	if s.closed {
		return cs.CloseSend()
	}
	return nil
}

// Header implements grpc.ClientStream.
func (s *repeatStream) Header() (md metadata.MD, err error) {
	s.mu.Lock()
	s.settled = true
	cs := s.current()
	s.mu.Unlock()
	return cs.Header()
}

// Trailer implements grpc.ClientStream.
func (s *repeatStream) Trailer() metadata.MD {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current().Trailer()
}
