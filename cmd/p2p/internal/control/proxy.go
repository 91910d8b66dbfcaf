package control

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that rawCodec hands messages to
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// targetKey is the metadata entry that names the peer a call is forwarded to.
const targetKey = reservedPrefix + "control-target"

// reservedPrefix begins the metadata that belongs to nodes; none of it is forwarded.
const reservedPrefix = "p2p-"

// detailsKey carries a status's details, which gRPC writes by itself.
const detailsKey = "grpc-status-details-bin"

// WithTarget returns a context whose calls on a [Dial]ed connection go to a peer instead of the node itself.
func WithTarget(ctx context.Context, target string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, targetKey, target)
}

// frame is one message that nobody decodes on its way.
type frame struct{ payload []byte }

// rawCodec passes frames through and leaves all other messages to the protobuf codec.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(*frame); ok {
		return mem.BufferSlice{mem.SliceBuffer(f.payload)}, nil
	}
	return encoding.GetCodecV2("proto").Marshal(v)
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if f, ok := v.(*frame); ok {
		f.payload = data.Materialize()
		return nil
	}
	return encoding.GetCodecV2("proto").Unmarshal(data, v)
}

// proxy forwards calls of any method, of all streaming shapes, with metadata, trailers and the whole status.
type proxy struct {
	// conn returns the connection to a target as the user wrote it; its error is a status.
	conn func(target string) (grpc.ClientConnInterface, error)
}

func (p proxy) handle(_ any, down grpc.ServerStream) error {
	method, ok := grpc.MethodFromServerStream(down)
	if !ok {
		return status.Error(codes.Internal, "control: the call has no method")
	}
	md, _ := metadata.FromIncomingContext(down.Context())
	targets := md.Get(targetKey)
	if len(targets) != 1 {
		return status.Errorf(codes.Unimplemented, "control: unknown method %s: the node is of another version than this command, or the peer to call is missing", method)
	}
	cc, err := p.conn(targets[0])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(down.Context(), forwardable(md)))
	defer cancel()
	up, err := cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method, grpc.ForceCodecV2(rawCodec{}))
	if err != nil {
		return err
	}
	// It ends when this handler returns, because that ends down.
	go requests(down, up, cancel)
	return responses(down, up)
}

// requests hands the caller's messages on. What goes wrong at the peer is read by responses.
func requests(down grpc.ServerStream, up grpc.ClientStream, cancel context.CancelFunc) {
	for {
		var f frame
		switch err := down.RecvMsg(&f); {
		case errors.Is(err, io.EOF):
			_ = up.CloseSend()
			return
		case err != nil:
			cancel()
			return
		}
		if up.SendMsg(&f) != nil {
			return
		}
	}
}

// responses hands the peer's answer on and returns its status.
func responses(down grpc.ServerStream, up grpc.ClientStream) error {
	if md, err := up.Header(); err == nil && md != nil {
		if err := down.SendHeader(forwardable(md)); err != nil {
			return err
		}
	}
	for {
		var f frame
		if err := up.RecvMsg(&f); err != nil {
			down.SetTrailer(forwardable(up.Trailer()))
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := down.SendMsg(&f); err != nil {
			return err
		}
	}
}

// forwardable returns a copy of md without what belongs to this connection and what only nodes may say.
func forwardable(md metadata.MD) metadata.MD {
	md = md.Copy()
	for k := range md {
		if strings.HasPrefix(k, ":") || strings.HasPrefix(k, reservedPrefix) || k == detailsKey || k == "content-type" || k == "user-agent" {
			delete(md, k)
		}
	}
	return md
}
