package grpcstream

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// testService has a method of each kind. What it does with a unary call is said by the metadata "do".
type testService struct {
	grpc_testing.UnimplementedTestServiceServer
}

func (testService) EmptyCall(ctx context.Context, _ *grpc_testing.Empty) (*grpc_testing.Empty, error) {
	return &grpc_testing.Empty{}, do(ctx)
}

func (testService) UnaryCall(ctx context.Context, req *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	own := slices.DeleteFunc(slices.Sorted(maps.Keys(md)), func(k string) bool { return !strings.HasPrefix(k, "x-") && !strings.HasPrefix(k, "p2p-") })
	if err := errors.Join(
		grpc.SetHeader(ctx, metadata.Pairs("x-header", "h")),
		grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", "t")),
	); err != nil {
		return nil, err
	}
	p, _ := PeerFromContext(ctx)
	return &grpc_testing.SimpleResponse{
		Payload:  req.GetPayload(),
		Username: p.ID.String(),
		Hostname: strings.Join(own, ","),
		ServerId: string(p.Path) + " " + p.Transport,
	}, do(ctx)
}

func (testService) StreamingOutputCall(req *grpc_testing.StreamingOutputCallRequest, s grpc_testing.TestService_StreamingOutputCallServer) error {
	if err := do(s.Context()); err != nil {
		return err
	}
	for _, p := range req.GetResponseParameters() {
		if err := s.Send(&grpc_testing.StreamingOutputCallResponse{Payload: &grpc_testing.Payload{Body: make([]byte, p.GetSize())}}); err != nil {
			return err
		}
	}
	return nil
}

func (testService) StreamingInputCall(s grpc_testing.TestService_StreamingInputCallServer) error {
	total := int32(0)
	for {
		req, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return s.SendAndClose(&grpc_testing.StreamingInputCallResponse{AggregatedPayloadSize: total})
		}
		if err != nil {
			return err
		}
		total += int32(len(req.GetPayload().GetBody()))
	}
}

func (testService) FullDuplexCall(s grpc_testing.TestService_FullDuplexCallServer) error {
	if err := do(s.Context()); err != nil {
		return err
	}
	for {
		req, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.Send(&grpc_testing.StreamingOutputCallResponse{Payload: req.GetPayload()}); err != nil {
			return err
		}
	}
}

func do(ctx context.Context) error {
	switch strings.Join(metadata.ValueFromIncomingContext(ctx, "do"), "") {
	case "panic":
		panic("as asked")
	case "hang":
		<-ctx.Done()
		return ctx.Err()
	case "fail":
		st, err := status.New(codes.FailedPrecondition, "as asked").WithDetails(
			&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)})
		if err != nil {
			return err
		}
		return st.Err()
	}
	return nil
}

func asking(ctx context.Context, what string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "do", what)
}
