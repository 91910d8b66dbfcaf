// Package resume makes a gRPC stream outlive the RPC that carries it. The caller's end ([NewStream]) makes one RPC after
// the other, the server's ([Sessions]) finds the stream again, and each sends what the other has not received. How it is
// done stands in resume.proto.
package resume

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

const (
	// Within is how long the caller tries to go on with a stream that nothing carries. It is longer than it takes to find a
	// peer by another path or after a short sleep.
	Within = time.Minute

	// slack is how much longer the server keeps the stream, so that it never begins twice what the caller believes to go on
	// with.
	slack = 15 * time.Second

	// Suffix follows the method of a stream in those of the RPCs that carry it. A server that does not know of it answers
	// Unimplemented, and takes no frame for a message.
	Suffix = "/p2p.resume.v1"

	// metadataKey is the metadata with which these RPCs begin.
	metadataKey = "resume-bin"

	// window is how much may be under way or unread in one direction of a stream, in bytes, or one message that is larger.
	// Each end keeps as much. It allows 4 MB/s at a round trip of 60 ms.
	window = 256 << 10
	// tellFrom is how much is taken before the other end is told, which makes room there.
	tellFrom = window / 4
	// frameOverhead is what a frame counts besides its message, so that empty ones are not free.
	frameOverhead = 64

	// MaxPerCaller and maxStreams bound the streams that a server keeps. Each costs its two windows and a handler even while
	// nothing carries it: 32 MiB for one caller, half a GiB in all, if none of it is read. Messages larger than a window take
	// their own size instead, up to the largest that the server receives and the handler sends, as in unary calls.
	MaxPerCaller = 64
	maxStreams   = 1024
)

// Errors makes the errors that tell why there is no stream.
type Errors struct {
	// NotResumed is the end of a stream that cannot go on.
	NotResumed func(code codes.Code, text string, cause error) error
	// Busy is what a caller gets for whose stream there is no room.
	Busy func(text string) error
	// IsBusy tells whether an RPC has failed for lack of room.
	IsBusy func(err error) bool
}

// Desc is the kind of the RPCs that carry a stream.
func Desc() *grpc.StreamDesc { return &grpc.StreamDesc{ServerStreams: true, ClientStreams: true} }

// expired tells whether the deadline of a context has passed. Both ends have the same one, and either may hear of the other's
// before its own timer has run.
func expired(ctx context.Context) bool {
	d, ok := ctx.Deadline()
	return ok && !time.Now().Before(d)
}

// detached returns a context with the values and the deadline of another one, that does not end with it.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	base := context.WithoutCancel(ctx)
	if d, ok := ctx.Deadline(); ok {
		return context.WithDeadline(base, d)
	}
	return context.WithCancel(base)
}
