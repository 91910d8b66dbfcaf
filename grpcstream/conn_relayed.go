package grpcstream

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// A meter counts what a tunnel over a relay carries, as the relay counts it: a relay does not say why it ends a
// connection, so that its limits are known only by what they were said to be at the beginning.
type meter struct{ sent, got atomic.Int64 }

// meterOverhead is about what one write becomes larger by encryption and multiplexing.
const meterOverhead = 30

// A quota is what a relay allows a connection. Zero fields are not limited.
type quota struct {
	duration time.Duration
	data     int64 // bytes in each direction
}

// quotaOf returns what the relay has said when it began to carry the connection.
func quotaOf(c network.Conn) quota {
	extra := c.Stat().Extra
	d, _ := extra[circuit.StatLimitDuration].(time.Duration)
	n, _ := extra[circuit.StatLimitData].(uint64)
	return quota{d, int64(n)}
}

// String returns the quota as it stands in errors.
func (q quota) String() string {
	var parts []string
	if q.data > 0 {
		parts = append(parts, size(q.data)+" each way")
	}
	if q.duration > 0 {
		parts = append(parts, q.duration.String())
	}
	if parts == nil {
		return "any amount"
	}
	return strings.Join(parts, " and ")
}

// size returns a number of bytes as it stands in errors.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/(1<<10), 0
	for ; v >= 1<<10; i++ {
		v /= 1 << 10
	}
	return fmt.Sprintf("%.4g %ciB", v, units[i])
}

// reached tells whether a connection that has ended was at its limit. Of what it carried only this tunnel's part is
// known, so that three quarters count as all.
func (q quota) reached(age time.Duration, carried int64) bool {
	return q.duration > 0 && age >= q.duration-time.Second || q.data > 0 && carried >= q.data/4*3
}

// lost returns why reading or writing failed when that was the end of the connection under the tunnel, else nil.
func (c *conn) lost(err error) *Error {
	under := c.stream.Conn()
	if !under.IsClosed() || errors.Is(err, io.EOF) {
		return nil
	}
	if c.meter == nil {
		return &Error{
			Code: codes.Unavailable, Reason: ReasonNoRoute, Err: err,
			Message: fmt.Sprintf("the connection with peer %s was lost: %s", c.peer.ID, oneLine(err)),
			Remedy:  "make the call again",
		}
	}
	q, age := quotaOf(under), time.Since(under.Stat().Opened).Round(time.Second)
	sent, got := c.meter.sent.Load(), c.meter.got.Load()
	if q.reached(age, max(sent, got)) {
		return &Error{
			Code: codes.Unavailable, Reason: ReasonRelayLimit, Err: err,
			Message: fmt.Sprintf("the connection with peer %s reached the limit of relay %s, which carries %s: about %s sent and %s received in %v",
				c.peer.ID, c.peer.Relay, q, size(sent), size(got), age),
			Remedy: "make the call again, over a relay with a higher limit or one of your own",
		}
	}
	return &Error{
		Code: codes.Unavailable, Reason: ReasonNoRoute, Err: err,
		Message: fmt.Sprintf("the connection with peer %s over relay %s was lost after %v: the peer or the relay is gone, or ended it; the relay carries %s",
			c.peer.ID, c.peer.Relay, age, q),
		Remedy: "make the call again",
	}
}

// ended returns why the tunnel ended when that is known, or nil.
func (c *conn) ended() *Error {
	select {
	case <-c.closed:
		if e, ok := errors.AsType[*Error](c.cause); ok {
			return e
		}
	default:
	}
	return c.gone.Load()
}

// explain puts the reason why the tunnel ended in place of what gRPC made of it, which is its text.
func (c *conn) explain(err error) error {
	if err == nil || status.Code(err) != codes.Unavailable || ReasonOf(err) != "" {
		return err
	}
	if e := c.ended(); e != nil {
		return e
	}
	return err
}

// A relayedStream is a stream over a relay, whose end has a reason.
type relayedStream struct {
	grpc.ClientStream
	tunnel *conn
}

// RecvMsg implements grpc.ClientStream.
func (s relayedStream) RecvMsg(m any) error { return s.tunnel.explain(s.ClientStream.RecvMsg(m)) }

// Header implements grpc.ClientStream.
func (s relayedStream) Header() (metadata.MD, error) {
	md, err := s.ClientStream.Header()
	return md, s.tunnel.explain(err)
}
