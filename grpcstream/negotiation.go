package grpcstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"

	"github.com/lynn9388/p2p/internal/safetext"
)

// negotiationTimeout is how long a peer may take to confirm a protocol.
const negotiationTimeout = 10 * time.Second

// ErrProtocolNotSupported is in the error of reading from a connection, or of [Dial], when the peer does not speak
// the protocol: it runs something else, or it is of another network name.
var ErrProtocolNotSupported = errors.New("grpcstream: the peer does not speak the protocol")

// A negotiation is the answer to an optimistic opening that is still to come. What the opener writes is already on its
// way; only reads wait. Until the answer is there the deadlines of reads are kept here, since one that expires amid
// the answer would make it unreadable for good.
type negotiation struct {
	done chan struct{} // closed when the answer came; err is set before
	err  error

	mu       sync.Mutex
	deadline time.Time
	expired  chan struct{} // closed when the deadline has passed
	timer    *time.Timer
}

// proposeProtocol writes the opening of multistream-select and returns without waiting for the answer.
func proposeProtocol(ctx context.Context, s network.Stream, pid protocol.ID) (*negotiation, error) {
	if err := s.SetProtocol(pid); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	_, err := s.Write(append(token(multistream.ProtocolID), token(string(pid))...))
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	n := &negotiation{done: make(chan struct{}), expired: make(chan struct{})}
	go n.readAnswer(s, pid)
	return n, nil
}

// token is one message of multistream-select: its length, the text, a line feed.
func token(text string) []byte {
	b := appendUvarint(nil, uint64(len(text)+1))
	return append(append(b, text...), '\n')
}

func appendUvarint(b []byte, x uint64) []byte {
	for ; x >= 0x80; x >>= 7 {
		b = append(b, byte(x)|0x80)
	}
	return append(b, byte(x))
}

func (n *negotiation) readAnswer(s network.Stream, pid protocol.ID) {
	_ = s.SetReadDeadline(time.Now().Add(negotiationTimeout))
	err := expectProtocol(s, pid)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.timer != nil {
		n.timer.Stop()
	}
	_ = s.SetReadDeadline(n.deadline)
	n.err = err
	close(n.done)
}

func expectProtocol(s network.Stream, pid protocol.ID) error {
	for _, want := range []string{multistream.ProtocolID, string(pid)} {
		got, err := multistream.ReadNextToken[string](s)
		if err != nil {
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				return fmt.Errorf("grpcstream: the peer did not answer to protocol %s within %v", pid, negotiationTimeout)
			}
			return fmt.Errorf("grpcstream: protocol %s: %w", pid, err)
		}
		if got == "na" {
			return fmt.Errorf("%w %s", ErrProtocolNotSupported, pid)
		}
		if got != want {
			return fmt.Errorf("grpcstream: protocol %s: the peer answered %q", pid, safetext.Clean(got))
		}
	}
	return nil
}

// confirmed reports whether the peer has agreed.
func (n *negotiation) confirmed() bool {
	select {
	case <-n.done:
		return n.err == nil
	default:
		return false
	}
}

// wait blocks until the answer is there, the read deadline passes or the connection is closed.
func (n *negotiation) wait(closed <-chan struct{}) error {
	select {
	case <-n.done:
		return n.err
	default:
	}
	n.mu.Lock()
	expired := n.expired
	n.mu.Unlock()
	select {
	case <-n.done:
		return n.err
	case <-expired:
		return os.ErrDeadlineExceeded
	case <-closed:
		return net.ErrClosed
	}
}

// setReadDeadline keeps t until the answer is there. It reports false when that is so: t is then the stream's.
func (n *negotiation) setReadDeadline(t time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	select {
	case <-n.done:
		return false
	default:
	}
	n.deadline = t
	if n.timer != nil && !n.timer.Stop() {
		n.timer = nil // its function is running or has run: it closes the channel it was made for
	}
	select {
	case <-n.expired:
		n.expired = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return true
	}
	expired := n.expired
	if d := time.Until(t); d > 0 {
		n.timer = time.AfterFunc(d, func() { n.expire(expired) })
	} else {
		close(expired)
	}
	return true
}

func (n *negotiation) expire(expired chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.expired == expired && !n.deadline.IsZero() && !time.Now().Before(n.deadline) {
		select {
		case <-expired:
		default:
			close(expired)
		}
	}
}
