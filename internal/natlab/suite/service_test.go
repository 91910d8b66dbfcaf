//go:build linux

package suite

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// serviceName is the service that nodes offer, without generated code: Echo returns what it gets, Give as many bytes as
// it is told, and Chat each message as it comes.
const serviceName = "lab.Echo"

// largest is what one message may have.
const largest = 64 << 20

var chatDesc = grpc.StreamDesc{StreamName: "Chat", ClientStreams: true, ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
	for {
		in := new(wrapperspb.BytesValue)
		if err := stream.RecvMsg(in); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(in); err != nil {
			return err
		}
	}
}}

// serviceDesc describes the service under a name.
func serviceDesc(name string) *grpc.ServiceDesc {
	echo := func(in *wrapperspb.BytesValue) *wrapperspb.BytesValue { return in }
	give := func(in *wrapperspb.UInt32Value) *wrapperspb.BytesValue {
		return wrapperspb.Bytes(make([]byte, min(in.GetValue(), largest)))
	}
	return &grpc.ServiceDesc{
		ServiceName: name,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			method(name, "Echo", func() *wrapperspb.BytesValue { return new(wrapperspb.BytesValue) }, echo),
			method(name, "Give", func() *wrapperspb.UInt32Value { return new(wrapperspb.UInt32Value) }, give),
		},
		Streams: []grpc.StreamDesc{chatDesc},
	}
}

func method[In proto.Message](service, name string, newIn func() In, f func(In) *wrapperspb.BytesValue) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(srv any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
		in := newIn()
		if err := decode(in); err != nil {
			return nil, err
		}
		if intercept == nil {
			return f(in), nil
		}
		info := &grpc.UnaryServerInfo{Server: srv, FullMethod: "/" + service + "/" + name}
		return intercept(ctx, in, info, func(_ context.Context, req any) (any, error) {
			in, ok := req.(In)
			if !ok {
				return nil, errors.New("suite: another type of request")
			}
			return f(in), nil
		})
	}}
}
