package grpcstream

import (
	"cmp"
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lynn9388/p2p/grpcstream/internal/resume"
	"github.com/lynn9388/p2p/internal/safetext"
)

// A handle is a view of a channel: its calls go where the selector says.
type handle struct {
	ch  *Channel
	sel *selector
}

// Invoke implements [grpc.ClientConnInterface].
func (h handle) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if err := h.check(method); err != nil {
		return err
	}
	return h.ch.cc.Invoke(&call{Context: ctx, sel: h.sel}, method, args, reply, opts...)
}

// NewStream implements [grpc.ClientConnInterface].
func (h handle) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if err := h.check(method); err != nil {
		return nil, err
	}
	return h.ch.cc.NewStream(&call{Context: ctx, sel: h.sel}, desc, method, opts...)
}

// check tells what is wrong with a call before it begins.
func (h handle) check(method string) error {
	if h.sel.err != nil {
		return h.sel.err
	}
	if h.sel.peer != "" {
		return nil
	}
	if s := cmp.Or(h.sel.service, serviceOf(method)); IsSystemService(s) {
		return &Error{
			Code:    codes.InvalidArgument,
			Reason:  ReasonBadTarget,
			Message: fmt.Sprintf("every node has the service %q", safetext.Clean(s)),
			Remedy:  "name the peer that is to be called",
		}
	}
	return nil
}

// errLostCall is the error of a call whose context an interceptor replaced by one that is not derived from it: where
// the call was to go is not known any longer.
var errLostCall = status.Error(codes.Internal, "grpcstream: an interceptor replaced the call's context by one that is not derived from it")

// heed takes over what the call's options say. They are all here: the channel's and the call's own.
func (c *call) heed(opts []grpc.CallOption) {
	for _, o := range opts {
		switch o := o.(type) {
		case grpc.FailFastCallOption:
			c.patient = !o.FailFast
		case repeatable:
			c.repeats = repeatMax
		case resumable:
			c.resumes = true
		}
	}
}

// unary is the channel's innermost interceptor.
func (ch *Channel) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	c := callFrom(ctx)
	if c == nil {
		return errLostCall
	}
	ctx, c = c.begin(ctx)
	defer c.end()
	c.heed(opts)
	c.unary = true
	if c.resumes {
		return notResumable(method)
	}
	for {
		err := c.cause(invoke(ctx, method, req, reply, cc, opts...))
		switch {
		case err == nil:
			return nil
		case !c.repeat(err):
			return ch.explain(c, method, err)
		}
	}
}

// stream is the channel's innermost interceptor.
func (ch *Channel) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	c := callFrom(ctx)
	if c == nil {
		return nil, errLostCall
	}
	ctx, c = c.begin(ctx)
	c.heed(opts)
	begin := func() (grpc.ClientStream, error) {
		for {
			s, err := open(ctx, desc, cc, method, opts...)
			switch err = c.cause(err); {
			case err == nil && c.link != nil && c.link.path == PathRelay && c.link.tunnel != nil:
				return relayedStream{s, c.link.tunnel}, nil
			case err == nil || !c.repeat(err):
				return s, err
			}
		}
	}
	if c.resumes {
		begin = func() (grpc.ClientStream, error) {
			return ch.resume(ctx, c, desc, func(ctx context.Context) (grpc.ClientStream, error) {
				return open(ctx, resume.Desc(), cc, method+resume.Suffix, carrierOptions(opts)...)
			})
		}
	}
	s, err := begin()
	if err != nil {
		defer c.end()
		return nil, ch.explain(c, method, err)
	}
	if c.repeats > 0 && !c.resumes && desc.ServerStreams && !desc.ClientStreams {
		s = &repeatStream{ClientStream: s, call: c, again: begin}
	}
	return s, nil
}

// explain puts the cause in place of a deadline that passed while the call was held.
func (ch *Channel) explain(c *call, method string, err error) error {
	if c.hold != notHeld && status.Code(err) == codes.DeadlineExceeded {
		return ch.hub.explain(c, method)
	}
	return err
}
